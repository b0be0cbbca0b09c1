"""Ships with the library: what the tests of pictures, and the starter model's trainer, share."""
