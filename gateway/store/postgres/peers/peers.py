"""The other gateways of a database, as far as events are pushed to and fro."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from gateway.config import StoreSettings
from gateway.observe import Observer
from gateway.store.postgres.bells import PostgresBells
from gateway.store.postgres.peers.link import Self
from gateway.store.postgres.peers.subscribers import Subscribers
from gateway.store.postgres.peers.subscriptions import Subscriptions
from gateway.store.refused import DatabaseRefused

_BEAT_S = 1.0


class Peers:
    """Those of one gateway.

    Attributes:
        address: Where the others reach us.
        subscribers: Who follows what runs here.
        subscriptions: What runs there and is followed here.

    Args:
        secret: Bytes that all gateways of the database have; only what is made of them is used.
        address_of: Where another one is reached.
    """

    def __init__(
        self,
        settings: StoreSettings,
        own_id: str,
        secret: bytes,
        bells: PostgresBells,
        observer: Observer,
        address_of: Callable[[str], Awaitable[str | None]],
    ) -> None:
        key = hmac.digest(secret, b"gateways that push events to each other", "sha256")
        me = Self(own_id, key, settings.peer_unsent_bytes_max)
        self._settings = settings
        self.address = ""
        self.subscribers = Subscribers(me, bells, observer, links_max=settings.peer_links_max)
        self.subscriptions = Subscriptions(me, bells, observer, address_of)

    async def open(self) -> None:
        """Raises: DatabaseRefused."""
        host, _, port = str(self._settings.peer_listen).rpartition(":")
        try:
            got = await self.subscribers.listen(host.strip("[]"), int(port))
        except OSError as error:
            raise DatabaseRefused(f"store.peer_listen cannot be listened on: {error.strerror}") from None
        self.address = self._settings.peer_address or f"{host}:{got}"

    async def run(self) -> None:
        """Say that we live, until cancelled."""
        while True:
            await asyncio.sleep(_BEAT_S)
            self.subscribers.beat()
            self.subscriptions.beat()

    def close(self) -> None:
        self.subscribers.close()
        self.subscriptions.close()
