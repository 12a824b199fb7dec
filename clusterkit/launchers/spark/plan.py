"""What one Spark launch will do, as a frozen value: what `--dry-run` prints is what runs."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from clusterkit import redaction
from clusterkit.launchers.spark import conf as spark_conf
from clusterkit.launchers.spark.jars import SparkArchive
from clusterkit.specs.attachments import is_uri, split_alias, to_uri
from clusterkit.specs.job import SESSION, JobSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.launchers.spark.home import SparkHome

SPARK_SUBMIT = "org.apache.spark.deploy.SparkSubmit"
PROPERTIES = "spark.properties"
CONFIGURATION_JAR = "configuration.jar"
GATEWAY = "gateway"
FILTER_BEFORE_PAGES = "clusterkit.FilterBeforePages"
IMAGE_TAG = "clusterkit-image-"
"""How the YARN tag begins that tells which image an application runs from."""

_ROLES = ("executorEnv", "yarn.appMasterEnv")
_NOWHERE = "local:/dev/null"


class NodeImage(msgspec.Struct, frozen=True, kw_only=True):
    """An environment image as a launch uses it.

    Parameters
    ----------
    id : str
        The image's digest.
    name : str
        The environment's name.
    lock : str
        The digest of its lock.
    transport : str
        How it reaches the nodes: `fast` or `native`.
    proof : str
        Which BLAS it was seen to use.
    archives, files : tuple of str
        What the containers get: URIs on HDFS, each with the name it has there.
    variables : mapping of str to str
        Variables of every container.
    driver_python : Path
        The same environment's Python on this machine, for a driver here.
    driver_path : tuple of Path
        Where that Python finds the user's own code.
    pyspark : str
        The version of pyspark in it; empty where it has none, and Spark's own copy is sent.
    """

    id: str
    name: str
    lock: str = ""
    transport: str = "fast"
    proof: str = ""
    archives: tuple[str, ...]
    files: tuple[str, ...]
    variables: dict[str, str]
    driver_python: Path
    driver_path: tuple[Path, ...] = ()
    pyspark: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What an application's report keeps of it."""
        return {
            "id": self.id,
            "name": self.name,
            "lock": self.lock,
            "transport": self.transport,
            "proof": self.proof,
        }


class NodePython(msgspec.Struct, frozen=True, kw_only=True):
    """The Python that runs on the nodes.

    Parameters
    ----------
    executable : str
        The command, as a node sees it.
    origin : str
        Where it comes from, in words for the user.
    packages : Path or None
        A directory of the nodes that holds the `pyspark` package; Spark ships its own copy when absent.
    image : NodeImage or None
        The environment image it lies in, where it does.
    """

    executable: str
    origin: str
    packages: Path | None = None
    image: NodeImage | None = None


class Upload(msgspec.Struct, frozen=True):
    """One local file that travels to HDFS with the job."""

    path: Path
    size_bytes: int


class Jvm(msgspec.Struct, frozen=True, kw_only=True):
    """How the JVMs of a job are started: Spark's own options, and a class-data archive where there is one.

    Parameters
    ----------
    java : Path
        The `java` command of this machine.
    options : tuple of str
        What Spark's own launcher starts its JVMs with.
    class_path : str
        Spark's jars, as the archive knows them.
    archive_options : tuple of str
        What makes a JVM use the class-data archive; empty where there is none.
    on_nodes : bool
        Whether the nodes see the same archive and jars.
    """

    java: Path
    options: tuple[str, ...]
    class_path: str
    archive_options: tuple[str, ...] = ()
    on_nodes: bool = False


class SparkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one launch will do.

    Parameters
    ----------
    spec : JobSpec
        What the user asked for.
    cluster : str
        The name of the cluster.
    tag : str
        The YARN tag that only this launch carries.
    directory : Path
        Where the files of the launch are written: the properties, the configuration jar, the driver's log.
    conf : dict of str to str
        The whole Spark configuration.
    argv : tuple of str
        Spark's JVM: the driver's in client mode, the one that hands the job over to YARN in cluster mode.
    job_argv : tuple of str
        The job itself, where it runs here (client mode).
    job_path : tuple of Path
        What stands first on the job's import path, where it runs here.
    environment : dict of str to str
        The variables added to the caller's.
    conf_dir : Path
        The Hadoop configuration directory.
    image : dict of str to str
        The environment image it runs from: its id, name, lock, transport and proof; empty where there is none.
    spark_archive : SparkArchive or None
        Spark's jars as they have to be on HDFS before the launch; None where nothing has to.
    uploads : tuple of Upload
        The local files that travel.
    notes : tuple of str
        What the user should know before it runs.
    """

    spec: JobSpec
    cluster: str
    tag: str
    directory: Path
    conf: dict[str, str]
    argv: tuple[str, ...]
    job_argv: tuple[str, ...]
    job_path: tuple[Path, ...]
    environment: dict[str, str]
    conf_dir: Path
    image: dict[str, str] = {}
    spark_archive: SparkArchive | None = None
    uploads: tuple[Upload, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def driver_log(self) -> Path:
        """Where the driver JVM (or, in cluster mode, the submitting JVM) logs."""
        return self.directory / "driver.log"

    @property
    def jvm_output(self) -> Path:
        """Where what the JVM itself prints goes, which is not the job's."""
        return self.directory / "jvm.err"

    @property
    def gateway(self) -> Path:
        """Where the JVM writes how the job's Python reaches it."""
        return self.directory / GATEWAY

    def to_builtins(self) -> dict[str, object]:
        """Return the plan as plain values, secrets hidden, for JSON."""
        plain: dict[str, object] = redaction.document(msgspec.to_builtins(self, enc_hook=str))
        return plain

    def to_text(self) -> str:
        """Return the plan for people: the command, what it adds to the environment, the configuration, the files."""
        added = [
            f"  {name}={shlex.quote(value)}" for name, value in sorted(redaction.mapping(self.environment).items())
        ]
        conf = [f"  {key}={value}" for key, value in sorted(redaction.mapping(self.conf).items())]
        files = [f"  {upload.path} ({upload.size_bytes} bytes)" for upload in self.uploads]
        return "\n".join(
            [
                f"cluster      {self.cluster} ({self.conf_dir})",
                *([f"job          {shlex.join(redaction.document(self.job_argv))}"] if self.job_argv else []),
                f"command      {shlex.join(redaction.document(self.argv))}",
                "environment  added to yours:",
                *added,
                f"conf         {self.directory / PROPERTIES}:",
                *conf,
                "uploads      " + ("" if files else "nothing but Spark's configuration"),
                *files,
                *(f"note         {note}" for note in self.notes),
            ]
        )


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a launch has to know of the cluster it goes to.

    Parameters
    ----------
    name : str
        The cluster's name.
    conf_dir : Path
        Its Hadoop configuration directory.
    loopback : bool
        Whether the whole cluster lives on this machine's loopback address.
    root : str or None
        The HDFS directory where clusterkit keeps Spark's jars, as a URI; None where the nodes have them.
    conf : dict of str to str
        Spark keys that this cluster needs, such as where its nodes find Spark's jars.
    """

    name: str
    conf_dir: Path
    loopback: bool
    root: str | None = None
    conf: dict[str, str] = msgspec.field(default_factory=dict)


def machine_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the `spark-defaults.conf` of this machine, where SPARK_CONF_DIR names a directory that holds one."""
    conf_dir = environ.get("SPARK_CONF_DIR")
    path = Path(conf_dir, "spark-defaults.conf") if conf_dir else None
    return spark_conf.read_properties(path) if path is not None and path.is_file() else {}


def plan_spark(
    spec: JobSpec,
    site: Site,
    *,
    spark: SparkHome,
    jvm: Jvm,
    python: NodePython,
    directory: Path,
    machine_defaults: Mapping[str, str] | None = None,
) -> SparkPlan:
    """Return what a launch of `spec` will do; nothing is touched, and only sizes and properties files are read.

    Parameters
    ----------
    spec : JobSpec
        The checked job.
    site : Site
        The cluster.
    spark : SparkHome
        The Spark to launch with, under a path without spaces.
    jvm : Jvm
        How its JVMs are started.
    python : NodePython
        The Python of the nodes.
    directory : Path
        A directory for this launch alone; its name is the YARN tag.
    machine_defaults : mapping of str to str, optional
        The `spark-defaults.conf` of this machine.

    Raises
    ------
    SpecError
        If the properties file cannot be read.
    """
    image = python.image
    conf = {
        **spark_conf.JOB_DEFAULTS,
        **(machine_defaults or {}),
        **site.conf,
        **_loopback_conf(site),
        **_archive_conf(jvm),
        "spark.pyspark.python": python.executable,
        **_image_conf(image, spec),
        **(spark_conf.read_properties(Path(spec.properties_file)) if spec.properties_file else {}),
        **spec.conf,
        **spark_conf.typed(spec),
        **_files(spec, image),
        "spark.master": "yarn",
        "spark.yarn.tags": ",".join([directory.name, *([f"{IMAGE_TAG}{image.id[:12]}"] if image else [])]),
    }
    conf |= _listeners(spec, conf)
    archive = _spark_archive(site, spark, conf)
    if archive is not None:
        conf["spark.yarn.archive"] = archive.uri
    return SparkPlan(
        spec=spec,
        cluster=site.name,
        tag=directory.name,
        directory=directory,
        conf=conf,
        argv=_argv(spec, conf, jvm, directory),
        job_argv=_job_argv(spec, conf),
        job_path=_job_path(spec, spark, image),
        environment=_environment(spec, site, spark, directory)
        | _archives_environment(spark, python)
        | _python_environment(conf),
        conf_dir=site.conf_dir,
        image=image.facts if image else {},
        spark_archive=archive,
        uploads=_uploads(spec),
        notes=_notes(spec, python, conf),
    )


def _listeners(spec: JobSpec, conf: Mapping[str, str]) -> dict[str, str]:
    """Let the driver's UI wait for YARN's filter, before the listeners of the user's own."""
    if spec.deploy_mode == "cluster" or conf.get("spark.ui.enabled") == "false":
        return {}
    own = conf.get("spark.extraListeners")
    return {"spark.extraListeners": f"{FILTER_BEFORE_PAGES},{own}" if own else FILTER_BEFORE_PAGES}


def _spark_archive(site: Site, spark: SparkHome, conf: Mapping[str, str]) -> SparkArchive | None:
    """Spark would zip and upload its jars, 460 MB, at each submission; one archive on HDFS serves all of them."""
    if site.root is None or "spark.yarn.archive" in conf or "spark.yarn.jars" in conf:
        return None
    return SparkArchive.of(spark, site.root)


def _loopback_conf(site: Site) -> dict[str, str]:
    """Keep the driver's sockets on the loopback address; the NodeManagers see to those of the containers."""
    if not site.loopback:
        return {}
    return {
        "spark.driver.host": "localhost",
        "spark.driver.bindAddress": "127.0.0.1",
    }


def _archive_conf(jvm: Jvm) -> dict[str, str]:
    """Let the JVMs on the nodes use the class-data archive, which asks for its own class path first.

    A user's own `extraClassPath` replaces this one, as it must stand before Spark's jars; the archive is then not used.
    """
    options = shlex.join(jvm.archive_options)
    if not options or not jvm.on_nodes:
        return {}
    return {
        "spark.driver.defaultJavaOptions": options,
        "spark.executor.defaultJavaOptions": options,
        "spark.yarn.am.extraJavaOptions": options,
        "spark.driver.extraClassPath": jvm.class_path,
        "spark.executor.extraClassPath": jvm.class_path,
    }


def _image_conf(image: NodeImage | None, spec: JobSpec) -> dict[str, str]:
    """Let the containers find the image, and a driver on this machine be of the same environment."""
    if image is None:
        return {}
    conf = {f"spark.{role}.{name}": value for role in _ROLES for name, value in image.variables.items()}
    return conf | ({"spark.pyspark.driver.python": str(image.driver_python)} if spec.deploy_mode == "client" else {})


def _files(spec: JobSpec, image: NodeImage | None) -> dict[str, str]:
    # In cluster mode the driver would look for the generic key's files at the paths they have here, and warn.
    modules = "spark.submit.pyFiles" if spec.deploy_mode == "client" else "spark.yarn.dist.pyFiles"
    lists = {
        modules: spec.py_files,
        # Spark's generic keys for these two are read by SparkContext as well, which knows no aliases.
        "spark.yarn.dist.files": (*spec.files, *(image.files if image else ())),
        "spark.yarn.dist.archives": (*spec.archives, *(image.archives if image else ())),
        "spark.jars": spec.jars,
    }
    conf = {key: ",".join(to_uri(item) for item in items) for key, items in lists.items() if items}
    return conf | ({"spark.jars.packages": ",".join(spec.packages)} if spec.packages else {})


def _uploads(spec: JobSpec) -> tuple[Upload, ...]:
    job = (str(spec.job),) if spec.deploy_mode == "cluster" else ()
    sent = (entry for entries in spec.attachments().values() for entry in entries if not is_uri(entry))
    paths = (Path(path) for path in (*job, *(split_alias(entry)[0] for entry in sent)))
    return tuple(Upload(path, path.stat().st_size) for path in paths if path.is_file())


def _argv(spec: JobSpec, conf: Mapping[str, str], jvm: Jvm, directory: Path) -> tuple[str, ...]:
    client = spec.deploy_mode == "client"
    extra = [shlex.split(conf.get(f"spark.driver.{kind}JavaOptions", "")) for kind in ("default", "extra")]
    own = conf.get("spark.driver.extraClassPath")
    class_path = [own] if client and own and own != jvm.class_path else []
    return (
        str(jvm.java),
        *jvm.options,
        *jvm.archive_options,
        f"-Xmx{conf.get('spark.driver.memory', '1g') if client else '512m'}",
        *(option for options in extra for option in options if client and option not in jvm.archive_options),
        "-cp",
        os.pathsep.join([*class_path, jvm.class_path, str(directory / CONFIGURATION_JAR)]),
        SPARK_SUBMIT,
        "--properties-file",
        str(directory / PROPERTIES),
        *((str(SESSION),) if client else (_job_uri(spec, directory), *spec.args)),
    )


def _job_argv(spec: JobSpec, conf: Mapping[str, str]) -> tuple[str, ...]:
    if spec.deploy_mode == "cluster" or spec.job == SESSION:
        return ()
    return (conf.get("spark.pyspark.driver.python", sys.executable), str(spec.job), *spec.args)


def _job_uri(spec: JobSpec, directory: Path) -> str:
    """Return where Spark reads the job from in cluster mode."""
    return (staged_job(spec, directory) or spec.job.absolute()).as_uri()


def staged_job(spec: JobSpec, directory: Path) -> Path | None:
    """Return where a copy of the job has to be made, None where it travels as it is.

    In cluster mode Spark puts the bare name into a shell command of the node, so a name with anything but letters,
    digits, dot, dash and underscore travels under a plain one.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", spec.job.name)
    return directory / plain if spec.deploy_mode == "cluster" and plain != spec.job.name else None


def _environment(spec: JobSpec, site: Site, spark: SparkHome, directory: Path) -> dict[str, str]:
    environment = {
        "HADOOP_CONF_DIR": str(site.conf_dir),
        "SPARK_HOME": str(spark.path),
        "SPARK_SCALA_VERSION": spark.scala,
        # Strings must hash alike in the driver and in every worker, or partitions by key come out wrong.
        "PYTHONHASHSEED": "0",
        "_CLUSTERKIT_DRIVER_LOG": str(directory / "driver.log"),
        **spec.env_vars,
    }
    if spec.deploy_mode == "client":
        environment |= _gateway_environment(directory)
    if site.loopback:
        environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    return environment


def _archives_environment(spark: SparkHome, python: NodePython) -> dict[str, str]:
    """Say where the nodes import pyspark from; an image that holds this version needs no other copy."""
    if python.image is not None and python.image.pyspark == spark.version:
        return {"PYSPARK_ARCHIVES_PATH": _NOWHERE}
    if python.packages is not None:
        return {"PYSPARK_ARCHIVES_PATH": f"local:{quote(str(python.packages))}"}
    if spark.python_archives:
        return {"PYSPARK_ARCHIVES_PATH": ",".join(path.as_uri() for path in spark.python_archives)}
    return {}


def _gateway_environment(directory: Path) -> dict[str, str]:
    """Tell the JVM where to write how it is reached, and `bin/spark-submit` of our view of Spark where to read it."""
    gateway = str(directory / GATEWAY)
    return {
        "_PYSPARK_DRIVER_CONN_INFO_PATH": gateway,
        "_CLUSTERKIT_GATEWAY": gateway,
        "SPARK_CONNECT_MODE": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _job_path(spec: JobSpec, spark: SparkHome, image: NodeImage | None) -> tuple[Path, ...]:
    """Return where the driver imports from first: `py_files`, before it has a SparkContext, and pyspark.

    A driver in another environment than ours gets pyspark alone, as archives, and nothing that lies beside ours.
    """
    if spec.deploy_mode == "cluster":
        return ()
    local = [Path(split_alias(entry)[0]) for entry in spec.py_files if not is_uri(entry)]
    modules = dict.fromkeys(path.parent if path.suffix == ".py" else path for path in local)
    if image is not None:
        archives = () if image.pyspark == spark.version else spark.python_archives
        return (*modules, *image.driver_path, *archives)
    return (*modules, *([spark.python] if spark.python else []))


def _python_environment(conf: Mapping[str, str]) -> dict[str, str]:
    """Name the Pythons as pyspark reads them; the driver of client mode is the Python that runs clusterkit."""
    return {
        "PYSPARK_PYTHON": conf["spark.pyspark.python"],
        "PYSPARK_DRIVER_PYTHON": conf.get("spark.pyspark.driver.python", sys.executable),
    }


def _notes(spec: JobSpec, python: NodePython, conf: Mapping[str, str]) -> tuple[str, ...]:
    chosen = conf["spark.pyspark.python"]
    origin = python.origin if chosen == python.executable else "spark.pyspark.python names it"
    notes = [f"the nodes run {chosen}: {origin}"]
    if spec.deploy_mode == "cluster":
        notes.append("the driver runs on the cluster: the application goes on if this command is killed")
    return tuple(notes)
