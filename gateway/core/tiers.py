"""Service tiers: how they rank, what one is worth beside another, and which one a job gets.

Tiers order the jobs of one caller. Between callers they weigh: nobody is shut out by another's tier.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TIERS = ("flex", "default", "priority")
"""By rank, the lowest first. The rank is a job's `priority` in the store."""

_DEFAULT = TIERS.index("default")
_EVERY = frozenset(range(len(TIERS)))

OTHERS = "*"
"""Whoever is not named."""


def rank(body: Mapping[str, Any]) -> int:
    """The rank of the tier that a request asks for. `auto` and tiers that are not ours count as `default`."""
    tier = body.get("service_tier")
    return TIERS.index(tier) if tier in TIERS else _DEFAULT


def weight(rank: int) -> int:
    """What a caller's claim to slots is worth beside another's. The same stands in sql/tally.sql."""
    return 1 << rank


class TiersAllowed:
    """Which tiers the jobs of each tenant may have.

    Args:
        by_tenant: Names of tiers, by the first eight hex digits of a tenant, and by `OTHERS`.
    """

    def __init__(self, by_tenant: Mapping[str, Collection[str]]) -> None:
        self._by_tenant = {
            digits: frozenset(TIERS.index(tier) for tier in tiers) for digits, tiers in by_tenant.items()
        }
        self._others = self._by_tenant.get(OTHERS, _EVERY)

    def applied(self, body: dict[str, Any], tenant: bytes) -> dict[str, Any]:
        """The request with a tier that its tenant may have: the one asked for; else the next lower one; else
        the lowest that there is."""
        allowed = self._by_tenant.get(tenant.hex()[:8], self._others)
        asked = rank(body)
        if asked in allowed:
            return body
        served = max((each for each in allowed if each < asked), default=min(allowed))
        return {**body, "service_tier": TIERS[served]}
