"""The settings: one frozen object, made once at start from flags, environment, file and defaults.

`models` says what each setting is, its unit, default and bounds, `backends` those of one model server,
`webhooks` those of deliveries, and `conflicts` which do not go together; `loader` gathers them with `file`
and `environment`, and tells every problem with the place it comes from.
"""

from gateway.config.backends import UpstreamSettings
from gateway.config.conflicts import is_loopback
from gateway.config.loader import ConfigError, load, load_server, load_with_origins
from gateway.config.models import (
    BackgroundSettings,
    ConversationSettings,
    LogSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    TracingSettings,
    UiSettings,
)
from gateway.config.names import BACKEND_KEYS, FLAGS, GROUPS, NAMES
from gateway.config.section import Section
from gateway.config.tenants import CredentialSettings, TenantSettings
from gateway.config.webhooks import EndpointSettings, RequestWebhookSettings, WebhookSettings

__all__ = [
    "BACKEND_KEYS",
    "FLAGS",
    "GROUPS",
    "NAMES",
    "BackgroundSettings",
    "ConfigError",
    "ConversationSettings",
    "CredentialSettings",
    "EndpointSettings",
    "LogSettings",
    "RequestWebhookSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "StreamSettings",
    "TenantSettings",
    "TracingSettings",
    "UiSettings",
    "UpstreamSettings",
    "WebhookSettings",
    "is_loopback",
    "load",
    "load_server",
    "load_with_origins",
]
