"""What a backend can do, tried by small requests: each of these makes one or two, and says what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.command.doctor.client import ProbeClient
from gateway.command.doctor.findings import Finding, Level
from gateway.command.doctor.shapes import ProbeAnswer, ProbeRequest, fits_schema
from gateway.outbound.client import FAILURES
from gateway.wire.speech import Api

Found = Callable[..., Finding]
"""Makes a finding about the backend: of a check, its level, what was found, advice, settings."""
Probe = Callable[[ProbeClient, Found, int], Awaitable[Finding]]

_FEW_TOKENS, _SOME_TOKENS = 16, 256
_STARTED_PIECES, _BEGUN_PIECES = 3, 8
_HELD_S_MIN = 0.5
"""An answer that takes less may come at once."""
_AT_ONCE_S = 0.05
_LOOK_S = 0.25
_SEEN_WITHIN_S, _STOPS_WITHIN_S = 5.0, 5.0
_TELLS_S_MIN = 2.0
"""Seconds of work that must be left when the connection is closed. With less, it may have ended by itself."""
_STILL_S = 1.5
"""Seconds without a token after which nothing is being generated any more."""


async def tools(asker: ProbeClient, found: Found, _tokens: int) -> Finding:
    """Whether it takes functions, and calls one."""
    answer = await asker.ask(
        ProbeRequest(
            [("user", "What is the weather in Oslo? Call weather_in to find out.")],
            _SOME_TOKENS,
            has_tool=True,
        )
    )
    if answer.calls:
        return found("tools", Level.OK, f"it calls {answer.calls[0]}")
    if answer.is_good:
        advice = "a model without them, or a server that does not read calls: see its tool-call parser"
        return found("tools", Level.NOTE, "they are taken, and not called", advice)
    advice = (
        "vLLM: --enable-auto-tool-choice --tool-call-parser; SGLang: --tool-call-parser; llama.cpp: --jinja"
    )
    return _refused(found, "tools", answer, Level.NOTE, advice)


def _refused(
    found: Found,
    check: str,
    answer: ProbeAnswer,
    level: Level,
    advice: str = "",
    settings: tuple[tuple[str, Any], ...] = (),
) -> Finding:
    """It does not take that; or it could not be asked, which says nothing."""
    if not answer.is_refusal:
        return found(check, Level.NOTE, f"not known: {answer.words or 'there was no text'}")
    return found(check, level, f"refused: {answer.words}", advice, settings)


async def schema(asker: ProbeClient, found: Found, _tokens: int) -> Finding:
    """Whether answers keep to a JSON schema."""
    answer = await asker.ask(
        ProbeRequest([("user", "Does it rain in Bergen? Answer in JSON.")], _SOME_TOKENS, has_schema=True)
    )
    if not answer.is_good:
        return _refused(found, "JSON schema", answer, Level.NOTE, "callers who ask for one are refused")
    if fits_schema(answer.text):
        return found("JSON schema", Level.OK, "the answer keeps to it")
    if not answer.text:
        return found("JSON schema", Level.NOTE, f"not known: no text within {_SOME_TOKENS} tokens")
    return found(
        "JSON schema", Level.NOTE, "taken, and not kept to", "callers who ask for one get what does not fit"
    )


async def system_messages(asker: ProbeClient, found: Found, _tokens: int) -> Finding:
    """Whether a system message may come after the first turn."""
    check, setting = "system messages anywhere", asker.settings.system_messages
    turns = [("user", "Say one."), ("assistant", "One."), ("system", "Be brief."), ("user", "Say two.")]
    answer = await asker.ask(ProbeRequest(turns, _FEW_TOKENS))
    if answer.is_good:
        return found(check, Level.OK, "taken in their place")
    settings = () if setting == "first" else (("system_messages", "first"),)
    advice = "the gateway puts them first, once it was refused" if setting == "auto" else ""
    level = Level.WRONG if setting == "in_place" else Level.NOTE if settings else Level.OK
    return _refused(found, check, answer, level, advice, settings)


async def developer_role(asker: ProbeClient, found: Found, _tokens: int) -> Finding:
    """Chat: whether it knows the role."""
    answer = await asker.ask(ProbeRequest([("developer", "Be brief."), ("user", "Say one.")], _FEW_TOKENS))
    if answer.is_good:
        return found("role developer", Level.OK, "known")
    if answer.is_refusal and not asker.settings.developer_role:
        return found("role developer", Level.OK, "refused; such messages are sent as system")
    return _refused(found, "role developer", answer, Level.WRONG, settings=(("developer_role", False),))


async def prefill(asker: ProbeClient, found: Found, _tokens: int) -> Finding:
    """Whether a last message by the assistant is gone on with."""
    check = "prefill is continued"
    turns = [("user", "Count to ten, with commas."), ("assistant", "1, 2, 3, 4,")]
    answer = await asker.ask(ProbeRequest(turns, _FEW_TOKENS))
    if answer.is_good and _goes_on(answer):
        return found(check, Level.OK, "yes")
    if asker.api is Api.CHAT:
        more = {"continue_final_message": True, "add_generation_prompt": False}
        asked = await asker.ask(ProbeRequest(turns, _FEW_TOKENS, more=more))
        if asked.is_good and _goes_on(asked):
            return found(check, Level.OK, "if asked to by continue_final_message, as in vLLM and SGLang")
    if answer.is_good and answer.text:
        return found(check, Level.OK, "no, it answers anew")
    return _refused(found, check, answer, Level.OK)


def _goes_on(answer: ProbeAnswer) -> bool:
    return answer.text.lstrip(" ,").startswith("5")


async def cancelling(asker: ProbeClient, found: Found, tokens: int) -> Finding:
    """Whether closing the connection, which is how the gateway cancels, stops the work."""
    check = "cancel stops the work"

    def unknown(why: str, advice: str = "") -> Finding:
        return found(check, Level.NOTE, f"not known: {why}", advice)

    before = await asker.load()
    if before is None:
        flag = "its metrics say it: llama.cpp needs --metrics, SGLang --enable-metrics"
        return unknown("the backend does not say what it works on", flag)
    if before.running:
        return unknown(f"others have {before.running:g} requests there", "try again when it is idle")
    answer = ProbeAnswer()
    try:
        async with asyncio.timeout(asker.limit_s):
            left_s = await _begin(asker, answer, tokens)
    except FAILURES:
        return unknown("the connection broke")
    if answer.words:
        return unknown(answer.words)
    if left_s is None:
        return unknown("its metrics did not show the request")
    if left_s < _TELLS_S_MIN:
        return unknown(
            "the answer was over too soon", f"--tokens {min(10_000, tokens * 8)} asks for a longer one"
        )
    closed_s, limit_s = time.monotonic(), min(_STOPS_WITHIN_S, left_s / 2)
    if await _stops(asker, closed_s + limit_s):
        return found(
            check, Level.OK, f"yes, {time.monotonic() - closed_s:.1f} s after the connection is closed"
        )
    return found(
        check,
        Level.WRONG,
        f"no: it works on {limit_s:.0f} s after the connection is closed",
        "slots stay taken by what nobody waits for; a proxy between may keep it open (nginx: "
        "proxy_ignore_client_abort off)",
    )


async def _begin(asker: ProbeClient, answer: ProbeAnswer, tokens: int) -> float | None:
    """Begin a long answer, and close the connection while it is made.

    Returns:
        How many seconds of work were left; None if the work was not seen.
    """
    ask = ProbeRequest([("user", "Count from 1 to 2000, one number on each line. Leave none out.")], tokens)
    async with asker.stream(ask, answer) as pieces:
        started_s, seen = time.monotonic(), False
        async for _ in pieces:
            if answer.pieces >= _BEGUN_PIECES:
                break
        else:
            return 0.0
        while not seen and time.monotonic() - started_s < _SEEN_WITHIN_S and not answer.words:
            load = await asker.load()
            seen = load is not None and load.running > 0
            if not seen:
                await asyncio.sleep(_LOOK_S)
        passed_s = time.monotonic() - started_s
    if not seen:
        return None
    per_s = (answer.pieces - 1) / max(answer.took_s - answer.first_s, 0.001) if answer.first_s else 0.0
    made = passed_s * per_s
    return (tokens - made) / per_s if per_s else 0.0


async def _stops(asker: ProbeClient, until_s: float) -> bool:
    """Whether it works on nothing any more, before then."""
    made, since_s = None, time.monotonic()
    while (now_s := time.monotonic()) < until_s:
        load = await asker.load()
        if load is not None and not load.running:
            return True
        if load is not None and load.generated is not None:
            if load.generated != made:
                made, since_s = load.generated, now_s
            elif now_s - since_s >= _STILL_S:
                return True
        await asyncio.sleep(_LOOK_S)
    return False


def seems_held(answer: ProbeAnswer) -> bool:
    """Whether its pieces came all at once, and late: they are held back, or only their start was slow."""
    return (
        answer.is_stream
        and answer.pieces >= _STARTED_PIECES
        and answer.took_s > _HELD_S_MIN
        and answer.took_s - answer.first_s < _AT_ONCE_S
    )


def streaming(answer: ProbeAnswer, found: Found) -> list[Finding]:
    """What the first answer says of streams, of usage in them, and of thoughts."""
    ones = []
    if not answer.is_stream:
        advice = "readers of a stream get nothing before its end"
        ones.append(found("streams", Level.WRONG, "it answers whole, though asked for a stream", advice))
    elif seems_held(answer):
        advice = "something between holds it back (nginx: proxy_buffering off)"
        ones.append(found("streams", Level.WRONG, f"all at once, after {answer.took_s:.1f} s", advice))
    else:
        said = f"{answer.pieces} pieces, from {answer.first_s:.2f} s to {answer.took_s:.2f} s"
        ones.append(found("streams", Level.OK, said))
    if answer.has_usage:
        ones.append(found("usage in streams", Level.OK, "yes"))
    else:
        ones.append(
            found(
                "usage in streams",
                Level.NOTE,
                "no",
                "results say no usage; vLLM: --enable-force-include-usage",
            )
        )
    return ones


def thoughts(answers: list[ProbeAnswer], settings: Any, found: Found) -> Finding | None:
    """Chat: whether thoughts stand in the text."""
    if settings.think_tags or not any(each.text.lstrip().startswith("<think>") for each in answers):
        return None
    advice = "or give the server a reasoning parser"
    return found("thoughts", Level.NOTE, "in the text, as <think>…</think>", advice, (("think_tags", True),))
