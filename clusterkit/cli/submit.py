"""`clusterkit submit`: run a PySpark job on the cluster and wait for it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from clusterkit.cli.options import flags_from, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterkit.applications.application import Application, Outcome
    from clusterkit.cli.output import Progress
    from clusterkit.launchers.spark.driver import Output
    from clusterkit.launchers.spark.plan import SparkPlan


@click.command("submit", context_settings={"allow_interspersed_args": False})
@settings_options(
    "cluster",
    "env",
    "blas",
    "deploy_mode",
    "queue",
    "name",
    "executor.count",
    "executor.memory",
    "executor.cores",
    "driver.memory",
    "dynamic_allocation",
    "spark.conf",
    "properties_file",
    "py_files",
    "files",
    "jars",
    "packages",
    "archives",
    "env_vars",
    "principal",
    "keytab",
    "transport",
)
@click.option("--detach", is_flag=True, help="Print the application's id and leave it running; implies cluster mode.")
@click.option("--dry-run", is_flag=True, help="Print everything that would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --dry-run or --detach.")
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(job: Path, args: tuple[str, ...], *, detach: bool, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Run a PySpark job on the cluster and wait for it.

    Everything after JOB is the job's own. Standard output carries the job's output alone; the exit code is the job's.
    Without --cluster and HADOOP_CONF_DIR the embedded cluster is used, and started where none runs.
    """
    from clusterkit import launch
    from clusterkit.cli.output import Progress
    from clusterkit.errors import SpecError

    if as_json and not (dry_run or detach):
        raise SpecError(
            "--json cannot be used here",
            why="standard output belongs to the job",
            mend="add --dry-run or --detach, or leave --json out",
        )
    if detach:
        given["deploy_mode"] = _detached(given["deploy_mode"])
    with Progress() as progress:
        start = None if dry_run else progress.stage
        prepared = launch.prepare(job, args, flags=flags_from(given), environ=os.environ, start=start)
        if dry_run:
            _print_plan(prepared.plan, as_json=as_json)
            return 0
        for note in prepared.plan.notes:
            progress.note(note)
        application = launch.launch(prepared, environ=os.environ, output=_output(progress), tell=progress.stage)
        with _killed_when_interrupted(application, progress):
            if detach:
                return _leave(application, progress, as_json=as_json)
            outcome = _wait(application, progress)
    return _tell_end(application, outcome, prepared.plan)


def _output(progress: Progress) -> Output:
    """Copy the job's streams through us where they share a terminal with the live line; leave them alone elsewhere."""
    from clusterkit.cli.output import is_terminal
    from clusterkit.launchers.spark.driver import Output

    def writer(stream: TextIO) -> Callable[[bytes], None]:
        return lambda piece: progress.pass_on(piece, stream.buffer)

    shared = is_terminal(sys.stderr) and is_terminal(sys.stdout)
    return Output(stdout=writer(sys.stdout) if shared else None, stderr=writer(sys.stderr))


@contextmanager
def _killed_when_interrupted(application: Application, progress: Progress) -> Iterator[None]:
    """Kill the application whenever we leave early: by Ctrl-C, by SIGTERM, by an error."""
    try:
        yield
    except BaseException:
        progress.note(f"killing {application.id or 'the job, which has no application yet'}")
        application.kill()
        if application.id is not None:
            progress.note(f"killed {application.id}")
        raise


def _leave(application: Application, progress: Progress, *, as_json: bool) -> int:
    """Print the id of a submitted application, which goes on without us."""
    from clusterkit.cli.output import print_json

    application_id = application.wait_for_id(progress.stage)
    if application_id is None:
        raise application.failed_submission()
    if as_json:
        print_json({"application_id": application_id, "cluster": application.cluster.name})
    else:
        click.echo(application_id)
    return 0


def _wait(application: Application, progress: Progress) -> Outcome:
    return application.wait(progress.stage, stdout=lambda piece: progress.pass_on(piece, sys.stdout.buffer))


def _tell_end(application: Application, outcome: Outcome, planned: SparkPlan) -> int:
    """Print why a job failed, below whatever it said itself, and return its exit code."""
    from clusterkit.cli.boundary import report

    if outcome.exit_code != 0:
        report(application.failure(outcome), sys.stderr)
        click.echo(f"  Logs: {planned.driver_log}", err=True)
    return outcome.exit_code


def _detached(deploy_mode: str | None) -> str:
    from clusterkit.errors import SpecError

    if deploy_mode == "client":
        raise SpecError(
            "--detach cannot be used in client mode",
            why="there the driver is a process of this command and ends with it",
            mend="leave --deploy-mode out, or set it to cluster",
        )
    return "cluster"


def _print_plan(planned: SparkPlan, *, as_json: bool) -> None:
    from clusterkit.cli.output import print_json

    if as_json:
        print_json(planned.to_builtins())
    else:
        click.echo(planned.to_text())
