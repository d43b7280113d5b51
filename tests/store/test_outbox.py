"""The outbox of the SQLite file does what every one must."""

from tests.store.exercise_outbox import *  # noqa: F403
