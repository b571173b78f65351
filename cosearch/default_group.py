"""A command with subcommands that is itself a command: what is no subcommand goes to a default."""

from typing import Any

from typer.core import TyperGroup

DEFAULT = "build"


class DefaultGroup(TyperGroup):
    """``cosearch lut RUN`` is ``cosearch lut build RUN``; ``lut --help`` lists the subcommands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
