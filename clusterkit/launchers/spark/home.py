"""The Spark that launches a job: where it is, which version it is, and a view of it without surprises.

Spark is the `pyspark` wheel beside clusterkit, or the directory that the setting `spark.home` names. It is never
imported to be found: importing pyspark costs more than all that `clusterkit submit` does before Java starts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from clusterkit.errors import LaunchError

_CORE_JAR = re.compile(r"spark-core_(?P<scala>[\d.]+)-(?P<version>\d+\.\d+\.\d+[^/]*)\.jar")
_OLDEST = (4, 1)
_TOO_NEW = (5, 0)


@dataclass(frozen=True, slots=True)
class SparkHome:
    """One installation of Spark.

    Parameters
    ----------
    path : Path
        The directory that holds `jars/`.
    version : str
        Spark's version, from the name of its core jar.
    scala : str
        The Scala version it was built for.
    python : Path or None
        The directory to put on a Python path so that `import pyspark` finds this version, byte code included.
    python_archives : tuple of Path
        The same modules zipped, as Spark ships them to nodes that have none.
    """

    path: Path
    version: str
    scala: str
    python: Path | None
    python_archives: tuple[Path, ...] = ()

    @property
    def jars(self) -> Path:
        """The directory of Spark's jars."""
        return self.path / "jars"

    def view(self, cache_dir: Path) -> SparkHome:
        """Return the same Spark under a path of the cache, without spaces and without zipped Python.

        Class paths, `local:` URIs and JVM options are split at spaces and commas by Spark and YARN, so the jars are
        reached through a link. `python/lib/pyspark.zip` is left out on purpose: Python compiles a zipped package anew
        in every process (0.5 s each), while the wheel holds the same modules with their byte code.

        Parameters
        ----------
        cache_dir : Path
            The setting `cache_dir`.
        """
        key = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        home = cache_dir / "spark" / f"{self.version}-{key}"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _link(home / "jars", self.jars)
        _write_spark_submit(home / "bin" / "spark-submit", self.path)
        return replace(self, path=home)


def find_spark(home: Path | None = None) -> SparkHome:
    """Return the Spark to launch with.

    Parameters
    ----------
    home : Path, optional
        The setting `spark.home`; the `pyspark` package beside clusterkit when absent.

    Raises
    ------
    LaunchError
        If there is none, or its version is not supported.
    """
    path = home or _pyspark_package()
    core = next(iter((path / "jars").glob("spark-core_*.jar")), None)
    match = _CORE_JAR.fullmatch(core.name) if core else None
    if match is None:
        raise LaunchError(
            "Spark was not found",
            why=f"{path} holds no jars/spark-core_*.jar",
            mend="set spark.home to a Spark installation, or install the extra: pip install 'clusterkit[spark]'",
        )
    _check_version(match["version"], path)
    archives = tuple(sorted((path / "python" / "lib").glob("*.zip")))
    return SparkHome(path, match["version"], match["scala"], _python_directory(path), archives)


def _pyspark_package() -> Path:
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise LaunchError(
            "Spark was not found",
            why="the Python that runs clusterkit has no pyspark package, and spark.home is not set",
            mend="install the extra, pip install 'clusterkit[spark]', or set spark.home",
        )
    return Path(found.origin).parent


def _check_version(version: str, path: Path) -> None:
    major, minor = (int(part) for part in version.split(".")[:2])
    if not _OLDEST <= (major, minor) < _TOO_NEW:
        raise LaunchError(
            f"Spark {version} cannot be used",
            why=f"clusterkit supports Spark 4.1 up to, not including, 5.0; {path} holds {version}",
            mend="install a supported one, pip install 'pyspark>=4.1,<5', or set spark.home",
        )


def _python_directory(path: Path) -> Path | None:
    """Return the directory that holds the `pyspark` package: the wheel's own parent, or `python/` of a distribution."""
    if (path / "__init__.py").is_file():
        return path.parent
    return path / "python" if (path / "python" / "pyspark" / "__init__.py").is_file() else None


_SPARK_SUBMIT = """\
#!/bin/sh
# pyspark runs this to start Spark's JVM. In a job of clusterkit the JVM runs already: hand on how it is reached.
if [ -z "$_CLUSTERKIT_GATEWAY" ]; then
  SPARK_HOME={home}
  export SPARK_HOME
  exec {home}/bin/spark-submit "$@"
fi
until [ -f "$_CLUSTERKIT_GATEWAY" ]; do
  kill -0 "$_CLUSTERKIT_GATEWAY_PID" 2>/dev/null || exit 1
  sleep 0.02
done
cp "$_CLUSTERKIT_GATEWAY" "$_PYSPARK_DRIVER_CONN_INFO_PATH.part" || exit 1
mv "$_PYSPARK_DRIVER_CONN_INFO_PATH.part" "$_PYSPARK_DRIVER_CONN_INFO_PATH" || exit 1
exec cat >/dev/null
"""


def _write_spark_submit(path: Path, home: Path) -> None:
    text = _SPARK_SUBMIT.format(home=shlex.quote(str(home)))
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o755)
    aside.replace(path)


def _link(link: Path, target: Path) -> None:
    """Point a symbolic link at its target, in one step that a concurrent launch cannot see half done."""
    if link.is_symlink() and link.readlink() == target:
        return
    aside = link.with_name(f".{link.name}-{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
