"""The real HDFS and YARN that clusterkit runs on this machine: start it, end it, mend it."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import filelock
import msgspec

from clusterkit import processes
from clusterkit.embedded import jars, marks, name_space, ports, start
from clusterkit.embedded import state as states
from clusterkit.embedded.daemons import NAMENODE, daemons
from clusterkit.embedded.layout import Layout, make_private, write_private
from clusterkit.embedded.memory import machine_memory_mib, node_memory_mib
from clusterkit.embedded.plan import Plan
from clusterkit.embedded.plan import plan as make_plan
from clusterkit.embedded.status import ClusterStatus, look
from clusterkit.errors import ClusterError
from clusterkit.hadoop.java import Java, find_java
from clusterkit.hadoop.site import client_files
from clusterkit.specs.cluster import ClusterSpec
from clusterkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from clusterkit.embedded.jars import Progress
    from clusterkit.embedded.marks import Marked
    from clusterkit.embedded.plan import Launch
    from clusterkit.embedded.start import Said
    from clusterkit.hadoop.cluster import Cluster

_GRACE_S = 10.0
_LOCK_TIMEOUT_S = 300.0


def _silent(stage: str, detail: str) -> None:
    """Say nothing."""
    del stage, detail


def _told(progress: Progress) -> str:
    arrived, total = format_bytes(progress.size_bytes), format_bytes(progress.total_bytes)
    return f"{progress.jars}/{progress.total_jars} jars of Hadoop, {arrived} of {total}"


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
        self.name = name
        self.layout = Layout((data_dir / "clusters").absolute(), name)
        self._cache_dir = cache_dir
        self._java_home = java_home

    @property
    def spec(self) -> ClusterSpec | None:
        """What was last asked for, None when there is no such cluster."""
        remembered = states.load(self.layout)
        return remembered.spec if remembered else None

    @property
    def running(self) -> bool:
        """Whether any of its daemons runs."""
        return bool(marks.daemons(self.layout.root))

    def up(self, spec: ClusterSpec | None = None, *, said: Said = _silent) -> tuple[str, ...]:
        """Start what does not run, restart what was to change, and wait until everything is ready.

        Parameters
        ----------
        spec : ClusterSpec, optional
            What to start. What was last asked for when absent.
        said : callable
            Is told, in a few words, what is being done.

        Returns
        -------
        tuple of str
            The daemons that were started; none when the cluster ran already.

        Raises
        ------
        ClusterError
            If a daemon ends, or is not ready in time. The others go on, and `up` again starts what is missing.
        """
        with self._locked(said):
            remembered = states.load(self.layout)
            wanted = spec or (remembered.spec if remembered else ClusterSpec(name=self.name))
            running = marks.daemons(self.layout.root)
            planned = make_plan(self.layout, self._state(wanted, remembered, running, said))
            return self._bring_up(planned, running, said)

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
            if remembered and remembered.wanted:
                states.save(self.layout, msgspec.structs.replace(remembered, wanted=False))
            running = marks.daemons(self.layout.root)
            killed = processes.end((mark.process for mark in running), grace_s=_GRACE_S)
            processes.end(marks.containers(self.layout.root), grace_s=1.0)
            del killed
            shutil.rmtree(self.layout.root if purge else self.layout.run, ignore_errors=True)
            return tuple(mark.daemon for mark in running)

    def status(self) -> ClusterStatus | None:
        """Return what the cluster is like now, None when there is no such cluster."""
        return look(self.layout)

    def cluster(self) -> Cluster:
        """Return the cluster as a client sees it."""
        from clusterkit.hadoop.cluster import Cluster  # noqa: PLC0415 - brings httpx and hdfs-native, which `up` spares

        return Cluster.from_directory(self.name, self.layout.conf, embedded=True)

    def environment(self) -> dict[str, str]:
        """Return what makes stock clients use this cluster."""
        remembered = states.load(self.layout)
        found = {"HADOOP_CONF_DIR": str(self.layout.conf), "YARN_CONF_DIR": str(self.layout.conf)}
        if remembered:
            found["JAVA_HOME"] = remembered.java_home
        return found

    @contextlib.contextmanager
    def _locked(self, said: Said) -> Iterator[None]:
        make_private(self.layout.lock.parent)
        lock = filelock.FileLock(self.layout.lock, mode=0o600)
        try:
            lock.acquire(timeout=0.1)
        except filelock.Timeout:
            said("waiting", f"another command changes the cluster {self.name!r}")
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        try:
            yield
        finally:
            lock.release()

    def _state(
        self,
        spec: ClusterSpec,
        remembered: states.State | None,
        running: tuple[Marked, ...],
        said: Said,
    ) -> states.State:
        settled = spec
        if spec.memory_mib is None:
            kept = remembered.spec.memory_mib if remembered and remembered.spec.nodes == spec.nodes else None
            memory_mib = kept or node_memory_mib(spec, machine_memory_mib())
            settled = msgspec.structs.replace(spec, memory_mib=memory_mib)
        java = self._java()
        return states.State(
            spec=settled,
            ports=self._ports(settled, remembered, {mark.daemon for mark in running}),
            wanted=True,
            boot=states.boot_id(),
            java_home=str(java.home),
            lib=str(self._lib(java, said)),
        )

    def _java(self) -> Java:
        return find_java(self._java_home, os.environ)

    def _lib(self, java: Java, said: Said) -> Path:
        return jars.fetch(jars.JarLock.load(), self._cache_dir, java, lambda done: said("fetching", _told(done)))

    def _ports(
        self, spec: ClusterSpec, remembered: states.State | None, running: set[str]
    ) -> dict[str, dict[str, int]]:
        old = remembered.ports if remembered else {}
        taken = {port for cluster in self._neighbours() for mine in cluster.ports.values() for port in mine.values()}
        chosen: dict[str, dict[str, int]] = {}
        for daemon in daemons(spec):
            before = old.get(daemon.name, {})
            usable = set(before) == set(daemon.role.ports) and (
                daemon.name in running or all(ports.is_free(spec.bind, port) for port in before.values())
            )
            if not usable:
                fresh = ports.pick(spec.bind, len(daemon.role.ports), taken=taken)
                before = dict(zip(daemon.role.ports, fresh, strict=True))
            chosen[daemon.name] = before
            taken |= set(before.values())
        return chosen

    def _neighbours(self) -> Iterator[states.State]:
        for path in self.layout.clusters.glob("*/cluster.json"):
            with contextlib.suppress(ClusterError):
                other = states.load(Layout(self.layout.clusters, path.parent.name))
                if other and path.parent != self.layout.root:
                    yield other

    def _bring_up(self, planned: Plan, running: tuple[Marked, ...], said: Said) -> tuple[str, ...]:
        kept = {m.daemon for m in running if self._is_current(planned, m)}
        missing = tuple(launch for launch in planned.launches if launch.name not in kept)
        stale = tuple(mark for mark in running if mark.daemon not in kept)
        self._write(planned)
        if not missing and not stale:
            return ()
        if stale:
            said("ending", _listed(mark.daemon for mark in stale))
            processes.end((mark.process for mark in stale), grace_s=_GRACE_S)
        self._start(planned, missing, said)
        return tuple(launch.name for launch in missing)

    def _is_current(self, planned: Plan, mark: Marked) -> bool:
        launch = next((launch for launch in planned.launches if launch.name == mark.daemon), None)
        return launch is not None and planned.configuration(launch) == mark.configuration

    def _write(self, planned: Plan) -> None:
        make_private(self.layout.root)
        states.save(self.layout, planned.state)
        make_private(self.layout.conf)
        for name, text in client_files(planned.site).items():
            path = self.layout.conf / name
            if not path.exists() or path.read_text("utf-8") != text:
                write_private(path, text.encode())

    def _start(self, planned: Plan, missing: tuple[Launch, ...], said: Said) -> None:
        fresh = name_space.needs_format(planned)
        said("starting", _listed(launch.name for launch in missing))
        later = tuple(launch for launch in missing if fresh and launch.role is NAMENODE)
        started = [start.spawn(planned, launch) for launch in missing if launch not in later]
        if fresh:
            name_space.format_namenode(planned)
            started = [*(start.spawn(planned, launch) for launch in later), *started]
        start.wait_ready(planned, started, said)
        if fresh:
            name_space.make_directories(planned)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
