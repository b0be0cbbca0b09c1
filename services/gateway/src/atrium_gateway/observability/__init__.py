"""What the gateway tells of its own work: decisions, budgets, the ledger (docs/metrics.md)."""
