"""The commands put together, and the one place where an error becomes a line and a status."""

import sys

import typer
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from atrium_common.errors import AtriumError
from atrium_common.logs import configure_logging
from atrium_common.models_cli import app as models_app
from atrium_gateway.cli import audit, db, deletion, key, plan, price, tenant, token, usage

app = typer.Typer(
    name="atrium",
    help="Administers an Atrium gateway. A running gateway sees changes within a second.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(tenant.app, name="tenant", help="Tenants and their limits.")
app.add_typer(plan.app, name="plan", help="Plans: limits that tenants have in common.")
app.add_typer(key.app, name="key", help="API keys of tenants.")
app.add_typer(token.app, name="token", help="Short-lived JSON web tokens.")
app.add_typer(db.app, name="db", help="The database.")
app.add_typer(usage.app, name="usage", help="What tenants consumed; `usage TENANT` shows it.")
app.add_typer(price.app, name="price", help="What models cost.")
app.add_typer(models_app, name="models", help="Models: list, fetch, verify, remove.")
app.command("audit")(audit.audit)
tenant.app.command("delete")(deletion.delete)
tenant.app.command("export")(deletion.export)


def main() -> None:
    """Runs the command line; an error is one line on stderr and exit status 1."""
    configure_logging("atrium", "warning", "console")  # to stderr: what is printed may be JSON
    try:
        app()
    except AtriumError as err:
        _fail(err.message)
    except ValidationError as err:
        first = err.errors()[0]
        _fail(f"setting {'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    except SQLAlchemyError as err:
        _fail(f"the database can't be used: {str(err).splitlines()[0]}")
    except (OSError, ValueError) as err:
        _fail(str(err))


def _fail(message: str) -> None:
    typer.echo(f"atrium: {message}", err=True)
    sys.exit(1)
