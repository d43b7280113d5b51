"""The policy for pages of other origins, as a rule: what a head gets for an answer."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.api.http.cors import Cors
from gateway.config import ServerSettings
from gateway.wire.http.head import Head
from tests.support.heads import head

PAGE = "https://ui.example"
ASKING = {"origin": PAGE, "access_control_request_method": "POST"}


def cors(*origins: str, **given: object) -> Cors:
    settings = ServerSettings.model_validate({"cors_origins": origins, **given})
    return Cors(settings, lambda head: head.path.startswith("/v1/responses"))


def settled(policy: Cors, asked: Head, **headers: str) -> CIMultiDict[str]:
    found = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    policy.settle(asked, found)
    return found


def test_a_page_that_may_call_is_promised_what_it_asks_for() -> None:
    asked = head("OPTIONS", access_control_request_headers="authorization, x-a", **ASKING)
    policy = cors(PAGE)
    answer = policy.preflight(asked)
    assert answer is not None
    assert answer.status == 204
    found = settled(policy, asked)
    assert found["Access-Control-Allow-Origin"] == PAGE
    assert found["Access-Control-Allow-Headers"] == "authorization, x-a"
    assert "POST" in found["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("origin", ["https://other.example", "null", f"{PAGE}:8443", "http://ui.example"])
def test_a_page_of_another_origin_may_not(origin: str) -> None:
    asked = head("OPTIONS", origin=origin, access_control_request_method="POST")
    answer = cors(PAGE).preflight(asked)
    assert answer is not None
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in settled(cors(PAGE), asked)


def test_two_origins_are_nobodys() -> None:
    twice = Head("GET", "/", (1, 1), type(head().headers)([("Origin", PAGE), ("Origin", PAGE)]))
    assert "Access-Control-Allow-Origin" not in settled(cors("*"), twice)


def test_an_answer_shows_its_headers_and_varies_by_origin() -> None:
    found = settled(cors(PAGE), head(origin=PAGE), x_custom="1", content_type="text/plain", vary="Accept")
    shown = found["Access-Control-Expose-Headers"].lower().split(", ")
    assert {"x-custom", "x-request-id", "retry-after"} <= set(shown)
    assert "content-type" not in shown
    assert found["Vary"] == "Accept, Origin"


def test_without_a_policy_a_backends_own_holds_except_where_we_answer_ourselves() -> None:
    policy = cors()
    theirs = {"access_control_allow_origin": "*"}
    assert "Access-Control-Allow-Origin" in settled(policy, head(target="/v1/embeddings"), **theirs)
    assert "Access-Control-Allow-Origin" not in settled(policy, head(target="/v1/responses/x"), **theirs)
    assert policy.preflight(head("OPTIONS", **ASKING)) is None


def test_names_that_are_none_are_not_promised() -> None:
    asked = head("OPTIONS", access_control_request_headers="x\r\nset-cookie: a", **ASKING)
    assert "Access-Control-Allow-Headers" not in settled(cors(PAGE), asked)
