"""What becomes of a request that is not ours before it goes on: which backend gets it, and what of its body
is changed or refused. The same for both lanes: a look at a head, and a look at a body that has come whole."""

from __future__ import annotations

from collections.abc import Callable, Generator

from gateway.api.identity.shared_key import is_kept_apart, kept_apart
from gateway.api.ports import Backend
from gateway.api.routing import Routing, renamed
from gateway.wire.bodies.cache_salt import salted
from gateway.wire.http.head import Head


class Forwarding:
    """Decides it.

    Args:
        collection: Path of `/responses`.
    """

    def __init__(self, chooser: Routing, *, collection: str) -> None:
        self._chooser = chooser
        self._collection = collection

    def backend_of(self, head: Head) -> Backend | None:
        """Where a request goes whose body nobody has to look at; None if somebody has to.

        Raises:
            Refusal: It goes nowhere.
        """
        if self._chooser.is_by_model(head):
            return None
        backend = self._chooser.without_model()
        if is_kept_apart(head, backend, self._collection) or _is_salted(head, backend):
            return None
        return backend

    def look(
        self, head: Head, body: bytes, tenant: Callable[[], bytes]
    ) -> Generator[None, None, tuple[Backend, bytes]]:
        """Where a request goes whose body has been read, and with which body. The pauses are for others.

        Args:
            tenant: Says whose request it is, where that matters.

        Raises:
            Refusal: It goes nowhere.
        """
        backend = self._chooser.without_model()
        if is_by_model := self._chooser.is_by_model(head):
            backend = yield from self._chooser.of_body(body)
        is_salted = _is_salted(head, backend)
        body = yield from adapted(backend, body, tenant, is_renamed=is_by_model, is_salted=is_salted)
        if is_kept_apart(head, backend, self._collection):
            yield from kept_apart(body)
        return backend, body


def adapted(
    backend: Backend, body: bytes, tenant: Callable[[], bytes], *, is_renamed: bool, is_salted: bool
) -> Generator[None, None, bytes]:
    """A plain body as its backend gets it: with its own name of the model, and the salt of the tenant."""
    if is_renamed:
        body = renamed(backend, body)
    return (yield from salted(body, tenant())) if is_salted else body


def _is_salted(head: Head, backend: Backend) -> bool:
    """Of chat completions, or of the completions before them."""
    return backend.settings.cache_salt and head.method == "POST" and head.path.endswith("/completions")
