"""Which callers are sent away for asking too much (429), in the log: the first time at once, then how often.

Whoever floods the gateway is refused thousands of times a second; as many lines would hide everything else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from gateway.api.identity.callers import Caller
from gateway.observe import Observer
from gateway.wire.errors import Refusal

_SILENCE_S: Final = 10.0
"""Seconds between two lines about the same caller and reason."""

_KNOWN_MAX: Final = 1000
"""Callers and reasons counted at the same time. Beyond that, a refusal is logged by its reason only."""

_NAME_CHARS_MAX: Final = 100

_OTHERS: Final = "others"

_Key = tuple[str, str, str | None]


class RefusalLog:
    """Tells of refusals."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._since: Counter[_Key] = Counter()

    def note(self, caller: Caller, refusal: Refusal) -> None:
        """A caller was refused."""
        name = caller.name[:_NAME_CHARS_MAX] if caller.name is not None else None
        key: _Key = (refusal.code or "", caller.tenant.hex()[:8], name)
        if key not in self._since and len(self._since) >= _KNOWN_MAX:
            key = (key[0], _OTHERS, None)
        if key in self._since:
            self._since[key] += 1
        else:
            self._tell(key, 1)
            self._wait(key)

    def _wait(self, key: _Key) -> None:
        self._since[key] = 0
        asyncio.get_running_loop().call_later(_SILENCE_S, self._look, key)

    def _look(self, key: _Key) -> None:
        if count := self._since.pop(key):
            self._tell(key, count)
            self._wait(key)

    def _tell(self, key: _Key, count: int) -> None:
        code, tenant, name = key
        self._observer.caller_refused(code, tenant, name, count)
