"""The dashboards are complete, ask for metrics that there are, and are those of their source."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from atrium_common.domain import ModelState
from tests.kit.compose import ROOT
from tests.kit.dashboards import DASHBOARDS, expressions
from tests.kit.promql import builtin_metrics, documented_metrics, metrics_of, recorded_rules

GRAFANA = ROOT / "deploy/grafana"
Json = dict[str, Any]


def read(file: Path) -> Json:
    found: Json = json.loads(file.read_text())
    return found


def panels(board: Json) -> list[Json]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@cache
def sources() -> dict[str, str]:
    """Grafana's data sources: uid and type."""
    text = (GRAFANA / "provisioning/datasources/atrium.yaml").read_text()
    return {each["uid"]: each["type"] for each in yaml.safe_load(text)["datasources"]}


def test_the_committed_json_is_what_the_source_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GRAFANA / "make.py", tmp_path], check=True)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {file.name: file.read_text() for file in DASHBOARDS} == made


def test_there_are_four_with_an_address_of_their_own() -> None:
    boards = [read(file) for file in DASHBOARDS]
    assert {board["uid"] for board in boards} == {
        "atrium-overview",
        "atrium-service",
        "atrium-tenants",
        "atrium-gpu",
    }
    assert [board["uid"] for board in boards] == [file.stem for file in DASHBOARDS]
    (service,) = [board for board in boards if board["uid"] == "atrium-service"]
    assert [variable["name"] for variable in service["templating"]["list"]] == ["service"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_panel_explains_itself_and_has_a_unit(file: Path) -> None:
    board = read(file)
    for panel in panels(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for part in (panel, *panel.get("targets", ())):
            if panel["type"] != "text":
                assert sources()[part["datasource"]["uid"]] == part["datasource"]["type"]
    titles = [panel["title"] for panel in panels(board)]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_do_not_overlap(file: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(file)["panels"]:
        at = panel["gridPos"]
        columns = range(at["x"], at["x"] + at["w"])
        cells = {(x, y) for x in columns for y in range(at["y"], at["y"] + at["h"])}
        assert columns.stop <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_expressions_ask_for_metrics_that_there_are() -> None:
    known = documented_metrics() | recorded_rules() | builtin_metrics()
    asked = [each.expression for each in expressions()]
    assert len(asked) > 50
    for expression in asked:
        assert metrics_of(expression) <= known, expression


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_alerts_and_starts_are_marked_and_links_lead_somewhere(file: Path) -> None:
    board = read(file)
    known = documented_metrics() | recorded_rules() | builtin_metrics()
    events = board["annotations"]["list"]
    assert [event["name"] for event in events] == ["Alerts", "Starts"]
    assert all(metrics_of(event["expr"]) <= known for event in events)
    links = re.findall(r"/d/([\w-]+)\?var-(\w+)=", json.dumps(board))
    assert set(links) <= {("atrium-service", "service")}
    assert bool(links) is (file.stem == "atrium-overview")


def test_limits_are_seen_and_good_is_green() -> None:
    for panel in (panel for file in DASHBOARDS for panel in panels(read(file))):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "timeseries":
            limited = len(defaults["thresholds"]["steps"]) > 1
            drawn = defaults["custom"]["thresholdsStyle"]["mode"]
            assert drawn == ("dashed" if limited else "off"), panel["title"]
        if panel["type"] == "state-timeline":
            assert defaults["color"] == {"mode": "thresholds"}, panel["title"]
    (state,) = [each for each in panels(read(DASHBOARDS[2])) if each["title"] == "State"]
    coloured = " ".join(each["matcher"]["options"] for each in state["fieldConfig"]["overrides"])
    assert set(re.findall(r" (\w+)\$", coloured)) == {str(each) for each in ModelState}


def test_every_metric_of_ours_is_looked_at_or_left_out_by_name() -> None:
    """A new metric asks for a place."""
    seen = {re.sub(r"_(bucket|sum|count)$", "", n) for e in expressions() for n in e.metrics}
    rules = (ROOT / "deploy/prometheus/rules").glob("*.yml")
    text = "".join(file.read_text() for file in rules)
    ours = {re.sub(r"_(bucket|sum|count)$", "", n) for n in documented_metrics()}
    unseen = {name for name in ours if name.startswith("atrium_")} - seen
    assert {name for name in unseen if name not in text} == {
        "atrium_build_info",  # the values of the variable `service`
        "atrium_fetches_total",  # off but where the operator allows it
        "atrium_model_verified",  # the state says it, too: not ready
    }


def test_grafana_is_given_dashboards_and_sources() -> None:
    text = (GRAFANA / "provisioning/dashboards/atrium.yaml").read_text()
    (provider,) = yaml.safe_load(text)["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert sources() == {
        "atrium-prometheus": "prometheus",
        "atrium-loki": "loki",
        "atrium-jaeger": "jaeger",
    }
