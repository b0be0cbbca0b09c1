"""gRPC clients of the model services; nothing else in the gateway's REST path knows gRPC."""
