"""Which backend a request goes to: by the model that it names, where there is a choice."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from gateway.api.http.bodies import looked_over, read_body
from gateway.api.ports import Backend, Backends
from gateway.wire.bodies.json_scan import may_be_parsed
from gateway.wire.errors import Fault, Refusal
from gateway.wire.requests import written


class Routing:
    """Chooses backends.

    Args:
        body_bytes_max: Of a JSON body that must be read for its model's name.
    """

    def __init__(self, backends: Backends, *, body_bytes_max: int) -> None:
        self._backends = backends
        self._body_bytes_max = body_bytes_max

    @property
    def that_see_callers(self) -> list[Backend]:
        """Those that get the caller's own credential, and so can say what is whose."""
        return [backend for backend in self._backends.all if backend.sees_callers]

    def named(self, name: str) -> Backend | None:
        """The backend of this name; None if the settings no longer have it."""
        return self._backends.get(name)

    def find(self, model: object) -> Backend | None:
        """The backend of a model, or of a request that names none; None if no backend serves the model."""
        return self._backends.of_model(model) if isinstance(model, str) else self.without_model()

    def of_model(self, model: object) -> Backend:
        """The same. Raises: Refusal, if no backend serves the model."""
        backend = self.find(model)
        if backend is None:
            raise no_such_model(str(model))
        return backend

    async def of_body(self, body: bytes) -> Backend:
        """The backend of a JSON body that was read already. Raises: Refusal."""
        if not self._backends.reads_bodies:
            return self.without_model()
        await looked_over(may_be_parsed(body))
        return self.of_model(_model(body))

    def without_model(self) -> Backend:
        """For requests that name no model: the default, or the first."""
        return self._backends.default or next(iter(self._backends.all))

    async def of_request(self, request: web.BaseRequest) -> tuple[Backend, bytes | None]:
        """The backend of any request, and its body if that had to be read. Raises: Refusal."""
        has_model = request.method in ("POST", "PUT", "PATCH") and request.content_type == "application/json"
        if not self._backends.reads_bodies or not has_model:
            return self.without_model(), None
        body = await read_body(request, self._body_bytes_max)
        backend = await self.of_body(body)
        return backend, renamed(backend, body)


def no_such_model(model: str) -> Refusal:
    return Refusal(
        Fault.NOT_FOUND, f"The model '{model}' does not exist.", param="model", code="model_not_found"
    )


def renamed(backend: Backend, body: bytes) -> bytes:
    """A plain body that may be parsed, with the model's name as the backend knows it; as it came, if that is
    the same.

    Raises:
        Refusal: It is nested too deeply.
    """
    rename = backend.settings.rename
    model = _model(body) if rename else None
    return written({**orjson.loads(body), "model": rename[model]}) if model in rename else body


def _model(body: bytes) -> Any:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None  # the backend's to refuse, in its own words
    model = parsed.get("model") if isinstance(parsed, dict) else None
    return model if isinstance(model, str) else None
