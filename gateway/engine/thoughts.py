"""Reasoning that clients keep for themselves: sealed on its way out, opened when it comes back.

Chat backends send their thoughts in clear, and so do we. Clients that store nothing on the server ask for an
`encrypted_content` beside it, drop the rest, and send that back: it must bring the thoughts along.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from gateway.core.job import Sealed
from gateway.engine.sealer import Sealer, Unsealable
from gateway.wire.answers.notices import Notice
from gateway.wire.answers.readers import AnswerReader
from gateway.wire.answers.text import Sinks
from gateway.wire.conversation import thoughts
from gateway.wire.events import Event
from gateway.wire.speech import Api
from gateway.wire.sse import Frame

_PURPOSE = "reasoning"
_OWN_KEY = ""
"""Id of the key that comes of the store; those of the settings are longer."""


class Thoughts:
    """Seals and opens thoughts, for one tenant each time.

    Args:
        keys: Those of the settings, by id; the first one seals. Without any, one is made of the pepper.
        pepper: Secret bytes that outlive the process.
    """

    def __init__(self, keys: Mapping[str, bytes], pepper: bytes) -> None:
        self._keys = {**keys, _OWN_KEY: hmac.digest(pepper, b"sealed thoughts", "sha256")}

    @cached_property
    def _sealer(self) -> Sealer:
        return Sealer(self._keys)  # which loads what few gateways need

    def sealing(self, reader: AnswerReader, request: dict[str, Any], api: Api, tenant: bytes) -> AnswerReader:
        """The reader of an answer; that of a chat backend's seals thoughts, if the request asks for it."""
        if api is not Api.CHAT or not thoughts.are_wanted(request):
            return reader
        return _SealingReader(reader, self, tenant)

    def seal(self, item: thoughts.Item, tenant: bytes) -> str:
        """The `encrypted_content` of a reasoning item."""
        sealed = self._sealer.seal(thoughts.to_seal(item), owner=_PURPOSE, tenant=tenant)
        return thoughts.text_of(sealed.key_id, sealed.text)

    def opened(self, input: Any, tenant: bytes) -> Any:
        """An input in which sealed thoughts are in clear. Raises: Refusal, if some cannot be opened."""
        if not isinstance(input, list) or not any(map(thoughts.sealed_in, input)):
            return input
        return [self._opened(item, f"input.{number}", tenant) for number, item in enumerate(input)]

    def _opened(self, item: Any, param: str, tenant: bytes) -> Any:
        text = thoughts.sealed_in(item)
        if text is None:
            return item
        if thoughts.is_whole(item):
            return thoughts.opened(item, None)
        parts = thoughts.parts_of(text)
        try:
            if parts is None:
                raise Unsealable("it is cut")
            clear = self._sealer.open(Sealed(*parts), owner=_PURPOSE, tenant=tenant)
        except Unsealable:
            raise thoughts.unreadable(text, f"{param}.{thoughts.FIELD}") from None
        return thoughts.opened(item, clear)


class _SealingReader:
    """Adds to each reasoning item, when it is done, what was sealed of it."""

    def __init__(self, reader: AnswerReader, seals: Thoughts, tenant: bytes) -> None:
        self._reader = reader
        self._thoughts = seals
        self._tenant = tenant
        self._open: dict[str, tuple[thoughts.Item, list[str]]] = {}

    @property
    def notices(self) -> Collection[Notice]:
        return self._reader.notices

    def read(self, frame: Frame) -> list[Event]:
        return [self._seen(event) for event in self._reader.read(frame)]

    def answer(self, body: bytes) -> list[Event]:
        return [self._seen(event) for event in self._reader.answer(body)]

    def end(self) -> list[Event]:
        return [self._seen(event) for event in self._reader.end()]

    def echo(self) -> Sinks | None:
        return None if self._open else self._reader.echo()

    def _seen(self, event: Event) -> Event:
        match event:
            case {
                "type": "response.output_item.added",
                "item": {"type": "reasoning", "id": str(name)} as item,
            }:
                self._open[name] = item, []
            case {"type": "response.reasoning_text.delta", "item_id": str(name), "delta": str(text)}:
                if name in self._open:
                    self._open[name][1].append(text)
            case {
                "type": "response.output_item.done",
                "item": {"type": "reasoning", "id": str(name)} as item,
            }:
                return {**event, "item": self._done(name, item)}
        return event

    def _done(self, name: str, item: thoughts.Item) -> thoughts.Item:
        begun, texts = self._open.pop(name, ({}, []))
        whole = {**begun, **item}
        if whole.get(thoughts.FIELD):
            return item  # the backend's own, which only it can read
        if texts:
            whole["content"] = [{"type": "reasoning_text", "text": "".join(texts)}]
        return {**item, thoughts.FIELD: self._thoughts.seal(whole, self._tenant)}
