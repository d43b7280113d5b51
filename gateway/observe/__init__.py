"""Metrics and log lines of a running gateway, in one object that is passed in."""

from gateway.logs import configure_logging, line
from gateway.observe.backends import BackendLoad
from gateway.observe.observer import Observer

__all__ = ["BackendLoad", "Observer", "configure_logging", "line"]
