"""Reads the times that commands are given."""

from datetime import UTC, datetime

from atrium_common.errors import InvalidArgument


def read_time(text: str, field: str) -> datetime:
    """Returns the aware UTC time of `text`, ISO 8601 with a zone.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as err:
        raise InvalidArgument(f"{text!r} is no ISO 8601 time.", field=field) from err
    if time.tzinfo is None:
        raise InvalidArgument(f"{text!r} lacks a time zone, such as Z.", field=field)
    return time.astimezone(UTC)
