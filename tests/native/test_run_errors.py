"""What ``minicontainer run`` says to a mistake: one line, the exit code, and nothing left behind."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from box import CLI, Box, python, refusal
from supplies import Run

pytestmark = pytest.mark.needs("root")


class Bad(NamedTuple):
    """Options that are refused, and the words that the refusal holds."""

    options: str
    says: str


def bad(text: str) -> list[Bad]:
    """A table: options, a bar, words separated by ``;``."""
    rows = [line.partition("|") for line in text.strip().splitlines()]
    return [Bad(options.strip(), says.strip()) for options, _, says in rows]


MISTAKES = bad(
    """
    --memory 0                      | --memory 0; at least 4096
    --memory -1                     | --memory -1; is no size; b, k, m, g
    --memory 12Q                    | --memory 12Q; is no size
    --memory 1                      | --memory 1; at least 4096
    --memory=                       | --memory ''; is no size
    --memory 99999999t              | 2^63
    -m 64m --memory-swap 32m        | --memory-swap 32m; below memory
    --memory-swap 32m               | --memory-swap 32m; needs a limit of memory
    -m 64m --memory-reservation 65m | --memory-reservation; above memory
    --cpus 0                        | --cpus 0; from 0.01 to 100000
    --cpus -1                       | --cpus -1; from 0.01
    --cpus nan                      | --cpus nan; from 0.01
    --cpus 1e3                      | --cpus 1e3; from 0.01
    --cpu-shares 1                  | --cpu-shares 1; from 2 to 262144
    --cpuset-cpus 1-                | --cpuset-cpus 1-; for example 0-2,5
    --cpuset-cpus 3-1               | --cpuset-cpus 3-1; no list of CPUs
    --pids-limit -7                 | --pids-limit -7; from -1
    --pids-limit 0                  | --pids-limit 0; at least 1
    --pids-limit many               | --pids-limit many; whole number
    --blkio-weight 5                | --blkio-weight 5; from 10 to 1000
    --device-read-bps sda:1m        | --device-read-bps sda:1m; /DEVICE:RATE
    --device-write-iops /dev/x:-1   | --device-write-iops /dev/x:-1; rate -1; from 1
    --shm-size 1k                   | --shm-size 1k; at least 4096
    --ulimit nofile                 | --ulimit nofile; NAME=SOFT[:HARD]
    --ulimit files=1                | --ulimit files; no resource limit; nofile
    --ulimit nofile=2:1             | --ulimit nofile=2:1; soft limit is above
    --ulimit nofile=1:2:3           | --ulimit nofile=1:2:3; NAME=SOFT[:HARD]
    --ulimit nofile=-2              | --ulimit nofile=-2; whole numbers
    --ulimit nofile=99999999999     | --ulimit nofile=99999999999; not permitted; fs.nr_open
    --sysctl kernel.panic=1         | --sysctl kernel.panic=1; kernel.panic is none that; those are net.*
    --sysctl kernel.hostname=x      | --sysctl kernel.hostname=x; keeps apart from the host's
    --sysctl net/../kernel/x=1      | --sysctl net/../kernel/x=1; is no name of a sysctl
    --sysctl net.ipv4.ip_forward    | --sysctl net.ipv4.ip_forward; NAME=VALUE
    --sysctl net.nothing=1          | --sysctl net.nothing=1; no such sysctl
    --sysctl kernel.msgmax=x        | --sysctl kernel.msgmax=x; invalid argument
    --network host --sysctl net.ipv4.ip_forward=1 | --sysctl; is the host's with network=host
    --cap-add FLY                   | --cap-add FLY; capabilities(7)
    --cap-drop CAP_                 | --cap-drop CAP_; is no capability
    --security-opt seccomp=x.json   | --security-opt seccomp=x.json; no such file
    --security-opt seccomp=/none    | --security-opt seccomp=/none; no such file
    --security-opt apparmor=x       | --security-opt apparmor=x; no-new-privileges
    --security-opt no-new-privileges=maybe | --security-opt; is unknown
    --env =x                        | --env =x; has no name
    --env NOT_SET_HERE              | --env NOT_SET_HERE; is not set here
    --env-file /none                | --env-file /none; no such file
    --env-file /dev/zero            | --env-file /dev/zero; larger than 16777216 bytes
    --env-file /etc                 | --env-file /etc; is a directory
    --workdir etc                   | --workdir etc; absolute
    --workdir /etc/passwd           | --workdir /etc/passwd; not a directory
    --workdir /none                 | --workdir /none; no such file
    --user nobody-here              | --user nobody-here; /etc/passwd; give a number
    --user 0:nobody-here            | --user 0:nobody-here; nobody-here is not in; /etc/group
    --user 4294967295               | --user 4294967295; from 0 to 4294967294
    --user -1                       | --user -1; from 0
    --user :                        | --user :; NAME|UID[:GROUP|GID]
    --user 1:2:3                    | --user 1:2:3; NAME|UID
    --user ²                        | --user ²; /etc/passwd
    --group-add 4294967295          | --group-add 4294967295; from 0
    --group-add none-such           | --group-add none-such; /etc/group
    --hostname -x                   | --hostname -x; letters, digits
    --hostname x/y                  | --hostname x/y; letters, digits
    --hostname x --uts host         | --hostname x; uts=host
    --name a/b                      | --name a/b; [a-zA-Z0-9]
    --name ../x                     | --name ../x; [a-zA-Z0-9]
    --name .                        | --name .; [a-zA-Z0-9]
    --name=                         | --name ''; [a-zA-Z0-9]
    -v /none:/x                     | /none; no such file; /x
    -v /etc:x                       | -v /etc:x; absolute path
    -v /etc:/                       | -v /etc:/; ROOTFS
    -v /etc                         | -v /etc; SOURCE:TARGET
    -v /etc:/x:rx                   | -v /etc:/x:rx; unknown option 'rx'
    -v /etc:/x:ro,rw                | -v /etc:/x:ro,rw; both
    -v /etc:/x:exec,noexec          | -v /etc:/x:exec,noexec; noexec
    -v /etc:/x -v /usr:/x/          | -v; /x is given more than once
    -v /etc:/etc/passwd             | /etc/passwd; a file lies where a directory
    -v /etc/passwd:/etc             | /etc; a file lies where a directory
    -v /etc:/etc/passwd/x           | /etc/passwd/x; a file lies where
    --mount type=bind,target=/x     | --mount; has no source
    --mount type=bind,source=/etc   | --mount; has no target
    --mount type=nfs,target=/x      | --mount; bind, volume or tmpfs
    --mount type=tmpfs,source=/etc,target=/x | --mount; a tmpfs has none
    --mount source=/etc,target=/x,tmpfs-size=1m | --mount; no size
    --mount target=/x,what=1        | --mount; unknown item 'what=1'
    --tmpfs x                       | --tmpfs x; absolute
    --tmpfs /x:size=1               | --tmpfs /x:size=1; at least 4096
    --tmpfs /x:mode=9               | --tmpfs /x:mode=9; unknown option
    --device /dev/none              | --device /dev/none; no such file
    --device /etc/passwd:/dev/x     | --device /etc/passwd; not a device node
    --device /dev/null:/x           | --device /dev/null:/x; below /dev
    --device /dev/null:/dev/../x    | --device /dev/null:/dev/../x; below /dev
    --device /dev/null:/dev/fd      | --device /dev/null:/dev/fd; /dev/fd file exists
    --device /dev/null:/dev/x:z     | --device /dev/null:/dev/x:z; r, w and m
    --umask 8                       | --umask 8; octal
    --umask 1000                    | --umask 1000; octal, from 0 to 777
    --oom-score-adj 1001            | --oom-score-adj 1001; from -1000 to 1000
    --oom-score-adj low             | --oom-score-adj low; whole number
    --stop-signal NONE              | --stop-signal NONE; no signal
    --stop-signal 65                | --stop-signal 65; from 1 to 64
    --stop-timeout -1               | --stop-timeout -1; seconds from 0
    --stop-timeout nan              | --stop-timeout nan; seconds
    --timeout 0                     | --timeout 0; seconds
    --timeout soon                  | --timeout soon; seconds
    --network a/b                   | --network a/b; another network's name, container:NAME, ns:PATH or
    --network pid:999999999         | --network pid:999999999; no such file
    --network ns:/proc/self/ns/pid  | --network ns:/proc/self/ns/pid; invalid argument
    --pid container                 | --pid container; private, host
    --userns nomap                  | --userns nomap; keep-id
    --timens pid:1                  | --timens pid:1; must be auto, private or host
    --ipc ns:relative               | --ipc ns:relative; private, host
    --meta /none/x                  | --meta /none/x; no directory
    --meta /etc                     | --meta /etc; is a directory
    --explain=yaml                  | --explain yaml; json:FILE
    --explain=json:                 | --explain json:; json:FILE
    --explain=json:/none/x          | --explain /none/x; no directory
    -t                              | -t; not both a terminal
    -t --no-tty                     | -t; --no-tty
    --nonsense                      | No such option; --nonsense; --help
    """
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.options.replace("/", "_"))
def test_options(box: Box, mistake: Bad) -> None:
    options = mistake.options.split()
    box.refused("echo", "started", options=options, says=[word.strip() for word in mistake.says.split(";")])


def test_a_descriptor_of_the_caller_is_no_way_out(box: Box) -> None:
    """CVE-2024-21626: /proc/self/fd/N of a directory of the host."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in {fd, *range(3, 8)}:
            options = ["--workdir", f"/proc/self/fd/{number}"]
            box.refused("pwd", options=options, says=["--workdir /proc/self/fd/"], pass_fds=[fd])
    finally:
        os.close(fd)


def test_values_that_a_table_cannot_hold(box: Box, tmp_path: Path) -> None:
    box.refused("true", options=["--hostname", "x" * 65], says=["longer than 64 bytes"])
    box.refused("true", options=["--name", "x" * 65], says=["{0,63}"])
    box.refused("true", options=["--name", "a b"], says=["--name 'a b'"])
    box.refused("true", options=["--env", ""], says=["--env ''", "has no name"])
    box.refused("true", options=["--env", "A B=1"], says=["--env 'A B=1': 'A B' is a name with a blank in it"])
    box.refused(
        "true", options=["--env", "A =1"], says=["--env 'A =1': 'A ' is a name with a blank", "no blanks around ="]
    )
    box.refused("true", options=["--workdir", ""], says=["--workdir ''", "is empty"])
    box.refused("true", options=["--user", "two\nlines"], says=[r"--user 'two\nlines'"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"=x", "=x has no name"),
        (b"B=a\0b", "NUL byte"),
        (b"A B=1", "'A B' is a name with a blank in it"),
        (b"A\tB=1", r"'A\tB' is a name with a blank in it"),
        (b"A =1", "'A ' is a name with a blank in it (KEY=VALUE, with no blanks around =)"),
        (b"export A=1", "'export A' is a name with a blank in it (leave export out)"),
        (b"A=\xff", "is not UTF-8"),
        (b"NOT_SET_HERE", "NOT_SET_HERE is not set here"),
    ],
)
def test_a_line_of_an_env_file_that_is_none(box: Box, tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "env").write_bytes(b"# first\n\n" + line + b"\nC=1\n")
    box.refused("true", options=["--env-file", tmp_path / "env"], says=[f"--env-file {tmp_path}/env:3: ", says])


def test_an_env_file_of_another_encoding(box: Box, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1\n", encoding="utf-16")
    box.refused("true", options=["--env-file", tmp_path / "env"], says=[f"{tmp_path}/env:1: is not UTF-8"])


@pytest.mark.parametrize("size", [0, 7, 8 * 4096 + 8])
def test_a_file_that_is_no_filter(box: Box, tmp_path: Path, size: int) -> None:
    (tmp_path / "filter").write_bytes(b"\0" * size)
    option = f"seccomp={tmp_path}/filter"
    box.refused("true", options=["--security-opt", option], says=["--security-opt", option, "BPF"])


def test_a_filter_that_the_kernel_refuses(box: Box, tmp_path: Path) -> None:
    (tmp_path / "filter").write_bytes(b"\xff" * 8)
    option = f"seccomp={tmp_path}/filter"
    box.refused("true", options=["--security-opt", option], says=["--security-opt", "the kernel refuses"])


# ---- ROOTFS


def test_rootfs(box: Box, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")
    for path, why in (
        (tmp_path / "none", "no such directory"),
        ("", "none was given"),
        (tmp_path / "file", "is not a directory"),
        (tmp_path / "file/x", "not a directory"),
        ("/", "the host's own root"),
        ("/etc/../", "the host's own root"),
        (tmp_path / "link", "the host's own root"),
        ("/proc/self/root", "the host's own root"),
    ):
        box.refused("true", rootfs=path, says=["rootfs", why])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_words_of_the_command_line(minicontainer_cli: Run) -> None:
    refusal(minicontainer_cli("run"), says=["Missing argument", "ROOTFS", "--help"])
    refusal(minicontainer_cli("run", "--memory"), says=["--memory", "requires an argument"])
    refusal(minicontainer_cli("jump"), says=["jump: is no command"])
    refusal(minicontainer_cli("--jump"), says=["No such option", "--jump"])


@pytest.mark.parametrize("what", ["file", "link", "absolute link", "broken link"])
@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
def test_what_may_not_be_where_a_directory_must_be(own_box: Box, place: str, what: str) -> None:
    """Nothing of it is followed: neither within ROOTFS nor out of it."""
    path = own_box.rootfs / place
    path.rmdir()
    if what == "file":
        path.touch()
    else:
        path.symlink_to({"link": "tmp", "absolute link": f"/{place}", "broken link": "/none"}[what])
    own_box.refused("true", says=["rootfs", str(own_box.rootfs), f"/{place}", "directory"])


def test_a_read_only_rootfs_without_dev(own_box: Box) -> None:
    (own_box.rootfs / "dev").rmdir()
    root = own_box.rootfs
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(root), *CLI, "run", str(root), "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    refusal(done, says=["rootfs", "read-only", "/dev"])


# ---- the program: 126 and 127, in the same words with --init


def elf(machine: int, *, interpreter: str = "") -> bytes:
    """An ELF file of 64 bits without code (elf(5)), with or without a loader."""
    name = interpreter.encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 0x1000, 0x1000, 0x1000)
    loader = struct.pack("<IIQQQQQQ", 3, 4, 120, 0x400078, 0x400078, len(name), len(name), 1)
    return header + (loader if interpreter else load) + name


PROGRAMS: dict[str, tuple[bytes | None, int, int, tuple[str, ...]]] = {  # content, mode, exit code, words
    "/none": (None, 0, 127, ("program /none", "not found in the container")),
    "none": (None, 0, 127, ("program none", "not found", "PATH")),
    "": (None, 0, 127, ("program ''", "not found")),
    "/etc/passwd/x": (None, 0, 127, ("program /etc/passwd/x", "not found")),
    "/etc": (None, 0, 126, ("program /etc", "is a directory")),
    "/dev/null": (None, 0, 126, ("program /dev/null", "not a regular file")),
    "/bin/plain": (b"#!/bin/sh\n", 0o644, 126, ("program /bin/plain", "not executable", "chmod +x")),
    "plain": (b"#!/bin/sh\n", 0o644, 126, ("program /bin/plain", "not executable")),
    "/bin/empty": (b"", 0o755, 126, ("program /bin/empty", "is empty")),
    "/bin/text": (b"hello\n", 0o755, 126, ("program /bin/text", "is no program", "#!")),
    "/bin/foreign": (elf(183), 0o755, 126, ("program /bin/foreign", "built for aarch64, host is ")),
    "/bin/riscv": (elf(243), 0o755, 126, ("program /bin/riscv", "built for riscv, host is ")),
    "/bin/strange": (elf(9999), 0o755, 126, ("program /bin/strange", "built for machine 9999, host is ")),
    "/bin/cut-off": (b"\x7fELF", 0o755, 126, ("program /bin/cut-off", "built for", "host is")),
    "/bin/script": (
        b"#!/usr/bin/perl -w\n",
        0o755,
        127,
        ("program /bin/script", "interpreter /usr/bin/perl is missing"),
    ),
    "/bin/crlf": (b"#!/bin/sh\r\n", 0o755, 127, ("program /bin/crlf", "interpreter", "/bin/sh\\r", "is missing")),
    "/bin/dynamic": (
        elf(62 if os.uname().machine == "x86_64" else 183, interpreter="/lib/ld-none.so.1"),
        0o755,
        127,
        ("program /bin/dynamic", "loader /lib/ld-none.so.1 is missing", "static"),
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(own_box: Box, program: str) -> None:
    content, mode, code, says = PROGRAMS[program]
    if content is not None:
        path = own_box.rootfs / "bin" / Path(program).name
        path.write_bytes(content)
        path.chmod(mode)
    said = own_box.refused(program, code=code, says=says)
    assert own_box.refused(program, options=["--init"], code=code, says=says) == said


def test_a_real_program_without_its_loader(own_box: Box) -> None:
    (own_box.rootfs / "bin/real").write_bytes(Path(python()).read_bytes())
    (own_box.rootfs / "bin/real").chmod(0o755)
    own_box.refused("real", code=127, says=["program /bin/real", "its loader /lib", "is missing"])


def test_a_program_on_a_noexec_mount(own_box: Box, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    own_box.refused(
        "/mnt/tool", options=["-v", f"{tmp_path}:/mnt:noexec"], code=126, says=["permission denied", "noexec"]
    )


def test_path_of_the_container(own_box: Box) -> None:
    """execvp(3): what cannot be executed in one directory is looked for in the next."""
    (own_box.rootfs / "a").mkdir()
    (own_box.rootfs / "a/tool").touch()
    (own_box.rootfs / "b").mkdir()
    (own_box.rootfs / "b/tool").symlink_to("/bin/busybox")
    own_box.refused("tool", options=["-e", "PATH=/a"], code=126, says=["program /a/tool", "is not executable"])
    own_box.refused("tool", options=["-e", "PATH="], code=127, says=["program tool", "not found"])
    (own_box.rootfs / "b/tool").unlink()
    (own_box.rootfs / "b/tool").write_text("#!/bin/sh\necho b\n", encoding="ascii")
    (own_box.rootfs / "b/tool").chmod(0o755)
    assert own_box.run("tool", options=["-e", "PATH=/none:/a:/b"]).stdout == "b\n"
    assert own_box.run("tool", options=["--init", "-e", "PATH=/none:/a:/b"]).stdout == "b\n"


def test_the_longest_argument(box: Box, tmp_path: Path) -> None:
    """execve(2): 128 KiB with its final NUL. A longer one can only come to us by a file."""
    longest = "x" * 131071
    assert box.run("sh", "-c", "echo ${#1}", "sh", longest).stdout == "131071\n"
    assert box.run("sh", "-c", "echo ${#1}", "sh", longest, options=["--init"]).stdout == "131071\n"
    for length, code in ((131071, 0), (131072, 126)):
        (tmp_path / "env").write_text("K=" + "v" * (length - 2), encoding="ascii")
        done = box.run("true", options=["--env-file", tmp_path / "env"])
        assert done.returncode == code
    refusal(done, 126, ["program true", "argument list too long"])


# ---- nothing is left


def test_nothing_is_left_of_a_run_that_failed(own_box: Box) -> None:
    """Beyond what the leak check of every test sees: no file of ROOTFS, none in the way of a name or a report."""
    before = sorted(str(path) for path in own_box.rootfs.rglob("*"))
    report = own_box.rootfs.parent / "report"
    options = ["--name", "left-behind", "--meta", report, f"--explain=json:{report}.json"]
    own_box.refused("/none", options=options, code=127)
    own_box.refused("/none", options=[*options, "--ulimit", "nofile=99999999999"], code=125)
    own_box.refused("/none", options=[*options, "--workdir", "/none"], code=125)
    assert sorted(str(path) for path in own_box.rootfs.rglob("*")) == before
    assert [path.name for path in own_box.rootfs.parent.iterdir()] == ["root"]


def test_a_target_that_leads_outside_is_clamped(own_box: Box, tmp_path: Path) -> None:
    """``..`` and links of ROOTFS end at its root: the host is untouched."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").touch()
    (own_box.rootfs / "link").symlink_to("../../../../tmp")
    (own_box.rootfs / "absolute").symlink_to("/mnt")
    for target, inside in (("/../../x", "/x"), ("/link/y", "/tmp/y"), ("/absolute/z", "/mnt/z")):
        assert own_box.sh(f"ls {inside}", "-v", f"{tmp_path}/given:{target}") == "file"
    assert not [name for name in ("/x", "/tmp/y", "/mnt/z") if os.path.exists(name)]


@pytest.mark.needs("root")
def test_a_null_device_that_is_none_hides_nothing(rootfs: Path, tmp_path: Path) -> None:
    """CVE-2025-31133."""
    (tmp_path / "file").touch()
    script = 'mount --bind "$0" /dev/null; exec "$@"'
    words = ["unshare", "-m", "sh", "-ec", script, tmp_path / "file", *CLI, "run", rootfs, "true"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert "/dev/null: is not the null device" in refusal(done)
