"""What `prune` does, and the line by which `list` and `pull` tell that there is work for it."""

from collections.abc import Sequence
from pathlib import Path

import typer

from atrium_common.catalogue import Catalogue
from atrium_common.models_cli.options import Shelf
from atrium_common.models_cli.output import size
from atrium_common.weights.leftovers import Kind, Leftover, leftovers, remove_leftover
from atrium_common.weights.reporting import say


def prune_all(shelf: Shelf, *, beside: Sequence[Path], models: bool, dry_run: bool) -> None:
    """Deletes what the catalogue does not name; says a line of each.

    Args:
        shelf: The catalogue and the folder.
        beside: Other catalogues that use the same folder.
        models: Whole models as well, and what engines made of them.
        dry_run: Only say it.

    Raises:
        CatalogueError: A catalogue can't be read.
        WeightsError: The disk refuses.
    """
    named = list(shelf.entries)
    for file in beside:
        other = Catalogue.load(file)
        named += [*other.models, *other.adapters]
    for each in leftovers(shelf.store.root, named):
        if each.kind is not Kind.DOWNLOAD and not models:
            typer.echo(f"kept {_told(each)}; --models deletes it")
        elif dry_run:
            typer.echo(f"would delete {_told(each)}")
        else:
            _remove(shelf.store.root, each)


def tell_leftovers(shelf: Shelf) -> None:
    """Says on stderr what `prune` would find; nothing if that is nothing."""
    found = leftovers(shelf.store.root, shelf.entries)
    if found:
        held = size(sum(each.size for each in found))
        say(f"{len(found)} folders of other catalogues or revisions hold {held}: see {_COMMAND}")


_COMMAND = "`atrium models prune --dry-run`"


def _remove(root: Path, leftover: Leftover) -> None:
    what = _told(leftover)
    if remove_leftover(root, leftover) is None:
        typer.echo(f"kept {what}; it is being fetched")
    else:
        typer.echo(f"deleted {what}")


def _told(leftover: Leftover) -> str:
    return f"{leftover.path} ({leftover.kind}, {size(leftover.size)})"
