"""The `atrium` command: tenants, keys, tokens, usage and the database, for operators."""

from atrium_gateway.cli.app import main

__all__ = ["main"]
