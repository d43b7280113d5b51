"""Credentials that outlive `kill -9`, and what a start does whose key is not there."""

from __future__ import annotations

import base64
from pathlib import Path

from openai import AsyncOpenAI

from tests.acceptance.conftest import StartGateway
from tests.acceptance.harness import KEY, Gateway, within
from tests.acceptance.replay import ReplayServer, replay

SEALING = f"2027-01:{base64.b64encode(b's' * 32).decode()}"
PRIVATE = "canary-private-77aa"


def files(database: Path) -> bytes:
    return b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))


async def killed_with_two(gateway: Gateway, replay_server: ReplayServer) -> list[str]:
    """Kill it while one response runs and another waits. Returns their ids."""
    held = replay_server.script(replay("vllm/responses-stream", hold_after=6))
    client = AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0)
    headers = {"X-Vendor-Key": PRIVATE}
    ids = []
    for _ in range(2):
        created = await client.responses.create(
            model="tiny", input="Count.", background=True, extra_headers=headers
        )
        ids.append(created.id)
    await within(held.held.wait())
    found = files(gateway.database)
    assert ids[1].encode() in found  # so the search would have found the others
    for canary in (KEY, PRIVATE, base64.b64encode(KEY.encode()).decode()):
        assert canary.encode() not in found
    await gateway.kill9()
    await client.close()
    held.release.set()
    return ids


async def test_sealed_credentials_outlive_the_process(
    start_gateway: StartGateway, replay_server: ReplayServer, tmp_path: Path
) -> None:
    file = tmp_path / "sealing-keys"
    file.write_text(f"# the one in use comes first\n{SEALING}\n")
    file.chmod(0o600)
    gateway = await start_gateway(
        BACKBURNER_CREDENTIALS__SEALING_KEYS_FILE=file, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1
    )
    ids = await killed_with_two(gateway, replay_server)
    await gateway.restart()
    for response_id in ids:
        assert (await gateway.ended(response_id))["status"] == "completed"
    calls = replay_server.creates
    assert len(calls) == 3
    for call in calls:
        assert call.header("authorization") == f"Bearer {KEY}"
        assert call.header("x-vendor-key") == PRIVATE
    found = files(gateway.database) + bytes(gateway.stderr)
    for canary in (KEY, PRIVATE, SEALING, SEALING.partition(":")[2]):
        assert canary.encode() not in found


async def test_without_its_key_a_gateway_refuses_to_start_and_says_what_to_do(
    start_gateway: StartGateway, replay_server: ReplayServer
) -> None:
    gateway = await start_gateway(
        BACKBURNER_CREDENTIALS__SEALING_KEYS=SEALING, BACKBURNER_UPSTREAM__CONCURRENCY_MAX=1
    )
    ids = await killed_with_two(gateway, replay_server)
    bare = Gateway(replay_server.url, gateway.database)
    await bare.spawn()
    assert await bare.exit_status() == 78
    [refused] = [line for line in bare.lines if line["event"] == "refused"]
    assert "'2027-01' (2)" in refused["reason"]
    assert "credentials.missing_key: fail_jobs" in refused["reason"]
    without = Gateway(replay_server.url, gateway.database, BACKBURNER_CREDENTIALS__MISSING_KEY="fail_jobs")
    await without.start()
    for response_id in ids:
        failed = await without.ended(response_id)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        assert "sealed with the key '2027-01', which is not configured" in failed["error"]["message"]
    fresh = await without.call("POST", "/responses", {"model": "tiny", "input": "A", "background": True})
    assert (await without.ended(fresh.json()["id"]))["status"] == "completed"
    await without.close()
    assert len(replay_server.creates) == 2  # the one that was killed, and the fresh one
