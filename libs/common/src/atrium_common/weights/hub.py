"""Fetches weights from the model hub, several files at once. `WeightStore` calls this.

What a pull that was cut has left is gone on with; what is whole is checked again and kept.
Why this is not the hub's own library: docs/adr/0016. `httpx` and `filelock` come with the
extra `atrium-common[hub]`, which the starter models do without.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TypeVar

from atrium_common.catalogue import HubSource
from atrium_common.catalogue_sources import MANIFEST, PICKLE_SUFFIXES
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.hub_files import IncomingFile, Wanted
from atrium_common.weights.hub_http import HubClient, TransientError
from atrium_common.weights.hub_listing import RemoteFile
from atrium_common.weights.hub_options import HubOptions
from atrium_common.weights.progress import Meter
from atrium_common.weights.space import require_space

_LONGEST_WAIT = 30.0

Result = TypeVar("Result")


def fetch_hub(
    source: HubSource, desk: Path, meter: Meter, *, options: HubOptions
) -> dict[str, str]:
    """Brings the source's files into ``desk/files``, each with its digest checked.

    Args:
        source: Repository, commit and files.
        desk: Folder of this download alone; what an earlier one left there is used.
        meter: Told of the bytes.
        options: How the hub is reached.

    Returns:
        SHA-256 by file name.

    Raises:
        WeightsError: The hub can't be reached or refuses, or a file is not what it should be.
        OSError: The disk does not take it.
    """
    if options.offline:
        raise WeightsError(
            f"{source.repository} is not here, and nothing may be fetched "
            "(ATRIUM_OFFLINE, HF_HUB_OFFLINE)",
            reason="NO_NETWORK",
        )
    patience = _Patience(options)
    with HubClient(options) as client:
        wanted = _wanted(source, lambda: patience(partial(client.tree, source)))
        meter.expect(sum(file.size for file in wanted))
        files = {
            file.name: IncomingFile(
                source, file, desk, fetched=meter.fetched, stopped=patience.stop.is_set
            )
            for file in wanted
        }
        missing = [file for file in files.values() if not file.look()]
        arrived = sum(file.arrived for file in files.values())
        require_space(sum(file.size for file in wanted) - arrived, desk)
        _all_at_once(missing, client, patience, options.jobs)
    return {name: file.sha256 for name, file in files.items()}


def _wanted(source: HubSource, listing: Callable[[], dict[str, RemoteFile]]) -> list[Wanted]:
    """Decides which files to take, and what each must become.

    The hub is asked for its list only where the catalogue does not say it all.
    """
    if source.files and all(file.sha256 and file.size for file in source.files):
        return [Wanted(file.name, file.size, file.sha256 or "") for file in source.files]
    remote = listing()
    if not source.files:
        names = [name for name in remote if _is_allowed(name, source)]
        if not names:
            raise WeightsError(f"{source.identity} has no files", reason="MISSING_FILE")
        found = [(name, remote[name]) for name in sorted(names)]
        return [Wanted(name, file.size, file.sha256, file.git_sha1) for name, file in found]
    wanted = []
    for file in source.files:
        known = remote.get(file.name)
        if known is None:
            raise WeightsError(
                f"{file.name} is missing from {source.identity}", reason="MISSING_FILE"
            )
        digest = file.sha256 or known.sha256
        wanted.append(
            Wanted(file.name, file.size or known.size, digest, "" if digest else known.git_sha1)
        )
    return wanted


def _is_allowed(name: str, source: HubSource) -> bool:
    if any(part in ("", ".", "..") or part.startswith(".") for part in name.split("/")):
        return False  # nothing that hides, and nothing that leaves the model's folder
    if name == MANIFEST:
        return False  # ours has this name
    if name.endswith(PICKLE_SUFFIXES) and not source.pickle_reason:
        return False
    return not source.allow or any(fnmatchcase(name, pattern) for pattern in source.allow)


def _all_at_once(
    files: Sequence[IncomingFile], client: HubClient, patience: "_Patience", jobs: int
) -> None:
    """Fetches the files, `jobs` at a time; the first failure ends the others."""
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="hub") as pool:
        try:
            work = [
                pool.submit(patience, partial(file.fetch, client), partial(_arrived, file))
                for file in files
            ]
            for done in as_completed(work):
                done.result()
        except BaseException:
            patience.stop.set()
            client.hang_up()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _arrived(file: IncomingFile) -> int:
    return file.arrived


class _Patience:
    """Tries again, later and later; an attempt that brought bytes begins the count anew."""

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self.stop = threading.Event()

    def __call__(self, work: Callable[[], Result], arrived: Callable[[], int] = int) -> Result:
        """Returns what `work` does once it succeeds.

        Raises:
            WeightsError: No attempt helped, or `stop` was set.
        """
        failures = 0
        while True:
            before = arrived()
            try:
                return work()
            except TransientError as err:
                failures = 1 if arrived() > before else failures + 1
                if failures >= self._options.attempts or self.stop.is_set():
                    raise err.final from err
                wait = min(self._options.backoff_seconds * 2 ** (failures - 1), _LONGEST_WAIT)
                self.stop.wait(max(wait, err.retry_after))
