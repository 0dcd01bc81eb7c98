"""Containers as files: ``./file`` does what ``minicontainer run`` does, without Python."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from box import CLI, Box, copy_of, refusal
from compiling import Compiler, run

import minicontainer as mc
from minicontainer.linux import elf, seccomp

BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}  # an unbuffered stream of Python ignores some errors
pytestmark = pytest.mark.needs("root")

SAME = [  # options, command: what run and a file answer alike
    ((), ("sh", "-c", "echo out; echo err >&2; cat; exit 7")),
    ((), ("sh", "-c", "kill -SEGV $$; sleep 9")),
    (("--init",), ("sh", "-c", "kill -USR1 $$")),
    ((), ("sh", "-c", "id; cat /proc/self/status | grep -E 'Cap|Seccomp|NoNew|Groups|Sig'; umask; ulimit -a")),
    (("--userns", "host"), ("sh", "-c", "id; cat /proc/self/uid_map; grep -E 'Cap|Seccomp' /proc/self/status")),
    (("--userns", "700000:800000:3000"), ("sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id")),
    (("--userns", "private"), ("cat", "/proc/self/setgroups", "/proc/sys/net/ipv4/ping_group_range")),
    ((), ("sh", "-c", "ls -l /dev /proc/self/fd; ls /; cut -d' ' -f4- /proc/self/mountinfo | sed 's/rw,.*//'")),
    (("-h", "box", "-w", "/tmp", "-u", "7:8", "--group-add", "9"), ("sh", "-c", "hostname; pwd; id; env")),
    (("-u", "nobody"), ("sh", "-c", "id; echo $HOME")),
    (("--ephemeral",), ("sh", "-c", "echo made > /made; cat /made; ls -l /made | cut -c1-10")),
    (("--read-only", "--tmpfs", "/tmp:size=1m"), ("sh", "-c", "touch /x; touch /tmp/x && echo made; df -k /tmp")),
    (("--ulimit", "nofile=33:44", "--umask", "027"), ("sh", "-c", "ulimit -Sn; ulimit -Hn; umask")),
    (("--cap-drop", "ALL", "--cap-add", "CHOWN"), ("grep", "Cap", "/proc/self/status")),
    (("--security-opt", "seccomp=unconfined"), ("grep", "-E", "Seccomp", "/proc/self/status")),
    (("--security-opt", "no-new-privileges=false", "--init"), ("grep", "-E", "Seccomp|NoNew", "/proc/self/status")),
    (("--network", "host", "--pid", "host"), ("sh", "-c", "cat /etc/resolv.conf; ls /sys/class/net; ls -d /proc/1")),
    (("--sysctl", "net.ipv4.ip_forward=1"), ("cat", "/proc/sys/net/ipv4/ip_forward")),
    (("--oom-score-adj", "500"), ("cat", "/proc/self/oom_score_adj")),
    (("--add-host", "x:10.0.0.9", "--dns", "9.9.9.9"), ("cat", "/etc/hosts", "/etc/resolv.conf")),
    (("--entrypoint", "/bin/echo"), ("a", "b  c", "")),
    (("-e", "A=1", "-e", "B=x y", "-e", "A=2", "-e", "PATH=/bin"), ("env",)),
    (("--privileged",), ("sh", "-c", "grep CapEff /proc/self/status; ls -l /dev/kmsg /dev/null | cut -c1-10")),
    ((), ("nosuch",)),
    ((), ("/etc",)),
    ((), ("/no/such",)),
    ((), ("",)),
    (("--init",), ("nosuch",)),
    (("--userns", "host"), ("nosuch",)),
    (("--timeout", "0.3"), ("sleep", "1000")),
    (("--timens", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"), ("sh", "-c", "hostname; ls /dev")),
]  # fmt: skip

NOT_FOUND = (  # names that messages quote as Python's repr does
    os.fsdecode(b"no such \xff\xfe"),
    os.fsdecode(b"/no\xc3\xa9\xc3"),
    os.fsdecode(b"\xc0\xaf \xc1\xbf \xe0\x9f\xbf \xed\xa0\x80 \xf0\x8f\xbf\xbf"),
    os.fsdecode(b"\xf4\x90\x80\x80 \xf8\x88\x80\x80\x80 \xf0\x9f\x98"),
    "e\u0301\u00e9\u4e2d\U0001f600",
    "\x01\r\n\t\x1b[31m\x7f",
    "\x80\x85\x9f\xa0\xad\xff",
    "\u061c\u200b\u202e\u2028\u2066\u3000\ue000\ufeff\U000e0041\U0010fffd",
    "it's",
    "it's here",
    'it\'s "here"\\',
    '"\\',
    "x" * 201,
    "\u00e9" * 200,
    os.fsdecode(b"'" + b"\xff" * 220 + b'"'),
    "/dir'/" + "y" * 180 + ' "' + "z" * 20,
)
SAME += [((), (name,)) for name in NOT_FOUND]


def made_equal(text: str) -> str:
    """Without what differs from run to run: ids, numbers of mounts, inodes and processes, times of day."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\b\d{5,}\b", "N", text)
    return re.sub(r"[A-Z][a-z][a-z] +\d+ \d\d:\d\d", "DATE", text)


@pytest.mark.parametrize(("options", "command"), SAME, ids=[" ".join((*o, *c))[:40] for o, c in SAME])
def test_as_run(box: Box, compiler: Compiler, options: tuple[str, ...], command: tuple[str, ...]) -> None:
    expected = box.run(*command, options=options, input="typed\n")
    done = run(compiler.write(*command, options=options), input="typed\n")
    assert made_equal(done.stdout) == made_equal(expected.stdout)
    assert made_equal(done.stderr) == made_equal(expected.stderr)
    assert done.returncode == expected.returncode


@pytest.mark.parametrize(
    "first", [b"#!/no/such\r\n", b"#! /no/\xff\x01 -x\n", b"#!\t/it's/\xc2\x85\tx\n", b"#!/" + b"\xfe" * 240]
)
def test_as_run_a_script_without_interpreter(compiler: Compiler, tmp_path: Path, first: bytes) -> None:
    root = copy_of(compiler.rootfs, tmp_path / "root")
    (root / "script").write_bytes(first)
    (root / "script").chmod(0o755)
    expected = compiler._run("run", root, "/script")
    done = run(compiler.write("/script", rootfs=root))
    assert refusal(done, 127, ["is missing in the container"]) == refusal(expected, 127)


# ---- arguments and environment


def test_arguments_follow(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", 'for a; do echo "<$a>"; done', "sh", "one")
    assert run(file).stdout == "<one>\n"
    assert run(file, "two  words", "", "-x", "--help").stdout == "<one>\n<two  words>\n<>\n<-x>\n<--help>\n"
    assert run(file, "--", "--explain", "--").stdout == "<one>\n<--explain>\n<-->\n"
    assert run(file, "a", "--", "b").stdout == "<one>\n<a>\n<-->\n<b>\n"


def test_arguments_replace(compiler: Compiler) -> None:
    file = compiler.write("echo", "default", options=["--replace"])
    assert run(file).stdout == "default\n"
    assert run(file, "expr", "6", "*", "7").stdout == "42\n"
    assert (
        refusal(run(file, "nosuch"), 127)
        == "minicontainer: program nosuch: not found in the container (in no directory of its PATH)"
    )
    entry = compiler.write("default", options=["--replace", "--entrypoint", "echo"])
    assert run(entry).stdout == "default\n"
    assert run(entry, "other").stdout == "other\n"


def test_without_a_command(compiler: Compiler) -> None:
    file = compiler.write()
    assert run(file, input="echo from the shell\n").stdout == "from the shell\n"
    assert run(file, "echo", "words").stdout == "words\n"


def test_a_replaced_program_behind_init(compiler: Compiler) -> None:
    file = compiler.write("true", options=["--replace", "--init"])
    assert run(file, "sh", "-c", "echo $PPID").stdout == "1\n"
    assert run(file, "nosuch").returncode == 127


def test_as_many_arguments_as_the_kernel_takes(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", 'echo $# $(echo "$@" | wc -c)', "sh")
    words = ["x" * 1000] * 1500  # 1.5 MB, of 2 MB at most with the usual stack
    assert run(file, *words).stdout == f"1500 {1001 * 1500}\n"
    assert run(file, "y" * 131_000).stdout == "1 131001\n"


def test_too_many_arguments_for_the_container(compiler: Compiler) -> None:
    """Its stack, and so the space for arguments, may be smaller than the caller's."""
    file = compiler.write("true", options=["--ulimit", "stack=200000"])
    assert run(file, "x").returncode == 0
    line = refusal(run(file, *["x" * 1000] * 1500), 126, says=["argument list too long"])
    assert "true" in line


def test_the_callers_variables(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", 'echo "$A $B $C"', options=["-e", "A", "-e", "B=b", "-e", "C=1", "-e", "C"])
    environment = {**os.environ, "A": "of the caller", "C": "c=c"}
    assert run(file, env=environment).stdout == "of the caller b c=c\n"
    line = refusal(run(file, env={"C": "x"}))
    assert line == "minicontainer: --env A: is not set here, so there is nothing to copy"


def test_a_path_of_the_caller(compiler: Compiler, tmp_path: Path) -> None:
    """The program is looked up in the PATH that the container gets."""
    file = compiler.write("only-here", options=["-e", "PATH", "-v", f"{tmp_path}:/mnt"])
    (tmp_path / "only-here").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "only-here").chmod(0o755)
    assert run(file, env={"PATH": "/nowhere/:/mnt"}).stdout == "found\n"
    assert run(file, env={"PATH": "/bin"}).returncode == 127


def test_variables_of_files(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nLATER\nB=file\n")
    file = compiler.write("sh", "-c", "echo $A $B $LATER", options=["--env-file", tmp_path / "env", "-e", "B=option"])
    assert run(file, env={"LATER": "late"}).stdout == "file option late\n"


# ---- the timeline


def test_explain(compiler: Compiler) -> None:
    file = compiler.write("echo", "hello")
    done = run(file, "--explain", "there")
    assert (done.returncode, done.stdout) == (0, "hello there\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "   at us    took  side    primitive"
    events = [
        match for line in lines if (match := re.fullmatch(r" *[\d.]+ +[\d.]+  (parent|child )  (.+) = (-?\d+.*)", line))
    ]
    calls = [match[2] for match in events]
    for start in ("mkdir", "clone3", "pivot_root", "execve([", "waitid", "rmdir"):
        assert any(call.startswith(start) for call in calls), (start, calls)
    (execve,) = [call for call in calls if call.startswith("execve")]
    assert '["echo", "hello", "there"]' in execve
    assert re.search(r'"HOSTNAME=[0-9a-f]{12}"', execve)
    assert any(re.fullmatch(r'sethostname\("[0-9a-f]{12}", 12\)', call) for call in calls)
    assert lines.index("     sum  side    phase") > len(events)


@pytest.mark.parametrize("command", [("sh", "-c", "exit 3"), ("nosuch",)], ids=["ended", "not started"])
@pytest.mark.parametrize("output", ["full", "unread", "read-only", "closed"])
def test_a_timeline_that_cannot_be_shown_is_an_error(
    box: Box, compiler: Compiler, output: str, command: tuple[str, ...]
) -> None:
    """As by run, if the container has run. To a closed stderr nothing is shown (open_streams() in main.c)."""
    file = compiler.write(*command)
    for words in ([str(file), "--explain"], [*CLI, "run", "--explain", str(box.rootfs), *command]):
        with unwritable(output) as stderr:
            prefix = ["sh", "-c", 'exec "$@" 2>&-', "sh"] * (output == "closed")
            code = subprocess.run([*prefix, *words], stdin=-3, stderr=stderr, env=BUFFERED, check=False).returncode
        ended = {"full": 125, "unread": 141, "read-only": 125, "closed": 3}[output]
        assert code == (127 if command == ("nosuch",) else ended), words


@contextlib.contextmanager
def unwritable(output: str) -> Iterator[IO[bytes]]:
    """A stderr that is a full disk, a pipe without a reader, or of a file that is open for reading."""
    if output == "unread":
        read, write = os.pipe()
        os.close(read)
        with open(write, "wb", buffering=0) as pipe:
            yield pipe
        return
    path, mode = ("/dev/full", "wb") if output == "full" else ("/dev/null", "rb")
    with open(path, mode) as file:
        yield file


def test_a_step_that_fails(compiler: Compiler, tmp_path: Path) -> None:
    root = copy_of(compiler.rootfs, tmp_path / "root")
    (root / "work").mkdir()
    file = compiler.write("true", options=["-w", "/work"], rootfs=root)
    (root / "work").rmdir()
    assert refusal(run(file)) == "minicontainer: --workdir /work: no such file or directory (in the container)"
    done = run(file, "--explain")
    assert done.returncode == 125
    assert re.search(r'child   chdir\("/work"\) = -1 ENOENT\n', done.stderr)
    assert done.stderr.startswith("minicontainer: --workdir /work")


# ---- the file


def test_it_is_a_static_program_for_its_owner(compiler: Compiler) -> None:
    file = compiler.write("true")
    assert stat.S_IMODE(file.stat().st_mode) == 0o700
    assert elf.interpreter(file.read_bytes()[:4096]) is None
    assert run(file, env={}).returncode == 0


def test_it_replaces_a_file_at_once(compiler: Compiler, tmp_path: Path) -> None:
    file = tmp_path / "again"
    for word in ("one", "two"):
        compiler._run("compile", "-o", file, compiler.rootfs, "echo", word)
        assert run(file).stdout == f"{word}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]


def test_closed_streams(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", "ls -l /proc/self/fd | grep -c null; echo to stderr >&2")
    done = subprocess.run(["sh", "-c", f"exec {file} <&- 2>&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n")


def test_no_descriptor_of_the_caller_comes_in(compiler: Compiler) -> None:
    file = compiler.write("sh", "-c", "ls /proc/self/fd | wc -l")
    with open("/dev/zero", "rb") as one, open("/etc/passwd", "rb") as other:
        fds = [fcntl.fcntl(one, fcntl.F_DUPFD, 63), other.fileno()]
        assert run(file, pass_fds=fds).stdout == "4\n"  # ls has the directory
        os.close(fds[0])


def test_few_descriptors(compiler: Compiler) -> None:
    done = run(compiler.write("true"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (7, 7)))
    refusal(done, says=["too many open files"])


def test_volumes_and_devices(compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("of the host\n")
    options = ["-v", f"{tmp_path}:/data:ro", "--device", "/dev/zero:/dev/nought:r", "--userns", "host"]
    script = "cat /data/data; touch /data/x; head -c3 /dev/nought | wc -c; echo >/dev/nought"
    done = run(compiler.write("sh", "-c", script, options=options))
    assert done.stdout == "of the host\n3\n"
    assert "Read-only file system" in done.stderr
    assert "nought" in done.stderr


def test_in_python(rootfs: Path, tmp_path: Path) -> None:
    spec = mc.Spec(["sh", "-c", 'echo "$0 $1 $A $B"', "zero"], rootfs=str(rootfs), env={"A": "a"})
    mc.compile(spec, tmp_path / "file", timeout=20, inherit_env=["B"])
    assert run(tmp_path / "file", "one", env={"B": "b"}).stdout == "zero one a b\n"
    mc.compile(["echo", "x"], tmp_path / "other", rootfs=str(rootfs), replace_args=True)
    assert run(tmp_path / "other", "pwd").stdout == "/\n"


def test_terminals_in_python(rootfs: Path, tmp_path: Path) -> None:
    mc.compile(["true"], tmp_path / "file", rootfs=str(rootfs), terminal=True)
    assert refusal(run(tmp_path / "file"), says=["--tty: stdin and stdout are not both a terminal"])


# ---- what a file cannot have

REFUSED = [
    (("-d",), "-d"),
    (("--name", "x"), "--name x"),
    (("--cidfile", "/tmp/x"), "--cidfile"),
    (("--label", "a=b"), "--label a=b"),
    (("--restart", "always"), "--restart always"),
    (("--meta", "/tmp/x"), "--meta"),
    (("--explain",), "./FILE --explain"),
    (("--dry-run",), "--dry-run"),
    (("--security-report",), "--security-report"),
    (("-p", "80:80"), "-p 80:80"),
    (("--network", "bridge"), "--network bridge"),
    (("--network", "container:x"), "--network container:x"),
    (("--pid", "pid:1"), "--pid pid:1"),
    (("--userns", "pid:1"), "--userns pid:1"),
    (("--userns", "ns:/proc/1/ns/user"), "--userns ns:/proc/1/ns/user"),
    (("--userns", "1000000:1000000:9000000"), "--userns 1000000:1000000:9000000"),
    (("-v", "named:/data"), "named"),
    (("--tty", "--no-tty"), "--no-tty"),
    (("--isolation", "kvm", "--root-image", "erofs"), "--root-image erofs"),
    (("--isolation", "kvm", "--network", "bridge"), "--network bridge"),
    (("--isolation", "kvm", "--privileged"), "--privileged"),
    (("--isolation", "kvm", "--pids-limit", "5"), "--pids-limit 5"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED, ids=[" ".join(options) for options, _ in REFUSED])
def test_refused_by_name(compiler: Compiler, options: tuple[str, ...], says: str) -> None:
    assert says in compiler.refused("true", options=options)


def test_no_place_for_the_file(compiler: Compiler, minicontainer_cli: object, tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "is no regular file"),
        (tmp_path / "no/such/file", "no such file or directory"),
        ("/dev/null", "is no regular file"),
    ):
        refusal(compiler._run("compile", "-o", path, compiler.rootfs, "true"), says=["-o", says])
    done = compiler._run("compile", "-o", "", compiler.rootfs, "true")
    assert refusal(done) == "minicontainer: -o '': is empty (the path of the file to write)"
    with pytest.raises(mc.SpecError, match=r"^output '': is empty"):
        mc.compile(["true"], "", rootfs=str(compiler.rootfs))


def test_no_such_root(compiler: Compiler, tmp_path: Path) -> None:
    done = compiler._run("compile", "-o", tmp_path / "file", tmp_path / "none", "true")
    refusal(done, says=["rootfs", "no such directory"])


def test_a_namespace_by_its_path(compiler: Compiler, tmp_path: Path) -> None:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        file = compiler.write("readlink", "/proc/self/ns/net", options=["--network", f"ns:/proc/{other.pid}/ns/net"])
        theirs = os.readlink(f"/proc/{other.pid}/ns/net")
        assert run(file).stdout == f"{theirs}\n"
        other.kill()
    refusal(run(file), says=["network", "no such"])


def test_a_root_of_its_own(compiler: Compiler, tmp_path: Path) -> None:
    root = copy_of(compiler.rootfs, tmp_path / "root")
    file = compiler.write("sh", "-c", "echo more >> /log; wc -l < /log", rootfs=root)
    assert [run(file).stdout for _ in range(3)] == ["1\n", "2\n", "3\n"]
    assert (root / "log").stat().st_uid == 0


def test_without_the_program_for_devices(compiler: Compiler) -> None:
    """As by run: in a user namespace it is a second barrier, else its lack is said, or an error."""

    def refuse_bpf() -> None:
        seccomp.load(seccomp.deny(["bpf"]))

    done = run(compiler.write("echo", "ran"), preexec_fn=refuse_bpf)
    assert (done.stdout, done.stderr) == ("ran\n", "")
    done = run(compiler.write("echo", "ran", options=["--userns", "host"]), preexec_fn=refuse_bpf)
    assert done.stdout == "ran\n"
    reason = "the container can use any of which it has a node (operation not permitted)"
    assert done.stderr == f"minicontainer: warning: devices: {reason}\n"
    file = compiler.write("true", options=["--device", "/dev/zero:/dev/nought:r"])
    refusal(run(file, preexec_fn=refuse_bpf), says=["--device: operation not permitted"])
