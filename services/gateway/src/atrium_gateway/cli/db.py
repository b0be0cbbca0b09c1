"""`atrium db`: brings the schema up to date."""

import typer

from atrium_gateway.database import upgrade_blocking
from atrium_gateway.settings import GatewaySettings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def database() -> None:
    """The database."""


@app.command()
def upgrade() -> None:
    """Upgrades the schema to the newest revision; safe to repeat."""
    upgrade_blocking(GatewaySettings().resolved_database_url())
    typer.echo("the database is up to date")
