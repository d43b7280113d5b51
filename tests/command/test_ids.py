"""Ids, as people give them."""

from __future__ import annotations

from gateway.command.ids import short
from tests.acceptance.harness import Gateway
from tests.command.asking import asked, created


def test_a_short_id_is_the_beginning_of_the_whole_one() -> None:
    response_id = f"resp_{'0f' * 24}"
    assert short(response_id) == "resp_0f0f0f0f0f0f"


async def test_a_beginning_means_a_response_if_no_other_begins_so(gateway: Gateway) -> None:
    ids = [await created(gateway) for _ in range(2)]
    for response_id in ids:
        await gateway.ended(response_id)
        told = await asked(gateway, "job", short(response_id), "-o", "json")
        assert told.json()["id"] == response_id
    both = await asked(gateway, "job", "resp_")
    assert both.status == 1
    assert "resp_ is the beginning of several: " in both.err
    assert all(response_id in both.err for response_id in ids)
    for unknown in ("resp_nobody", f"resp_{'0' * 48}"):
        none = await asked(gateway, "job", unknown)
        assert (none.status, none.out) == (1, "")
        assert unknown in none.err
    odd = await asked(gateway, "job", "../overview")
    assert odd.status == 1
    assert "id must be the beginning of an id" in odd.err
