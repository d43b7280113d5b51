"""The official client's own types, validated and not merely constructed, for recorded streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent

from gateway.core.machine import Started
from gateway.core.transcript import CancelRequested

CLASSES = {
    name: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
    for name in get_args(kind.model_fields["type"].annotation)
}


def test_the_official_client_has_a_type_for_each_event(recorded: bytes, ran: Callable[..., Any]) -> None:
    for event in ran(recorded).events:
        CLASSES[event["type"]].model_validate(event)


def test_the_official_client_takes_the_final_response(recorded: bytes, ran: Callable[..., Any]) -> None:
    response = Response.model_validate(ran(recorded).final)
    assert response.background is True
    assert response.usage is not None


def test_the_official_client_takes_a_cancelled_response_with_partial_output(
    recorded: bytes, begin: Callable[..., Any], heard: Callable[..., Any]
) -> None:
    inputs = heard(recorded, 512)
    played = begin()
    played.receive(Started(), *inputs[: len(inputs) // 2], CancelRequested())
    for event in played.events:
        CLASSES[event["type"]].model_validate(event)
    assert Response.model_validate(played.final).status == "cancelled"
