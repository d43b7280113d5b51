"""`backburner doctor`: what it finds at backends that are well, and at those that are not."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.__main__ import main
from tests.command.asking import terminal, typed
from tests.command.engines import Engine

SECRET = "sk-doctor-0123456789abcdef"


async def examined(
    tmp_path: Path, engine: Engine, *words: str, **settings: Any
) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is found at a backend by what was looked at."""
    file = tmp_path / "config.yaml"
    store = {"database": str(tmp_path / "backburner.db"), "database_bytes_max": 2**26, "ballast_bytes": 0}
    server = {"connections_max": 10, "admin_port": 1}
    file.write_text(
        yaml.dump({"upstream": {"url": engine.url, **settings}, "store": store, "server": server})
    )
    done = await typed("doctor", "--config", str(file), "-o", "json", *words)
    told = done.json()
    found = {each["check"]: each for each in told["findings"] if each["about"] == "backend default"}
    return done.status, {**found, "settings": yaml.safe_load(told["settings"]) or {}}


def levels(found: dict[str, Any]) -> dict[str, str]:
    return {check: each["level"] for check, each in found.items() if check != "settings"}


async def test_a_backend_that_is_well_gets_its_row_of_ticks(tmp_path: Path) -> None:
    async with Engine(pace_s=0.01).listening() as engine:
        status, found = await examined(tmp_path, engine, api="chat", backfill="vllm")
    assert levels(found) == dict.fromkeys(
        (
            *("reachable", "model", "engine", "API", "streams", "usage in streams", "tools", "JSON schema"),
            *("system messages anywhere", "prefill is continued", "cancel stops the work", "role developer"),
        ),
        "ok",
    ), found
    assert (status, found["settings"]) == (0, {})
    assert found["model"]["found"] == "tiny is asked, of tiny-embed, tiny"
    assert found["tools"]["found"] == "it calls weather_in"
    assert "continue_final_message" in found["prefill is continued"]["found"]
    assert found["cancel stops the work"]["found"].startswith("yes, ")
    assert len(engine.bodies) < 12
    assert all(body["model"] == "tiny" and body["max_tokens"] <= 512 for body in engine.bodies)
    assert list(tmp_path.iterdir()) == [tmp_path / "config.yaml"], "nothing is left beside the database"


async def test_what_a_backend_wants_otherwise_is_told_as_settings_that_then_hold(tmp_path: Path) -> None:
    refuses = frozenset({"tools", "late system", "developer", "max_tokens", "schema"})
    async with Engine(
        refuses, says="<think> hm </think> 1 2 3", pace_s=0.01, metrics="sglang"
    ).listening() as engine:
        status, found = await examined(tmp_path, engine, developer_role=True)
        assert status == 1
        assert "--enable-auto-tool-choice" in found["tools"]["found"]
        assert (
            found["system messages anywhere"]["found"] == "refused: System message must be at the beginning."
        )
        assert found["JSON schema"]["level"] == "note"
        assert found["settings"] == {
            "upstream": {
                "api": "chat",
                "developer_role": False,
                "max_tokens_field": "max_completion_tokens",
                "system_messages": "first",
                "think_tags": True,
            }
        }
        status, found = await examined(tmp_path, engine, **found["settings"]["upstream"])
    assert (status, found["settings"]) == (0, {}), found


async def test_a_server_that_knows_no_stream_options_is_asked_without(tmp_path: Path) -> None:
    async with Engine(frozenset({"stream_options"}), metrics=None).listening() as engine:
        status, found = await examined(tmp_path, engine, api="chat")
        assert (status, found["settings"]) == (1, {"upstream": {"drop_fields": ["stream_options"]}})
        assert found["usage in streams"]["level"] == "note"
        assert "llama.cpp needs --metrics" in found["cancel stops the work"]["advice"]
        status, found = await examined(tmp_path, engine, api="chat", drop_fields=["stream_options"])
        assert (status, found["settings"]) == (0, {})


async def test_work_that_goes_on_after_a_cancel_is_found(tmp_path: Path) -> None:
    async with Engine(stops=False, pace_s=0.02, metrics="llamacpp").listening() as engine:
        status, found = await examined(tmp_path, engine, "--tokens", "300", api="chat")
    assert status == 1
    assert found["cancel stops the work"]["level"] == "wrong"
    assert "proxy_ignore_client_abort" in found["cancel stops the work"]["advice"]


@pytest.mark.parametrize(
    ("engine", "level", "said"),
    [
        (Engine(streams=False), "wrong", "it answers whole"),
        (Engine(at_once=True, pace_s=0.2, says="1 2 3"), "wrong", "all at once"),
        (Engine(has_usage=False), "ok", "pieces"),
    ],
)
async def test_streams_are_judged_by_how_they_come(
    engine: Engine, level: str, said: str, tmp_path: Path
) -> None:
    async with engine.listening():
        _, found = await examined(tmp_path, engine, "--tokens", "3", api="chat")
    assert found["streams"]["level"] == level
    assert said in found["streams"]["found"]
    assert found["usage in streams"]["level"] == ("ok" if engine.streams and engine.has_usage else "note")


async def test_a_server_whose_first_answer_starts_late_is_not_taken_for_one_that_is_held_back(
    tmp_path: Path,
) -> None:
    async with Engine(loads_s=0.7, pace_s=0.0001).listening() as engine:
        _, found = await examined(tmp_path, engine, api="chat")
    assert found["streams"]["level"] == "ok", found["streams"]


async def test_what_is_refused_with_500_by_validation_is_refused(tmp_path: Path) -> None:
    async with Engine(frozenset({"schema, with 500"})).listening() as engine:
        _, found = await examined(tmp_path, engine, api="chat")
    assert found["JSON schema"]["level"] == "note"
    assert found["JSON schema"]["found"].startswith("refused: 1 validation error")
    assert found["JSON schema"]["advice"] == "callers who ask for one are refused"


async def test_keys_models_and_addresses_that_are_wrong_are_told_and_no_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine(frozenset({"key"})).listening() as engine:
        status, found = await examined(tmp_path, engine, api_key=SECRET)
        assert status == 1
        assert found["reachable"]["found"] == "the key is refused (401)"
        assert SECRET not in str(found)
        status, found = await examined(tmp_path, engine, "--no-requests")
        assert (status, found["reachable"]["level"]) == (0, "note")
        monkeypatch.setenv("CALLER", "sk-good")
        status, found = await examined(
            tmp_path, engine, "--no-requests", "--key-env", "CALLER", models=["big"]
        )
        assert (status, found["reachable"]["level"]) == (1, "ok")
        assert found["model"]["found"] == "it has no big"
        engine.refuses = frozenset({"models"})
        _, found = await examined(tmp_path, engine, "--no-requests")
        assert "ends in /v1" in found["reachable"]["advice"]
    assert engine.bodies == []
    status, found = await examined(tmp_path, engine)
    assert (status, list(found)) == (1, ["reachable", "settings"])
    assert "could not be reached" in found["reachable"]["found"]


async def test_a_server_with_both_apis_is_tried_by_the_one_that_the_settings_mean(
    tmp_path: Path, demo_server: str
) -> None:
    engine = Engine(url=demo_server)
    for api, more in (("responses", "prefill is continued"), ("chat", "role developer")):
        status, found = await examined(tmp_path, engine, "--tokens", "20", api=api)
        assert (status, found["API"]["found"]) == (0, "responses and chat")
        assert found["tools"]["found"] == "it calls weather_in"
        assert found["usage in streams"]["level"] == "ok"
        assert more in found
    async with Engine().listening() as engine:
        status, found = await examined(tmp_path, engine, "--tokens", "20", api="responses")
    assert (status, found["settings"]) == (1, {"upstream": {"api": "chat"}})
    assert found["API"]["found"].startswith("chat, not responses: ")


async def test_what_takes_too_long_is_not_known_and_no_refusal(tmp_path: Path) -> None:
    async with Engine(metrics=None).listening() as engine:
        engine.slow_from = 2
        _, found = await examined(tmp_path, engine, "--timeout", "300ms", api="chat", developer_role=True)
    assert found["streams"]["level"] == "ok"
    for check in ("tools", "JSON schema", "system messages anywhere", "role developer"):
        assert found[check]["level"] == "note"
        assert found[check]["found"].startswith("not known: The backend did not answer within 0.3 s")
    assert found["settings"] == {}


async def test_each_replica_is_looked_at_and_the_first_that_answers_is_asked(tmp_path: Path) -> None:
    async with Engine(metrics=None).listening() as gone:
        pass
    async with Engine().listening() as engine:
        gone.names, replicas = (), [engine.url]
        status, found = await examined(tmp_path, gone, "--tokens", "20", api="chat", replicas=replicas)
    assert status == 1
    assert (found["replica 0 reachable"]["level"], found["replica 1 reachable"]["level"]) == ("wrong", "ok")
    assert found["streams"]["level"] == "ok"
    assert (gone.bodies, engine.bodies != []) == ([], True)


async def test_the_clock_is_held_against_the_backends(tmp_path: Path) -> None:
    late = email.utils.formatdate(time.time() - 600, usegmt=True)
    async with Engine(date=late).listening() as engine:
        done = await typed(
            "doctor",
            "--upstream",
            engine.url,
            "--no-requests",
            "-o",
            "json",
            "--database",
            str(tmp_path / "b.db"),
        )
    (clock,) = [each for each in done.json()["findings"] if each["check"] == "against backends"]
    assert (clock["level"], clock["found"]) == ("wrong", "backends are 600 s behind")
    assert done.status == 1


async def test_on_a_terminal_it_says_what_it_does_and_shows_a_table(tmp_path: Path) -> None:
    async with Engine().listening() as engine:
        flags = ("--upstream", engine.url, "--tokens", "20", "--database", str(tmp_path / "b.db"))
        async with terminal("doctor", *flags) as screen:
            assert await screen.status() == 0
    assert "backend default: JSON schema …" in screen.text
    assert "Settings to paste\nupstream:\n" in screen.text
    assert b"\x1b[32mok" in screen.raw


def test_wrong_settings_and_unknown_backends_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, status, said in (
        (("--port", "x"), 78, "--port"),
        (("--upstream", "http://m/v1", "--backend", "big"), 1, "no backend big; there are default"),
        (("--upstream", "http://m/v1", "--key-env", "NOBODY"), 1, "the variable NOBODY is empty"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["doctor", *words])
        assert left.value.code == status
        assert said in capsys.readouterr().err
