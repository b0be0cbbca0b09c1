"""Kills gateways, Redis and PostgreSQL under load, and reads the books afterwards."""
