"""Grafana's dashboard JSON from a few words per panel; the dashboards' modules say which.

Only what the four dashboards use: rows, panels that draw PromQL or show log lines, a note in
Markdown, and a variable whose values are a label's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Json = dict[str, object]
Kind = Literal["timeseries", "stat", "bargauge", "table", "state-timeline", "logs", "text"]

PROMETHEUS: Final = {"type": "prometheus", "uid": "atrium-prometheus"}
LOKI: Final = {"type": "loki", "uid": "atrium-loki"}
_COLUMNS: Final = 24


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
    text: str = ""


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

    def render(self) -> Json:
        """The JSON that Grafana reads."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["atrium"],
            "schemaVersion": 39,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [_LINKS],
            "templating": {"list": [_variable(each) for each in self.variables]},
            "panels": _lay_out(self.rows),
        }


_LINKS: Final[Json] = {
    "type": "dashboards",
    "title": "Atrium",
    "tags": ["atrium"],
    "asDropdown": False,
    "includeVars": False,
    "keepTime": True,
}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.name,
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"query": query, "refId": "values"},
        "refresh": 2,
        "sort": 1,
    }


def _lay_out(rows: Sequence[Row]) -> list[Json]:
    placed: list[Json] = []
    below = 0
    for row in rows:
        at = {"x": 0, "y": below, "w": _COLUMNS, "h": 1}
        placed.append({"type": "row", "title": row.title, "id": len(placed) + 1, "gridPos": at})
        below += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, below, height = 0, below + height, 0
            at = {"x": left, "y": below, "w": panel.width, "h": panel.height}
            placed.append({**_panel(panel), "id": len(placed) + 1, "gridPos": at})
            left, height = left + panel.width, max(height, panel.height)
        below += height
    return placed


def _panel(panel: Panel) -> Json:
    made: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "text":
        return made
    source = LOKI if panel.kind == "logs" else PROMETHEUS
    targets = [_target(panel, number, query) for number, query in enumerate(panel.queries)]
    return {**made, "datasource": source, "targets": targets}


def _target(panel: Panel, number: int, query: Query) -> Json:
    target: Json = {"refId": chr(ord("A") + number), "expr": query.expression}
    if panel.kind == "logs":
        return {**target, "datasource": LOKI, "queryType": "range"}
    once = panel.kind in ("stat", "bargauge", "table")
    return {
        **target,
        "datasource": PROMETHEUS,
        "legendFormat": query.legend,
        "instant": once,
        "range": not once,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    made: Json = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.kind != "state-timeline":
        made["min"] = 0
    if panel.most is not None:
        made["max"] = panel.most
    if panel.kind == "timeseries":
        made["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    return made


def _steps(panel: Panel) -> list[Json]:
    if panel.limits is None:
        return [{"color": "green", "value": None}]
    # Of what should be high, such as a share of successes, the first limit is the higher.
    falling = panel.limits[0] > panel.limits[1]
    colours = ("red", "yellow", "green") if falling else ("green", "yellow", "red")
    values = (None, *sorted(panel.limits))
    return [{"color": c, "value": v} for c, v in zip(colours, values, strict=True)]


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "timeseries":
            legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "stat" | "bargauge":
            calc: Json = {"reduceOptions": {"calcs": ["lastNotNull"]}}
            horizontal: Json = {"orientation": "horizontal"}
            return calc | (horizontal if panel.kind == "bargauge" else {"graphMode": "none"})
        case "logs":
            return {"showTime": True, "enableLogDetails": True, "sortOrder": "Descending"}
        case "text":
            return {"mode": "markdown", "content": panel.text}
        case "state-timeline":
            return {"showValue": "never", "legend": {"showLegend": False}}
        case _:
            return {}
