"""A package, so that its gateway and its edge end with the last of its tests."""
