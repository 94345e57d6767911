"""Alerts and dashboard: files of the right shape that ask only for metrics and labels which exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from services.fleet import Announcement, EngineView, TokenTimes
from services.jobs import Device, Lane, Priority
from services.keys import Keys
from services.metrics import exposition
from services.timings import TOKEN_BOUNDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "casemill.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"][0][
    "rules"
]
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS]


def exposed(tmp_path: Path) -> dict[str, set[str]]:
    """Labels of every sample that ``/metrics`` can have, by its name."""
    cell = (Lane.EMBED, Device.ANY, Priority.LOW)
    server = {"server_name": "valkey", "valkey_version": "8", "used_memory": 1}
    lifecycle: Any = SimpleNamespace(
        counters=dict,
        standing=lambda: {"dead_letters": 0, "scheduled": 0, "deliveries_scheduled": 0, "leases": 0},
        depths=lambda: {cell: (1, 1.0)},
        model_depths=lambda: {(Lane.EMBED, Device.ANY, "minilm"): 1},
        tickets=lambda queues: dict.fromkeys(queues, 0),
        timings=lambda: {(what, Lane.EMBED, Priority.LOW): [(float("inf"), 1)] for what in ("wait", "run")},
        client=SimpleNamespace(
            info=lambda _: server,
            config_get=lambda _: {},
            hgetall=lambda name: {"cpu": '{"min": 1, "max": 1}'} if name == "test:scale" else {},
            get=lambda _: None,
            zrange=lambda *_: [],
        ),
        keys=Keys("test:"),
        settings=SimpleNamespace(data_dir=tmp_path),
    )
    gauges = {"sequences": 1, "running": 0, "cells": 1, "used_cells": 0}
    times = tuple(
        TokenTimes(what, 2, (0,) * (len(TOKEN_BOUNDS) + 1), 0.0) for what in ("first_token", "between_tokens")
    )
    engines = (EngineView("tiny", 1.0, {}, gauges, times),)
    worker = Announcement("w1", "here", 1, "cpu", "", ("embed",), 1, 0, (), (), 0, "fake", "0", 0.0, engines=engines)
    fleet: Any = SimpleNamespace(workers=lambda: [worker])
    found: dict[str, set[str]] = {"up": {"job"}}
    for family in text_string_to_metric_families(exposition(lifecycle, fleet)[1].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_rules_and_dashboard_ask_for_metrics_and_labels_that_exist(tmp_path: Path) -> None:
    known = exposed(tmp_path)
    assert len(EXPRESSIONS) > 20
    for expression in EXPRESSIONS:
        names = set(re.findall(r"\b(?:casemill_\w+|up)\b", expression))
        assert names, expression
        assert names <= known.keys(), expression
        labels = set.union(*(known[name] for name in names))
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(group.split(", ")) <= labels, expression
        for matchers in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", matchers)) <= labels, expression


def test_texts_name_labels_that_their_expressions_keep(tmp_path: Path) -> None:
    known = exposed(tmp_path)
    texts = [(rule["annotations"]["summary"], r"\$labels\.(\w+)", rule["expr"]) for rule in RULES]
    texts += [(target["legendFormat"], r"\{\{(\w+)\}\}", target["expr"]) for target in TARGETS]
    for text, pattern, expression in texts:
        groups = re.findall(r"\bby \(([^)]*)\)", expression)
        names = re.findall(r"\bcasemill_\w+", expression)
        kept = set(groups[0].split(", ")) if groups else {label for name in names for label in known[name]}
        assert set(re.findall(pattern, text)) <= kept, text


def test_alerts_have_the_shape_that_prometheus_wants_and_a_place_in_the_handbook() -> None:
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert f"`{rule['alert']}`" in OPERATIONS, f"docs/operations.md does not say what {rule['alert']} means"


def test_prometheus_reads_our_rules_and_the_gateway_by_a_key_in_a_file() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert [(DEPLOY / "prometheus" / name).exists() for name in config["rule_files"]] == [True]
    (scrape,) = config["scrape_configs"]
    assert RULES[0]["expr"].startswith(f'up{{job="{scrape["job_name"]}"}}')
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    assert (
        scrape["authorization"]["credentials_file"] == f"/run/secrets/{compose['services']['prometheus']['secrets'][0]}"
    )
    assert scrape["static_configs"] == [{"targets": ["gateway:8700"]}]


def test_the_dashboard_has_the_shape_that_grafana_wants() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))[
        "datasources"
    ]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/casemill.yaml").read_text("utf-8"))
    compose = (ROOT / "compose.yaml").read_text("utf-8")
    assert f":{provider['providers'][0]['options']['path']}:ro" in compose
    assert {"uid", "title", "schemaVersion", "panels", "time"} <= DASHBOARD.keys()
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    for panel in panels:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is Prometheus's own check; not needed to run")
def test_promtool_finds_nothing_and_alerts_fire_when_they_should() -> None:
    for command in (
        ["check", "rules", str(DEPLOY / "prometheus" / "alerts.yml")],
        ["check", "config", "--syntax-only", str(DEPLOY / "prometheus" / "prometheus.yml")],
        ["test", "rules", str(Path(__file__).with_name("alerts_test.yaml"))],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
