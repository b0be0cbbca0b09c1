"""Who calls: tokens, API keys and the principals they stand for."""
