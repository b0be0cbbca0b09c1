"""Parts that the tests of the gateway and of the suite share."""
