"""`backburner version`: of the command, and of the gateway that runs."""

from __future__ import annotations

from gateway import __version__
from tests.acceptance.harness import Gateway
from tests.command.asking import asked, typed


async def test_both_versions_are_told_and_a_gateway_that_is_not_there_is_no_failure(gateway: Gateway) -> None:
    both = await asked(gateway, "version")
    assert both.status == 0
    assert both.lines[0][:2] == ["backburner", __version__]
    assert both.lines[1] == ["gateway", __version__]
    assert (await asked(gateway, "version", "-o", "json")).json()["gateway"] == __version__
    await gateway.stop()
    alone = await asked(gateway, "version")
    assert alone.status == 0
    assert "gateway    unknown: " in alone.out
    assert "nothing listens there" in alone.out
    assert (await typed("--version")).out == f"backburner {__version__}\n"
