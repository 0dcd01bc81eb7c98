"""Checks of single values of a spec: strings, numbers, identifiers.

Each check takes the name of the field, for the error, and returns the value in the kernel's form.
"""

from __future__ import annotations

import os

from minicontainer.errors import SpecError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping
else:
    import _signal as signal  # without enum, as signal needs

NAME_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}"  # of names of containers, networks and volumes: ``is_name``
NO_NETWORKS = ("none", "host", "private", "default", "container", "ns", "pid")  # reserved words
HOSTNAME_MAX = 64  # sethostname(2): HOST_NAME_MAX
ID_MAX = 2**32 - 2  # 2^32-1 is "no change" to setresuid(2)
OUTSIDE_MAX = 2**31 - 1  # the last id outside that can be mapped to: inputs of a plan are int32_t (struct mc_run)
FACTORS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
UNITS = {unit + bytes_: factor for unit, factor in FACTORS.items() for bytes_ in ("", "b", "ib")}
DIGITS_MAX = 20  # in a number
SIGNAL_MAX = 64  # signal(7): the highest real-time signal
SECONDS_MAX = 10**9

# getrlimit(2), by docker's names: the kernel's numbers, which are the same on x86_64 and aarch64.
RLIMITS = {
    name: number
    for number, name in enumerate(
        "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()
    )
}

# A container's limits without --ulimit (at most the caller's hard limits): the kernel's for process 1, and systemd's
# for descriptors. -1: unlimited.
DEFAULT_ULIMITS = dict.fromkeys(RLIMITS, (-1, -1)) | {
    "stack": (8 << 20, -1),
    "core": (0, -1),
    "nofile": (1024, 524288),
    "memlock": (8 << 20, 8 << 20),
    "msgqueue": (819200, 819200),
    "nice": (0, 0),
    "rtprio": (0, 0),
}

# capabilities(7), in the kernel's order.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
    " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL"
    " SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

# docker's (0xa80425fb) without NET_RAW, with which a process can sniff and forge packets; ping does not need it.
DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
    " AUDIT_WRITE".split()
)


# ---- strings and numbers; without re, which takes longer to import than all of these modules


def is_digits(text: str, most: int = DIGITS_MAX) -> bool:
    """Whether the text is 1 to ``most`` ASCII digits."""
    return len(text) <= most and text.isascii() and text.isdigit()


def is_integer(text: str) -> bool:
    """Whether the text is digits, with or without a sign."""
    return is_digits(text[1:] if text[:1] in ("+", "-") else text)


def is_word(text: str, marks: str) -> bool:
    """Whether the text consists of ASCII letters, digits and ``marks``."""
    for mark in marks:
        text = text.replace(mark, "a")
    return text.isascii() and text.isalnum()


def is_name(text: str) -> bool:
    """Whether the text matches NAME_PATTERN."""
    return len(text) <= 64 and is_word(text[:1], "") and is_word(text, "_.-")


def is_range(text: str) -> bool:
    """Whether the text is UID:GID:COUNT."""
    parts = text.split(":")
    return len(parts) == 3 and all(is_digits(part, 10) for part in parts) and parts[2][0] != "0"


def network_name(network: str) -> str:
    """The name of the network on which the container gets an address, from the field ``network``; "" where there is
    none."""
    return "" if network in ("none", "host") or ":" in network else network


def text(what: str, value: object, *, empty: bool = False) -> str:
    """A string without NUL bytes, as system calls need it."""
    if type(value) is str and value and value.isascii() and "\0" not in value:
        return value  # nearly always
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise SpecError(what, value, f"must be a string, not {type(value).__name__}")
    if "\0" in value:
        raise SpecError(what, value, "holds a NUL byte")
    if not value and not empty:
        raise SpecError(what, value, "is empty")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise SpecError(what, value, "holds half a character (a lone surrogate)") from None
    return value


def size(what: str, value: int | str, *, least: int = 1) -> int:
    """The bytes of ``1024``, ``64M``, ``1.5g``: units are powers of 1024, as in docker."""
    number = _bytes(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise SpecError(what, value, "is no size", "bytes, or a number with b, k, m, g or t")
    if not least <= number < 2**63:
        raise SpecError(what, value, f"must be at least {least} and below 2^63 bytes")
    return number


def _bytes(value: str) -> int | None:
    """The bytes of a number with a unit; None where it is none."""
    stripped = value.strip()
    digits = stripped.rstrip("bkmgtiBKMGTI")
    unit, digits = stripped[len(digits) :].lower(), digits.rstrip()
    whole_part, dot, fraction = digits.partition(".")
    if unit not in UNITS or not is_digits(whole_part) or (dot and not is_digits(fraction)):
        return None
    return int(float(digits) * UNITS[unit]) if dot else int(digits) * UNITS[unit]


def whole(what: str, value: object, least: int, most: int, unit: str = "") -> int:
    """A whole number from ``least`` to ``most``, or a string of digits."""
    unit = f" {unit}" if unit else ""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and is_integer(value):
        number = int(value)
    if number is None or not least <= number <= most:
        raise SpecError(what, value, f"must be a whole number{unit} from {least} to {most}")
    return number


def decimal(what: str, value: object, least: float, most: float, unit: str) -> float:
    """A number from ``least`` to ``most``, or a string such as ``1.5``."""
    number: float | None = None
    if isinstance(value, str):
        whole_part, _, fraction = value.partition(".")
        if is_digits(whole_part or "0") and is_digits(fraction or "0") and (whole_part or fraction):
            number = float(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    if number is None or not least <= number <= most:
        raise SpecError(what, value, f"must be a number of {unit} from {least} to {most}")
    return float(number)


def check_timeout(timeout: float | None) -> float | None:
    """Returns a ``timeout`` in seconds unchanged; SpecError where it is no number. Any number is valid, as in
    subprocess."""
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise SpecError("timeout", timeout, f"must be a number of seconds, or None, not {type(timeout).__name__}")
    if timeout is not None and str(timeout) == "nan":
        raise SpecError("timeout", timeout, "is no number of seconds")
    return timeout


def absolute(what: str, value: object) -> str:
    """An absolute path in the container; ``..`` of its root is the root (path_resolution(7))."""
    path = text(what, value)
    if not path.startswith("/"):
        raise SpecError(what, path, "must be an absolute path in the container")
    return path


def distinct(what: str, targets: list[str]) -> None:
    """SpecError where a path occurs twice: the second mount would hide the first."""
    for target in targets:
        if targets.count(target) > 1:
            raise SpecError(what, target, "is given more than once", "each once")


def cpu_list(what: str, value: object) -> str:
    """``0-2,5``, as in cpuset(7) "List format"."""
    value = text(what, value)
    for part in value.split(","):
        first, dash, last = part.partition("-")
        numbers = is_digits(first, 5) and is_digits(last if dash else first, 5)
        if not numbers or (dash and int(last) < int(first)):
            raise SpecError(what, value, "is no list of CPUs", "for example 0-2,5")
    return value


class error_context:
    """Turns a SpecError about a part of an option's value into one about the whole value."""

    def __init__(self, what: str, value: str) -> None:
        self.what, self.value = what, value

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, e: object, _trace: object) -> None:
        if isinstance(e, SpecError):
            part, same = e.what.split()[-1], e.value is None or str(e.value) == self.value
            detail = e.reason if same else f"{part} {quote(str(e.value))} {e.reason}"
            raise SpecError(self.what, self.value, detail, e.hint) from None


# ---- names


def capability(what: str, name: str) -> str:
    """Normalizes a name: ``net_admin`` and ``CAP_NET_ADMIN`` to ``NET_ADMIN``; ``ALL`` stays."""
    short = text(what, name).upper().removeprefix("CAP_")
    if short != "ALL" and short not in CAPABILITIES:
        raise SpecError(what, name, "is no capability", "see capabilities(7), or ALL")
    return short


def signal_number(what: str, name: str) -> int:
    """The number of a signal: ``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3``."""
    short = text(what, name).upper().removeprefix("SIG")
    if is_digits(short, 2):
        return whole(what, name, 1, SIGNAL_MAX)
    if short.startswith("RTMIN+") and is_digits(short[6:], 2):
        number = int(signal.SIGRTMIN) + int(short[6:])
    else:
        number = int(getattr(signal, f"SIG{short}", 0)) if is_word(short, "") else 0
    if not 1 <= number <= SIGNAL_MAX:
        raise SpecError(what, name, "is no signal", "such as TERM, SIGINT, 15 or RTMIN+3")
    return number


def check_id(what: str, value: object) -> str:
    """A numeric id in range, or a name, which a start looks up."""
    name = _id_text(what, value)
    if is_digits(name[1:] if name[:1] in ("+", "-") else name, len(name)):
        whole(what, name, 0, ID_MAX)
    return name


def check_user(what: str, value: object) -> str:
    """``[NAME|UID][:GROUP|GID]``, or a number. The default user is root, the default group the user's, as in docker."""
    user, _, group = _id_text(what, value).partition(":")
    if ":" in group or not (user or group):
        raise SpecError(what, value, "must be NAME|UID[:GROUP|GID]", "or :GROUP for root with another group")
    for part in filter(None, (user, group)):
        check_id(what, part)
    return f"{user}:{group}" if group else user


def _id_text(what: str, value: object) -> str:
    """A string, or the digits of a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str):
        raise SpecError(what, value, f"must be a name or a number, not {type(value).__name__}", "'UID:GID' for both")
    return text(what, value)


def parse_env(items: Iterable[str], caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    """docker's ``KEY=VALUE``; ``KEY`` alone copies the caller's variable.

    Two mistakes that docker accepts are errors: a ``KEY`` that the caller does not have, and a blank in a name (``A =
    1``, ``export A=1``; docker refuses it in files only), since no shell could use that variable."""
    env: dict[str, str] = {}
    for item in items:
        key, equals, value = text("env", item, empty=True).partition("=")
        if not key:
            raise SpecError("env", item, "has no name", "KEY=VALUE, or KEY to copy the caller's")
        if any(character.isspace() for character in key):
            hint = "leave export out" if key.startswith("export") else "KEY=VALUE, with no blanks around ="
            raise SpecError("env", key, "is a name with a blank in it", hint)
        if not equals and key not in caller:
            raise SpecError("env", item, "is not set here, so there is nothing to copy", "KEY=VALUE")
        env[key] = value if equals else caller[key]
    return env
