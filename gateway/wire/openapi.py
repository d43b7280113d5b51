"""The OpenAPI document of the routes we own: `openapi.yaml`, with what depends on the settings filled in.

A test compares the file with the models and constants of this room, so it cannot drift from them. The rest of
the backend's routes are the backend's to document.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson
import yaml

from gateway.wire.dialects import Dialect

Json = dict[str, Any]


def document(
    *,
    version: str,
    base_path: str,
    dialect: Dialect,
    accepts_store_false: bool,
    callers: str = "passthrough",
    callers_header: str | None = None,
) -> bytes:
    """The document as JSON, OpenAPI 3.1.

    Args:
        base_path: The prefix of the routes, e.g. `/v1`.
        accepts_store_false: Whether a background response may be created with `store: false`.
        callers: How callers are identified: the value of `tenants.mode`.
        callers_header: The header that names the caller in the mode `trusted_header`.
    """
    loader = getattr(
        yaml, "CSafeLoader", yaml.SafeLoader
    )  # PyYAML built without libyaml has the slow one only
    text = resources.files("gateway.wire").joinpath("openapi.yaml").read_bytes()
    page: Json = yaml.load(text, loader)  # noqa: S506  both are safe loaders
    del page["x-pieces"]
    schemas, paths = page["components"]["schemas"], page["paths"]
    page["info"]["version"] = version
    page["servers"] = [{"url": base_path}]
    page["components"]["securitySchemes"], page["security"] = _security(callers, callers_header)
    if not accepts_store_false:
        schemas["CreateBackgroundResponse"]["properties"]["store"] = {"enum": [True, None], "default": None}
    if dialect is Dialect.PHARIA:
        schemas["Response"]["properties"]["id"]["pattern"] = "^(resp|req)_"
    if not dialect.streams_any:
        stream = paths["/responses/{response_id}"]["get"]["parameters"][0]
        stream["description"] = f"{stream['description'][:-1]}; of a response created with `stream: true`."
    if dialect.accepted_status == 202:
        _accepted_apart(paths["/responses"]["post"]["responses"])
    return orjson.dumps(page)


def _accepted_apart(answers: Json) -> None:
    """Document 202 for a stored response; 200 is then a stream, or a plain request's answer."""
    both = answers["200"]
    content, headers = both["content"], both["headers"]
    stored, plain = content["application/json"]["schema"]["anyOf"]
    answers["202"] = both | {"content": {"application/json": {"schema": stored}}}
    answers["200"] = {
        "description": "With `stream: true`, its events; plain request: the backend's answer.",
        "headers": {name: header for name, header in headers.items() if name != "openai-poll-after-ms"},
        "content": content | {"application/json": {"schema": plain}},
    }


def _security(mode: str, header: str | None) -> tuple[Json, list[Json]]:
    """The security schemes, and which of them will do."""
    match mode:
        case "jwt":
            names = ["bearer"]
        case "trusted_header":
            names = [str(header)]
        case _:
            names = ["bearer", "api-key", "x-api-key"]
    schemes = {
        name: {"type": "http", "scheme": "bearer"}
        if name == "bearer"
        else {"type": "apiKey", "in": "header", "name": name}
        for name in names
    }
    # The empty one, where callers without a credential share one space.
    nobody: list[Json] = [{}] if mode in ("passthrough", "none") else []
    return schemes, [*nobody, *({name: []} for name in names)]
