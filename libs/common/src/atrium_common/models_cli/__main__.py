"""`python -m atrium_common.models_cli`, where the `atrium-models` script is not on the path."""

from atrium_common.models_cli.app import main

main()
