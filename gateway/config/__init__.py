"""The settings: one frozen object, made once at start from flags, environment, file and defaults.

`models` says what each setting is, its unit, default and bounds, and which do not go together;
`loader` gathers them and tells every problem with the place it comes from.
"""

from gateway.config.loader import FLAGS, NAMES, ConfigError, load, load_with_origins
from gateway.config.models import (
    BackgroundSettings,
    LogSettings,
    Section,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
)

__all__ = [
    "FLAGS",
    "NAMES",
    "BackgroundSettings",
    "ConfigError",
    "LogSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "StreamSettings",
    "UpstreamSettings",
    "load",
    "load_with_origins",
]
