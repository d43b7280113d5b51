"""Whole sessions of real clients, in front of a chat-only backend and of one that speaks the Responses API.

Each client is installed as its registry ships it, and only its base URL is changed. docs/clients/index.md
says what each of them needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.clients.installing import PROGRAMS, free_port, node_place, python_with
from tests.clients.servers import SECRET, ModelServer

PLAY_TIMEOUT_S = 150
pytestmark = pytest.mark.timeout(600)

REPORT = "Report: Oslo is wet. Rome is wet."
ADA = "Your name is Ada."
WEATHER = "Weather(city='Oslo', is_wet=True)"

OPENAI_PYTHON = {
    "tool loop": REPORT,
    "tool loop, background": REPORT,
    "stream helper": "reasoning,function_call",
    "parse": WEATHER,
    "resumed": "True completed Hello there.",
    "chained, background": ADA,
    "chained": ADA,
}
OPENAI_NODE = {
    "tool loop": REPORT,
    "tool loop, background": REPORT,
    "stream helper": "reasoning,function_call",
    "parse": '{"city":"Oslo","is_wet":true}',
    "resumed": "True completed Hello there.".replace("True", "true"),
}
AI_SDK = {
    f"{play}, {case}": result
    for case in ('m-1 {"store":false}', 'gpt-5 {"store":false}', "m-1 {}", "gpt-5 {}")
    for play, result in (("tools", REPORT), ("two turns", ADA), ("stream", REPORT))
} | {"object": '{"city":"Oslo","is_wet":true}', "chained": ADA}
OPENAI_AGENTS = {
    "tools": REPORT,
    "all that advises": REPORT,
    "session": ADA,
    "stream": REPORT,
    "stream, background": REPORT,
    "chained": ADA,
}
PYDANTIC_AI = {
    f"{play}, {model}": result
    for model in ("m-1", "gpt-5")
    for play, result in (("tools", REPORT), ("two turns", ADA), ("stream", REPORT))
} | {"truncation": REPORT, "structured output": WEATHER, "background": REPORT}
LANGCHAIN = {
    "tools": REPORT,
    "all that advises": REPORT,
    "two turns": ADA,
    "stream": "Hello Ada.",
    "structured output": WEATHER,
    "chained": ADA,
}
LLAMA_INDEX = {"tools": "Oslo is wet.", "two turns": ADA, "stream": "Hello Ada.", "chained": ADA}
MICROSOFT = {
    "agent-framework": f"{REPORT} {ADA}",
    "agent-framework, store false": f"{REPORT} {ADA}",
    "Semantic Kernel": f"{REPORT} {ADA}",
    "Semantic Kernel, store false": f"{REPORT} {ADA}",
}
LITELLM = {"stream": "Hello Ada.", "tool loop, background": REPORT, "tool loop": REPORT, "chat": "Hello Ada."}

KEEPS_PLAIN = {"BACKBURNER_CONVERSATIONS__RECORD_FOREGROUND": "true"}
"""What lets plain answers of a Responses backend be gone on from; on a chat backend it is the default."""

COMPILES = {"PYTHONDONTWRITEBYTECODE": ""}
"""What a client imports is compiled once, when it first does; installing it compiles nothing."""


async def _gateway(start_gateway: StartGateway, server: ModelServer, **environ: object) -> Gateway:
    kept = KEEPS_PLAIN if server.api == "responses" else {}
    return await start_gateway("--api", server.api, upstream=server.url, **kept, **environ)


async def _played(command: list[str], url: str, *, cwd: Path, **environ: str) -> str:
    """What a client's program prints."""
    env = {**os.environ, **COMPILES, "BASE_URL": url, "API_KEY": "k-1", "SPEAKS_CHAT": "no", **environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await within(process.communicate(), PLAY_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    sys.stderr.write(err.decode(errors="replace")[-6000:])  # shown where the test fails
    return out.decode()


def _results(printed: str) -> dict[str, str]:
    lines = (json.loads(line) for line in printed.splitlines() if line.startswith('{"scenario"'))
    return {line["scenario"]: line["result"] for line in lines}


def _as_expected(printed: str, expected: Mapping[str, str], server: ModelServer) -> None:
    assert _results(printed) == dict(expected)
    assert server.refused == [], "a client's session went well only after refusals"
    assert server.calls >= len(expected)


async def test_the_openai_python_client_has_whole_sessions(
    start_gateway: StartGateway, model_server: ModelServer, tmp_path: Path
) -> None:
    gateway = await _gateway(start_gateway, model_server)
    printed = await _played([sys.executable, str(PROGRAMS / "openai_python.py")], gateway.url, cwd=tmp_path)
    _as_expected(printed, OPENAI_PYTHON, model_server)


async def test_the_openai_node_client_has_whole_sessions(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path
) -> None:
    place = node_place(shared_place)
    gateway = await _gateway(start_gateway, model_server)
    printed = await _played(["node", "openai_node.mjs"], gateway.url, cwd=place)
    _as_expected(printed, OPENAI_NODE, model_server)


async def test_the_vercel_ai_sdk_has_whole_sessions_with_its_default_options(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path
) -> None:
    model_server.wants_thoughts = False  # with `store: false` it leaves out thoughts that are not encrypted
    place = node_place(shared_place)
    gateway = await _gateway(start_gateway, model_server)
    printed = await _played(["node", "ai_sdk.mjs"], gateway.url, cwd=place)
    _as_expected(printed, AI_SDK, model_server)


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("openai_agents", "openai_agents.py", OPENAI_AGENTS),
        ("pydantic_ai", "pydantic_ai_client.py", PYDANTIC_AI),
        ("langchain", "langchain_client.py", LANGCHAIN),
        ("llama_index", "llama_index_client.py", LLAMA_INDEX),
    ],
)
async def test_agent_libraries_have_whole_sessions(
    start_gateway: StartGateway,
    model_server: ModelServer,
    shared_place: Path,
    tmp_path: Path,
    name: str,
    program: str,
    expected: Mapping[str, str],
) -> None:
    python = python_with(name, shared_place)
    gateway = await _gateway(start_gateway, model_server)
    printed = await _played([python, str(PROGRAMS / program)], gateway.url, cwd=tmp_path)
    _as_expected(printed, expected, model_server)


async def test_microsofts_libraries_have_whole_sessions(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path, tmp_path: Path
) -> None:
    model_server.wants_thoughts = False  # Semantic Kernel drops them
    python = python_with("microsoft", shared_place)
    gateway = await _gateway(start_gateway, model_server)
    program = str(PROGRAMS / "microsoft_agents.py")
    printed = await _played([python, program], gateway.url, cwd=tmp_path)
    expected = dict(MICROSOFT)
    if (
        model_server.api == "responses"
    ):  # this server encrypts no thoughts, without which the client refuses itself
        del expected["agent-framework, store false"]
        assert "required reasoning replay data" in _results(printed)["agent-framework, store false"]
        printed = "\n".join(line for line in printed.splitlines() if "framework, store false" not in line)
    _as_expected(printed, expected, model_server)


class _Proxy:
    """A LiteLLM proxy in front of one URL; `key` is what it asks of its clients."""

    def __init__(self, python: str, place: Path, model: Mapping[str, str]) -> None:
        self._place = place
        self.key = f"sk-{secrets.token_hex(16)}"
        self._command = [str(Path(python).with_name("litellm")), "--config", "config.yaml", "--port"]
        params = {**model, "api_key": "k-1"}
        config = {"model_list": [{"model_name": "m-1", "litellm_params": params}]}
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def __aenter__(self) -> _Proxy:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        with (self._place / "litellm.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(port),
                *("--host", "127.0.0.1"),
                cwd=self._place,
                env={
                    **os.environ,
                    **COMPILES,
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                    "LITELLM_MASTER_KEY": self.key,
                },
                stdout=log,
                stderr=log,
            )
        async with aiohttp.ClientSession() as session, asyncio.timeout(90):
            while True:
                assert self._process.returncode is None, (self._place / "litellm.log").read_text()[-3000:]
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health/liveliness") as answer:
                        if answer.status == 200:
                            return self
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)  # it has no signal for this

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await within(self._process.wait(), 20)


async def test_litellm_works_in_front(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path, tmp_path: Path
) -> None:
    python = python_with("litellm", shared_place)
    gateway = await _gateway(start_gateway, model_server)
    async with _Proxy(python, tmp_path, {"model": "openai/m-1", "api_base": gateway.url}) as proxy:
        speaks_chat = "yes" if model_server.api == "chat" else "no"
        program = str(PROGRAMS / "litellm_front.py")
        printed = await _played(
            [sys.executable, program], proxy.url, cwd=tmp_path, API_KEY=proxy.key, SPEAKS_CHAT=speaks_chat
        )
    expected = {name: text for name, text in LITELLM.items() if name != "chat" or speaks_chat == "yes"}
    _as_expected(printed, expected, model_server)


async def test_litellm_works_behind(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path, tmp_path: Path
) -> None:
    if model_server.api == "responses":
        pytest.skip("LiteLLM's own translation to a Responses server is not what is tried here")
    model_server.wants_thoughts = False  # it passes none on
    python = python_with("litellm", shared_place)
    async with _Proxy(python, tmp_path, {"model": "openai/m-1", "api_base": model_server.url}) as proxy:
        gateway = await start_gateway("--api", "chat", upstream=proxy.url)
        program = str(PROGRAMS / "openai_python.py")
        printed = await _played([sys.executable, program], gateway.url, cwd=tmp_path, API_KEY=proxy.key)
    _as_expected(printed, OPENAI_PYTHON, model_server)


async def test_codex_has_a_tool_turn_and_resumes_it(
    start_gateway: StartGateway, model_server: ModelServer, shared_place: Path, tmp_path: Path
) -> None:
    place = node_place(shared_place)
    gateway = await _gateway(start_gateway, model_server)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    provider = {"name": "bb", "base_url": gateway.url, "wire_api": "responses", "env_key": "BB_KEY"}
    lines = ['model = "m-1"', 'model_provider = "bb"', "[model_providers.bb]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in provider.items()]
    (home / "config.toml").write_text("\n".join(lines))
    codex = [str(place / "node_modules" / ".bin" / "codex"), "exec"]
    options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    environ = {"CODEX_HOME": str(home), "BB_KEY": "k-1"}

    first = await _played(
        [*codex, *options, "my name is Ada; use the shell, please"], gateway.url, cwd=work, **environ
    )
    items = [json.loads(line) for line in first.splitlines() if line.startswith("{")]
    ran = [item["item"] for item in items if item["type"] == "item.completed"]
    assert [item["exit_code"] for item in ran if item["type"] == "command_execution"] == [0]
    assert any(item["type"] == "agent_message" and SECRET in item["text"] for item in ran)
    assert items[-1]["type"] == "turn.completed"

    second = await _played(
        [*codex, "resume", "--last", *options, "what is my name?"], gateway.url, cwd=work, **environ
    )
    assert ADA in second
    assert model_server.refused == []
