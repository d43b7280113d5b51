"""What the document says of fields, limits and words is what the code of this room does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.wire import events, query_strings, requests, responses, shapes, tools
from gateway.wire.answers import normalise
from gateway.wire.dialects import Dialect
from gateway.wire.openapi import document
from gateway.wire.requests import CreateRequest

_JUDGED_BY_HAND = {"background", "input", "tools", "tool_choice", "text", "conversation"}
"""Fields that `shapes` judges: the model says less of them than the document."""


def _page(**changed: Any) -> Any:
    asked: dict[str, Any] = {"dialect": Dialect.OPENAI, "accepts_store_false": True} | changed
    return orjson.loads(document(version="1.2.3", base_path="/v1", **asked))


_PAGE = _page()
_SCHEMAS = _PAGE["components"]["schemas"]
_CREATE = _SCHEMAS["CreateBackgroundResponse"]["properties"]


@pytest.mark.parametrize("name", sorted(set(CreateRequest.model_fields) - _JUDGED_BY_HAND))
def test_a_field_of_a_create_is_documented_as_its_model_checks_it(name: str) -> None:
    model = CreateRequest.model_json_schema()["properties"][name]
    assert _CREATE[name] == {key: value for key, value in model.items() if key != "title"}


def test_no_field_of_a_create_is_missing_or_made_up() -> None:
    assert set(_CREATE) == set(CreateRequest.model_fields)


def test_the_words_that_shapes_judges_are_the_documented_ones() -> None:
    words, named, _, built_in, _ = _CREATE["tool_choice"]["anyOf"]
    assert words["enum"] == list(shapes.CHOICES)
    assert named["properties"]["type"]["enum"] == list(tools.CALLED)
    assert built_in["properties"]["type"]["pattern"] == f"^({'|'.join(tools.BUILT_IN)})"
    plain, schema, _ = _CREATE["text"]["anyOf"][0]["properties"]["format"]["anyOf"]
    formats = [*plain["properties"]["type"]["enum"], schema["properties"]["type"]["const"]]
    assert formats == list(shapes.FORMATS)
    *_, holder, other = _CREATE["input"]["anyOf"][1]["items"]["anyOf"]
    assert holder["properties"]["type"]["enum"] == sorted(tools.HOLDERS)
    assert other["properties"]["type"]["not"]["enum"] == ["message", *sorted(tools.HOLDERS)]


def test_a_response_has_the_documented_keys() -> None:
    made = responses.accepted({}, response_id="", created_at=0)
    assert _SCHEMAS["Response"]["required"] == sorted(made)


def test_every_event_that_is_shown_is_documented() -> None:
    shown = sorted(events.LIFECYCLE | events.ENDINGS | normalise.SHOWN)
    properties = _SCHEMAS["Event"]["properties"]
    assert properties["event"]["enum"] == shown
    assert properties["data"]["contentSchema"]["properties"]["type"]["enum"] == shown


def test_the_limits_of_queries_and_headers_are_documented() -> None:
    paths = _PAGE["paths"]
    (key,) = paths["/responses"]["post"]["parameters"]
    assert key["schema"]["pattern"] == requests.KEY_PATTERN
    assert tools.OMITTED_HEADER in paths["/responses"]["post"]["responses"]["200"]["headers"]
    retrieve = {one["name"]: one for one in paths["/responses/{response_id}"]["get"]["parameters"]}
    assert retrieve["starting_after"]["schema"]["maximum"] == 10**query_strings.CURSOR_DIGITS_MAX - 1
    listed = {one["name"]: one for one in paths["/responses/{response_id}/input_items"]["get"]["parameters"]}
    limit, order = listed["limit"]["schema"], listed["order"]["schema"]
    assert (limit["maximum"], limit["default"]) == (query_strings.LIMIT_MAX, query_strings.LIMIT_DEFAULT)
    assert order["enum"] == list(query_strings.ORDERS)
    for one in (retrieve["include"], listed["include[]"]):
        assert one["schema"]["items"]["enum"] == sorted(
            query_strings.INCLUDE - {"reasoning.encrypted_content"}
        )


def test_what_depends_on_the_settings_is_filled_in() -> None:
    assert _PAGE["info"]["version"] == "1.2.3"
    assert _PAGE["servers"] == [{"url": "/v1"}]
    refused = _page(accepts_store_false=False)["components"]["schemas"]["CreateBackgroundResponse"]
    assert refused["properties"]["store"] == {"enum": [True, None], "default": None}
    handle = _page(dialect=Dialect.PHARIA)
    assert handle["components"]["schemas"]["Response"]["properties"]["id"]["pattern"] == "^(resp|req)_"
    answers = handle["paths"]["/responses"]["post"]["responses"]
    assert list(answers["202"]["content"]) == ["application/json"]
    assert "openai-poll-after-ms" in answers["202"]["headers"]
    assert "openai-poll-after-ms" not in answers["200"]["headers"]


@pytest.mark.parametrize(
    ("mode", "schemes", "is_open"),
    [
        ("passthrough", ["bearer", "api-key", "x-api-key"], True),
        ("none", ["bearer", "api-key", "x-api-key"], True),
        ("keys", ["bearer", "api-key", "x-api-key"], False),
        ("jwt", ["bearer"], False),
        ("trusted_header", ["X-User"], False),
    ],
)
def test_the_ways_to_say_who_is_calling_are_those_of_the_mode(
    mode: str, schemes: list[str], is_open: bool
) -> None:
    page = _page(callers=mode, callers_header="X-User")
    assert list(page["components"]["securitySchemes"]) == schemes
    assert ({} in page["security"]) is is_open
