"""The lock: the jars of the embedded Hadoop, each with its size and sha256, and nothing about where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HADOOP_VERSION = "3.5.0"


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar.

    Parameters
    ----------
    coordinates : str
        `group:artifact:version`, with `:classifier` after it where there is one.
    size_bytes : int
        Its exact size.
    sha256 : str
        The digest of its bytes, in hexadecimal.
    """

    coordinates: str
    size_bytes: int
    sha256: str

    @property
    def group(self) -> str:
        """The organisation, such as `org.apache.hadoop`."""
        return self.coordinates.split(":")[0]

    @property
    def artifact(self) -> str:
        """The module, such as `hadoop-hdfs`."""
        return self.coordinates.split(":")[1]

    @property
    def version(self) -> str:
        """The version, such as `3.5.0`."""
        return self.coordinates.split(":")[2]

    @property
    def classifier(self) -> str:
        """The variant, such as `linux-x86_64`; empty for most."""
        return ":".join(self.coordinates.split(":")[3:])

    @property
    def file_name(self) -> str:
        """The name of the file, the same that Maven and Ivy give it."""
        return f"{'-'.join(self.coordinates.split(':')[1:])}.jar"

    @property
    def repository_path(self) -> str:
        """Where it lies in a repository of Maven's layout."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.file_name}"

    def matches(self, path: Path) -> bool:
        """Whether a file holds exactly these bytes."""
        return path.is_file() and path.stat().st_size == self.size_bytes and sha256_of(path) == self.sha256


@dataclass(frozen=True)
class JarLock:
    """All jars of one Hadoop version.

    Parameters
    ----------
    hadoop_version : str
        The version of Hadoop they make up.
    text : str
        The lock file, word for word.
    jars : tuple of Jar
        In the order of the file, which is that of the class path.
    """

    hadoop_version: str
    text: str
    jars: tuple[Jar, ...]

    @classmethod
    def load(cls, hadoop_version: str = HADOOP_VERSION) -> JarLock:
        """Read the lock that the package carries."""
        path = Path(__file__).with_name(f"hadoop-{hadoop_version}.lock")
        return cls.from_text(hadoop_version, path.read_text("utf-8"))

    @classmethod
    def from_text(cls, hadoop_version: str, text: str) -> JarLock:
        """Read a lock: one line for each jar with sha256, size and coordinates; `#` starts a comment line."""
        rows = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
        jars = tuple(Jar(coordinates, int(size), sha256) for sha256, size, coordinates in rows)
        return cls(hadoop_version, text, jars)

    @cached_property
    def digest(self) -> str:
        """The sha256 of what is locked: any change of a jar changes it, a changed comment does not."""
        rows = "".join(f"{jar.sha256} {jar.size_bytes} {jar.coordinates}\n" for jar in self.jars)
        return hashlib.sha256(rows.encode()).hexdigest()

    @cached_property
    def by_file_name(self) -> Mapping[str, Jar]:
        """Each jar by the name of its file."""
        return {jar.file_name: jar for jar in self.jars}

    @property
    def size_bytes(self) -> int:
        """The size of all jars together."""
        return sum(jar.size_bytes for jar in self.jars)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
