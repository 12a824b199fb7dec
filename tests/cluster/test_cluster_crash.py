"""`up` and `down` after a crash between any two of their steps, with programs that only look like daemons."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from clusterkit.embedded import background, jars, layout, marks, name_space, start, state
from clusterkit.embedded import cluster as clusters
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

DAEMONS = {"namenode", "resourcemanager", "datanode-1", "nodemanager-1"}

_JAVA = """#!/bin/sh
case "$*" in
*-format*)
  for word in "$@"; do
    case $word in -Ddfs.namenode.name.dir=file://*) mkdir -p "${word#*file://}/current" ;; esac
  done
  exit 0 ;;
*daemon=BROKEN*)
  echo "2026-01-01 00:00:00,000 INFO org.example.Daemon: all is well" >>"$LOG"
  echo "2026-01-01 00:00:01,000 ERROR org.example.Daemon: cannot go on" >>"$LOG"
  printf 'java.net.BindException: Address already in use\\n\\tat org.example.Daemon.main(Daemon.java)\\n' >>"$LOG"
  exit 1 ;;
esac
exec 3<>"$0.pipe"
read -r _ <&3
"""


WAIT_READY = start.wait_ready


@pytest.fixture
def java_home(tmp_path) -> Path:
    """Return the home of a Java whose daemons do nothing until they are ended."""
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    (home / "release").write_text('JAVA_VERSION="17.0.1"\n')
    (home / "lib").mkdir()
    executable = home / "bin" / "java"
    executable.write_text(_JAVA)
    executable.chmod(0o755)
    os.mkfifo(home / "bin" / "java.pipe")
    return home


@pytest.fixture
def idle(tmp_path, java_home, monkeypatch):
    """Yield a cluster of such daemons, which count as ready at once."""
    lib = tmp_path / "lib"
    lib.mkdir()
    monkeypatch.setattr(jars, "fetch", lambda *_: lib)
    monkeypatch.setattr(background, "build", lambda *_: None)
    monkeypatch.setattr(start, "wait_ready", start_check_only)
    monkeypatch.setattr(start, "wait_for", lambda plan, started, *_: start.check_alive(plan, started))
    monkeypatch.setattr(name_space, "make_directories", lambda _: None)
    cluster = EmbeddedCluster("idle", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", java_home=java_home)
    yield cluster
    cluster.down(purge=True)


def start_check_only(plan, started, said):
    """Stand in for waiting: see that everything is alive."""
    del said
    start.check_alive(plan, started)


def _running(cluster) -> list[str]:
    return sorted(mark.daemon for mark in marks.daemons(cluster.layout.root))


_STEPS = (
    (layout, "write_private"),
    (layout, "make_private"),
    (clusters, "write_private"),
    (clusters, "make_private"),
    (start, "write_private"),
    (start, "make_private"),
    (state, "write_private"),
    (state, "make_private"),
    (start, "spawn"),
    (name_space, "_run"),
)


def _killed_before_step(cluster, number: int) -> bool:
    """Run `up` in a child that is killed when it is about to take a step; return whether it came that far."""
    child = os.fork()
    if child == 0:
        taken = 0

        def wrapped(step):
            def counting(*args, **kwargs):
                nonlocal taken
                taken += 1
                if taken == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*args, **kwargs)

            return counting

        for module, name in _STEPS:
            setattr(module, name, wrapped(getattr(module, name)))
        try:
            cluster.up()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_crash_between_any_two_steps(idle):
    """However far a killed `up` came, `up` then runs each daemon once, and `down` then leaves nothing."""
    number = 0
    while _killed_before_step(idle, number := number + 1):
        idle.up()
        assert _running(idle) == sorted(DAEMONS), f"after a crash before step {number}"
        idle.down(purge=True)
        assert _running(idle) == []
        assert not idle.layout.root.exists()
    assert number > 20


def test_crash_is_followed_by_down(idle):
    """However far a killed `up` came, `down` alone ends everything."""
    number = 0
    while _killed_before_step(idle, number := number + 3):
        idle.down(purge=True)
        assert (_running(idle), idle.layout.root.exists()) == ([], False), f"after a crash before step {number}"


def test_existing_name_space_is_never_made_anew(idle):
    """A name space that exists is used; one that is gone while blocks exist is not replaced."""
    idle.up()
    kept = idle.layout.data_of("namenode") / "current" / "edits"
    kept.write_text("what was written")
    idle.down()
    idle.up()
    assert kept.read_text() == "what was written"
    idle.down()
    blocks = idle.layout.data_of("datanode-1") / "current"
    blocks.mkdir(parents=True)
    (blocks / "VERSION").touch()
    kept.parent.parent.rename(idle.layout.data / "elsewhere")
    with pytest.raises(ClusterError, match="a part of its name space is gone") as caught:
        idle.up()
    assert str(idle.layout.data_of("namenode")) in caught.value.mend
    assert not idle.layout.data_of("namenode").exists()


def test_second_process_of_a_daemon_is_ended(idle):
    """Of two processes that are the same daemon the older one stays."""
    idle.up()
    (first,) = [mark for mark in marks.daemons(idle.layout.root) if mark.daemon == "namenode"]
    planned = clusters.make_plan(idle.layout, state.load(idle.layout))
    second = start.spawn(planned, planned.launch("namenode")).process
    idle.up()
    assert (first.process.alive, second.alive) == (True, False)


@pytest.mark.parametrize("broken", ["datanode-1", "nodemanager-1"])
def test_daemon_that_dies_is_named_at_once(idle, java_home, monkeypatch, broken):
    """A daemon that ends while it starts is named with what its log says and one next step, within 2 s of its end."""
    monkeypatch.setattr(start, "wait_ready", WAIT_READY)
    log = idle.layout.log_of(broken)
    script = _JAVA.replace("BROKEN", broken).replace("$LOG", str(log))
    (java_home / "bin" / "java").write_text(script)
    with pytest.raises(ClusterError) as caught:
        idle.up()
    assert time.time() - log.stat().st_mtime < 2
    error = caught.value
    assert (error.what, error.why, error.mend) == (
        f"the {broken} of cluster 'idle' ended while it was starting",
        "Daemon: cannot go on\njava.net.BindException: Address already in use",
        "run the same command again: it picks another port",
    )
