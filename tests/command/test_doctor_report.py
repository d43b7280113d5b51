"""How the doctor's findings are shown, and that its settings can be pasted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gateway.command.doctor import report
from gateway.command.doctor.findings import Finding, Level
from gateway.config import load

FINDINGS = [
    Finding("backend small", "API", Level.NOTE, "chat", "saves a question", (("api", "chat"),)),
    Finding("backend small", "tools", Level.OK, "yes"),
    Finding(
        "backend big", "stream_options", Level.WRONG, "refused", "", (("drop_fields", ["stream_options"]),)
    ),
    Finding(
        "store",
        "free space",
        Level.NOTE,
        "10 MiB",
        "a larger disk, or",
        (("store.database_bytes_max", 2**26),),
    ),
]


def test_settings_to_paste_are_a_settings_file(tmp_path: Path) -> None:
    pasted = yaml.safe_load(report.pasted(FINDINGS, is_single=False))
    assert pasted == {
        "store": {"database_bytes_max": 2**26},
        "backends": {"small": {"api": "chat"}, "big": {"drop_fields": ["stream_options"]}},
    }
    for number, backend in enumerate(pasted["backends"].values()):
        backend |= {"url": "http://m/v1", "models": [f"m{number}"]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.dump(pasted))
    assert load({}, environ={}, file=file).backends["big"].drop_fields == ("stream_options",)
    single = yaml.safe_load(report.pasted(FINDINGS[:1], is_single=True))
    assert single == {"upstream": {"api": "chat"}}
    assert report.pasted(FINDINGS[1:2], is_single=True) == ""


def test_a_table_for_each_and_then_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(FINDINGS, report.pasted(FINDINGS, is_single=False))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["backend", "small"]
    assert ["ok", "tools", "yes"] in lines
    advice = lines[lines.index(["What", "to", "change"]) + 1 :]
    assert [line[0] for line in advice[:3]] == ["note", "wrong", "note"]
    assert "store.database_bytes_max:" in advice[2]
    assert ["Settings", "to", "paste"] in advice


def test_all_of_it_is_there_for_programs() -> None:
    told = json.loads(report.as_json(FINDINGS, "x"))
    assert told["settings"] == "x"
    assert told["findings"][2] == {
        "about": "backend big",
        "check": "stream_options",
        "level": "wrong",
        "found": "refused",
        "advice": "",
        "settings": {"drop_fields": ["stream_options"]},
    }
