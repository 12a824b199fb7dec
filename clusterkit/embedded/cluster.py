"""The real HDFS and YARN that clusterkit runs on this machine: start it, mend it, change it, end it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import msgspec

from clusterkit import processes
from clusterkit.embedded import applications, background, changes, class_data, intent, jars, marks, name_space, start
from clusterkit.embedded import state as states
from clusterkit.embedded.daemons import DATANODE, JOURNALNODE, NAMENODE, NODEMANAGER, RESOURCEMANAGER, ZOOKEEPER
from clusterkit.embedded.layout import Layout, make_private, write_private
from clusterkit.embedded.plan import Plan
from clusterkit.embedded.plan import plan as make_plan
from clusterkit.embedded.status import ClusterStatus, Page, look, pages
from clusterkit.errors import ClusterError
from clusterkit.hadoop.java import Java, find_java
from clusterkit.hadoop.site import client_files
from clusterkit.specs.cluster import ClusterSpec
from clusterkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.embedded.changes import Changes
    from clusterkit.embedded.jars import Progress
    from clusterkit.embedded.marks import Marked
    from clusterkit.embedded.start import Said
    from clusterkit.hadoop.cluster import Cluster

_GRACE_S = 10.0
_UNMANAGED_GRACE_S = 0.5  # a NodeManager that finds no ResourceManager to say goodbye to would try for long
_LOCK_TIMEOUT_S = 300.0
_SWEEPS = 5

_NODES = frozenset({DATANODE, NODEMANAGER})
"""Started once a NameNode answers: on two processors, four daemons at once would only hold each other up.

A DataNode that met a NameNode which listens but has not quite started would sleep for 5 s before it asks again.
"""


def _silent(stage: str, detail: str) -> None:
    """Say nothing."""
    del stage, detail


class EmbeddedCluster:
    """A cluster of real daemons on this machine.

    Parameters
    ----------
    name : str
        What it is called.
    data_dir : Path
        The directory below which everything of it lies.
    cache_dir : Path
        The directory of the jars, which all clusters share.
    java_home : Path, optional
        The Java to use; found when absent.
    """

    def __init__(self, name: str, *, data_dir: Path, cache_dir: Path, java_home: Path | None = None) -> None:
        self.name = ClusterSpec(name=name).name
        self.layout = Layout((data_dir / "clusters").absolute(), name)
        self._cache_dir = cache_dir
        self._java_home = java_home

    def __repr__(self) -> str:
        return f"EmbeddedCluster({self.name!r}, {str(self.layout.root)!r})"

    @property
    def spec(self) -> ClusterSpec | None:
        """What was last asked for, None when there is no such cluster."""
        remembered = states.load(self.layout)
        return remembered.spec if remembered else None

    @property
    def running(self) -> bool:
        """Whether any of its daemons runs."""
        return bool(marks.daemons(self.layout.root))

    def up(self, spec: ClusterSpec | None = None, *, said: Said = _silent) -> Changes:
        """Start what does not run, restart what is to change, and wait until everything is ready.

        Parameters
        ----------
        spec : ClusterSpec, optional
            What to start. What was last asked for when absent, one node when there is nothing to remember.
        said : callable
            Is told what is being done: a stage, and how far it is.

        Returns
        -------
        Changes
            What was ended and started; `none` is true when the cluster ran already.

        Raises
        ------
        ClusterError
            If a daemon ends, or is not ready in time. The others go on, and `up` again starts what is missing.
            If the change would cost data in HDFS.
        """
        with self._locked(said):
            remembered = states.load(self.layout)
            wanted = spec or (remembered.spec if remembered else ClusterSpec(name=self.name))
            if remembered:
                changes.check(self.layout, remembered.spec, wanted)
            running = marks.daemons(self.layout.root)
            java = self._java(remembered, running)
            settled = intent.settle(
                self.layout,
                wanted,
                remembered,
                running={mark.daemon for mark in running},
                java=java,
                lib=self._lib(java, said),
            )
            planned = make_plan(self.layout, settled)
            archive = class_data.daemon_archive(self._cache_dir, java, Path(settled.lib))
            found = self._change(planned, remembered, running, archive.jvm_options, said)
            background.build(self.layout, archive)
            return found

    def down(self, *, purge: bool = False, said: Said = _silent) -> tuple[str, ...]:
        """End every process of the cluster, and remove what it needed only while it ran.

        Parameters
        ----------
        purge : bool
            Whether the data in HDFS go as well.
        said : callable
            Is told what is being done.

        Returns
        -------
        tuple of str
            The daemons that were ended.
        """
        with self._locked(said):
            remembered = states.load(self.layout)
            running = marks.daemons(self.layout.root)
            if remembered:
                states.save(self.layout, msgspec.structs.replace(remembered, wanted=False))
                if running:
                    applications.end(make_plan(self.layout, remembered), said)
            self._end(running, said)
            processes.end(background.builders(self.layout), grace_s=_GRACE_S)
            processes.end((mark.process for mark in marks.carriers(self.layout.root)), grace_s=1.0)
            _sweep(self.layout.root)
            shutil.rmtree(self.layout.root if purge else self.layout.run, ignore_errors=True)
            return tuple(mark.daemon for mark in running)

    def status(self) -> ClusterStatus | None:
        """Return what the cluster is like now, None when there is no such cluster."""
        return look(self.layout)

    def pages(self) -> tuple[Page, ...]:
        """Return the web pages of the daemons that run."""
        return pages(self.layout)

    def cluster(self) -> Cluster:
        """Return the cluster as a client sees it."""
        from clusterkit.hadoop.cluster import Cluster  # noqa: PLC0415 - brings hdfs-native, which `up` spares

        return Cluster.from_directory(self.name, self.layout.conf, embedded=True)

    def environment(self) -> dict[str, str]:
        """Return what makes stock clients use this cluster.

        Raises
        ------
        ClusterError
            If there is no such cluster.
        """
        remembered = states.load(self.layout)
        if remembered is None:
            raise ClusterError(
                f"there is no cluster {self.name!r}",
                why=f"nothing lies in {self.layout.root}",
                mend=f"start it with `clusterkit cluster up --name {self.name}`",
                cluster=self.name,
            )
        conf = str(self.layout.conf)
        return {
            "HADOOP_CONF_DIR": conf,
            "YARN_CONF_DIR": conf,
            "JAVA_HOME": remembered.java_home,
            "SPARK_LOCAL_IP": remembered.spec.bind,
        }

    @contextlib.contextmanager
    def _locked(self, said: Said) -> Iterator[None]:
        """Let one command at a time change the cluster."""
        make_private(self.layout.lock.parent)
        lock = filelock.FileLock(self.layout.lock, mode=0o600)
        try:
            lock.acquire(timeout=0.1)
        except filelock.Timeout:
            said("waiting", f"another command changes the cluster {self.name!r}")
            self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    def _wait_for(self, lock: filelock.BaseFileLock) -> None:
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except filelock.Timeout as exc:
            raise ClusterError(
                f"the cluster {self.name!r} was left as it is",
                why=f"another command has been changing it for {_LOCK_TIMEOUT_S:g} s",
                mend=f"find that command with `fuser {self.layout.lock}` and end it, then run this one again",
                cluster=self.name,
            ) from exc

    def _java(self, remembered: states.State | None, running: tuple[Marked, ...]) -> Java:
        """Return the Java to run on; daemons that run are not restarted because `JAVA_HOME` is another one today."""
        if remembered and running and self._java_home is None:
            java = Java.from_home(Path(remembered.java_home))
            if java is not None and java.supported:
                return java
        return find_java(self._java_home, os.environ)

    def _lib(self, java: Java, said: Said) -> Path:
        return jars.fetch(jars.JarLock.load(), self._cache_dir, java, lambda done: said("fetching", fetched(done)))

    def _change(
        self,
        planned: Plan,
        remembered: states.State | None,
        running: tuple[Marked, ...],
        options: tuple[str, ...],
        said: Said,
    ) -> Changes:
        found = changes.compare(planned, running)
        if remembered != planned.state:
            make_private(self.layout.root)
            states.save(self.layout, planned.state)
        if found.end:
            said("restarting" if found.restarted else "ending", _listed(mark.daemon for mark in found.end))
            self._end(found.end, said)
        if not running and remembered and remembered.boot != planned.state.boot:
            shutil.rmtree(self.layout.run, ignore_errors=True)  # process ids in it belong to others since the boot
        self._write_client_files(planned)
        staying = tuple(start.Starting(planned.launch(mark.daemon), mark.process) for mark in found.stay)
        self._start(planned, found, staying, options, said)
        return found

    def _start(
        self,
        planned: Plan,
        found: Changes,
        staying: tuple[start.Starting, ...],
        options: tuple[str, ...],
        said: Said,
    ) -> None:
        if found.start:
            said("starting", _listed(launch.name for launch in found.start))
        fresh = name_space.needs_format(planned)
        later = name_space.NEEDED_BY if fresh else frozenset()
        first = [launch for launch in found.start if launch.role not in later | _NODES]
        nodes = [launch for launch in found.start if launch.role in _NODES]
        started = [*staying, *(start.spawn(planned, launch, options) for launch in first)]
        if fresh:
            name_space.make(planned, started, options)
        started += [start.spawn(planned, launch, options) for launch in found.start if launch.role in later]
        if nodes:
            start.wait_for(planned, started, NAMENODE, "rpc")
        started += [start.spawn(planned, launch, options) for launch in nodes]
        start.wait_ready(planned, started, said if found.start else _silent)
        if fresh:
            name_space.make_directories(planned)

    def _write_client_files(self, planned: Plan) -> None:
        make_private(self.layout.conf)
        for name, text in client_files(planned.site).items():
            path = self.layout.conf / name
            if not path.exists() or path.read_bytes() != text.encode():
                write_private(path, text.encode())

    def _end(self, ending: tuple[Marked, ...], said: Said) -> None:
        """End daemons in turn, and every process that containers of the NodeManagers among them left behind."""
        if ending:
            said("ending", _listed(mark.daemon for mark in ending))
        nodes, others, keepers = ([mark for mark in ending if _turn(mark) == turn] for turn in range(3))
        managed = any(mark.daemon.startswith(RESOURCEMANAGER.name) for mark in marks.daemons(self.layout.root))
        processes.end((mark.process for mark in nodes), grace_s=_GRACE_S if managed else _UNMANAGED_GRACE_S)
        for mark in nodes:
            _sweep(self.layout.run_of(mark.daemon))
        processes.end((mark.process for mark in others), grace_s=_GRACE_S)
        processes.end((mark.process for mark in keepers), grace_s=_GRACE_S)


def _turn(mark: Marked) -> int:
    """Return when a daemon ends: nodes while masters listen to them, then those, then what keeps their state."""
    if mark.daemon.startswith(NODEMANAGER.name):
        return 0
    return 2 if mark.daemon.startswith((ZOOKEEPER.name, JOURNALNODE.name)) else 1


def _sweep(root: Path) -> None:
    """End what containers started; again while they start more."""
    for _ in range(_SWEEPS):
        left = marks.containers(root)
        if not left:
            return
        processes.end(left, grace_s=1.0)


def fetched(progress: Progress) -> str:
    """Say how far a fetch is."""
    arrived, total = format_bytes(progress.size_bytes), format_bytes(progress.total_bytes)
    return f"{progress.jars}/{progress.total_jars} jars of Hadoop, {arrived} of {total}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
