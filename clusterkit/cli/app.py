"""`clusterkit app`: list, follow, explain and kill applications."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from clusterkit.cli.options import flags_from, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from clusterkit.applications.application import Application
    from clusterkit.applications.report import Report
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.logs.follow import LogChunk
    from clusterkit.hadoop.resource_manager import ApplicationReport
    from clusterkit.settings import Settings

_STATES = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED", "RUNNING", "FINISHED", "FAILED", "KILLED")

_cluster_option = settings_options("cluster")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_id = click.argument("application_id", metavar="ID")


@click.group("app")
def command() -> None:
    """List, follow, explain and kill applications.

    ID is an application's whole id, or the last number in it: 12 for application_1700000000000_0012.
    """


@command.command("ls")
@_cluster_option
@click.option("--mine/--all", "mine", default=True, help="Those you launched with clusterkit, or everybody's.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES, case_sensitive=False),
    help="Of this state. Repeatable.",
)
@click.option("--queue", metavar="TEXT", help="Of this queue.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="At most so many."
)
@_json_option
def ls(
    cluster: str | None, states: tuple[str, ...], queue: str | None, limit: int, *, mine: bool, as_json: bool
) -> None:
    """List applications, the newest first."""
    from clusterkit.cli.output import print_json, print_table

    reports = _listed(_found(cluster)[1], states, queue, mine=mine)
    if as_json:
        print_json([_document(report) for report in reports[:limit]])
        return
    print_table(
        ("ID", "NAME", "USER", "QUEUE", "STATE", "FINAL", "STARTED", "TOOK"), [_row(each) for each in reports[:limit]]
    )
    if len(reports) > limit:
        click.echo(f"{len(reports) - limit} more: --limit {len(reports)} shows them", err=True)


@command.command("status")
@_cluster_option
@_json_option
@_id
def status(cluster: str | None, application_id: str, *, as_json: bool) -> None:
    """Print what an application does: its state, what it waits for, its containers, its addresses, its end."""
    from clusterkit.cli.output import print_json

    application = _application(cluster, application_id)
    report = application.report()
    kept = application.kept()
    code = kept.exit_code if kept else None
    if as_json:
        print_json(_document(report) | {"exit_code": code})
    else:
        _print_facts(_facts(report, code))


@command.command("logs")
@_cluster_option
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until the application has ended.")
@click.option("--container", "containers", multiple=True, metavar="ID", help="Of this container. Repeatable.")
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="Of files of this name, such as stdout. Repeatable."
)
@click.option("--grep", metavar="RE", help="Only lines in which this regular expression is found.")
@_id
def logs(
    cluster: str | None,
    application_id: str,
    containers: tuple[str, ...],
    names: tuple[str, ...],
    grep: str | None,
    *,
    follow: bool,
) -> None:
    """Print the logs of an application's containers: from their nodes while it runs, from HDFS when it has ended."""
    from clusterkit.applications import naming

    found = _found(cluster)[1]
    whole_id = naming.resolve(application_id, found.resource_manager)
    expression = _expression(grep)
    if follow:
        chunks = found.logs.follow(whole_id, containers=containers, names=names)
        _print_followed(chunks, expression)
        return
    files = found.logs.files(whole_id, containers=containers, names=names)
    if expression is None:
        from clusterkit.hadoop.logs import log_file

        log_file.write(files, sys.stdout.buffer)
        return
    for file in files:
        for number, line in enumerate(file.lines(), 1):
            if expression.search(line):
                _write(f"{file.container_id} {file.name}:{number}: ".encode() + line + b"\n")


@command.command("kill")
@_cluster_option
@click.argument("application_ids", metavar="ID...", nargs=-1, required=True)
def kill(cluster: str | None, application_ids: tuple[str, ...]) -> None:
    """Kill applications, and wait until YARN says that they have ended."""
    for application_id in application_ids:
        application = _application(cluster, application_id)
        if application.report().ended:
            click.echo(f"{application.id} had ended already", err=True)
        else:
            application.kill()
            application.wait()
            click.echo(f"killed {application.id}", err=True)


@command.command("why")
@_cluster_option
@_json_option
@_id
def why(cluster: str | None, application_id: str, *, as_json: bool) -> None:
    """Explain why an application failed, or what it waits for."""
    import msgspec

    from clusterkit.cli.output import print_json, visible
    from clusterkit.errors import ApplicationError

    cause = _application(cluster, application_id).why()
    if as_json:
        print_json(msgspec.to_builtins(cause))
    else:
        click.echo(visible(str(ApplicationError(cause.what, why=cause.why, mend=cause.mend))))


@command.command("show")
@_cluster_option
@_json_option
@_id
def show(cluster: str | None, application_id: str, *, as_json: bool) -> None:
    """Print the report that is kept of an application: what was asked for, its stages, its end, why it failed."""
    import msgspec

    from clusterkit.cli.output import print_json

    application = _application(cluster, application_id)
    kept = application.kept()
    if kept is None:
        raise _no_report(application)
    if as_json:
        print_json(msgspec.to_builtins(kept))
    else:
        _print_facts(_kept_facts(kept))


def _found(cluster: str | None) -> tuple[Settings, Cluster]:
    from clusterkit import settings
    from clusterkit.launch.clusters import find_cluster

    loaded = settings.load(flags_from({"cluster": cluster}), environ=os.environ)
    return loaded, find_cluster(loaded, environ=os.environ)


def _application(cluster: str | None, application_id: str) -> Application:
    from clusterkit.applications import naming
    from clusterkit.applications.application import Application
    from clusterkit.applications.report import Reports

    settings, found = _found(cluster)
    whole_id = naming.resolve(application_id, found.resource_manager)
    return Application(found, whole_id, reports=Reports(found, settings.hdfs_root))


def _listed(cluster: Cluster, states: tuple[str, ...], queue: str | None, *, mine: bool) -> list[ApplicationReport]:
    from clusterkit.applications import naming

    user = cluster.configuration.user if mine else None
    reports = cluster.resource_manager.applications(states=states, user=user)
    return [
        report
        for report in reports
        if (not mine or any(tag.startswith(naming.TAG) for tag in report.tags))
        and (queue is None or f".{report.queue}".endswith(f".{queue}"))
    ]


def _row(report: ApplicationReport) -> tuple[object, ...]:
    final = report.final_status if report.ended else None
    return (
        report.id,
        report.name,
        report.user,
        report.queue,
        report.state,
        final,
        _clock(report.submitted),
        _took(report),
    )


def _document(report: ApplicationReport) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(report)
    return document


def _facts(report: ApplicationReport, code: int | None) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of an application, label and text."""
    from clusterkit import units
    from clusterkit.applications import waiting

    yield "application", report.id
    yield "name", report.name
    yield "user", report.user
    yield "queue", report.queue
    yield "state", report.state
    if report.ended:
        yield "final status", report.final_status
        yield "exit code", "unknown" if code is None else str(code)
    elif report.state == "RUNNING":
        held = f"{units.format_memory(report.allocated.memory_mib)}, {report.allocated.vcores} vcores"
        yield "containers", f"{report.running_containers} ({held})"
    else:
        yield "waits", waiting.waits_for(report.diagnostics).removeprefix("waits: ").removeprefix("waits ")
    if report.tracking_url:
        yield "tracking URL", report.tracking_url
    yield "submitted", _clock(report.submitted) or "-"
    yield "started", _clock(report.launched) or "-"
    if report.ended:
        yield "finished", _clock(report.finished) or "-"
    yield "took", _took(report)
    if report.ended and report.final_status != "SUCCEEDED":
        yield "why", f"`clusterkit app why {report.id}`"


def _kept_facts(kept: Report) -> Iterator[tuple[str, str]]:
    """Yield what a report tells, label and text."""
    import json

    from clusterkit import units

    yield "application", kept.id
    yield "name", kept.name
    yield "user", kept.user
    yield "queue", kept.queue
    yield "cluster", kept.cluster
    yield "driver", kept.deploy_mode
    yield "state", kept.state
    yield "final status", kept.final_status
    yield "exit code", "unknown" if kept.exit_code is None else str(kept.exit_code)
    yield "submitted", _clock(kept.submitted) or "-"
    yield "finished", _clock(kept.finished) or "-"
    for stage in kept.stages:
        yield f"stage {stage.stage}", f"began after {units.format_duration(stage.began_s)}"
    for key, text in kept.image.items():
        yield f"image {key}", text
    for node in kept.nodes:
        found = "the image was there" if node.hit else "the image was unpacked"
        told = f"; computes with {node.blas}" if node.blas else ""
        yield node.container, f"on {node.host} {found}: {units.format_duration(node.seconds)}{told}"
    for key, value in kept.spec.items():
        yield f"spec {key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kept.cause is not None:
        yield "what", kept.cause.what
        yield "why", kept.cause.why
        yield "mend", kept.cause.mend
    if kept.stderr:
        yield "stderr", kept.stderr.rstrip()


def _print_facts(facts: Iterable[tuple[str, str]]) -> None:
    from clusterkit.cli.output import visible

    listed = list(facts)
    width = max(len(label) for label, _ in listed)
    for label, text in listed:
        indented = visible(text).replace("\n", f"\n{'':{width + 2}}")
        click.echo(f"{label:{width}}  {indented}")


def _print_followed(chunks: Iterable[LogChunk], expression: Any) -> None:
    """Print what is added to logs; a line tells where it comes from whenever that changes."""
    source = None
    for chunk in chunks:
        data = chunk.data
        if expression is not None:
            data = b"".join(line for line in data.splitlines(keepends=True) if expression.search(line))
        if not data:
            continue
        if source != (chunk.container_id, chunk.name):
            source = (chunk.container_id, chunk.name)
            _write(f"==> {chunk.container_id} {chunk.name} <==\n".encode())
        _write(data)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _expression(pattern: str | None) -> Any:
    import re

    if pattern is None:
        return None
    try:
        return re.compile(pattern.encode())
    except re.error as exc:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {exc}", param_hint="--grep") from exc


def _no_report(application: Application) -> Exception:
    from clusterkit.errors import ApplicationError

    report = application.report()
    return ApplicationError(
        f"there is no report of {report.id}",
        why="it was not launched by clusterkit, its report is older than 180 days, or you may not read it",
        mend=f"see what YARN knows of it: `clusterkit app status {report.id}`",
        application_id=report.id,
    )


def _clock(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None


def _took(report: ApplicationReport) -> str:
    from datetime import UTC, datetime

    from clusterkit import units

    if report.submitted is None:
        return "-"
    return units.format_duration(((report.finished or datetime.now(UTC)) - report.submitted).total_seconds())
