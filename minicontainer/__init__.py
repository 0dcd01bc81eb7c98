"""minicontainer: containers from Linux primitives, virtual machines from /dev/kvm, and a library to build them from.

    import minicontainer as mc

    r = mc.run(["/bin/echo", "hi"], rootfs="rootfs/", capture_output=True, text=True, timeout=5,
               limits=mc.Limits(memory="64M", pids=32, cpus=0.5))
    r.returncode, r.stdout, r.usage.walltime, r.usage.cputime, r.usage.memory_peak, r.timeline

    with mc.Popen(["/bin/sh"], rootfs="rootfs/", stdin=mc.PIPE, stdout=mc.PIPE) as p:
        p.pid, p.pidfd, p.cgroup, p.usage(), p.communicate(b"echo hello\\n")

    with mc.Machine(memory="2M") as m:
        m.load("kernel.bin")
        m.run(timeout=5).output

    c = mc.Container.start(["/bin/sh", "-c", "sleep 60"], rootfs="rootfs/", name="box", restart="on-failure")
    c.status, c.logs(), c.run(["ps"]), c.stats(), c.stop()       # outlives this process

``run`` and ``Popen`` follow subprocess. Below them, ``minicontainer.linux`` has the single system calls,
``minicontainer.plan`` the steps that make a container, and ``minicontainer.kvm`` the ioctls of /dev/kvm. Names are
imported at first use.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOME = {
    "CalledProcessError": "subprocess",
    "DEVNULL": "minicontainer.container.process",
    "Container": "minicontainer.detached.container",
    "Device": "minicontainer.spec",
    "DeviceRate": "minicontainer.spec",
    "Error": "minicontainer.errors",
    "Limits": "minicontainer.spec",
    "Machine": "minicontainer.kvm.machine",
    "Mount": "minicontainer.spec",
    "PIPE": "minicontainer.container.process",
    "Plan": "minicontainer.plan",
    "Pool": "minicontainer.pool.pool",
    "Popen": "minicontainer.container.process",
    "Port": "minicontainer.spec",
    "ProgramError": "minicontainer.errors",
    "Result": "minicontainer.container.result",
    "STDOUT": "minicontainer.container.process",
    "Spec": "minicontainer.spec",
    "SpecError": "minicontainer.errors",
    "StepError": "minicontainer.errors",
    "TimeoutExpired": "subprocess",
    "Ulimit": "minicontainer.spec",
    "UnsupportedError": "minicontainer.errors",
    "Usage": "minicontainer.container.result",
    "compile": "minicontainer.compiled.compilation",
    "containers": "minicontainer.detached.container",
    "create_container_exec": "minicontainer.container.asyncio",
    "run": "minicontainer.container.running",
}
__all__ = [
    "__version__", "CalledProcessError", "Container", "DEVNULL", "Device", "DeviceRate", "Error", "Limits", "Machine",
    "Mount", "PIPE", "Plan", "Pool", "Popen", "Port", "ProgramError", "Result", "STDOUT", "Spec", "SpecError",
    "StepError", "TimeoutExpired", "Ulimit", "UnsupportedError", "Usage", "compile", "containers",
    "create_container_exec", "run",
]  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import CalledProcessError, TimeoutExpired
    from typing import Any

    from minicontainer.compiled.compilation import compile
    from minicontainer.container.asyncio import create_container_exec
    from minicontainer.container.process import DEVNULL, PIPE, STDOUT, Popen
    from minicontainer.container.result import Result, Usage
    from minicontainer.container.running import run
    from minicontainer.detached.container import Container, containers
    from minicontainer.errors import Error, ProgramError, SpecError, StepError, UnsupportedError
    from minicontainer.kvm.machine import Machine
    from minicontainer.plan import Plan
    from minicontainer.pool.pool import Pool
    from minicontainer.spec import Device, DeviceRate, Limits, Mount, Port, Spec, Ulimit


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
