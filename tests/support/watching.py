"""What a database notes of writes, from outside: a trigger of the tests sees every replica's statements."""

from __future__ import annotations

import asyncio
import time

import asyncpg

_INSTALL = """
CREATE SCHEMA trial;
CREATE TABLE trial.stale (job bigint, writer text, owner text, epoch bigint);
CREATE TABLE trial.ended (job bigint, status text);
CREATE FUNCTION trial.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    writer  text := replace(current_setting('application_name'), 'backburner ', '');
    is_over boolean := OLD.finished_at_ms IS NOT NULL;
BEGIN
    IF (is_over OR NEW.epoch = OLD.epoch AND OLD.owner IS DISTINCT FROM writer)
       AND (NEW.next_seq, NEW.status) IS DISTINCT FROM (OLD.next_seq, OLD.status)
    THEN
        INSERT INTO trial.stale VALUES (NEW.pk, writer, OLD.owner, OLD.epoch);
    END IF;
    IF NEW.finished_at_ms IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status THEN
        INSERT INTO trial.ended VALUES (NEW.pk, NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER trial_notes AFTER UPDATE ON backburner.job FOR EACH ROW EXECUTE FUNCTION trial.note();
"""
"""A write is stale if it comes from another gateway than the one that has the job, and does not take it over,
or to a job that has ended. Whoever writes is known by the name of its connection."""

_GAPS = """
SELECT count(*) FROM (
    SELECT first_seq, lag(last_seq, 1, -1::bigint) OVER (PARTITION BY job ORDER BY first_seq) + 1 AS expected
    FROM backburner.segment) AS piece
WHERE first_seq <> expected
"""


class Watched:
    """One database, looked at past all gateways."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def install(self) -> None:
        """Begin to note. The tables must be there."""
        await self._connection.execute(_INSTALL)

    async def close(self) -> None:
        await self._connection.close()

    async def stale_writes(self) -> int:
        return int(await self._connection.fetchval("SELECT count(*) FROM trial.stale"))

    async def double_ends(self) -> int:
        """Jobs that ended more than once."""
        ended = "SELECT count(*) - count(DISTINCT job) FROM trial.ended"
        return int(await self._connection.fetchval(ended))

    async def gaps(self) -> int:
        """Places where stored events do not go on where those before them end."""
        return int(await self._connection.fetchval(_GAPS))

    async def replicas(self) -> set[str]:
        """Ids of those that say that they live."""
        return {row["id"] for row in await self._connection.fetch("SELECT id FROM backburner.replica")}

    async def running_at(self, replica: str) -> list[int]:
        rows = await self._connection.fetch(
            "SELECT pk FROM backburner.job WHERE owner = $1 AND status = 'in_progress'", replica
        )
        return [row["pk"] for row in rows]

    async def until_elsewhere(self, jobs: list[int], replica: str) -> float:
        """When the last of these has ended, or was started by another one: on the monotonic clock."""
        left = (
            "SELECT count(*) FROM backburner.job "
            "WHERE pk = ANY ($1) AND finished_at_ms IS NULL AND (owner IS NULL OR owner = $2)"
        )
        while await self._connection.fetchval(left, jobs, replica):
            await asyncio.sleep(0.05)
        return time.monotonic()

    async def notices_a_stale_write(self) -> bool:
        """Whether one that is made on purpose, and taken back, is noted: else all of this says nothing."""
        before = await self.stale_writes()
        transaction = self._connection.transaction()
        await transaction.start()
        await self._connection.execute(
            "UPDATE backburner.job SET next_seq = next_seq + 1 "
            "WHERE pk = (SELECT pk FROM backburner.job ORDER BY pk DESC LIMIT 1)"
        )
        noted = await self.stale_writes()
        await transaction.rollback()
        return noted == before + 1


async def watched(url: str) -> Watched:
    """The database at this URL."""
    return Watched(await asyncpg.connect(url))
