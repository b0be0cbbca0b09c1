"""CSV as RFC 4180 says, safe to open in a spreadsheet; `/api/usage` and `atrium usage` use it.

A text that a spreadsheet would take for a formula is led by an apostrophe, also where blanks or
signs that nobody sees stand before it; so is one that begins with an apostrophe, so that whoever
takes one away reads what was written.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

CSV = "text/csv; charset=utf-8; header=present"
"""Content type of the exports."""

Cell = str | int | float | bool | Decimal | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")  # noqa: RUF001
"""First characters of what spreadsheets compute; the last four are the wide forms."""
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\xa0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*")
"""What a spreadsheet may drop from the beginning of a cell."""


def csv_lines(rows: Iterable[Sequence[Cell]]) -> bytes:
    """The lines of `rows`: UTF-8, ended by CR LF.

    A missing value is empty, a truth ``true`` or ``false``.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def plain_text(cell: str) -> str:
    """A text cell as it was before it was made safe."""
    return cell.removeprefix("'")


def _computes(cell: str) -> bool:
    if cell.startswith(_FORMULA):
        return True
    unseen = _UNSEEN.match(cell)
    return unseen is not None and cell.startswith(_FORMULA, unseen.end())


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str):
        return f"'{cell}" if _computes(cell) else cell
    return f"{cell:f}" if isinstance(cell, Decimal) else str(cell)
