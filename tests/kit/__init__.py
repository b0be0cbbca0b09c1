"""What the tests over several processes share."""
