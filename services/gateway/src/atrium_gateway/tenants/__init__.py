"""Whose: tenants, their keys and their limits, in the database and as the gateway sees them."""
