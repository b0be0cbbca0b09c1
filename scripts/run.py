"""Starts the whole suite on this machine; `make run` calls it inside the environment.

The work is in `launcher/`: read `launcher/main.py` first.
"""

import sys

from launcher.main import main

if __name__ == "__main__":
    sys.exit(main())
