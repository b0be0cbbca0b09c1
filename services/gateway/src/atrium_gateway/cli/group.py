"""A group of commands that is a command itself: `usage acme` beside `usage export acme`."""

import typer
from typer.core import TyperGroup


class DefaultsToShow(TyperGroup):
    """Runs its command `show` where the first word names none of its commands."""

    # Typer states the base class of its context, which it does not export.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Puts `show` in front of arguments that are its own."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)
