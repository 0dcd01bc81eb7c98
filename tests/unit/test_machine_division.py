"""``isolation="kvm"``: each field of a spec is honoured by the monitor's container, by the guest's plan, or refused."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from hosts import some_host

from minicontainer.container.filesystem.etc import EtcFile
from minicontainer.container.machine import division, guest, monitor, start
from minicontainer.container.network import usernet
from minicontainer.container.network.veth import Endpoint
from minicontainer.errors import SpecError, UnsupportedError
from minicontainer.linux.rtnetlink import Message
from minicontainer.microvm.devices import ALWAYS, NETWORK, VSOCK, Device, drivers
from minicontainer.native import ffi, lib
from minicontainer.plan import Plan
from minicontainer.records import names
from minicontainer.spec import Limits, Mount, Port, Spec

BIND, TMPFS = Mount("/data", "/srv/data"), Mount("/tmp", type="tmpfs")


def spec_of(**fields: Any) -> Spec:
    return Spec(("/bin/true",), rootfs="/srv/root", isolation="kvm", **fields)


def lines(plan: Plan) -> str:
    return plan.describe()


REFUSED = {
    "devices": ["/dev/null"],
    "privileged": True,
    "executable": "/bin/true",
    "network": "host",
    "pid": "host",
    "ipc": "host",
    "uts": "host",
    "cgroupns": "host",
    "timens": "private",
    "userns": "pid:1",
    "oom_score_adj": 5,
}
OUTSIDE = (
    "rootfs isolation kernel root_image ephemeral name read_only limits die_with_parent stop_signal stop_timeout"
).split()
OF_NETWORKS = "network ports ip mac_address dns add_hosts".split()
INSIDE = (
    "args hostname env cwd user group_add shm_size init ulimits sysctls cap_add cap_drop seccomp no_new_privileges"
    " no_new_suid umask tty"
).split()


def test_every_field_of_a_spec_is_decided_about() -> None:
    decided = {*REFUSED, *OUTSIDE, *INSIDE, *OF_NETWORKS, "mounts"}
    assert decided == set(names(Spec))
    assert set(division.FIXED) <= set(REFUSED)


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_what_a_machine_cannot_honour_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        division.check(spec_of(**{name: value}))
    assert caught.value.what == name


@pytest.mark.parametrize("network", ["host", "container:other", "pid:1", "ns:/proc/1/ns/net"])
def test_so_is_a_network_that_is_no_bridge(network: str) -> None:
    with pytest.raises(SpecError) as caught:
        division.check(spec_of(network=network))
    assert (caught.value.what, caught.value.value) == ("network", network)


@pytest.mark.parametrize(("name", "value"), [("pids", 5), ("oom_group", False), ("memory", "64m")])
def test_so_are_limits(name: str, value: Any) -> None:
    with pytest.raises(SpecError) as caught:
        division.check(spec_of(limits=Limits(**{name: value})))
    assert caught.value.what == name


@pytest.mark.parametrize("target", ["/dev/x", "/proc/x", "/sys", "/tmp/below"])
def test_a_bind_below_what_the_guest_mounts_is_refused(target: str) -> None:
    with pytest.raises(SpecError, match="lies below"):
        division.check(spec_of(mounts=[TMPFS, Mount(target, "/srv/data")]))


def test_flags_of_a_bind_are_those_of_a_mount_inside_too() -> None:
    spec = spec_of(mounts=[BIND, Mount("/ro", "/srv/file.txt", readonly=True), TMPFS])
    assert division.inner(spec).mounts == (Mount("/ro", "/ro", readonly=True), TMPFS)
    host = division.inner_host(some_host(spec), spec)
    assert host.files == (True, False)


def test_volumes_have_a_place_of_their_own_beside_an_image() -> None:
    """Links of ROOTFS mean nothing to the monitor and to the guest's init."""
    spec = spec_of(mounts=[TMPFS, BIND, Mount("/run/x", "/srv/file.txt")], root_image="erofs", ephemeral=True)
    outside, inside = division.outer(spec), division.inner(spec)
    places = ["/minicontainer-volume-1", "/minicontainer-volume-2"]
    assert [mount.target for mount in outside.mounts] == places
    assert [mount.target for mount in inside.mounts] == ["/tmp", "/data", "/run/x"]
    assert [mount.source for mount in inside.mounts[1:]] == [division.SHARE + place for place in places]
    assert division.inner_host(some_host(spec), spec).files == (False, False, True)
    plan = monitor.compile(outside, some_host(outside), division.devices(spec, is_reachable=False))
    assert "root-image" in plan.inputs


@pytest.mark.parametrize(
    ("fields", "lacks", "overlay", "read_only"),
    [
        ({"ephemeral": True}, False, True, False),
        ({"read_only": True}, False, False, True),
        ({"read_only": True}, True, True, True),
        ({"ephemeral": True, "read_only": True}, False, True, True),
    ],
)
def test_an_image_is_the_root_of_the_guests_plan(
    fields: dict[str, bool], lacks: bool, overlay: bool, read_only: bool
) -> None:
    """Below an overlay, unless it is read-only and has all mount points. The monitor's own root can be written to."""
    spec = spec_of(root_image="ext4", **fields)
    host = some_host(spec, lacks_mount_points=lacks)
    text = lines(guest.compile(spec, host))
    assert f'root = open_tree(AT_FDCWD, "{division.IMAGE}"' in text
    assert ("lowerdir=lower" in text) == overlay
    assert ("attr_set=MOUNT_ATTR_RDONLY" in text.partition("# /proc")[0].partition("# take")[2]) == (
        read_only and not overlay
    )
    assert ('mount_setattr(AT_FDCWD, "/"' in text) == (read_only and overlay)
    outside = division.outer(spec)
    assert (outside.ephemeral, outside.read_only, outside.root_image) == (True, False, None)


def test_the_payload_names_the_file_system_of_an_image() -> None:
    for kind in ("erofs", "ext4"):
        spec = spec_of(root_image=kind, ephemeral=True)
        plan = guest.compile(spec, some_host(spec))
        payload = guest.start(plan, spec, some_host(spec), "0123456789ab")
        header = ffi.from_buffer("struct mc_guest_start *", payload)
        assert payload[header.image :].startswith(f"{kind}\0".encode())
        assert drivers(division.devices(spec, is_reachable=False))[0][-3:] == ["virtio_blk", kind, "overlay"]


def test_device_nodes_are_made_by_who_may() -> None:
    assert division.inner(spec_of()).cap_drop == ("MKNOD",)
    assert division.inner(spec_of(cap_add=["mknod"])).cap_drop == ()


def test_there_are_no_more_processors_than_a_machine_has() -> None:
    with pytest.raises(SpecError) as caught:
        division.check(spec_of(limits=Limits(cpus=255)))
    assert caught.value.what == "cpus"


def test_binds_are_mounted_outside_and_tmpfs_inside() -> None:
    spec = spec_of(mounts=[BIND, TMPFS])
    division.check(spec)
    assert division.outer(spec).mounts == (BIND,)
    assert division.inner(spec).mounts == (TMPFS,)


def test_mount_points_in_a_read_only_root_are_made_outside() -> None:
    """But not those that no file system of the host has, and none where the guest makes them itself."""
    below = [Mount("/tmp/x", type="tmpfs"), Mount("/dev/x", type="tmpfs"), Mount("/tmpx", type="tmpfs")]
    mounts = [TMPFS, BIND, *below]
    assert division.outer(spec_of(mounts=mounts)).mounts == (BIND,)
    assert division.outer(spec_of(mounts=mounts, read_only=True)).mounts == (TMPFS, BIND, below[2])
    image = spec_of(mounts=mounts, read_only=True, root_image="ext4")
    assert [mount.type for mount in division.outer(image).mounts] == ["bind"]
    for fields, lacks in (({}, True), ({}, False), ({"ephemeral": True}, False)):
        outer = division.outer(spec_of(mounts=mounts, read_only=True, **fields))
        text = lines(monitor.compile(outer, some_host(outer, lacks_mount_points=lacks)))
        kernels = [text.find(f'"{path}"') for path in ("/dev", "/proc", "/sys")]
        places = [text.index(f'mount_point("{path}"') for path in ("/tmp", "/data", "/tmpx")]
        assert places == sorted(places)
        assert all(0 < place < places[0] for place in kernels) == (lacks or bool(fields))
        assert (text.rindex("MOUNT_ATTR_RDONLY") > places[-1]) == (lacks or bool(fields))


def test_an_error_of_the_guest_names_the_mount_as_it_was_given() -> None:
    spec = spec_of(mounts=[BIND, TMPFS, Mount("/ro", "/srv/file.txt", readonly=True)])
    plan = guest.compile(spec, some_host(spec))
    for point, named in (("/tmp", "/tmp"), ("/ro", "/srv/file.txt")):
        number = next(i for i, step in enumerate(plan.steps) if step.call == "mount_point" and step.args[0] == point)
        failure = SimpleNamespace(kind=lib.MC_GUEST_STEP_FAILED, step=number, error=errno.ENOTDIR)
        error = str(start.guest_error(spec, plan, failure, ""))
        assert error.startswith(f"{'tmpfs' if point == '/tmp' else 'bind'} target {point}: ")
        assert named in error


@pytest.mark.parametrize(("limits", "memory", "cpus"), [({}, 512, 1), ({"memory": "1g", "cpus": 1.5}, 1024, 2)])
def test_the_size_of_the_machine_follows_the_limits(limits: dict[str, Any], memory: int, cpus: int) -> None:
    spec = spec_of(limits=Limits(**limits))
    assert (division.memory(spec) >> 20, division.cpus(spec)) == (memory, cpus)
    outside = division.outer(spec).limits.memory
    assert outside is None if not limits else int(outside or 0) == (memory << 20) + division.OVERHEAD


def test_the_monitor_gets_no_kernel_file_systems_and_no_program_of_rootfs() -> None:
    spec = division.outer(spec_of(mounts=[BIND], env={"A": "1"}))
    text = lines(monitor.compile(spec, some_host(spec, userns="range", idmapped=True)))
    assert "sysfs" not in text
    assert "devpts" not in text
    assert "move_mount(<proc>" not in text
    assert text.rstrip().splitlines()[-1].lstrip().startswith("execveat(")


def test_the_guest_gets_the_program_with_its_rights() -> None:
    spec = spec_of(env={"A": "1"}, cwd="/srv", hostname="box", mounts=[TMPFS])
    text = lines(guest.compile(spec, some_host(spec, seccomp=b"\0" * 8)))
    for expected in ('sethostname("box"', 'chdir("/srv")', "A=1", "proc", "sysfs", '"/bin/true"', "seccomp"):
        assert expected in text


def test_the_payload_is_what_the_header_says() -> None:
    spec = spec_of()
    host = some_host(spec)
    plan = guest.compile(spec, host)
    payload = guest.start(plan, spec, host, "0123456789ab")
    magic, size = (int.from_bytes(payload[at : at + 4], "little") for at in (0, 4))
    assert (magic, size) == (lib.MC_GUEST_MAGIC, len(payload))
    assert payload.count(guest.TAG + b"\0") >= 1
    assert b"0123456789ab" in payload, "the host name"


MESSAGES = (
    ("veth", Message(bytes(40), (20, 24))),
    ("up", Message(bytes(32), (20,))),
    ("address", Message(bytes(40), (20, 28, 36))),
)
BRIDGED = Endpoint("mc0", MESSAGES)
USERS = Endpoint("bridge", program=("/usernet", "/slirp4netns", "eth0", "--configure", "{}"))


def test_a_device_of_a_network_is_there_where_there_is_a_network() -> None:
    def devices(*, is_reachable: bool = False, **options: Any) -> tuple[Device, ...]:
        return division.devices(spec_of(**options), is_reachable=is_reachable)

    assert devices() == devices(dns=["1.1.1.1"]) == ALWAYS
    assert devices(ports=[80]) == (*ALWAYS, NETWORK)
    assert devices(ports=[80], is_reachable=True) == (*ALWAYS, VSOCK, NETWORK)


@pytest.mark.parametrize("endpoint", [BRIDGED, USERS])
def test_the_guest_has_the_addresses_and_the_monitor_has_none(endpoint: Endpoint) -> None:
    """And the monitor's kernel would give it none of IPv6 either: it is told so before the interface is up."""
    spec = spec_of(network="bridge")
    outer = division.outer(spec)
    host = some_host(outer, endpoint=endpoint, etc=(EtcFile("hosts", None), EtcFile("resolv.conf", "nameserver x\n")))
    outside = monitor.compile(outer, host, division.devices(spec, is_reachable=False))
    text, of_guest = lines(outside), lines(guest.compile(spec, host, endpoint))
    order = [text.index(word) for word in ("disable_ipv6", "{eth0, IFF_UP", "packet_socket", "capset")]
    assert order == sorted(order)
    for word in ("RTM_NEWADDR", "SIOCSIFADDR", "if_nametoindex"):
        assert word not in text
    assert ("SIOCSIFMTU" in text) == bool(endpoint.program)
    assert "packet_socket" not in of_guest
    assert ("RTM_NEWADDR eth0" in of_guest) != ("{default, 10.0.2.2}" in of_guest)
    assert "wait_for_parent" in text, "of which a guest has none"
    assert "wait_for_parent" not in of_guest
    assert outside.slots["network"] >= len(outside.inputs), "the plan opens it"


def test_files_of_etc_are_the_monitors_to_mount() -> None:
    spec = spec_of(network="bridge", name="box")
    host = some_host(division.outer(spec), endpoint=BRIDGED, etc=(EtcFile("hosts", None), EtcFile("hostname", "box\n")))
    text = lines(monitor.compile(division.outer(spec), host, division.devices(spec, is_reachable=False)))
    places = [text.index(word) for word in ('mount_point("/etc/hosts"', "umount2", "setsid")]
    assert text.count("umount2") == 2, "of the old root, and of the files' own tmpfs"
    assert places[0] < text.rindex("umount2") < places[2]
    assert "/etc/hosts" not in lines(guest.compile(spec, host, BRIDGED))


def test_the_address_is_told_when_the_guest_starts() -> None:
    spec = spec_of(network="bridge")
    host = some_host(spec)
    plan = guest.compile(spec, host, BRIDGED)
    assert plan.inputs[-1] == "address"
    payload = guest.start(plan, spec, host, "0123456789ab", 0x0200580A)
    header = ffi.from_buffer("struct mc_guest_start *", payload)
    slots = ffi.cast("int32_t *", ffi.from_buffer(payload) + header.initial_slots)
    values = {name: slots[index] for name, index in plan.slots.items()}
    assert values.pop("address") == 0x0200580A
    assert set(values.values()) == {-1}
    assert not header.clone_flags & lib.CLONE_NEWNET, "where the kernel has found eth0"
    alone = ffi.from_buffer("struct mc_guest_start *", guest.start(plan, spec_of(), host, "0123456789ab"))
    assert alone.clone_flags & lib.CLONE_NEWNET


def test_programs_of_users_leave_the_addresses_to_the_guest() -> None:
    assert usernet.for_guest(USERS, Port.option("80")).program == ("/usernet", "/slirp4netns", "eth0", "{}")
    pasta = Endpoint("bridge", program=("/usernet", "/pasta", "--", "--quiet", "--config-net", "-t", "none"))
    words = usernet.for_guest(pasta, ()).program
    assert words[:6] == ("/usernet", "/pasta", "--", "--quiet", "-t", "none")
    assert words[6:] == ("-4", "-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2")
    with pytest.raises(UnsupportedError, match="IPv4 alone"):
        usernet.for_guest(pasta, Port.option("[::1]:8080:80"))


def test_a_limit_that_is_changed_is_one_that_a_machine_has() -> None:
    changed = spec_of(limits=Limits(memory="1g"))
    division.check_change(changed, ["memory"], running=False)
    division.check_change(spec_of(limits=Limits(cpus=1)), ["cpus"], running=True)
    with pytest.raises(SpecError, match="from its start on"):
        division.check_change(changed, ["memory"], running=True)
    with pytest.raises(SpecError, match="pids"):
        division.check_change(spec_of(limits=Limits(pids=5)), ["pids"], running=False)


def test_the_monitor_has_its_descriptors_alone() -> None:
    """Whatever else its creator has left open is closed."""
    assert sorted(monitor.NUMBERS.values()) == list(range(3, lib.MC_VMM_GIVEN_FD))
    spec = division.outer(spec_of())
    steps = monitor.compile(spec, some_host(spec)).steps
    first_dup = next(i for i, step in enumerate(steps) if step.call == "dup3" and step.phase == "execute")
    assert all(step.call != "fcntl" for step in steps[first_dup:]), "each input is moved away first"
    assert [step.args[:2] for step in steps if step.call == "close_range"] == [
        (lib.MC_VMM_GIVEN_FD, monitor.FIRST_FREE - 1),
        (monitor.FIRST_FREE, 0xFFFFFFFF),
    ]


def test_what_a_device_serves_has_the_number_of_the_device() -> None:
    devices = (*ALWAYS, Device(7, "one"), Device(8, "two", given="disk"))
    spec = division.outer(spec_of())
    plan = monitor.compile(spec, some_host(spec), devices)
    assert "disk" in plan.slots
    numbers = {step.args[1] for step in plan.steps if step.call == "dup3" and step.phase == "execute"}
    assert numbers == {*monitor.NUMBERS.values(), lib.MC_VMM_GIVEN_FD + len(ALWAYS) + 1, monitor.PROGRAM_FD}
