"""The PromQL of the committed dashboards, with what Grafana would put in for its variables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.kit.compose import ROOT
from tests.kit.promql import metrics_of

DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))


@dataclass(frozen=True)
class Asked:
    """One query.

    Attributes:
        dashboard: Its dashboard's uid.
        panel: Its panel's title.
        expression: PromQL without variables.
    """

    dashboard: str
    panel: str
    expression: str

    @property
    def metrics(self) -> set[str]:
        """The metrics that it reads."""
        return metrics_of(self.expression)


def expressions(*, service: str = "llm", window: str = "1m") -> Sequence[Asked]:
    """Every query of every dashboard.

    Args:
        service: What is chosen for the variable `service`.
        window: The time that rates are taken over, and that is shown.
    """
    values = {"$__rate_interval": window, "$__range": window, "$service": service}
    found = []
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] != "prometheus":
                    continue
                text = target["expr"]
                for variable, value in values.items():
                    text = text.replace(variable, value)
                found.append(Asked(board["uid"], panel["title"], text))
    return found
