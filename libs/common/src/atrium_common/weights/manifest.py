"""What a finished folder holds, so that a later start need not read every byte again.

`WeightStore` writes it last. A file whose size and modification time are those of the
manifest is taken as unchanged; any other is read and its digest compared.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from atrium_common.catalogue_sources import MANIFEST

_BLOCK = 1024 * 1024


class ManifestFile(BaseModel):
    """One file as it was when it was checked. `modified` is in nanoseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    size: int
    modified: int


class Manifest(BaseModel):
    """The files of a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[ManifestFile, ...]

    @classmethod
    def write(cls, folder: Path, digests: dict[str, str]) -> None:
        """Records the files of `folder`, whose digests were just computed."""
        files = []
        for name, digest in digests.items():
            status = (folder / name).stat()
            files.append(
                ManifestFile(
                    name=name, sha256=digest, size=status.st_size, modified=status.st_mtime_ns
                )
            )
        text = cls(files=tuple(files)).model_dump_json(indent=1)
        (folder / MANIFEST).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Reads the manifest of a folder; ``None`` if it has none that holds."""
        try:
            return cls.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def holds(self, folder: Path, *, thoroughly: bool = False) -> bool:
        """Tells whether every file is still what it was.

        Args:
            folder: The folder of the manifest.
            thoroughly: Read every byte, also of files that look unchanged.
        """
        for file in self.files:
            path = folder / file.name
            try:
                status = path.stat()
                if status.st_size != file.size:
                    return False
                touched = status.st_mtime_ns != file.modified
                if (thoroughly or touched) and sha256_of(path) != file.sha256:
                    return False
            except OSError:
                return False
        return True


def sha256_of(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Computes a file's digest.

    Args:
        path: The file.
        advance: Called with the bytes of each block that was read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if advance is not None:
                advance(len(block))
    return digest.hexdigest()
