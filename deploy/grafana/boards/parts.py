"""Panels that several dashboards have."""

from .panels import Panel, Query

LEDGER = (
    Panel(
        title="Ledger's lag",
        description="Age of the oldest usage event that is not in PostgreSQL yet.",
        unit="s",
        queries=(Query("max by (instance) (atrium_ledger_lag_seconds)", "{{instance}}"),),
        limits=(10, 60),
    ),
    Panel(
        title="Ledger's spool",
        description="Usage that PostgreSQL does not have yet, on disk; 4 MiB are normal.",
        unit="bytes",
        queries=(Query("max by (instance) (atrium_ledger_spool_bytes)", "{{instance}}"),),
    ),
    Panel(
        title="Open reservations",
        description="Admitted work that is not settled yet. It should fall when callers leave.",
        queries=(Query("sum(atrium_reservations_open)", "open"),),
    ),
)
