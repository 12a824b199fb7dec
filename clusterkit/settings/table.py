"""The table of every setting: its key, what it takes, what it does when nobody says anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterkit.settings import kinds


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, and its four spellings.

    Parameters
    ----------
    key : str
        The dotted key in clusterkit.toml; `*` stands for a name that the user chooses.
    kind : Kind
        What it takes.
    help : str
        What it does, in one line.
    default : object
        Its value when no layer sets it.
    option : str
        The flag where it is not the key with dashes; empty otherwise.
    short : str
        A shorter flag, `--executors`; empty where there is none.

    Examples
    --------
    >>> setting = BY_KEY["executor.memory"]
    >>> setting.flag, setting.variable, setting.keyword
    ('--executor-memory', 'CLUSTERKIT_EXECUTOR_MEMORY', 'executor_memory')
    """

    key: str
    kind: kinds.Kind
    help: str
    default: Any = None
    option: str = ""
    short: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """The key's parts."""
        return tuple(self.key.split("."))

    @property
    def file_only(self) -> bool:
        """Whether only a file can hold it."""
        return "*" in self.key or isinstance(self.kind, kinds.Anything)

    @property
    def open(self) -> bool:
        """Whether names below the key are the user's own."""
        return isinstance(self.kind, (kinds.Table, kinds.Anything))

    @property
    def flag(self) -> str:
        """The option of `clusterkit submit`."""
        return self.option or "--" + self.keyword.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "CLUSTERKIT_" + self.keyword.upper()

    @property
    def keyword(self) -> str:
        """The keyword argument in Python."""
        return self.key.replace(".", "_")


TABLE = (
    Setting("cluster", kinds.Text(words="a name"), "Cluster to use: one of [clusters], or an embedded one."),
    Setting("clusters.*.conf_dir", kinds.LocalPath(), "Directory with the Hadoop configuration of this cluster."),
    Setting("deploy_mode", kinds.Text(("client", "cluster")), "Where the driver runs: client or cluster.", "client"),
    Setting("queue", kinds.Text(words="the name of a queue"), "YARN queue to submit to.", "default"),
    Setting("name", kinds.Text(), "Name of the application; the job file's name otherwise."),
    Setting("executor.count", kinds.Integer(), "Number of executors.", short="--executors"),
    Setting("executor.memory", kinds.Memory(), "Memory of each executor's JVM."),
    Setting("executor.cores", kinds.Integer(), "Tasks that each executor runs at a time."),
    Setting("driver.memory", kinds.Memory(), "Memory of the driver's JVM."),
    Setting("dynamic_allocation", kinds.Boolean(), "Let Spark ask for executors and give them back as it needs."),
    Setting("properties_file", kinds.LocalPath(), "File of Spark properties, below everything that is set here."),
    Setting("py_files", kinds.Files(), "Python files, .zip and .egg archives for the workers' import path.", ()),
    Setting("files", kinds.Files(), "Files for the working directory of each container.", ()),
    Setting("jars", kinds.Files(), "Jars for the class path of driver and executors.", ()),
    Setting("packages", kinds.Texts("a list of group:artifact:version"), "Maven coordinates of jars to add.", ()),
    Setting("archives", kinds.Files(), "Archives to unpack in the working directory of each container.", ()),
    Setting("env_vars", kinds.Table(), "Environment variables for driver and executors.", option="--env-var"),
    Setting("spark.conf", kinds.Table(), "Spark's own configuration, passed through as it is.", option="--conf"),
    Setting("spark.home", kinds.LocalPath(), "Spark to use instead of the one in the pyspark package."),
    Setting("principal", kinds.Text(words="a Kerberos principal"), "Kerberos principal; needs keytab."),
    Setting("keytab", kinds.LocalPath(), "Keytab of the principal."),
    Setting("java_home", kinds.LocalPath(), "Java 17 or 21 to use; JAVA_HOME, PATH and /usr/lib/jvm otherwise."),
    Setting(
        "hdfs_root", kinds.Text((), r"(/[^/\x00-\x1f]+)+", "an absolute path"), "Directory on HDFS.", "/clusterkit"
    ),
    Setting("cache_dir", kinds.LocalPath(), "Directory for what can be fetched again: jars, class data."),
    Setting("data_dir", kinds.LocalPath(), "Directory for embedded clusters and their data."),
    Setting("env", kinds.Text(words="a name or a path"), "Environment to run in: one of [environments], or a path."),
    Setting("blas", kinds.Text(("mkl", "openblas", "auto")), "BLAS of an environment that says nothing of its own."),
    Setting("environments.*.source", kinds.LocalPath(), "environment.yml, requirements.txt, project, venv or prefix."),
    Setting("environments.*.packages", kinds.Texts("a list of requirements"), "Packages beside those of the source."),
    Setting("environments.*.channels", kinds.Texts("a list of channels"), "Conda channels, the first one first."),
    Setting("environments.*.python", kinds.Text((), r"3\.\d+(\.\d+)?", "a Python version"), "Python, such as 3.12."),
    Setting("environments.*.blas", kinds.Text(("mkl", "openblas", "auto")), "BLAS to link: mkl, openblas or auto."),
    Setting(
        "environments.*.accelerate",
        kinds.Choices("a list of fft, random, umath and sklearn", ("fft", "random", "umath", "sklearn")),
        "What Intel's libraries compute besides: fft, random, umath, sklearn.",
    ),
    Setting("environments.*.local", kinds.Paths(), "Folders of your own code to send along."),
    Setting("environments.*.java", kinds.Boolean(), "Carry a JDK, for nodes whose Java is too old for Spark."),
    Setting("environments.*.slim", kinds.Boolean(), "Leave out tests, static libraries and headers."),
    Setting("transport", kinds.Text(("auto", "fast", "native")), "How images reach nodes: auto, fast, native.", "auto"),
    Setting(
        "node_cache",
        kinds.Text((), r"(/[\w.@+-]+)+", "an absolute path without spaces"),
        "Directory of the nodes where images are unpacked, once for each user.",
        "/var/tmp/clusterkit",  # noqa: S108 - a directory of the nodes; each user's part of it is checked there
    ),
    Setting("kernelspecs.*", kinds.Anything(), "A Jupyter kernel on the cluster."),
)

BY_KEY = {setting.key: setting for setting in TABLE}
BY_KEYWORD = {setting.keyword: setting for setting in TABLE if not setting.file_only}
BY_VARIABLE = {setting.variable: setting for setting in BY_KEYWORD.values()}

SPARK_KEYS = {
    "spark.app.name": "name",
    "spark.archives": "archives",
    "spark.driver.memory": "driver.memory",
    "spark.dynamicAllocation.enabled": "dynamic_allocation",
    "spark.executor.cores": "executor.cores",
    "spark.executor.instances": "executor.count",
    "spark.executor.memory": "executor.memory",
    "spark.files": "files",
    "spark.jars": "jars",
    "spark.jars.packages": "packages",
    "spark.kerberos.keytab": "keytab",
    "spark.kerberos.principal": "principal",
    "spark.master": "cluster",
    "spark.submit.deployMode": "deploy_mode",
    "spark.submit.pyFiles": "py_files",
    "spark.yarn.dist.archives": "archives",
    "spark.yarn.dist.files": "files",
    "spark.yarn.dist.jars": "jars",
    "spark.yarn.dist.pyFiles": "py_files",
    "spark.yarn.keytab": "keytab",
    "spark.yarn.principal": "principal",
    "spark.yarn.queue": "queue",
}
"""Spark properties that a setting owns: they have one spelling here, the setting's."""
