"""How to talk to a backend that knows chat completions only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from gateway.wire.answers.readers import AnswerReader, ChatReader
from gateway.wire.chat.lessons import CHAT
from gateway.wire.chat.request import ChatOptions, chat_body, offered_tools
from gateway.wire.chat.tools import Tools, tools_of
from gateway.wire.chat.ways import Ways
from gateway.wire.conversation.lessons import lessons
from gateway.wire.conversation.replay import ReplayTarget
from gateway.wire.speech import RENAMED_FIELDS, Api, Preferences, Request, Speech


@dataclass(frozen=True, slots=True)
class ChatSpeech(Speech):
    """Attributes: chat: How this backend's chat API differs from others, and how it wants the messages."""

    api = Api.CHAT
    is_translated = True

    chat: ChatOptions = field(default_factory=ChatOptions)

    @property
    def replay_target(self) -> ReplayTarget:
        return ReplayTarget(self.backend, is_chat=True)

    def check(self, request: Request, tenant: bytes) -> None:
        self.body(request, request.get("input"), tenant)

    def tools(self, request: Request, input: Any) -> Tools:
        return tools_of(self._said(request), input)

    def offered(self, request: Request, input: Any) -> Tools:
        return offered_tools(self._said(request), input=input, options=self.chat)[0]

    def target(self, target: str) -> str:
        path, question, query = target.partition("?")
        return f"{path.removesuffix('/responses')}/chat/completions{question}{query}"

    def reader(self, response_id: str, request: Request, input: Any) -> AnswerReader:
        return ChatReader(response_id, self.tools(request, input), think_tags=self.chat.think_tags)

    def after_refusal(self, said: bytes, sent: bytes) -> Iterator[tuple[str, Self]]:
        for lesson in lessons(CHAT, self.chat.ways, said, sent):
            taught = self.knowing(lesson.known)
            yield lesson.name, replace(taught, is_for_now=self.is_for_now or not lesson.is_lasting)

    def after_answer(self, reader: AnswerReader, output: list[dict[str, Any]]) -> Self:
        """Learns the field in which the backend has its thoughts."""
        name = reader.reasoning_field if isinstance(reader, ChatReader) else None
        if name is None or self.chat.ways.reasoning_field is not None:
            return self
        return self.knowing(replace(self.chat.ways, reasoning_field=name))

    def formed(self, request: Request, input: Any) -> tuple[Request, Any]:
        return request, input  # `messages_of` makes the forms

    @property
    def known(self) -> Preferences:
        return self.chat.ways

    def knowing(self, known: Preferences) -> Self:
        assert isinstance(known, Ways)
        return replace(self, chat=replace(self.chat, ways=known))

    def _call(self, request: Request, input: Any) -> tuple[bytes, dict[str, Any]]:
        force = {name: value for name, value in self.force.items() if name not in RENAMED_FIELDS}
        return chat_body(request, input=input, options=self.chat), force
