"""``minicontainer run``: docker's options with docker's meanings, and a few more; converts them to a Spec."""

from __future__ import annotations

import os

from minicontainer import spec as s
from minicontainer.cli.environment import environment
from minicontainer.cli.options import json_destination, writable, yes_or_no
from minicontainer.cli.outputs import note, show
from minicontainer.cli.syntax import Argument, Option, Syntax
from minicontainer.errors import SpecError, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

many: dict[str, Any] = {"multiple": True, "metavar": "VALUE"}
OPTIONS = (
    # ---- options of docker
    Option(
        "-i",
        "--interactive",
        is_flag=True,
        help="With -d: keep stdin open for attach (without -d, stdin is always passed).",
    ),
    Option(
        "-t",
        "--tty",
        "tty",
        is_flag=True,
        default=None,
        help="Allocate a terminal. [default: if stdin and stdout are one]",
    ),
    Option("--no-tty", is_flag=True, help="Do not allocate a terminal; pass the streams unchanged."),
    Option("-d", "--detach", is_flag=True, help="Run in the background, and print the container's id."),
    Option("--name", help="Name of the container, unique until it is removed."),
    Option("--rm", is_flag=True, help="With -d: remove the container when it ends (without -d, always)."),
    Option("--cidfile", help="Write the container's id to this new file."),
    Option("--label", help="Label NAME=VALUE, for ps --filter.", **many),
    Option(
        "--restart",
        default="no",
        show_default=True,
        help="With -d: restart policy no, on-failure[:N], always or unless-stopped.",
    ),
    Option(
        "--log-opt", help="With -d: log rotation, max-size=SIZE of a file and max-file=N. [default: 10m, 3]", **many
    ),
    Option("-e", "--env", help="Environment variable KEY=VALUE; KEY alone copies the caller's.", **many),
    Option("--env-file", help="File of environment variables, one per line; # begins a comment.", **many),
    Option("-w", "--workdir", default="/", help="Working directory in the container."),
    Option("-u", "--user", help="User [NAME|UID][:GROUP|GID], from the container's /etc/passwd."),
    Option("--group-add", help="Supplementary group, by name or id.", **many),
    Option("-h", "--hostname", help="Host name of the container."),
    Option(
        "-v",
        "--volume",
        help="Mount SOURCE:TARGET[:ro,nosuid,noexec,dev]; SOURCE is a path or the name of a volume.",
        **many,
    ),
    Option("--mount", help="Mount type=bind|volume|tmpfs,source=,target=,readonly,tmpfs-size=,tmpfs-mode=.", **many),
    Option("--tmpfs", help="Mount a tmpfs: TARGET[:size=64m|50%,mode=1777,uid=,gid=,nr_inodes=,ro,exec].", **many),
    Option("--read-only", is_flag=True, help="Mount ROOTFS read-only."),
    Option("--shm-size", default="64m", show_default=True, help="Size of /dev/shm."),
    Option("--device", help="Host device: /dev/x[:/dev/y[:rwm]].", **many),
    Option("--init", is_flag=True, help="Run a small init as process 1; it reaps zombies and forwards signals."),
    Option("--entrypoint", help="Program to run; COMMAND is then its arguments."),
    Option("-m", "--memory", help="Memory limit, in bytes or with k, m, g."),
    Option("--memory-swap", help="Limit of memory and swap together; -1: unlimited."),
    Option("--memory-reservation", help="Memory protected from reclaim (memory.low)."),
    Option("--cpus", help="Number of CPUs, such as 0.5."),
    Option("--cpu-shares", help="CPU weight, 2 to 262144."),
    Option("--cpuset-cpus", help="CPUs to run on, such as 0-2,5."),
    Option(
        "--pids-limit", help="Maximum number of processes; -1: unlimited. [default: 2048 if there is a pids controller]"
    ),
    Option("--blkio-weight", help="Block I/O weight, 10 to 1000."),
    Option("--device-read-bps", help="Read limit /dev/x:RATE, in bytes per second.", **many),
    Option("--device-write-bps", help="Write limit /dev/x:RATE, in bytes per second.", **many),
    Option("--device-read-iops", help="Read limit /dev/x:RATE, in operations per second.", **many),
    Option("--device-write-iops", help="Write limit /dev/x:RATE, in operations per second.", **many),
    Option("--ulimit", help="Resource limit NAME=SOFT[:HARD] (getrlimit(2)).", **many),
    Option("--sysctl", help="Kernel parameter NAME=VALUE of the container's namespaces.", **many),
    Option("--cap-add", help="Add a capability, or ALL.", **many),
    Option("--cap-drop", help="Drop a capability, or ALL.", **many),
    Option(
        "--security-opt",
        help="Security option: no-new-privileges[=false], no-new-suid[=false], seccomp=unconfined|FILE (JSON, BPF).",
        **many,
    ),
    Option(
        "--privileged", is_flag=True, help="All capabilities and host devices; no masked paths and no seccomp filter."
    ),
    Option(
        "--network",
        "--net",
        help="Network: none, host, NAME (bridge), container:NAME, ns:PATH or pid:N. [default: none]",
    ),
    Option("-p", "--publish", help="Publish [[IP:]HOSTPORT:]PORT[/udp], or ranges; implies --network bridge.", **many),
    Option("-P", "--publish-all", is_flag=True, help="Publish the ports of --expose at free ports of the host."),
    Option("--expose", help="PORT[-PORT][/udp] for -P; without -P, no effect.", **many),
    Option("--ip", help="IPv4 address on the network. [default: a free one]"),
    Option("--mac-address", help="MAC address of the container's interface."),
    Option("--dns", help="Address of a DNS server, instead of the host's.", **many),
    Option("--add-host", help="Add NAME:ADDRESS to /etc/hosts; the ADDRESS host-gateway is the host.", **many),
    Option("--pid", default="private", show_default=True, help="PID namespace: private, host, ns:PATH or pid:N."),
    Option("--ipc", default="private", show_default=True, help="IPC namespace: private, host, ns:PATH or pid:N."),
    Option("--uts", default="private", show_default=True, help="UTS namespace: private, host, ns:PATH or pid:N."),
    Option(
        "--cgroupns", default="private", show_default=True, help="Cgroup namespace: private, host, ns:PATH or pid:N."
    ),
    Option("--timens", default="auto", show_default=True, help="Time namespace: auto, host or private."),
    Option(
        "--userns",
        help="User namespace: auto, private, host, keep-id, UID:GID:COUNT, ns:PATH or pid:N. [default: auto]",
    ),
    Option(
        "--stop-signal",
        default="TERM",
        show_default=True,
        help="Signal that stops the container; SIGTERM is forwarded as it.",
    ),
    Option("--stop-timeout", default="10", show_default=True, help="Seconds from the stop signal to SIGKILL."),
    Option(
        "--oom-group/--no-oom-group",
        default=None,
        help="When out of memory, kill the whole container [default with -m] or one process.",
    ),
    Option("--oom-group-to", hidden=True),
    Option("--oom-score-adj", help="OOM killer score adjustment, -1000 to 1000."),
    Option("--umask", default="022", show_default=True, help="File mode creation mask, in octal."),
    Option("--timeout", help="Kill the container after so many seconds (exit code 124)."),
    # ---- options of minicontainer
    Option(
        "--isolation",
        default="container",
        show_default=True,
        help="container, or kvm: run COMMAND in a virtual machine with a Linux of its own.",
    ),
    Option("--kernel", help="With --isolation kvm: a kernel's FILE, or the NAME of one. [default: the host's own]"),
    Option(
        "--root-image",
        metavar="TYPE",
        help="With --isolation kvm: the guest reads ROOTFS from an image, erofs or ext4, which is made once.",
    ),
    Option("--ephemeral", is_flag=True, help="Discard changes to ROOTFS at the end (overlay)."),
    Option("--explain", is_flag=True, help="Show every step with its time; =json:FILE writes them as JSON."),
    Option("--explain-to", hidden=True),
    Option("--dry-run", is_flag=True, help="Show the plan without running it."),
    Option("--meta", metavar="FILE", help="Write the result to FILE, as JSON."),
    Option(
        "--security-report",
        is_flag=True,
        help="Run the security probe instead of COMMAND and show its results; =json:FILE. With --isolation kvm: measure"
        " the monitor.",
    ),
    Option("--security-report-to", hidden=True),
)


def run(**options: Any) -> int:
    """Run COMMAND (default: a shell) in a new container whose root file system is the directory ROOTFS.

    The container writes to ROOTFS itself, as with chroot, unless --ephemeral or --read-only is given.

    At a terminal, two Ctrl-C within a second kill a program that ignores the first. Ctrl-P Ctrl-Q does not detach: to
    detach later, start the container with -d -t, then attach.
    """
    spec = spec_of(options)
    note_ineffective(options)
    limit = None if options["timeout"] is None else s.decimal("timeout", options["timeout"], 0.001, 10**9, "seconds")
    destination = json_destination("explain", options["explain_to"]) if options["explain"] else None
    if options["dry_run"]:
        from minicontainer.cli.dryrun import describe

        show(describe(spec))
        return 0
    if options["security_report"]:
        from minicontainer.cli.security import report

        return report(spec, json_destination("security-report", options["security_report_to"]))
    _keep_plans()
    if options["detach"]:
        from minicontainer.cli.background import background

        return background(spec, options, limit, destination)
    if options["log_opt"]:
        raise SpecError("log-opt", options["log_opt"][0], "is for detached containers", "-d")
    if options["restart"] != "no":
        raise SpecError("restart", options["restart"], "is for detached containers", "-d")
    from minicontainer.cli.foreground import foreground, registered

    keywords = (
        {"start": registered(options)} if spec.name or spec.attached or options["label"] or options["cidfile"] else {}
    )
    return foreground(spec, timeout=limit, explain=destination, meta=writable("meta", options["meta"]), **keywords)


def note_ineffective(options: dict[str, Any]) -> None:
    """Print a note for an option that has no effect."""
    if options["expose"] and not options["publish_all"]:
        reason = "publishes nothing: containers of one network reach all ports of each other"
        note(sentence("--expose", " ".join(options["expose"]), reason, "-P or -p"))
    elif options["publish_all"] and not options["expose"]:
        reason = "publishes nothing: a ROOTFS does not declare ports"
        note(sentence("--publish-all", None, reason, "--expose or -p"))


def _keep_plans() -> None:
    from minicontainer import bundle
    from minicontainer.container import compilation, plancache

    if bundle.version:
        compilation.take_plans_from(lambda spec, host: plancache.plans(spec, host, bundle.version))


def spec_of(options: dict[str, Any]) -> s.Spec:
    """The Spec for the command line's options."""
    args = options["command"]
    if options["entrypoint"]:  # "" is no entrypoint, as in docker
        args = (options["entrypoint"], *args)
    return s.Spec(
        args=args,
        rootfs=options["rootfs"],
        tty=_wants_tty(options),
        env=environment(options),
        cwd=options["workdir"],
        mounts=_mounts(options),
        devices=tuple(s.Device.option(v) for v in options["device"]),
        limits=_limits(options),
        ulimits=tuple(s.Ulimit.option(v) for v in options["ulimit"]),
        sysctls=dict(_pair("sysctl", item) for item in options["sysctl"]),
        umask=_octal("umask", options["umask"]),
        stop_timeout=s.decimal("stop-timeout", options["stop_timeout"], 0, s.SECONDS_MAX, "seconds"),
        oom_score_adj=_adjustment(options["oom_score_adj"]),
        die_with_parent=not options["detach"],
        **_network(options),
        **_security(options["security_opt"]),
        **{name: options[name] for name in SAME},
    )


# Options whose value is that of the field with the same name.
SAME = (
    "name hostname user group_add read_only shm_size init cap_add cap_drop privileged pid ipc uts cgroupns"
    " timens userns stop_signal ephemeral isolation kernel root_image"
).split()


def _wants_tty(options: dict[str, Any]) -> bool:
    if options["detach"]:
        return bool(options["tty"])
    both = _is_terminal(0) and _is_terminal(1)
    if options["tty"] and options["no_tty"]:
        raise SpecError("tty", None, "cannot be combined with --no-tty")
    if options["tty"] and not both:
        raise SpecError("tty", None, "stdin and stdout are not both a terminal", "leave -t out to pass the streams")
    return both and not options["no_tty"] and not options["dry_run"]


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _mounts(options: dict[str, Any]) -> tuple[s.Mount, ...]:
    mounts = [s.Mount.volume(v) for v in options["volume"]]
    mounts += [s.Mount.option(v) for v in options["mount"]]
    mounts += [s.Mount.tmpfs(v) for v in options["tmpfs"]]
    return tuple(sorted(mounts, key=lambda m: os.path.normpath(m.target).count("/")))  # a parent before its children


def _limits(options: dict[str, Any]) -> s.Limits:
    rates: dict[str, Any] = {}
    for what in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"):
        name, in_bytes = what.replace("_", "-"), what.endswith("bps")
        rates[what] = tuple(s.DeviceRate.option(name, v, bytes_per_second=in_bytes) for v in options[what])
    return s.Limits(
        memory=options["memory"],
        memory_swap=options["memory_swap"],
        memory_reservation=options["memory_reservation"],
        cpus=options["cpus"],
        cpu_shares=options["cpu_shares"],
        cpuset_cpus=options["cpuset_cpus"],
        pids=options["pids_limit"],
        blkio_weight=options["blkio_weight"],
        oom_group=yes_or_no("oom-group", options["oom_group"], options["oom_group_to"]),
        **rates,
    )


SWITCHES = "no-new-privileges[=false], no-new-suid[=false]"


def _security(options: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for item in options:
        key, _, value = item.replace(":", "=", 1).partition("=")
        if key in ("no-new-privileges", "no-new-suid") and value in ("", "true", "false"):
            fields[key.replace("-", "_")] = value != "false"
        elif key == "seccomp" and value:
            fields["seccomp"] = value
        else:
            raise SpecError("security-opt", item, "is unknown", f"{SWITCHES}, seccomp=unconfined|FILE")
    return fields


def _network(options: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: options[name] for name in ("ip", "mac_address", "dns") if options[name]}
    ports = [port for value in options["publish"] for port in s.Port.option(value)]
    exposed = [port for value in options["expose"] for port in s.Port.exposed(value)]
    if options["publish_all"]:
        known = {(port.number, port.protocol) for port in ports}
        ports += [port for port in exposed if (port.number, port.protocol) not in known]
    if ports:
        if options["network"] == "none":
            value = (options["publish"] or options["expose"])[0]
            raise SpecError("publish", value, "is of no use with --network none", "--network bridge")
        fields["ports"] = tuple(ports)
    if options["add_host"]:
        from minicontainer.spec.network import parse_add_host

        fields["add_hosts"] = parse_add_host(options["add_host"])
    return {"network": options["network"] or "none", **fields}


def _pair(what: str, item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not key or not equals:
        raise SpecError(what, item, "must be NAME=VALUE")
    return key, value


def _octal(what: str, value: str) -> int:
    digits = value[2:] if value.startswith("0o") else value.removeprefix("0") or value
    if not 1 <= len(digits) <= 3 or not set(digits) <= set("01234567"):
        raise SpecError(what, value, "must be octal, from 0 to 777")
    return int(digits, 8)


def _adjustment(value: str | None) -> int | None:
    return None if value is None else s.whole("oom-score-adj", value, -1000, 1000)


ARGUMENTS = (Argument("rootfs"), Argument("command", nargs=-1))
SYNTAX = Syntax("run", run, OPTIONS, ARGUMENTS, interspersed=False, width=100)
