"""The chart's schema of values, by itself: it holds where there is no helm, too."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway import __version__
from tests.deploy.house import DEPLOY

CHART = DEPLOY / "helm" / "backburner"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
UPSTREAM = {"config": {"upstream": {"url": "http://vllm:8000/v1"}}}


def _is_accepted(values: dict[str, Any]) -> bool:
    return jsonschema_rs.validator_for(SCHEMA).is_valid(_merged(DEFAULTS, values))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As helm lays values over a chart's own."""
    both = {
        key: _merged(below[key], value)
        if isinstance(value, dict) and isinstance(below.get(key), dict)
        else value
        for key, value in above.items()
    }
    return {**below, **both}


@pytest.mark.parametrize("example", sorted((CHART / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_accepted(example: Any) -> None:
    assert _is_accepted(yaml.safe_load(example.read_text()))


def test_the_defaults_need_a_model_server_and_nothing_else() -> None:
    assert not _is_accepted({})
    assert _is_accepted(UPSTREAM)


@pytest.mark.parametrize(
    ("count", "store", "is_accepted"),
    [
        (1, {}, True),
        (2, {}, False),
        (2, {"kind": "sqlite"}, False),
        (2, {"kind": "postgresql", "postgresql": {"secretName": "pg"}}, True),
        (2, {"kind": "postgresql"}, False),
    ],
)
def test_more_than_one_gateway_needs_postgresql(count: int, store: dict[str, Any], is_accepted: bool) -> None:
    assert _is_accepted({**UPSTREAM, "replicaCount": count, "store": store}) is is_accepted


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_every_value_has_a_line_in_the_schema() -> None:
    assert DEFAULTS.keys() | {"global"} == SCHEMA["properties"].keys()
