"""Failures of backends, as the `error` of a failed response.

A backend's own words are kept. Where they may stand in an error is in `errorbody`, what they mean in
`causes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.wire.failures import causes, waits
from gateway.wire.failures.errorbody import ErrorFacts, readable_words, said_in, said_in_bytes

MESSAGE_CHARS_MAX = 2_000

_GENERIC = frozenset({"server_error", "invalid_prompt"})
"""Codes that say next to nothing: words that say more count more."""

Failure = dict[str, str]
"""`{"code", "message"}`."""


@dataclass(frozen=True, slots=True)
class ToldFailure:
    """A failure, as a backend told it.

    Attributes:
        status: Its HTTP status, or the one that its words mean where these are more precise than a 5xx; of
            one that was told within a stream, the status that it would have had, None if it gives no sign
            of that.
        asked_s: How long the backend asked to be left alone.
        is_last_word: The same request would be refused at any other time, too.
        is_mute: It says only that something failed.
    """

    failure: Failure
    status: int | None = None
    asked_s: float | None = None
    is_last_word: bool = False
    is_mute: bool = False


def failure(message: str, code: str = "server_error") -> Failure:
    """A failure in our own words."""
    return {"code": code, "message": message}


def after_calls(failed: Failure, calls: int) -> Failure:
    """The same, with how often the backend was asked."""
    return {**failed, "message": f"{failed['message']} (The backend was asked {calls} times.)"}


def of_status(status: int, body: bytes) -> ToldFailure:
    """The failure that an HTTP error answer of a backend means."""
    said = said_in_bytes(body)
    if said.words is not None:
        return _told(said, said.words, status, shown=said.words)
    words = readable_words(body)
    shown = f"The backend answered with status {status}" + (f": {words}" if words else ".")
    return _told(said, words or "", status, shown=shown)


def of_event(event: dict[str, Any]) -> ToldFailure:
    """The failure in a stream's `error` event, in whatever shape."""
    said = said_in(event)
    words = said.words
    number = said.numbers[0] if said.numbers else None
    return _told(said, words or "", number, shown=words or "The backend reported an error.")


def of_failed(event: dict[str, Any]) -> ToldFailure:
    """The failure in an event that ends a response as failed."""
    response = event.get("response")
    error = response.get("error") if isinstance(response, dict) else None
    beside = {
        name: value for name, value in event.items() if name not in ("type", "response", "sequence_number")
    }
    return of_event({"error": error} if error else beside)


def error_in(value: Any) -> Any:
    """What is an error in an object that should be an answer or a piece of one; None if it is none.

    - `{"error": …}`, by nearly everybody, with `choices` (OpenRouter) or without; in a list (Gemini)
    - `{"object": "error", …}` (vLLM, SGLang), `{"type": "error", …}` (Anthropic), `response.error` (Stream)
    - in a choice (OpenRouter)
    - `{"base_resp": {"status_code": 1008, …}}`, of which 0 stands in every good answer (MiniMax)
    - `{"detail": …}` (FastAPI), `{"message": …, "code": …}` (LM Studio and others), if that is all there is
    """
    if isinstance(value, list):
        return next((found for one in value[:1] if (found := error_in(one))), None)
    if not isinstance(value, dict):
        return None
    if (
        value.get("error")
        or value.get("object") == "error"
        or value.get("type") in ("error", "response.error")
    ):
        return value
    choices = value.get("choices")
    if choices and isinstance(choices, list):
        return next((one for one in choices if isinstance(one, dict) and one.get("error")), None)
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return base
    return value if _is_bare(value) else None


_ANSWER_KEYS = frozenset({"choices", "output", "response", "delta", "item", "part", "usage", "object"})


def _is_bare(value: dict[str, Any]) -> bool:
    """An error with nothing around it: words, and no field of an answer."""
    if not _ANSWER_KEYS.isdisjoint(value):
        return False
    if value.get("detail") or value.get("errors"):
        return True
    words = next((value[name] for name in ("message", "msg", "error_msg", "Message") if name in value), None)
    if not isinstance(words, str):
        return error_in(words) is not None
    kind = value.get("type")
    return not isinstance(kind, str) or "code" in value or "error" in kind.lower()


def _told(said: ErrorFacts, words: str, number: int | None, *, shown: str) -> ToldFailure:
    """Args: number: The HTTP status, or the one that the error names."""
    given = next((name for name in said.names if name in causes.CODES), None)
    cause = causes.by_name(said.names)
    if cause is None and (given is None or given in _GENERIC):
        cause = causes.by_words(words)
        if cause is causes.CONTEXT and number == 429:  # Bedrock: "Too many tokens, please wait"
            cause = causes.RATE
    is_precise = cause is not None and cause.code not in _GENERIC
    code = cause.code if cause is not None and is_precise else given or causes.code_of(number)
    is_named_better = cause is not None and (number is None or number >= 500)
    asked_s = said.asked_s if said.asked_s is not None else waits.in_words(words)
    return ToldFailure(
        {"code": code, "message": shown.split('\n\n  File "')[0][:MESSAGE_CHARS_MAX]},  # no stack trace
        status=cause.status if cause is not None and is_named_better else number,
        asked_s=asked_s,
        is_last_word=code == causes.RATE.code and asked_s is None and causes.is_beyond_any_wait(words),
        is_mute=not said.messages and cause is None and given is None and number is None,
    )
