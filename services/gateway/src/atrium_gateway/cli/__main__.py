"""`python -m atrium_gateway.cli`, where the `atrium` script is not on the path."""

from atrium_gateway.cli.app import main

main()
