"""What surrounds every RPC of a server: one file per concern, joined in `edge.py`."""
