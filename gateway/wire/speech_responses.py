"""How to talk to a backend with a Responses API: nearly as it came, in the forms that it does not refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

from gateway.wire.answers.readers import AnswerReader, ResponsesReader
from gateway.wire.chat.tools import Tools
from gateway.wire.chat.ways import System
from gateway.wire.conversation.item_lessons import ITEMS
from gateway.wire.conversation.lessons import lessons
from gateway.wire.conversation.portable_items import CIPHER
from gateway.wire.conversation.replay import Forms, ReplayTarget, accepted, is_empty_thought, system_first
from gateway.wire.requests import backend_body
from gateway.wire.speech import Api, Preferences, Request, Speech

SEALED_THOUGHTS = f"reasoning.{CIPHER}"
"""The value of `include` by which thoughts come sealed, to go back to a backend that keeps nothing."""


@dataclass(frozen=True, slots=True)
class ResponsesSpeech(Speech):
    """Attributes: forms: The forms in which the backend takes items."""

    api = Api.RESPONSES
    is_translated = False

    forms: Forms = field(default_factory=Forms)

    @property
    def replay_target(self) -> ReplayTarget:
        return ReplayTarget(self.backend, is_chat=False, forms=self.forms)

    def check(self, request: Request, tenant: bytes) -> None:
        pass

    def tools(self, request: Request, input: Any) -> Tools:
        return Tools(shown=tuple(self._said(request).get("tools") or ()))

    offered = tools

    def target(self, target: str) -> str:
        return target

    def reader(self, response_id: str, request: Request, input: Any) -> AnswerReader:
        return ResponsesReader()

    def after_refusal(self, said: bytes, sent: bytes) -> Iterator[tuple[str, Self]]:
        for lesson in lessons(ITEMS, self.forms, said, sent):
            is_for_now = self.is_for_now or not lesson.is_lasting
            yield lesson.name, replace(self, forms=lesson.known, is_for_now=is_for_now)

    def after_answer(self, reader: AnswerReader, output: list[dict[str, Any]]) -> Self:
        """From empty thoughts it learns to ask for sealed ones."""
        if self.forms.asks_ciphers is None and any(map(is_empty_thought, output)):
            return replace(self, forms=replace(self.forms, asks_ciphers=True))
        return self

    def formed(self, request: Request, input: Any) -> tuple[Request, Any]:
        """Parses the input only where something in it must change."""
        if not self.forms.changes:
            return request, input
        if isinstance(input, orjson.Fragment):
            input = orjson.loads(orjson.dumps(input))
        if not isinstance(input, list):
            return request, input
        input = accepted(input, self.forms)
        if self.forms.system is System.FIRST:
            instructions, input = system_first(request.get("instructions"), input)
            request = {**request, "instructions": instructions}
        return request, input

    @property
    def known(self) -> Preferences:
        return self.forms

    def knowing(self, known: Preferences) -> Self:
        assert isinstance(known, Forms)
        return replace(self, forms=known)

    def _call(self, request: Request, input: Any) -> tuple[bytes, dict[str, Any]]:
        request, input = self.formed(self._asking(request), input)
        return backend_body(request, input=input), dict(self.force)

    def _asking(self, request: Request) -> Request:
        """The request, asking for sealed thoughts if they must come back to a backend that keeps nothing."""
        asks, include = self.forms.asks_ciphers, request.get("include") or []
        has_asked = SEALED_THOUGHTS in include
        if asks is False and has_asked:
            return {**request, "include": [value for value in include if value != SEALED_THOUGHTS] or None}
        if has_asked or not (asks or (asks is None and request.get("reasoning") is not None)):
            return request
        return {**request, "include": [*include, SEALED_THOUGHTS]}
