"""Values of SSML attributes as numbers and durations; `ssml.py` reads with these."""

import re
from collections.abc import Mapping
from datetime import timedelta

from atrium_common.errors import InvalidArgument

LONGEST_BREAK = timedelta(seconds=10)
MIN_RATE, MAX_RATE = 0.25, 4.0

_RATES: Mapping[str, float] = {
    "x-slow": 0.5,
    "slow": 0.75,
    "medium": 1.0,
    "default": 1.0,
    "fast": 1.5,
    "x-fast": 2.0,
}
_STRENGTHS: Mapping[str, timedelta] = {
    "none": timedelta(),
    "x-weak": timedelta(seconds=0.1),
    "weak": timedelta(seconds=0.25),
    "medium": timedelta(seconds=0.5),
    "strong": timedelta(seconds=0.75),
    "x-strong": timedelta(seconds=1.0),
}

_TIME = re.compile(r"\+?(\d{1,6}|\d{0,6}\.\d{1,6})(ms|s)", re.ASCII)
_RATE = re.compile(r"([+-]?)(\d{1,4}|\d{0,4}\.\d{1,6})(%?)", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")


def invalid(message: str, *, reason: str = "INVALID_SSML") -> InvalidArgument:
    """Makes the error of a fault in the SSML."""
    return InvalidArgument(message, reason=reason, field="ssml")


def shown(value: str) -> str:
    """Quotes what the caller wrote, shortened, for an error."""
    return repr(value if len(value) <= 40 else value[:40] + "…")


def read_break(attributes: Mapping[str, str]) -> timedelta:
    """Reads the length of a `break`; `time` decides over `strength`, as in SSML 1.1.

    Raises:
        InvalidArgument: One of them has no such value, or the time is over 10 s.
    """
    strength = attributes.get("strength", "medium")
    if strength not in _STRENGTHS:
        raise invalid(f"break: strength {shown(strength)} is none of {', '.join(_STRENGTHS)}.")
    time = attributes.get("time")
    if time is None:
        return _STRENGTHS[strength]
    match = _TIME.fullmatch(time.strip())
    if match is None:
        raise invalid(f"break: time {shown(time)} is no time such as 500ms or 1.5s.")
    length = timedelta(seconds=float(match[1]) / (1000 if match[2] == "ms" else 1))
    if length > LONGEST_BREAK:
        raise invalid(f"break: time {shown(time)} is over 10 s.")
    return length


def read_rate(value: str) -> float:
    """Reads the `rate` of a `prosody`: a name, a factor (1.5), 150% or a change (+50%).

    Raises:
        InvalidArgument: It is none of these.
    """
    if value in _RATES:
        return _RATES[value]
    match = _RATE.fullmatch(value.strip())
    if match is None or (match[1] and not match[3]):
        raise invalid(
            f"prosody: rate {shown(value)} is none of {', '.join(_RATES)}, "
            "a factor such as 1.5, or a percentage."
        )
    number = float(match[2]) / (100 if match[3] else 1)
    if match[1]:
        return 1 + number if match[1] == "+" else 1 - number
    return number


def check_rate(rate: float) -> None:
    """Raises `InvalidArgument` if what nested rates come to is out of range."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise invalid(f"prosody: the rate comes to {rate:.4g}; it must be {MIN_RATE} to 4.")


def read_language(element: str, value: str) -> str:
    """Checks an `xml:lang`.

    Raises:
        InvalidArgument: It has not the form of a BCP 47 tag.
    """
    if not _LANGUAGE.fullmatch(value):
        raise invalid(f"{element}: xml:lang {shown(value)} is no language tag such as en-US.")
    return value
