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
    ``FETCH_FAILED``, ``UNSAFE_FORMAT``, ``LICENSE_NOT_ACCEPTED``, ``IN_USE`` and
    ``NO_SOURCE``; of an engine that reads
    the files, ``BAD_FILE``: one is not what the model's code can read.
    """

    default_reason = "WEIGHTS_UNAVAILABLE"


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(err: OSError) -> bool:
    """Tells whether the disk, the quota or the longest file allowed is used up."""
    return err.errno in _FULL


@contextmanager
def disk_errors(folder: Path, *, way_out: str = "`atrium models pull` fills it") -> Iterator[None]:
    """Turns what the disk says into a `WeightsError` about `folder`.

    Args:
        folder: What is written to.
        way_out: What to do where it is read-only.
    """
    try:
        yield
    except OSError as err:
        if is_full(err):
            raise WeightsError(f"no space left in {folder}", reason="NO_SPACE") from err
        if err.errno == errno.EROFS:
            raise WeightsError(
                f"not here, and {folder} is read-only: {way_out}",
                reason="NO_ACCESS",
            ) from err
        where = err.filename or folder
        raise WeightsError(f"{where}: {err.strerror or err}", reason="NO_ACCESS") from err
