"""Download jars with the tool at hand: Maven, or the Ivy that pyspark carries.

Both bring their own idea of where artifacts come from (the user's settings, mirrors, proxies and local repository), so
no address stands here. Neither resolves anything: the lock names every artifact, and its hash decides afterwards.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Protocol
from xml.sax.saxutils import escape, quoteattr

from clusterkit.errors import ClusterError
from clusterkit.processes import Leashed

if TYPE_CHECKING:
    from clusterkit.embedded.jar_lock import Jar
    from clusterkit.hadoop.java import Java

SILENCE_S = 300.0
"""A tool that writes nothing for so long is given up."""

_MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin"  # in full: the short name is a look-up of its own
_IVY_PROCESSES = 4  # Ivy asks for one artifact after the other, and most of that time is the answer's way
_KEPT_LINES = 200
_TOLD_LINES = 2
_TOLD_HEAD, _TOLD_TAIL = 120, 280
_ARRIVED = re.compile(r"(?:Downloaded from \S+: |downloading )\S*?([^/\s]+\.jar)\b")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_TELLING = re.compile(r"error|exception|fail|refused|unknown|unresolved|not found|denied|cannot|unable", re.IGNORECASE)
_LEVEL = re.compile(r"^(?:\[[A-Z]+\]|:*\s*(?:WARN|ERRORS?):?)\s*|\s*-> \[Help 1\]$")
_BOILERPLATE = re.compile(r"Re-run Maven|To see the full stack|For more information|\[Help 1\]|[:\s-]*$")
_BUNDLE_MEND = (
    "check the network and the tool's own settings, or run `clusterkit cluster fetch --to bundle.tar` on a machine "
    "that has a network and `clusterkit cluster fetch --from bundle.tar` on this one"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is.

    Parameters
    ----------
    jars, total_jars : int
        Jars that have arrived, and all that are to come.
    size_bytes, total_bytes : int
        The same in bytes.
    """

    jars: int
    total_jars: int
    size_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]


class Tool(Protocol):
    """What fetches jars by their coordinates."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def commands(self, jars: Sequence[Jar], directory: Path) -> Sequence[Sequence[str]]:
        """Write what the tool needs into a directory.

        Returns
        -------
        sequence of sequence of str
            Commands to run side by side in that directory; they leave the jars in its `lib`.
        """


@dataclass(frozen=True, slots=True)
class Maven:
    """The Maven on PATH, with the user's settings and local repository."""

    executable: str

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"Maven ({self.executable})"

    def commands(self, jars: Sequence[Jar], directory: Path) -> Sequence[Sequence[str]]:
        """Return one command: the dependency plugin copies listed artifacts without reading a single POM of theirs."""
        items = "".join(
            f"<artifactItem><groupId>{escape(jar.group)}</groupId><artifactId>{escape(jar.artifact)}</artifactId>"
            f"<version>{escape(jar.version)}</version><classifier>{escape(jar.classifier)}</classifier></artifactItem>"
            for jar in jars
        )
        (directory / "pom.xml").write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>clusterkit</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>"
            "<build><plugins><plugin><artifactId>maven-dependency-plugin</artifactId><configuration>"
            f"<artifactItems>{items}</artifactItems></configuration></plugin></plugins></build></project>",
            "utf-8",
        )
        return [[self.executable, "-B", f"{_MAVEN_PLUGIN}:copy", "-DoutputDirectory=lib"]]


@dataclass(frozen=True, slots=True)
class Ivy:
    """The Ivy jar that pyspark carries, with the user's `~/.ivy2/ivysettings.xml` where there is one.

    Parameters
    ----------
    executable : Path
        The `java` that runs it.
    jar : Path
        The Ivy jar.
    settings : Path or None
        The user's settings. Ivy's own defaults, without the reading of POMs, when absent.
    """

    executable: Path
    jar: Path
    settings: Path | None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"Ivy ({self.jar})"

    def commands(self, jars: Sequence[Jar], directory: Path) -> Sequence[Sequence[str]]:
        """Return a few commands that share the work."""
        (directory / "ivysettings.xml").write_text(_IVY_SETTINGS, "utf-8")
        shares = [jars[start::_IVY_PROCESSES] for start in range(_IVY_PROCESSES)]
        for number, share in enumerate(shares):
            (directory / f"ivy-{number}.xml").write_text(_ivy_module(number, share), "utf-8")
        return [self._command(number) for number, share in enumerate(shares) if share]

    def _command(self, number: int) -> Sequence[str]:
        return [
            *(str(self.executable), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-jar", str(self.jar)),
            *("-ivy", f"ivy-{number}.xml", "-settings", str(self.settings or "ivysettings.xml")),
            *("-cache", f"ivy-cache-{number}"),  # each its own: they would overwrite each other's notes
            *("-retrieve", "lib/[artifact]-[revision](-[classifier]).[ext]"),
        ]


_IVY_SETTINGS = """<ivysettings>
  <settings defaultResolver="all"/>
  <property name="ivy.checksums" value="" override="true"/>
  <resolvers>
    <chain name="all" returnFirst="true">
      <filesystem name="local" m2compatible="true">
        <artifact pattern="${user.home}/.m2/repository/[organisation]/[module]/[revision]/[artifact]-[revision](-[classifier]).[ext]"/>
      </filesystem>
      <ibiblio name="public" m2compatible="true" usepoms="false" useMavenMetadata="false"/>
    </chain>
  </resolvers>
</ivysettings>
"""  # noqa: E501 -- a pattern cannot be broken


def find_tool(java: Java, environ: Mapping[str, str]) -> Tool:
    """Return Maven where `mvn` is on PATH, else the Ivy of the installed pyspark.

    Raises
    ------
    ClusterError
        If there is neither.
    """
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    if maven is not None:
        return Maven(maven)
    ivy = next(pyspark_jars().glob("ivy-*.jar"), None)
    if ivy is None:
        raise ClusterError(
            "the jars of Hadoop cannot be fetched",
            why="there is no `mvn` on PATH, and no pyspark beside clusterkit, whose Ivy could do it",
            mend="run `pip install 'clusterkit[spark]'`, or install Maven (`sudo apt-get install maven`), "
            "or bring the jars with `clusterkit cluster fetch --from bundle.tar`",
        )
    settings = Path(environ.get("HOME", "/nonexistent"), ".ivy2", "ivysettings.xml")
    return Ivy(java.executable, ivy, settings if settings.is_file() else None)


def pyspark_jars() -> Path:
    """Return the directory of the installed pyspark's jars without importing it; one that does not exist if none is."""
    spec = importlib.util.find_spec("pyspark")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places or ()), "/nonexistent"), "jars")


def download(
    tool: Tool, jars: Sequence[Jar], directory: Path, *, environ: Mapping[str, str], report: Report | None
) -> Path:
    """Run the tool and return the directory it left the jars in; nothing is checked yet.

    Parameters
    ----------
    tool : Tool
        What fetches.
    jars : sequence of Jar
        What to fetch, not empty.
    directory : Path
        An empty directory to work in.
    environ : mapping of str to str
        The whole environment of the tool.
    report : callable, optional
        Called with the `Progress` as jars arrive.

    Raises
    ------
    ClusterError
        If the tool failed or fell silent; it quotes the tool's last telling lines.
    """
    (directory / "lib").mkdir()
    last = deque[str](maxlen=_KEPT_LINES)
    waiting = {jar.file_name: jar.size_bytes for jar in jars}
    total = Progress(0, len(waiting), 0, sum(waiting.values()))
    with ExitStack() as stack:
        leashes = [
            stack.enter_context(
                Leashed(
                    argv,
                    env=environ,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            for argv in tool.commands(jars, directory)
        ]
        for line in _lines(leashes, tool, last):
            arrived = _ARRIVED.search(line)
            if arrived and waiting.pop(arrived[1], None) is not None and report is not None:
                report(_progress(total, waiting.values()))
        codes = [leash.wait() for leash in leashes]
    if any(codes):
        raise _failed(f"{tool.name} failed", last)
    return directory / "lib"


def _lines(leashes: Sequence[Leashed], tool: Tool, last: deque[str]) -> Iterator[str]:
    """Yield what the processes write until all have closed their output, and keep the last of it."""
    queue = Queue[str | None]()
    for leash in leashes:
        Thread(target=_pump, args=(leash, queue), daemon=True).start()
    left = len(leashes)
    while left:
        try:
            line = queue.get(timeout=SILENCE_S)
        except Empty:
            raise _failed(f"{tool.name} was silent for {SILENCE_S:g} s and was ended", last) from None
        if line is None:
            left -= 1
        else:
            last.append(line)
            yield line


def _pump(leash: Leashed, queue: Queue[str | None]) -> None:
    for line in leash.stdout or ():
        queue.put(_ESCAPE.sub("", line.decode("utf-8", errors="replace")).rstrip())
    queue.put(None)


def _progress(total: Progress, waiting: Iterable[int]) -> Progress:
    sizes = tuple(waiting)
    return Progress(total.total_jars - len(sizes), total.total_jars, total.total_bytes - sum(sizes), total.total_bytes)


def _failed(what: str, lines: Iterable[str]) -> ClusterError:
    told = "\n".join(_telling(tuple(lines))[-_TOLD_LINES:])
    return ClusterError("the jars of Hadoop were not fetched", why=f"{what}: {told}".rstrip(": "), mend=_BUNDLE_MEND)


def _telling(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines that tell a cause: those marked as errors, else those that sound like one, else all."""
    marked = [line for line in lines if line.startswith("[ERROR]")] or lines
    stripped = dict.fromkeys(_LEVEL.sub("", line.strip()) for line in marked)
    kept = [_shortened(line) for line in stripped if not _BOILERPLATE.match(line)]
    return [line for line in kept if _TELLING.search(line)] or kept


def _shortened(line: str) -> str:
    """Cut the middle of a line: Maven strings whole chains of causes together, and the last is the first."""
    return line if len(line) <= _TOLD_HEAD + _TOLD_TAIL else f"{line[:_TOLD_HEAD]} ... {line[-_TOLD_TAIL:]}"


def _ivy_module(number: int, jars: Sequence[Jar]) -> str:
    modules: dict[tuple[str, str, str], list[Jar]] = {}
    for jar in jars:
        modules.setdefault((jar.group, jar.artifact, jar.version), []).append(jar)
    return (
        '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">'
        f'<info organisation="clusterkit" module="jars-{number}" revision="1"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(map(_ivy_dependency, modules.values()))}</dependencies></ivy-module>"
    )


def _ivy_dependency(jars: Sequence[Jar]) -> str:
    """Return one module with its artifacts listed, so that Ivy neither guesses them nor follows dependencies."""
    one = jars[0]
    artifacts = "".join(
        f'<artifact name={quoteattr(jar.artifact)} type="jar" ext="jar"'
        + (f" m:classifier={quoteattr(jar.classifier)}/>" if jar.classifier else "/>")
        for jar in jars
    )
    return (
        f"<dependency org={quoteattr(one.group)} name={quoteattr(one.artifact)} rev={quoteattr(one.version)}"
        f' transitive="false" conf="default->*">{artifacts}</dependency>'
    )
