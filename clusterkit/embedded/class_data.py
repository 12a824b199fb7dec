"""Static class-data archives: classes parsed and verified once, then mapped by every JVM that starts.

An archive serves JVMs of one build whose class path begins with the archived one, entry by entry with the same sizes
and times; any other JVM silently goes without. So an archive is named by all of that, and its absence costs time only.
It is built in the background, one at a time, at the lowest priority, and is there only once a JVM has mapped it.

References
----------
"Class Data Sharing", The java Command, Java SE 17, https://docs.oracle.com/en/java/javase/17/docs/specs/man/java.html
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from clusterkit import processes
from clusterkit.processes import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.hadoop.java import Java

State = Literal["present", "building", "failed", "absent"]

RETRY_S = 3600.0
"""After a failure, the time before another build is started unasked."""

CLASSES = Path(__file__).with_name("classes")
"""The recorded lists of classes, one for each kind of archive (made by `scripts/record_classes.py`)."""

_SPARK_OPTIONS = ("--add-modules=jdk.incubator.vector",)
_QUIET = ("-Xlog:disable", "-Xlog:all=warning:stderr")  # a JVM writes its warnings to stdout, which is the job's
_IN_PLACE = ("-XX:+UnlockDiagnosticVMOptions", "-XX:ArchiveRelocationMode=0")
"""Map the archive where it was made for. Anywhere else, the default of late, a JVM writes to every page of it, which
costs 0.1 s and 120 MB for each daemon, twice that for each JVM of Spark. Addresses of classes are then no secret."""

_ARCHIVE_FILE = "-XX:SharedArchiveFile="
_PROBE_TIMEOUT_S = 60.0
_POLL_S = 0.1
_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive: where it is, and which JVMs it serves.

    Parameters
    ----------
    kind : str
        `daemons` or `spark`.
    directory : Path
        Its own directory in the cache, named after everything it depends on.
    java : Path
        The `java` command it is for.
    class_path : str
        What the class path of a JVM must begin with, word for word.
    options : tuple of str
        Options that change the modules of the JVM; it must have them as well.
    """

    kind: str
    directory: Path
    java: Path
    class_path: str
    options: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The archive itself, about 110 MB for the daemons and 250 MB for Spark."""
        return self.directory / "classes.jsa"

    @property
    def ready(self) -> bool:
        """Whether it is there; it is not before a JVM has mapped it."""
        return self.path.is_file()

    @property
    def jvm_options(self) -> tuple[str, ...]:
        """What makes a JVM use the archive; nothing until it is ready."""
        return (*_QUIET, *_IN_PLACE, f"{_ARCHIVE_FILE}{self.path}") if self.ready else ()

    @property
    def builder(self) -> ProcessIdentity | None:
        """The process that builds it, None when none does."""
        noted = _read_json(self.directory / "builder.json")
        pid, started_s = noted.get("pid"), noted.get("started_s")
        if not isinstance(pid, int) or not isinstance(started_s, float):
            return None
        process = ProcessIdentity(pid, started_s)
        return process if process.alive else None

    @property
    def failure(self) -> str | None:
        """Why the last build failed, None when it did not."""
        why = _read_json(self.directory / "failure.json").get("why")
        return str(why) if why is not None else None

    @property
    def state(self) -> State:
        """What there is of it."""
        if self.ready:
            return "present"
        if self.builder is not None:
            return "building"
        return "failed" if self.failure is not None else "absent"

    def build_in_background(self) -> ProcessIdentity | None:
        """Start a process that builds it and outlives us, unless it is ready, being built, or failed a while ago.

        Returns
        -------
        ProcessIdentity or None
            The process that builds it, whoever started it.
        """
        if self.ready or self._failed_lately():
            return None
        if (running := self.builder) is not None:
            return running
        self.directory.mkdir(parents=True, exist_ok=True)
        _write_json(self.directory / "archive.json", self.to_json())
        builder = processes.spawn_daemon(
            [sys.executable, "-P", "-m", "clusterkit.embedded.class_data_builder", str(self.directory)],
            log=self.directory / "build.log",
            env=surroundings(),
            cwd=self.directory,
        )
        _write_json(self.directory / "builder.json", asdict(builder))
        return builder

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is ready or nobody builds it any more, and return whether it is ready.

        Parameters
        ----------
        timeout_s : float
            Seconds to wait at most, >= 0.
        """
        deadline = time.monotonic() + timeout_s
        while not self.ready and self.builder is not None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.ready

    def refusal(self, path: Path | None = None) -> str | None:
        """Start a JVM that must map the archive, and return what it says when it does not; None when all is well.

        Parameters
        ----------
        path : Path, optional
            The archive to try, when it is not in its place yet.
        """
        must = ["-Xshare:on", *_IN_PLACE, f"{_ARCHIVE_FILE}{path or self.path}", *self.options]
        behind = f"{self.class_path}{os.pathsep}{self.directory / 'configuration.jar'}"
        argv = [str(self.java), *must, "-Xlog:cds", "-cp", behind, "-version"]
        try:
            done = processes.run(argv, timeout_s=_PROBE_TIMEOUT_S, env=surroundings())
        except (OSError, TimeoutError) as exc:
            return str(exc)
        return None if done.exit_code == 0 else done.last_lines(3)

    def to_json(self) -> dict[str, object]:
        """Return it as `from_json` reads it back."""
        return {"kind": self.kind, "java": str(self.java), "class_path": self.class_path, "options": self.options}

    @classmethod
    def from_json(cls, directory: Path) -> Archive:
        """Read the archive that a directory of the cache is for.

        Raises
        ------
        FileNotFoundError
            If the directory was made for none.
        """
        noted = json.loads((directory / "archive.json").read_text("utf-8"))
        return cls(noted["kind"], directory, Path(noted["java"]), noted["class_path"], tuple(noted["options"]))

    def _failed_lately(self) -> bool:
        at = _read_json(self.directory / "failure.json").get("at")
        return isinstance(at, float) and 0 <= time.time() - at < RETRY_S


def daemon_archive(cache_dir: Path, java: Java, lib_dir: Path) -> Archive:
    """Return the archive for the daemons: their class path is `LIB/*`, then one jar with the configuration.

    Parameters
    ----------
    cache_dir : Path
        clusterkit's cache.
    java : Java
        The Java that runs them.
    lib_dir : Path
        The directory of Hadoop's jars, as it stands in the class path.
    """
    return _archive("daemons", cache_dir, java, lib_dir, ())


def spark_archive(cache_dir: Path, java: Java, spark_jars: Path) -> Archive:
    """Return the archive for drivers, ApplicationMasters and executors: their class path begins with `JARS/*`.

    Parameters
    ----------
    cache_dir : Path
        clusterkit's cache.
    java : Java
        The Java that runs them.
    spark_jars : Path
        The directory of Spark's jars, as it stands in the class path; a link will do.
    """
    return _archive("spark", cache_dir, java, spark_jars, _SPARK_OPTIONS)


def archives(cache_dir: Path) -> tuple[Archive, ...]:
    """Return every archive of the cache that was begun, of whatever Java and jars."""
    return tuple(_begun(cache_dir))


def stop_builders(cache_dir: Path) -> tuple[ProcessIdentity, ...]:
    """End every process that builds an archive in this cache, and return them; half an archive is removed."""
    builders = tuple(builder for archive in _begun(cache_dir) if (builder := archive.builder) is not None)
    started = tuple(member for builder in builders for member in _session_of(builder))
    processes.end(builders, grace_s=_GRACE_S)
    processes.end(started, grace_s=1.0)
    return builders


def maps_archive(pid: int) -> bool | None:
    """Tell whether a JVM has the archive mapped that it was started with; None when it was started without one."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        named = [word.removeprefix(_ARCHIVE_FILE) for word in words if word.startswith(_ARCHIVE_FILE)]
        maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")
        return named[-1] in maps if named else None
    return None


def surroundings() -> dict[str, str]:
    """Return our environment without what would change a JVM behind our back."""
    hidden = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _archive(kind: str, cache_dir: Path, java: Java, jars: Path, options: tuple[str, ...]) -> Archive:
    key = hashlib.sha256("\n".join((*_traits(java), str(jars), *_listing(jars), *options)).encode())
    key.update((CLASSES / f"{kind}.xz").read_bytes())
    directory = cache_dir.absolute() / "class-data" / f"{kind}-{key.hexdigest()[:12]}"
    return Archive(kind, directory, java.executable, f"{jars}/*", options)


def _traits(java: Java) -> Iterator[str]:
    """Yield what a JVM compares of itself with an archive: its build, and the size and time of its own classes."""
    yield f"{java.home} {java.build}"
    with contextlib.suppress(FileNotFoundError):
        modules = (java.home / "lib" / "modules").stat()
        yield f"{modules.st_size} {modules.st_mtime_ns}"


def _listing(jars: Path) -> Iterator[str]:
    """Yield what a JVM compares of a class path, in the order in which `*` is expanded: that of the directory."""
    with os.scandir(jars) as entries:
        for entry in entries:
            stat = entry.stat()
            yield f"{entry.name} {stat.st_size} {stat.st_mtime_ns}"


def _begun(cache_dir: Path) -> Iterable[Archive]:
    for directory in sorted((cache_dir.absolute() / "class-data").glob("*-*")):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError):
            yield Archive.from_json(directory)


def _session_of(leader: ProcessIdentity) -> Iterator[ProcessIdentity]:
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid != leader.pid and os.getsid(pid) == leader.pid:
                yield ProcessIdentity.from_pid(pid)


def _read_json(path: Path) -> dict[str, object]:
    try:
        noted = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _write_json(path: Path, value: dict[str, object]) -> None:
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    aside.write_text(json.dumps(value), "utf-8")
    aside.replace(path)
