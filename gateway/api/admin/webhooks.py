"""Webhooks on the admin port: how receivers are, and what an operator can do about them."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from gateway.api.http.bodies import read_body
from gateway.core.webhooks import Delivery
from gateway.engine import receivers
from gateway.wire.errors import Refusal

_BODY_BYTES_MAX = 4096


class ReceiverRoutes:
    """`/webhooks` of the admin port."""

    def __init__(self, all_of_them: receivers.WebhookReceivers) -> None:
        self._receivers = all_of_them

    async def show(self) -> dict[str, Any]:
        """Receivers, and the latest events that they did not take."""
        return {
            "endpoints": await self._receivers.all(),
            "failing": [_shown(*each) for each in await self._receivers.failing()],
        }

    async def change(self, request: web.BaseRequest) -> tuple[int, dict[str, Any]]:
        """`{"enable": NAME}` or `{"retry": RESPONSE_ID}`; the status and the body of the answer.

        It must say that it is JSON: a page in an operator's browser cannot, without asking first.
        """
        if request.content_type != "application/json":
            return 415, {"error": "only application/json"}
        try:
            asked = orjson.loads(await read_body(request, _BODY_BYTES_MAX))
        except (orjson.JSONDecodeError, Refusal):
            asked = None
        match asked:
            case {"enable": str(name)} if len(asked) == 1:
                if await self._receivers.enable(name):
                    return 200, {"enabled": name}
                return 404, {"error": "no endpoint of this name"}
            case {"retry": str(response_id)} if len(asked) == 1:
                count, disabled = await self._receivers.retry(response_id)
                if count:
                    return 200, {"retried": count, "disabled": disabled}
                if disabled:
                    names = " and ".join(disabled)
                    how = f"enable it first (backburner webhooks --enable {disabled[0]})"
                    return 409, {"error": f"not tried: {names} answered 410 and is disabled; {how}"}
                return 404, {"error": "nothing waits about this response"}
        return 400, {"error": 'must be {"enable": NAME} or {"retry": RESPONSE_ID}'}


def _shown(delivery: Delivery, due_in_s: float) -> dict[str, Any]:
    return {
        "response": delivery.response_id,
        "endpoint": delivery.receiver,
        "event": f"response.{delivery.status.value}",
        "attempts": delivery.attempts,
        "failure": delivery.failure,
        "due_in_s": due_in_s,
    }
