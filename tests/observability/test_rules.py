"""Prometheus' configuration and rules: promtool finds them right, and every alert is tested."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.compose import ROOT
from tests.kit.dashboards import expressions
from tests.kit.promql import builtin_metrics, documented_metrics, metrics_of, recorded_rules

PROMETHEUS = ROOT / "deploy/prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
RUNBOOK = "docs/runbook.md"


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


CASES = [
    case
    for file in TESTS
    for test in yaml.load(file.read_text(), yaml.CSafeLoader)["tests"]
    for case in test["alert_rule_test"]
]
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> str:
    program = shutil.which("promtool")
    assert program, "scripts/test_tools.sh installs it"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_configuration_and_rules_right() -> None:
    told = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in told


def test_every_unit_test_holds() -> None:
    promtool("test", "rules", *TESTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_seen_to_fire_and_to_be_silent(alert: str) -> None:
    expected = [case["exp_alerts"] for case in CASES if case["alertname"] == alert]
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_means_and_has_its_page(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    told = rule["annotations"]
    assert told["summary"]
    assert told["description"].endswith(".")
    assert told["runbook_url"] == f"{RUNBOOK}#{alert.lower()}"


def test_each_alert_leads_to_a_dashboard_that_shows_what_it_asks() -> None:
    """promtool's tests hold what stands for the label."""
    recorded = {rule["record"]: metrics_of(rule["expr"]) for rule in rules() if "record" in rule}
    shown: dict[str, set[str]] = {}
    for query in expressions():
        shown.setdefault(query.dashboard, set()).update(query.metrics)
    for alert, rule in ALERTS.items():
        board, _, chosen = rule["annotations"]["dashboard_url"].removeprefix("/d/").partition("?")
        asked = metrics_of(rule["expr"])
        asked |= {name for metric in asked for name in recorded.get(metric, ())}
        assert asked & shown[board], alert
        by_service = board == "atrium-service"
        assert chosen == ("var-service={{ $labels.service }}" if by_service else ""), alert


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    text = (ROOT / RUNBOOK).read_text()
    sections = re.split(r"(?m)^## (Atrium\w+)$", text)
    pages = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(pages) == list(ALERTS)
    for alert, page in pages.items():
        for part in ("Meaning", "First look", "Likely causes", "What to do"):
            assert f"**{part}.**" in page, alert


def test_rules_ask_for_metrics_that_there_are() -> None:
    known = documented_metrics() | recorded_rules() | builtin_metrics()
    for rule in rules():
        assert metrics_of(rule["expr"]) <= known, rule
