"""A container as ``docker inspect`` shows it: its configuration and its state.

Fields are docker's where docker has them, and podman's ``Rootfs`` and ``CgroupPath``. Additional: ``State.Reason``
(exited, signal, timeout, oom, failed), ``State.LogLost`` (bytes), ``HostConfig.Ephemeral``,
``.Executable`` (a static program of the host's), ``.TimensMode``, ``.OomGroup``, ``.Umask``, ``.Timeout`` (seconds).
Options that were not used are null.
"""

from __future__ import annotations

from typing import Any

from minicontainer import volumes
from minicontainer.cli.times import format_time
from minicontainer.detached.records import Config, State
from minicontainer.spec import Limits, Mount, Port, Spec

SAME = {  # field of Spec -> field of HostConfig
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "cgroupns": "CgroupnsMode",
    "dns": "Dns",
    "ephemeral": "Ephemeral",
    "executable": "Executable",
    "group_add": "GroupAdd",
    "init": "Init",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "kernel": "Kernel",
    "network": "NetworkMode",
    "oom_score_adj": "OomScoreAdj",
    "pid": "PidMode",
    "privileged": "Privileged",
    "read_only": "ReadonlyRootfs",
    "root_image": "RootImage",
    "shm_size": "ShmSize",
    "sysctls": "Sysctls",
    "timens": "TimensMode",
    "userns": "UsernsMode",
    "uts": "UTSMode",
}
LIMITS = {  # field of Limits -> field of HostConfig
    "memory": "Memory",
    "memory_swap": "MemorySwap",
    "memory_reservation": "MemoryReservation",
    "cpu_shares": "CpuShares",
    "cpuset_cpus": "CpusetCpus",
    "pids": "PidsLimit",
    "blkio_weight": "BlkioWeight",
    "oom_group": "OomGroup",
}
RATES = {
    "device_read_bps": "BlkioDeviceReadBps",
    "device_write_bps": "BlkioDeviceWriteBps",
    "device_read_iops": "BlkioDeviceReadIOps",
    "device_write_iops": "BlkioDeviceWriteIOps",
}


def as_data(container: Any) -> dict[str, Any]:
    """The whole JSON object. CorruptError if the container's files cannot be read."""
    config, state = container.config, container.state
    path, *args = config.spec.args
    return {
        "Id": config.id,
        "Created": format_time(config.created),
        "Path": path,
        "Args": args,
        "State": _state(state, container),
        "Rootfs": config.spec.rootfs,
        "Name": config.name or None,
        "RestartCount": state.restarts,
        "LogPath": f"{container.directory}/log",
        "HostConfig": _host_config(config),
        "Mounts": [_mount(mount) for mount in config.spec.mounts],
        "Config": _config(config),
        "NetworkSettings": _network(config.spec, container),
    }


def _state(state: State, container: Any) -> dict[str, Any]:
    cgroup = container.open_cgroup()
    path = cgroup.path if cgroup is not None else None
    if cgroup is not None:
        cgroup.close()
    return {
        "Status": state.status,
        "Running": state.status in ("running", "paused"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.process.pid if state.process is not None else None,
        "ExitCode": state.exit_code,
        "Error": "its monitor was killed" if state.status == "dead" else None,
        "Reason": state.reason or None,
        "StartedAt": format_time(state.started),
        "FinishedAt": format_time(state.finished),
        "LogLost": state.log_lost,
        "CgroupPath": path,
    }


def _config(config: Config) -> dict[str, Any]:
    spec = config.spec
    return {
        "Hostname": config.hostname,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": config.interactive,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Cmd": list(spec.args),
        "WorkingDir": spec.cwd,
        "Labels": dict(config.labels),
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout,
    }


def _host_config(config: Config) -> dict[str, Any]:
    spec = config.spec
    policy, _, count = config.restart.partition(":")
    same = {name: _plain(getattr(spec, field)) for field, name in SAME.items()}
    return {
        "Binds": [_bind(mount) for mount in spec.mounts if mount.type != "tmpfs"],
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(count) if count else None},
        "AutoRemove": config.remove,
        "LogConfig": {"Config": {"max-size": config.log_size, "max-file": config.log_files}},
        "Timeout": config.timeout or None,
        **same,
        **_limits(spec.limits),
        "PortBindings": _ports(spec.ports),
        "ExtraHosts": [f"{name}:{address}" for name, address in spec.add_hosts.items()],
        "SecurityOpt": _security(spec),
        "Tmpfs": {mount.target: _options(mount) for mount in spec.mounts if mount.type == "tmpfs"},
        "Devices": [
            {"PathOnHost": device.source, "PathInContainer": device.target, "CgroupPermissions": device.access}
            for device in spec.devices
        ],
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits],
        "Umask": f"{spec.umask:04o}",
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if hasattr(value, "items") else value


def _limits(limits: Limits) -> dict[str, Any]:
    cpus = limits.cpus
    same = {name: getattr(limits, field) for field, name in LIMITS.items()}
    rates = {
        name: [{"Path": rate.path, "Rate": rate.rate} for rate in getattr(limits, field)]
        for field, name in RATES.items()
    }
    return {**same, "NanoCpus": None if cpus is None else round(float(cpus) * 10**9), **rates}


def _security(spec: Spec) -> list[str]:
    seccomp = [] if spec.seccomp is None else [f"seccomp={spec.seccomp}"]
    switches = {"no-new-privileges": spec.no_new_privileges, "no-new-suid": spec.bars_new_suid}
    return [*seccomp, *(f"{name}={str(value).lower()}" for name, value in switches.items())]


def _options(mount: Mount) -> str:
    """The mount options as configured: ``ro,size=65536``."""
    own = {name: getattr(mount, name) for name in ("size", "uid", "gid", "nr_inodes")}
    options = [f"{name}={value}" for name, value in own.items() if value is not None]
    mode = [] if mount.mode is None else [f"mode={mount.mode:o}"]
    return ",".join(["ro" if mount.readonly else "rw", *options, *mode, *sorted(mount.options)])


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{_options(mount)}"


def _mount(mount: Mount) -> dict[str, Any]:
    is_volume = mount.type == "volume"
    return {
        "Type": mount.type,
        "Name": mount.source if is_volume else None,
        "Source": volumes.path_of(mount.source or "") if is_volume else mount.source,
        "Destination": mount.target,
        "Mode": _options(mount),
        "RW": not mount.readonly,
    }


def _ports(ports: tuple[Port, ...]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        at = {"HostIp": port.address or "0.0.0.0", "HostPort": str(port.host)}
        bindings.setdefault(f"{port.number}/{port.protocol}", []).append(at)
    return bindings


def _network(spec: Spec, container: Any) -> dict[str, Any]:
    """The network state of a running container; ``IPAMConfig`` is the configuration."""
    lease = container.lease()
    address = None if lease is None else str(lease.address)
    joined = {
        "IPAMConfig": None if spec.ip is None else {"IPv4Address": spec.ip},
        "IPAddress": address,
        "DNSNames": None if lease is None else lease.names.split(),
    }
    return {
        "IPAddress": address,
        "MacAddress": spec.mac_address,
        "Ports": _ports(container.published()),
        "Networks": {spec.attached: joined} if spec.attached else {},
    }
