"""The `clusterkit` command: a table of commands, each loaded when it is used, behind one error boundary."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

import clusterkit

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the table: known by name and help before its module is loaded."""

    section: str
    name: str
    help: str

    def load(self) -> click.Command:
        """Import the command's module and return the command."""
        command: click.Command = importlib.import_module(f"clusterkit.cli.{self.name}").command
        return command


COMMANDS = (
    Entry("Run", "submit", "Run a PySpark job on the cluster and wait for it."),
    Entry("Run", "app", "List, follow, explain and kill applications."),
    Entry("Environments", "env", "Lock, build and look after environments."),
    Entry("Clusters", "cluster", "Start and stop a real HDFS and YARN on this machine."),
    Entry("Clusters", "doctor", "Check that this machine and its clusters are in order."),
    Entry("Setup", "config", "Show every setting and where its value comes from."),
    Entry("Setup", "completion", "Print the shell completion script for bash, zsh or fish."),
)


class _Root(click.Group):
    """A group that knows its commands from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        return next((entry.load() for entry in COMMANDS if entry.name == cmd_name), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            from clusterkit.nearest import suggestion

            raise click.UsageError(f"there is no command {args[0]}{suggestion(args[0], names)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for section in dict.fromkeys(entry.section for entry in COMMANDS):
            with formatter.section(section):
                formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS if entry.section == section])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(each.name, help=each.help) for each in COMMANDS if each.name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(clusterkit.__version__, prog_name="clusterkit", message="%(prog)s %(version)s")
def root() -> None:
    """Make a Hadoop cluster feel like one fast Python machine."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after `clusterkit`; those of the process when absent.
    """
    from clusterkit.cli import boundary

    return boundary.run(root, argv)
