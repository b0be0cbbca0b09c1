"""How the commands print: tables and lines for people, one JSON document with `--json`."""

import json
import sys
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table

from atrium_common.models_cli.records import Record, Value

_UNFOLDED = 1000
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def show_json(value: Value) -> None:
    """Prints one JSON document."""
    typer.echo(json.dumps(value, indent=2))


def show_table(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Prints a column per name; without a terminal nothing is folded, since programs read it."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        title = name.removesuffix("_bytes").removesuffix("_mib").replace("_", " ")
        table.add_column(title, overflow="fold")
    for record in records:
        table.add_row(*(_cell(name, record[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else _UNFOLDED).print(table)


def show_lines(record: Record, *, indent: str = "") -> None:
    """Prints a line per field, and what a field holds below it."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            typer.echo(f"{indent}{name}")
            for each in value:
                _show_one(each, indent + "  ")
        elif value not in (None, "", []):
            typer.echo(f"{indent}{name.replace('_', ' '):<{width}}  {_cell(name, value)}")


def size(count: int | None) -> str:
    """Writes bytes for people."""
    if count is None:
        return "?"
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def _show_one(record: Record, indent: str) -> None:
    if set(record) == {"name", "size_bytes", "sha256"}:
        digest = record["sha256"] or "no digest"
        typer.echo(f"{indent}{record['name']}  {_cell('size_bytes', record['size_bytes'])}")
        typer.echo(f"{indent}  sha256 {digest}")
    else:
        show_lines(record, indent=indent)


def _cell(name: str, value: Value) -> str:
    if name.endswith("_bytes") and (value is None or isinstance(value, int)):
        return size(value)
    if name.endswith("_mib"):
        return "-" if value is None else f"{value} MiB"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value) or "-"
    return str(value)
