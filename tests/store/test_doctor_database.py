"""What the doctor finds at a store that several gateways share."""

from __future__ import annotations

import socket

from gateway.command.doctor.database import database
from gateway.command.doctor.findings import Level
from gateway.config import StoreSettings


async def test_a_database_that_answers_is_well(url: str) -> None:
    found = await database(StoreSettings.model_validate({"url": url}))
    assert [each.check for each in found] == ["answers", "commit time", "against the store"]
    assert {found[0].level, found[2].level} == {Level.OK}
    assert found[0].found.startswith("PostgreSQL ")
    assert " ms, at most " in found[1].found


async def test_one_that_does_not_is_wrong_and_its_password_is_not_said() -> None:
    with socket.socket() as taken:  # bound, and not listened on: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://me:secret@127.0.0.1:{taken.getsockname()[1]}/none"
        (found,) = await database(StoreSettings.model_validate({"url": url}))
    assert (found.level, found.check) == (Level.WRONG, "answers")
    assert "secret" not in str(found)
