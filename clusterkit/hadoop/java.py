"""Java: find one that Hadoop and Spark run on, without starting it where its home says enough."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.errors import ClusterError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SUPPORTED = (17, 21)
"""The Java versions that Hadoop 3.5 and Spark 4 both run on."""

INSTALLED = Path("/usr/lib/jvm")
"""Where Debian and its relatives keep every installed Java."""

_MEND = (
    "run `sudo apt-get install openjdk-17-jdk-headless` (or openjdk-21-jdk-headless), "
    "or name one that is installed elsewhere with the setting java_home"
)
_RELEASE_LINE = re.compile(r'([A-Z_]+)="([^"]*)"')
_PROPERTY_LINE = re.compile(r"\s*([a-z.]+) = (.*)")
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Java:
    """One Java of this machine.

    Parameters
    ----------
    home : Path
        Its directory, as `JAVA_HOME` takes it; symbolic links are resolved.
    version : str
        The version, such as `17.0.15`.
    build : str
        The version with the build, such as `17.0.15+6-Debian-1deb12u1`; two builds never share an archive of classes.
    """

    home: Path
    version: str
    build: str

    @property
    def major(self) -> int:
        """The number people call it by: 17 of `17.0.15`, 8 of `1.8.0_402`."""
        first, _, rest = self.version.partition(".")
        return _leading_number(rest) if first == "1" and rest else _leading_number(first)

    @property
    def executable(self) -> Path:
        """The `java` command."""
        return self.home / "bin" / "java"

    @property
    def supported(self) -> bool:
        """Whether Hadoop and Spark run on it."""
        return self.major in SUPPORTED

    @classmethod
    def from_home(cls, home: Path) -> Java | None:
        """Return the Java that lives in a directory, or None when none does.

        The `release` file answers where there is one. Otherwise the `java` command is started, which also finds the
        true home behind a wrapper script.
        """
        executable = home / "bin" / "java"
        if not os.access(executable, os.X_OK):
            return None
        return _from_release(home) or _from_command(executable)


def find_java(java_home: Path | None, environ: Mapping[str, str], *, installed: Path = INSTALLED) -> Java:
    """Return the first supported Java: the setting's, `JAVA_HOME`'s, one on `PATH`, one that is installed.

    Parameters
    ----------
    java_home : Path or None
        The setting `java_home`. When it is given nothing else is looked at.
    environ : mapping of str to str
        The environment, for `JAVA_HOME` and `PATH`.
    installed : Path
        The directory whose entries are tried last, in the order of their names.

    Returns
    -------
    Java
        A Java of version 17 or 21.

    Raises
    ------
    SettingsError
        If the setting names no Java, or an unsupported one.
    ClusterError
        If no supported Java is found; it names each one that was.
    """
    if java_home is not None:
        return _from_setting(java_home)
    found: dict[Path, tuple[Java, str]] = {}
    for home, origin in _candidates(environ, installed):
        java = None if home.resolve() in found else Java.from_home(home.resolve())
        if java is not None and java.supported:
            return java
        if java is not None:
            found.setdefault(java.home, (java, origin))
    raise _nothing_found(found.values(), installed)


def _from_setting(home: Path) -> Java:
    java = Java.from_home(home.expanduser().resolve())
    if java is None:
        raise SettingsError(
            f"there is no Java at {home}",
            why="the setting java_home names a directory without a bin/java that can be run",
            mend=_MEND,
            key="java_home",
        )
    if not java.supported:
        raise SettingsError(
            f"Java {java.major} cannot be used",
            why=f"the setting java_home names Java {java.version} at {java.home}; "
            "Hadoop and Spark run on Java 17 and 21 only",
            mend=_MEND,
            key="java_home",
        )
    return java


def _candidates(environ: Mapping[str, str], installed: Path) -> Iterator[tuple[Path, str]]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"]), "JAVA_HOME"
    for directory in environ.get("PATH", "").split(os.pathsep):
        executable = Path(directory, "java") if directory else None
        if executable is not None and os.access(executable, os.X_OK):
            yield _home_of(executable), "PATH"
    if installed.is_dir():
        for home in sorted(installed.iterdir()):
            yield home, str(installed)


def _home_of(executable: Path) -> Path:
    """Return the home of a `java` on PATH: two up from the true file, as Debian's alternatives link to it.

    A wrapper script leads nowhere that way, and is asked for its home.
    """
    home = executable.resolve().parent.parent
    if (home / "release").is_file():
        return home
    java = _from_command(executable)
    return java.home if java is not None else home


def _from_release(home: Path) -> Java | None:
    try:
        text = (home / "release").read_text("utf-8", errors="replace")
    except OSError:
        return None
    values: dict[str, str] = dict(_RELEASE_LINE.findall(text))
    version = values.get("JAVA_VERSION")
    return Java(home, version, values.get("JAVA_RUNTIME_VERSION", version)) if version else None


def _from_command(executable: Path) -> Java | None:
    try:
        done = processes.run([str(executable), "-XshowSettings:properties", "-version"], timeout_s=_START_TIMEOUT_S)
    except (OSError, TimeoutError):
        return None
    lines = (_PROPERTY_LINE.fullmatch(line) for line in done.stderr.splitlines())
    values = {line[1]: line[2].strip() for line in lines if line}
    home, version = values.get("java.home"), values.get("java.version")
    return Java(Path(home), version, values.get("java.runtime.version", version)) if home and version else None


def _leading_number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _nothing_found(found: Iterable[tuple[Java, str]], installed: Path) -> ClusterError:
    named = [f"Java {java.version} at {java.home} ({origin})" for java, origin in found]
    return ClusterError(
        "no Java 17 or 21 was found",
        why=f"there is only {', '.join(named)}" if named else f"JAVA_HOME, PATH and {installed} name no Java at all",
        mend=_MEND,
    )
