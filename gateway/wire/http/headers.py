"""Which headers cross the gateway, in which direction.

Pure functions from headers to headers: what is ours to forward goes on, what belongs to one
connection, to one hop or to another tenant stays here. Nothing in this file looks at a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from itertools import chain

from gateway.wire.http.head import CREDENTIALS, Headers, is_sendable

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 §5.1."""

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

# Known to hold no secret: they may lie on disk beside a job.
_STORABLE = frozenset(
    {"accept-language", "openai-beta", "openai-organization", "openai-project", "user-agent"}
)

_NOT_TO_CLIENT = HOP_BY_HOP | {
    "set-cookie",  # it would bind a browser's state at our origin to one backend
    "server",  # which software stands behind us is nobody's business
    "alt-svc",  # RFC 7838: it would lead the client round the gateway
    "x-request-id",  # replaced by ours, in every spelling
    "x-content-type-options",  # replaced by ours
}
_NOT_TO_CLIENT_PREFIXES = (
    "proxy-",  # RFC 9110 §11.7: between the backend and us
    "x-accel-",  # orders to an nginx in front of us: X-Accel-Redirect opens its internal files
)

_TRACE_CONTEXT = frozenset({"traceparent", "tracestate"})
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, version 00."""

_PROTOCOL = "sec-websocket-protocol"
_KEY_AS_PROTOCOL = re.compile(r"\s*openai-insecure-api-key\.", re.IGNORECASE)

_Field = tuple[str, str, str]
"""Name in lower case, name, value."""


def to_backend(
    headers: Headers, *, request_id: str, own: Mapping[str, str], withheld: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """The headers of the call to the backend.

    Args:
        own: What the gateway sets, in the place of the caller's.
        withheld: Names, in lower case, of what ends here.
    """
    dropped = withheld | {name.lower() for name in own}
    fields = chain(_from_caller(headers), _of_proxy(request_id))
    return [*((name, value) for key, name, value in fields if key not in dropped), *own.items()]


def of_job(
    headers: Mapping[str, str],
    *,
    request_id: str,
    key: str,
    own: Mapping[str, str],
    traced: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a call that a job makes.

    Args:
        headers: As `background_headers` gave them.
        key: Which call this is, for backends that honour an idempotency key.
        traced: The trace that the backend goes on with, in place of the caller's.
    """
    if traced:
        others = {name: value for name, value in headers.items() if name.lower() not in _TRACE_CONTEXT}
        headers = {**others, **traced}
    return {
        **headers,
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Idempotency-Key": key,
        **{name: value for _, name, value in _of_proxy(request_id)},
        **own,
    }


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """The trace that a request belongs to, with names in lower case; nothing, if it does not say."""
    found = {name.lower(): value for name, value in headers.items() if name.lower() in _TRACE_CONTEXT}
    return found if _TRACEPARENT.fullmatch(found.get("traceparent", "")) else {}


def ask_to_upgrade(headers: list[tuple[str, str]], *, may_have_keys: bool) -> list[tuple[str, str]]:
    """Ask for a WebSocket, as a client has; all else of the handshake is between it and the backend.

    Args:
        may_have_keys: Browsers cannot set headers, so some clients offer their key as a protocol.
    """
    offered = ",".join(value for name, value in headers if name.lower() == _PROTOCOL).split(",")
    names = [name.strip() for name in offered if may_have_keys or not _KEY_AS_PROTOCOL.match(name)]
    sent = [pair for pair in headers if pair[0].lower() != _PROTOCOL]
    sent += [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    return [*sent, ("Sec-WebSocket-Protocol", ",".join(filter(None, names)))] if any(names) else sent


def background_headers(headers: Headers, *, withheld: frozenset[str] = frozenset()) -> dict[str, str]:
    """Those of the caller's headers that go with a background call; its credential is not here."""
    kept: dict[str, str] = {}
    for key, spelled, value in _from_caller(headers):
        name = str(spelled)  # a parser may give a subclass, and the headers are stored as JSON
        if key not in _NOT_WITH_BACKGROUND and key not in withheld:
            # RFC 9110 §5.3: repeated fields may be joined, and a dict has one value for a name.
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def storable(headers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Those of a background call that may lie on disk, and all others, which stay in memory."""
    known = _STORABLE | ({"traceparent"} if trace_context(headers) else set())
    stored = {name: value for name, value in headers.items() if name.lower() in known}
    return stored, {name: value for name, value in headers.items() if name not in stored}


def to_client(headers: Iterable[tuple[str, str]], *, request_id: str) -> list[tuple[str, str]]:
    """The headers of the answer; length, encoding and type of the body stay as they are."""
    given = list(headers)
    nominated = _nominated(
        [value for name, value in given if len(name) == 10 and _folded(name) == "connection"]
    )
    own: dict[str, str] = {}
    set_own(own, request_id)
    sent: list[tuple[str, str]] = []
    for name, value in given:
        key = _to_client_as(name)
        if not key or key in nominated or not is_sendable(value):
            continue
        if key == "cache-control":
            own.pop("Cache-Control", None)
        elif key == "content-type" and value.lower().startswith("text/event-stream"):
            # nginx in front of us would otherwise hold events back until its buffer is full.
            own["X-Accel-Buffering"] = "no"
        sent.append((name, value))
    return [*sent, *own.items()]


def set_own(headers: MutableMapping[str, str], request_id: str) -> None:
    """What every answer says, besides what it is."""
    headers["Server"] = "backburner"
    headers["X-Request-Id"] = request_id
    # Model output is text by strangers: no browser may sniff a script in it.
    headers["X-Content-Type-Options"] = "nosniff"
    # One caller's answer must not come out of a shared cache for the next (RFC 9111 §3).
    headers.setdefault("Cache-Control", "no-store")


def _of_proxy(request_id: str) -> tuple[_Field, ...]:
    """What every call to a backend says of its way here."""
    # RFC 9110 §7.6.3: a proxy adds itself after those before it.
    return ("x-request-id", "X-Request-Id", request_id), ("via", "Via", "1.1 backburner")


def _from_caller(headers: Headers) -> Iterator[_Field]:
    """What may go on of a request."""
    nominated = _nominated(headers.all("connection"))
    spelling: dict[str, str] = {}
    for name, value in headers.pairs:
        key = _from_caller_as(name)
        if not key or key in nominated or not is_sendable(value):
            continue
        # One spelling for repeats: aiohttp's client lets a differently spelled repeat replace the first.
        yield key, spelling.setdefault(key, name), value


@lru_cache(maxsize=1024)
def _from_caller_as(name: str) -> str:
    """The name of a caller's header in lower case; empty, if such headers end here."""
    key = name.lower()
    # WSGI, CGI and nginx fold `-`, `_` and `.` into one: `X_Forwarded_For` would come back to
    # life behind us as the header that was just dropped.
    ends = key in _NOT_TO_BACKEND or key.startswith(_NOT_TO_BACKEND_PREFIXES) or "_" in key or "." in key
    return "" if ends else key


@lru_cache(maxsize=1024)
def _to_client_as(name: str) -> str:
    """The same for a backend's header. What is no name ends here, too: the blank before a colon, which the
    parser of answers takes, would hide the others from this."""
    key = _folded(name)
    if _NAME.fullmatch(name) is None:
        return ""
    return "" if key in _NOT_TO_CLIENT or key.startswith(_NOT_TO_CLIENT_PREFIXES) else key


def _nominated(connection: Iterable[str]) -> frozenset[str]:
    """RFC 9110 §7.6.1: what Connection names is hop-by-hop too."""
    listed = ",".join(connection)
    return frozenset(_folded(name.strip()) for name in listed.split(",")) if listed else frozenset()


def _folded(name: str) -> str:
    """The header that a name turns into behind servers that fold `_` and `.`: `Set_Cookie` is one, too."""
    return name.lower().replace("_", "-").replace(".", "-")
