"""A model server that is strict about what it is asked, and ends background calls in every way.

How a call ends depends on its body alone, so that a seed gives the same run twice. Its answers say whose they
are: what has no such mark is the gateway's own and must stand in the gateway's document.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import orjson
from aiohttp import web

MARK = "X-Answered-By"
_SLOW_S = 0.2
_ROUTES = {"responses": "POST", "models": "GET"}


def make_app() -> web.Application:
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/v1/{path:.*}", _answer)
    return app


async def _answer(request: web.Request) -> web.StreamResponse:
    name = request.match_info["path"]
    method = _ROUTES.get(name)
    if method is None:
        return _error(404, "Not found.", "not_found")
    if request.method != method:
        refusal = _error(405, "Method not allowed.", "method_not_allowed")
        refusal.headers["Allow"] = method
        return refusal
    if name == "models":
        return _json(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})
    raw = await request.read()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _error(400, "The body is not JSON.", "invalid_json")
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body.get("input"):
        return _error(400, "'model' and 'input' are required.", "missing_required_parameter")
    if body.get("stream") is not True:
        return _error(404, "There is no such model for plain requests.", "model_not_found")
    try:
        return await _stream(request, body, hashlib.sha256(raw).digest()[0] % 6)
    except ConnectionError:
        return web.Response()  # it was cancelled meanwhile


async def _stream(request: web.Request, body: dict[str, Any], kind: int) -> web.StreamResponse:
    if kind == 0:
        return _error(400, "The prompt was refused.", "invalid_prompt")
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", MARK: "backend"})
    await answer.prepare(request)
    response = {"id": "resp_x", "object": "response", "model": body["model"], "output": []}
    item = {"id": "msg_x", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    at = {"item_id": "msg_x", "output_index": 0, "content_index": 0}
    await _send(answer, "response.output_item.added", output_index=0, item=item)
    await _send(answer, "response.content_part.added", **at, part=part)
    await _send(answer, "response.output_text.delta", **at, delta="one ")
    if kind == 1:
        await asyncio.sleep(_SLOW_S)  # long enough to be met in progress
    if kind == 2:
        await _send(answer, "error", code="server_error", message="Out of memory.", param=None)
        return answer
    await _send(answer, "response.output_text.delta", **at, delta="two")
    status = "incomplete" if kind == 3 else "completed"
    details = {"reason": "max_output_tokens"} if kind == 3 else None
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    message = {**item, "status": status, "content": [{**part, "text": "one two"}]}
    final = {**response, "status": status, "output": [message], "usage": usage, "incomplete_details": details}
    await _send(answer, f"response.{status}", response=final)
    return answer


async def _send(answer: web.StreamResponse, kind: str, **fields: object) -> None:
    event = orjson.dumps({"type": kind, **fields})
    await answer.write(b"event: %b\ndata: %b\n\n" % (kind.encode(), event))


def _error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _json(status, {"error": error})


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(
        body, status=status, headers={MARK: "backend"}, dumps=lambda o: orjson.dumps(o).decode()
    )
