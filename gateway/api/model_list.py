"""`GET /models` with several backends: one list of what can be asked for here."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Any

import orjson
from aiohttp import web

from gateway.api.http.heads import head_of
from gateway.api.passthrough import Passthrough
from gateway.api.ports import Backend, Backends
from gateway.api.routing import no_such_model
from gateway.core.call import PlainCall

Model = dict[str, Any]

_LIST_BYTES_MAX = 4 * 2**20


async def merged_models(
    request: web.BaseRequest, backends: Backends, passthrough: Passthrough, *, request_id: str
) -> web.StreamResponse:
    """The models of all backends under the names by which clients ask for them.

    A backend that does not answer is left out: the others can be used. If none does, the answer is what one
    of them has to say, which may be that the caller's key is wrong.
    """
    asked = [
        _fetched(request, backend, request_id=request_id, target=request.raw_path) for backend in backends.all
    ]
    answers = await asyncio.gather(*asked)
    if all(answer is None for answer in answers):
        backend = backends.default or next(iter(backends.all))
        return await passthrough.forward(request, backend, request_id=request_id)
    models: dict[str, Model] = {}
    for backend, answer in zip(backends.all, answers, strict=True):
        for name, model in _public(backends, backend, answer).items():
            models.setdefault(name, model)
    return _json({"object": "list", "data": list(models.values())})


async def one_model(
    request: web.BaseRequest,
    backends: Backends,
    passthrough: Passthrough,
    name: str,
    *,
    target: str,
    request_id: str,
) -> web.StreamResponse:
    """What the list says about one model, by the name by which clients ask for it.

    Args:
        target: Of the list.

    Raises:
        Refusal: There is no such model.
    """
    backend = backends.of_model(name)
    if backend is None:
        raise no_such_model(name)
    answer = await _fetched(request, backend, request_id=request_id, target=target)
    if answer is None:
        return await passthrough.forward(request, backend, request_id=request_id)
    model = _public(backends, backend, answer).get(name)
    if model is None:
        raise no_such_model(name)
    return _json(model)


async def _fetched(
    request: web.BaseRequest, backend: Backend, *, request_id: str, target: str
) -> bytes | None:
    """A backend's list, asked for with the caller's headers."""
    limit_s = backend.settings.lookup_timeout_s
    call = PlainCall(request_id, "GET", target, head_of(request).headers, limit_s, "lookup", is_seen=True)
    answer = await backend.plain.look_up(call, bytes_max=_LIST_BYTES_MAX)
    return answer[1] if answer is not None and answer[0] == 200 else None


def _public(backends: Backends, backend: Backend, answer: bytes | None) -> dict[str, Model]:
    """A backend's models by their public names; of two that offer one, the backend that would get it."""
    return {
        name: {**model, "id": name}
        for model in _listed(answer)
        for name in _public_names(backend, str(model["id"]))
        if backends.of_model(name) is backend
    }


def _json(body: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _listed(answer: bytes | None) -> list[Model]:
    try:
        parsed = orjson.loads(answer or b"{}")
    except orjson.JSONDecodeError:
        return []
    data = parsed.get("data") if isinstance(parsed, dict) else None
    return [model for model in data or [] if isinstance(model, dict) and model.get("id")]


def _public_names(backend: Backend, name: str) -> list[str]:
    renamed = [public for public, own in backend.settings.rename.items() if own == name]
    matches = any(fnmatchcase(name, pattern) for pattern in backend.settings.models)
    return renamed + ([name] if matches and name not in renamed else [])
