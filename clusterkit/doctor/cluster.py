"""`doctor cluster`: what a cluster on this machine needs, what its JVMs make of it, and how the cluster is."""

from __future__ import annotations

import shutil
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from clusterkit.doctor import Check, State, failed
from clusterkit.embedded import class_data, jars
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.errors import ClusterError, ClusterkitError
from clusterkit.hadoop.java import find_java
from clusterkit.hadoop.rest import Rest
from clusterkit.launch.clusters import find_cluster
from clusterkit.launchers.spark.home import find_spark
from clusterkit.units import GIB, format_bytes, format_duration, format_memory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterkit.embedded.class_data import Archive
    from clusterkit.embedded.jar_lock import JarLock
    from clusterkit.embedded.status import ClusterStatus
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.java import Java
    from clusterkit.hadoop.resource_manager import Node, Queue
    from clusterkit.launchers.spark.home import SparkHome
    from clusterkit.settings import Settings

LOW_DISK_BYTES = 5 * GIB
"""Less free room than this is a warning."""

FULL_DISK_BYTES = GIB
"""Less free room than this is a failure: HDFS and YARN stop taking work."""

CLOCK_SLACK_S = 30.0
"""Clocks that differ by less are taken as equal; Kerberos bears 300 s."""

SMALLEST_AM_MIB = 896
"""What the smallest ApplicationMaster of Spark takes: 512 MiB and the overhead of 384 MiB."""


def examine(settings: Settings, environ: Mapping[str, str]) -> tuple[Check, ...]:
    """Make every check.

    Parameters
    ----------
    settings : Settings
        The resolved settings; `cluster` names the cluster to look at.
    environ : mapping of str to str
        The environment, for Java and `HADOOP_CONF_DIR`.
    """
    return tuple(_examine(settings, environ))


def _examine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    lock = jars.JarLock.load()
    java, found = java_found(settings.java_home, environ)
    yield found
    spark, found = spark_found(settings.spark.home)
    yield found
    yield jars_intact(lock, settings.cache_dir)
    lib = jars.directory(lock, settings.cache_dir)
    if java is not None and lib.is_dir():
        yield archive_mapped(class_data.daemon_archive(settings.cache_dir, java, lib))
    if java is not None and spark is not None:
        view = spark.view(settings.cache_dir)
        yield archive_mapped(class_data.spark_archive(settings.cache_dir, java, view.jars))
    yield from (disk_free(directory) for directory in dict.fromkeys((settings.cache_dir, settings.data_dir)))
    yield from _embedded_clusters(settings)
    yield from _client_view(settings, environ)


def java_found(java_home: Path | None, environ: Mapping[str, str]) -> tuple[Java | None, Check]:
    """Look for a supported Java."""
    try:
        java = find_java(java_home, environ)
    except ClusterkitError as exc:
        return None, failed("java", exc)
    return java, Check("java", "ok", f"Java {java.version} at {java.home}")


def spark_found(home: Path | None) -> tuple[SparkHome | None, Check]:
    """Look for a supported Spark."""
    try:
        spark = find_spark(home)
    except ClusterkitError as exc:
        return None, failed("spark", exc)
    return spark, Check("spark", "ok", f"Spark {spark.version} at {spark.path}")


def jars_intact(lock: JarLock, cache_dir: Path) -> Check:
    """Hash every jar of Hadoop in the cache."""
    lib = jars.directory(lock, cache_dir)
    missing = [jar.file_name for jar in lock.jars if not (lib / jar.file_name).is_file()]
    if len(missing) == len(lock.jars):
        return Check(
            "hadoop jars",
            "warn",
            "the jars of the embedded Hadoop are not here yet",
            f"{lib} holds none of them",
            "the first `clusterkit cluster up` fetches them; to do it now, run `clusterkit cluster fetch`",
        )
    changed = [
        jar.file_name for jar in lock.jars if jar.file_name not in missing and not jar.matches(lib / jar.file_name)
    ]
    wrong = [*(f"{name} is missing" for name in missing), *(f"{name} is not the locked one" for name in changed)]
    if wrong:
        return Check(
            "hadoop jars",
            "fail",
            f"{len(wrong)} of {len(lock.jars)} jars of the embedded Hadoop are not in order",
            f"in {lib}, {_some(wrong)}",
            "run `clusterkit cluster fetch`, which fetches these anew",
        )
    return Check(
        "hadoop jars", "ok", f"{len(lock.jars)} jars of Hadoop {lock.hadoop_version}, each with its locked hash"
    )


def archive_mapped(archive: Archive) -> Check:
    """Start a JVM that must map an archive; without one everything works, and starts more slowly."""
    name = f"class data, {archive.kind}"
    slower = f"{_SLOWER[archive.kind]} without it"
    begin = "`clusterkit cluster up` begins to build it" if archive.kind == "daemons" else "the next submit builds it"
    match archive.state:
        case "present":
            why = archive.refusal()
            if why is None:
                return Check(name, "ok", f"mapped from {archive.path}")
            mend = f"remove {archive.directory}; {begin} anew"
            return Check(name, "warn", f"the archive of classes is not used; {slower}", why, mend)
        case "building":
            return Check(name, "ok", f"being built in the background; until then {_SLOWER[archive.kind]}")
        case "failed":
            mend = f"see {archive.directory / 'dump.log'}; another build is tried an hour after the last"
            why = archive.failure or "unknown"
            return Check(name, "warn", f"the archive of classes could not be built; {slower}", why, mend)
        case _:
            why = "none was built yet for this Java and these jars"
            return Check(name, "warn", f"there is no archive of classes; {slower}", why, f"{begin} in the background")


def daemons_mapped(status: ClusterStatus) -> Check | None:
    """Look whether the daemons that run have the archive mapped that they were started with; None while none runs."""
    name = f"class data of {status.name}"
    mapped = {daemon.name: class_data.maps_archive(daemon.pid) for daemon in status.daemons if daemon.pid}
    refused = [each for each, maps in mapped.items() if maps is False]
    if refused:
        return Check(
            name,
            "warn",
            f"{_count(refused, 'daemon')} went without the archive of classes",
            f"the JVM of {', '.join(refused)} refused it without a word: jars or Java changed since it was built",
            f"run `clusterkit cluster down --name {status.name}` and `up` again, which takes the right one",
        )
    without = [each for each, maps in mapped.items() if maps is None]
    if without:
        return Check(
            name, "ok", f"{_count(without, 'daemon')} started before the archive was there; the next start uses it"
        )
    return Check(name, "ok", f"mapped by {_count(mapped, 'daemon')}") if mapped else None


def disk_free(directory: Path) -> Check:
    """Look at the room on the disk of a directory, which need not exist yet."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    what = f"{format_bytes(free)} free for {directory}"
    if free >= LOW_DISK_BYTES:
        return Check("disk", "ok", what)
    state: State = "fail" if free < FULL_DISK_BYTES else "warn"
    why = f"HDFS and YARN take no more work below {format_bytes(FULL_DISK_BYTES)}"
    return Check(
        "disk", state, what, why, "free some room, or move the directory with the settings data_dir and cache_dir"
    )


def daemons_alive(status: ClusterStatus) -> Check:
    """Look at the daemons of an embedded cluster."""
    name = f"cluster {status.name}"
    up = f"`clusterkit cluster up --name {status.name}`"
    if status.state == "down":
        return Check(name, "ok", f"down; start it with {up}")
    if status.state == "up":
        return Check(name, "ok", f"all of {_count(status.daemons, 'daemon')} ready")
    lacking = [
        f"{daemon.name} waits for {daemon.waits_for}" if daemon.pid else f"{daemon.name} does not run"
        for daemon in status.daemons
        if daemon.state != "ready"
    ]
    mend = f"run {up}, which starts what is missing; `clusterkit cluster logs` shows why a daemon ended"
    return Check(name, "fail", f"{len(lacking)} of {len(status.daemons)} daemons are not ready", _some(lacking), mend)


def hdfs_writable(status: ClusterStatus) -> Check | None:
    """Look at safe mode and missing blocks; None while there is no HDFS to ask."""
    name, hdfs = f"hdfs of {status.name}", status.hdfs
    if hdfs is None:
        return None
    if hdfs.safe_mode:
        return Check(
            name,
            "fail",
            "HDFS is in safe mode: nothing can be written",
            f"it has not seen enough blocks yet, or was put there by hand; {_count(hdfs.datanodes, 'DataNode')} live",
            "wait some seconds after a start; if it stays, see `clusterkit cluster status` for dead DataNodes",
        )
    if hdfs.missing_blocks:
        return Check(
            name,
            "fail",
            f"{hdfs.missing_blocks} blocks of HDFS are missing",
            f"no live DataNode has them; {_count(hdfs.datanodes, 'DataNode')} live",
            f"start all DataNodes with `clusterkit cluster up --name {status.name}`",
        )
    if hdfs.remaining_bytes < LOW_DISK_BYTES:
        why = f"of {format_bytes(hdfs.capacity_bytes)}, {format_bytes(hdfs.used_bytes)} are used by HDFS itself"
        return Check(
            name, "warn", f"HDFS has {format_bytes(hdfs.remaining_bytes)} left", why, "delete files, or free the disk"
        )
    return Check(
        name, "ok", f"{_count(hdfs.datanodes, 'DataNode')}, {format_bytes(hdfs.remaining_bytes)} free, writable"
    )


def nodes_healthy(nodes: Sequence[Node]) -> Check:
    """Look at the NodeManagers, as the ResourceManager sees them."""
    running = [node for node in nodes if node.state == "RUNNING"]
    ill = [
        f"{node.id} is {node.state}{f': {node.health.strip()}' if node.health.strip() else ''}"
        for node in nodes
        if node.state in _ILL
    ]
    if running and not ill:
        memory = format_memory(sum(node.total.memory_mib for node in running))
        return Check("nodes", "ok", f"{_count(running, 'NodeManager')} running, {memory} in all")
    what = f"{_count(ill, 'NodeManager')} not healthy" if running else "no NodeManager takes work"
    return Check(
        "nodes",
        "warn" if running else "fail",
        what,
        _some(ill) or "none is registered with the ResourceManager",
        "a node with full or broken disks comes back by itself once there is room; one that is lost has to be started",
    )


def applications_startable(queues: Sequence[Queue]) -> tuple[Check, ...]:
    """Look at what each queue gives to ApplicationMasters; one that gives too little keeps applications waiting."""
    return tuple(_am_share(queue) for queue in queues)


def clocks_agree(theirs_s: float, ours_s: float) -> Check:
    """Compare the ResourceManager's clock with ours, both in seconds since the epoch."""
    apart_s = abs(theirs_s - ours_s)
    if apart_s <= CLOCK_SLACK_S:
        return Check("clock", "ok", "the ResourceManager's clock and this machine's agree")
    return Check(
        "clock",
        "fail" if apart_s >= _KERBEROS_SLACK_S else "warn",
        f"the ResourceManager's clock and this machine's are {format_duration(apart_s)} apart",
        "one of them is not kept by NTP; tokens, time-outs and the order of logs go wrong, Kerberos beyond 5 minutes",
        "run `timedatectl` on both and set up time synchronisation where it is off",
    )


_ILL = frozenset({"UNHEALTHY", "LOST", "DECOMMISSIONED", "SHUTDOWN"})
_KERBEROS_SLACK_S = 300.0
_SHOWN = 3
_SLOWER = {"daemons": "the daemons start in about 6 s, not 4", "spark": "each job starts about 5 s later"}


def _am_share(queue: Queue) -> Check:
    name = f"queue {queue.path}"
    limit, used = queue.user_am_limit or queue.am_limit, queue.am_used
    if queue.state != "RUNNING":
        mend = "use another queue, or have an administrator start it"
        return Check(name, "warn", f"the queue is {queue.state}", "it takes no new applications", mend)
    if limit is None:
        return Check(name, "ok", f"{_count(queue.running, 'application')} running, {queue.pending} waiting")
    share = f"{format_memory(limit.memory_mib)} for ApplicationMasters"
    raise_it = "raise yarn.scheduler.capacity.maximum-am-resource-percent, or give the cluster more memory (--memory)"
    if limit.memory_mib < SMALLEST_AM_MIB:
        why = f"it gives {share}, the smallest of Spark takes {format_memory(SMALLEST_AM_MIB)}"
        return Check(name, "warn", "the queue starts one application at a time", why, raise_it)
    if queue.pending and used is not None and used.memory_mib + SMALLEST_AM_MIB > limit.memory_mib:
        why = f"{format_memory(used.memory_mib)} of {share} are taken by {_count(queue.running, 'running application')}"
        mend = f"wait, end one (`clusterkit app ls`), or {raise_it}"
        return Check(
            name,
            "warn",
            f"{_count(queue.pending, 'application')} waiting for the share of ApplicationMasters",
            why,
            mend,
        )
    return Check(name, "ok", f"{_count(queue.running, 'application')} running, {queue.pending} waiting; {share}")


def _embedded_clusters(settings: Settings) -> Iterator[Check]:
    for path in sorted((settings.data_dir / "clusters").glob("*/cluster.json")):
        name = path.parent.name
        try:
            embedded = EmbeddedCluster(
                name, data_dir=settings.data_dir, cache_dir=settings.cache_dir, java_home=settings.java_home
            )
            status = embedded.status()
        except ClusterkitError as exc:
            yield failed(f"cluster {name}", exc)
            continue
        if status is not None:
            found = (daemons_alive(status), daemons_mapped(status), hdfs_writable(status))
            yield from (check for check in found if check is not None)


def _client_view(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield what a client of the cluster sees that a command would use now."""
    try:
        cluster = find_cluster(settings, environ=environ)
    except ClusterError as exc:
        if settings.cluster is None and "HADOOP_CONF_DIR" not in environ:
            yield Check("client", "ok", "no cluster is named or runs; `clusterkit submit` starts one on this machine")
        else:
            yield failed("client", exc)
        return
    for look in (_resource_manager, _file_system):
        try:
            yield from look(cluster)
        except ClusterkitError as exc:
            yield failed(f"client of {cluster.name}", exc)


def _resource_manager(cluster: Cluster) -> Iterator[Check]:
    manager = cluster.resource_manager
    info = manager.info()
    yield Check("resourcemanager", "ok", f"Hadoop {info.hadoop_version} answers, {info.ha_state.lower()}")
    yield nodes_healthy(manager.nodes())
    yield from applications_startable(manager.queues())
    date = (
        Rest("ResourceManager", cluster.configuration.user)
        .get(f"{manager.active.url}/ws/v1/cluster/info")
        .headers.get("date")
    )
    if date is not None:
        yield clocks_agree(parsedate_to_datetime(date).timestamp(), time.time())


def _file_system(cluster: Cluster) -> Iterator[Check]:
    root = cluster.hdfs.status("/")
    yield Check("file system", "ok", f"{cluster.configuration.default_fs} answers; its root belongs to {root.owner}")


def _count(items: Collection[object] | int, noun: str) -> str:
    number = items if isinstance(items, int) else len(items)
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(items: Sequence[str]) -> str:
    left = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {left} more" if left > 0 else "")
