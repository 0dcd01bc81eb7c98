"""``minicontainer run`` by an ordinary user: in a user namespace of his own, with what the host gives him."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from abilities import USER_ID, as_user_prefix, cgroup2_mounts
from box import CLI, Done, copy_of, refusal
from supplies import Run

pytestmark = pytest.mark.needs("user", "userns")


@pytest.fixture
def root(rootfs: Path, user_directory: Path) -> Path:
    """A root file system of the user's own."""
    path = copy_of(rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(path)], check=True)
    return path


class UserBox:
    """Runs containers as the ordinary user."""

    def __init__(self, run: Run, rootfs: Path) -> None:
        self._run, self.rootfs = run, rootfs

    def run(self, *words: str, options: tuple[str | Path, ...] = (), path: str | None = None) -> Done:
        environment = [] if path is None else ["env", f"PATH={path}"]
        return self._run([*environment, *CLI, "run", *options, self.rootfs, *words])

    def sh(self, script: str, *options: str | Path, path: str | None = None) -> str:
        done = self.run("sh", "-c", script, options=options, path=path)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.strip()


@pytest.fixture
def box(as_user: Run, root: Path) -> UserBox:
    return UserBox(as_user, root)


@pytest.fixture
def narrow(tmp_path: Path) -> str:
    """A PATH without newuidmap and newgidmap: one id can be mapped."""
    for tool in ("sh", "ls"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}")
    tmp_path.chmod(0o755)
    return str(tmp_path)


def test_root_inside_himself_outside(box: UserBox, narrow: str) -> None:
    script = (
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; touch /made; stat -c %u /made"
    )
    words = box.sh(script, path=narrow).split()
    assert words == ["0", "0", "0", str(USER_ID), "1", "0", str(USER_ID), "1", "deny", "0"]
    assert (box.rootfs / "made").stat().st_uid == USER_ID


def test_keep_id(box: UserBox, narrow: str) -> None:
    script = "id -u; id -g; touch /made; stat -c %u /made"
    for path in (narrow, None):
        assert box.sh(script, "--userns", "keep-id", path=path).split() == [str(USER_ID)] * 3
        assert (box.rootfs / "made").stat().st_uid == USER_ID


def test_ranges(box: UserBox) -> None:
    """newuidmap(1) and /etc/subuid: further ids are there, and other users of the container are others outside."""
    rows = box.sh("cat /proc/self/uid_map").splitlines()
    assert [row.split() for row in rows] == [["0", str(USER_ID), "1"], ["1", "100000", "65536"]]
    assert box.sh("id -u; id -g; cat /proc/self/setgroups", "--user", "7:8").split() == ["7", "8", "allow"]
    assert "5 44" in box.sh("grep Groups: /proc/self/status", "--group-add", "5", "--group-add", "44")
    assert box.sh("touch /tmp/made; stat -c %u /tmp/made", "--user", "7") == "7"
    assert (box.rootfs / "tmp/made").stat().st_uid == 100006
    box.sh("rm /tmp/made")


def test_other_users_without_ranges(box: UserBox, narrow: str) -> None:
    done = box.run("true", options=("--user", "7"), path=narrow)
    refusal(done, says=["--user 7", "only 0:0 is mapped", "newuidmap"])
    done = box.run("true", options=("--group-add", "5"), path=narrow)
    refusal(done, says=["--group-add 5", "newuidmap"])
    refusal(box.run("true", options=("--user", "70000")), says=["--user 70000", "no mapping"])


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "one-id"])
def test_a_whole_container(box: UserBox, narrow: str, ranges: bool) -> None:
    """As root's: its own namespaces, file systems and devices, and no more rights than there."""
    script = """
        hostname; ip -o addr show lo | grep -c 127.0.0.1; ps -o pid,args | awk '$1 == 1 {print $1, $2}'
        grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | cut -f2
        for n in null zero full random urandom tty; do stat -c '%t:%T %a' /dev/$n; done
        echo x >/dev/null; head -c 2 /dev/zero | od -An -tx1; touch /dev/shm/x /dev/x && echo written
        cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/$'; touch /proc/sys/kernel/x 2>/dev/null || echo refused
    """
    lines = box.sh(script, "--hostname", "his", path=None if ranges else narrow).splitlines()
    assert [line.strip() for line in lines] == [
        "his", "1", "1 sh", "00000000a80405fb", "00000000a80405fb", "1",
        "1:3 666", "1:5 666", "1:7 666", "1:8 666", "1:9 666", "5:0 666",
        "00 00", "written", "1", "refused",
    ]  # fmt: skip


def test_options(box: UserBox, user_directory: Path, narrow: str) -> None:
    (user_directory / "file").write_text("host\n", encoding="ascii")
    os.chown(user_directory / "file", USER_ID, USER_ID)
    options: tuple[str | Path, ...] = ("-v", f"{user_directory}/file:/x/file:ro", "--tmpfs", "/t:size=1m", "--init")
    for path in (None, narrow):
        assert box.sh("cat /x/file; touch /x/file 2>/dev/null || touch /t/y", *options, path=path) == "host"
    assert box.sh("touch /x 2>/dev/null || echo no", "--read-only") == "no"
    assert box.sh("cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1") == "1"
    assert box.sh("ls /sys/class/net | head -n1; readlink /proc/self/ns/net", "--network", "host").endswith(
        os.readlink("/proc/self/ns/net")
    )
    refusal(box.run("true", options=("--userns", "host")), says=["--userns host", "an ordinary user"])
    refusal(box.run("true", options=("--ulimit", "nofile=99999999")), says=["--ulimit nofile", "CAP_SYS_RESOURCE"])
    refusal(box.run("true", options=("--oom-score-adj", "-500")), says=["--oom-score-adj -500", "CAP_SYS_RESOURCE"])


def test_the_filter(box: UserBox) -> None:
    """He has every right in a user namespace of his own, and the filter refuses what these would allow."""
    script = "grep ^Seccomp: /proc/self/status | cut -f2; unshare -n true 2>/dev/null || echo refused"
    assert box.sh(script, "--cap-add", "ALL", "--cap-drop", "SYS_ADMIN").split() == ["2", "refused"]
    assert box.sh(script, "--cap-add", "ALL").split() == ["2"]
    assert box.sh(script, "--cap-add", "ALL", "--security-opt", "seccomp=unconfined").split() == ["0"]
    assert box.sh("unshare -Ur true 2>/dev/null || echo refused") == "refused"
    assert box.sh("unshare -Ur true", "--security-opt", "seccomp=unconfined") == ""


@pytest.mark.needs("overlay")
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "one-id"])
def test_ephemeral(box: UserBox, narrow: str, ranges: bool) -> None:
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in box.rootfs.rglob("*"))
    script = "echo new >/etc/passwd; rm /etc/hosts; mkdir /made; touch /made/x; ls /etc /made; cat /etc/passwd"
    told = box.sh(script, "--ephemeral", path=None if ranges else narrow).split()
    assert told[-2:] == ["x", "new"]
    assert "hosts" not in told
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in box.rootfs.rglob("*")) == before


def test_exit_codes_and_signals(box: UserBox, narrow: str) -> None:
    for path in (None, narrow):
        assert box.run("sh", "-c", "exit 9", path=path).returncode == 9
        refusal(box.run("/none", path=path), 127, ["/none"])
        refusal(box.run("sleep", "100", options=("--timeout", "0.5"), path=path), 124, ["--timeout"])
        assert box.run("sh", "-c", "kill -9 $$", options=("--init",), path=path).returncode == 137


def test_a_name_of_his_own(box: UserBox) -> None:
    assert box.sh("hostname", "--name", "mine") == "mine"


def test_a_rootfs_that_he_cannot_read(box: UserBox) -> None:
    os.chown(box.rootfs, 0, 0)
    box.rootfs.chmod(0o700)
    refusal(box.run("true"), says=["rootfs", str(box.rootfs), f"user id {USER_ID}"])
    box.rootfs.parent.chmod(0o700)
    os.chown(box.rootfs.parent, 0, 0)
    refusal(box.run("true"), says=["rootfs", str(box.rootfs), "permission denied"])


def test_a_rootfs_of_another(box: UserBox, rootfs: Path, as_user: Run) -> None:
    """He may read it: it runs, and what he cannot write stays."""
    script = "touch /x 2>/dev/null || echo refused; id -u"
    done = as_user([*CLI, "run", rootfs, "sh", "-c", script])
    assert (done.returncode, done.stdout) == (0, "refused\n0\n"), done


@contextlib.contextmanager
def sysctl(name: str, value: str) -> Iterator[None]:
    """A sysctl of the host, and back."""
    path = Path("/proc/sys") / name
    before = path.read_text(encoding="ascii")
    path.write_text(value, encoding="ascii")
    try:
        yield
    finally:
        path.write_text(before, encoding="ascii")


@pytest.mark.parametrize("name", ["user/max_user_namespaces", "kernel/unprivileged_userns_clone"])
def test_user_namespaces_disabled(box: UserBox, name: str) -> None:
    if not os.path.exists(f"/proc/sys/{name}"):
        name = "user/max_user_namespaces"
    with sysctl(name, "0"):
        refusal(box.run("true"), says=[f"sysctl {name.replace('/', '.')}=0", "as root"])
    assert box.sh("echo again") == "again"


def test_no_namespaces_left(box: UserBox) -> None:
    with sysctl("user/max_net_namespaces", "0"):
        refusal(box.run("true"), says=["clone3", "user.max_*_namespaces"])


# ---- limits: refused with the remedy, or kept where a cgroup was delegated


def test_limits_that_were_not_delegated(box: UserBox) -> None:
    for option, value in (("--memory", "64m"), ("--pids-limit", "10"), ("--cpus", "1")):
        refusal(box.run("true", options=(option, value)), says=[option, "not delegated", "systemd-run"])
    assert box.sh("echo ran") == "ran"


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup that belongs to the user, with controllers (cgroups(7), "Delegation")."""
    top = cgroup2_mounts()[0]
    wanted = {"memory", "pids", "cpu"} & set((top / "cgroup.controllers").read_text(encoding="ascii").split())
    (top / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(wanted)), encoding="ascii")
    group = top / "test-delegated"
    group.mkdir()
    for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
        os.chown(path, USER_ID, USER_ID)
    yield group
    for parent, directories, _ in os.walk(group, topdown=False):
        for name in directories:
            os.rmdir(os.path.join(parent, name))
    group.rmdir()


def run_in(group: Path, *words: str | Path) -> Done:
    """The user's command line, started in a cgroup of his."""
    script = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
    command = ["sh", "-c", script, "sh", str(group), *as_user_prefix(), *CLI, "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


@pytest.mark.needs("cgroup-memory", "cgroup-pids", "cgroup-cpu")
def test_limits_that_were_delegated(root: Path, delegated: Path) -> None:
    script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max; cat /proc/self/cgroup"
    done = run_in(delegated, "-m", "64m", "--pids-limit", "30", "--cpus", "0.5", root, "sh", "-c", script)
    assert done.stdout.split() == ["67108864", "30", "50000", "100000", "0::/"], done


@pytest.mark.needs("cgroup-memory")
def test_a_delegated_limit_is_kept(root: Path, delegated: Path) -> None:
    hungry = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo held"
    done = run_in(delegated, "-m", "32m", "--memory-swap", "32m", root, "sh", "-c", hungry)
    refusal(done, 137, ["--memory", "out of memory"])


# ---- less than root


@pytest.mark.parametrize("missing", ["sys_admin", "sys_resource"])
def test_root_without_a_capability(rootfs: Path, missing: str) -> None:
    """As in a container: what is missing is named."""
    less = ["setpriv", f"--bounding-set=-{missing}", f"--inh-caps=-{missing}", "--", *CLI, "run"]
    options = ["--userns", "host", "--cap-add", missing] if missing == "sys_resource" else []
    command = [*less, *options, str(rootfs), "true"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    refusal(done, says=[missing.upper()])
