"""Exit statuses of the command, and how a command ends that cannot do what it was asked."""

from __future__ import annotations

DONE = 0
NOT_DONE = 1
"""The reason is on stderr. Of `doctor`: something is to be changed."""
MISUSED = 2
"""The command line is wrong, as argparse has it."""
ENDED_BADLY = 3
"""Of `tail`: the response failed, or was cancelled."""
EX_CONFIG = 78
"""The settings cannot be used. sysexits.h; systemd's RestartPreventExitStatus can tell it from a crash."""
INTERRUPTED = 130
"""Ctrl-C, as a shell has it."""


class NotDone(Exception):
    """It was not done; the text says why, for people.

    Args:
        code: Of the admin API's error, if it is one.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
