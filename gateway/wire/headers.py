"""Which headers cross the gateway, in which direction.

Pure functions from headers to headers: what is ours to forward goes on, what belongs to one
connection, to one hop or to another tenant stays here. Nothing in this file looks at a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.wire.errors import invalid

CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key"})

# RFC 9110 §7.6.1: they speak of one connection, and ours to the backend is another one.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",  # aiohttp's parsers drop the trailers themselves
        "transfer-encoding",  # each side is framed anew; a copied one is request smuggling
        "upgrade",
        "http2-settings",  # RFC 7540 §3.2.1: part of an upgrade that we do not offer
    }
)

_NOT_TO_BACKEND = HOP_BY_HOP | {
    "host",  # names us; the backend's own name is set from its URL
    "expect",  # answered by us: "100 Continue" goes out once the backend has taken the connection
    "cookie",  # a browser's cookies are for our origin, not for the backend's
    "forwarded",  # RFC 7239 §8.1: anybody can write it, and the backend would believe it from us
    "x-real-ip",  # the same in nginx's spelling
    "x-request-id",  # replaced by ours: a caller's could be another request's, or a megabyte
    "idempotency-key",  # scoped to the caller's account; the backend would share it between tenants
    "last-event-id",  # a cursor into our event streams, not into the backend's
}
_NOT_TO_BACKEND_PREFIXES = (
    "proxy-",  # RFC 9110 §11.7: for the next proxy, which is us; includes a password
    "x-forwarded-",  # as Forwarded
)

# A background call has a body and an answer of our own making, and its credential travels apart.
_NOT_WITH_BACKGROUND = CREDENTIALS | {
    "accept",
    "accept-encoding",
    "content-encoding",
    "content-length",
    "content-type",
}

_NOT_TO_CLIENT = HOP_BY_HOP | {
    "set-cookie",  # it would bind a browser's state at our origin to one backend
    "server",  # which software stands behind us is nobody's business
    "alt-svc",  # RFC 7838: it would lead the client round the gateway
    "x-request-id",  # replaced by ours, in every spelling
}
_NOT_TO_CLIENT_PREFIXES = (
    "proxy-",  # RFC 9110 §11.7: between the backend and us
    "x-accel-",  # orders to an nginx in front of us: X-Accel-Redirect opens its internal files
)

# aiohttp refuses control characters in what it sends, and cannot send the surrogates that stand
# for bytes that are not UTF-8: one such value would fail the whole message with a 500.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

_KEY_AS_PROTOCOL = re.compile(r"\s*openai-insecure-api-key\.", re.IGNORECASE)


def to_backend(
    headers: CIMultiDictProxy[str],
    *,
    request_id: str,
    own: Mapping[str, str],
    keep_length: bool,
    withheld: frozenset[str] = frozenset(),
) -> CIMultiDict[str]:
    """The headers of the call to the backend.

    Args:
        own: What the gateway sets, in the place of the caller's.
        withheld: Names, in lower case, of what ends here.
        keep_length: Whether the body goes on as it came, so that its Content-Length still holds.
    """
    sent = CIMultiDict(
        (name, value)
        for name, value in _from_caller(headers)
        if name.lower() not in withheld and (keep_length or name.lower() != "content-length")
    )
    sent["X-Request-Id"] = request_id
    sent.add("Via", "1.1 backburner")  # RFC 9110 §7.6.3: a proxy adds itself after those before it
    for name, value in own.items():
        sent[name] = value
    return sent


def ask_to_upgrade(headers: CIMultiDict[str], *, may_have_keys: bool) -> None:
    """Ask for a WebSocket, as a client has; all else of the handshake is between it and the backend.

    Args:
        may_have_keys: Browsers cannot set headers, so some clients offer their key as a protocol.
    """
    headers["Connection"], headers["Upgrade"] = "Upgrade", "websocket"
    offered = ",".join(headers.popall("Sec-WebSocket-Protocol", ())).split(",")
    names = [name.strip() for name in offered if may_have_keys or not _KEY_AS_PROTOCOL.match(name)]
    if any(names):
        headers["Sec-WebSocket-Protocol"] = ",".join(filter(None, names))


def background_headers(
    headers: CIMultiDictProxy[str], *, withheld: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Those of the caller's headers that go with a background call; its credential is not here."""
    kept: dict[str, str] = {}
    for istr, value in _from_caller(headers):
        name = str(istr)  # a plain string: the headers are stored as JSON
        if name.lower() not in _NOT_WITH_BACKGROUND | withheld:
            # RFC 9110 §5.3: repeated fields may be joined, and a dict has one value for a name.
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def credential(headers: CIMultiDictProxy[str]) -> tuple[str, str] | None:
    """The caller's credential as (lower-cased header name, value), or None without one.

    Raises:
        Refusal: More than one. Which of them counts would be our guess, and another server's guess
            may differ: one caller could then act under two names. Or one that cannot be sent on.
    """
    found = [(name, value) for name in CREDENTIALS for value in headers.getall(name, ())]
    if len(found) > 1:
        raise invalid("Send one credential only: Authorization, api-key or x-api-key, once.")
    if found and not is_sendable(found[0][1]):
        raise invalid("The credential is not text.")
    return found[0] if found else None


def to_client(headers: CIMultiDictProxy[str], *, request_id: str) -> CIMultiDict[str]:
    """The headers of the answer; length, encoding and type of the body stay as they are."""
    nominated = _nominated(headers)
    sent: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        key = _folded(name)
        if key in _NOT_TO_CLIENT or key in nominated or key.startswith(_NOT_TO_CLIENT_PREFIXES):
            continue
        if is_sendable(value):
            sent.add(name, value)
    set_own(sent, request_id)
    if sent.get("Content-Type", "").lower().startswith("text/event-stream"):
        # nginx in front of us would otherwise hold events back until its buffer is full.
        sent["X-Accel-Buffering"] = "no"
    return sent


def set_own(headers: CIMultiDict[str], request_id: str) -> None:
    """What every answer says, besides what it is."""
    headers["Server"] = "backburner"
    headers["X-Request-Id"] = request_id
    # Model output is text by strangers: no browser may sniff a script in it.
    headers["X-Content-Type-Options"] = "nosniff"
    # One caller's answer must not come out of a shared cache for the next (RFC 9111 §3).
    headers.setdefault("Cache-Control", "no-store")


def is_sendable(text: str) -> bool:
    """Whether aiohttp can put this text on the wire, in a header, a status line or a target."""
    return not _UNSENDABLE.search(text)


def _from_caller(headers: CIMultiDictProxy[str]) -> Iterator[tuple[str, str]]:
    nominated = _nominated(headers)
    spelling: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key in _NOT_TO_BACKEND or key in nominated or key.startswith(_NOT_TO_BACKEND_PREFIXES):
            continue
        # WSGI, CGI and nginx fold `-`, `_` and `.` into one: `X_Forwarded_For` would come back to
        # life behind us as the header that was just dropped.
        if "_" in key or "." in key or not is_sendable(value):
            continue
        # One spelling for repeats: aiohttp's client lets a differently spelled repeat replace the first.
        yield spelling.setdefault(key, name), value


def _nominated(headers: CIMultiDictProxy[str]) -> frozenset[str]:
    """RFC 9110 §7.6.1: what Connection names is hop-by-hop too."""
    listed = ",".join(headers.getall("Connection", ()))
    return frozenset(_folded(name.strip()) for name in listed.split(",")) if listed else frozenset()


def _folded(name: str) -> str:
    """The header that a name turns into behind servers that fold `_` and `.`: `Set_Cookie` is one, too."""
    return name.lower().replace("_", "-").replace(".", "-")
