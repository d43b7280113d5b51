"""Endpoints of webhooks for a trial's gateway, and the wait until they were told everything."""

from __future__ import annotations

import asyncio
import base64
import time

from tests.acceptance.receivers import Receiver
from tests.torture.gateway import Gateway
from tests.torture.trial import Bench

SECRETS = [f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in range(2)]

_TOLD_S = 90.0


def endpoint(name: str, receiver: Receiver, secrets: list[str]) -> dict[str, object]:
    """The settings of one."""
    prefix = f"webhooks__endpoints__{name}__"
    return {f"{prefix}url": receiver.url, f"{prefix}secrets": ",".join(secrets)}


async def all_told(bench: Bench, gateway: Gateway, *names: str) -> dict[str, int]:
    """Nothing waits for these any more. Returns how much waits for each endpoint."""
    deadline = time.monotonic() + _TOLD_S
    while True:
        async with gateway.http.get(f"{gateway.admin}/webhooks") as answer:
            waiting = {each["name"]: each["waiting"] for each in (await answer.json())["endpoints"]}
        late = [name for name in names if waiting[name]]
        if not late or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    bench.require(not late, f"after {_TOLD_S:g} s wait {waiting}")
    return waiting
