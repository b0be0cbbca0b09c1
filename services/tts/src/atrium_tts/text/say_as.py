"""How digits and dates are said; `ssml.py` calls it for each `say-as`."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton

from atrium_tts.text.ssml_values import invalid, shown

_FORMATS = ("mdy", "dmy", "ymd", "ydm", "md", "dm", "ym", "my", "y")
_DIGITS = re.compile(r"[\d\s().,/+-]+")
_NUMBERS = re.compile(r"[0-9]+(?:[./\s-]+[0-9]+){0,2}\.?")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_LEAP_YEAR = 2000
"""Stands in for the year of a date without one, so that 29 February is a day."""

_SKELETONS: Mapping[frozenset[str], str] = {
    frozenset("md"): "MMMMd",
    frozenset("ym"): "yMMMM",
}


def say_as(text: str, attributes: Mapping[str, str], *, language: str) -> str:
    """Returns what is said for the text of a `say-as`.

    Args:
        text: What stands in the element.
        attributes: `interpret-as` (digits or date) and, for a date, `format`.
        language: BCP 47, for dates; ``""`` is English.

    Raises:
        InvalidArgument: The attributes or the text are not of these.
    """
    kind = attributes.get("interpret-as")
    if kind is None:
        raise invalid("say-as: interpret-as is missing.")
    if kind == "date":
        return _date(text.strip(), attributes.get("format"), language)
    if kind != "digits":
        raise invalid(f"say-as: interpret-as {shown(kind)} is neither digits nor date.")
    if "format" in attributes:
        raise invalid("say-as: format is only for dates.")
    return _digits(text)


def _digits(text: str) -> str:
    found = [str(unicodedata.digit(one)) for one in text if one.isdecimal()]
    if not found or not _DIGITS.fullmatch(text):
        raise invalid(f"say-as: {shown(text)} is no row of digits.")
    return " ".join(found)


def _date(text: str, order: str | None, language: str) -> str:
    if order is None:
        if not _ISO.fullmatch(text):
            raise invalid(f"say-as: the date {shown(text)} needs a format, or the form 2026-01-31.")
        order = "ymd"
    if order not in _FORMATS:
        raise invalid(f"say-as: format {shown(order)} is none of {', '.join(_FORMATS)}.")
    numbers = re.findall(r"[0-9]+", text)
    fault = invalid(f"say-as: {shown(text)} is no date of the format {order}.")
    if not _NUMBERS.fullmatch(text) or len(numbers) != len(order):
        raise fault
    parts = dict(zip(order, numbers, strict=True))
    if any(len(part) != 4 if name == "y" else len(part) > 2 for name, part in parts.items()):
        raise fault
    try:
        day = date(int(parts.get("y", _LEAP_YEAR)), int(parts.get("m", 1)), int(parts.get("d", 1)))
    except ValueError as error:
        raise fault from error
    return _spoken(day, frozenset(order), language)


def _spoken(day: date, has: frozenset[str], language: str) -> str:
    if len(has) == 1:
        return str(day.year)
    locale = _locale(language)
    if locale.language == "en" and "d" in has:
        # Engines read "3rd" as an ordinal, and a bare 3 as a number.
        said = f"{format_date(day, 'MMMM', locale=locale)} {_ordinal(day.day)}"
        return f"{said}, {day.year}" if "y" in has else said
    if has == frozenset("ymd"):
        return format_date(day, "long", locale=locale)
    return format_skeleton(_SKELETONS[has], day, locale=locale)


def _locale(language: str) -> Locale:
    for tag in (language or "en", language.split("-")[0]):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    raise invalid(f"say-as: dates can't be said in the language {shown(language)}.")


def _ordinal(day: int) -> str:
    if day in (11, 12, 13):
        return f"{day}th"
    return f"{day}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th') }"
