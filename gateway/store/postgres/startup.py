"""From an address to a database that can be worked with: what is checked, made and refused."""

from __future__ import annotations

import hashlib
import secrets

import asyncpg

from gateway.config import StoreSettings
from gateway.observe import line
from gateway.store.postgres.connections import PostgresConnector, closed
from gateway.store.postgres.health import FAILURES, is_crossed, is_lost
from gateway.store.postgres.queries import MIGRATIONS, QUERIES
from gateway.store.refused import DatabaseDamaged, DatabaseRefused, DatabaseUnreachable

_VERSION_MIN = 140000
_STEP_MAX_S = 3600.0
"""Longest time for one migration, in seconds. Its waits for locks keep their usual limit."""


async def prepare(settings: StoreSettings, connector: PostgresConnector) -> bytes:
    """Bring the tables up to date, whichever gateway comes first. Returns the pepper.

    Raises:
        DatabaseUnreachable: Nobody answers there, or it is starting still.
        DatabaseRefused: It must not be used: by its settings, by its version, or by our rights.
        DatabaseDamaged: Something happened to it.
    """
    connection = None
    try:
        connection = await connector.connect()
        await _check(settings, connection)
        await _migrate(connection)
        return await _pepper(connection)
    except ValueError:  # its words may have the password in them
        raise DatabaseRefused("store.url is no address of a database") from None
    except FAILURES as error:
        reason = f"the database cannot be used: {type(error).__name__}: {error}"
        may_pass = is_lost(error) or is_crossed(error)  # a step waits in vain for others to let go of a table
        raise (DatabaseUnreachable if may_pass else DatabaseRefused)(reason) from None
    finally:
        if connection is not None:
            await closed(connection)


async def _check(settings: StoreSettings, connection: asyncpg.Connection) -> None:
    server = await connection.fetchrow(QUERIES["server"].text)
    if server["is_standby"]:
        raise DatabaseUnreachable("the database is a standby, which takes no writes")
    number = int(server["number"])
    if number < _VERSION_MIN:
        raise DatabaseRefused(f"the database is PostgreSQL {server['version']}; 14 or newer is needed")
    if settings.durability == "disk" and server["synchronous_commit"] in ("off", "local"):
        raise DatabaseRefused(
            f"the database has synchronous_commit = {server['synchronous_commit']}, and store.durability is "
            "disk: set it to on for this user or database, or say store.durability: process"
        )
    line("database", version=f"PostgreSQL {server['version']}", durability=server["synchronous_commit"])


async def _migrate(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute(QUERIES["lock_migrations"].text)
        if not await connection.fetchval(QUERIES["is_known"].text):
            await connection.execute(QUERIES["make_schema"].text)
            await connection.execute(QUERIES["make_migrations"].text)
        done = {row["number"]: row["digest"] for row in await connection.fetch(QUERIES["migrations"].text)}
        for migration in MIGRATIONS:
            if migration.number not in done:
                await connection.execute(QUERIES["take_time"].text)
                await connection.execute(migration.text, timeout=_STEP_MAX_S)
                await connection.execute(QUERIES["note_migration"].text, migration.number, migration.digest)
            elif done[migration.number] != migration.digest:
                raise DatabaseRefused(
                    "the tables were made by another, unreleased version of this program "
                    f"(step {migration.number})"
                )
        pepper = secrets.token_bytes(32)
        for key, value in {"pepper": pepper, "pepper_digest": hashlib.sha256(pepper).digest()}.items():
            if not await connection.fetchval(QUERIES["get_meta"].text, key):
                await connection.execute(QUERIES["put_meta"].text, key, value)


async def _pepper(connection: asyncpg.Connection) -> bytes:
    pepper, digest = [
        await connection.fetchval(QUERIES["get_meta"].text, key) for key in ("pepper", "pepper_digest")
    ]
    if pepper is None or digest != hashlib.sha256(pepper).digest():
        raise DatabaseDamaged(
            "the database is damaged: the key by which it knows its tenants is not what it was"
        )
    return bytes(pepper)
