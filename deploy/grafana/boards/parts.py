"""Panels that several dashboards have."""

from .panels import Query, panel

LEDGER = (
    panel(
        "Ledger's lag",
        "Age of the oldest usage event that is not in PostgreSQL yet.",
        Query("max by (instance) (atrium_ledger_lag_seconds)", "{{instance}}"),
        unit="s",
        limits=(10, 60),
    ),
    panel(
        "Ledger's spool",
        "Usage that PostgreSQL does not have yet, on disk; 4 MiB are normal.",
        Query("max by (instance) (atrium_ledger_spool_bytes)", "{{instance}}"),
        unit="bytes",
    ),
    panel(
        "Open reservations",
        "Admitted work that is not settled yet. It should fall when callers leave.",
        Query("sum(atrium_reservations_open)", "open"),
    ),
    panel(
        "Spool fails",
        "1 while the last write to the spool failed: paid work is refused.",
        Query("max by (instance) (atrium_ledger_failing)", "{{instance}}"),
        limits=(0.5, 1),
    ),
)
