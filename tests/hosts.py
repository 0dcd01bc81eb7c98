"""Specs of any kind, each with facts of a host that go with it, for tests without privilege."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from minicontainer.container.compiler import compile
from minicontainer.container.host import Host, Identity
from minicontainer.plan import Plan
from minicontainer.spec import Device, Mount, Spec, Ulimit

FILTER = b"\x06\0\0\0\0\0\xff\x7f"  # BPF_RET|BPF_K, SECCOMP_RET_ALLOW


def some_host(spec: Spec, **facts: Any) -> Host:
    """The facts of a machine where root runs ``spec``."""
    known = {
        "userns": "host",
        "uid": 0,
        "gid": 0,
        "maps": None,
        "identity": Identity(),
        "files": tuple((m.source or "").endswith(".txt") for m in spec.mounts),
        "device_nodes": tuple((10, 200 + i, 0o020666) for i in range(len(spec.devices))),
        "masked": (("/proc/kcore", False), ("/proc/acpi", True), ("/sys/firmware", True)),
        "read_only": ("/proc/sys", "/proc/sysrq-trigger"),
        "cgroup2": True,
    }
    one_id = dict.fromkeys(("groups", "tty_group"), facts.get("maps") is None)
    if facts.get("userns") in ("private", "keep-id") and facts.get("maps") is None:
        known["outer_maps"] = (("uid_map", "0 0 70000"), ("gid_map", "0 0 70000"))
    return Host(**{**known, **one_id, **facts})


flags = st.booleans()
ids = st.integers(0, 2**32 - 2)
identities = st.builds(
    Identity,
    uid=st.one_of(st.just(0), ids),
    gid=ids,
    groups=st.lists(ids, max_size=3).map(tuple),
    home=st.sampled_from(["/", "/home/x"]),
)
mounts = st.sampled_from(
    [
        Mount("/data", "/srv/data"),
        Mount("/data/in/file.txt", "/srv/file.txt", readonly=True),
        Mount("/proc/sys/x", "/srv/x"),
        Mount("/sys/x", "/srv/x"),
        Mount("/processed", "/srv/x", options=frozenset({"noexec", "nodev"})),
        Mount("/tmp", type="tmpfs", size="1m", mode=0o700),
        Mount("/etc/hosts", "/srv/hosts.txt"),
    ]
)
devices = st.sampled_from([Device("/dev/fuse", "/dev/fuse"), Device("/dev/net/tun", "/dev/net/tun")])
kinds = st.sampled_from(["private", "host", "pid:77"])


@st.composite
def compiled(draw: st.DrawFn) -> tuple[Spec, Host, Plan]:
    """A spec, facts that go with it, and its plan."""
    userns = draw(st.sampled_from([None, None, "private", "keep-id", "pid:77"]))
    spec = Spec(
        draw(st.sampled_from([("/bin/true",), ("sh", "-c", "x"), ()])),
        rootfs="/srv/root",
        ephemeral=draw(flags),
        read_only=draw(flags),
        init=draw(flags),
        tty=draw(flags),
        privileged=draw(flags),
        no_new_privileges=draw(flags),
        die_with_parent=draw(flags),
        cwd=draw(st.sampled_from(["/", "/tmp"])),
        env=draw(st.dictionaries(st.sampled_from(["A", "PATH", "HOME"]), st.text("xy/", max_size=4))),
        mounts=tuple(draw(st.lists(mounts, max_size=3, unique_by=lambda m: m.target))),
        devices=tuple(draw(st.lists(devices, max_size=2, unique_by=lambda d: d.target))),
        ulimits=tuple(draw(st.lists(st.just(Ulimit("nofile", 64, 64)), max_size=1))),
        cap_add=tuple(draw(st.lists(st.sampled_from(["ALL", "SYS_ADMIN", "net_admin"]), max_size=1))),
        cap_drop=tuple(draw(st.lists(st.sampled_from(["ALL", "CHOWN"]), max_size=1))),
        oom_score_adj=draw(st.sampled_from([None, 500])),
        userns=userns,
        network=draw(st.sampled_from(["none", "host", "pid:77"])),
        pid=draw(kinds),
        ipc=draw(kinds),
        uts=draw(kinds),
        cgroupns=draw(kinds),
    )
    host = some_host(
        spec,
        userns={None: "host", "pid:77": "join"}.get(userns, userns),
        maps=draw(st.sampled_from([None, ("0 1000 1", "0 1000 1")])) if userns in ("private", "keep-id") else None,
        identity=draw(identities),
        cgroup2=draw(flags),
        seccomp=draw(st.sampled_from([b"", FILTER])),
        chrooted=draw(flags) and userns in (None, "pid:77"),
        exe_reachable=draw(flags),
        lacks_mount_points=spec.read_only and not spec.ephemeral and draw(flags),
    )
    return spec, host, compile(spec, host)
