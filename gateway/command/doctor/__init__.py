"""`backburner doctor`."""

from __future__ import annotations

from argparse import Namespace

from gateway.config import Settings


def run(settings: Settings, args: Namespace) -> int:
    raise NotImplementedError
