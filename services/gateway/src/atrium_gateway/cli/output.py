"""How commands print: a table for people, one JSON document with `--json`."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

_UNFOLDED = 1000

Cell = str | int | float | bool | None | datetime | timedelta | Decimal | Sequence[str]
Record = Mapping[str, Cell]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def show_list(records: Sequence[Record], *, as_json: bool, empty: str) -> None:
    """Prints records as rows, or `empty` if there are none."""
    if as_json:
        typer.echo(json.dumps([_plain(record) for record in records], indent=2))
        return
    if not records:
        typer.echo(empty)
        return
    table = Table(box=None, pad_edge=False)
    for name in records[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(_text(value) for value in record.values()))
    # Without a terminal nothing may be folded: a program reads the output.
    Console(width=None if sys.stdout.isatty() else _UNFOLDED).print(table)


def show(record: Record, *, as_json: bool) -> None:
    """Prints one record, a line per field."""
    if as_json:
        typer.echo(json.dumps(_plain(record), indent=2))
        return
    width = max(len(name) for name in record)
    for name, value in record.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {_text(value)}")


def _text(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value) or "-"
    return str(value)


def _plain(record: Record) -> dict[str, str | int | float | bool | list[str] | None]:
    return {name: _json_value(value) for name, value in record.items()}


def _json_value(value: Cell) -> str | int | float | bool | list[str] | None:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
