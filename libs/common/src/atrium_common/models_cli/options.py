"""What the commands have in common: where the catalogue and the models are, and the choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from atrium_common.catalogue import AdapterEntry, Catalogue, ModelEntry
from atrium_common.errors import NotFound
from atrium_common.profiles import services_of
from atrium_common.weights.store import WeightStore

CataloguePath = Annotated[
    Path, typer.Option("--catalogue", envvar="ATRIUM_CATALOGUE", help="Catalogue file.")
]
ModelsDir = Annotated[
    Path,
    typer.Option("--models-dir", envvar="ATRIUM_MODELS_DIR", help="Where models are kept."),
]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Models or adapters; all if none.")
]
Services = Annotated[
    list[str] | None,
    typer.Option("--service", help="Only the models of this service, e.g. llm; repeat."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

DEFAULT_CATALOGUE = Path("models/starter.yaml")
DEFAULT_MODELS_DIR = Path(".atrium/models")

AnyEntry = ModelEntry | AdapterEntry


@dataclass(frozen=True, slots=True)
class Shelf:
    """A catalogue and the folder that its models are kept in."""

    catalogue: Catalogue
    store: WeightStore

    @classmethod
    def open(cls, catalogue: Path, models_dir: Path) -> "Shelf":
        """Reads the catalogue.

        Raises:
            CatalogueError: It can't be read.
        """
        return cls(Catalogue.load(catalogue), WeightStore(models_dir))

    def offered(
        self, ids: str, profiles: str, services: Sequence[str] | None = None
    ) -> list[AnyEntry]:
        """Returns what an installation of these profiles needs, adapters included.

        Args:
            ids: The models that it offers, with commas between; all for none.
            profiles: Compose profiles, with commas between: models of services that none of
                them starts are left out. None leaves out nothing.
            services: As for `choose`.

        Raises:
            CatalogueError: The catalogue has no such model.
            NotFound: The catalogue has no model of a service of `services`.
        """
        part = Shelf(self.catalogue.only(_split(ids)), self.store)
        entries = part.choose(None, services)
        if not (chosen := _split(profiles)):
            return entries
        return [entry for entry in entries if part._serves(entry, services_of(chosen))]

    @property
    def entries(self) -> tuple[AnyEntry, ...]:
        """Everything of the catalogue, models before adapters."""
        return (*self.catalogue.models, *self.catalogue.adapters)

    def choose(
        self, ids: Sequence[str] | None, services: Sequence[str] | None = None
    ) -> list[AnyEntry]:
        """Returns the entries of these ids, or those of these services, or all.

        Raises:
            NotFound: The catalogue has no such id, or no model of the service.
        """
        known = {entry.id: entry for entry in self.entries}
        chosen = [self._of(known, name) for name in dict.fromkeys(ids or known)]
        for service in services or ():
            if not self.catalogue.for_service(service):
                raise NotFound(f"The catalogue has no model of a service {service!r}.")
        return [entry for entry in chosen if not services or self._serves(entry, services)]

    def services_of(self, entry: AnyEntry) -> list[str]:
        """Returns the services that run the model, or the models of the adapter."""
        if isinstance(entry, ModelEntry):
            return [entry.service]
        users = (model for model in self.catalogue if model.id in entry.models)
        return list(dict.fromkeys(model.service for model in users))

    def _serves(self, entry: AnyEntry, services: Sequence[str]) -> bool:
        return any(service in services for service in self.services_of(entry))

    @staticmethod
    def _of(known: dict[str, AnyEntry], name: str) -> AnyEntry:
        if name not in known:
            raise NotFound(f"There is no {name!r} in the catalogue; it has {', '.join(known)}.")
        return known[name]


def _split(names: str) -> list[str]:
    return [part.strip() for part in names.split(",") if part.strip()]
