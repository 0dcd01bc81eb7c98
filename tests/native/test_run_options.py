"""Each option of ``minicontainer run``, by its effect as seen from inside the container."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from box import CLI, Box, copy_of, line_of, processes, python, python_options, started, until

pytestmark = pytest.mark.needs("root")


# ---- who and where


def test_hostname(box: Box) -> None:
    assert box.sh("hostname; echo $HOSTNAME", "--hostname", "my_host.example") == "my_host.example\nmy_host.example"
    assert re.fullmatch(r"([0-9a-f]{12})\n\1", box.sh("hostname; echo $HOSTNAME"))
    assert box.sh("hostname", "--name", "called-so") == "called-so"
    assert box.sh("hostname", "-h", "x" * 64) == "x" * 64
    name = os.uname().nodename
    assert box.sh("hostname; echo $HOSTNAME", "--uts", "host") == f"{name}\n{name}"


def test_an_unnamed_one_is_called_by_its_id(box: Box, tmp_path: Path) -> None:
    """Everywhere, though all of one spec have one plan; a dry run has no id to show."""
    meta = tmp_path / "meta"
    script = "hostname; echo $HOSTNAME; grep $(hostname) /etc/hosts"
    options = ["--add-host", "x:192.0.2.1", "--meta", meta]
    for more in ([], ["--network", "host"]):
        own = box.sh(script, *options, *more).split()
        identifier = json.loads(meta.read_text())["id"]
        assert own == [identifier, identifier, "127.0.1.1", identifier]
    shown = box.run("true", options=["--dry-run"]).stdout
    assert 'sethostname("<its-own-id>", 12)' in shown
    assert '"HOSTNAME=<its-own-id>"' in shown
    explained = box.run("true", options=["--explain"]).stderr
    assert re.search(r'sethostname\("[0-9a-f]{12}", 12\) = 0', explained)


def test_environment(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPIED", "from the caller")
    (tmp_path / "env").write_text("# a comment\n  A=1\n\nB=2 # no comment\nCOPIED\nD=a=b\n", encoding="utf-8")
    options = [
        "--env-file",
        tmp_path / "env",
        "-e",
        "A=over",
        "-e",
        "EMPTY=",
        "-e",
        "HOME=/x",
        "-e",
        "N=a\nb",
        "-h",
        "box",
    ]
    lines = box.run("env", "-0", options=options).stdout.split("\0")
    assert sorted(filter(None, lines)) == sorted(
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=box",
            "HOME=/x",
            "A=over",
            "B=2 # no comment",
            "COPIED=from the caller",
            "D=a=b",
            "EMPTY=",
            "N=a\nb",
        ]
    )


def test_an_env_file_as_docker_reads_it(box: Box, tmp_path: Path) -> None:
    """A byte order mark, CRLF, blanks before a name and no end of the last line count for nothing; blanks after = and
    at the end, quotes and # are the value's."""
    lines = '\ufeffFIRST=1\r\n \t # no variable\r\n\t A=é x \r\n  \r\nB= "q" # c\r\nLAST=x=y'
    (tmp_path / "env").write_bytes(lines.encode())
    found = box.run("env", "-0", options=["--env-file", tmp_path / "env"]).stdout.split("\0")
    assert [line for line in found if line.split("=")[0] in ("FIRST", "A", "B", "LAST")] == [
        "FIRST=1",
        "A=é x ",
        'B= "q" # c',
        "LAST=x=y",
    ]
    assert not [line for line in found if "no variable" in line]


def test_workdir(box: Box) -> None:
    assert box.sh("pwd", "-w", "/usr/../etc") == "/etc"
    assert box.sh("pwd", "--workdir=/../..") == "/"


def test_umask(box: Box) -> None:
    assert box.sh("umask; cd /tmp; grep Umask /proc/self/status") == "0022\nUmask:\t0022"
    assert box.sh("umask", "--umask", "077") == "0077"


def test_oom_score_adj(box: Box) -> None:
    before = Path("/proc/self/oom_score_adj").read_text(encoding="ascii")
    assert box.sh("cat /proc/self/oom_score_adj", "--oom-score-adj", "321") == "321"
    assert Path("/proc/self/oom_score_adj").read_text(encoding="ascii") == before


# ---- files


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the host with a file in it, whose name needs care."""
    path = tmp_path / "a shared,dir"
    path.mkdir()
    (path / "file").write_text("host\n", encoding="ascii")
    return path


def test_volumes(own_box: Box, shared: Path) -> None:
    assert own_box.sh("cat /new/place/file; echo in > /new/place/made", "-v", f"{shared}:/new/place") == "host"
    assert (shared / "made").read_text(encoding="ascii") == "in\n"
    script = "cat /x/file; touch /x/file 2>/dev/null || touch /x/y 2>/dev/null || echo read-only"
    assert own_box.sh(script, "-v", f"{shared}:/x:ro") == "host\nread-only"
    assert own_box.sh("cat /etc/hosts; echo in >/etc/hosts", "-v", f"{shared}/file:/etc/hosts") == "host"
    assert (shared / "file").read_text(encoding="ascii") == "in\n"
    assert own_box.sh("ls /z", "-v", "./file:/z", cwd=shared) == "/z"  # relative: the caller's


def test_nested_volumes(own_box: Box, shared: Path) -> None:
    """A parent is mounted before its children, in whatever order they are given."""
    options = ["-v", f"{shared}/file:/x/y/z/deep", "--tmpfs", "/x/y/z/", "-v", f"{shared}:/x/"]
    assert own_box.sh("ls /x/y/z; cat /x/y/z/deep; cat /x/file", *options) == "deep\nhost\nhost"
    assert (shared / "y/z").is_dir()


def test_submounts_of_a_volume(own_box: Box, shared: Path) -> None:
    """They come along, and a read-only volume makes them read-only too."""
    (shared / "sub").mkdir()
    inner = [*CLI, "run", "-v", f"{shared}:/x:ro", str(own_box.rootfs)]
    script = 'mount -t tmpfs t "$1" && touch "$1/in" && shift && exec "$@"'
    tail = ["sh", "-c", "ls /x/sub; touch /x/sub/y || echo refused"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(shared / "sub"), *inner, *tail]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "in\nrefused\n", done


def test_a_volume_below_proc(box: Box, shared: Path) -> None:
    assert box.sh("cat /proc/version /proc/sys/kernel/ostype", "-v", f"{shared}/file:/proc/version") == "host\nLinux"


def test_options_of_volumes(own_box: Box, shared: Path) -> None:
    options = ["-v", f"{shared}:/x:ro,nosuid,nodev,noexec", "--mount", f"type=bind,src={shared.parent},dst=/y,ro"]
    mounts = own_box.sh("grep -E ' /(x|y) ' /proc/self/mounts", *options).splitlines()
    flags = {line.split()[1]: set(line.split()[3].split(",")) for line in mounts}
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags["/x"]
    assert "ro" in flags["/y"]
    assert "noexec" not in flags["/y"]


@pytest.mark.parametrize("word", ["readonly", "ro", "readonly=true", "ro=1"])
def test_mount(own_box: Box, shared: Path, word: str) -> None:
    (shared.parent / "plain").mkdir()
    option = f"type=bind,source={shared.parent}/plain,target=/x"
    assert own_box.sh("touch /x/y 2>/dev/null || echo refused", "--mount", f"{option},{word}") == "refused"
    assert own_box.sh("touch /x/y && echo made", "--mount", f"{option},readonly=false") == "made"


def test_tmpfs(own_box: Box) -> None:
    options = ["--tmpfs", "/t:size=1m,mode=1750", "--mount", "type=tmpfs,dst=/u,tmpfs-size=2m,tmpfs-mode=700"]
    options += ["--tmpfs", "/v:exec,ro", "--tmpfs", "/w"]
    mounts = own_box.sh("grep -E ' /[tuvw] ' /proc/self/mounts", *options)
    flags = {line.split()[1]: set(line.split()[3].split(",")) for line in mounts.splitlines()}
    assert {"rw", "nosuid", "nodev", "noexec", "size=1024k", "mode=1750"} <= flags["/t"]
    assert {"size=2048k", "mode=700"} <= flags["/u"]
    assert "ro" in flags["/v"]
    assert "noexec" not in flags["/v"]
    assert own_box.sh("stat -c %a /w", *options) == "1777"
    full = own_box.sh("dd if=/dev/zero of=/t/x bs=1k count=2000 2>&1 | tail -n1; ls -s /t/x", *options)
    assert full.endswith("1024 /t/x")


@pytest.mark.parametrize("userns", ["private", "host"])
def test_a_tmpfs_of_somebodys(box: Box, userns: str) -> None:
    """uid and gid are those that the container counts; a share of the memory; so many files."""
    option = "/run:uid=1234,gid=5678,mode=700,nr_inodes=4,size=50%"
    fill = "touch /run/a /run/b /run/c; touch /run/d 2>/dev/null || echo full"
    said = box.sh(
        f"stat -c '%u %g %a' /run; {fill}; df -k /run | tail -n1", "--tmpfs", option, "-u", "1234", "--userns", userns
    ).split()
    assert said[:4] == ["1234", "5678", "700", "full"]
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    assert abs(int(said[5]) - memory / 2) <= 1024


def test_read_only(own_box: Box) -> None:
    """ROOTFS is, not what is mounted in it; targets of volumes are made all the same."""
    script = "touch /x 2>/dev/null || echo no; touch /dev/shm/x /dev/x /run/x && cat /etc/x"
    options = ["--read-only", "--tmpfs", "/run", "-v", f"{own_box.rootfs}/etc/group:/etc/x"]
    assert own_box.sh(script, *options).startswith("no\nroot:x:0:")


def test_shm_size(box: Box) -> None:
    assert box.sh("df -k /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2") == "65536"
    assert box.sh("df -k /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2", "--shm-size", "1m") == "1024"


def test_device(box: Box) -> None:
    options = ["--device", "/dev/zero:/dev/deep/naught", "--device=/dev/full:/dev/null:rw", "--device", "/dev/urandom"]
    script = "head -c 3 /dev/deep/naught | od -An -tx1; stat -c '%t:%T %a' /dev/deep/naught /dev/null /dev/urandom"
    assert box.sh(script, *options).split("\n") == [" 00 00 00".strip(), "1:5 666", "1:7 666", "1:9 666"]


@pytest.mark.needs("overlay")
@pytest.mark.parametrize("name", ["root", "with space", "with,comma", "with:colon", 'with\\back"slash', "with\nline"])
def test_ephemeral(rootfs: Path, minicontainer_cli: object, tmp_path: Path, name: str) -> None:
    root = copy_of(rootfs, tmp_path / name)
    own = Box(minicontainer_cli, root)  # type: ignore[arg-type]
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))
    script = "echo new >/etc/passwd; rm /bin/ls; rm -r /home; mkdir /home /made; cat /etc/passwd; ls -d /home /made"
    script = script.replace("ls -d", "busybox ls -d")
    assert own.sh(script, "--ephemeral", "--hostname", "x") == "new\n/home\n/made"
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*")) == before
    assert own.sh("echo kept >/etc/made; cat /etc/made") == "kept"
    assert (root / "etc/made").exists()


@pytest.mark.needs("overlay", "userns")
def test_ephemeral_in_a_user_namespace(own_box: Box) -> None:
    script = "echo new >/etc/passwd; rm /etc/hosts; mkdir /made; cat /etc/passwd; ls /etc/hosts 2>/dev/null"
    done = own_box.run("sh", "-c", script, options=["--ephemeral", "--userns", "private"])
    assert (done.stdout, done.stderr) == ("new\n", "")
    assert (own_box.rootfs / "etc/hosts").exists()
    assert not (own_box.rootfs / "made").exists()


@pytest.mark.needs("overlay")
def test_ephemeral_and_volumes(own_box: Box, shared: Path) -> None:
    assert own_box.sh("cat /x/file; ls /y", "--ephemeral", "-v", f"{shared}:/x", "--tmpfs", "/y") == "host"
    assert not (own_box.rootfs / "x").exists()


# ---- the program


def test_command(box: Box) -> None:
    assert box.run(input="echo a shell; exit 3\n").stdout == "a shell\n"
    done = box.run("echo", "--read-only", "-t", "--", "$HOME", "--explain=json:x")
    assert done.stdout == "--read-only -t -- $HOME --explain=json:x\n"
    assert box.run("echo", "x", options=["--"]).stdout == "x\n"
    assert box.run("a", "b", options=["--entrypoint", "echo"]).stdout == "a b\n"
    assert box.run(options=["--entrypoint", "/bin/pwd", "-i", "--rm"]).stdout == "/\n"


def test_short_options_in_one_word(box: Box) -> None:
    assert box.run("sh", "-c", "echo $A; pwd", options=["-ieA=1", "-w/etc"]).stdout == "1\n/etc\n"


@pytest.mark.parametrize("init", [[], ["--init"]], ids=["plain", "init"])
def test_exit_code(box: Box, init: list[str]) -> None:
    assert [box.run("sh", "-c", f"exit {n}", options=init).returncode for n in (0, 7, 255)] == [0, 7, 255]


def test_a_signal_is_128_more(box: Box) -> None:
    assert box.run("sh", "-c", "kill -TERM $$", options=["--init"]).returncode == 143
    assert box.run("sh", "-c", "kill -KILL $$", options=["--pid", "host"]).returncode == 137


def test_init_reaps_orphans(box: Box) -> None:
    script = "(sleep 0.1 & sleep 0.1 &); sleep 0.4; cat /proc/[0-9]*/stat | cut -d' ' -f3 | tr -d '\\n'"
    assert "Z" not in box.sh(script, "--init")
    assert box.sh("cat /proc/1/comm; echo $PPID", "--init") == "init\n1"


def test_init_is_not_a_file_of_the_host(box: Box) -> None:
    """CVE-2019-5736: a sealed copy in memory, of which the container can change nothing."""
    script = "readlink /proc/1/exe; (: >/proc/1/exe) 2>/dev/null || echo refused"
    assert box.sh(script, "--init", "--cap-add", "SYS_PTRACE").split("\n")[1] == "refused"
    assert "memfd:minicontainer-init" in box.sh(script, "--init", "--cap-add", "SYS_PTRACE")


# ---- what the kernel allows


def test_capabilities(box: Box) -> None:
    script = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u"
    assert box.sh(script) == "00000000a80405fb"
    assert box.sh(script, "--cap-drop", "ALL") == "0" * 16
    assert box.sh(script, "--cap-drop", "all", "--cap-add", "cap_kill") == "0000000000000020"
    assert int(box.sh(script, "--cap-add", "sys_ptrace"), 16) == 0xA80405FB | 1 << 19
    assert int(box.sh(script, "--cap-drop", "CHOWN", "--cap-drop", "mknod"), 16) == 0xA80405FB & ~(1 | 1 << 27)
    own = Path("/proc/self/status").read_text(encoding="utf-8").partition("CapPrm:\t")[2][:16]
    assert box.sh(script, "--cap-add", "ALL", "--userns", "host") == own
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    assert int(box.sh(script, "--cap-add", "ALL"), 16) == 2 ** (last + 1) - 1  # of its user namespace
    assert int(box.sh(script, "--cap-add", "ALL", "--cap-drop", "KILL"), 16) == 2 ** (last + 1) - 1 & ~0x20
    assert box.sh("chown 1 /tmp 2>/dev/null || echo refused", "--cap-drop", "CHOWN", "--read-only") == "refused"


def test_no_new_privileges(own_box: Box) -> None:
    """A set-user-ID file gives its rights only where that is asked for."""
    su = own_box.rootfs / "bin/set-uid"
    su.write_bytes(Path("/bin/cat").read_bytes())
    su.chmod(0o4755)
    script = "grep NoNewPrivs: /proc/self/status; set-uid /proc/self/status | grep ^Uid:"
    libraries = ["-u", "1000", *python_options()]
    kept = own_box.sh(script, *libraries).split()
    assert kept == ["NoNewPrivs:", "1", "Uid:", "1000", "1000", "1000", "1000"]
    gained = own_box.sh(script, *libraries, "--security-opt", "no-new-privileges=false").split()
    assert gained == ["NoNewPrivs:", "0", "Uid:", "1000", "0", "0", "0"]
    assert own_box.sh(script.partition(";")[0], "--security-opt", "no-new-privileges").split()[1] == "1"


def _refuse(call: int) -> bytes:
    """struct sock_filter (linux/filter.h), code, jt, jf, k: load nr; if it is ``call``, errno 77; else allow."""
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | 77), (0x06, 0, 0, 0x7FFF0000)]
    return b"".join(struct.pack("=HBBI", *step) for step in program)


@pytest.mark.parametrize("more", [[], ["--security-opt", "no-new-privileges=false"]], ids=["nnp", "no-nnp"])
def test_seccomp(box: Box, tmp_path: Path, more: list[str]) -> None:
    mkdir = 83 if os.uname().machine == "x86_64" else 34
    (tmp_path / "filter").write_bytes(_refuse(mkdir))
    script = "grep Seccomp: /proc/self/status | cut -f2; mkdir /dev/shm/x 2>/dev/null || echo refused"
    assert box.sh(script, "--security-opt", f"seccomp={tmp_path}/filter", *more) == "2\nrefused"
    assert box.sh(script, "--security-opt", "seccomp=unconfined", *more) == "0"


def test_privileged(box: Box) -> None:
    script = "grep NoNewPrivs /proc/self/status | cut -f2; grep -c -E ' /(proc|sys)/[a-eg-z]' /proc/self/mounts"
    assert box.run("sh", "-c", script, options=["--privileged"]).stdout == "0\n0\n"
    assert box.sh("mount -t tmpfs t /mnt && echo mounted", "--privileged") == "mounted"


def test_sysctl(box: Box) -> None:
    options = [
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--sysctl",
        "kernel.msgmax=12345",
        "--sysctl",
        "net/ipv4/ip_default_ttl=9",
    ]
    script = (
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax net/ipv4/ip_default_ttl; echo 1 2>/dev/null >kernel/msgmax"
    )
    done = box.run("sh", "-c", script, options=options)
    assert done.stdout.split() == ["1", "12345", "9"]
    assert done.returncode != 0  # read-only afterwards


# ---- namespaces

KINDS = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroupns": "cgroup", "userns": "user"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "userns"])
def test_namespace_of_the_host(box: Box, kind: str) -> None:
    file = KINDS[kind]
    assert box.sh(f"readlink /proc/self/ns/{file}", f"--{kind}", "host") == os.readlink(f"/proc/self/ns/{file}")


@pytest.fixture(scope="module")
def other(rootfs: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """A running container: its process 1 as the host counts, and its namespaces."""
    script = "echo 65432 > /proc/sys/kernel/msgmax; echo here; exec sleep 1000"
    options = ["--hostname", "other", "--privileged", "--sysctl", "kernel.msgmax=54321"]
    with started("run", *options, rootfs, "sh", "-c", script) as process:
        assert line_of(process) == "here"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pid = int(until(lambda: children.read_text(encoding="ascii")).split()[0])
        yield pid, {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS.values()}


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "cgroupns"])
@pytest.mark.parametrize("how", ["pid:{}", "ns:/proc/{}/ns/{}"])
def test_namespace_of_another(box: Box, other: tuple[int, dict[str, str]], kind: str, how: str) -> None:
    pid, namespaces = other
    option = how.format(pid, KINDS[kind])
    script = f"readlink /proc/self/ns/{KINDS[kind]}"
    assert box.sh(script, f"--{kind}", option) == namespaces[KINDS[kind]]


def test_what_is_seen_in_the_namespaces_of_another(box: Box, other: tuple[int, dict[str, str]]) -> None:
    pid = f"pid:{other[0]}"
    assert box.sh("hostname", "--uts", pid) == "other"
    assert "HOSTNAME" not in box.run("env", options=["--uts", pid]).stdout  # it is not ours to tell
    assert "sleep 1000" in box.sh("ps -o args", "--pid", pid)
    assert box.sh("cat /proc/sys/kernel/msgmax", "--ipc", pid) == "65432"
    assert box.run("sh", "-c", "exit 5", options=["--pid", pid]).returncode == 5
    box.refused("/none", options=["--pid", pid], code=127, says=["program /none"])


def test_network_of_the_host(box: Box) -> None:
    names = set(os.listdir("/sys/class/net"))
    assert set(box.sh("ls /sys/class/net", "--network", "host").split()) == names


def test_ipc_of_the_host(box: Box) -> None:
    """System V's objects, and POSIX shared memory in /dev/shm."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(b"shared")
        f.flush()
        os.chmod(f.name, 0o644)
        assert box.sh(f"cat {f.name}", "--ipc", "host") == "shared"
        assert box.sh("cat /dev/shm/* 2>/dev/null | wc -c") == "0"


def test_pid_of_the_host(box: Box) -> None:
    """The processes of the host are seen; those that the container leaves are ended with it."""
    script = f"test -d /proc/{os.getpid()} && echo seen; setsid sleep 1234.5 >/dev/null 2>&1 </dev/null &"
    assert box.sh(f"{script} sleep 0.1", "--pid", "host") == "seen"
    until(lambda: not processes("sleep\x001234.5"))


@pytest.mark.needs("userns")
@pytest.mark.parametrize("kind", ["auto", "private", "700000:800000:3000", "keep-id", None])
def test_user_namespace_as_root(own_box: Box, kind: str | None) -> None:
    """Ids of its own, or for keep-id the caller's; what it writes belongs to the caller in any case."""
    script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; touch /made; ls -l /dev/null | cut -c1"
    words = own_box.sh(script, *(("--userns", kind) if kind else ())).split()
    if kind == "keep-id":
        rows = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
        inside = [word for first, _, count in rows for word in (first, first, count)]
        assert words[: 1 + len(inside)] == ["0", *inside]
    elif kind and ":" in kind:
        assert words[:4] == ["0", "0", "700000", "3000"]
    else:
        assert (words[:2], words[3]) == (["0", "0"], "65536")
        assert int(words[2]) >= 65536
    assert words[-2] != os.readlink("/proc/self/ns/user")
    assert words[-1] == "c"
    assert (own_box.rootfs / "made").stat().st_uid == 0


@pytest.mark.needs("userns")
def test_user_namespace_of_another(box: Box, rootfs: Path) -> None:
    with started("run", "--userns", "private", rootfs, "sh", "-c", "echo here; exec sleep 1000") as process:
        assert line_of(process) == "here"
        pid = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()[0]
        wanted = os.readlink(f"/proc/{pid}/ns/user")
        assert box.sh("readlink /proc/self/ns/user", "--userns", f"pid:{pid}") == wanted
        assert (
            box.sh(
                "readlink /proc/self/ns/user; ps -o args | grep -c '[s]leep'",
                "--userns",
                f"pid:{pid}",
                "--pid",
                f"pid:{pid}",
            )
            == f"{wanted}\n1"
        )


def test_time_namespace(box: Box) -> None:
    """Its own where the kernel enters it at exec (Linux 6.3), else refused with that reason."""
    done = box.run("readlink", "/proc/self/ns/time", options=["--timens", "private"])
    if done.returncode == 0:
        assert done.stdout.strip() != os.readlink("/proc/self/ns/time")
    else:
        assert (done.returncode, "Linux 6.3" in done.stderr) == (125, True)
    own = box.sh("readlink /proc/self/ns/time") != os.readlink("/proc/self/ns/time")
    assert own == (done.returncode == 0)  # by default where it can be
    assert box.sh("readlink /proc/self/ns/time", "--timens", "host") == os.readlink("/proc/self/ns/time")


# ---- names


def test_name(box: Box, rootfs: Path) -> None:
    """Held while it runs, free again after the end: also after kill -9, which ends the container too."""
    name = f"test-name-{os.getpid()}"
    with started("run", "--name", name, rootfs, "sh", "-c", "echo here; exec sleep 1111") as process:
        assert line_of(process) == "here"
        words = [f"--name {name}", "already exists (container "]
        box.refused("true", options=["--name", name], says=words)
        process.kill()
    assert box.sh("hostname", "--name", name) == name
    until(lambda: not processes("sleep\x001111"))
    _clean()


def _clean() -> None:
    """What a killed process could not remove: its container's cgroup."""
    code = "from minicontainer.container.cgroup import orphans; orphans.clean()"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the inside of the host's C library is not needed, but can be shown


def test_a_program_of_the_host(own_box: Box) -> None:
    """A dynamically linked one, with its libraries as read-only volumes."""
    done = own_box.run(python(), "-c", "print(6 * 7)", options=python_options())
    assert (done.stdout, done.stderr) == ("42\n", "")


# ---- what is not inherited


@pytest.mark.parametrize("userns", ["auto", "host", "keep-id"])
def test_limits_are_not_the_callers_but_never_more(rootfs: Path, userns: str) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Sl"
    hard = str(min(524288, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    inside = [*CLI, "run", "--userns", userns, rootfs, "sh", "-c", script]
    for outside, expected in (
        ("ulimit -Sn 256; ulimit -Sc unlimited", ["1024", hard, "0", "8192"]),
        ("ulimit -Sn 256; ulimit -Hn 900; ulimit -Sl 16", ["900", "900", "0", "8192"]),
    ):
        command = ["bash", "-ec", f'{outside}; exec "$@"', "-", *map(str, inside)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == expected
    asked = [*inside[:4], "--ulimit", "nofile=77:88", *inside[4:]]
    done = subprocess.run([*map(str, asked)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["77", "88"]


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_neither_nice_value_nor_oom_score_nor_personality_is_inherited(rootfs: Path, userns: str) -> None:
    script = "cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj /proc/self/personality"
    inside = [*map(str, [*CLI, "run", "--userns", userns, rootfs, "sh", "-c", script])]
    command = ["nice", "-n", "7", "setarch", "-R", "--addr-compat-layout", *inside]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "00000000"]
    worse = ["sh", "-c", 'echo 300 >/proc/self/oom_score_adj; exec "$@"', "-", *inside]
    assert subprocess.run(worse, capture_output=True, text=True, check=True).stdout.split()[1] == "0"
