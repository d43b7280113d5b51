"""Looks at one backend: is each replica there, which API does it speak, what can it do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import orjson

from gateway.command.doctor import probes
from gateway.command.doctor.client import ProbeClient, client_for
from gateway.command.doctor.findings import Finding, Level
from gateway.command.doctor.shapes import ProbeAnswer, ProbeRequest
from gateway.config import UpstreamSettings
from gateway.wire.speech import NO_SUCH_ROUTE, Api

_NO_TEXT = ("embed", "rerank", "whisper", "tts")
"""In the names of models that write no text."""
_SHOWN = 4
_TRIED: tuple[tuple[str, probes.Probe], ...] = (
    ("tools", probes.tools),
    ("JSON schema", probes.schema),
    ("system messages", probes.system_messages),
    ("prefill", probes.prefill),
    ("cancelling", probes.cancelling),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """How to look.

    Attributes:
        key: Of a caller, for backends that the gateway has no key for.
        tokens: Of the longest answer that is asked for.
        limit_s: For one request.
        progress: Told what is done.
        skews: Gets seconds by which servers' clocks are ahead of ours.
    """

    model: str | None
    key: str | None
    makes_requests: bool
    tokens: int
    limit_s: float
    progress: Callable[[str], None]
    skews: list[float]


async def examine(name: str, settings: UpstreamSettings, wish: Wish) -> AsyncGenerator[Finding, None]:
    """What there is to say of it, as it is found."""
    about = f"backend {name}"

    def found(
        check: str, level: Level, said: str, advice: str = "", settings: tuple[tuple[str, Any], ...] = ()
    ) -> Finding:
        return Finding(about, check, level, said, advice, settings)

    chosen: tuple[ProbeClient, bytes] | None = None
    for number, url in enumerate(settings.urls):
        wish.progress(f"{about}: is replica {number} there?")
        asker = client_for(settings, url, wish.key, wish.limit_s)
        try:
            answer, listed = await asker.get("/models")
            finding = _reached(number, answer, asker.has_key, settings, found)
            yield finding
            if chosen is None and finding.level is not Level.WRONG:
                chosen = asker, listed if answer.is_good else b""
                continue
        finally:
            wish.skews.extend(asker.skews)
            if chosen is None or chosen[0] is not asker:
                await asker.session.close()
    if chosen is None:
        return
    asker, listed = chosen
    try:
        async for finding in _what_it_can(asker, listed, settings, wish, found, about):
            yield finding
    finally:
        wish.skews.extend(asker.skews)
        await asker.session.close()


def _reached(
    number: int, answer: ProbeAnswer, has_key: bool, settings: UpstreamSettings, found: probes.Found
) -> Finding:
    check = "reachable" if not number and len(settings.urls) == 1 else f"replica {number} reachable"
    match answer.status:
        case None:
            return found(check, Level.WRONG, answer.words, "is its address right (url), and is it up?")
        case 200:
            return found(check, Level.OK, f"in {answer.took_s * 1000:.0f} ms")
        case 401 | 403 if has_key:
            return found(
                check, Level.WRONG, f"the key is refused ({answer.status})", "api_key_file, api_key_env"
            )
        case 401 | 403:
            return found(
                check,
                Level.NOTE,
                f"it wants a caller's key ({answer.status})",
                "--key-env NAME gives one to the doctor",
            )
        case 404 | 405:
            advice = "fine if it lists no models; else the base URL usually ends in /v1"
            return found(check, Level.NOTE, f"it lists no models ({answer.status})", advice)
        case 502 | 503 | 504:
            return found(
                check,
                Level.WRONG,
                f"not yet, or not now ({answer.status})",
                "wait until it has loaded its model",
            )
    return found(check, Level.NOTE, f"{answer.status}: {answer.words}")


async def _what_it_can(
    asker: ProbeClient, listed: bytes, settings: UpstreamSettings, wish: Wish, found: probes.Found, about: str
) -> AsyncIterator[Finding]:
    names = _names(listed)
    model = wish.model or _model(names, settings)
    for finding in _models(names, model, settings, found):
        yield finding
    load = await asker.load()
    if load is not None:
        is_set = settings.backfill == load.engine
        advice = "" if is_set else f"backfill: {load.engine} lets plain requests go before background ones"
        level = Level.OK if is_set else Level.NOTE
        yield found("engine", level, f"metrics of {load.engine}", advice)
    if not wish.makes_requests or model is None:
        return
    asker.model = model
    wish.progress(f"{about}: which API?")
    answers = {api: await _first(asker, api) for api in (Api.RESPONSES, Api.CHAT)}
    yield _api(answers, settings, found)
    good = [api for api, answer in answers.items() if answer.is_good]
    if not good:
        return
    asker.api = Api(settings.api) if settings.api in good else good[0]
    first = answers[asker.api]
    if probes.seems_held(first):
        # A server's first answer may start late, and then come as fast as a small model is.
        again = await _first(asker, asker.api)
        first = again if again.is_good else first
    for finding in _wants(asker, settings, found):
        yield finding
    for finding in probes.streaming(first, found):
        yield finding
    for what, probe in _TRIED:
        wish.progress(f"{about}: {what}")
        yield await probe(asker, found, wish.tokens)
    if asker.api is Api.CHAT:
        wish.progress(f"{about}: roles")
        yield await probes.developer_role(asker, found, wish.tokens)
        if (thought := probes.thoughts([first], settings, found)) is not None:
            yield thought


# -- models


def _names(listed: bytes) -> list[str]:
    try:
        found = orjson.loads(listed)
    except orjson.JSONDecodeError:
        return []
    data = found.get("data") if isinstance(found, dict) else None
    return [one["id"] for one in data or () if isinstance(one, dict) and isinstance(one.get("id"), str)]


def _model(names: list[str], settings: UpstreamSettings) -> str | None:
    """What to ask for: the first one that the settings send there, as the backend calls it."""
    meant = [settings.rename.get(each, each) for each in settings.models]
    for name in names:
        if any(fnmatchcase(name, each) for each in meant) and not any(
            part in name.lower() for part in _NO_TEXT
        ):
            return name
    plain = [each for each in meant if not set(each) & set("*?[")]
    return plain[0] if plain else (names[0] if names else None)


def _models(
    names: list[str], model: str | None, settings: UpstreamSettings, found: probes.Found
) -> list[Finding]:
    if model is None:
        return [found("model", Level.NOTE, "it names none", "--model NAME says what to ask for")]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    ones = [found("model", Level.OK, f"{model} is asked" + (f", of {shown}" if len(names) > 1 else ""))]
    for pattern in settings.models if names else ():
        theirs = settings.rename.get(pattern, pattern)
        if not any(fnmatchcase(name, theirs) for name in names):
            ones.append(
                found("model", Level.WRONG, f"it has no {theirs}", f"models and rename; it has {shown}")
            )
    return ones


# -- which API


async def _first(asker: ProbeClient, api: Api) -> ProbeAnswer:
    """A small answer; asked again in another way where the server says that it wants that."""
    ask = ProbeRequest([("user", "Count from 1 to 10, with commas.")], 48)
    answer = await asker.ask(ask, api=api)
    if api is Api.CHAT and answer.status == 400 and "max_completion_tokens" in answer.words:
        asker.max_tokens_field = "max_completion_tokens"
        answer = await asker.ask(ask, api=api)
    if api is Api.CHAT and answer.status in (400, 422) and "stream_options" in answer.words:
        asker.wants_usage = False
        answer = await asker.ask(ask, api=api)
    return answer


def _api(answers: dict[Api, ProbeAnswer], settings: UpstreamSettings, found: probes.Found) -> Finding:
    good = [api.value for api, answer in answers.items() if answer.is_good]
    if not good:
        if all(answer.status in NO_SUCH_ROUTE for answer in answers.values()):
            return found("API", Level.WRONG, "none below this base URL", "url: it usually ends in /v1")
        said = "; ".join(f"{api.value}: {answer.words or answer.status}" for api, answer in answers.items())
        return found("API", Level.WRONG, f"no answer. {said}")
    said = " and ".join(good)
    if settings.api != "auto" and settings.api not in good:
        words = answers[Api(settings.api)].words
        return found("API", Level.WRONG, f"{said}, not {settings.api}: {words}", settings=(("api", good[0]),))
    if settings.api == "auto":
        advice = "saves the gateway the question"
        return found("API", Level.NOTE, said, advice, (("api", good[0]),))
    return found("API", Level.OK, said)


def _wants(asker: ProbeClient, settings: UpstreamSettings, found: probes.Found) -> list[Finding]:
    """What it has said that it wants otherwise."""
    ones = []
    if asker.api is Api.CHAT and asker.max_tokens_field != settings.max_tokens_field:
        field = asker.max_tokens_field
        ones.append(
            found(
                "limit on tokens",
                Level.WRONG,
                f"it is called {field}",
                settings=(("max_tokens_field", field),),
            )
        )
    if asker.api is Api.CHAT and not asker.wants_usage:
        dropped = [*settings.drop_fields, "stream_options"]
        ones.append(found("stream_options", Level.WRONG, "refused", settings=(("drop_fields", dropped),)))
    return ones
