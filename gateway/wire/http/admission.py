"""What the head of a request must be before anybody acts on it, or asks for its body.

A parser refuses what is not HTTP. Left are requests that are HTTP, but that two servers may read
differently: what passes here means the same to the backend as it did to the gateway, or it goes no further.
"""

from __future__ import annotations

import re

from gateway.wire.errors import Fault, Refusal, invalid
from gateway.wire.http.head import Head, is_target

# RFC 3986 §3.2.2, without user information; `a/health?x=` moved a path behind an authority (CVE-2026-48746).
_AUTHORITY = re.compile(r"(?:[\w.~-]+|\[[0-9a-f:.]+(?:%25[\w.~-]+)?\])(?::[0-9]{0,5})?", re.A | re.I)

# A path that one server resolves to another path: a rule for `/v1/responses/…` would then hold here and not
# behind us.
_AMBIGUOUS = re.compile(
    r"""
    [^!-~] | \\ | %5c              # no URI (RFC 3986 §2); a backslash is a slash to some
    | //                           # an empty segment, which many servers drop
    | /\.\.?(?:[/;]|$)             # dot segments (§5.2.4), also in the form that servlets resolve
    | %2f                          # a slash that is none, until it is decoded
    | %[01][0-9a-f] | %7f          # control characters
    | %(?:2[de]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5f|7e)  # `%72esponses`: characters that mean themselves (§2.3)
    | %c[01] | %e0%[89] | %f0%8    # the same once more, in UTF-8 of too many bytes
    | %(?![0-9a-f]{2})             # not an escape
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CLEAR = re.compile(r"(?:/[a-z0-9_-][a-z0-9_.-]*)+", re.A | re.I)
"""What nearly all paths look like, to tell at once that nothing of the above is in them."""

_SLASH = re.compile("%2f", re.IGNORECASE)
_HAVE_SLASHES = "/models/"
"""What follows is the name of a model, and many have a slash in them: the SDKs send it as `%2F`."""

_NONCE = re.compile("[A-Za-z0-9+/]{22}==")
"""16 bytes in base64."""

_VERSIONS = ((1, 0), (1, 1))
_SHOW_THE_REQUEST = frozenset({"CONNECT", "TRACE"})


def admit(head: Head) -> None:
    """Let a request pass, or refuse it; its connection is then of no more use.

    Raises:
        Refusal: With what is wrong, and none of it repeated.
    """
    headers, version = head.headers, head.version
    if version not in _VERSIONS:
        raise bad_version()
    if "transfer-encoding" in headers:
        _check_framing(head)
    host = headers.first("host")
    if host is None:
        if version == (1, 1):  # RFC 9112 §3.2
            raise invalid("The request has no Host.", code="invalid_host")
    elif _AUTHORITY.fullmatch(host) is None:
        raise invalid("Host is not the name or address of a server.", code="invalid_host")
    if head.method.upper() in _SHOW_THE_REQUEST:  # to some backends `trace` is the same
        # TRACE would show the caller what the backend is sent, a key of the gateway's included.
        raise Refusal(Fault.METHOD, "This method is not supported.", code="unsupported_method")
    _check_target(head.target)
    if head.has_expectation:
        _check_expectation(head)
    _ = head.credential  # refuses more than one, in every mode
    if "upgrade" in headers and is_websocket(head) and (head.has_body or "transfer-encoding" in headers):
        # It would be read as a body here and as frames behind us, or the other way round.
        message = "A WebSocket upgrade must have no body."
        raise Refusal(Fault.NOT_IMPLEMENTED, message, code="upgrade_with_body")


def bad_version() -> Refusal:
    return Refusal(Fault.VERSION, "Only HTTP/1.0 and HTTP/1.1 are spoken here.", code="http_version")


def head_too_large() -> Refusal:
    return Refusal(Fault.HEAD_TOO_LARGE, "The request's head is too large.", code="head_too_large")


def unknown_method() -> Refusal:
    return Refusal(Fault.UNKNOWN_METHOD, "The method is none that is known here.", code="unknown_method")


def is_websocket(head: Head) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455 §4.2.1); other upgrades are not offered."""
    upgrade = head.headers.first("upgrade") or ""
    return upgrade.strip().lower() == "websocket" and "upgrade" in head.headers.listed("connection")


def is_handshake(head: Head) -> bool:
    """Whether that is asked for as RFC 6455 §4.1 wants it; the key's answer is for the backend to give."""
    key, version = head.headers.first("sec-websocket-key"), head.headers.first("sec-websocket-version")
    return head.method == "GET" and version == "13" and _NONCE.fullmatch(key or "") is not None


def _check_framing(head: Head) -> None:
    if head.version == (1, 0):  # RFC 9112 §6.1: its framing is faulty
        raise invalid("Transfer-Encoding needs HTTP/1.1.", code="invalid_framing")
    if head.headers.all("transfer-encoding")[0].lower() != "chunked":
        message = "No transfer coding but chunked is supported."
        raise Refusal(Fault.NOT_IMPLEMENTED, message, code="unsupported_transfer_coding")


def _check_target(target: str) -> None:
    if _CLEAR.fullmatch(target):
        return
    if not is_target(target):
        raise invalid("The request target must be an absolute path, without a fragment.", code="invalid_path")
    before, models, name = target.partition("?")[0].partition(_HAVE_SLASHES)
    if _AMBIGUOUS.search(f"{before}{models}{_SLASH.sub('/', name)}" if models else before):
        message = "The path has a dot segment, an empty segment, or an escape that may be read in two ways."
        raise invalid(message, code="invalid_path")


def _check_expectation(head: Head) -> None:
    if [each.lower() for each in head.headers.all("expect")] != ["100-continue"]:
        raise Refusal(Fault.EXPECTATION, "Only 100-continue can be expected.", code="unsupported_expectation")
