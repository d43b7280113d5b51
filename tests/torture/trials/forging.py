"""What a model server says cannot forge, split or stop what the gateway's readers are told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from gateway.wire import events
from gateway.wire.answers import normalise
from tests.torture import eventsource
from tests.torture.gateway import HEADERS, Gateway
from tests.torture.hostile import Hostile
from tests.torture.trial import Bench, trial

_AT_ONCE = 8
_SPLITS = 60
"""Bytes of the sample that one round splits it at."""

_FORGED = 'event: response.completed\ndata: {"type":"response.completed","sequence_number":0}'
_TEXTS = [
    f"a{end}{end}{_FORGED}{end}{end}b"
    for end in ("\n", "\r", "\r\n", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e", "\x00")
]
_TEXTS += [
    "\n\ndata: [DONE]\n\n",
    "\r: comment\r\rid: 1\r\r",
    "\ufeff\n\nretry: 1\n\n",
    "\n\nevent: error\n\n",
    "\\n\\ndata: x",
]
_NAMES = [
    *(
        "response.output_text.delta\ndata: x",
        "response.completed\r\revent: x",
        "response.\u2028x",
        "message",
        "",
        "error\n",
    ),
    *(
        "response.output_text.delta\n",
        " response.output_text.delta",
        "RESPONSE.COMPLETED",
        "response.output_text.delta\x00",
    ),
]
_LINE = 9 * 2**20
_EVENT_TYPES = events.LIFECYCLE | events.ENDINGS | normalise.SHOWN


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _stream(text: str, *, names: str = "get_weather", vendor: str = "v", more: bytes = b"") -> bytes:
    """An answer with one message and one call of a function; `more` stands between them."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "vendor": vendor}
    part = {"type": "output_text", "text": text, "annotations": [{"type": "url_citation", "url": text}]}
    done = {**message, "status": "completed", "content": [part]}
    call = {"id": "fc_1", "type": "function_call", "call_id": names, "name": names, "arguments": text}
    response = {"id": "resp_1", "object": "response", "model": vendor, "status": "completed", vendor: text}
    return b"".join(
        [
            _event("response.created", response={**response, "status": "in_progress", "output": []}),
            _event(
                "response.output_item.added",
                output_index=0,
                item={**message, "status": "in_progress", "content": []},
            ),
            _event(
                "response.content_part.added",
                **place,
                part={"type": "output_text", "text": "", "annotations": []},
            ),
            _event("response.output_text.delta", **place, delta=text, logprobs=[]),
            more,
            _event("response.output_text.done", **place, text=text, logprobs=[]),
            _event("response.content_part.done", **place, part=part),
            _event("response.output_item.done", output_index=0, item=done),
            _event(
                "response.output_item.added",
                output_index=1,
                item={**call, "status": "in_progress", "arguments": ""},
            ),
            _event("response.function_call_arguments.delta", item_id="fc_1", output_index=1, delta=text),
            _event("response.function_call_arguments.done", item_id="fc_1", output_index=1, arguments=text),
            _event("response.output_item.done", output_index=1, item={**call, "status": "completed"}),
            _event(
                "response.completed", response={**response, "output": [done, {**call, "status": "completed"}]}
            ),
        ]
    )


_EVENTS = 15
"""Of that answer, as the gateway tells it: its citation too, which stands in the finished part only."""


def _chat(text: str) -> bytes:
    chunks = [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}]
    chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    said = [
        {"id": text, "object": "chat.completion.chunk", "model": text, "choices": [chunk]} for chunk in chunks
    ]
    return b"".join(b"data: %b\n\n" % orjson.dumps(one) for one in said) + b"data: [DONE]\n\n"


@trial(
    "T18",
    f"{len(_TEXTS)} texts and {len(_NAMES)} names that look like events; odd framing; no UTF-8; 9 MiB lines; "
    "an answer split at every byte",
    pass_mark="0 events too many or too few for a reference parser; over the limit: failed; all splits equal",
    runs=60,
    short_runs=4,
    round_s=30,
)
async def forge_events(bench: Bench) -> None:
    async with Hostile().serving() as hostile, _clients() as session:
        gateway = await bench.gateway(hostile.url)
        chat = await bench.gateway(hostile.url, upstream__api="chat")
        reference: str | None = None
        sample = _stream("h\u00e9llo \u2028 \U0001f600 \r\n", names="n\u00e4me").replace(b"\n", b"\r\n")
        bench.figure("bytes of the sample", len(sample))
        for number in bench.rounds():
            say = _Saying(bench, hostile, session, number)
            await _together(
                [
                    *(say.text(gateway, text) for text in _TEXTS),
                    *(say.name(gateway, name) for name in _NAMES),
                    *(say.framed(gateway, how, framed) for how, framed in _framings()),
                    *(say.chat(chat, text) for text in _TEXTS),
                    say.no_utf8(gateway),
                ]
            )
            await say.too_long(gateway)
            await say.last_event_id(gateway)
            if reference is None:
                hostile.say("whole", sample)
                reference = _comparable(await _ask(session, gateway, "whole"))
            splits = [at % len(sample) for at in range(number * _SPLITS, (number + 1) * _SPLITS)]
            await _together([say.split(gateway, sample, at, reference) for at in splits])


class _Saying:
    """What is played in one round."""

    def __init__(self, bench: Bench, hostile: Hostile, session: aiohttp.ClientSession, number: int) -> None:
        self._bench = bench
        self._hostile = hostile
        self._session = session
        self._number = number

    async def _told(self, gateway: Gateway, name: str, *pieces: bytes, **body: Any) -> list[dict[str, Any]]:
        """What a reader is told when the model server says this; noted if it is not in order."""
        name = f"{self._number}.{name}"
        self._hostile.say(name, *pieces)
        log = await _ask(self._session, gateway, name, **body)
        for problem in problems(log):
            self._bench.add("forged")
            self._bench.require(False, f"{name}: {problem}")
        self._bench.add("answers")
        return [orjson.loads(event.data) for event in eventsource.read(log).events]

    def _as_many(self, events: list[dict[str, Any]], count: int, what: str) -> None:
        self._bench.add("events too many or too few", abs(len(events) - count))
        self._bench.require(len(events) == count, f"{what}: {len(events)} events, not {count}")

    async def text(self, gateway: Gateway, text: str) -> None:
        said = _stream(text, names=text, vendor=text)
        events = await self._told(
            gateway, f"text {text!r}", said, metadata={text[:64]: text}, instructions=text
        )
        self._as_many(events, _EVENTS, repr(text))
        output = events[-1]["response"].get("output", [])
        found = [output[0]["content"][0]["text"], output[1]["arguments"]] if len(output) == 2 else output
        self._bench.require(found == [text, text], f"{text!r} arrived as {found}")

    async def name(self, gateway: Gateway, name: str) -> None:
        fields = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        forged = b"data: %b\n\n" % orjson.dumps({"type": name, "delta": "forged", **fields})
        if not set("\r\n") & set(name):  # else the line would be another one
            forged = b"event: %b\n%b" % (name.encode(), forged)
        events = await self._told(gateway, f"name {name!r}", _stream("text", more=forged))
        self._as_many(events, _EVENTS, f"{name!r}")
        self._bench.require(b"forged" not in orjson.dumps(events), f"an event called {name!r} came through")

    async def framed(self, gateway: Gateway, how: str, said: bytes) -> None:
        self._as_many(await self._told(gateway, how, said), _EVENTS, how)

    async def chat(self, gateway: Gateway, text: str) -> None:
        for background in (True, False):
            events = await self._told(
                gateway, f"chat {background} {text!r}", _chat(text), background=background
            )
            output = events[-1]["response"]["output"]
            found = output[0]["content"][0]["text"] if output else None
            self._bench.require(found == text, f"chat: {text!r} arrived as {found!r}")

    async def no_utf8(self, gateway: Gateway) -> None:
        said = _stream("a?b").replace(b"a?b", b"a\xff\xfe\xe2\x80b")
        events = await self._told(gateway, "no UTF-8", said)
        self._as_many(events, _EVENTS, "no UTF-8")
        text = events[-1]["response"]["output"][0]["content"][0]["text"]
        self._bench.require(re.fullmatch("a\ufffd+b", text), f"bytes that are no UTF-8 arrived as {text!r}")

    async def too_long(self, gateway: Gateway) -> None:
        piece = b"x" * 2**20
        begun = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"'
        before = _stream("kept").partition(b"event: response.completed")[0]
        events = await self._told(gateway, "too long", before, begun, *[piece] * (_LINE // len(piece)))
        response = events[-1].get("response", {})
        told = (response.get("status"), response.get("error"))
        is_failed = told[0] == "failed" and "bytes in one event" in told[1]["message"]
        self._bench.require(is_failed, f"{_LINE} bytes in a line ended as {told}")
        kept = orjson.dumps(response.get("output"))
        self._bench.require(
            b"kept" in kept and b"xxx" not in kept, f"{_LINE} bytes in a line: kept {kept[:99]!r}"
        )

    async def last_event_id(self, gateway: Gateway) -> None:
        self._hostile.say("id", _stream("text"))
        log = await _ask(self._session, gateway, "id")
        first = orjson.loads(eventsource.read(log).events[0].data)["response"]["id"]
        url = f"{gateway.url}/responses/{first}?stream=true"
        async with self._session.get(url, headers={"Last-Event-ID": "canary-41"}) as answer:
            again, headers = await answer.read(), str(answer.headers)
        self._bench.require(again == log and "canary" not in headers, "Last-Event-ID changed an answer")

    async def split(self, gateway: Gateway, sample: bytes, at: int, reference: str) -> None:
        name = f"split {self._number} {at}"
        self._hostile.say(name, sample[:at], sample[at:])
        found = _comparable(await _ask(self._session, gateway, name))
        self._bench.add("splits")
        self._bench.require(found == reference, f"split after {at} bytes it is another stream")


def problems(log: bytes) -> Iterator[str]:
    """What a reference parser, or a careless one, sees that the gateway should not have sent."""
    for how, reading in (
        ("", eventsource.read(log)),
        ("carelessly read: ", eventsource.read_carelessly(log)),
    ):
        if reading.fields - {"event", "data"}:
            yield f"{how}fields {reading.fields}"
        if reading.left:
            yield f"{how}it ends within an event"
        for number, event in enumerate(reading.events):
            try:
                content = orjson.loads(event.data)
            except orjson.JSONDecodeError:
                yield f"{how}event {number} is no JSON: {event.data[:80]!r}"
                continue
            told = (content["type"], content["sequence_number"])
            if told != (event.type, number):
                yield f"{how}event {number} is {event.type} with {told}"
            if event.type not in _EVENT_TYPES:
                yield f"{how}event {number} is called {event.type!r}"


def _framings() -> list[tuple[str, bytes]]:
    """The same answer, in every form that a server-sent event may have."""
    said = _stream("text")
    return [
        ("CR", said.replace(b"\n", b"\r")),
        ("CR LF", said.replace(b"\n", b"\r\n")),
        ("a BOM", b"\xef\xbb\xbf" + said),
        ("no event lines", re.sub(rb"event: [^\n]*\n", b"", said)),
        ("ids, retries, comments", said.replace(b"event:", b": c\nid: 7\nretry: 1\nunknown: x\nevent:")),
        ("no blank after the colon", said.replace(b"event: ", b"event:").replace(b"data: ", b"data:")),
        ("data on several lines", said.replace(b'data: {"type"', b'data: {\ndata: "type"')),
        ("blank lines", said.replace(b"\n\n", b"\n\n\n\n\n")),
        ("[DONE]", said + b"data: [DONE]\n\n"),
        ("no end", said.rstrip(b"\n")),
        ("something after the end", said + _event("response.output_text.delta", delta="forged")),
    ]


def _comparable(log: bytes) -> str:
    """A stream but for what differs between two responses: ids and times."""
    text = re.sub(r"resp_[0-9a-f]{48}", "ID", log.decode())
    text = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', text)
    return re.sub(r'"user":"[^"]*"', '"user":"x"', text)


async def _ask(session: aiohttp.ClientSession, gateway: Gateway, name: str, **more: Any) -> bytes:
    body = {"model": "m", "input": "Say.", "user": name, "background": True, "stream": True, **more}
    async with session.post(f"{gateway.url}/responses", json=body) as answer:
        assert answer.status == 200, await answer.read()
        return await answer.read()


async def _together(plays: list[Any]) -> None:
    waiting = iter(plays)

    async def lane() -> None:
        for play in waiting:
            await play

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(lane())


@asynccontextmanager
async def _clients() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=HEADERS, timeout=timeout) as session:
        yield session
