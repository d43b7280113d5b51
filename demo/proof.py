"""The evidence of a play: what came over the wire, byte for byte, and whether it adds up.

The SDK is not touched: `TapeTransport` sits under it, where the bytes arrive. Proofs are pure functions.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""All our servers are local; a proxy named in the environment would only be in the way."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the summary."""

    name: str
    found: str
    is_ok: bool


class TapeTransport(httpx2.BaseTransport):
    """Passes everything through and keeps the body bytes of the last event stream in `tape`."""

    def __init__(self) -> None:
        self.tape = bytearray()
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            self.tape = bytearray()
            assert isinstance(response.stream, httpx2.SyncByteStream)
            response.stream = _Taped(response.stream, self.tape)
        return response

    def close(self) -> None:
        self._inner.close()


class _Taped(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, tape: bytearray) -> None:
        self._inner = inner
        self._tape = tape

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._tape += chunk
            yield chunk

    def close(self) -> None:
        self._inner.close()


def fetch(url: str, api_key: str) -> bytes:
    """GET `url` to the end, with nothing between us and the bytes."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {api_key}"})
    with DIRECT.open(request, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def frames(stream: bytes) -> list[bytes]:
    """Cut a stream into whole events; a torn last one and heartbeat comments (": …") are dropped."""
    *whole, _torn = stream.split(b"\n\n")
    return [frame + b"\n\n" for frame in whole if frame and not frame.startswith(b":")]


def payload(frame: bytes) -> dict[str, Any]:
    data = b"".join(line[5:] for line in frame.splitlines() if line.startswith(b"data:"))
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def number(frame: bytes) -> int:
    return int(payload(frame)["sequence_number"])


def text_of(events: list[bytes]) -> str:
    payloads = (payload(event) for event in events)
    return "".join(p["delta"] for p in payloads if p["type"] == "response.output_text.delta")


def up_to(stream: bytes, cursor: int) -> list[bytes]:
    """The events of a first piece that its reader had seen; more may have arrived unread."""
    return [frame for frame in frames(stream) if number(frame) <= cursor]


def check(
    first: list[bytes],
    second: list[bytes],
    replays: tuple[bytes, bytes],
    *,
    sdk_numbers: list[int],
    status: str | None,
    output_text: str,
) -> list[Check]:
    """Compare the two pieces with two whole replays and with the finished object.

    Args:
        sdk_numbers: The sequence numbers of the events the SDK handed out, in the order it did.
    """
    seen = [number(frame) for frame in first + second]
    whole = frames(replays[0])
    missing = sorted(set(range(len(whole))) - set(seen))
    twice = len(seen) - len(set(seen))
    is_same = b"".join(first + second) == b"".join(whole)
    last = payload(whole[-1])["type"] if whole else "nothing"
    terminal = ("response.completed", "response.incomplete")
    return [
        Check("events seen, in two pieces", f"{len(first)} + {len(second)} = {len(seen)}", bool(first)),
        Check("gaps", str(missing) if missing else "none", not missing),
        Check("duplicates", str(twice) if twice else "none", not twice),
        Check("in order from 0", *_yes_or_no(seen == list(range(len(seen))))),
        Check("the SDK saw the same events", *_yes_or_no(sdk_numbers == seen)),
        Check("two pieces = whole replay, byte for byte", *_yes_or_no(is_same)),
        Check("replayed twice, the same bytes", *_yes_or_no(replays[0] == replays[1])),
        Check("one ending", last, last in terminal and seen[-1:] == [len(whole) - 1]),
        Check("streamed text = stored text", *_yes_or_no(text_of(first + second) == output_text)),
        Check("status when polled", str(status), f"response.{status}" == last),
    ]


def _yes_or_no(is_ok: bool) -> tuple[str, bool]:
    return "yes" if is_ok else "NO", is_ok
