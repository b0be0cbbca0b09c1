"""Names fields by their path in an analysis, whoever refuses them: `convert`, engines, the run."""

from collections.abc import Iterator
from contextlib import contextmanager

from atrium_common.errors import AtriumError, MediaError


@contextmanager
def inside(part: str) -> Iterator[None]:
    """Puts `part` before the field that an error names, e.g. ``"questions[0].question"``.

    Errors of the upload keep their field: it belongs to no part.
    """
    try:
        yield
    except MediaError:
        raise
    except AtriumError as error:
        if error.field is not None:
            error.field = f"{part}.{error.field}"
        raise
