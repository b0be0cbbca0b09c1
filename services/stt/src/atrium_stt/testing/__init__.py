"""Ships with the service: makes audio files and tiny models for tests, here and elsewhere."""
