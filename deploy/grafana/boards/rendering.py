"""Grafana's dashboard JSON, made of what `panels.py` describes; `../make.py` writes it."""

from collections.abc import Sequence
from typing import Any, Final

from .panels import Dashboard, Panel, Query, Row, Variable

Json = dict[str, object]

PROMETHEUS: Final = {"type": "prometheus", "uid": "atrium-prometheus"}
LOKI: Final = {"type": "loki", "uid": "atrium-loki"}
_COLUMNS: Final = 24

_LINKS: Final[Json] = {
    "type": "dashboards",
    "title": "Atrium",
    "tags": ["atrium"],
    "asDropdown": False,
    "includeVars": False,
    "keepTime": True,
}

_EVENTS: Final[Sequence[Json]] = (
    {
        "name": "Alerts",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", severity!="info"}',
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{service}} {{route}} {{model}}",
    },
    {
        "name": "Starts",
        "datasource": PROMETHEUS,
        "enable": True,
        "iconColor": "blue",
        "expr": 'changes(process_start_time_seconds{job="atrium"}[1m]) > 0',
        "step": "60s",
        "titleFormat": "{{service}} started",
        "textFormat": "{{instance}}",
    },
)
"""What is marked on every dashboard."""


def render(dashboard: Dashboard) -> Json:
    """The JSON that Grafana reads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["atrium"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_LINKS],
        "annotations": {"list": list(_EVENTS)},
        "templating": {"list": [_variable(each) for each in dashboard.variables]},
        "panels": _lay_out(dashboard.rows),
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
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
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
    made: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
    }
    if panel.kind == "state-timeline":
        # Else Grafana goes from green for the least value to red for the largest.
        made["color"] = {"mode": "thresholds"}
    elif not panel.logarithmic:
        made["min"] = 0
    if panel.most is not None:
        made["max"] = panel.most
    if panel.kind == "timeseries":
        made["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.limits else "off"},
        }
        if panel.logarithmic:
            made["custom"]["scaleDistribution"] = {"type": "log", "log": 10}
    return made


def _overrides(panel: Panel) -> list[Json]:
    made: list[Json] = []
    for pattern, colour in panel.colours:
        value = {"mode": "fixed", "fixedColor": colour}
        of = {"id": "byRegexp", "options": f"/{pattern}/"}
        made.append({"matcher": of, "properties": [{"id": "color", "value": value}]})
    for column, url in panel.links:
        link = {"title": f"This {column}", "url": url}
        of = {"id": "byName", "options": column}
        made.append({"matcher": of, "properties": [{"id": "links", "value": [link]}]})
    if panel.kind == "table":
        of = {"id": "byName", "options": "Time"}
        made.append({"matcher": of, "properties": [{"id": "custom.hidden", "value": True}]})
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
