"""Points in time: parsed as docker's ``--since`` and ``--until``, printed as RFC 3339 in UTC."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from fractions import Fraction

from minicontainer.errors import SpecError

# Go's units (time.ParseDuration), and days.
UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
SPAN = re.compile(rf"([+-]?)((?:{PART.pattern})+)", re.ASCII)
SECONDS = re.compile(r"(\d{1,12})(\.\d{1,9})?", re.ASCII)
DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE
)


def parse_time(what: str, text: str) -> Fraction:
    """Seconds since 1970, from a span before now (``1h30m``; ``-1h`` is after now), a time (RFC 3339 or a part of it;
    the default is the local time zone), or seconds since 1970. SpecError names the option ``what``."""
    if match := SPAN.fullmatch(text):
        span = sum((Fraction(number) * UNITS[unit] for number, unit in PART.findall(match[2])), Fraction(0))
        return Fraction(time.time_ns(), 10**9) - (-span if match[1] == "-" else span)
    if SECONDS.fullmatch(text):
        return Fraction(text)
    try:
        return _date(text)
    except (ValueError, OverflowError, OSError):
        hint = "such as 10m, 1h30m, 2026-11-23T16:00:00Z, or seconds since 1970"
        raise SpecError(what, text, "is no time", hint) from None


def _date(text: str) -> Fraction:
    match = DATE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    day, clock, fraction, zone = match.groups()
    when = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or '').upper().replace('Z', '+00:00')}")
    return Fraction(int(when.timestamp())) + Fraction(f"0.{fraction or 0}")


def rfc3339(time_ns: int) -> str:
    """``2026-11-23T16:51:08.123456789Z`` of nanoseconds since 1970."""
    seconds = datetime.fromtimestamp(time_ns // 10**9, timezone.utc)
    return f"{seconds:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09d}Z"


def format_time(seconds: float | None) -> str | None:
    """``rfc3339`` of seconds since 1970; None of None."""
    return None if seconds is None else rfc3339(round(seconds * 10**6) * 1000)
