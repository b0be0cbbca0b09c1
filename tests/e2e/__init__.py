"""A package, so that its suite ends with the last of its tests."""
