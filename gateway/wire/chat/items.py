"""The output items of a chat answer, as the events of a Responses backend: which begins, its texts, its end.

Says only what chat says. Parts, done events and indexes are the normaliser's work, as for every backend. A
message or a reasoning item is over when something else begins; calls stay open, since their arguments may be
interleaved.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Any

from gateway.wire.chat.citations import Citations
from gateway.wire.chat.details import ReasoningDetails
from gateway.wire.chat.images import Image
from gateway.wire.chat.known import has_text
from gateway.wire.events import Event


@dataclass(slots=True)
class _Reasoning:
    item_id: str
    details: ReasoningDetails


@dataclass(slots=True)
class _Message:
    """A message that is being streamed.

    Attributes:
        text, logprobs: Of the text part that is open.
        sounds, transcript: The audio and its words, in the pieces that came.
    """

    item_id: str
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    audio: dict[str, Any] = field(default_factory=dict)
    sounds: list[str] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)


class ChatItems:
    """Opens and closes the items of one answer.

    Attributes:
        count: How many there were.
        citations: Sources that no text shows yet.
        vendor: Data that goes with the next message that ends.
    """

    def __init__(self, response_id: str) -> None:
        self._seed = response_id.removeprefix("resp_")[:40]
        self.count = 0
        self.citations = Citations()
        self.vendor: dict[str, Any] = {}
        self._details = ReasoningDetails()
        self._reasoning: _Reasoning | None = None
        self._message: _Message | None = None
        self._images: set[bytes] = set()

    def open(self, prefix: str, item: dict[str, Any]) -> tuple[str, Event]:
        """The id of a new item, and the event that announces it."""
        # Made up as the normaliser does it: the n-th item is n in both, so no two get the same id.
        item_id = f"{prefix}_{self._seed}{self.count:08x}"
        self.count += 1
        return item_id, {"type": "response.output_item.added", "item": {"id": item_id, **item}}

    def close(self, status: str = "completed") -> list[Event]:
        """The end of the reasoning or the message that is open."""
        events = self._close_reasoning() + self._close_message(status)
        if self._details.are_needed():
            events += self._open_reasoning()[1] + self._close_reasoning()
        return events

    # -- reasoning

    def think(self, thought: str) -> list[Event]:
        reasoning, events = self._open_reasoning()
        event = {"type": "response.reasoning_text.delta", "item_id": reasoning.item_id, "delta": thought}
        return [*events, event]

    def think_data(self, name: str, entries: list[Any], *, are_all: bool) -> None:
        """What belongs to a thought besides its words: of the one that is open, else of the next one, or by
        itself once the message is over, which it does not break off."""
        details = self._reasoning.details if self._reasoning is not None else self._details
        details.add(name, entries, are_all=are_all)

    def _open_reasoning(self) -> tuple[_Reasoning, list[Event]]:
        events = self._close_message("completed")
        if self._reasoning is None:
            item_id, added = self.open("rs", {"type": "reasoning", "summary": [], "content": []})
            self._reasoning = _Reasoning(item_id, self._details)
            self._details = ReasoningDetails()
            events.append(added)
        return self._reasoning, events

    def _close_reasoning(self) -> list[Event]:
        reasoning, self._reasoning = self._reasoning, None
        if reasoning is None:
            return []
        item = {"id": reasoning.item_id, "type": "reasoning", **reasoning.details.shown()}
        return [{"type": "response.output_item.done", "item": item}]

    # -- message

    def say(self, text: str, logprobs: list[Any]) -> list[Event]:
        if not text:
            if self._message is not None:  # half a character: its text comes with the next token
                self._message.logprobs += logprobs
            return []
        message, events = self._open_message()
        message.text.append(text)
        message.logprobs += logprobs
        event = {"type": "response.output_text.delta", "item_id": message.item_id, "delta": text}
        return [*events, {**event, "logprobs": logprobs}]

    def repeat(self, text: str) -> None:
        """The message that is open goes on, and its delta has been told."""
        assert self._message is not None
        self._message.text.append(text)

    def refuse(self, refusal: str) -> list[Event]:
        message, events = self._open_message()
        events += self._close_text(message)
        event = {"type": "response.refusal.delta", "item_id": message.item_id, "delta": refusal}
        return [*events, event]

    def sound(self, audio: dict[str, Any]) -> list[Event]:
        """A piece of speech: what was said is text; the sound goes by events of its own, and on the
        message."""
        if self._message is None and not has_text(audio):
            return []
        message, events = self._open_message()
        message.audio |= audio
        if isinstance(transcript := audio.get("transcript"), str):
            events += self.say(transcript, [])
            message.transcript.append(transcript)
        if isinstance(data := audio.get("data"), str) and data:
            message.sounds.append(data)
            events.append({"type": "response.audio.delta", "delta": data})
        return events

    def picture(self, image: Image) -> list[Event]:
        """An image: an item of its own; one that is only linked to is a link in the text, which all clients
        show."""
        digest = hashlib.sha256(image.given.encode()).digest()
        if digest in self._images:
            return []
        self._images.add(digest)
        if not image.base64:
            return self.say(f"![image]({image.given})\n", [])
        events = self.close()
        item: dict[str, Any] = {"type": "image_generation_call", "status": "in_progress", "result": None}
        item_id, added = self.open("ig", item)
        done = {**item, "id": item_id, "status": "completed", "result": image.base64}
        if image.format:
            done["output_format"] = image.format
        return [*events, added, {"type": "response.output_item.done", "item": done}]

    def _open_message(self) -> tuple[_Message, list[Event]]:
        events = self._close_reasoning()
        if self._message is None:
            item_id, added = self.open("msg", {"type": "message", "role": "assistant", "content": []})
            self._message = _Message(item_id)
            events.append(added)
        return self._message, events

    def _close_text(self, message: _Message) -> list[Event]:
        """The end of a text part, said only where there is something to say: its sources, the logprobs of
        all."""
        text, logprobs = "".join(message.text), message.logprobs
        message.text, message.logprobs = [], []
        place = {"item_id": message.item_id}
        events: list[Event] = []
        if text and self.citations:
            kind = "response.output_text.annotation.added"
            events += [
                {"type": kind, **place, "annotation": each} for each in self.citations.annotations(text)
            ]
        if text and logprobs:
            part = {"type": "output_text", "text": text, "logprobs": logprobs}
            events += [
                {"type": "response.output_text.done", **place, "text": text, "logprobs": logprobs},
                {"type": "response.content_part.done", **place, "part": part},
            ]
        return events

    def _close_message(self, status: str) -> list[Event]:
        message, self._message = self._message, None
        if message is None:
            return []
        events = self._close_text(message)
        item: dict[str, Any] = {"id": message.item_id, "type": "message", "status": status}
        if message.audio:
            item["audio"] = message.audio
        if message.transcript:
            item["audio"]["transcript"] = "".join(message.transcript)
        if message.sounds:
            item["audio"]["data"] = _joined(message.sounds)
            events.append({"type": "response.audio.done"})
        if self.vendor:
            item["extra_content"], self.vendor = self.vendor, {}
        return [*events, {"type": "response.output_item.done", "item": item}]


def _joined(sounds: list[str]) -> str:
    """Pieces of base64 as one: each was encoded by itself, so that their ends need not fit."""
    try:
        return base64.b64encode(b"".join(base64.b64decode(each, validate=True) for each in sounds)).decode()
    except (binascii.Error, ValueError):
        return "".join(sounds)
