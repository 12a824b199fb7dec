"""Record the classes that the daemons and Spark load, for their class-data archives.

    .venv/bin/python scripts/record_classes.py

For maintainers, when Hadoop or Spark changes: starts a cluster of its own (with high availability, then without), runs
a PySpark job that uses most of Spark once in both deploy modes, and writes clusterkit/embedded/classes/*.xz. Takes
about five minutes. A class that another version lacks costs a line in a build log and nothing else.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.embedded import class_data
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.embedded.jars import pyspark_jars
from clusterkit.hadoop.java import Java, find_java
from clusterkit.settings import load
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

JOB = Path(__file__).with_name("record_classes_job.py")
MADE_AT_RUN_TIME = re.compile(
    r"\$Proxy\d|ByGuice\$\$|\$\$Lambda|Generated(Class|Method|Constructor|Serialization)|/0x|Accessor\d+$"
)


def main() -> None:
    """Record, merge, and say how many classes there are."""
    with tempfile.TemporaryDirectory(prefix="record-") as name:
        scratch = Path(name)
        home = recording_java(scratch, find_java(load().java_home, os.environ))
        try:
            for ha in (True, False):
                with cluster(scratch, home, ha=ha) as environment:
                    for deploy_mode in () if ha else ("client", "cluster"):
                        submit(deploy_mode, home, environment)
        finally:
            forget_archives(home)
        write(scratch / "lists")


def write(lists: Path) -> None:
    """Merge the lists of all JVMs by what they ran, and write one compressed list for each kind."""
    kinds: dict[str, set[str]] = {"daemons": set(), "spark": set()}
    for path in lists.glob("*.lst"):
        lines = set(path.read_text("utf-8").splitlines())
        kinds["spark" if "org/apache/spark/SparkConf" in lines or spark_launcher(lines) else "daemons"] |= lines
    for kind, lines in kinds.items():
        kept = sorted(line for line in lines if not MADE_AT_RUN_TIME.search(line))
        path = class_data.CLASSES / f"{kind}.xz"
        path.write_bytes(lzma.compress("".join(f"{line}\n" for line in kept).encode(), preset=9 | lzma.PRESET_EXTREME))
        print(f"{path}: {len(kept)} lines, {path.stat().st_size} bytes")


def spark_launcher(lines: Iterable[str]) -> bool:
    """Tell whether a JVM was Spark's launcher or its driver before it read any configuration."""
    return any(line.startswith("org/apache/spark/") for line in lines)


def recording_java(scratch: Path, java: Java) -> Path:
    """Make a Java home whose `java` writes the list of classes it loaded."""
    home, lists = scratch / "java", scratch / "lists"
    lists.mkdir()
    (home / "bin").mkdir(parents=True)
    (home / "release").write_bytes((java.home / "release").read_bytes())
    executable = home / "bin" / "java"
    executable.write_text(
        f'#!/bin/bash\n[ "$1" = -Xshare:dump ] && exit 1\n'
        f'exec {shlex.quote(str(java.executable))} "-XX:DumpLoadedClassList={lists}/$$.lst" "$@"\n',
        "utf-8",
    )
    executable.chmod(0o755)
    return home


def forget_archives(java_home: Path) -> None:
    """Remove what a cluster began to build for a Java that is no more."""
    for archive in class_data.archives(load().cache_dir):
        if archive.java.is_relative_to(java_home):
            shutil.rmtree(archive.directory)


@contextmanager
def cluster(scratch: Path, java_home: Path, *, ha: bool) -> Iterator[dict[str, str]]:
    """Run a cluster and give the environment of its clients."""
    cache_dir = load().cache_dir  # the jars are those of every cluster
    name = "record-ha" if ha else "record"
    embedded = EmbeddedCluster(name, data_dir=scratch / "data", cache_dir=cache_dir, java_home=java_home)
    try:
        embedded.up(ClusterSpec(name=name, ha=ha), said=print)
        yield dict(embedded.environment())
    finally:
        embedded.down(purge=True)


def submit(deploy_mode: str, java_home: Path, environment: dict[str, str]) -> None:
    """Run the job with Spark's own script: whatever way a JVM is started, it loads the same classes."""
    python = sys.executable
    conf = {
        "spark.yarn.jars": f"local:{pyspark_jars()}/*",
        "spark.driver.host": "localhost",
        "spark.executorEnv.JAVA_HOME": str(java_home),
        "spark.yarn.appMasterEnv.JAVA_HOME": str(java_home),
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": python,
    }
    subprocess.run(
        [
            *(str(pyspark_jars().parent / "bin" / "spark-submit"), "--master", "yarn", "--deploy-mode", deploy_mode),
            *("--num-executors", "2", "--executor-memory", "512m"),
            *(word for key, value in conf.items() for word in ("--conf", f"{key}={value}")),
            *(str(JOB), "hdfs:///tmp/recorded"),
        ],
        env={**os.environ, **environment, "JAVA_HOME": str(java_home), "PYSPARK_PYTHON": python}
        | {"SPARK_LOCAL_IP": "127.0.0.1"},
        check=True,
    )


if __name__ == "__main__":
    main()
