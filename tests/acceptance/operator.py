"""An operator, who uses the admin API of a gateway."""

from __future__ import annotations

from typing import Any

from tests.acceptance.harness import Gateway, Reply

ACTION = {"X-Backburner-Action": "1"}


async def get(gateway: Gateway, path: str, *, headers: dict[str, str] | None = None) -> Reply:
    """Look at something: a path under `/api/v1/`."""
    url = f"{gateway.admin.replace('0.0.0.0', '127.0.0.1')}/api/v1/{path}"
    async with gateway.http.get(url, headers=headers) as answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, named, await answer.read())


async def seen(gateway: Gateway, path: str) -> dict[str, Any]:
    """What is there."""
    answer = await get(gateway, path)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


async def post(
    gateway: Gateway, path: str, body: Any = None, *, headers: dict[str, str] | None = None
) -> Reply:
    """Do something, with the header that a change must have unless others are given."""
    url = f"{gateway.admin.replace('0.0.0.0', '127.0.0.1')}/api/v1/{path}"
    given = ACTION if headers is None else headers
    async with gateway.http.post(url, json={} if body is None else body, headers=given) as answer:
        named = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, named, await answer.read())


async def done(gateway: Gateway, path: str, body: Any = None) -> dict[str, Any]:
    """What it came to."""
    answer = await post(gateway, path, body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found
