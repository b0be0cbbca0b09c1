"""Parts that the tests of this service and of the suite share."""
