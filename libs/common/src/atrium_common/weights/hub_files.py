"""One file of the hub on its way here: what has arrived, what it belongs to, its digest.

`hub.py` makes one for each file. What has arrived outlives a cut, a kill and a reboot: beside
the bytes lies a note of what they are the beginning of, and bytes whose note does not fit are
thrown away. A file gets its own name only once its digest is right.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from atrium_common.catalogue import HubSource
from atrium_common.weights.errors import WeightsError
from atrium_common.weights.hub_http import HubClient, TransientError
from atrium_common.weights.pickles import refuse_pickle

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file as it must become.

    Attributes:
        name: Its path in the repository and in the model's folder.
        size: Length in bytes, 0 if nobody says it.
        sha256: Its digest; empty if nobody says it.
        git_sha1: Its object's name in the commit, for a small file; empty if nobody says it.
    """

    name: str
    size: int = 0
    sha256: str = ""
    git_sha1: str = ""


class _Note(BaseModel):
    """What the bytes of a part are the beginning of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    revision: str
    etag: str


class IncomingFile:
    """Fetches one file; used by one thread at a time."""

    def __init__(
        self,
        source: HubSource,
        wanted: Wanted,
        desk: Path,
        *,
        fetched: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Looks at nothing yet.

        Args:
            source: Its repository and commit.
            wanted: What it must become.
            desk: Folder of the model's download; ``files`` and ``parts`` in it are ours.
            fetched: Called with the bytes that came, or, negative, were thrown away.
            stopped: Tells whether to give up, after each block.
        """
        self._source = source
        self._wanted = wanted
        self._fetched = fetched
        self._stopped = stopped
        self._target = desk / "files" / wanted.name
        self._part = desk / "parts" / f"{wanted.name}.part"
        self._note_path = desk / "parts" / f"{wanted.name}.json"
        self._note: _Note | None = None
        self._sha256 = hashlib.sha256()
        self.arrived = 0
        """Bytes that are here."""

    def look(self) -> bool:
        """Counts and hashes what is here; true if it is the whole file, and right."""
        if self._target.is_file():
            self._read(self._target)
            if self._is_right(self._target):
                return True
            self._target.unlink()
            self._throw_away()
        if self._part.is_file():
            self._note = self._read_note()
            if self._note is None:
                self._throw_away()
            else:
                self._read(self._part)
        return False

    def fetch(self, client: HubClient) -> str:
        """Brings what is missing, checks the whole, and gives it its name.

        Returns:
            Its SHA-256. What arrived stays if this raises `TransientError`, which may have
            brought bytes; it is deleted if it is not what was wanted.

        Raises:
            TransientError: The connection broke, or the file changed on the way.
            WeightsError: The file is not the one of the catalogue, or can't be had.
            OSError: The disk does not take it.
        """
        if not self._wanted.size or self.arrived < self._wanted.size:
            self._receive(client)
        if not self._is_right(self._part):
            self._throw_away()
            raise WeightsError(
                f"{self._wanted.name} of {self._source.repository} is not the file of the "
                "catalogue: size or digest differ; it was not kept",
                reason="BAD_DIGEST",
            )
        try:
            refuse_pickle(self._part, self._wanted.name, reason=self._source.pickle_reason)
        except WeightsError:
            self._throw_away()
            raise
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._part.replace(self._target)
        self._note_path.unlink(missing_ok=True)
        return self.sha256

    @property
    def sha256(self) -> str:
        """Digest of the bytes that are here."""
        return self._sha256.hexdigest()

    def _receive(self, client: HubClient) -> None:
        """Appends what the hub sends to the part."""
        with client.opened(self._source, self._wanted.name, self.arrived) as opened:
            note = _Note(
                repository=self._source.repository,
                revision=self._source.revision,
                etag=opened.etag,
            )
            if self.arrived and (opened.offset != self.arrived or note != self._note):
                self._throw_away()
                if opened.offset:
                    raise TransientError(
                        WeightsError(
                            f"{self._wanted.name} changes while it is fetched",
                            reason="FETCH_FAILED",
                        )
                    )
            if self._note is None:
                self._write_note(note)
            total = opened.total or self._wanted.size
            with self._part.open("ab") as out:
                for block in opened.blocks():
                    out.write(block)
                    self._sha256.update(block)
                    self.arrived += len(block)
                    self._fetched(len(block))
                    if self._stopped():
                        raise InterruptedError(f"{self._wanted.name}: another file failed")
                out.flush()
                os.fsync(out.fileno())
        if self.arrived < total:
            final = WeightsError(
                f"{self._wanted.name}: the hub sent {self.arrived} of {total} bytes",
                reason="FETCH_FAILED",
            )
            raise TransientError(final)

    def _is_right(self, path: Path) -> bool:
        if self._wanted.size and self.arrived != self._wanted.size:
            return False
        if self._wanted.sha256:
            return self.sha256 == self._wanted.sha256
        if self._wanted.git_sha1:
            return _git_sha1(path) == self._wanted.git_sha1
        return True

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                self._sha256.update(block)
                self.arrived += len(block)
                self._fetched(len(block))

    def _read_note(self) -> _Note | None:
        try:
            note = _Note.model_validate_json(self._note_path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        same = (note.repository, note.revision) == (self._source.repository, self._source.revision)
        return note if same else None

    def _write_note(self, note: _Note) -> None:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._note_path.write_text(note.model_dump_json(), encoding="utf-8")
        self._note = note

    def _throw_away(self) -> None:
        self._fetched(-self.arrived)
        self._part.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        self._note = None
        self._sha256 = hashlib.sha256()
        self.arrived = 0


def _git_sha1(path: Path) -> str:
    """Computes the name that Git gives a file's content."""
    # Git's own names are SHA-1; what they guard here is a file that the catalogue has no
    # digest of, against damage.
    data = path.read_bytes()
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()
