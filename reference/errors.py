"""docs/error-codes.md: every `error.code` that a client may get from the gateway, its status, and what to do.

Codes and statuses are read from the places that make refusals; only what they mean is written here. A test fails
while a code has no words here, or words have no code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from gateway.api.http.errors import STATUS
from gateway.core.reason import Reason
from gateway.store.sqlite.health import _CODES as STORE_CODES
from gateway.wire.errors import Fault
from gateway.wire.failures.causes import CODES as FAILURES
from gateway.wire.requests import _BOUNDS as BOUNDS
from reference.sources import Called, calls, words
from reference.tables import WRITTEN, table

_FIX = "Correct the request; `param` names the field."
_LATER = "Try again after `Retry-After`."

REQUESTS = {
    "array_above_max_length": ("A list is too long.", _FIX),
    "backend_removed": ("Admin API: the settings have the response's backend no longer.", "It cannot run again."),
    "backend_disconnected": ("The model server broke its answer off.", "Try again; look at its log."),
    "backend_timeout": (
        "The model server sent no answer in time.",
        "Try again; raise `plain_head_timeout_s` of the backend.",
    ),
    "backend_unavailable": ("The model server is left alone for a while, since calls to it failed.", _LATER),
    "backend_unreachable": ("The model server does not answer.", "Try again; see whether it runs."),
    "content_hidden": ("Admin API: what responses say is not shown.", "See `ui.content`."),
    "credential_gone": ("Admin API: the caller's own key is gone with the end of the response.",
                        "Only its caller can send it again."),
    "cross_site": ("Admin API: the change came from a page of another site.", "Use the gateway's own page."),
    "conversation_not_found": ("The model server knows no such conversation.", "Name another, or none."),
    "duplicate_key": ("A key is twice in one JSON object.", _FIX),
    "head_too_large": ("The head of the request is too large.", "Send fewer or shorter headers."),
    "host_refused": ("Admin API: without a token, `Host` must be an address or `localhost`.",
                     "Set an admin token, or name the port by its address."),
    "http_version": ("Neither HTTP/1.0 nor HTTP/1.1.", "Use HTTP/1.1."),
    "idempotency_key_reused": ("The `Idempotency-Key` was used for another request.", "Use a new key."),
    "above_max_value": ("A number is too large.", _FIX),
    "below_min_value": ("A number is too small.", _FIX),
    "internal_error": ("A bug in the gateway.", "Report it, with the log line `defect` of this `x-request-id`."),
    "invalid_admin_token": ("Admin API: this is not the token.", "See `server.admin_token_file`."),
    "invalid_api_key": ("The caller is not known, here or to the model server.", "Send a valid key."),
    "invalid_content_encoding": ("The body is not what its `Content-Encoding` says.", "Encode it anew."),
    "invalid_encrypted_content": ("Sealed thoughts were changed, are another caller's, or their key is gone.",
                                  "Leave the item out."),
    "invalid_framing": ("Body length and transfer coding contradict each other.", "Repair the client or proxy."),
    "invalid_host": ("`Host` is missing, or no name of a server.", "Repair the client or proxy."),
    "invalid_http": ("This is no well-formed HTTP.", "Repair the client or proxy."),
    "invalid_idempotency_key": ("The `Idempotency-Key` is not 1 to 255 printable characters.", "Send another."),
    "invalid_json": ("The body is no JSON object.", "Correct the body."),
    "invalid_path": ("The path can be read in more than one way.", "Send it without dot segments, `//` and the like."),
    "invalid_request_error": ("It cannot be done with a response in this state.", "Retrieve it, and see its `status`."),
    "invalid_type": ("A value has the wrong type.", _FIX),
    "invalid_value": ("A value is not allowed.", _FIX),
    "invalid_webhook_url": ("The receiver's URL is not allowed (`request_webhooks`).", "Name another."),
    "missing_required_parameter": ("A field is missing.", _FIX),
    "model_not_found": ("No backend serves this model.", "See `GET /models`."),
    "mutually_exclusive_parameters": ("Two fields exclude each other.", "Leave one out."),
    "no_admin_token": ("Admin API: changes need a token here, and none is set.", "See `server.admin_token_file`."),
    "nobody_to_tell": ("Admin API: no receiver was to be told of this response.", "See `webhooks.endpoints`."),
    "not_found": ("Admin API: there is no such response, backend, endpoint or page.", "See `message`."),
    "not_over": ("Admin API: the response has not ended yet.", "Wait, or cancel it first."),
    "object_above_max_properties": ("An object has too many keys.", _FIX),
    "origin_not_allowed": ("A browser's preflight from an origin that is not listed.", "See `server.cors_origins`."),
    "permission_denied": ("The model server does not allow this with this key.", "Use another key."),
    "previous_response_not_found": ("There is no such response, or no longer.",
                                    "Send the conversation as `input`; raise `background.retention_s`."),
    "previous_response_not_ready": ("That response runs still.", "Wait until it has ended."),
    "previous_response_not_usable": ("That response failed, was cancelled, or was not recorded.",
                                     "Send the conversation as `input`."),
    "rate_limit_exceeded": ("Too many responses wait: of all callers, or of this one.",
                            f"{_LATER} See `background.queue_max` and `queue_per_tenant_max`."),
    "read_only": ("Admin API: this token may look, and change nothing.", "Use the admin token."),
    "request_timeout": ("The request did not come in time.", "Try again; see `server.body_timeout_s`."),
    "request_too_large": ("The body is over a limit.", "Send less, or raise the limit that `message` names."),
    "shutting_down": ("The gateway is going down.", _LATER),
    "store_busy": ("Another program locks the database, or another gateway was in the way.", f"{_LATER} See `store.busy_timeout_s`."),
    "store_corrupt": ("The database is damaged.", "[Runbook](runbooks.md#backburnerstorenotok)."),
    "store_failing": ("The disk fails, the database was taken away, or PostgreSQL cannot be reached.", "[Runbook](runbooks.md#backburnerstorenotok)."),
    "store_full": ("There is no room for new responses.", "[Runbook](runbooks.md#backburnerstorenotok)."),
    "store_unavailable": ("The store does not answer.", "[Runbook](runbooks.md#backburnerstorenotok)."),
    "string_above_max_length": ("A text is too long.", _FIX),
    "string_below_min_length": ("A text is too short.", _FIX),
    "token_expired": ("The caller's token has expired.", "Get a new one."),
    "too_deep": ("The JSON is nested too deeply.", _FIX),
    "too_many_connections": ("`server.connections_max` are open.", _LATER),
    "too_many_streams": ("Too many readers of event streams.", f"{_LATER} See `stream.readers_max` and its like."),
    "too_many_values": ("The JSON has too many values.", "Send less."),
    "unknown_method": ("The method is not known, or too long.", "See `Allow`."),
    "unknown_parameter": ("There is no such field.", "Leave it out."),
    "unsupported_content_encoding": ("The body's coding is not known here.", "See `Accept-Encoding` of the answer."),
    "unsupported_expectation": ("`Expect` is not `100-continue`.", "Leave it out."),
    "unsupported_method": ("`CONNECT` and `TRACE` are not served.", "Use another."),
    "unsupported_parameter": ("The backend, or the gateway, cannot do this.", "Leave it out, or use another backend."),
    "unsupported_transfer_coding": ("Only `chunked` is known.", "Repair the client or proxy."),
    "upgrade_refused": ("The model server refused the WebSocket.", "See its log."),
    "upgrade_with_body": ("A WebSocket handshake with a body.", "Repair the client."),
    "websocket_not_supported": ("There is no WebSocket here.", "Send the request by `POST`, with `stream: true`."),
}  # fmt: skip
"""What it means, and what to do: of answers to requests."""

RESPONSES = {
    "bio_policy": ("Refused by the model server's policy.", "Change the input."),
    "content_filter": ("Stopped by the model server's filter.", "Change the input."),
    "context_length_exceeded": ("The input is too long for the model.", "Shorten or compact the conversation."),
    "data_residency_mismatch": ("The model server may not process this here.", "Use another backend."),
    "insufficient_quota": ("The account at the model server has no quota left.", "Add credit; no retry helps."),
    "invalid_api_key": ("The model server refused the key.", "Send a valid key, or renew the gateway's."),
    "invalid_prompt": ("The model server refused the request.", "Correct what `message` says."),
    "misalignment_policy_violation": ("Refused by the model server's policy.", "Change the input."),
    "model_not_found": ("The model server does not have the model.", "See `GET /models`, and `rename`."),
    "permission_denied": ("The model server does not allow this with this key.", "Use another key."),
    "rate_limit_exceeded": ("The model server's limit; the gateway has tried again.", "Send it later."),
    "server_error": ("The model server or the network failed, or the gateway was stopped.",
                     "Send it again; the log line of its end has the `reason`."),
    "server_is_overloaded": ("The model server had no capacity; the gateway has tried again.", "Send it later."),
    "vector_store_timeout": ("A search of the model server took too long.", "Send it again."),
}  # fmt: skip
"""The same of responses that failed. Codes of images are alike, and stand in one line."""


def _statuses(call: Called) -> set[int]:
    if call.name == "invalid":
        return {STATUS[Fault.INVALID]}
    if call.name == "not_let_in":
        return {STATUS[Fault.UNAUTHENTICATED]}
    named = {node.attr for arg in call.args[:1] for node in ast.walk(arg) if isinstance(node, ast.Attribute)}
    return {STATUS[Fault[name]] for name in named if name in Fault.__members__}


def refusals() -> dict[str, set[int]]:
    """Every code of an answer to a request, with its HTTP statuses."""
    found: dict[str, set[int]] = {code: {400} for code, *_ in BOUNDS.values()}
    for call in calls("Refusal", "invalid", "not_let_in"):
        default = {"invalid": {"invalid_value"}, "not_let_in": {"invalid_api_key"}}.get(call.name, set())
        for code in words(call.named["code"]) if "code" in call.named else default:
            found.setdefault(code, set()).update(_statuses(call))
    for code in {"store_unavailable", "store_busy", *(code for code, _ in STORE_CODES.values())}:
        found.setdefault(code, set()).add(STATUS[Fault.UNAVAILABLE])
    for reason in Reason:
        if reason.code is not None:
            found.setdefault(reason.code, set()).add(reason.http_status)
    found["upgrade_refused"] |= {STATUS[Fault.BACKEND_UNREACHABLE]}
    return found


def _rows(meanings: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    found = refusals()
    for code, (meaning, remedy) in sorted(meanings.items()):
        yield f"`{code}`", ", ".join(map(str, sorted(found[code]))), meaning, remedy


def page() -> str:
    images = sorted(FAILURES - RESPONSES.keys())
    failed = [(f"`{code}`", meaning, remedy) for code, (meaning, remedy) in sorted(RESPONSES.items())]
    of_images = ", ".join(f"`{code}`" for code in images)
    failed.append((of_images, "The model server could not use an image.", "Send another."))
    parts = [
        "# Error codes",
        WRITTEN,
        "`error.code` of what the gateway answers itself. Programs should look at it and not at `message`. An answer that is "
        "passed on has the model server's own codes. 404 of a response has no code: unknown, expired, deleted and another "
        "caller's are one.",
        "## Of requests",
        table(("code", "status", "what it means", "what to do"), _rows(REQUESTS)),
        "## Of responses that failed",
        "In `error` of a response with `status: failed`, and of its last event. `message` has the model server's own words.",
        table(("code", "what it means", "what to do"), failed),
    ]
    return "\n\n".join(parts) + "\n"
