"""The database that several gateways share does what every store must."""

from tests.store.exercise import *  # noqa: F403

KIND = "postgres"
