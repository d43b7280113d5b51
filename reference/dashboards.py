"""deploy/grafana/dashboards/*.json, out of the tables of panels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from reference.panels import BACKENDS, OVERVIEW, STORE, Panel

DASHBOARDS = {
    "overview": ("Backburner / Overview", OVERVIEW),
    "backends": ("Backburner / Backends", BACKENDS),
    "store": ("Backburner / Store", STORE),
}

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(name: str) -> str:
    """The JSON that Grafana imports."""
    title, panels = DASHBOARDS[name]
    found = {
        "uid": f"backburner-{name}",
        "title": title,
        "tags": ["backburner"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["backburner"],
                "title": "Backburner",
                "asDropdown": False,
                "keepTime": True,
            }
        ],
        "templating": {"list": list(_variables())},
        "panels": list(_placed(panels)),
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    yield {
        "name": "backend",
        "label": "Backend",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(backburner_backend_slots, backend)", "refId": "backend"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        tall = 4 if panel.kind == "stat" else 8
        if x + panel.width > 24:
            x, y, height = 0, y + height, 0
        yield _panel(panel, number) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": tall}}
        x, height = x + panel.width, max(height, tall)


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(64 + n), "expr": expr, "legendFormat": legend, "datasource": _SOURCE}
        | ({"instant": True, "range": False} if panel.kind == "stat" else {})
        for n, (legend, expr) in enumerate(panel.queries.items(), 1)
    ]
    found: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
    }
    if panel.about:
        found["description"] = panel.about
    if panel.kind == "stat":
        found["options"] = {
            "textMode": "value_and_name",
            "colorMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        }
    return found
