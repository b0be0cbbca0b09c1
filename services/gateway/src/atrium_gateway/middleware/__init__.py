"""What stands around every route: ids, logs, limits on bodies, headers. Pure ASGI."""
