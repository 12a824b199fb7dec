"""Where the parts of one embedded cluster lie below the data directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories and files of one cluster.

    Parameters
    ----------
    clusters : Path
        The directory that holds every cluster of this user.
    name : str
        The name of the cluster.
    """

    clusters: Path
    name: str

    @property
    def root(self) -> Path:
        """Everything this cluster owns. Its absolute path marks the cluster's processes."""
        return self.clusters / self.name

    @property
    def lock(self) -> Path:
        """The file that is locked while the cluster is changed; outside `root`, so that it outlives a purge."""
        return self.clusters / ".locks" / self.name

    @property
    def state(self) -> Path:
        """What was asked for, and which ports were picked."""
        return self.root / "cluster.json"

    @property
    def conf(self) -> Path:
        """The configuration of clients: what `HADOOP_CONF_DIR` names."""
        return self.root / "conf"

    @property
    def logs(self) -> Path:
        """One log for each daemon, and what its JVM printed."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """What HDFS and YARN keep when the cluster is down."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """What exists only while the cluster runs; the containers' directories lie here."""
        return self.root / "run"

    def builder_of(self, kind: str) -> Path:
        """Return where it is noted which process builds an archive of classes on this cluster's behalf."""
        return self.run / f"builder-{kind}.json"

    def data_of(self, daemon: str) -> Path:
        """Return the directory in which a daemon keeps what outlives it."""
        return self.data / daemon

    def run_of(self, daemon: str) -> Path:
        """Return the directory that a daemon has while it runs; it works there."""
        return self.run / daemon

    def temporary_of(self, daemon: str) -> Path:
        """Return the directory that a daemon has for `/tmp`."""
        return self.run_of(daemon) / "tmp"

    def jar_of(self, daemon: str) -> Path:
        """Return the jar that holds a daemon's configuration."""
        return self.run_of(daemon) / "configuration.jar"

    def log_of(self, daemon: str) -> Path:
        """Return the log a daemon writes."""
        return self.logs / f"{daemon}.log"

    def output_of(self, daemon: str) -> Path:
        """Return the file with what a daemon's JVM printed."""
        return self.logs / f"{daemon}.out"


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that lack, for nobody but the owner."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    directory.chmod(PRIVATE_DIRECTORY)


def write_private(path: Path, content: bytes) -> None:
    """Write a file aside and rename it, for nobody but the owner; a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
