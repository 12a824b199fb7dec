"""`clusterkit cluster`: the real HDFS and YARN that clusterkit runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from clusterkit.cli.output import Progress, print_json, print_table, visible

if TYPE_CHECKING:
    from clusterkit.embedded.cluster import EmbeddedCluster
    from clusterkit.embedded.status import ClusterStatus
    from clusterkit.specs.cluster import ClusterSpec

_name = click.option("--name", default="default", show_default=True, metavar="NAME", help="Which cluster.")


@click.group("cluster")
def command() -> None:
    """Start and stop a real HDFS and YARN on this machine.

    A cluster consists of Hadoop's own daemons, one process each. They listen on the loopback address only and check no
    identity: any user of this machine can use the cluster.
    """


@command.command("up")
@_name
@click.option("--nodes", type=int, metavar="N", help="NodeManagers and DataNodes, 1 to 4.")
@click.option("--memory", metavar="SIZE", help="Memory of each node for containers, such as '4 GiB'.")
@click.option("--queue", "queues", multiple=True, metavar="NAME=SHARE", help="A queue and its percentage. Repeatable.")
@click.option("--ha/--no-ha", default=None, help="Two NameNodes and two ResourceManagers.")
@click.option("--bind", metavar="ADDRESS", help="Listen on this address instead of 127.0.0.1.")
@click.option("--insecure-bind", is_flag=True, default=None, help="Yes, let other machines reach it unchecked.")
def up(name: str, **given: Any) -> None:
    """Start a cluster, mend it, or change it; what is not given stays as it was.

    It returns when every daemon is ready. Daemons that run already, as asked for, are left alone.
    """
    cluster = _cluster(name)
    spec = _spec(cluster, given)
    with Progress() as progress:
        changes = cluster.up(spec, said=progress.stage)
    click.echo(f"The cluster {name!r} {'ran already' if changes.none else 'runs'}.", err=True)


@command.command("down")
@_name
@click.option("--purge", is_flag=True, help="Remove the data in HDFS as well.")
def down(name: str, *, purge: bool) -> None:
    """End every process of a cluster; the data in HDFS stay unless --purge is given."""
    with Progress() as progress:
        ended = _cluster(name).down(purge=purge, said=progress.stage)
    click.echo(f"The cluster {name!r} is down." if ended else f"The cluster {name!r} did not run.", err=True)


@command.command("status")
@_name
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, *, as_json: bool) -> int:
    """Print each daemon, the nodes, HDFS and the queues; the exit code is 0 when all is well, 1 when not."""
    found = _cluster(name).status()
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found) if found else None)
    elif found is None:
        click.echo(f"There is no cluster {name!r}. Start it with `clusterkit cluster up`.")
    else:
        _print_status(found)
    return 0 if found and found.state == "up" else 1


@command.command("logs")
@click.argument("daemon", required=False)
@_name
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="How many last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
def logs(daemon: str | None, name: str, *, lines: int, follow: bool) -> None:
    """Print the end of the log of DAEMON, such as namenode; of every daemon without it."""
    from clusterkit.embedded import logs as daemon_logs

    layout = _cluster(name).layout
    if daemon is not None:
        daemon_logs.check_name(layout, daemon)
    chosen = daemon_logs.names(layout) if daemon is None else (daemon,)
    width = 0 if daemon else max(map(len, chosen))
    for each in chosen:
        for line in daemon_logs.tail(layout, each, lines):
            _print_line(each, line, width)
    if follow:
        for each, line in daemon_logs.follow(layout, chosen):
            _print_line(each, line, width)


@command.command("ui")
@_name
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ui(name: str, *, as_json: bool) -> None:
    """Print the addresses of the daemons' web pages."""
    import msgspec

    from clusterkit.errors import ClusterError

    found = _cluster(name).pages()
    if as_json:
        print_json(msgspec.to_builtins(found))
    elif found:
        print_table(("DAEMON", "PAGE"), [(page.daemon, page.url) for page in found])
    else:
        raise ClusterError(
            f"the cluster {name!r} has no web pages",
            why="none of its daemons runs",
            mend=f"start it with `clusterkit cluster up --name {name}`",
            cluster=name,
        )


@command.command("env")
@_name
@click.option("--shell", type=click.Choice(["sh", "fish"]), default="sh", show_default=True, help="For which shell.")
def env(name: str, shell: str) -> None:
    """Print what makes stock Hadoop and Spark clients use a cluster, as text for a shell.

    In bash: eval "$(clusterkit cluster env)"
    """
    from clusterkit.embedded.environment import exports

    click.echo(exports(_cluster(name).environment(), shell), nl=False)


@command.command("fetch")
@click.option("--to", "target", type=click.Path(dir_okay=False), metavar="FILE", help="Write the jars to a bundle.")
@click.option("--from", "source", type=click.Path(dir_okay=False), metavar="FILE", help="Read them from a bundle.")
def fetch(target: str | None, source: str | None) -> None:
    """Fetch the jars that a cluster needs, so that `up` needs no network.

    A bundle carries them to a machine without one: `fetch --to` there, `fetch --from` here.
    """
    import os
    from pathlib import Path

    from clusterkit import settings
    from clusterkit.embedded import bundle, jars
    from clusterkit.embedded.cluster import fetched
    from clusterkit.hadoop.java import find_java

    if target and source:
        raise click.UsageError("--to and --from exclude each other")
    found, lock = settings.load(), jars.JarLock.load()
    with Progress() as progress:
        if source:
            directory = bundle.bundle_from(
                lock, found.cache_dir, Path(source), lambda done: progress.stage("reading", fetched(done))
            )
        else:
            java = find_java(found.java_home, os.environ)
            directory = jars.fetch(lock, found.cache_dir, java, lambda done: progress.stage("fetching", fetched(done)))
        if target:
            progress.stage("writing", target)
            bundle.bundle_to(lock, found.cache_dir, Path(target))
    click.echo(target or str(directory))


def _cluster(name: str) -> EmbeddedCluster:
    from clusterkit import settings
    from clusterkit.embedded.cluster import EmbeddedCluster

    found = settings.load()
    return EmbeddedCluster(name, data_dir=found.data_dir, cache_dir=found.cache_dir, java_home=found.java_home)


def _spec(cluster: EmbeddedCluster, given: dict[str, Any]) -> ClusterSpec:
    import msgspec

    from clusterkit.specs.cluster import ClusterSpec, parse_queues

    changes = {key: value for key, value in given.items() if value is not None and value != ()}
    if "memory" in changes:
        changes["memory_mib"] = _memory(changes.pop("memory"))
    if "queues" in changes:
        changes["queues"] = parse_queues(changes["queues"])
    return msgspec.structs.replace(cluster.spec or ClusterSpec(name=cluster.name), **changes)


def _memory(text: str) -> int:
    from clusterkit.errors import SpecError
    from clusterkit.units import parse_memory

    try:
        return parse_memory(text)
    except ValueError as exc:
        raise SpecError(
            f"the memory {text!r} cannot be read",
            why=str(exc),
            mend="write for example --memory '4 GiB'",
            key="memory",
            place="--memory",
        ) from exc


def _print_line(daemon: str, line: str, width: int) -> None:
    text = visible(line.expandtabs(4))
    click.echo(f"{daemon:{width}} | {text}" if width else text)


def _print_status(found: ClusterStatus) -> None:
    from clusterkit.units import format_bytes, format_memory

    click.echo(f"cluster {found.name}: {found.state}, {found.security}")
    click.echo(f"configuration {found.conf_dir}\n")
    print_table(
        ("DAEMON", "STATE", "PID", "MEMORY", "PORTS"),
        [
            (
                daemon.name,
                f"waits for {daemon.waits_for}" if daemon.waits_for else daemon.turn or daemon.state,
                daemon.pid,
                format_bytes(daemon.rss_bytes) if daemon.pid else None,
                " ".join(f"{purpose}:{port}" for purpose, port in daemon.ports.items()),
            )
            for daemon in found.daemons
        ],
    )
    if found.nodes:
        click.echo()
        print_table(
            ("NODE", "STATE", "CONTAINERS", "USED", "MEMORY"),
            [
                (
                    node.id,
                    node.state,
                    node.containers,
                    format_memory(node.used_memory_mib),
                    format_memory(node.memory_mib),
                )
                for node in found.nodes
            ],
        )
    if found.queues:
        click.echo()
        print_table(
            ("QUEUE", "SHARE %", "USED %", "APPLICATIONS"),
            [(queue.name, queue.share, queue.used, queue.applications) for queue in found.queues],
        )
    if found.hdfs:
        used, capacity = format_bytes(found.hdfs.used_bytes), format_bytes(found.hdfs.capacity_bytes)
        free = format_bytes(found.hdfs.remaining_bytes)
        safe = ", in safe mode" if found.hdfs.safe_mode else ""
        click.echo(f"\nHDFS: {found.hdfs.datanodes} DataNodes, {used} used, {free} free of {capacity}{safe}")
