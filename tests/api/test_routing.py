"""Which backend a request goes to, by its model; and under which name the backend knows that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from gateway.api.http.bodies import scanned
from gateway.api.routing import Routing, renamed
from gateway.wire.errors import Fault, Refusal
from tests.support.heads import head


class Backends:
    """Two, of which one is asked for `small`, and the other for anything that begins with `big`."""

    def __init__(self, default: str | None = None, *, reads_bodies: bool = True) -> None:
        self.small: Any = SimpleNamespace(
            name="small", sees_callers=True, settings=SimpleNamespace(rename={})
        )
        self.big: Any = SimpleNamespace(
            name="big", sees_callers=False, settings=SimpleNamespace(rename={"big": "org/Big-7B"})
        )
        self.all = [self.small, self.big]
        self.default = getattr(self, default) if default else None
        self.reads_bodies = reads_bodies

    def get(self, name: str) -> Any:
        return {"small": self.small, "big": self.big}.get(name)

    def of_model(self, model: str) -> Any:
        if model == "small":
            return self.small
        return self.big if model.startswith("big") else self.default


def routing(default: str | None = None, *, reads_bodies: bool = True) -> tuple[Routing, Backends]:
    backends = Backends(default, reads_bodies=reads_bodies)
    found: Any = backends
    return Routing(found), backends


def test_a_model_goes_to_its_backend_and_no_model_to_the_default() -> None:
    chosen, there = routing("big")
    assert chosen.of_model("small") is there.small
    assert chosen.of_model("unknown") is there.big
    assert chosen.of_model(None) is there.big
    assert routing()[0].without_model().name == "small"
    assert chosen.that_see_callers == [there.small]
    assert chosen.named("gone") is None


def test_a_model_that_nobody_serves_does_not_exist() -> None:
    with pytest.raises(Refusal) as refusal:
        routing()[0].of_model("other")
    assert (refusal.value.fault, refusal.value.code) == (Fault.NOT_FOUND, "model_not_found")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"model":"small"}', "small"),
        (b'{"model":7}', "big"),
        (b'{"input":"small"}', "big"),
        (b"[1]", "big"),
        (b"no json", "big"),
    ],
)
async def test_a_body_is_read_for_its_model_and_what_has_none_goes_to_the_default(
    body: bytes, name: str
) -> None:
    chosen, _ = routing("big")
    assert (await scanned(chosen.of_body(body))).name == name


async def test_a_body_is_not_read_where_its_model_decides_nothing() -> None:
    chosen, _ = routing("small", reads_bodies=False)
    assert (await scanned(chosen.of_body(b'{"model":"big"}'))).name == "small"
    assert not chosen.is_by_model(head("POST", content_type="application/json"))


def test_only_a_json_body_that_is_sent_to_make_something_is_looked_at() -> None:
    chosen, _ = routing("small")
    assert chosen.is_by_model(head("POST", content_type="Application/JSON; charset=utf-8"))
    assert not chosen.is_by_model(head("POST", content_type="multipart/form-data"))
    assert not chosen.is_by_model(head("GET", content_type="application/json"))


def test_a_model_is_renamed_for_its_backend_and_nothing_else_of_the_body() -> None:
    _, there = routing()
    body = b'{"model":"big","x":[1,{"model":"big"}]}'
    assert orjson.loads(renamed(there.big, body)) == {"model": "org/Big-7B", "x": [1, {"model": "big"}]}
    for other in (b'{"model":"bigger"}', b'{ "model" : "small" }', b"no json"):
        assert renamed(there.big, other) is other
    assert renamed(there.small, body) is body
