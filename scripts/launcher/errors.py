"""The launcher's one error: `main.py` prints it as one line and exits with 1."""


class LaunchError(Exception):
    """The suite can't be started.

    Its text is one line that says what to do about it; empty where that was said already.
    """
