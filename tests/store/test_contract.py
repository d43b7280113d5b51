"""The SQLite file does what every store must."""

from tests.store.exercise import *  # noqa: F403
