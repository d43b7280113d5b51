"""The shell around aiohttp: connections, bodies, streams, errors, and how slow a client may be."""
