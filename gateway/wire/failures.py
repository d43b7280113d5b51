"""What went wrong at a backend, as the `error` of a failed response.

Source of the codes: the specification's `ResponseErrorCode`, plus `insufficient_quota`, which the real
service sends. A backend's message is kept; its status decides the code.
"""

from __future__ import annotations

from typing import Any

import orjson

MESSAGE_CHARS_MAX = 2_000
_PLAIN_CHARS_MAX = 300

_CODES = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "misalignment_policy_violation",
        "bio_policy",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "insufficient_quota",
    }
)

Failure = dict[str, str]
"""`{"code", "message"}`."""


def failure(message: str, code: str = "server_error") -> Failure:
    """A failure in our own words."""
    return {"code": code, "message": message}


def after_calls(failed: Failure, calls: int) -> Failure:
    """The same, with how often the backend was asked."""
    return {**failed, "message": f"{failed['message']} (The backend was asked {calls} times.)"}


def of_status(status: int, body: bytes) -> Failure:
    """The failure that an HTTP error answer of a backend means."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    given_code, message = _read(parsed)
    if message is None:
        text = body[:_PLAIN_CHARS_MAX].decode("utf-8", "replace").strip()
        shown = text if text and not text.startswith("<") and text.isprintable() else None
        message = f"The backend answered with status {status}" + (f": {shown}" if shown else ".")
    message = message.split('\n\n  File "')[0]  # a stack trace: paths of the backend's machine
    return {"code": given_code or _code_of(status), "message": message[:MESSAGE_CHARS_MAX]}


def of_event(event: dict[str, Any]) -> Failure:
    """The failure in a stream's `error` event (flat or nested), or in a failed response's `error`."""
    code, message = _read(event)
    nested = event.get("error")
    raw = nested.get("code") if isinstance(nested, dict) else event.get("code")
    if code is None:
        code = _code_of(raw) if isinstance(raw, int) else "server_error"
    return {"code": code, "message": (message or "The backend reported an error.")[:MESSAGE_CHARS_MAX]}


def _read(value: Any) -> tuple[str | None, str | None]:
    """Code (if the API has it) and message, from the shapes that servers use."""
    if not isinstance(value, dict):
        return None, None
    inner = value.get("error")
    if isinstance(inner, str):
        return None, inner or None
    if isinstance(inner, dict):
        value = inner
    message = value.get("message")
    if not isinstance(message, str):
        detail = value.get("detail")  # FastAPI: a string, or a list of problems
        message = detail if isinstance(detail, str) else orjson.dumps(detail).decode() if detail else None
    names = (value.get("code"), value.get("type"))
    code = next((name for name in names if isinstance(name, str) and name in _CODES), None)
    return code, message or None


def _code_of(status: int) -> str:
    if status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status in (400, 404, 413, 415, 422) else "server_error"
