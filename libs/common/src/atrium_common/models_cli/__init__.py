"""`atrium models`, and `atrium-models` where there is no gateway: the operator's side of weights.

Needs the extra `atrium-common[cli]`, and `[hub]` to pull from the model hub.
"""

from atrium_common.models_cli.app import app, main

__all__ = ["app", "main"]
