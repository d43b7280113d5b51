"""What Schemathesis checks beside its own: loaded by it, in its own process, by `SCHEMATHESIS_HOOKS`.

It also gives the routes of one response real responses to work on: made-up ids would only ever be unknown.
"""

from __future__ import annotations

import os
import random
from typing import Any

import jsonschema_rs
import orjson
import requests
import schemathesis

from tests.torture import eventsource

_URL = os.environ["CONTRACT_URL"]
_HEADERS = {"Authorization": os.environ["CONTRACT_CREDENTIAL"], "Content-Type": "application/json"}
_dice = random.Random(int(os.environ["CONTRACT_SEED"]))

_document = requests.get(f"{_URL.rsplit('/', 1)[0]}/openapi.json", headers=_HEADERS, timeout=20).json()


def _schema(name: str) -> Any:
    return jsonschema_rs.validator_for(
        {"$ref": f"#/components/schemas/{name}", "components": _document["components"]}
    )


_body, _error = _schema("CreateBackgroundResponse"), _schema("Error")
_response = _schema("Response")

_ABOUT_STATE = {
    "previous_response_not_found",
    "previous_response_not_ready",
    "previous_response_not_usable",
    "mutually_exclusive_parameters",
}
"""Codes of refusals whose reason no schema can say."""
_ABOUT_STATE_PARAMS = {"starting_after", "stream", "after", "before"}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Three of four requests about one response are about one that exists; all bring one credential, where
    Schemathesis would make up others beside the one that it was given."""
    for name in ("api-key", "x-api-key"):
        (case.headers or {}).pop(name, None)
    if "response_id" in (case.path_parameters or {}) and _dice.random() < 0.75:
        case.path_parameters["response_id"] = _create()


def _create() -> str:
    ask: dict[str, Any] = {
        "model": "tiny",
        "input": f"{_dice.random()}",
        "background": True,
        "stream": _dice.random() < 0.5,
    }
    if ask["stream"]:
        with requests.post(
            f"{_URL}/responses", json=ask, headers=_HEADERS, stream=True, timeout=20
        ) as answer:
            events = answer.iter_lines()
            first = next(line for line in events if line.startswith(b"data: "))
            if _dice.random() < 0.5:  # to its end; else it goes on by itself
                for _ in events:
                    pass
            found: str = orjson.loads(first[6:])["response"]["id"]
            return found
    answer = requests.post(f"{_URL}/responses", json=ask, headers=_HEADERS, timeout=20)
    made: str = answer.json()["id"]
    return made


@schemathesis.check
def an_answer_of_the_gateways_own_has_a_documented_status(_context: Any, response: Any, case: Any) -> None:
    """`default` in the document is for what a backend answers; 405 is of methods that it does not have."""
    is_own = "x-answered-by" not in response.headers and response.status_code != 405
    documented = case.operation.definition.raw["responses"]
    assert not is_own or str(response.status_code) in documented, f"undocumented: {response.status_code}"


@schemathesis.check
def an_answer_of_the_gateways_own_has_its_own_schema(_context: Any, response: Any, _case: Any) -> None:
    """Where the document allows a backend's answer, too, Schemathesis would let anything pass."""
    if "x-answered-by" in response.headers:
        return
    if response.status_code >= 400:
        _error.validate(orjson.loads(response.content))
    elif response.headers["content-type"][0].startswith("text/event-stream"):
        for event in eventsource.read(response.content).events:
            content = orjson.loads(event.data)
            assert event.type == content["type"]
            if "response" in content:
                _response.validate(content["response"])


@schemathesis.check
def a_valid_request_is_refused_only_for_what_no_schema_can_say(
    _context: Any, response: Any, case: Any
) -> None:
    is_own = "x-answered-by" not in response.headers
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_own or not is_valid or response.status_code != 400 or not _is_valid(case):
        return
    error = orjson.loads(response.content)["error"]
    is_about_state = (
        error["code"] in _ABOUT_STATE
        or error["param"] in _ABOUT_STATE_PARAMS
        or error["message"].startswith("Cannot cancel a")
    )
    assert is_about_state, f"refused: {error}"


def _is_valid(case: Any) -> bool:
    """Schemathesis counts some bodies as valid that fit no branch of an `anyOf`."""
    return not isinstance(case.body, dict) or _body.is_valid(case.body)
