"""Why a store cannot be opened. The texts are for whoever starts the gateway."""

from __future__ import annotations


class DatabaseInUse(Exception):
    """Another process has it, and it is for one alone."""


class DatabaseUnreachable(Exception):
    """It cannot be reached, or reports errors: it may be better later."""


class DatabaseRefused(Exception):
    """It must not be used as it is."""


class DatabaseDamaged(DatabaseRefused):
    """It was ours, and something happened to it."""
