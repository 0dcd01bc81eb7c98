"""``minicontainer compare``: measurements of isolation on this host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from minicontainer.cli.groups import Group
from minicontainer.errors import SpecError
from minicontainer.spec.values import size


@click.group("compare", cls=Group)
def group() -> None:
    """Measure minicontainer and other runtimes on this host."""


Command = Callable[..., None]
format_option = click.option(
    "--format",
    "format_",
    default="text",
    type=click.Choice(["text", "json"]),
    help="json: all figures and samples as JSON.",
)
meta_option = click.option(
    "--meta", "--json", "meta", metavar="FILE", help="Also write the figures and samples to FILE, as JSON."
)
only_option = click.option("--only", metavar="NAME", multiple=True, help="Measure NAME only; may be repeated.")


def figures(rounds: int = 200) -> Callable[[Command], Command]:
    """The options that all comparisons share."""
    options = (
        meta_option,
        format_option,
        click.option("--only", metavar="NAME", multiple=True, help="Measure NAME and the floor only; may be repeated."),
        click.option(
            "-n", "--rounds", type=click.IntRange(1), default=rounds, show_default=True, help="Number of rounds."
        ),
    )

    def add(function: Command) -> Command:
        for option in options:
            function = option(function)
        return function

    return add


@group.command("startup")
@figures()
@click.option("--rootfs", metavar="DIR", help="Run /bin/true of this root file system. [default: the smallest program]")
def startup(rootfs: str | None, **common: Any) -> None:
    """Measure the time to start a container, run a program and wait for its end; all contenders take turns.

    The floor is a C program that makes the same system calls and does nothing else.
    """
    from minicontainer.compare.startup import NAMES, measure

    report = _measured(measure, NAMES, common, rootfs=rootfs)
    if not report:
        return
    _machine(report)
    _rows(report)
    _targets(report)
    _unable(report)


@group.command("density")
@click.option("-n", "--number", type=click.IntRange(2), default=2000, show_default=True, help="Number of containers.")
@click.option(
    "--least-available", default="2g", show_default=True, help="Stop when less memory than this is available."
)
@meta_option
@format_option
def density(number: int, least_available: str, meta: str | None, format_: str) -> None:
    """Start many detached containers; measure how fast they start, their memory, and the latency of commands.

    Each container sleeps and has a network namespace of its own. All are removed at the end.
    """
    from minicontainer.cli.options import writable
    from minicontainer.compare.density import measure
    from minicontainer.spec import size

    least = size("least-available", least_available, least=1)
    writable("meta", meta)
    with click.progressbar(length=number, label="starting", file=sys.stderr) as bar:
        report = measure(number, least, bar.update)
    if not _written(report, meta, format_):
        _machine(report)
        _density(report)


@group.command("network")
@figures(100)
@click.option(
    "--containers",
    type=click.IntRange(0, 1000),
    default=500,
    show_default=True,
    help="Number of containers on one bridge.",
)
def network(containers: int, **common: Any) -> None:
    """Measure joining and leaving a network, many containers on one bridge, and the latency and rate of packets.

    Packets go between containers, and to a published port. The floor is a veth pair between two network namespaces.
    """
    from minicontainer.compare.network import NAMES, measure

    report = _measured(measure, NAMES, common, containers=containers)
    if not report:
        return
    _machine(report)
    _network(report)
    _unable(report)


@group.command("boot")
@figures()
@click.option(
    "--exits", type=click.IntRange(1, 10**6), default=2000, show_default=True, help="Number of exits in one sample."
)
@click.option(
    "--machines", type=click.IntRange(0), default=1000, show_default=True, help="Number of idle machines at a time."
)
def boot(exits: int, machines: int, **common: Any) -> None:
    """Measure the boot of a tiny virtual machine until its guest halts, single exits, and many idle machines.

    The floor is a C program that makes the same system calls and does nothing else; for exits, a loop around KVM_RUN.
    """
    from minicontainer.compare.boot import NAMES, measure

    report = _measured(measure, NAMES, common, exits=exits, machines=machines)
    if not report:
        return
    _machine(report)
    for part, compared in report["boot"].items():
        _rows(compared, part)
    if report["exits"]:
        _rows(report["exits"], "one exit", 2)
    if report["idle"]:
        _idle(report["idle"])
    _targets(report)
    _unable(report)


@group.command("linux")
@figures(10)
@click.option("--memory", default="256M", show_default=True, metavar="SIZE", help="Memory of each machine.")
@click.option("--append", metavar="TEXT", help="The kernel command line. [default: options for a fast boot]")
@click.option("--against", metavar="PATH", help="Measure the command minicontainer of another build, too.")
@click.argument("kernel")
def linux(kernel: str, memory: str, append: str | None, against: str | None, **common: Any) -> None:
    """Measure the boot of a Linux KERNEL (a bzImage) up to its first process, beside QEMU's microvm."""
    from minicontainer.compare.linux import APPEND, NAMES, WARM_UP, measure

    size("memory", memory)
    if against is not None and not os.access(against, os.X_OK):
        raise SpecError("against", against, "cannot be executed", "the path of another build's command minicontainer")
    text = APPEND if append is None else append
    options = {"kernel": kernel, "memory": memory, "append": text, "against": against}
    _beside_qemu(_measured(measure, NAMES, common, WARM_UP, **options), "boot")


@group.command("microvm")
@figures(5)
@click.option("--memory", default="256M", show_default=True, metavar="SIZE", help="Memory of each machine.")
@click.option("--kernel", metavar="FILE", help="Kernel of the machines. [default: as run --isolation kvm]")
@click.option("--libkrun", metavar="FILE", help="A libkrun.so, with libkrunfw.so.5 beside it: measured too.")
def microvm(kernel: str | None, memory: str, libkrun: str | None, **common: Any) -> None:
    """Measure a program in a container and in a virtual machine (run --isolation kvm), beside QEMU's microvm.

    QEMU executes the same program from an initramfs. The reads are of files that the host shares.
    """
    from minicontainer.compare import krunpeers
    from minicontainer.compare.microvm import NAMES, WARM_UP, measure

    size("memory", memory)
    if libkrun is not None:
        krunpeers.check(libkrun)
    options = {"kernel": kernel, "memory": memory, "libkrun": libkrun}
    _beside_qemu(_measured(measure, NAMES, common, WARM_UP, **options), "microvm")


@group.command("devices")
@figures(5)
@click.option("--memory", default="256M", show_default=True, metavar="SIZE", help="Memory of each machine.")
@click.option("--kernel", metavar="FILE", help="Kernel of the machines. [default: as run --isolation kvm]")
def devices(kernel: str | None, memory: str, **common: Any) -> None:
    """Measure the disk and the network of a virtual machine (run --isolation kvm), beside QEMU's microvm.

    Both have the same disk image, and are on the same bridge. One program reads blocks and exchanges bytes by TCP.
    """
    from minicontainer.compare.devices import NAMES, WARM_UP, measure

    size("memory", memory)
    _beside_qemu(_measured(measure, NAMES, common, WARM_UP, kernel=kernel, memory=memory), "devices")


@group.command("security")
@meta_option
@format_option
@only_option
def security(meta: str | None, format_: str, only: Sequence[str]) -> int:
    """Check the security controls of containers with one probe that runs inside: minicontainer's and other runtimes'.

    The exit code is 1 if a control holds under another runtime and not under minicontainer.
    """
    from minicontainer.cli.options import writable
    from minicontainer.cli.security import as_data, compared
    from minicontainer.compare.security import NAMES, measure

    _known(only, NAMES)
    writable("meta", meta)
    report = measure(only=only or NAMES)
    data = report | {"runtimes": {name: as_data(c) for name, c in report["runtimes"].items()}}
    if not _written(data, meta, format_):
        _machine(report)
        click.echo()
        click.echo("\n".join(compared(report)))
        _unable(report)
    return int(bool(report["worse"]))


def _targets(report: dict[str, Any]) -> None:
    from minicontainer.compare.targets import lines

    click.echo()
    click.echo("\n".join(lines(report["targets"])))


def _known(only: Sequence[str], names: Sequence[str]) -> None:
    for name in only:
        if name not in names:
            raise SpecError("only", name, "is no contender", ", ".join(names))


def _measured(
    measure: Callable[..., dict[str, Any]],
    names: Sequence[str],
    common: dict[str, Any],
    warm_up: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure with a progress bar; return the report, or {} if it was printed as JSON. ``common``: the options of
    ``figures``."""
    from minicontainer.cli.options import writable
    from minicontainer.compare.rounds import WARM_UP

    rounds, only = common["rounds"], common["only"]
    _known(only, names)
    writable("meta", common["meta"])
    with click.progressbar(
        range(rounds + (WARM_UP if warm_up is None else warm_up)),
        label="rounds",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        report = measure(rounds=rounds, only=only or names, progress=lambda _: bar.update(1), **options)
    return {} if _written(report, common["meta"], common["format_"]) else report


def _written(report: dict[str, Any], meta: str | None, format_: str) -> bool:
    """Write the report to the file of ``--meta``, and print it with ``--format json``; return whether it was
    printed."""
    from minicontainer.cli.options import write_json

    if meta is not None:
        write_json(meta, report)
    if format_ == "json":
        import json

        click.echo(json.dumps(report, indent=2))
    return format_ == "json"


# ---- output as text


def _beside_qemu(report: dict[str, Any] | None, key: str) -> None:
    """A report about machines; ``key``: of its parts."""
    if not report:
        return
    _machine(report)
    for part, compared in report[key].items():
        _rows(compared, part, versus="qemu")
    if report.get("memory"):
        click.echo("\nmemory beside the guests' (PSS):")
        for what, mebibytes in report["memory"].items():
            click.echo(f"{what}: {mebibytes:.2f}")
    _targets(report)
    _unable(report)


def _machine(report: dict[str, Any]) -> None:
    for what, value in report["machine"].items():
        click.echo(f"{what + ':':14}{value}")


def _rows(compared: dict[str, Any], heading: str = "contender", digits: int = 0, versus: str = "floor") -> None:
    from minicontainer.compare.statistics import table

    click.echo()
    click.echo(table(compared["rows"], heading, digits, versus))
    click.echo()
    for what, ratio in compared["paired"].items():
        click.echo(f"{what}: {ratio:.2f} (median over the rounds of each round's ratio)")
    for what, microseconds in compared.get("differences_us", {}).items():
        click.echo(f"{what}: {microseconds:.{digits}f} us (median over the rounds of each round's difference)")


def _network(report: dict[str, Any]) -> None:
    joining = report["joining"]
    for part, what in (("start", "attach: a start"), ("end", "detach: an end")):
        _rows(joining[part], what, versus="none")
    for share, each in joining["shares_us"].items():
        click.echo(f"of a start, {share}: " + ", ".join(f"{us:.0f} us {name}" for name, us in each.items()))
    click.echo(f"the network itself was made in {report['create_seconds'] * 1000:.0f} ms")
    _rows(report["packets"], "round trip of a byte", 1, "veth")
    _rows(report["bytes"], f"{report['bytes']['bulk'] >> 20} MiB one way", versus="veth")
    for row in report["bytes"]["rows"]:
        click.echo(f"{row['name']}: {report['bytes']['bulk'] * 8 / row['p50_us'] / 1000:.1f} Gbit/s")
    if many := report["many"]:
        first, last = many["start_us"]["first"], many["start_us"]["last"]
        stopped = f" (then: {many['stopped']})" if many["stopped"] else ""
        click.echo(f"\n{many['containers']} containers on one bridge{stopped}, {many['rate']:.0f} a second")
        click.echo(f"a start: {first:.0f} us (p50 of the first 50), {last:.0f} us (of the last 50)")
        click.echo(f"a removal: {many['remove_us']:.0f} us")


def _idle(idle: dict[str, Any]) -> None:
    count, kib = idle["machines"], {name: size / 1024 for name, size in idle["bytes"].items()}
    click.echo(f"\n{count} idle machines in one process, each with 2 MiB, its guest halted:")
    click.echo(
        f"{kib['system']:.0f} KiB of the system's memory each, of these {kib['pss']:.0f} KiB the process's own (PSS), "
        f"{kib['slab']:.0f} KiB slab; made in {idle['create_seconds']:.2f} s, ended in {idle['close_seconds']:.2f} s"
    )


def _density(report: dict[str, Any]) -> None:
    from minicontainer.cli.tables import table

    kib = {name: f"{size / 1024:.0f} KiB" for name, size in report["bytes"].items()}
    rate = f"{report['rate']:.0f} a second by {report['threads']} threads"
    click.echo(
        f"\n{report['containers']} containers{report['stopped']}, {rate}"
        f"\neach takes {kib['system']} of the system's memory, of these {kib['monitor']} its monitor's own (PSS),"
        f" {kib['slab']} slab\n"
    )
    click.echo(table(HEAD_DENSITY, [[_cell(row[name]) for name in HEAD_DENSITY] for row in report["latencies"]]))


HEAD_DENSITY = ("containers", "ps ms", "ps us each", "exec p50 us", "stop p50 us", "start p50 us")


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _unable(report: dict[str, Any]) -> None:
    for name, reason in report["unable"].items():
        click.echo(f"not measured: {name}: {reason}")
