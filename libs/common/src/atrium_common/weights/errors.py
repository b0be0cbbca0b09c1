"""What can go wrong while weights are fetched; one line each, for the operator."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atrium_common.errors import Unavailable


class WeightsError(Unavailable):
    """A model's files are not there and could not be brought.

    The message is one line that says what to do. `reason` is one of ``NO_NETWORK``,
    ``NO_SPACE``, ``NO_ACCESS``, ``BAD_DIGEST``, ``MISSING_FILE``, ``MISSING_TOOL``,
    ``FETCH_FAILED``, ``LICENSE_NOT_ACCEPTED`` and ``NO_SOURCE``; of an engine that reads
    the files, ``BAD_FILE``: one is not what the model's code can read.
    """

    default_reason = "WEIGHTS_UNAVAILABLE"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk says into a `WeightsError` about `folder`."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(f"no space left in {folder}", reason="NO_SPACE") from err
        where = err.filename or folder
        raise WeightsError(f"{where}: {err.strerror or err}", reason="NO_ACCESS") from err
