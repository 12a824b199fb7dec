"""`clusterkit submit` beside `spark-submit`: the whole wall time of a small job, and a long job's core-seconds.

Both run on the same embedded cluster, in turn, with the same Python and the same Spark. The row `small` gives both
sides the same executors, cores and memory, and spark-submit local jars; the row `documented` is spark-submit as
Spark's documentation shows it, each side with its own defaults; the row `long` shows that what makes short jobs short
costs long ones nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import harness

from clusterkit import settings
from clusterkit.embedded import class_data

JOBS = harness.REPOSITORY / "benchmarks" / "jobs"
SIZE = {"instances": "1", "cores": "2", "memory": "1g"}
SPARK = harness.REPOSITORY / ".venv" / "bin" / "spark-submit"
LONG_ROUNDS = os.environ.get("LONG_ROUNDS", "40")


class Cluster:
    """An embedded cluster for the benchmark alone, and the commands that use it."""

    def __init__(self, data_dir: Path) -> None:
        self.environment = {**os.environ, "CLUSTERKIT_DATA_DIR": str(data_dir)}

    def command(self, *args: str) -> list[str]:
        """Return a `clusterkit` command."""
        return [str(harness.PYTHON), "-m", "clusterkit", *args]

    def ours(self, job: str, *args: str, sized: bool = True) -> harness.Run:
        """Submit with clusterkit."""
        sizes = (
            "--executors",
            SIZE["instances"],
            "--executor-cores",
            SIZE["cores"],
            "--executor-memory",
            SIZE["memory"],
        )
        argv = self.command("submit", *(sizes if sized else ()), str(JOBS / job), *args)
        return harness.run(argv, env=self.environment)

    def theirs(self, job: str, *args: str, sized: bool = True) -> harness.Run:
        """Submit with spark-submit."""
        local = f"local:{_spark_home()}/jars/*"
        sizes = [f"--conf=spark.executor.{key}={value}" for key, value in SIZE.items()]
        options = [f"--conf=spark.yarn.jars={local}", *sizes] if sized else []
        argv = [str(SPARK), "--master", "yarn", *options, str(JOBS / job), *args]
        return harness.run(argv, env=self._stock_environment())

    def _stock_environment(self) -> dict[str, str]:
        shown = subprocess.run(
            self.command("cluster", "env"), env=self.environment, capture_output=True, text=True, check=True
        )
        script = f"{shown.stdout}\nexec env -0"
        dumped = subprocess.run(
            ["/bin/sh", "-c", script], env=self.environment, capture_output=True, text=True, check=True
        )
        pairs = (entry.split("=", 1) for entry in dumped.stdout.split("\0") if entry)
        return {**dict(pairs), "PYSPARK_PYTHON": str(harness.PYTHON), "SPARK_HOME": str(_spark_home())}

    def __enter__(self) -> Self:
        try:
            subprocess.run(self.command("cluster", "up"), env=self.environment, check=True)
            self.ours("small.py")
            _wait_for_archive()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(self.command("cluster", "down", "--purge"), env=self.environment, check=True)


def _spark_home() -> Path:
    found = subprocess.run(
        [str(harness.PYTHON), "-c", "import pyspark, os; print(os.path.dirname(pyspark.__file__))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip())


def _wait_for_archive() -> None:
    """Wait for the class-data archive that the first submission began to build."""
    for archive in class_data.archives(settings.load().cache_dir):
        if not archive.wait(300):
            print(f"  the archive {archive.kind} is {archive.state}", file=sys.stderr)


def small(rounds: int = 5) -> list[harness.Row]:
    """Compare a small job, like for like."""
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        runs = harness.alternate(
            {"ours": lambda: cluster.ours("small.py"), "theirs": lambda: cluster.theirs("small.py")}, rounds=rounds
        )
    harness.same_stdout(runs)
    ours, theirs = harness.wall(runs["ours"]), harness.wall(runs["theirs"])
    return [harness.beside("small job, warm", "spark-submit, local jars", ours=ours, theirs=theirs, target=1.4)]


def documented(rounds: int = 3) -> list[harness.Row]:
    """Compare a small job, each side with its own defaults."""
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        runs = harness.alternate(
            {
                "ours": lambda: cluster.ours("small.py", sized=False),
                "theirs": lambda: cluster.theirs("small.py", sized=False),
            },
            rounds=rounds,
        )
    harness.same_stdout(runs)
    ours, theirs = harness.wall(runs["ours"]), harness.wall(runs["theirs"])
    return [harness.beside("small job, own defaults", "spark-submit", ours=ours, theirs=theirs, target=2.1)]


def long(rounds: int = 5) -> list[harness.Row]:
    """Compare a job of two minutes and more, in core-seconds of the whole machine."""
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        runs = harness.alternate(
            {
                "ours": lambda: cluster.ours("jvm_heavy.py", LONG_ROUNDS),
                "theirs": lambda: cluster.theirs("jvm_heavy.py", LONG_ROUNDS),
            },
            rounds=rounds,
        )
    harness.same_stdout(runs)
    ours, theirs = harness.core(runs["ours"]), harness.core(runs["theirs"])
    return [
        harness.beside("long job", "spark-submit, local jars", ours=ours, theirs=theirs, unit="core-s", target=0.97)
    ]


if __name__ == "__main__":
    harness.main({"small": small, "documented": documented, "long": long})
