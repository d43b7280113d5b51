"""Heads of requests, for tests of rules that need no connection."""

from __future__ import annotations

from gateway.wire.http.head import Head, Headers


def head(
    method: str = "GET", target: str = "/v1/responses", *, peer: str | None = "192.0.2.1", **headers: str
) -> Head:
    """A head; `x_api_key="k"` is the header `x-api-key: k`."""
    pairs = ((name.replace("_", "-"), value) for name, value in headers.items())
    return Head(method, target, (1, 1), Headers(pairs), method == "POST", peer)
