"""Every field of a request, so that a test can demand that none is forgotten."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor


def leaves(message: Descriptor, prefix: str = "") -> Iterator[str]:
    """Yields the paths of all fields that hold values, e.g. ``"denoising.loras.scale"``."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None  # noqa: S101 - by its type
            yield from leaves(field.message_type, f"{path}.")
        else:
            yield path


def nested(path: str, value: object) -> dict[str, object]:
    """Returns a request's fields with `value` at `path`."""
    made: object = value
    for name in reversed(path.split(".")):
        made = {name: made}
    assert isinstance(made, dict)  # noqa: S101 - a path has a part
    return made


def each(path: str, *values: object) -> Iterator[tuple[dict[str, object], str]]:
    """Yields, for each value, the fields that hold it at `path`, and the path."""
    return ((nested(path, value), path) for value in values)
