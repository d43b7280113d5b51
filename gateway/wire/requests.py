"""A create request: its body, whether it is valid, what the backend is sent; and whether it is sent again."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)

from gateway.wire.errors import Refusal, invalid
from gateway.wire.events import is_writable
from gateway.wire.query_strings import INCLUDE, check_include
from gateway.wire.shapes import judge, wrong_type
from gateway.wire.tools import CALLED, SIDE_EFFECTS, declared

KEY_PATTERN = r"^[ -~]{1,255}$"
"""The characters of a structured field's string (RFC 8941 §3.3.3), for `Idempotency-Key`."""

_PAIRS_MAX, _KEY_CHARS_MAX, _VALUE_CHARS_MAX = 16, 64, 512
_METADATA = {
    "maxProperties": _PAIRS_MAX,
    "propertyNames": {"maxLength": _KEY_CHARS_MAX},
    "additionalProperties": {"type": "string", "maxLength": _VALUE_CHARS_MAX},
}


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 16.0 is the integer 16 (RFC 8259 §6, JSON Schema 2020-12 §6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(**schema: Any) -> Any:
    """Bounds that the published schema adds to a field. `validate` checks them and words the error."""
    return Field(json_schema_extra=schema)


# A list is judged up to its first fault: a report on each of a hundred thousand would hold up everybody.
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]
Strings = Annotated[StrictStr, Field(max_length=64 * 1024)]
Number = Annotated[float, Field(strict=True)]
_WHOLE = BeforeValidator(_whole)


class CreateRequest(BaseModel):
    """The fields whose types and bounds hold for every backend. All others pass untouched."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[StrictStr, Field(min_length=1, max_length=1024)] | None = None
    input: StrictStr | Objects | None = None
    background: StrictBool | None = None
    stream: StrictBool | None = None
    store: StrictBool | None = None
    instructions: StrictStr | Objects | None = None
    previous_response_id: Strings | None = None
    conversation: StrictStr | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: (
        Annotated[list[StrictStr], Field(fail_fast=True), _shown(items={"enum": sorted(INCLUDE)})] | None
    ) = None
    metadata: Annotated[dict[str, Any], _shown(**_METADATA)] | None = None
    tools: Objects | None = None
    tool_choice: StrictStr | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = None
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20), _WHOLE] | None = None
    max_output_tokens: Annotated[StrictInt, Field(ge=1), _WHOLE] | None = None
    max_tool_calls: Annotated[StrictInt, Field(ge=1), _WHOLE] | None = None
    service_tier: Strings | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: Strings | None = None
    safety_identifier: Annotated[StrictStr, Field(max_length=64)] | None = None
    prompt_cache_key: Strings | None = None
    cache_salt: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9+/=_.:-]{1,64}$")] | None = None
    """vLLM's; some that are not short words end its engine (CVE-2026-105756)."""


def validate(body: dict[str, Any], *, accept_store_false: bool) -> None:
    """Refuse a background create request that could never run, naming the field.

    Raises:
        Refusal: OpenAI-shaped, with `param` and `code`.
    """
    try:
        request = CreateRequest.model_validate(body)
    except ValidationError as error:
        raise _explain(error) from None
    if request.input is None and not (request.prompt or request.previous_response_id or request.conversation):
        raise invalid(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    if request.previous_response_id and request.conversation:
        raise invalid(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
            "Provide only one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    if request.store is False and not accept_store_false:
        raise invalid(
            "'background' needs 'store': a background response is stored so that it can be polled. "
            "Leave 'store' out, or set it to true.",
            param="background",
            code="unsupported_parameter",
        )
    _validate_metadata(request.metadata or {})
    for value in request.include or []:
        check_include(value)
    judge(body, request.input)


def validate_depth(body: dict[str, Any]) -> None:
    """Refuse a plain request that can be read but not written; events hold it a little deeper.

    Raises:
        Refusal: It is nested too deeply. A background one was looked over for that.
    """
    written([[[[body]]]])


def written(value: Any) -> bytes:
    """JSON of what a client sent. Raises: Refusal, if it is nested too deeply to be written."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise invalid("The request is nested too deeply: at most 250 levels.", code="too_deep") from None


def _validate_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > _PAIRS_MAX:
        raise invalid(
            f"Too many pairs in 'metadata': at most {_PAIRS_MAX}, got {len(metadata)}.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if len(key) > _KEY_CHARS_MAX:
            raise invalid(
                f"A key in 'metadata' is longer than {_KEY_CHARS_MAX} characters.",
                param="metadata",
                code="string_above_max_length",
            )
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key}", "a string", value)
        if len(value) > _VALUE_CHARS_MAX:
            raise invalid(
                f"The value of 'metadata.{key}' is longer than {_VALUE_CHARS_MAX} characters.",
                param=f"metadata.{key}",
                code="string_above_max_length",
            )


_EXPECTED = {
    "string_type": "a string",
    "bool_type": "a boolean",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "list_type": "an array",
    "dict_type": "an object",
}
_BOUNDS = {
    "greater_than_equal": ("below_min_value", "at least", "ge"),
    "less_than_equal": ("above_max_value", "at most", "le"),
    "string_too_long": ("string_above_max_length", "at most this many characters:", "max_length"),
    "string_too_short": ("string_below_min_length", "at least this many characters:", "min_length"),
}


def _explain(error: ValidationError) -> Refusal:
    """The first problem, in the API's form. Never repeats the value: it may be long, or private."""
    problems = error.errors(include_url=False)
    field = str(problems[0]["loc"][0])
    # Every branch of a union reports; the one that got furthest is the one that was meant.
    same_field = [problem for problem in problems if problem["loc"][0] == field]
    depth = max(len(problem["loc"]) for problem in same_field)
    meant = [problem for problem in same_field if len(problem["loc"]) == depth]
    first = meant[0]
    # Between field and index pydantic puts the branch's name, which is no key of the request.
    path = ".".join([field, *(str(step) for step in first["loc"] if isinstance(step, int))])
    if first["type"] in _BOUNDS:
        code, words, bound = _BOUNDS[first["type"]]
        limit = first.get("ctx", {}).get(bound)
        return invalid(f"Invalid value for '{field}': expected {words} {limit}.", param=field, code=code)
    wanted = list(dict.fromkeys(_EXPECTED[p["type"]] for p in meant if p["type"] in _EXPECTED))
    if wanted:
        return wrong_type(path, " or ".join(wanted), first["input"])
    return invalid(f"Invalid value for '{path}': {first['msg']}.", param=path)


def is_rerunnable(body: dict[str, Any]) -> bool:
    """True if the backend may be called a second time without doing something twice."""
    return not any(tool.kind.startswith(SIDE_EFFECTS) for tool in declared(body, body.get("input")))


def has_built_in_tools(body: dict[str, Any]) -> bool:
    """True if it has tools that its client does not run, or not by itself."""
    return any(tool.kind not in CALLED for tool in declared(body, body.get("input")))


def is_turn(body: dict[str, Any]) -> bool:
    """True if a plain request may be kept as a turn: its client allows it, and `input` is all that the model
    was told, which it is not where a conversation or a prompt of the backend's own stands before it."""
    if body.get("store") is False or body.get("conversation") or body.get("prompt"):
        return False
    given = body.get("input")
    is_list = isinstance(given, list) and all(isinstance(item, dict) for item in given)
    return (given is None or isinstance(given, str) or is_list) and is_writable(body)


def backend_body(body: dict[str, Any], *, input: Any) -> bytes:
    """The body of the synchronous call: what the client sent, but streamed, foreground and not stored.

    Unknown and vendor fields survive. A field of the API's own that is null says nothing, but some backends
    refuse a null (vLLM of `tool_choice`, llama.cpp of `tools`): it is left out. `store` is false because the
    gateway is the store: a backend with a store of its own would keep a second copy for as long as it likes.
    A `previous_response_id` that is still here is the backend's own.
    """
    call = {
        name: value
        for name, value in body.items()
        if name != "background" and (value is not None or name not in CreateRequest.model_fields)
    }
    call["stream"] = True
    call["store"] = False
    if input is not None:
        call["input"] = input
    if isinstance(call.get("stream_options"), dict):
        call["stream_options"] = {**call["stream_options"], "include_obfuscation": False}
    return orjson.dumps(call)


def chained_body(body: dict[str, Any], *, input: Any) -> bytes:
    """A plain request whose `previous_response_id` was ours: the earlier turns stand in `input` instead.

    Raises:
        Refusal: It is nested too deeply.
    """
    call = {name: value for name, value in body.items() if name != "previous_response_id"}
    return written({**call, "input": input})


# -- a create that is sent again


def idempotency_key(given: list[str]) -> str | None:
    """The `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07), as it is, quotes included.

    Raises:
        Refusal: It was given more than once, or has other characters.
    """
    if not given:
        return None
    if len(given) > 1 or not re.fullmatch(KEY_PATTERN, given[0]):
        raise invalid(
            "'Idempotency-Key' must be given once, with 1 to 255 printable ASCII characters.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    return given[0]


def is_retry(count: str | None) -> bool:
    """True if the client retries: `X-Stainless-Retry-Count` of the official SDKs says so."""
    return count is not None and re.fullmatch(r"0*[1-9][0-9]{0,3}", count) is not None
