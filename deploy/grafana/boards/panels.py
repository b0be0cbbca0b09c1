"""What a dashboard is made of, in a few words per panel; the dashboards' modules say which.

Only what the four dashboards use: rows, panels that draw PromQL or show log lines, a note in
Markdown, and a variable whose values are a label's. `rendering.py` makes JSON of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "bargauge", "table", "state-timeline", "logs", "text"]


@dataclass(frozen=True)
class Query:
    """An expression and how its series are called, with `{{label}}` for a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture.

    Attributes:
        title: Its heading.
        description: What is seen, and what to make of it.
        unit: Grafana's id of the unit: `s`, `bytes`, `reqps`, `percentunit`, ...
        queries: PromQL; LogQL for `logs`; none for `text`.
        kind: Grafana's type of panel.
        width: Of 24 columns.
        height: In Grafana's rows of 30 pixels.
        limits: Values from which it is yellow and red, or under which if they fall; ``None``
            keeps one colour.
        most: Upper end of the scale.
        stacked: Whether series are put on top of each other.
        logarithmic: Whether the scale is, for series whose sizes differ by magnitudes.
        colours: Patterns of series' names and their colours, as ``("failed$", "red")``.
        links: Columns of a `table` and where their values lead; ``${__value.raw}`` is the value.
        text: Markdown of a `text` panel.
    """

    title: str
    description: str
    unit: str = "short"
    queries: Sequence[Query] = ()
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    limits: tuple[float, float] | None = None
    most: float | None = None
    stacked: bool = False
    logarithmic: bool = False
    colours: Sequence[tuple[str, str]] = ()
    links: Sequence[tuple[str, str]] = ()
    text: str = ""


def panel(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    kind: Kind = "timeseries",
    width: int = 8,
    height: int = 8,
    limits: tuple[float, float] | None = None,
    most: float | None = None,
    stacked: bool = False,
    logarithmic: bool = False,
    colours: Sequence[tuple[str, str]] = (),
    links: Sequence[tuple[str, str]] = (),
    text: str = "",
) -> Panel:
    """A panel in the words of a caption: what it is called, what is seen, what is asked."""
    return Panel(
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        kind=kind,
        width=width,
        height=height,
        limits=limits,
        most=most,
        stacked=stacked,
        logarithmic=logarithmic,
        colours=colours,
        links=links,
        text=text,
    )


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A choice above the dashboard: the values of a label."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A page; `uid` is in its address and stays."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
