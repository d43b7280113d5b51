"""Holds what a gateway says now against what its clients were told before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tests.acceptance.harness import frames, payload
from tests.torture.clients import Address
from tests.torture.gateway import HEADERS
from tests.torture.journal import TERMINAL, Story
from tests.torture.model import Call, expected_text

_AT_ONCE = 8
_POLL_S = 0.05


@dataclass(slots=True)
class Found:
    """What the gateway has of a response: `final` None and `status` 404 if nothing."""

    status: int
    final: bytes | None = None
    log: bytes | None = None


@dataclass(slots=True)
class Verdict:
    """Of an audit: what does not hold, by kind, and how much was looked at."""

    responses: int = 0
    events: int = 0
    missing: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.missing, *self.unfinished, *self.wrong]


async def audit(gateway: Address, stories: Iterable[Story], *, limit_s: float = 60) -> Verdict:
    """Every one of these responses, as the gateway has it now.

    Args:
        limit_s: A response that has not ended by then counts as unfinished.
    """
    verdict = Verdict()
    deadline = time.monotonic() + limit_s
    gate = asyncio.Semaphore(_AT_ONCE)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def look(story: Story) -> None:
            async with gate:
                found = await _fetch(session, gateway.url, story, deadline)
            verdict.responses += 1
            verdict.events += len(story.seen)
            judge(story, found, verdict)

        async with asyncio.TaskGroup() as group:
            for story in stories:
                group.create_task(look(story))
    return verdict


async def _fetch(session: aiohttp.ClientSession, url: str, story: Story, deadline: float) -> Found:
    path = f"{url}/responses/{story.id}"
    while True:
        async with session.get(path) as answer:
            body = await answer.read()
        if answer.status != 200:
            return Found(answer.status)
        if orjson.loads(body)["status"] in TERMINAL:
            break
        if time.monotonic() > deadline:
            return Found(200)
        await asyncio.sleep(_POLL_S)
    if not story.is_streamed:
        return Found(200, body)
    async with session.get(f"{path}?stream=true") as answer:
        log = await answer.read()
    return Found(200 if answer.status == 200 else answer.status, body, log)


def judge(story: Story, found: Found, verdict: Verdict) -> None:
    """Whether one response is what its clients were told."""
    name = f"{story.id} ({story.tag})"
    verdict.wrong += [f"{name}: {wrong}" for wrong in story.wrongs]
    if found.status == 404:
        if not story.is_delete_asked:
            verdict.missing.append(f"{name} was accepted and is not there")
        return
    if found.status != 200:
        verdict.wrong.append(f"{name}: answered {found.status}")
        return
    if story.is_deleted:
        verdict.wrong.append(f"{name} was deleted and is there")
        return
    if found.final is None:
        verdict.unfinished.append(f"{name} has not ended")
        return
    verdict.wrong += [f"{name}: {problem}" for problem in _compare(story, found)]


def _compare(story: Story, found: Found) -> list[str]:
    assert found.final is not None
    final = orjson.loads(found.final)
    problems = []
    if story.final is not None and story.final != found.final:
        problems.append("its final object is another now")
    if story.cancelled is not None and story.cancelled != found.final:
        problems.append(f"it was cancelled and is now {final['status']}, or changed")
    problems += _of_text(story, final)
    if found.log is not None:
        problems += _of_log(story, found.log, final)
    return problems


def _of_text(story: Story, final: dict[str, Any]) -> list[str]:
    """The text is that of one call of the backend, and all of it if the response is complete."""
    text = text_of(final)
    call = text.split("/")[1] if text else "1"
    whole = expected_text(story.tag, int(call), story.deltas) if call.isdigit() else ""
    if final["status"] == "completed" and text != whole:
        return [f"it is completed with {text[-80:]!r} at its end, which is not its whole text"]
    if not whole.startswith(text):
        return [f"its text is not of one call of the backend: {text[:200]!r}"]
    return []


def _of_log(story: Story, log: bytes, final: dict[str, Any]) -> list[str]:
    """The log is what was seen of it, numbered from 0 without a gap, and ends as the response does."""
    problems = []
    events = frames(log)
    contents = [payload(event) for event in events]
    numbers = [content["sequence_number"] for content in contents]
    if numbers != list(range(len(events))):
        problems.append(f"its replay is numbered {numbers}")
        return problems
    for number, event in sorted(story.seen.items()):
        if number >= len(events):
            problems.append(f"event {number} was seen and is not in the replay of {len(events)}")
        elif events[number] != event:
            problems.append(f"event {number} is not the one that was seen")
    if story.sealed is not None and story.sealed != log:
        problems.append("its log changed after its cancel was answered")
    ends = [n for n, content in enumerate(contents) if content["type"].removeprefix("response.") in TERMINAL]
    if ends != [len(events) - 1]:
        problems.append(f"terminal events stand at {ends} of {len(events)}")
    elif contents[-1]["response"] != final:
        problems.append("the terminal event's response is not the one that is polled")
    deltas = [c["delta"] for c in contents if c["type"] == "response.output_text.delta"]
    if "".join(deltas) != text_of(final):
        problems.append("the pieces of its text are not its text")
    return problems


def text_of(final: dict[str, Any]) -> str:
    """The text of a Response object."""
    parts = [part for item in final["output"] for part in item.get("content", [])]
    return "".join(part["text"] for part in parts)


def overcalled(calls: list[Call], stories: Iterable[Story], *, calls_max: int) -> list[str]:
    """Jobs that cost the backend more calls than they may, or one after their output was shown."""
    by_job: dict[str, list[Call]] = {}
    for call in calls:
        by_job.setdefault(call.job, []).append(call)
    problems = [f"{job}: {len(its)} calls" for job, its in by_job.items() if len(its) > calls_max]
    for story in stories:
        shown_at = story.first_output_at
        if shown_at is not None:
            late = [call for call in by_job.get(story.id, []) if call.started_at > shown_at]
            problems += [f"{story.id}: call {call.number} after its output was shown" for call in late]
    return problems
