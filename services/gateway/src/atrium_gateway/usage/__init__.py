"""What was consumed: the ledger's spool, its database, its prices and reports."""
