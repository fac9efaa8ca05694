"""Dashboards and alerts ask for metrics that the code exports."""

import json
import re
from pathlib import Path

import pytest

from tests.deploy.rendered import DEPLOY, EVERYTHING, of_kind, rendered

PAGE = (DEPLOY.parent / "docs" / "observability.md").read_text()
# tests/telemetry holds the page to what is exported
EXPORTED = dict(re.findall(r"^\| `(plumbline_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE))
DASHBOARDS = sorted((DEPLOY / "components" / "monitoring" / "dashboards").glob("*.json"))


def unknown(query: str) -> set[str]:
    """Metrics and labels of a PromQL query that are not exported."""
    found = set()
    for name in set(re.findall(r"\bplumbline_\w+", query)):
        base = name if name in EXPORTED else re.sub("_(bucket|sum|count)$", "", name)
        if base not in EXPORTED:
            found.add(name)
            continue
        for chosen in re.findall(rf"{name}\{{([^}}]*)\}}", query):
            labels = set(re.findall(r'(\w+)\s*(?:=|!=|=~|!~)\s*"', chosen))
            found |= labels - {one.strip() for one in EXPORTED[base].split(",")}
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_what_there_is(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    for query in queries:
        assert "plumbline_" in query
        assert not unknown(query), query
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_ask_for_what_there_is_and_say_what_to_do() -> None:
    (rules,) = of_kind(rendered(EVERYTHING), "PrometheusRule")
    (group,) = rules["spec"]["groups"]
    names = {rule["alert"] for rule in group["rules"]}
    assert names >= {
        "PlumblineQueueStuck", "PlumblineHeartbeatsLost", "PlumblineAttemptsFail", "PlumblineStorageFull",
        "PlumblineGpusIdleWhileJobsWait", "PlumblineStreamsLag",
    }  # fmt: skip
    for rule in group["rules"]:
        assert not unknown(rule["expr"]), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]


def test_what_tells_nothing_is_not_taken_for_well() -> None:
    """A comparison with a series that is not there is no alert: a controller or an API that never came up."""
    (rules,) = of_kind(rendered(EVERYTHING), "PrometheusRule")
    expressions = {rule["alert"]: rule["expr"] for rule in rules["spec"]["groups"][0]["rules"]}
    assert "or absent(plumbline_reconciled_timestamp_seconds)" in expressions["PlumblineControllerStuck"]
    long_ones = set(re.findall(r'reconciler=~"([^"]+)"', expressions["PlumblineControllerStuck"]))
    assert long_ones == set(re.findall(r'reconciler!~"([^"]+)"', expressions["PlumblineControllerStuck"]))
    modules = {path.stem for path in (DEPLOY.parent / "service" / "controller").glob("*.py")}
    assert {name for one in long_ones for name in one.split("|")} <= modules
    assert "or absent(plumbline_database_up)" in expressions["PlumblineDatabaseDown"]
    assert "unless sum(" in expressions["PlumblineQueueStuck"]


def test_a_metric_or_label_that_is_not_exported_is_noticed() -> None:
    assert unknown('sum(plumbline_jobs{stat="x"})') == {"stat"}
    assert unknown("rate(plumbline_nothing_total[5m])") == {"plumbline_nothing_total"}


def test_every_dashboard_is_in_the_config_map() -> None:
    (found,) = (
        one for one in of_kind(rendered(EVERYTHING), "ConfigMap") if one["metadata"]["name"] == "plumbline-dashboards"
    )
    assert set(found["data"]) == {path.name for path in DASHBOARDS}
