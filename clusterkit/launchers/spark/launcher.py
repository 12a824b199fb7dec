"""Ask Spark's own launcher how it starts a JVM, once for each Spark and Java."""

from __future__ import annotations

import hashlib
import os
import shlex
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.hadoop.java import Java
    from clusterkit.launchers.spark.home import SparkHome

_TIMEOUT_S = 60.0


def jvm_options(spark: SparkHome, java: Java, *, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the options that Spark starts its driver with: the modules it opens, and what else its version needs.

    Spark's launcher knows them; its answer is kept beside the view of Spark: later launches start no JVM for it.

    Parameters
    ----------
    spark : SparkHome
        A view (`SparkHome.view`), whose directory is ours to write.
    java : Java
        The Java that will run it.
    environ : mapping of str to str
        The environment the launcher runs in.

    Raises
    ------
    LaunchError
        If the launcher fails.
    """
    key = hashlib.sha256(f"{java.home} {java.build} {spark.version}".encode()).hexdigest()[:12]
    kept = spark.path / f"jvm-options-{key}"
    if kept.is_file():
        return tuple(shlex.split(kept.read_text(encoding="utf-8")))
    options = _ask(spark, java, environ)
    aside = kept.with_name(f".{kept.name}-{os.getpid()}")
    aside.write_text(shlex.join(options), encoding="utf-8")
    aside.replace(kept)
    return options


def _ask(spark: SparkHome, java: Java, environ: Mapping[str, str]) -> tuple[str, ...]:
    argv = [str(java.executable), "-cp", f"{spark.jars}/*", "org.apache.spark.launcher.Main"]
    asked = [*argv, "org.apache.spark.deploy.SparkSubmit", "--master", "yarn", "job.py"]
    env = {**environ, "SPARK_HOME": str(spark.path), "SPARK_SCALA_VERSION": spark.scala, "JAVA_HOME": str(java.home)}
    done = processes.run(asked, env=env, timeout_s=_TIMEOUT_S)
    words = done.stdout.replace("\n", "\0").split("\0")
    if done.exit_code != 0 or "-cp" not in words:
        raise LaunchError(
            "Spark's launcher did not answer",
            why=f"{shlex.join(asked)} ended with {done.exit_code}: {done.last_lines(5)}",
            mend="check that spark.home is a whole Spark installation, or reinstall pyspark",
        )
    after_class_path = words[words.index("-cp") + 2 : words.index("org.apache.spark.deploy.SparkSubmit")]
    return tuple(word for word in after_class_path if not word.startswith("-Xmx"))
