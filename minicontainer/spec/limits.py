"""The limits of a container's cgroup."""

from __future__ import annotations

from minicontainer.errors import SpecError
from minicontainer.spec.values import cpu_list, decimal, size, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass

    from minicontainer.spec.parts import DeviceRate
else:
    from minicontainer.records import dataclass


RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")


@dataclass(frozen=True)
class Limits:
    """The limits of the container's cgroup. None: no limit. Sizes in bytes (or ``"64M"``), ``cpus`` in CPUs."""

    memory: int | str | None = None
    memory_swap: int | str | None = None  # memory and swap together, as in docker; -1: unlimited
    memory_reservation: int | str | None = None
    cpus: float | str | None = None
    cpu_shares: int | str | None = None  # docker's 2 to 262144; 1024 is the default weight
    cpuset_cpus: str | None = None
    pids: int | str | None = None  # -1: unlimited; None: 2048 where the host has the pids controller
    blkio_weight: int | str | None = None  # docker's 10 to 1000
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()
    oom_group: bool | None = None  # when out of memory, kill all processes, or one; None: all, with a memory limit

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if self.memory is not None:
            put("memory", size("memory", self.memory, least=4096))
        if self.memory_reservation is not None:
            put("memory_reservation", size("memory_reservation", self.memory_reservation, least=4096))
            if self.memory is not None and int(self.memory_reservation) > int(self.memory):
                raise SpecError("memory_reservation", self.memory_reservation, f"is above memory ({self.memory})")
        if self.memory_swap is not None:
            put("memory_swap", self._swap())
        if self.cpus is not None:
            put("cpus", decimal("cpus", self.cpus, 0.01, 100_000, "CPUs"))
        if self.cpu_shares is not None:
            put("cpu_shares", whole("cpu_shares", self.cpu_shares, 2, 262144))
        if self.cpuset_cpus is not None:
            cpu_list("cpuset_cpus", self.cpuset_cpus)
        if self.pids is not None:
            put("pids", whole("pids", self.pids, -1, 2**22, "of processes (-1: unlimited)"))
            if self.pids == 0:
                raise SpecError("pids", 0, "must be at least 1 (or -1: unlimited)")
        self._check_group()
        if self.blkio_weight is not None:
            put("blkio_weight", whole("blkio_weight", self.blkio_weight, 10, 1000))
        for name in RATES:
            if getattr(self, name) != ():
                put(name, self._rates(name))

    def _rates(self, name: str) -> tuple[DeviceRate, ...]:
        """Converts DeviceRates, and strings in the command line's form."""
        from minicontainer.spec.convert import sequence
        from minicontainer.spec.parts import DeviceRate

        rates = []
        for i, item in enumerate(sequence(name, getattr(self, name))):
            what = f"{name}[{i}]"
            rate = DeviceRate.option(what, item, bytes_per_second="bps" in name) if isinstance(item, str) else item
            if not isinstance(rate, DeviceRate):
                raise SpecError(what, item, f"must be a DeviceRate or a string, not {type(item).__name__}")
            rates.append(rate)
        return tuple(rates)

    def _check_group(self) -> None:
        if self.oom_group not in (None, True, False):
            raise SpecError("oom_group", self.oom_group, "must be true or false")

    def _swap(self) -> int:
        if self.memory_swap in (-1, "-1"):
            return -1
        total = size("memory_swap", self.memory_swap)  # type: ignore[arg-type]
        if self.memory is None:
            raise SpecError("memory_swap", total, "needs a limit of memory", "--memory")
        if total < int(self.memory):
            raise SpecError("memory_swap", total, f"is below memory ({self.memory})", "it is memory and swap together")
        return total

    def __bool__(self) -> bool:
        return self is not NO_LIMITS and self != NO_LIMITS


NO_LIMITS = Limits()
