"""Logs that YARN collected in HDFS: where they are, and in which format.

References
----------
https://hadoop.apache.org/docs/r3.5.0/hadoop-yarn/hadoop-yarn-common/yarn-default.xml (`yarn.log-aggregation.*`) and
`org.apache.hadoop.yarn.logaggregation.LogAggregationUtils` of Hadoop 3.5.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from clusterkit.errors import ClusterError
from clusterkit.hadoop.hdfs import DeniedError, MissingPathError
from clusterkit.hadoop.logs import indexed, tfile
from clusterkit.hadoop.logs.log_file import DamagedLogError
from clusterkit.hadoop.logs.node_file import NodeFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.hadoop.configuration import Configuration
    from clusterkit.hadoop.hdfs import FileStatus, Hdfs
    from clusterkit.hadoop.logs.log_file import LogFile, Selection

_BUCKETS = 10_000
_TEMPORARY = ".tmp"


class LogHome(msgspec.Struct, frozen=True):
    """One place where a cluster keeps collected logs.

    Parameters
    ----------
    root : str
        The directory above the users' directories.
    suffix : str
        What the formats' directories are named after.
    format : {"tfile", "indexed"}
        How the files are written.
    """

    root: str
    suffix: str
    format: Literal["tfile", "indexed"]

    def directory(self, user: str, application_id: str) -> str:
        """Return where the logs of an application are."""
        bucket = int(application_id.rpartition("_")[2]) % _BUCKETS
        return f"{self.root}/{user}/bucket-{self.suffix}/{bucket:04}/{application_id}"

    def older_directory(self, user: str, application_id: str) -> str:
        """Return where Hadoop before 3.3 put the logs of an application."""
        return "/".join(part for part in (self.root, user, self.suffix, application_id) if part)


def homes(configuration: Configuration) -> tuple[LogHome, ...]:
    """Return where a cluster keeps collected logs, one place per format, the one it writes first.

    Raises
    ------
    ClusterError
        If a format is one that is not known here.
    """
    return tuple(_home(configuration, name) for name in configuration.words("yarn.log-aggregation.file-formats"))


def log_files(
    hdfs: Hdfs, configuration: Configuration, user: str, application_id: str, selection: Selection
) -> Iterator[LogFile] | None:
    """Yield the collected log files of an application, in the order of `yarn logs`; None when there are none.

    Parameters
    ----------
    hdfs : Hdfs
        The cluster's file system.
    configuration : Configuration
        The cluster's.
    user : str
        Whose application it is.
    application_id : str
        The application.
    selection : Selection
        What is wanted.

    Raises
    ------
    ClusterError
        If we may not read them.
    DamagedLogError
        At the end, if a file could not be read; what the others hold was yielded.
    """
    older = configuration.flag("yarn.nodemanager.remote-app-log-dir-include-older")
    try:
        return _log_files(hdfs, homes(configuration), (user, application_id), selection, older=older)
    except DeniedError as exc:
        raise ClusterError(
            f"the logs of {application_id} were not read",
            why=f"they belong to {user}, and HDFS refuses them to {configuration.user}: {exc.why}",
            mend=f"ask {user} for them, or an administrator of the cluster",
        ) from exc


def owner(hdfs: Hdfs, configuration: Configuration, application_id: str) -> str | None:
    """Return whose directory holds the logs of an application that the ResourceManager has forgotten."""
    for home in homes(configuration):
        users = (configuration.user, *(entry.name for entry in _entries(hdfs, home.root)))
        for user in dict.fromkeys(users):
            if _there(hdfs, home.directory(user, application_id)) or (
                _there(hdfs, home.older_directory(user, application_id))
            ):
                return user
    return None


def _home(configuration: Configuration, name: str) -> LogHome:
    key = f"yarn.log-aggregation.file-controller.{name}.class"
    kind = (configuration.get(key) or "").rpartition(".")[2]
    formats: dict[str, Literal["tfile", "indexed"]] = {
        "LogAggregationTFileController": "tfile",
        "LogAggregationIndexedFileController": "indexed",
    }
    if kind not in formats:
        raise ClusterError(
            "the collected logs cannot be found",
            why=f"the cluster writes them as {name}, a format whose class ({kind or 'not set'}) is not known here",
            mend=f"set {key} in {configuration.place('yarn-site.xml')} as the nodes have it, or use `yarn logs`",
            path=configuration.directory,
        )
    prefix = f"yarn.log-aggregation.{name}.remote-app-log-dir"
    root = configuration.get(prefix) or configuration.get("yarn.nodemanager.remote-app-log-dir") or ""
    suffix = configuration.get(f"{prefix}-suffix")
    plain = configuration.get("yarn.nodemanager.remote-app-log-dir-suffix") or ""
    return LogHome(_path(root), suffix or f"{plain}-{name.lower()}", formats[kind])


def _path(root: str) -> str:
    return (urlsplit(root).path if "://" in root else root).rstrip("/")


def _log_files(
    hdfs: Hdfs, places: tuple[LogHome, ...], whose: tuple[str, str], selection: Selection, *, older: bool
) -> Iterator[LogFile] | None:
    """Take the first format that has files, older places first, and everything that this format has."""
    user, application_id = whose
    found: dict[LogHome, list[FileStatus]] = {}
    for home in places:
        entries = _entries(hdfs, home.older_directory(user, application_id)) if older else []
        found[home] = entries + _entries(hdfs, home.directory(user, application_id))
    for home, entries in found.items():
        files = [_node_file(hdfs, entry) for entry in entries if not entry.name.endswith(_TEMPORARY)]
        if files:
            return _each(files, home.format, application_id, selection)
    return None


def _each(files: list[NodeFile], kind: str, application_id: str, selection: Selection) -> Iterator[LogFile]:
    """Yield what each file holds; of those that cannot be read, raise the first one's error at the end."""
    whole: dict[str, int] = {}
    damaged: list[DamagedLogError] = []
    for file in files:
        try:
            if file.name.endswith(indexed.CHECKSUM_SUFFIX):
                whole.update([indexed.whole_until(file)])
        except DamagedLogError as exc:
            damaged.append(exc)
    for file in files:
        if file.name.endswith(indexed.CHECKSUM_SUFFIX):
            continue
        try:
            if kind == "tfile":
                yield from tfile.log_files(file, selection)
            else:
                yield from indexed.log_files(file, application_id, selection, whole.get(file.name))
        except DamagedLogError as exc:
            damaged.append(exc)
    if damaged:
        raise damaged[0]


def _node_file(hdfs: Hdfs, entry: FileStatus) -> NodeFile:
    if not entry.directory:
        return NodeFile(entry.path, entry.size, entry.modified, _Lazily(hdfs, entry.path))
    raise ClusterError(
        f"the logs in {entry.path} were not read",
        why="they were packed into a Hadoop archive (`mapred archive-logs`), which is not read here",
        mend="use `yarn logs` for this application",
    )


class _Lazily:
    """A file of HDFS that is opened when it is read."""

    def __init__(self, hdfs: Hdfs, path: str) -> None:
        self._hdfs = hdfs
        self._path = path

    def read_range(self, start: int, size: int | None = None) -> bytes:
        return self._hdfs.read(self._path, start=start, size=size)

    def chunks(self, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        return self._hdfs.chunks(self._path, start=start, size=size)


def _entries(hdfs: Hdfs, directory: str) -> list[FileStatus]:
    try:
        return list(hdfs.list(directory))
    except MissingPathError:
        return []


def _there(hdfs: Hdfs, path: str) -> bool:
    try:
        return hdfs.exists(path)
    except DeniedError:
        return False
