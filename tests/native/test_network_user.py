"""An ordinary user's container on a network, by slirp4netns and by pasta: a way out, published ports, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from abilities import as_user_prefix
from box import CLI, HEEDING, processes, refusal, until
from packets import is_reached, server
from supplies import Run

pytestmark = pytest.mark.needs("user", "tun")

PROGRAMS = [
    pytest.param("slirp4netns", marks=pytest.mark.needs("slirp4netns")),
    pytest.param("pasta", marks=pytest.mark.needs("pasta")),
]


@pytest.fixture
def host() -> Iterator[None]:
    """A host with a network: 198.51.100.1, and a way out to nobody."""
    subprocess.run(["ip", "link", "add", "test-out", "type", "dummy"], check=True)
    try:
        for words in (
            "addr add 198.51.100.1/24 dev test-out",
            "link set test-out up",
            "route add default via 198.51.100.254",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "del", "test-out"], check=True)


@pytest.fixture
def only(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A PATH in which there is this program, and the other is not."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/"):
            with contextlib.suppress(PermissionError):
                directory.chmod(directory.stat().st_mode | 0o055)
    bin_ = tmp_path / (request.param or "none") / "bin"
    bin_.mkdir(parents=True)
    for name in (request.param, "newuidmap", "newgidmap"):
        for place in ("/usr/bin", "/bin"):
            if name and os.path.exists(f"{place}/{name}"):
                (bin_ / name).symlink_to(f"{place}/{name}")
                break
    return str(bin_)


def own(only: str, *words: str | Path) -> list[str | Path]:
    """The command line, with that PATH."""
    return ["env", f"PATH={only}", *CLI, *words]


def left() -> list[str]:
    """The command lines of what speaks for containers."""
    found = [pid for name in ("slirp4netns", "libexec/usernet", "pasta") for pid in processes(name)]
    return [words for pid in found if (words := command_line(pid)) and "pytest" not in words]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    except OSError:
        return ""


@contextlib.contextmanager
def serving(rootfs: Path, only: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A web server in a container of the user's."""
    script = "echo word > /dev/shm/word; httpd -f -p 80 -h /dev/shm & echo up; read line_of_this; kill 0"
    command = [*as_user_prefix(), "env", f"PATH={only}", "HOME=/home/rig", *CLI, "run", "--ephemeral", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*HEEDING, *command, str(rootfs), "sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "up\n", process.stderr.read() if process.stderr is not None else said
            yield process
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.communicate("\n", timeout=60)


def fetched(port: int, where: str = "127.0.0.1", name: str = "word") -> str:
    words = ["busybox", "wget", "-qO-", f"http://{where}:{port}/{name}"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("only", PROGRAMS, indirect=True)
def test_published_ports(rootfs: Path, only: str, host: None) -> None:
    with serving(rootfs, only, "-p", "127.0.0.1:18080:80", "-p", "18053:53/udp"):
        until(lambda: fetched(18080) == "word\n")
        if shutil.which("slirp4netns", path=only):  # pasta's has this host's address, and takes it for itself
            ours = os.readlink("/proc/self/ns/net")
            inside = [pid for pid in processes("read line_of_this") if os.readlink(f"/proc/{pid}/ns/net") != ours]
            with server(inside[0], 53, udp=True):
                until(lambda: is_reached("198.51.100.1", 18053, udp=True, patience=2))
    until(lambda: not left())
    assert fetched(18080) == ""


@pytest.mark.parametrize("only", PROGRAMS, indirect=True)
def test_the_way_out(rootfs: Path, only: str, as_user: Run, host: None) -> None:
    """To an address of the host that is not its loopback; with pasta that is the container's own."""
    words = ["busybox", "httpd", "-f", "-p", "198.51.100.1:18081", "-h", "/etc"]
    with subprocess.Popen(words) as server_:
        until(lambda: fetched(18081, "198.51.100.1", "hostname"))
        inside = "ip addr show eth0; ip route; wget -qO- http://198.51.100.1:18081/hostname"
        done = as_user(own(only, "run", "--network", "bridge", rootfs, "sh", "-c", inside))
        server_.kill()
    assert "inet " in done.stdout
    assert "default via" in done.stdout
    if shutil.which("slirp4netns", path=only):
        assert done.stdout.splitlines()[-1] == Path("/etc/hostname").read_text().strip()
    until(lambda: not left())


@pytest.mark.parametrize("only", PROGRAMS[:1], indirect=True)
def test_detached_and_restarted(rootfs: Path, only: str, as_user: Run) -> None:
    def cli(*words: str) -> str:
        done = as_user(own(only, *words))
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    script = "echo word > /dev/shm/word; exec httpd -f -p 80 -h /dev/shm"
    c = cli(
        "run", "-d", "--ephemeral", "--restart", "always", "-p", "18080:80", str(rootfs), "sh", "-c", script
    ).strip()
    until(lambda: fetched(18080) == "word\n")
    assert "0.0.0.0:18080->80/tcp" in cli("ps")
    assert cli("port", c).splitlines()[0] == "80/tcp -> 0.0.0.0:18080"
    (told,) = json.loads(cli("inspect", c))
    os.kill(told["State"]["Pid"], 9)
    until(lambda: json.loads(cli("inspect", c))[0]["RestartCount"] == 1)
    until(lambda: fetched(18080) == "word\n")
    cli("rm", "-f", c)
    until(lambda: not left())


@pytest.mark.parametrize("only", PROGRAMS[:1], indirect=True)
def test_a_port_that_is_taken(rootfs: Path, only: str, as_user: Run) -> None:
    with serving(rootfs, only, "-p", "18080:80"):
        done = as_user(own(only, "run", "-p", "18080:80", rootfs, "true"))
        refusal(done, says=["-p 0.0.0.0:18080->80/tcp", "another program has it"])
    until(lambda: not left())


@pytest.mark.parametrize("only", [""], indirect=True)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--network", "bridge"], ["slirp4netns", "pasta", "neither is here"]),
        (["--network", "of-my-own"], ["network of-my-own", "bridges are root's"]),
        (["-p", "80"], ["-p 80", "-p 8080:80"]),
        (["--network", "bridge", "--ip", "10.0.2.9"], ["ip 10.0.2.9"]),
        (["-p", "127.0.0.1:53:53/udp"], ["-p 127.0.0.1:53->53/udp", "the host's loopback by UDP"]),
    ],
)
def test_what_cannot_be(rootfs: Path, only: str, as_user: Run, options: list[str], says: list[str]) -> None:
    done = as_user(own(only, "run", *options, rootfs, "true"))
    refusal(done, says=says)


@pytest.mark.parametrize("only", [""], indirect=True)
def test_networks_are_root_s_to_make(only: str, as_user: Run) -> None:
    done = as_user(own(only, "network", "create", "x"))
    refusal(done, says=["network", "bridges are root's"])
