"""The public protocol, as pure functions: bytes and dicts in, bytes and dicts out."""
