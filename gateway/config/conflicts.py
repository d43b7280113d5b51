"""Settings that exclude each other, because one of the two could never take effect.

Each conflict names its settings, so that the loader can tell the place they come from. No reason may
quote a credential, a header or a URL.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from yarl import URL

if TYPE_CHECKING:
    from gateway.config.backends import UpstreamSettings
    from gateway.config.models import ServerSettings, Settings

Conflict = tuple[tuple[str, ...], str]  # settings, the one to blame first, and why they cannot all be

_NEVER_LARGER = (
    ("background.event_bytes_max", "background.events_bytes_max", "one event is never larger than all"),
    ("background.events_bytes_max", "store.database_bytes_max", "one job would not fit the database"),
    ("background.body_bytes_max", "store.database_bytes_max", "one body would not fit the database"),
    ("background.body_bytes_max", "server.body_bytes_max", "the server refuses such a body first"),
    ("store.wal_truncate_bytes", "store.wal_bytes_max", "the log is never emptied in time"),
    ("server.body_idle_timeout_s", "server.body_timeout_s", "the whole body is given up first"),
    ("background.queue_per_tenant_max", "background.queue_max", "the whole queue is full first"),
    ("stream.readers_per_response_max", "stream.readers_per_tenant_max", "the caller's limit is met first"),
    ("stream.readers_per_tenant_max", "stream.readers_max", "the limit on all readers is met first"),
    ("stream.tail_bytes_max", "stream.tails_bytes_max", "not even one would fit"),
    (
        "background.unflushed_bytes_max",
        "background.unflushed_total_bytes_max",
        "the limit on all responses is met first",
    ),
)
_MODE_SETTINGS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (  # what each needs, and may have
    ("static_keys", (), ("keys", "keys_file")),
    ("jwt", ("jwt_keys_file", "jwt_issuer", "jwt_audience", "jwt_algorithms"), ("jwt_leeway_s",)),
    ("trusted_header", ("header", "header_peers"), ()),
    ("none", (), ("allow_anyone",)),
)
_FILE_KEYS = (
    "database",
    "database_bytes_max",
    "ballast_bytes",
    "wal_truncate_bytes",
    "wal_bytes_max",
    "check_bytes_max",
    "found_within_ms",
    "on_corrupt",
    "allow_fuse",
)
_POSTGRESQL_KEYS = ("pooler", "connect_timeout_s")
_KEYS = ("api_key", "api_key_file", "api_key_env")
_ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104  (compared with, not bound)
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


class ConflictError(ValueError):
    """Settings that contradict each other, all of them; pydantic would carry only one message."""

    def __init__(self, found: list[Conflict]) -> None:
        super().__init__("; ".join(reason for _, reason in found))
        self.found = found


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """All of them, in the order in which they are to be told."""
    for small, large, why in _NEVER_LARGER:
        a, b = (attrgetter(name)(settings) for name in (small, large))
        if a > b:
            yield (small, large), f"{small} ({a}) is larger than {large} ({b}): {why}"
    if settings.upstream is not None and settings.backends:
        yield ("upstream", "backends"), "upstream and backends are both given: name it among the backends"
    if settings.upstream is None and not settings.backends:
        yield ("upstream", "backends"), "upstream.url is required, or backends in place of upstream"
    backends = _by_prefix(settings)
    for prefix, backend in backends.items():
        yield from _within(prefix, backend)
    yield from _between({prefix: each for prefix, each in backends.items() if prefix != "upstream"})
    chosen = settings.default_backend
    known = [*settings.backends, *(["default"] if settings.upstream is not None else [])]
    if chosen is not None and known and chosen not in known:
        yield ("default_backend",), f"default_backend must name a backend: {', '.join(known)}"
    yield from _listeners(settings, backends)
    if settings.server.admin_token_file is not None and settings.server.admin_token_env is not None:
        both = ("server.admin_token_file", "server.admin_token_env")
        yield both, f"{both[0]} and {both[1]} are both given: there is one token"
    yield from _read_token(settings.server)
    yield from _callers(settings)
    yield from _cors(settings.server)
    for prefix, backend in backends.items():
        if backend.cache_salt and settings.tenants.mode == "none":
            both = (f"{prefix}.cache_salt", "tenants.mode")
            yield (
                both,
                f"{both[0]} is true and {both[1]} is none: all callers are one, and would get one salt",
            )
    yield from _webhooks(settings)
    yield from _store(settings, backends)


def _store(settings: Settings, backends: dict[str, UpstreamSettings]) -> Iterator[Conflict]:
    store = settings.store
    fields = type(store).model_fields
    others = _FILE_KEYS if store.is_shared else _POSTGRESQL_KEYS
    for key in others:
        if getattr(store, key) != fields[key].get_default(call_default_factory=True):
            names = (f"store.{key}", "store.url")
            why = "which store.url replaces" if store.is_shared else "of which store.url would be the address"
            kind = "the SQLite file" if store.is_shared else "a PostgreSQL database"
            yield names, f"store.{key} is for {kind}, {why}"
    credentials = settings.credentials
    is_sealed = credentials.sealing_keys or credentials.sealing_keys_file is not None
    if not store.is_shared or is_sealed or not settings.tenants.passes_credentials:
        return
    for prefix, backend in backends.items():
        if all(getattr(backend, key) is None for key in _KEYS):
            yield (
                ("credentials.sealing_keys", f"{prefix}.api_key", "store.url"),
                f"{prefix} is called with its callers' credentials, and store.url is shared: whichever "
                "gateway runs a job must be able to open them. Give credentials.sealing_keys, the same to "
                "all gateways, or a key of the backend's own",
            )


def _read_token(server: ServerSettings) -> Iterator[Conflict]:
    both = ("server.admin_read_token_file", "server.admin_read_token_env")
    given = [name for name in both if getattr(server, name.partition(".")[2]) is not None]
    if len(given) == 2:
        yield both, f"{both[0]} and {both[1]} are both given: there is one token"
    if given and server.admin_token_file is None and server.admin_token_env is None:
        either = (given[0], "server.admin_token_file")
        yield either, f"{given[0]} is given without a token for those who may change things ({either[1]})"


def _by_prefix(settings: Settings) -> dict[str, UpstreamSettings]:
    """Every backend, by what its settings' names begin with."""
    found = {} if settings.upstream is None else {"upstream": settings.upstream}
    return found | {f"backends.{name}": backend for name, backend in settings.backends.items()}


def _within(prefix: str, backend: UpstreamSettings) -> Iterator[Conflict]:
    keys = [f"{prefix}.{key}" for key in _KEYS if getattr(backend, key) is not None]
    for other in keys[1:]:
        yield (keys[0], other), f"{keys[0]} and {other} are both given: only one key can be sent"
    if keys and any(name.lower() == "authorization" for name in backend.headers):
        both = (f"{prefix}.headers", keys[0])
        yield both, f"{both[0]} has Authorization and {both[1]} is given: only one key can be sent"
    if both_ways := sorted(backend.set_fields.keys() & set(backend.drop_fields)):
        both = (f"{prefix}.set_fields", f"{prefix}.drop_fields")
        yield both, f"{both[0]} and {both[1]} both have {', '.join(map(ascii, both_ways))}"
    for key in ("set_fields", "drop_fields"):
        if backend.cache_salt and "cache_salt" in getattr(backend, key):
            both = (f"{prefix}.{key}", f"{prefix}.cache_salt")
            yield both, f"{both[0]} has cache_salt and {both[1]} is true: each tenant gets one of its own"
    if backend.foreground_reserved >= backend.concurrency_max:
        both = (f"{prefix}.foreground_reserved", f"{prefix}.concurrency_max")
        yield (
            both,
            f"{both[0]} ({backend.foreground_reserved}) is not below {both[1]} ({backend.concurrency_max}): "
            "no background job would run while plain requests do",
        )
    if backend.retry_after_default_s > backend.retry_after_max_s:
        both = (f"{prefix}.retry_after_default_s", f"{prefix}.retry_after_max_s")
        values = f"({backend.retry_after_default_s:g}) is above {both[1]} ({backend.retry_after_max_s:g})"
        yield both, f"{both[0]} {values}: no wait would be that long"
    if backend.backoff_first_ms > backend.backoff_max_ms:
        both = (f"{prefix}.backoff_first_ms", f"{prefix}.backoff_max_ms")
        values = f"({backend.backoff_first_ms}) is above {both[1]} ({backend.backoff_max_ms})"
        yield both, f"{both[0]} {values}: no pause would be that long"
    names = (f"{prefix}.replicas", f"{prefix}.url")
    places = [_place(url) for url in backend.urls]
    if len(set(places)) < len(places):
        yield names, f"{names[0]} and {names[1]} have a URL twice: each replica is named once"
    if len({path for _, path in places}) > 1:
        yield names, f"{names[0]} differ from {names[1]} in their path: requests go to one path"


def _between(backends: dict[str, UpstreamSettings]) -> Iterator[Conflict]:
    owners: dict[str, str] = {}  # by pattern, the first backend that has it
    seen: dict[str, UpstreamSettings] = {}
    for prefix, backend in backends.items():
        twins = [
            earlier
            for earlier, other in seen.items()
            if _places(backend) & _places(other) and set(backend.models) == set(other.models)
        ]
        for earlier in twins:
            shared = [f"{each}.{key}" for each in (prefix, earlier) for key in ("url", "replicas", "models")]
            yield (*shared, prefix), f"{prefix} and {earlier} have a URL and their models in common"
        for pattern in backend.models:
            earlier = owners.setdefault(pattern, prefix)
            if earlier != prefix and not twins:
                names = (f"{prefix}.models", prefix, f"{earlier}.models")
                yield names, f"{prefix}.models: {pattern!a} is never reached: {earlier} has it already"
        seen[prefix] = backend
    if len(backends) > 1:
        first, *others = backends
        for prefix in others:
            if _place(backends[prefix].url)[1] != _place(backends[first].url)[1]:
                both = (f"{prefix}.url", f"{first}.url")
                yield both, f"{both[0]} and {both[1]} differ in their path: clients have one base URL for all"


def _listeners(settings: Settings, backends: dict[str, UpstreamSettings]) -> Iterator[Conflict]:
    server = settings.server
    hosts = _addresses(server.host), _addresses(server.admin_host)
    if server.port == server.admin_port != 0 and (hosts[0] & hosts[1] or _ANY & (hosts[0] | hosts[1])):
        both = ("server.port", "server.admin_port")
        yield both, f"{both[0]} and {both[1]} are both {server.port} on one host: each needs its own"
    for prefix, backend in backends.items():
        for number, text in enumerate(backend.urls):
            key = f"{prefix}.replicas" if number else f"{prefix}.url"
            where = f"item {number} of {key}" if number else key
            url = URL(text)
            target = _addresses(url.host or "")
            for name, host in zip(("port", "admin_port"), hosts, strict=True):
                port = getattr(server, name)
                if port == url.port and (target & host or (_ANY & host and target & (_ANY | _LOOPBACK))):
                    yield (
                        (key, f"server.{name}"),
                        f"{where} is where server.{name} ({port}) listens: the gateway would call itself",
                    )


def _callers(settings: Settings) -> Iterator[Conflict]:
    tenants = settings.tenants
    for section, one, other in (
        ("tenants", "pepper", "pepper_file"),
        ("tenants", "keys", "keys_file"),
        ("credentials", "sealing_keys", "sealing_keys_file"),
    ):
        if getattr(getattr(settings, section), one) and getattr(getattr(settings, section), other):
            both = (f"{section}.{one}", f"{section}.{other}")
            yield both, f"{both[0]} and {both[1]} are both given: say it in one place"
    fields = type(tenants).model_fields
    for mode, needed, others in _MODE_SETTINGS:
        for key in (*needed, *others):
            is_given = getattr(tenants, key) != fields[key].get_default(call_default_factory=True)
            if mode != tenants.mode and is_given:
                names = (f"tenants.{key}", "tenants.mode")
                yield names, f"tenants.{key} is for mode {mode}, and tenants.mode is {tenants.mode}"
        missing = [f"tenants.{key}" for key in needed if not getattr(tenants, key)]
        if mode == tenants.mode and missing:
            yield ("tenants.mode", *missing), f"mode {mode} needs {' and '.join(missing)}"
    if tenants.mode == "static_keys" and not tenants.keys and tenants.keys_file is None:
        yield (
            ("tenants.mode", "tenants.keys", "tenants.keys_file"),
            ("mode static_keys needs tenants.keys or tenants.keys_file"),
        )
    named = [name for name in tenants.tiers_allowed if not re.fullmatch(r"\*|[0-9a-f]{8}", name)]
    if tenants.mode in ("passthrough", "none") and named:
        yield (
            ("tenants.tiers_allowed", "tenants.mode"),
            "tenants.tiers_allowed must name tenants by the eight digits that the log has for them, and "
            f"others by '*': in mode {tenants.mode} tenants have no names",
        )
    if tenants.mode == "none" and not tenants.allow_anyone and not is_loopback(settings.server.host):
        yield (
            ("tenants.mode", "server.host"),
            "in mode none all callers are one, and server.host is not this machine alone: "
            "bind it to 127.0.0.1, or say that it is meant with tenants.allow_anyone: true",
        )


def _cors(server: ServerSettings) -> Iterator[Conflict]:
    if "*" in server.cors_origins and len(server.cors_origins) > 1:
        yield ("server.cors_origins",), "server.cors_origins has * and others: * is any origin"
    if "*" in server.cors_origins and server.cors_credentials:
        yield (
            ("server.cors_credentials", "server.cors_origins"),
            "server.cors_credentials is true and server.cors_origins has *: name the origins, or every page "
            "anywhere could act for its visitor",
        )


def is_loopback(host: str) -> bool:
    """True if only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _webhooks(settings: Settings) -> Iterator[Conflict]:
    for name, endpoint in settings.webhooks.endpoints.items():
        if not endpoint.signing_secrets:
            prefix = f"webhooks.endpoints.{name}"
            yield (
                (f"{prefix}.secrets", prefix),
                f"{prefix} has no secret to sign with: give secrets, secret_files or secret_envs",
            )
        fingerprints = [tenant for tenant in endpoint.tenants if re.fullmatch("[0-9a-f]{8}", tenant)]
        if settings.tenants.mode in ("passthrough", "none") and len(fingerprints) < len(endpoint.tenants):
            prefix = f"webhooks.endpoints.{name}"
            yield (
                (f"{prefix}.tenants", "tenants.mode"),
                f"{prefix}.tenants must be the eight digits that the log has for a tenant: in mode "
                f"{settings.tenants.mode} tenants have no names",
            )
    by_request = settings.request_webhooks
    if by_request.metadata_key is not None and not by_request.signing_secrets:
        yield (
            ("request_webhooks.metadata_key",),
            "request_webhooks.metadata_key is given but no secret to sign with: give secrets, secret_files "
            "or secret_envs",
        )


def _addresses(host: str) -> frozenset[str]:
    return _LOOPBACK if host.lower() == "localhost" else frozenset({host.lower().strip("[]")})


def _place(text: str) -> tuple[str, str]:
    """The canonical form of a URL: origin and path."""
    url = URL(text)
    return str(url.origin()), url.raw_path.rstrip("/")


def _places(backend: UpstreamSettings) -> set[tuple[str, str]]:
    return {_place(url) for url in backend.urls}
