"""Write the lock of the embedded Hadoop anew: resolve the roots with Maven, hash every jar.

    .venv/bin/python scripts/lock_hadoop.py [VERSION]

For maintainers, when clusterkit moves to another Hadoop version. Users never resolve: the lock decides.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from clusterkit.embedded.jar_lock import HADOOP_VERSION, Jar, sha256_of

ROOTS = (
    "hadoop-common",
    "hadoop-hdfs",
    "hadoop-yarn-client",  # LogsCLI and ApplicationCLI, which tests compare with
    "hadoop-yarn-server-nodemanager",
    "hadoop-yarn-server-resourcemanager",
    "hadoop-yarn-server-timelineservice",  # the ResourceManager does not start without TimelineCollectorManager
    "hadoop-yarn-server-web-proxy",
)
PACKAGE = Path(__file__).resolve().parents[1] / "clusterkit" / "embedded"
DEPENDENCY = re.compile(r"\s*([^:\s]+):([^:]+):jar:(?:([^:]+):)?([^:]+):(?:compile|runtime)\b")


def main() -> None:
    """Resolve, hash, write, and say what changed."""
    version = sys.argv[1] if len(sys.argv) > 1 else HADOOP_VERSION
    with tempfile.TemporaryDirectory() as scratch:
        jars = resolve(Path(scratch), version)
    header = f"# The jars of Hadoop {version}'s daemons: sha256, size in bytes, group:artifact:version[:classifier].\n"
    lines = "".join(f"{jar.sha256} {jar.size_bytes} {jar.coordinates}\n" for jar in jars)
    path = PACKAGE / f"hadoop-{version}.lock"
    path.write_text(f"{header}# Made by scripts/lock_hadoop.py.\n{lines}", "utf-8")
    print(f"{path}: {len(jars)} jars, {sum(jar.size_bytes for jar in jars):,} bytes")


def resolve(scratch: Path, version: str) -> list[Jar]:
    """Let Maven choose the closure, and return every jar of it in the order of coordinates."""
    (scratch / "pom.xml").write_text(pom(version), "utf-8")
    subprocess.run(
        [
            *("mvn", "-B", "-q", "dependency:copy-dependencies", "dependency:list"),
            *("-DincludeScope=runtime", "-DoutputDirectory=lib", "-DoutputFile=list.txt"),
        ],
        cwd=scratch,
        check=True,
    )
    found = (DEPENDENCY.match(line) for line in (scratch / "list.txt").read_text("utf-8").splitlines())
    names = sorted(":".join(filter(None, (row[1], row[2], row[4], row[3]))) for row in found if row)
    return [measured(scratch / "lib", name) for name in names]


def measured(lib: Path, coordinates: str) -> Jar:
    """Return the jar with the size and digest of the file that Maven fetched."""
    path = lib / Jar(coordinates, 0, "").file_name
    return Jar(coordinates, path.stat().st_size, sha256_of(path))


def pom(version: str) -> str:
    """Return a project that depends on the roots."""
    dependencies = "".join(
        f"<dependency><groupId>org.apache.hadoop</groupId><artifactId>{root}</artifactId>"
        f"<version>{version}</version></dependency>"
        for root in ROOTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>clusterkit</groupId><artifactId>lock</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )


if __name__ == "__main__":
    main()
