"""The outbox of the database that several gateways share does what every one must."""

from tests.store.exercise_outbox import *  # noqa: F403

KIND = "postgres"
