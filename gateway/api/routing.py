"""Which backend a request goes to: by the model that it names, where there is a choice."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson

from gateway.api.ports import Backend, Backends
from gateway.wire.bodies.json_scan import check_values
from gateway.wire.errors import Fault, Refusal
from gateway.wire.http.head import Head
from gateway.wire.requests import written


class Routing:
    """Chooses backends."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

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

    def of_body(self, body: bytes) -> Generator[None, None, Backend]:
        """The backend of a JSON body that was read already; the pauses are for others. Raises: Refusal."""
        if not self._backends.reads_bodies:
            return self.without_model()
        yield from check_values(body)
        return self.of_model(_model(body))

    def without_model(self) -> Backend:
        """For requests that name no model: the default, or the first."""
        return self._backends.default or next(iter(self._backends.all))

    def is_by_model(self, head: Head) -> bool:
        """Whether the backend of a request depends on its body."""
        has_model = head.method in ("POST", "PUT", "PATCH") and head.is_json
        return has_model and self._backends.reads_bodies


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
