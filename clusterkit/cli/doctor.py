"""`clusterkit doctor`: is everything in order, and if not, why and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from clusterkit.cli.output import coloured, print_json, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterkit.doctor import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.group("doctor")
def command() -> None:
    """Check that this machine and its clusters are in order."""


@command.command("cluster")
@click.option("--cluster", metavar="NAME", help="The cluster to look at as a client.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cluster(cluster: str | None, *, as_json: bool) -> int:
    """Check Java, Spark, jars, archives of classes, disks, and the clusters.

    Each line is ok, warn (it works, but worse than it could) or fail; the last two say why and how to mend it. The exit
    code is 69 when a check failed, else 0.
    """
    import os

    import msgspec

    from clusterkit import settings
    from clusterkit.doctor import worst
    from clusterkit.doctor.cluster import examine
    from clusterkit.errors import EXIT_SURROUNDINGS

    checks = examine(settings.load({"cluster": cluster}), os.environ)
    if as_json:
        print_json({"state": worst(checks), "checks": msgspec.to_builtins(checks)})
    else:
        _print(checks)
    return EXIT_SURROUNDINGS if worst(checks) == "fail" else 0


def _print(checks: Sequence[Check]) -> None:
    import sys

    width = max(len(check.name) for check in checks)
    for check in checks:
        state = f"{check.state:4}"
        shown = click.style(state, _COLOURS[check.state]) if coloured(sys.stdout) else state
        click.echo(f"{shown}  {check.name:{width}}  {visible(check.what)}")
        if check.state != "ok":
            click.echo(f"      Why:  {_indented(check.why)}")
            click.echo(f"      Mend: {_indented(check.mend)}")


def _indented(text: str) -> str:
    return visible(text).rstrip().replace("\n", "\n            ")
