"""``compile(spec, host)``: that it is pure, and that the steps of any container stand in the order that makes it safe.

Golden fragments, not whole dumps: what one option adds, and the rules that hold for every spec.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hosts import FILTER, compiled, some_host
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.container import placeholders
from minicontainer.container.compiler import clone_flags, compile, environment, for_family
from minicontainer.container.host import NODES, Host, Identity
from minicontainer.container.ids.idmapped import parent_plan
from minicontainer.container.program.execute import ADMIN, program_paths
from minicontainer.native import ffi, lib
from minicontainer.plan import Plan, Slot, Step
from minicontainer.records import replace
from minicontainer.spec import DEFAULT_CAPABILITIES, Limits, Mount, Spec, Ulimit


def plan_of(host: dict[str, Any] | None = None, **fields: Any) -> Plan:
    fields.setdefault("rootfs", "/srv/root")
    spec = Spec(("/bin/true",), **fields)
    return compile(spec, some_host(spec, **(host or {})))


def lines(plan: Plan, phase: str | None = None) -> list[str]:
    return [s.describe() for s in plan.steps if phase is None or s.phase == phase]


# ---- any spec


def where(plan: Plan, call: str, test: Callable[[Step], bool] = lambda s: True) -> list[int]:
    """The positions of the steps that are this call."""
    return [i for i, step in enumerate(plan.steps) if step.call == call and test(step)]


def first_argument(value: object) -> Callable[[Step], bool]:
    return lambda step: step.args[0] == value


def taken_and_attached(plan: Plan) -> Iterator[tuple[str, int, int]]:
    """Each detached mount: its slot, where it was taken, where it was attached."""
    for i, step in enumerate(plan.steps):
        if step.call == "fsmount" or (step.call == "open_tree" and not isinstance(step.args[0], Slot)):
            for j in where(plan, "move_mount", first_argument(step.into)):
                yield str(step.into), i, j


@given(compiled())
def test_sources_are_taken_before_the_root_is_entered_and_attached_after(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    (pivot,) = where(plan, "pivot_root")
    for slot, taken, attached in taken_and_attached(plan):
        assert taken < pivot, slot
        assert taken < attached, slot
        assert (attached < pivot) == (slot in ("root", "layers")), slot
    # what is copied inside is copied by descriptor: of what was taken before
    known = {s.into for s in plan.steps[:pivot]} | set(plan.inputs)
    inside = [s for s in plan.steps[pivot:] if s.call == "open_tree"]
    assert {s.args[0] for s in inside} <= known
    # nothing is opened by a host's path afterwards, and the old root goes at once, with what was put on top of it
    gone = ['umount2(".", MNT_DETACH)'] * (
        2 if (spec.ephemeral or host.lacks_mount_points) and not host.chrooted else 1
    )
    after = ['pivot_root(".", ".")', *gone, 'chdir("/")']
    assert lines(plan)[pivot : pivot + len(after)] == after


@given(compiled())
def test_volumes_are_attached_to_what_was_walked_to_and_on_top_of_all_else(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    kernels = [i for name in ("dev", "proc", "sys") for i in where(plan, "move_mount", first_argument(name))]
    for i, mount in enumerate(spec.mounts):
        (attached,) = where(plan, "move_mount", first_argument(f"mount-{i}"))
        assert attached > max(kernels)
        assert plan.steps[attached].args[2] == f"target-{i}"
        assert plan.steps[attached - 1].describe() == (
            f'target-{i} = mount_point("{mount.target}", {int(host.files[i])})'
        )


@given(compiled())
def test_privileges_go_in_the_order_that_the_kernel_asks_for(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    phase = [s for s in plan.steps if s.phase == "confine"]
    order = [s.call for s in phase]
    assert order.index("prctl_capbset_drop_all_but") < order.index("setresuid")  # needs CAP_SETPCAP
    assert order.index("setresgid") < order.index("setresuid") < where_last(order, "capset")
    assert ("setgroups" in order) == host.groups
    if "setgroups" in order:
        assert order.index("setgroups") < order.index("setresgid")
    raised = [i for i, call in enumerate(order) if call == "prlimit64_raise"]
    assert len(raised) == (len(spec.ulimits) if host.userns != "range" else 0)
    assert all(i < order.index("setresuid") for i in raised)  # CAP_SYS_RESOURCE
    protected = [i for i, s in enumerate(phase) if s.describe().startswith("prctl(PR_SET_NO_NEW_PRIVS")]
    assert bool(protected) == (spec.no_new_privileges and not spec.privileged)
    assert "seccomp" not in order
    if host.seccomp and not protected:  # an unprivileged process needs no_new_privs for it, else CAP_SYS_ADMIN
        effective = int(phase[where_last(order, "capset")].describe().partition("effective=")[2].partition(",")[0], 16)
        assert effective & ADMIN
    assert where(plan, "capset")[-1] > max(where(plan, "mount_setattr") + where(plan, "move_mount"))


@given(compiled())
@settings(deadline=None)
def test_the_filter_of_set_uid_bits_comes_before_the_other(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, _ = case
    plan = compile(spec, host._replace(suid=FILTER * 2))
    filters = 2 if host.seccomp and not (spec.init or host.exe_reachable) else 1
    assert where(plan, "seccomp") == list(range(len(plan.steps) - 1 - filters, len(plan.steps) - 1))
    assert plan.steps[where(plan, "seccomp")[0]].args[1] == 2


def where_last(order: list[str], call: str) -> int:
    return len(order) - 1 - order[::-1].index(call)


@given(compiled())
def test_nothing_of_ours_is_under_the_filter_but_the_exec(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    staged = spec.init or host.exe_reachable
    assert where(plan, "seccomp") == ([len(plan.steps) - 2] if host.seccomp and not staged else [])
    assert ("filter" in plan.inputs) == bool(host.seccomp and staged)


@given(compiled())
def test_the_end_of_every_plan(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    end = [s.call for s in plan.steps if s.phase == "execute"]
    ours_first = spec.init or host.exe_reachable
    assert end[-1] == ("execveat" if ours_first else "execve")
    assert end.index("close_range") < end.index("chdir") < end.index("reset_signals")  # CVE-2024-21626
    assert plan.steps[where(plan, "close_range")[0]].args[0] == ((6 if host.seccomp else 5) if ours_first else 3)
    assert len([s for s in plan.steps if s.op in (lib.MC_EXEC, lib.MC_EXEC_FD)]) == 1
    limited = where(plan, "prlimit64")  # nothing of ours is done under them: init sets them itself
    last = len(plan.steps) - 1 - bool(host.seccomp)
    assert limited == ([] if ours_first else list(range(last - len(spec.ulimits), last)))
    assert max(where(plan, "dup3")) < where(plan, "close_range")[0]
    death = where(plan, "prctl", lambda s: s.describe().startswith("prctl(PR_SET_PDEATHSIG"))
    assert bool(death) == spec.die_with_parent
    assert all(i > max(where(plan, "setresuid")) for i in death)  # prctl(2): a change of ids clears it


@given(compiled())
def test_what_is_read_only_is_never_written_to(case: tuple[Spec, Host, Plan]) -> None:
    """ROOTFS is so before it is entered; a layer above it, when all is made there."""
    spec, host, plan = case
    layers = spec.ephemeral or host.lacks_mount_points
    of_root = 'mount_setattr(<root>, "", AT_EMPTY_PATH, {attr_set=MOUNT_ATTR_RDONLY}, 32)'
    first = where(plan, "mount_setattr", lambda s: s.describe() == of_root)
    last = where(plan, "mount_setattr", lambda s: s.args[1] == "/")
    made = (
        where(plan, "mkdirat") + where(plan, "mount_point") + where(plan, "mknodat", lambda s: s.args[1] != "console")
    )
    assert (len(first), len(last)) == (spec.read_only and not layers, spec.read_only and layers)
    assert all(i < where(plan, "pivot_root")[0] for i in first)
    assert all(i > max(made) for i in last)
    assert bool(where(plan, "mount", lambda s: s.args[0] == "overlay")) == layers
    hidden = where(plan, "mount_setattr", first_argument("read-only"))
    assert len(hidden) == (0 if spec.privileged else len(host.read_only))
    adjusted = where(plan, "openat", first_argument("x")) + where(plan, "openat", lambda s: "oom_score" in s.describe())
    assert len(adjusted) == 1
    assert all(i < j for i in adjusted for j in hidden)


@given(compiled())
def test_namespaces_are_joined_first_and_as_root_of_the_joined_one(case: tuple[Spec, Host, Plan]) -> None:
    spec, _, plan = case
    joins = where(plan, "setns", lambda s: s.args[0] != "mnt")
    wanted = [k for k in ("userns", "pid", "network", "uts", "ipc", "cgroupns") if spec.joined(k)]
    assert [plan.steps[i].args[0] for i in joins] == [f"ns-{k}" for k in wanted]
    if joins:
        assert plan.steps[0].describe() == "prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)"
        assert joins == list(range(1, 1 + len(joins)))
    forks = where(plan, "clone3")
    assert bool(forks) == bool(spec.joined("pid") or (spec.joined("userns") and spec.pid == "private"))
    assert all(j < i < where(plan, "mount")[0] for i in forks for j in joins)


@given(compiled())
def test_every_plan_encodes_and_every_input_is_known(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    assert plan.buffer
    allowed = {"stdin", "stdout", "stderr", "ready", "go", "go-write", "parent-socket", "init", "report", "filter"}
    assert {name for name in plan.inputs if not name.startswith("ns-")} <= allowed
    assert ("parent-socket" in plan.inputs) == spec.tty
    assert ("init" in plan.inputs) == ("report" in plan.inputs) == (spec.init or host.exe_reachable)
    assert ("go" in plan.inputs) == (host.userns in ("private", "keep-id") and host.maps is None)
    used = {a for s in plan.steps for a in s.args if isinstance(a, Slot)}
    assert set(plan.inputs) - used <= {"stdin", "stdout", "stderr"}
    assert all(s.phase for s in plan.steps)


@given(compiled())
@settings(max_examples=30)
def test_equal_specs_and_facts_give_equal_plans(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    again = compile(dataclasses.replace(spec), host._replace())
    assert again == plan
    assert again.buffer == plan.buffer


PURITY = """
import sys
from minicontainer.container.compiler import compile
from minicontainer.container.host import NODES, Host, Identity
from minicontainer.container.ids.idmapped import parent_plan
from minicontainer.spec import Mount, Spec
spec = Spec(("x",), rootfs="/none", tty=True, init=True, mounts=(Mount("/a", "/none/a"),), ephemeral=True)
host = Host("private", 1000, 1000, None, Identity(), (False,), (), (("/proc/kcore", False),), ("/proc/sys",), True)
compile(spec, host).buffer
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
compile(spec, host).buffer
print(sorted(set(seen) - {"object.__getattr__", "code.__new__"}))
"""


@given(
    compiled(),
    st.lists(st.text("ab/", max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["A", "PATH", "HOSTNAME"]), st.text("xy:/", max_size=4)),
    st.sampled_from(["/", "/tmp", "/srv/deep"]),
    st.sampled_from([None, "box"]),
)
def test_a_plan_of_the_family_is_the_plan_that_is_compiled(
    case: tuple[Spec, Host, Plan], args: list[str], env: dict[str, str], cwd: str, name: str | None
) -> None:
    spec, host, plan = case
    other = replace(spec, args=args, env=env, cwd=cwd, name=name)
    assert other.family is spec.family
    made, expected = for_family(plan, other, host), compile(other, host)
    assert (made.steps, made.inputs) == (expected.steps, expected.inputs)
    assert made.slots == expected.slots
    assert made.nstrings >= expected.nstrings
    assert len(made.buffer) <= len(plan.buffer) + len(expected.buffer)
    assert made.encoded().room == lib.mc_run_room(ffi.from_buffer("struct mc_plan *", made.buffer))
    assert for_family(made, spec, host).steps == plan.steps


def test_compiling_touches_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PURITY], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@given(compiled())
def test_a_chroot_is_left_for_the_true_root_before_the_pivot(case: tuple[Spec, Host, Plan]) -> None:
    spec, host, plan = case
    last = [s.describe() for s in plan.steps[: where(plan, "pivot_root")[0]]][-2:]
    top = "merged" if spec.ephemeral or host.lacks_mount_points else "root"
    assert (last == ["setns(<mnt>, CLONE_NEWNS)", f"fchdir(<{top}>)"]) == host.chrooted
    assert (lines(plan, "take sources").count('chroot(".")') == 1) == host.chrooted


# ---- what an option adds


def added(host: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    """The steps that the plan has and the plain one has not."""
    plain = set(lines(plan_of()))
    return [line for line in lines(plan_of(host, **fields)) if line not in plain]


def removed(host: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    more = set(lines(plan_of(host, **fields)))
    return [line for line in lines(plan_of()) if line not in more]


def test_the_plain_container() -> None:
    plan = plan_of()
    tree = 'root = open_tree(AT_FDCWD, "/srv/root", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE)'
    assert tree in lines(plan, "take sources")
    assert lines(plan, "root") == [
        'move_mount(<root>, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)',
        "fchdir(<root>)",
        'pivot_root(".", ".")',
        'umount2(".", MNT_DETACH)',
        'chdir("/")',
    ]
    mask = sum(1 << i for i in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 27, 29, 31))  # docker's without NET_RAW
    assert mask == 0xA80405FB
    assert len(DEFAULT_CAPABILITIES) == 13
    assert f"prctl_capbset_drop_all_but({mask:#x})" in lines(plan)
    assert lines(plan)[-1].startswith('execve(["/bin/true"], ["/bin/true"], [')
    assert 'sethostname("0123456789ab", 12)' in lines(placeholders.with_id(plan, "0123456789ab"))
    assert "ioctl(<socket>, SIOCSIFFLAGS, {lo, IFF_UP})" in lines(plan)
    assert "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)" in lines(plan)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"umask": 0o77}, ["umask(0o77)"]),
        (
            {"read_only": True, "no_new_suid": False},
            ['mount_setattr(<root>, "", AT_EMPTY_PATH, {attr_set=MOUNT_ATTR_RDONLY}, 32)'],
        ),
        (
            {"ulimits": (Ulimit("core", 0, -1),)},
            [
                "prlimit64_all(<15 limits>, 16)",
                "prlimit64_raise(0, 4, RLIM_INFINITY)",
                "prlimit64(0, 4, {0, RLIM_INFINITY}, NULL)",
            ],
        ),
        ({"die_with_parent": True}, ["prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)"]),
        ({"cwd": "/tmp"}, ['chdir("/tmp")']),
        ({"shm_size": "1m"}, ['fsconfig(<fs-shm>, FSCONFIG_SET_STRING, "size", "1048576", 0)']),
        (
            {"oom_score_adj": 500},
            ['write(<oom_score_adj>, "500", 3)'],
        ),
        (
            {"mounts": (Mount("/a/b", "/srv/x", readonly=True),)},
            [
                'mount-0 = open_tree(AT_FDCWD, "/srv/x", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_RECURSIVE)',
                'mount_setattr(<mount-0>, "", AT_EMPTY_PATH|AT_RECURSIVE,'
                " {attr_set=MOUNT_ATTR_NODEV|MOUNT_ATTR_NOSUID|MOUNT_ATTR_RDONLY}, 32)",
                'target-0 = mount_point("/a/b", 0)',
                'move_mount(<mount-0>, "", <target-0>, "", MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)',
            ],
        ),
        ({"limits": Limits(memory="64M")}, []),  # limits are the cgroup's, not the child's
    ],
)
def test_what_an_option_adds(fields: dict[str, Any], expected: list[str]) -> None:
    assert added(**fields) == expected


def test_a_time_namespace_is_entered_where_the_kernel_does_it() -> None:
    assert added({"timens": True}) == ["unshare(CLONE_NEWTIME)"]


def test_a_sysctl_is_written_while_proc_can_be() -> None:
    steps = lines(plan_of(sysctls={"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "0"}))
    (opened,) = [i for i, line in enumerate(steps) if '<proc>, "sys/net/ipv4/ip_forward"' in line]
    (attached,) = [i for i, line in enumerate(steps) if line.startswith('move_mount(<proc>, "", AT_FDCWD, "/proc"')]
    (sealed,) = [i for i, line in enumerate(steps) if line.startswith('move_mount(<read-only>, "", <proc>, "sys"')]
    slot = steps[opened].partition(" = ")[0]
    assert attached < opened < steps.index(f'write(<{slot}>, "1", 1)') < steps.index(f"close(<{slot}>)") < sealed
    assert any('<proc>, "sys/kernel/shm_rmid_forced"' in line for line in steps)


def test_a_file_is_mounted_on_a_file() -> None:
    assert 'target-0 = mount_point("/a.txt", 1)' in added(mounts=(Mount("/a.txt", "/srv/a.txt"),))


def test_a_tmpfs_is_made_with_dockers_restrictions_unless_lifted() -> None:
    plain = added(mounts=(Mount("/t", type="tmpfs", size=8192, mode=0o700),))
    assert 'fsconfig(<fs-mount-0>, FSCONFIG_SET_STRING, "mode", "700", 0)' in plain
    assert 'fsconfig(<fs-mount-0>, FSCONFIG_SET_STRING, "size", "8192", 0)' in plain
    made = "mount-0 = fsmount(<fs-mount-0>, FSMOUNT_CLOEXEC, "
    assert made + "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC)" in plain
    lifted = added(mounts=(Mount("/t", type="tmpfs", options=frozenset({"exec", "suid", "dev"})),))
    assert made + "0)" in lifted


def test_ephemeral_is_an_overlay_whose_upper_layer_is_a_tmpfs() -> None:
    extra = added(ephemeral=True)
    overlay = 'mount("overlay", "merged", "overlay", MS_NODEV|MS_NOSUID, "lowerdir=lower,upperdir=upper,workdir=work")'
    layers = "layers = fsmount(<fs-layers>, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV)"
    assert extra.index(layers) < extra.index(overlay)
    odd = plan_of(ephemeral=True, rootfs="/srv/a,b:c")
    assert overlay in lines(odd)  # no character of the path can become an option


def test_privileged_masks_nothing_and_keeps_every_capability() -> None:
    gone = removed(privileged=True)
    assert any(line.startswith('move_mount(<null>, "", <proc>, "kcore"') for line in gone)
    assert any(line.startswith("prctl(PR_SET_NO_NEW_PRIVS") for line in gone)
    assert f"prctl_capbset_drop_all_but({2**41 - 1:#x})" in added(privileged=True)


def test_another_user_loses_all_capabilities() -> None:
    extra = added({"identity": Identity(1000, 100, (5, 6))}, user="1000:100", no_new_suid=False)
    assert extra == [
        "setgroups(2, [5, 6])",
        "setresgid(100, 100, 100)",
        "setresuid(1000, 1000, 1000)",
        "capset({_LINUX_CAPABILITY_VERSION_3, 0}, {effective=0x0, permitted=0x0, inheritable=0x0})",
    ]


def test_in_a_user_namespace_the_host_s_device_nodes_are_shown() -> None:
    facts = {"userns": "private", "uid": 1000, "gid": 1000, "maps": ("0 1000 1", "0 1000 1")}
    plan = plan_of(facts)
    assert lines(plan, "user namespace")[:3] == [
        'setgroups = openat(AT_FDCWD, "/proc/self/setgroups", O_WRONLY|O_CLOEXEC, 0)',
        'write(<setgroups>, "deny", 4)',
        "close(<setgroups>)",
    ]
    assert 'write(<uid_map>, "0 1000 1", 8)' in lines(plan)
    assert 'node-null = open_tree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)' in lines(plan)
    assert not [s for s in plan.steps if s.call == "mknodat" and "S_IFCHR" in s.describe()]
    assert not where(plan, "setgroups")


def test_root_of_a_user_namespace_is_not_root_of_the_host() -> None:
    """Neither makes device nodes, nor has the host's file systems; what of ids is mapped is known."""
    nested = {"nested": True, "groups": False, "tty_group": False}
    root, other = plan_of(), plan_of(nested, pid="host", network="host", ipc="host", ephemeral=True)
    made = [s for s in root.steps if s.call == "mknodat" and "S_IFCHR" in s.describe()]
    assert len(made) == len(NODES)
    assert not [s for s in other.steps if s.call == "mknodat" and "S_IFCHR" in s.describe()]
    shown = {s.args[1] for s in other.steps if s.call == "open_tree"}
    assert shown >= {"/dev/null", "/proc", "/sys", "/dev/tty"}
    assert not where(other, "setgroups") + where(other, "fsopen", lambda s: s.args[0] in ("proc", "sysfs", "mqueue"))
    assert not where(other, "fsconfig", lambda s: s.args[2] == "gid")
    assert where(root, "fsconfig", lambda s: s.args[2] == "gid")
    assert where(other, "mount", lambda s: "userxattr" in str(s.args[4]))


def test_ranges_of_ids_are_the_parent_side_plan() -> None:
    plan = plan_of({"userns": "private", "uid": 1000, "gid": 1000})
    begin = ["close(<go-write>)", 'write(<ready>, "r", 1)', "wait_for_parent(<go>)"]
    assert lines(plan, "user namespace")[:3] == begin


def test_the_parent_side_plan_maps_a_range_of_ids_and_makes_mounts_id_mapped() -> None:
    """What it takes comes before the child is there; the child goes on twice: with ids, and with trees shown so."""
    volumes = (Mount("/data", "/srv/data"), Mount("/tmp", type="tmpfs"))
    plan = plan_of({"userns": "range", "idmapped": True}, mounts=volumes, ulimits=(Ulimit("nofile", 64, 64),))
    spec = Spec(("/bin/true",), rootfs="/srv/root", mounts=volumes, ulimits=(Ulimit("nofile", 64, 64),))
    steps = lines(parent_plan(spec, some_host(spec)))
    takes = [line.partition(" =")[0] for line in steps if "open_tree(" in line]
    assert takes == ["root", "mount-0"]
    assert not set(takes) & {str(s.into) for s in plan.steps}
    calls = [line.partition("(")[0].rpartition("= ")[2] for line in steps]
    told = [i for i, line in enumerate(steps) if line == 'write(<answer>, "g", 1)']
    assert calls[: calls.index("await_child")][-1] == "fsmount"
    assert max(i for i, call in enumerate(calls) if call == "open_tree") < calls.index("fsmount")
    assert 'mknodat(<dev>, "null", S_IFCHR|0o666, 259)' in steps
    assert calls.index("write_id_map") < calls.index("mknodat") < told[1]
    assert calls.index("write_id_map") < told[0] < calls.index("mount_setattr_idmap")
    assert max(i for i, call in enumerate(calls) if call == "mount_setattr_idmap") < told[1] == len(steps) - 1
    assert calls.index("prlimit64_raise") < told[1]
    assert "prlimit64" not in calls
    waits = where(plan, "wait_for_parent")
    assert len(waits) == len(told)
    assert waits[0] < where(plan, "setresuid")[0] < waits[1] < where(plan, "move_mount")[0]


@pytest.mark.parametrize(
    ("userns", "fields", "expected"),
    [
        ("host", {}, "CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWCGROUP"),
        (
            "private",
            {"network": "host", "ipc": "host"},
            "CLONE_NEWUSER|CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWUTS|CLONE_NEWCGROUP",
        ),
        ("host", {"pid": "host", "uts": "pid:1", "cgroupns": "host"}, "CLONE_NEWNS|CLONE_NEWNET|CLONE_NEWIPC"),
        (
            "host",
            {"timens": "private"},
            "CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWCGROUP",  # the child unshares it
        ),
        ("join", {"userns": "pid:7"}, "0"),
    ],
)
def test_clone_flags(userns: str, fields: dict[str, Any], expected: str) -> None:
    spec = Spec((), rootfs="/srv/root", **fields)
    assert clone_flags(spec, some_host(spec, userns=userns)).text == expected


def test_environment_is_what_was_asked_for_and_little_more() -> None:
    spec = Spec((), rootfs="/r", env={"A": "1", "HOME": "/h"}, hostname="box")
    found = environment(spec, some_host(spec))
    assert found == {"PATH": found["PATH"], "HOSTNAME": "box", "HOME": "/h", "A": "1"}
    assert "/usr/bin" in found["PATH"].split(":")


@pytest.mark.parametrize(
    ("program", "path", "expected"),
    [
        ("/bin/x", "/a:/b", ["/bin/x"]),
        ("./x", "/a", ["./x"]),
        ("x", "/a:/b", ["/a/x", "/b/x"]),
        ("x", "/a::/b", ["/a/x", "./x", "/b/x"]),  # execvp(3): an empty one is the current directory
        ("x", "", ["./x"]),
    ],
)
def test_a_program_is_looked_for_as_execvp_does(program: str, path: str, expected: list[str]) -> None:
    assert program_paths(program, path) == expected


def test_host_names() -> None:
    assert f"HOSTNAME={os.uname().nodename}" in str(plan_of(uts="host").steps[-1].args[2])
    assert not where(plan_of(uts="host"), "sethostname")
    assert 'sethostname("n1", 2)' in lines(plan_of(name="n1"))
