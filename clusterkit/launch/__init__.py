"""The one place where cluster, environment and launcher meet: plan a launch, then launch it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from clusterkit.errors import SpecError
from clusterkit.launch.clusters import embedded_layouts, find_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import SparkSession

    from clusterkit.applications.application import Application
    from clusterkit.embedded.class_data import Archive
    from clusterkit.embedded.layout import Layout
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.launch.images import Shipment
    from clusterkit.launchers.spark.driver import Output
    from clusterkit.launchers.spark.home import SparkHome
    from clusterkit.launchers.spark.plan import NodePython, Site, SparkPlan
    from clusterkit.settings import Settings
    from clusterkit.specs.job import JobSpec

    Tell = Callable[[str, str], None]

_EMBEDDED_CORES = 4
_KEEP_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Prepared:
    """A launch that only has to be done.

    Parameters
    ----------
    plan : SparkPlan
        What it will do.
    cluster : Cluster
        Where.
    archive : Archive
        The class-data archive of Spark's JVMs; it is built beside the launch where there is none.
    hdfs_root : str
        The directory of HDFS where the application's report is kept.
    embedded : Layout or None
        Where the cluster lies on this machine, where we run it.
    shipment : Shipment or None
        The environment image that has to be on the cluster; None where the nodes' own Python runs the job.
    """

    plan: SparkPlan
    cluster: Cluster
    archive: Archive
    hdfs_root: str
    embedded: Layout | None
    shipment: Shipment | None = None


def submit(job: str | Path, *, args: Sequence[str] = (), **keywords: object) -> Application:
    """Run a PySpark job on the cluster, and return the handle of its application.

    Parameters
    ----------
    job : str or Path
        The job file.
    args : sequence of str
        The job's own arguments.
    **keywords : object
        Settings, by their Python spelling: `executor_memory="4g"`, `deploy_mode="cluster"`, `cluster="prod"`.

    Returns
    -------
    Application
        Its handle, at once: `wait()` returns how it ended, `kill()` ends it. In client mode the driver is a process of
        this Python, and ends with it.

    Raises
    ------
    SettingsError, SpecError, ClusterError, LaunchError, StoreError
        As `prepare` and `launch` do.

    Examples
    --------
    >>> application = clusterkit.submit("job.py", executor_count=2)  # doctest: +SKIP
    >>> application.wait().exit_code  # doctest: +SKIP
    0
    """
    prepared = prepare(Path(job), args, environ=os.environ, keywords=keywords, start=_log_stage)
    return launch(prepared, environ=os.environ)


def spark(name: str | None = None, **keywords: object) -> SparkSession:
    """Return a SparkSession on the cluster, configured from the settings.

    In a job that `clusterkit submit` runs it is the job's own session; in a session that runs already, that one.

    Parameters
    ----------
    name : str, optional
        The application's name; the setting `name`, or `clusterkit`, otherwise.
    **keywords : object
        Settings, by their Python spelling: `executor_memory="4g"`, `executor_count=2`, `cluster="prod"`.

    Raises
    ------
    SettingsError, SpecError, ClusterError, LaunchError, StoreError
        As `submit` does.

    Examples
    --------
    >>> spark = clusterkit.spark(executor_count=2)  # doctest: +SKIP
    >>> spark.range(10).count()  # doctest: +SKIP
    10
    """
    from clusterkit import settings as setting_layers  # noqa: PLC0415
    from clusterkit.launchers.spark import session  # noqa: PLC0415
    from clusterkit.specs.job import JobSpec  # noqa: PLC0415

    if session.inside_job(os.environ):
        return session.session_of_job(name)
    running = session.active()
    if running is not None:
        return running
    settings = setting_layers.load(keywords={**keywords, "name": name or keywords.get("name")}, environ=os.environ)
    spec = JobSpec.for_session(settings, settings.name or "clusterkit")
    cluster = find_cluster(settings, environ=os.environ, start=_log_stage)
    prepared = plan(spec, settings, cluster, environ=os.environ, tell=_log_stage)
    _ready(prepared, _log_stage)
    return session.start(prepared.plan, environ=os.environ)


def _log_stage(stage: str, detail: str) -> None:
    """Tell a Python program what its call is doing, the way a library does."""
    logging.getLogger(__name__).info("%s: %s", stage, detail)


def prepare(
    job: Path,
    args: Sequence[str],
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    keywords: Mapping[str, object] | None = None,
    start: Tell | None = None,
) -> Prepared:
    """Return the launch of a job, prepared: every check is done, nothing is sent.

    Parameters
    ----------
    job : Path
        The job file.
    args : sequence of str
        The job's own arguments.
    environ : mapping of str to str
        The environment.
    flags, keywords : mapping of str to object, optional
        The settings that were given by hand, as `settings.load` takes them.
    start : callable, optional
        Allows an embedded cluster to be started, and is told what is being done.

    Raises
    ------
    SettingsError, SpecError, ClusterError, LaunchError
        As `settings.load`, `JobSpec.from_settings`, `find_cluster` and `plan` do.
    """
    from clusterkit import settings as setting_layers  # noqa: PLC0415
    from clusterkit.specs.job import JobSpec  # noqa: PLC0415

    settings = setting_layers.load(flags, keywords=keywords, environ=environ)
    spec = JobSpec.from_settings(settings, job, args)
    cluster = find_cluster(settings, environ=environ, start=start)
    return plan(spec, settings, cluster, environ=environ, tell=start)


def plan(
    spec: JobSpec, settings: Settings, cluster: Cluster, *, environ: Mapping[str, str], tell: Tell | None = None
) -> Prepared:
    """Plan everything that the launch of a job will do; `launch` does it.

    The image of its environment is built on this machine, where it is not yet; nothing is sent.

    Parameters
    ----------
    spec : JobSpec
        The checked job.
    settings : Settings
        The resolved settings.
    cluster : Cluster
        Where it goes.
    environ : mapping of str to str
        The environment of the launch.
    tell : callable, optional
        Told of what takes a while.

    Raises
    ------
    LaunchError
        If Spark is missing or not supported.
    ImageError
        If its environment cannot be built, or the nodes cannot run it.
    ClusterError
        If no supported Java is found, or the cluster does not answer.
    SpecError
        If the cluster cannot take the job: an unknown queue, or more memory or vcores than it has.
    """
    from clusterkit.embedded.class_data import spark_archive  # noqa: PLC0415
    from clusterkit.hadoop.java import find_java  # noqa: PLC0415
    from clusterkit.launch import images  # noqa: PLC0415
    from clusterkit.launchers.spark import preflight  # noqa: PLC0415
    from clusterkit.launchers.spark.home import find_spark  # noqa: PLC0415
    from clusterkit.launchers.spark.launcher import jvm_options  # noqa: PLC0415
    from clusterkit.launchers.spark.plan import Jvm, machine_defaults, plan_spark  # noqa: PLC0415
    from clusterkit.settings.table import BY_KEY  # noqa: PLC0415

    spark = find_spark(settings.spark.home).view(settings.cache_dir)
    java = find_java(settings.java_home, environ)
    archive = spark_archive(settings.cache_dir, java, spark.jars)
    jvm = Jvm(
        java=java.executable,
        options=jvm_options(spark, java, environ=environ),
        class_path=archive.class_path,
        archive_options=archive.jvm_options,
        on_nodes=cluster.embedded,
    )
    defaults = machine_defaults(environ)
    environment = images.wanted(spec, settings, cluster, defaults)
    shipment = images.shipment(environment, spec, settings, cluster, tell=tell) if environment else None
    planned = plan_spark(
        spec,
        _site(cluster, spark, settings),
        spark=spark,
        jvm=jvm,
        python=shipment.python if shipment else _node_python(cluster, spark),
        directory=settings.data_dir / "launches" / f"clusterkit-{secrets.token_hex(8)}",
        machine_defaults=defaults,
    )
    try:
        preflight.check(planned, cluster.resource_manager)
    except SpecError as exc:
        place = settings.origin(exc.key).place if exc.key in BY_KEY else ""
        raise (exc.at(place) if place else exc) from exc
    embedded = next((each for each in embedded_layouts(settings) if each.conf == cluster.conf_dir), None)
    return Prepared(planned, cluster, archive, settings.hdfs_root, embedded, shipment)


def launch(
    prepared: Prepared,
    *,
    environ: Mapping[str, str],
    output: Output | None = None,
    tell: Tell | None = None,
) -> Application:
    """Do what a plan says, and return the handle of the application.

    Parameters
    ----------
    prepared : Prepared
        The launch.
    environ : mapping of str to str
        The environment the driver starts from.
    output : Output, optional
        Where the job's streams go; those of this process otherwise.
    tell : callable, optional
        Is told of what takes a while before the job starts: a stage and its detail.

    Raises
    ------
    StoreError
        If its image or Spark's jars cannot be put on HDFS.
    """
    from clusterkit.applications.application import Application  # noqa: PLC0415
    from clusterkit.applications.report import Reports  # noqa: PLC0415
    from clusterkit.launchers.spark import driver  # noqa: PLC0415

    _ready(prepared, tell)
    planned, cluster = prepared.plan, prepared.cluster
    started = driver.start(planned, environ=environ, output=output)
    return Application(cluster, driver=started, tag=planned.tag, reports=Reports(cluster, prepared.hdfs_root))


def _ready(prepared: Prepared, tell: Tell | None) -> None:
    """Do what a launch needs before it, and what makes the next one faster."""
    from clusterkit.embedded import background  # noqa: PLC0415
    from clusterkit.launchers.spark import jars  # noqa: PLC0415

    _sweep(prepared.plan.directory.parent)
    if prepared.embedded is not None:
        background.build(prepared.embedded, prepared.archive)
    else:
        prepared.archive.build_in_background()
    if prepared.shipment is not None:
        prepared.shipment.ship(tell)
    if prepared.plan.spark_archive is not None:
        jars.put(prepared.plan.spark_archive, prepared.cluster.hdfs, tell=tell)


def _sweep(launches: Path) -> None:
    """Remove what launches of more than a week ago left here: their logs, properties and configuration."""
    if launches.is_dir():
        oldest_s = time.time() - _KEEP_S
        for directory in launches.iterdir():
            if directory.stat().st_mtime < oldest_s:
                shutil.rmtree(directory, ignore_errors=True)


def _site(cluster: Cluster, spark: SparkHome, settings: Settings) -> Site:
    from clusterkit.launchers.spark.plan import Site  # noqa: PLC0415

    conf: dict[str, str] = {}
    if cluster.embedded:
        conf = {
            "spark.yarn.jars": f"local:{quote(str(spark.jars))}/*",
            "spark.executor.instances": "1",
            "spark.executor.cores": str(min(os.cpu_count() or 1, _EMBEDDED_CORES)),
        }
    return Site(
        name=cluster.name,
        conf_dir=cluster.conf_dir or Path(),
        loopback=cluster.embedded,
        conf=conf,
        root=None if cluster.embedded else f"{cluster.configuration.default_fs}{settings.hdfs_root}",
    )


def _node_python(cluster: Cluster, spark: SparkHome) -> NodePython:
    from clusterkit.launchers.spark.plan import NodePython  # noqa: PLC0415

    if cluster.embedded:
        origin = "the interpreter that runs clusterkit, used in place"
        return NodePython(executable=sys.executable, origin=origin, packages=spark.python)
    return NodePython(executable="python3", origin="the Python of the nodes, found on their PATH")
