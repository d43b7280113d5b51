"""The official Node client, whose accumulator is stricter than Python's: `node/*.test.mjs`.

The locked version asks for Node 22 and npm says so; it also runs on Node 20.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from pathlib import Path

import pytest

from tests.acceptance.chat_shapes import TEXTS, TYPES, full_answer
from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import Gateway, within
from tests.acceptance.receivers import Receiver
from tests.acceptance.replay import ReplayServer, json_answer, recorded, replay
from tests.clients.installing import node_place

SCENARIOS = Path(__file__).parent / "node"
SERVERS = ("vllm", "vllm-store", "llama-slow", "transformers")
RUN_TIMEOUT_S = 100


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenarios and the locked client, installed once for each lock file."""
    return node_place(tmp_path_factory.getbasetemp().parent, SCENARIOS)


async def test_the_node_sdk_plays_every_scenario(
    workplace: Path, gateway: Gateway, replay_server: ReplayServer
) -> None:
    names = [name for server in SERVERS for name in recorded(server, is_stream=True)]
    assert len(names) >= 20
    passed = await play(
        workplace,
        "scenarios.test.mjs",
        GATEWAY_URL=gateway.url,
        MODEL_SERVER_URL=replay_server.url,
        RECORDED_STREAMS=json.dumps(names),
    )
    assert passed >= len(names) + 12


async def test_the_node_sdk_unwraps_every_event(
    workplace: Path, start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    secrets = [f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in range(2)]
    replay_server.script(
        replay("vllm/responses-stream"),
        replay("vllm/responses-max-output-tokens-stream"),
        json_answer({"error": {"message": "no"}}, 400),
        held := replay("vllm/responses-stream", hold_after=6),
    )
    async with Receiver() as receiver:
        endpoint = {"URL": receiver.url, "SECRETS": ",".join(secrets)}
        gateway = await start_gateway(
            **{f"BACKBURNER_WEBHOOKS__ENDPOINTS__X__{key}": value for key, value in endpoint.items()}
        )
        client = gateway.client()
        for _ in range(3):
            ended = await client.responses.create(model="tiny", input="C", background=True)
            await gateway.line(event="webhook", id=ended.id, to="delivered")
        cancelled = await client.responses.create(model="tiny", input="C", background=True)
        await within(held.held.wait())
        await client.responses.cancel(cancelled.id)
        events = await receiver.attempts(4)
    deliveries = [{"headers": dict(got.headers), "body": got.body.decode()} for got in events]
    passed = await play(
        workplace,
        "webhooks.test.mjs",
        DELIVERIES=json.dumps(deliveries),
        SECRETS=json.dumps(secrets),
    )
    assert passed == 5


async def test_the_node_sdk_reads_all_that_a_chat_answer_may_hold(
    workplace: Path, start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    replay_server.script(*(full_answer() for _ in range(2)))
    gateway = await start_gateway("--api", "chat")
    passed = await play(
        workplace, "chat.test.mjs", GATEWAY_URL=gateway.url, TYPES=json.dumps(TYPES), TEXTS=json.dumps(TEXTS)
    )
    assert passed == 2


async def play(workplace: Path, scenarios: str, **environ: str) -> int:
    """Run a file of Node tests, all of which must pass; how many there were."""
    process = await asyncio.create_subprocess_exec(
        *("node", "--test", "--test-reporter=tap", scenarios),
        cwd=workplace,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await within(process.communicate(), RUN_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told
    counts = dict(re.findall(r"^# (pass|fail|skipped|cancelled) (\d+)$", told, re.MULTILINE))
    assert [counts[name] for name in ("fail", "skipped", "cancelled")] == ["0", "0", "0"]
    return int(counts["pass"])
