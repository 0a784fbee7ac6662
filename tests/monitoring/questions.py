"""What Prometheus is asked: the query of each panel and variable, and the parts of each rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from e2e.monitoring.boards import DASHBOARDS
from e2e.monitoring.prometheus import RULES

SELECTOR = re.compile(r"(?:queue:)?\bberth_\w+(?::\w+)?(?:\{[^}]*\})?")
LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")
CHOSEN = {"$__rate_interval": "5m", "$__range": "10m", "$queue": ".*", "$namespace": ".*", "$workload": ".*"}

EMPTY_BY_DESIGN = {
    'max by (queue) (berth_idle_workloads{queue=~"$queue"})': "nobody's boards have been idle for half an hour",
}


@dataclass(frozen=True, slots=True)
class Question:
    """An expression, and who asks it."""

    by: str
    expression: str

    @property
    def filled_in(self) -> str:
        """With all variables chosen."""
        text = self.expression
        for variable, value in CHOSEN.items():
            text = text.replace(variable, value)
        return text


def of_dashboards() -> Iterator[Question]:
    """Panels, and the variables, whose values Grafana takes from labels."""
    for board in DASHBOARDS:
        for name, values in board.variables.items():
            match = LABEL_VALUES.fullmatch(values)
            assert match, values
            yield Question(f"{board.title}: ${name}", f"group by ({match[2]}) ({match[1]})")
        for panels in board.rows.values():
            for panel in panels:
                for expression in panel.queries.values():
                    yield Question(f"{board.title}: {panel.title}", expression)


def of_rules() -> Iterator[Question]:
    """What is recorded; of an alert each part, since all of it is empty while all is well, as it should be."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                yield Question(rule["record"], rule["expr"])
            else:
                yield from (Question(rule["alert"], part) for part in SELECTOR.findall(rule["expr"]))
