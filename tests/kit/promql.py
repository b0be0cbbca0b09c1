"""What PromQL expressions ask for, and what there is to ask for: dashboards and rules are held
against docs/metrics.md with it."""

import re
from functools import cache

import promql_parser
import yaml

from tests.kit.compose import ROOT

_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|", re.MULTILINE)


@cache
def documented_metrics() -> frozenset[str]:
    """Names of docs/metrics.md as queries have them: a histogram's with their suffixes."""
    names: set[str] = set()
    for name, kind in _ROW.findall((ROOT / "docs/metrics.md").read_text()):
        parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + part for part in parts}
    return frozenset(names)


@cache
def recorded_rules() -> frozenset[str]:
    """Names that the recording rules make."""
    text = (ROOT / "deploy/prometheus/rules/recording.yml").read_text()
    groups = yaml.safe_load(text)["groups"]
    return frozenset(rule["record"] for group in groups for rule in group["rules"])


def builtin_metrics() -> frozenset[str]:
    """What Prometheus itself makes."""
    return frozenset({"up", "ALERTS"})


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression reads.

    Raises:
        ValueError: It is no PromQL, or selects without naming a metric.
    """
    names: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            if not node.name:
                raise ValueError(f"no metric is named: {expression}")
            names.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names
