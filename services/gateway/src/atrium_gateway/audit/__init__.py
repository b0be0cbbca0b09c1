"""Who changed what: entries that are written with the change and never altered."""
