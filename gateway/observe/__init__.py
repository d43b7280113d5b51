"""What is told of a running gateway: metrics and log lines, in one object that is passed in."""

from gateway.logs import configure_logging, line
from gateway.observe.observer import Observer

__all__ = ["Observer", "configure_logging", "line"]
