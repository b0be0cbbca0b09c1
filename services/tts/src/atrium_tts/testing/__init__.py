"""What tests of this service and of others build on."""
