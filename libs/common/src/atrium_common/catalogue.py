"""The catalogue: which models there are, who runs them and where their files come from.

One YAML file names every model (ARCHITECTURE §7), and the adapters that change what a model
does. The gateway and each service read their own part of it; `atrium_common.weights`
fetches the files that it names (`catalogue_sources.py`).

Order matters: the first model of a capability is the capability's default.
"""

from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from atrium_common.catalogue_sources import (
    FolderSource,
    HubSource,
    PackageSource,
    Part,
    Sha256,
    Source,
    WeightFile,
)
from atrium_common.domain import Capability
from atrium_common.errors import AtriumError, NotFound

__all__ = [
    "AdapterEntry",
    "Catalogue",
    "CatalogueError",
    "Entry",
    "FolderSource",
    "HubSource",
    "ModelEntry",
    "PackageSource",
    "Price",
    "ServiceName",
    "Source",
    "WeightFile",
]

ServiceName = Literal["text2image", "img2img", "img2text", "tts", "stt", "llm"]
EntryId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Amount = Annotated[Decimal, Field(ge=0)]
KeepAlive = Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["forever"]


class CatalogueError(AtriumError):
    """The catalogue file is missing, malformed or contradicts itself.

    For the operator at start-up: it never reaches a caller. The message is one line.
    """

    default_reason = "BAD_CATALOGUE"


class Price(Part):
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


class Entry(Part):
    """What models and adapters share, and all that `WeightStore` needs.

    Attributes:
        id: Name on the wire and in the ledger; never reused for other weights.
        sources: Where its files come from, the preferred first; empty for an entry
            without files (an outside provider, a fake).
        license: SPDX id or the licence's own name.
        license_url: Where its text is; ``""`` for an SPDX id, or where the repository has it.
        accept_license: True if the operator must accept the licence first.
        license_accepted: True once the operator has; `atrium models licence accept` keeps
            the same in the models' folder.
        digest: SHA-256 of the main weight file; ``""`` where it is not known.
    """

    id: EntryId
    sources: tuple[Source, ...] = ()
    license: str = ""
    license_url: str = ""
    accept_license: bool = False
    license_accepted: bool = False
    digest: Sha256 | Literal[""] = ""


class ModelEntry(Entry):
    """One model of the catalogue.

    Attributes:
        service: Service that runs it.
        capabilities: What it can do.
        engine: Registry name of the engine that runs it, e.g. ``"transformers"``.
        options: Options of the engine, in its own terms; the engine refuses
            unknown ones.
        aliases: Other names that select it. Models whose capabilities are disjoint may
            share one: what a request asks for tells them apart.
        context_length: Most tokens of input and output together, if it has a limit.
        embedding_dimensions: Values in an embedding, if it makes them.
        dtype: Numeric type or quantisation to run in; ``None`` takes the engine's.
        memory_mib: What it takes of its device's memory while it is loaded and works, in
            MiB; plans what fits. ``None`` for a model that takes none worth counting.
        keep_alive_seconds: How long it stays loaded after its last use; ``"forever"`` never
            unloads it for being idle, ``None`` takes the service's setting.
        price: What its use costs a tenant.
        cost: What its use costs the operator, where an outside provider charges for it;
            tenants are not shown it.
        route: Reserved for the models to fall back to; nothing honours it yet, so a
            catalogue that sets it is refused.
    """

    service: ServiceName
    capabilities: tuple[Capability, ...] = Field(min_length=1)
    engine: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    options: dict[str, JsonValue] = Field(default_factory=dict)
    aliases: tuple[Alias, ...] = ()
    context_length: int | None = Field(default=None, ge=1)
    embedding_dimensions: int | None = Field(default=None, ge=1)
    dtype: str | None = None
    memory_mib: int | None = Field(default=None, ge=1)
    keep_alive_seconds: KeepAlive | None = None
    price: Price = Price()
    cost: Price = Price()
    route: tuple[EntryId, ...] = ()


class AdapterEntry(Entry):
    """Weights that change what a model does, applied per request by their id.

    Attributes:
        kind: How they are applied; ``"lora"`` adds low-rank changes to the model's own.
        models: Ids of the models that may use it.
    """

    kind: Literal["lora"]
    models: tuple[EntryId, ...] = Field(min_length=1)


EntryT = TypeVar("EntryT", ModelEntry, AdapterEntry)


class Catalogue(Part):
    """Every model of an installation and every adapter, in the file's order."""

    models: tuple[ModelEntry, ...] = Field(min_length=1)
    adapters: tuple[AdapterEntry, ...] = ()

    @model_validator(mode="after")
    def _names_hold(self) -> Self:
        ids = [entry.id for entry in (*self.models, *self.adapters)]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"the name {name!r} stands for two entries")
        meanings: set[tuple[str, Capability]] = set()
        for entry in self.models:
            for alias in entry.aliases:
                wanted = {(alias, capability) for capability in entry.capabilities}
                if alias in ids or wanted & meanings:
                    raise ValueError(f"the name {alias!r} stands for two models")
                meanings |= wanted
        return self

    @model_validator(mode="after")
    def _models_hold(self) -> Self:
        known = {entry.id for entry in self.models}
        for entry in self.models:
            if entry.route:
                raise ValueError(f"{entry.id}: route (models to fall back to) is not supported yet")
        for adapter in self.adapters:
            if missing := set(adapter.models) - known:
                raise ValueError(f"{adapter.id}: there is no model {min(missing)!r}")
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
        return self.model_copy(
            update={
                "models": tuple(_anchored(entry, folder) for entry in self.models),
                "adapters": tuple(_anchored(entry, folder) for entry in self.adapters),
            }
        )

    def only(self, ids: Collection[str]) -> "Catalogue":
        """Returns the part that these models make up, in the file's order; all for none.

        Raises:
            CatalogueError: The catalogue has no such model; the message lists what it has.
        """
        if not ids:
            return self
        known = [entry.id for entry in self.models]
        if unknown := [model for model in ids if model not in known]:
            raise CatalogueError(
                f"there is no model {unknown[0]!r}; the catalogue has {', '.join(known)}"
            )
        adapters = [
            adapter.model_copy(update={"models": tuple(m for m in adapter.models if m in ids)})
            for adapter in self.adapters
            if any(model in ids for model in adapter.models)
        ]
        models = [entry for entry in self.models if entry.id in ids]
        return self.model_copy(update={"models": tuple(models), "adapters": tuple(adapters)})

    def __iter__(self) -> Iterator[ModelEntry]:  # type: ignore[override]
        return iter(self.models)

    def for_service(self, name: str) -> list[ModelEntry]:
        """Returns the models that the service runs, in order."""
        return [entry for entry in self.models if entry.service == name]

    def adapters_of(self, model: str) -> list[AdapterEntry]:
        """Returns the adapters that the model with this id may use, in order."""
        return [adapter for adapter in self.adapters if model in adapter.models]

    def with_files(self, services: Collection[str] = ()) -> list[Entry]:
        """Returns the entries that have files, models before adapters.

        Args:
            services: Only their models, and the adapters that these may use; all if none
                is named.
        """
        models = [entry for entry in self.models if not services or entry.service in services]
        ids = {entry.id for entry in models}
        adapters = [adapter for adapter in self.adapters if ids & set(adapter.models)]
        return [entry for entry in (*models, *adapters) if entry.sources]

    def with_capability(
        self, capability: Capability, *, service: ServiceName | None = None
    ) -> Sequence[ModelEntry]:
        """Returns the models that have the capability, the default first.

        Args:
            capability: What they can do.
            service: Only those that it runs: a chat model of llm may see pictures, too.
        """
        return [
            entry
            for entry in self.models
            if capability in entry.capabilities and service in (None, entry.service)
        ]

    def resolve(
        self, name: str, capability: Capability, *, service: ServiceName | None = None
    ) -> ModelEntry:
        """Finds the model that a request means.

        Args:
            name: Id, alias, or ``""`` for the capability's default.
            capability: What the request asks for.
            service: Only among the models that it runs.

        Raises:
            NotFound: No such model, or it lacks the capability; `field` is ``"model"``.
        """
        able = self.with_capability(capability, service=service)
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


def _anchored(entry: EntryT, folder: Path) -> EntryT:
    def anchor(source: Source) -> Source:
        if isinstance(source, FolderSource):
            return source.model_copy(update={"path": (folder / source.path).resolve()})
        return source

    return entry.model_copy(update={"sources": tuple(anchor(s) for s in entry.sources)})
