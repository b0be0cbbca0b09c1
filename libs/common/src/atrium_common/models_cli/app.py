"""The commands `list`, `pull`, `verify`, `remove`, `prune`, `show` and `licence accept`.

Run as `atrium-models`, and by the gateway's `atrium models`, which mounts `app`.
"""

import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from atrium_common.errors import AtriumError, InvalidArgument
from atrium_common.logs import configure_logging
from atrium_common.models_cli.options import (
    DEFAULT_CATALOGUE,
    DEFAULT_MODELS_DIR,
    AnyEntry,
    CataloguePath,
    Ids,
    Json,
    ModelsDir,
    Services,
    Shelf,
)
from atrium_common.models_cli.output import show_json, show_lines, show_table, size
from atrium_common.models_cli.pruning import prune_all, tell_leftovers
from atrium_common.models_cli.pulling import pull_all
from atrium_common.models_cli.records import details, summary
from atrium_common.weights.hub_options import HubOptions
from atrium_common.weights.inventory import Finding, Inventory, State
from atrium_common.weights.reporting import say
from atrium_common.weights.store import WeightStore

app = typer.Typer(
    name="atrium-models",
    help="Models of the catalogue: what there is, what is here, and how it gets here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
licence_app = typer.Typer(no_args_is_help=True)
app.add_typer(licence_app, name="licence", help="Licences that must be accepted first.")
app.add_typer(licence_app, name="license", hidden=True)

_COLUMNS = ("id", "services", "capabilities", "size_bytes", "memory_mib", "license", "state")


@app.command("list")
def list_(
    service: Services = None,
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    as_json: Json = False,
) -> None:
    """Lists the catalogue and what of it is here."""
    shelf = Shelf.open(catalogue, models_dir)
    records = [summary(entry, shelf) for entry in shelf.choose(None, service)]
    if as_json:
        show_json(records)
        return
    show_table(records, _COLUMNS)
    for record in records:
        if record["license_accepted"] is False:
            typer.echo(
                f"{record['id']} needs its licence: atrium models licence accept {record['id']}",
                err=True,
            )
    tell_leftovers(shelf)


@app.command()
def pull(
    ids: Ids = None,
    service: Services = None,
    every: Annotated[bool, typer.Option("--all", help="All of the catalogue.")] = False,
    offered: Annotated[
        str,
        typer.Option(
            "--offered",
            envvar="ATRIUM_MODELS",
            help="Ids with commas: fetch these and their adapters, where none is named.",
        ),
    ] = "",
    profiles: Annotated[
        str,
        typer.Option(
            "--profiles",
            envvar="COMPOSE_PROFILES",
            help="With commas: of these, only what the compose file's profiles start.",
        ),
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Files fetched at once.")] = 4,
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
) -> None:
    """Fetches what is missing, checked; what was cut goes on where it stopped.

    Models whose licence was not accepted are passed over, unless they are named.
    """
    if every and ids:
        raise InvalidArgument("Name models or say --all, not both.", field="all")
    shelf = Shelf.open(catalogue, models_dir)
    named = bool(ids) or every
    chosen = shelf.choose(ids, service) if named else shelf.offered(offered, profiles, service)
    if not chosen:
        say(f"nothing to fetch: no model that is offered is run by the profiles {profiles}")
    store = WeightStore(models_dir, hub=HubOptions.from_environment(jobs=jobs))
    entries = [entry for entry in chosen if entry.sources]
    complete = pull_all(entries, store, named=bool(ids))
    tell_leftovers(shelf)
    if not complete:
        raise typer.Exit(1)


@app.command()
def verify(
    ids: Ids = None,
    service: Services = None,
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    as_json: Json = False,
) -> None:
    """Reads every byte that is here and compares its SHA-256; status 1 if any differs.

    Models that are not here count only where they are named.
    """
    shelf = Shelf.open(catalogue, models_dir)
    inventory = Inventory(shelf.store)
    here = (State.PRESENT, State.CHANGED)
    entries = [
        entry
        for entry in shelf.choose(ids, service)
        if (ids and entry.sources) or inventory.state(entry) in here
    ]
    findings = {entry.id: inventory.examine(entry) for entry in entries}
    if as_json:
        show_json([_verdict(name, found) for name, found in findings.items()])
    else:
        for name, found in findings.items():
            typer.echo(f"{name}: {'damaged' if found else 'good'}")
            for each in found:
                where = f"{each.folder}/{each.file}" if each.file else "all of it"
                typer.echo(f"  {where}: {_PROBLEMS[each.problem]}")
    if any(findings.values()):
        raise typer.Exit(1)


_PROBLEMS = {
    "missing": "is not there",
    "size": "has another size",
    "digest": "has another SHA-256",
}


def _verdict(name: str, found: Sequence[Finding]) -> dict[str, str | bool | list[dict[str, str]]]:
    files = [{"file": each.file, "problem": each.problem, "folder": each.folder} for each in found]
    return {"id": name, "good": not found, "findings": files}


@app.command()
def remove(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Models or adapters.")],
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
) -> None:
    """Deletes files from this machine; those that another model shares only with it.

    A service that has the model loaded keeps it until it unloads or stops.
    """
    shelf = Shelf.open(catalogue, models_dir)
    entries = shelf.choose(ids)
    freed = Inventory(shelf.store).remove(entries, everything=shelf.entries)
    names = ", ".join(entry.id for entry in entries)
    typer.echo(f"removed {names}: {size(freed)}" if freed else f"nothing of {names} was here")


@app.command()
def prune(
    beside: Annotated[
        list[Path] | None,
        typer.Option("--beside", help="Another catalogue that uses the same folder; repeat."),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Whole models too, not only cut downloads.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, only say.")] = False,
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
) -> None:
    """Deletes cut downloads that the catalogue does not name, as of a former revision.

    What another process is fetching stays.
    """
    shelf = Shelf.open(catalogue, models_dir)
    prune_all(shelf, beside=beside or (), models=models, dry_run=dry_run)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A model or an adapter.")],
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    as_json: Json = False,
) -> None:
    """Shows everything of a model: licence, memory, sources, files and digests."""
    shelf = Shelf.open(catalogue, models_dir)
    record = details(shelf.choose([name])[0], shelf)
    if as_json:
        show_json(record)
    else:
        show_lines(record)


@licence_app.callback()
def licence() -> None:
    """Licences that must be accepted before a model is fetched or loaded."""


@licence_app.command()
def accept(
    name: Annotated[str, typer.Argument(metavar="ID", help="A model or an adapter.")],
    yes: Annotated[bool, typer.Option("--yes", help="I have read it and accept it.")] = False,
    by: Annotated[str, typer.Option(help="Who accepts; the account's name if not given.")] = "",
    catalogue: CataloguePath = DEFAULT_CATALOGUE,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
) -> None:
    """Records in the models' folder that you accept a model's licence."""
    shelf = Shelf.open(catalogue, models_dir)
    entry = shelf.choose([name])[0]
    if not entry.accept_license:
        typer.echo(f"{entry.id} is under {entry.license}, which needs no acceptance")
        return
    if not yes:
        _ask(entry, shelf)
    accepted = shelf.store.licences.accept(entry, by=by or _account(), at=datetime.now(UTC))
    typer.echo(f"{accepted.by} accepted {accepted.license} for {accepted.model}")


def _ask(entry: AnyEntry, shelf: Shelf) -> None:
    text = details(entry, shelf)["license_text"]
    typer.echo(f"{entry.id} is under {entry.license}. Read it first: {text}")
    if typer.prompt("Type yes to accept it").strip().lower() != "yes":
        raise InvalidArgument("The licence was not accepted.", field="yes")


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in a container
        return "unknown"


def main() -> None:
    """Runs the command line; an error is one line on stderr and exit status 1."""
    configure_logging("atrium-models", "warning", "console")  # to stderr: `--json` is on stdout
    try:
        app()
    except AtriumError as err:
        typer.echo(f"atrium-models: {err.message}", err=True)
        sys.exit(1)
    except OSError as err:
        typer.echo(f"atrium-models: {err}", err=True)
        sys.exit(1)
