"""What holds in a container, as the probe of ``run --security-report`` measures it; and no check that cannot fail."""

from __future__ import annotations

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from abilities import NOBODY, USER_ID, as_nobody_prefix
from box import CLI, Box, copy_of, refusal
from supplies import Run

from minicontainer.compare.security import CARELESS, INHERITED
from minicontainer.container.host import has_time_namespace
from minicontainer.container.security import PROBE, outside, parse
from minicontainer.spec import Spec

Verdicts = dict[str, tuple[str, str]]  # "area name": verdict, what was seen


def failed(verdicts: Verdicts) -> set[str]:
    return {name for name, (verdict, _) in verdicts.items() if verdict == "fail"}


def lacking() -> set[str]:
    """What this kernel cannot give: a time namespace of its own comes with Linux 6.3."""
    return set() if has_time_namespace(Spec(rootfs="/")) else {"namespaces time"}


def read(text: str) -> Verdicts:
    return {f"{check.area} {check.name}": (check.verdict, check.seen) for check in parse(text)}


def read_json(path: Path) -> Verdicts:
    areas = json.loads(path.read_text(encoding="utf-8"))
    return {f"{area} {c['name']}": (c["verdict"], c["seen"]) for area, checks in areas.items() for c in checks}


class Reports:
    """``run --security-report`` with options: as root, or as an ordinary user."""

    def __init__(self, run: Run, rootfs: Path, where: Path) -> None:
        self._run, self._rootfs, self._file = run, rootfs, where / "report.json"

    def of(self, *options: str) -> Verdicts:
        done = self._run([*CLI, "run", f"--security-report=json:{self._file}", *options, self._rootfs])
        assert (done.stdout, done.stderr) == ("", "")
        verdicts = read_json(self._file)
        assert done.returncode == int(bool(failed(verdicts)))
        return verdicts


@pytest.fixture
def reports(rootfs: Path, tmp_path: Path) -> Reports:
    def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    return Reports(run, copy_of(rootfs, tmp_path / "busybox"), tmp_path)


# ---- with no option given


@pytest.mark.needs("root")
def test_what_holds_for_root(reports: Reports) -> None:
    verdicts = reports.of()
    assert len(verdicts) > 150
    assert failed(verdicts) == lacking()


@pytest.mark.needs("root", "rig")
def test_what_holds_for_root_on_a_stock_kernel(reports: Reports) -> None:
    verdicts = reports.of()
    assert failed(verdicts) == lacking()
    assert verdicts["cgroups pids.max"] == ("pass", "2048")


@pytest.mark.needs("user", "userns")
def test_what_holds_for_an_ordinary_user(as_user: Run, rootfs: Path, user_directory: Path) -> None:
    mine = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(mine)], check=True)
    verdicts = Reports(as_user, mine, user_directory).of()
    assert len(verdicts) > 150
    assert failed(verdicts) == lacking()


@pytest.mark.needs("root", "userns", "nobody")
def test_what_holds_for_one_whom_no_file_names(rootfs: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        mine = copy_of(rootfs, Path(directory, "root"))
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(mine)], check=True)
        command = [*as_nobody_prefix(), *CLI, "run", "--security-report", str(mine)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.stderr == ""
    failing = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  fail  ")]
    assert failing == [name.rpartition(" ")[2] for name in lacking()]
    assert "checks from inside: " in done.stdout.splitlines()[-1]


@pytest.mark.needs("root")
def test_the_report_for_people(box: Box) -> None:
    done = box._run("run", "--security-report", box.rootfs)
    lines = done.stdout.splitlines()
    assert "user namespace" in lines
    assert any(line.split()[:2] == ["pass", "no_new_privs"] for line in lines)
    passed, failing = (sum(line.startswith(f"  {verdict}  ") for line in lines) for verdict in ("pass", "fail"))
    assert f"{passed} pass, {failing} fail" in lines[-1]
    assert done.returncode == int(failing > 0)


@pytest.mark.needs("root")
def test_it_needs_nothing_of_the_root_file_system_and_leaves_nothing_in_it(reports: Reports, tmp_path: Path) -> None:
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    reports._rootfs = hollow
    assert failed(reports.of("--ephemeral")) == lacking()
    assert list(hollow.iterdir()) == []


@pytest.mark.needs("root")
def test_at_a_terminal_it_is_the_containers_own(rootfs: Path, tmp_path: Path) -> None:
    """With its own terminal, while ours is the caller's."""
    code = f"""
from minicontainer.container.security import examine
from minicontainer.spec import Spec
for check in examine(Spec(rootfs={str(rootfs)!r}, tty=True)):
    if check.area == "terminal":
        print(check.name, check.verdict)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = dict(line.split() for line in done.stdout.splitlines())
    assert told["own-devpts"] == told["not-the-callers"] == told["no-stranger"] == "pass"


@pytest.mark.needs("root")
def test_an_init_is_refused(box: Box) -> None:
    box.refused(options=["--init", "--security-report"], says=["--init", "cannot be"])


@pytest.mark.needs("root")
def test_set_uid_files_where_none_is_needed(reports: Reports) -> None:
    assert reports.of("--read-only")["privileges new-set-uid"] == ("pass", "EPERM")
    assert reports.of("--security-opt=no-new-suid")["privileges new-set-uid"] == ("pass", "EPERM")
    assert reports.of()["privileges new-set-uid"][0] == "skip"


# ---- with a control taken away, its check fails

TAKEN = [
    ("--userns=host", "user namespace own", "user namespace uid_map", "user namespace gid_map"),
    ("--userns=host --security-opt=seccomp=unconfined", "keyring user"),
    ("--privileged --userns=host", "capabilities effective", "capabilities permitted", "capabilities bounding"),
    ("--privileged --userns=host", "privileges no_new_privs", "calls mount", "calls umount2", "calls pivot_root"),
    ("--privileged --userns=host", "calls open_tree", "calls swapon", "calls reboot", "calls settimeofday"),
    ("--privileged --userns=host", "masked interrupts", "masked timer_list", "masked keys"),
    ("--privileged --userns=host", "read-only hostname", "read-only drop_caches"),
    ("--privileged --userns=host", "devices mknod", "devices made-node"),
    ("--security-opt=no-new-privileges=false", "privileges no_new_privs"),
    ("--read-only --security-opt=no-new-suid=false", "privileges new-set-uid"),
    ("--cap-add=NET_RAW", "capabilities effective", "network AF_PACKET", "network raw-socket"),
    ("--security-opt=no-new-privileges=false", "mounts all-nosuid"),
    ("--cap-add=SYS_ADMIN", "capabilities effective", "capabilities permitted", "capabilities bounding"),
    ("--userns=host --cap-add=SYS_TIME", "capabilities effective", "calls settimeofday", "calls adjtimex"),
    ("--userns=host --cap-add=SYS_BOOT", "calls reboot"),
    ("--pid=host", "namespaces pid"),
    ("--network=host", "namespaces net", "network abstract-socket"),
    ("--ipc=host", "namespaces ipc", "namespaces shared-memory"),
    ("--uts=host", "namespaces uts", "namespaces hostname"),
    ("--cgroupns=host", "namespaces cgroup", "cgroups paths-hidden"),
    ("--umask=000", "inherited umask"),
    ("--group-add=4242", "privileges groups"),
    ("--userns=host --volume=/tmp:/tmp --volume=/run:/run", "root host-path"),
]


@pytest.mark.needs("root")
@pytest.mark.parametrize(("options", "names"), [(options, names) for options, *names in TAKEN])
def test_what_is_taken_away_is_told(reports: Reports, options: str, names: Sequence[str]) -> None:
    assert not set(names) - failed(reports.of(*options.split()))


# ---- no check that cannot fail


def probed(*command: str | Path, words: Sequence[str], **options: Any) -> Verdicts:
    """What the probe says, without a container, when ``command`` starts it."""
    done = subprocess.run([*map(str, command), *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def bare(words: Sequence[str], _: Path) -> Verdicts:
    """On the host, by a caller who hands down all that he can."""
    ptys = [fd for _ in range(2) for fd in pty.openpty()]
    ptys.append(os.open("/", os.O_RDONLY))
    try:
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o755)  # it is nobody who runs the program
            program = shutil.copy(PROBE, directory)
            os.chmod(program, 0o4755)
            os.mknod(f"{directory}/node", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            told = [f"setuid={program}", f"node={directory}/node", *INHERITED, *words]
            return probed(*CARELESS, PROBE, words=told, stdin=ptys[1], pass_fds=[ptys[-1]], umask=0)
    finally:
        for fd in ptys:
            os.close(fd)


def same_session(words: Sequence[str], _: Path) -> Verdicts:
    return probed(PROBE, words=words)


def other_credentials(words: Sequence[str], _: Path) -> Verdicts:
    given = "setpriv --inh-caps=+chown --ambient-caps=+chown --groups=4242 --securebits=+noroot"
    return probed(*given.split(), PROBE, words=words)


def idle(words: Sequence[str], _: Path) -> Verdicts:
    return probed("chrt", "--idle", "0", PROBE, words=words)


def first_of_a_pid_namespace(words: Sequence[str], _: Path) -> Verdicts:
    return probed("unshare", "--pid", "--fork", "--mount-proc", PROBE, words=words)


def below_a_shared_second_root(words: Sequence[str], _: Path) -> Verdicts:
    script = 'mount --make-rshared / && mount --bind / / && exec "$@"'
    return probed("unshare", "--mount", "sh", "-c", script, "sh", PROBE, words=words)


def beside_a_second_interface(words: Sequence[str], _: Path) -> Verdicts:
    """Where this kernel can make one: else the host has more."""
    script = 'ip link add probe0 type veth 2>/dev/null; exec "$@"'
    return probed("unshare", "--net", "sh", "-c", script, "sh", PROBE, words=words)


FORGED = "acpi kcore keys latency_stats sched_debug scsi timer_list timer_stats interrupts asound sysrq-trigger".split()


def in_a_forged_root(words: Sequence[str], where: Path) -> Verdicts:
    """Plain files for what should be hidden, and nodes under names that are not theirs."""
    root = where / "forged"
    files = [f"proc/{name}" for name in FORGED] + [
        f"dev/{name}" for name in ("mem", "kmsg", "kvm", "fuse", "loop-control")
    ]
    files += ["sys/firmware/x", "sys/devices/virtual/powercap/x", "sys/devices/system/cpu/cpu0/thermal_throttle/x"]
    files += ["proc/sys/kernel/core_pattern", "proc/sys/kernel/modprobe", "proc/sys/kernel/hostname", "proc/bus/x"]
    files += ["proc/sys/vm/drop_caches", "proc/irq/default_smp_affinity", "proc/fs/x", "proc/kallsyms", "dev/shm/x"]
    files += ["sys/kernel/uevent_helper", "sys/fs/cgroup/rdma/release_agent", "sys/fs/cgroup/pids.max", "dev/pts/x"]
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("max\n" if name.endswith("pids.max") else "ffffffff81000000 T x\n", encoding="ascii")
    for name, minor in (("null", 5), ("zero", 3), ("full", 3), ("random", 3), ("urandom", 3), ("tty", 3)):
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    shutil.copy(PROBE, root / "probe")
    return probed("/probe", words=words, preexec_fn=lambda: os.chroot(root))


CHROOT = "import os, sys; os.chroot(sys.argv[1]); os.execv('/probe', ['/probe', *sys.argv[2:]])"


def in_a_chroot(words: Sequence[str], where: Path) -> Verdicts:
    """Below a process 1 that is outside, and with a working directory that is, too."""
    root = where / "chroot"
    (root / "proc").mkdir(parents=True)
    shutil.copy(PROBE, root / "probe")
    new = ("unshare", "--pid", "--fork", f"--mount-proc={root}/proc", "sh", "-c", '"$@"; exit $?', "sh")
    return probed(*new, sys.executable, "-c", CHROOT, root, words=words, cwd="/")


SITUATIONS: list[Callable[[Sequence[str], Path], Verdicts]] = [
    bare,
    same_session,
    other_credentials,
    idle,
    first_of_a_pid_namespace,
    below_a_shared_second_root,
    beside_a_second_interface,
    in_a_forged_root,
    in_a_chroot,
]


@pytest.mark.needs("root", "true-root")
def test_every_check_can_fail(tmp_path: Path) -> None:
    """Somewhere without a container each fails: but for those of calls and families that this kernel has not, and for
    those of which the test before this one has shown it."""
    with outside() as words:
        found = [situation(words, tmp_path) for situation in SITUATIONS]
    here = found[0]
    unknown = {name for name, (_, seen) in here.items() if seen == "ENOSYS" or "this kernel has none" in seen}
    taken = {name for _, *names in TAKEN for name in names}
    never = set(here) - set().union(*map(failed, found)) - unknown - taken
    assert not never, sorted(never)


# ---- beside others


@pytest.mark.needs("root")
def test_no_control_is_worse_than_under_another_runtime(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [*CLI, "compare", "security", "--meta", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    report = json.loads(file.read_text(encoding="utf-8"))
    runtimes = report["runtimes"]
    assert {"minicontainer", "unshare"} <= set(runtimes)
    assert (done.returncode, report["worse"]) == (0, []), done.stderr
    assert all(name in done.stdout.split() for name in runtimes)
    for name, reason in report["unable"].items():
        assert f"not measured: {name}: {reason}" in done.stdout


def test_an_unknown_runtime_is_told() -> None:
    command = [*CLI, "compare", "security", "--only", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert refusal(done, says=["--only nobody: is no contender (minicontainer, "])
