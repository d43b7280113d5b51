"""Backburner: background mode of the Responses API in front of any OpenAI-compatible server."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("backburner")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0.0.0+checkout"
