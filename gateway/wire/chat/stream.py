"""A chat-completions answer, chunk by chunk or whole, as the events of a response.

Finds the choice in a chunk, has it read as pieces, tells each to the items, and says at the end how it ended.
The ending waits for the end of the stream, since usage comes after the finish reason.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

from gateway.wire.answers.notices import NOTICES_MAX, Notable, Notice
from gateway.wire.answers.text import Sinks
from gateway.wire.chat.chunks import Choice, chunk_of, pieces_alone
from gateway.wire.chat.content import pieces_of
from gateway.wire.chat.endings import DONE, ChatEnding, Meaning
from gateway.wire.chat.heard import TEXTS, Heard
from gateway.wire.chat.items import ChatItems
from gateway.wire.chat.pieces import Piece, PieceKind
from gateway.wire.chat.think_tags import ThinkTags
from gateway.wire.chat.tool_call_items import ToolCallItems
from gateway.wire.chat.tool_calls import fragments_of
from gateway.wire.chat.tools import Tools
from gateway.wire.events import Event
from gateway.wire.usage import Usage, merged, usage_of

_CALLED = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
_FIELDS_NAMED_MAX = 5


class ChatStream:
    """Turns chunks into events.

    Args:
        tools: Those of the request, by the names that the backend was given.
        think_tags: Thoughts stand between tags in the text.

    Attributes:
        reasoning_field: Where the first thoughts came: a field of the delta; `content` for parts of it.
    """

    def __init__(self, response_id: str, tools: Tools, *, think_tags: bool = False) -> None:
        self._notices: set[Notice] = set()
        self.reasoning_field: str | None = None
        self._items = ChatItems(response_id)
        self._calls = ToolCallItems(self._items, tools)
        self._heard = Heard()
        self._tags = ThinkTags(may_close_alone=True) if think_tags else None
        self._shown: int | None = None
        self._ending: ChatEnding | None = None
        self._has_ended = False
        self._answer: dict[str, Any] = {}
        self._usage: Usage = {}
        self._last: Sequence[Piece] | None = None  # of the last chunk, if there was nothing else in it

    @property
    def notices(self) -> Collection[Notice]:
        """Notices for the operator."""
        return self._notices

    def feed(self, sent: dict[str, Any]) -> list[Event]:
        """The events of one chunk."""
        pieces = self._last = pieces_alone(sent, self._shown)
        if pieces is not None:
            self._heard.in_deltas.update(piece.kind for piece in pieces)
            return self._told(pieces, []) if pieces else []
        chunk = chunk_of(sent, self._shown)
        self._shown = chunk.shown
        self._answer |= chunk.about
        if chunk.usage:
            self._usage = merged(self._usage, chunk.usage)
        if chunk.error is not None:
            return [{"type": "error", "error": chunk.error}]
        events = self._told(chunk.beside, []) if chunk.beside else []
        for choice in chunk.choices:
            events += self._choice(choice)
        return events

    def echo(self) -> Sinks | None:
        """See `AnswerReader.echo`."""
        if self._last is None or (self._last and self._tags is not None):
            return None
        kinds = [piece.kind for piece in self._last]
        heard = (functools.partial(self._heard.add, kind) for kind in kinds)
        return (*heard, *(self._items.repeat for kind in kinds if kind is PieceKind.TEXT))

    def _choice(self, choice: Choice) -> list[Event]:
        self._ending = choice.ending or self._ending
        pieces = list(pieces_of(choice.delta, "delta"))
        events = self._told(pieces, choice.logprobs)
        self._heard.in_deltas |= {piece.kind for piece in pieces if piece.kind is not PieceKind.UNMAPPED}
        # Perplexity has all so far beside each delta: it is enough to look at the last.
        if choice.message and not (pieces and choice.ending is None):
            events += self._message(choice, [] if pieces else choice.logprobs)
        return events

    def _message(self, choice: Choice, logprobs: list[Any]) -> list[Event]:
        """A whole message, or a piece under its name: what is new in it."""
        pieces = list(pieces_of(choice.message, "message"))
        texts = {kind: "".join(piece.text for piece in pieces if _kind(piece) is kind) for kind in TEXTS}
        fresh = {
            kind: self._heard.rest(kind, text, is_last=choice.ending is not None)
            for kind, text in texts.items()
        }
        if fresh != texts:
            for kind in [kind for kind, text in fresh.items() if text is None]:
                self._note(Notable.UNMAPPED_FIELD, f"message.{kind.name.lower()}")
            pieces = [
                *(Piece(kind, text) for kind, text in fresh.items() if text),
                *(piece for piece in pieces if _kind(piece) not in TEXTS),
            ]
        told = self._heard.in_deltas & {PieceKind.THOUGHT_DATA, PieceKind.AUDIO}
        return self._told([piece for piece in pieces if piece.kind not in told], logprobs, is_whole=True)

    # -- pieces

    def _told(self, pieces: Sequence[Piece], logprobs: list[Any], *, is_whole: bool = False) -> list[Event]:
        """Tell pieces to the items; the logprobs are those of the first text."""
        events: list[Event] = []
        for piece in pieces:
            if (kind := _kind(piece)) in TEXTS:
                self._heard.add(kind, piece.text)
            if kind is PieceKind.TEXT:
                events += self._text(piece, logprobs)
                logprobs = []
            else:
                events += self._other(piece, is_whole=is_whole)
        return events + (self._items.say("", logprobs) if logprobs else [])

    def _text(self, piece: Piece, logprobs: list[Any]) -> list[Event]:
        is_marked = piece.kind is PieceKind.MARKED_TEXT
        if self._tags is None and is_marked:
            self._tags = ThinkTags(may_close_alone=False)
        events = self._calls.announce()
        if self._tags is None:
            return events + self._items.say(piece.text, logprobs)
        for is_thought, text in self._tags.feed(piece.text, is_marked=is_marked):
            events += self._items.think(text) if is_thought else self._items.say(text, logprobs)
            logprobs = logprobs if is_thought else []
        return events

    def _untagged(self) -> list[Event]:
        """Text that waited for the rest of a tag, released because something else follows."""
        events: list[Event] = []
        for is_thought, text in self._tags.end() if self._tags is not None else ():
            events += self._items.think(text) if is_thought else self._items.say(text, [])
        return events

    def _other(self, piece: Piece, *, is_whole: bool) -> list[Event]:
        match piece.kind:
            case PieceKind.UNMAPPED:
                self._note(Notable.UNMAPPED_FIELD, piece.name)
                return []
            case PieceKind.SOURCE:
                self._items.citations.add(piece.data)
                return []
            case PieceKind.VENDOR:
                self._items.vendor |= piece.data
                return []
            case PieceKind.THOUGHT_DATA:
                self._items.think_data(piece.name, piece.data, are_all=bool(piece.text))
                return []
            case PieceKind.CALL:
                return self._call(piece, is_whole=is_whole)
        events = self._untagged() + self._calls.announce()
        match piece.kind:
            case PieceKind.THOUGHT:
                self.reasoning_field = self.reasoning_field or piece.name
                events += self._items.think(piece.text)
            case PieceKind.REFUSAL:
                events += self._items.refuse(piece.text)
            case PieceKind.IMAGE:
                events += self._items.picture(piece.data)
            case PieceKind.AUDIO:
                events += self._items.sound(piece.data)
        return events

    def _call(self, piece: Piece, *, is_whole: bool) -> list[Event]:
        events: list[Event] = []
        for it in fragments_of(piece.data, "tool_calls"):
            for place in it.unmapped:
                self._note(Notable.UNMAPPED_FIELD, place)
            is_told = (
                is_whole and (PieceKind.CALL in self._heard.in_deltas or not it.id) and self._calls.has(it)
            )
            if not it.is_empty and not is_told:
                events += self._untagged() + self._calls.take(it)
        return events

    # -- the end

    def end(self, *, is_done: bool, is_whole: bool = False) -> list[Event]:
        """The last events; none that ends the response, if the backend never said that it is over.

        Args:
            is_done: The backend said so, if not why.
            is_whole: It was no stream.
        """
        self._last = None  # whether a `[DONE]` says something depends on what came before
        if self._has_ended:
            return []
        events = self._untagged() + self._calls.announce()
        ending = self._ending
        if ending is None and (is_whole or (is_done and (self._items.count or self._notices))):
            ending = DONE
            if not is_whole:
                self._note(Notable.NO_FINISH_REASON)
        if ending is None:
            return events
        self._has_ended = True
        if not ending.is_known:
            self._note(Notable.UNKNOWN_FINISH_REASON, ending.word)
        if ending.meaning is Meaning.BROKEN:
            return [*events, self._failed(f"The backend gave up on the answer ({ending.word}).")]
        status = "completed" if ending.meaning is Meaning.WHOLE else "incomplete"
        events += self._items.close(status) + self._calls.end(status)
        self._note_leftovers()
        if not self._items.count and (why := self._why_empty(ending)):
            return [*events, self._failed(why)]
        if self._calls.are_broken and ending.meaning is Meaning.WHOLE:
            ending = ChatEnding(Meaning.CUT, ending.word)
        answer = {**self._answer, "usage": usage_of(self._usage), "status": "completed"}
        if ending.meaning is not Meaning.WHOLE:
            answer |= {"status": "incomplete", "incomplete_details": ending.details}
        return [*events, {"type": f"response.{answer['status']}", "response": answer}]

    def _failed(self, message: str) -> Event:
        error = {"code": "server_error", "message": message}
        answer = {**self._answer, "usage": usage_of(self._usage), "status": "failed", "error": error}
        return {"type": "response.failed", "response": answer}

    def _why_empty(self, ending: ChatEnding) -> str:
        """Why an answer without any output is no answer; "" if the backend really had nothing to say."""
        if ending.meaning in (Meaning.LIMIT, Meaning.FILTER):
            return ""
        lost = sorted(notice.name for notice in self._notices if notice.what is Notable.UNMAPPED_FIELD)
        if lost:
            fields = ", ".join(lost[:_FIELDS_NAMED_MAX])
            return f"The backend's answer has nothing but what a response has no place for, in: {fields}."
        if ending.meaning is Meaning.CUT:
            return f"The backend ended the answer ({ending.word}) before there was any of it."
        is_called = ending.meaning is Meaning.WHOLE and ending.word.lower() in _CALLED
        return "The backend said that it calls a tool, and did not say which." if is_called else ""

    def _note_leftovers(self) -> None:
        """Pieces of an item that never began."""
        if self._items.citations:
            self._note(Notable.UNMAPPED_FIELD, "citations")
        if self._items.vendor:
            self._note(Notable.UNMAPPED_FIELD, "extra_content")
        if self._calls.has_nameless:
            self._note(Notable.UNMAPPED_FIELD, "tool_calls")

    def _note(self, what: Notable, name: str = "") -> None:
        if len(self._notices) < NOTICES_MAX:
            self._notices.add(Notice(what, name))


def _kind(piece: Piece) -> PieceKind:
    return PieceKind.TEXT if piece.kind is PieceKind.MARKED_TEXT else piece.kind
