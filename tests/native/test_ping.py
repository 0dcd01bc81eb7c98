"""Packets: echo requests without a right, for each group of the container; any other raw packet with NET_RAW alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import iputils
import pytest
from abilities import USER_ID
from box import CLI, Box, copy_of
from supplies import Run

import minicontainer as mc
from minicontainer.detached.container import Container
from minicontainer.network.record import Network

pytestmark = pytest.mark.needs("root")

# Says whether an echo comes back by each kind of icmp(7) socket, and whether raw ones are to be had.
SOURCE = r"""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char *echo(int family, int protocol, unsigned char type, const void *to, socklen_t size)
{
    unsigned char packet[8] = {type}, answer[256];
    struct timeval patience = {20, 0};
    int fd = socket(family, SOCK_DGRAM, protocol);

    if (fd < 0)
        return "refused";
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (sendto(fd, packet, sizeof(packet), 0, to, size) < 0)
        return "not sent";
    return recv(fd, answer, sizeof(answer), 0) == sizeof(packet) ? "echo" : "no echo";
}

static const char *had(int family, int type, int protocol)
{
    int fd = socket(family, type, protocol);

    return fd < 0 ? "refused" : (close(fd), "had");
}

int main(int argc, char **argv)
{
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    inet_pton(AF_INET, argc > 1 ? argv[1] : "127.0.0.1", &four.sin_addr);
    printf("%s %s ", echo(AF_INET, IPPROTO_ICMP, 8, &four, sizeof(four)),
           echo(AF_INET6, IPPROTO_ICMPV6, 128, &six, sizeof(six)));
    printf("%s %s\n", had(AF_INET, SOCK_RAW, IPPROTO_ICMP), had(AF_PACKET, SOCK_RAW, 0));
    return 0;
}
"""
WITHOUT = "echo echo refused refused"
RANGE = "cat /proc/sys/net/ipv4/ping_group_range | tr '\\t' ' '"


@pytest.fixture(scope="module")
def echo_box(minicontainer_cli: Run, rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Box:
    """With the program in it."""
    where = tmp_path_factory.mktemp("ping")
    box = Box(minicontainer_cli, copy_of(rootfs, where / "root"))
    (where / "echo.c").write_text(SOURCE, encoding="ascii")
    subprocess.run(
        ["cc", "-static", "-O1", "-o", str(box.rootfs / "bin" / "echoes"), str(where / "echo.c")], check=True
    )
    return box


@pytest.mark.parametrize(
    ("way", "groups"),
    [
        ([], "0 65535"),
        (["-u", "1000:1000"], "0 65535"),
        (["-u", "1000:65535"], "0 65535"),
        (["--userns", "200000:300000:2000", "-u", "7:1999"], "0 1999"),
        (["--userns", "host", "-u", "1000:2000000000"], "0 2147483647"),
        (["--userns", "keep-id"], "0 2147483647"),
        (["--read-only", "--ephemeral"], "0 65535"),
    ],
    ids=str,
)
def test_each_group_may_ping(echo_box: Box, way: list[str], groups: str) -> None:
    assert echo_box.sh("echoes", *way) == WITHOUT
    assert echo_box.sh(RANGE, *way) == groups


def test_the_capability_opens_the_others(echo_box: Box) -> None:
    assert echo_box.sh("echoes", "--cap-add", "NET_RAW") == "echo echo had had"
    assert echo_box.sh("grep ^CapBnd /proc/self/status | cut -f2") == "00000000a80405fb"


def test_what_is_asked_for_counts(echo_box: Box) -> None:
    for key in ("net.ipv4.ping_group_range", "net/ipv4/ping_group_range"):
        given = ["--sysctl", f"{key}=5 6"]
        assert echo_box.sh(RANGE, *given) == "5 6"
        assert echo_box.sh("echoes", *given) == "refused refused refused refused"


def test_the_host_s_network_stays_as_it_is(echo_box: Box) -> None:
    path = Path("/proc/sys/net/ipv4/ping_group_range")
    before = path.read_text(encoding="ascii")
    echo_box.sh("true", "--network", "host", "--userns", "host")
    assert path.read_text(encoding="ascii") == before
    assert echo_box.sh(RANGE, "--network", "host", "--userns", "host") == before.strip().replace("\t", " ")


@pytest.mark.needs("bridge")
@pytest.mark.usefixtures("no_network_stays")
def test_on_a_network(echo_box: Box, network: Network) -> None:
    gateway = "$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')"
    assert echo_box.sh(f"echoes {gateway}", "--network", network.name) == WITHOUT


def test_it_is_there_for_what_joins_and_enters(echo_box: Box, make: Callable[..., Container]) -> None:
    container = make("sleep", "1000", rootfs=str(echo_box.rootfs))
    entered = container.run(["echoes"], capture_output=True, text=True, stdin=mc.DEVNULL)
    assert str(entered.stdout).strip() == WITHOUT
    joined = echo_box.sh("echoes", "--network", f"container:{container.id}")
    assert joined == WITHOUT


@pytest.mark.needs("user", "userns")
def test_an_ordinary_user_s(as_user: Run, echo_box: Box, user_directory: Path) -> None:
    mine = copy_of(echo_box.rootfs, user_directory / "root")
    subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", str(mine)], check=True)
    done = as_user([*CLI, "run", mine, "echoes"])
    assert (done.returncode, done.stdout.strip()) == (0, WITHOUT), done


# ---- the program that a Debian image has


@pytest.fixture(scope="module", params=[True, False], ids=["capability", "plain"])
def iputils_box(
    minicontainer_cli: Run, rootfs: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Box:
    root = copy_of(rootfs, tmp_path_factory.mktemp("iputils") / "root")
    iputils.install(root, capability=request.param)
    return Box(minicontainer_cli, root)


USERS = [[], ["-u", "1000"], ["-u", "1000:1000", "--cap-drop", "ALL"]]
PLACES = [[], ["--userns", "private"], ["--userns", "host"], ["--ephemeral"], ["--read-only"]]


@pytest.mark.needs("iputils-ping")
@pytest.mark.parametrize("place", PLACES, ids=" ".join)
@pytest.mark.parametrize("user", USERS, ids=" ".join)
def test_the_program_of_iputils(iputils_box: Box, user: list[str], place: list[str]) -> None:
    assert "1 received" in iputils_box.sh("ping.iputils -c 1 -W 20 127.0.0.1", *user, *place)


@pytest.mark.needs("iputils-ping", "bridge")
@pytest.mark.parametrize("user", USERS, ids=" ".join)
@pytest.mark.usefixtures("no_network_stays")
def test_the_program_of_iputils_on_a_network(iputils_box: Box, network: Network, user: list[str]) -> None:
    gateway = "$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')"
    words = ["--network", network.name, *user]
    assert "1 received" in iputils_box.sh(f"ping.iputils -c 1 -W 20 {gateway}", *words)
