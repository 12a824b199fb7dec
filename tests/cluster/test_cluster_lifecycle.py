from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from clusterkit.embedded import marks, ports
from clusterkit.processes import ProcessIdentity

DAEMONS = {"namenode", "resourcemanager", "datanode-1", "nodemanager-1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a data directory whose name is not all ASCII."""
    directory = tmp_path_factory.mktemp("data") / "daten-für-später"
    directory.mkdir()
    return directory


@pytest.fixture(scope="module")
def cli(place, clusterkit_cli):
    """Return the command line for a data directory of its own."""
    return type(clusterkit_cli)(place)


@pytest.fixture(scope="module")
def own(place, cli, fresh_cluster):
    """Yield a running cluster that these tests may break; two commands that start it at once are part of it."""
    cluster = fresh_cluster("own", data_dir=place)
    both = [
        subprocess.Popen(
            cli.argv("cluster", "up", "--name", "own"),
            env=cli.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = sorted(process.communicate(timeout=150)[1].splitlines()[-1] for process in both)
    assert told == ["The cluster 'own' ran already.", "The cluster 'own' runs."]
    return cluster


@pytest.fixture
def up(own):
    """Return the cluster, mended if the test before broke it."""
    own.up()
    return own


def _pids(cluster) -> dict[str, int]:
    return {mark.daemon: mark.process.pid for mark in marks.daemons(cluster.layout.root)}


def _manager(cluster) -> str:
    ports = next(daemon.ports for daemon in cluster.status().daemons if daemon.name == "resourcemanager")
    return f"http://127.0.0.1:{ports['web']}"


def _write(cluster, path: str, content: bytes) -> None:
    import hdfs_native

    client = hdfs_native.Client(config={"fs.defaultFS": cluster.cluster().configuration.default_fs})
    with client.create(path) as file:
        file.write(content)


def _read(cluster, path: str) -> bytes:
    import hdfs_native

    client = hdfs_native.Client(config={"fs.defaultFS": cluster.cluster().configuration.default_fs})
    with client.read(path) as file:
        return bytes(file.read())


def test_status_tells_everything(up, cli):
    """Each daemon, the node, HDFS, the queue and the lack of authentication are told, for people and as JSON."""
    told = cli("cluster", "status", "--name", "own", "--json")
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    assert {daemon["name"]: (daemon["state"], daemon["pid"]) for daemon in status["daemons"]} == {
        name: ("ready", pid) for name, pid in _pids(up).items()
    }
    assert (status["state"], [node["state"] for node in status["nodes"]]) == ("up", ["RUNNING"])
    assert (status["hdfs"]["datanodes"], status["hdfs"]["safe_mode"]) == (1, False)
    assert status["queues"] == [{"name": "default", "share": 100.0, "used": 0.0, "applications": 0}]
    assert "no authentication: any user of this machine" in cli("cluster", "status", "--name", "own").stdout


def test_everything_is_on_loopback(up):
    """No daemon listens anywhere but on 127.0.0.1, and each listens on all the ports that were picked for it."""
    status = up.status()
    for daemon in status.daemons:
        connections = psutil.Process(daemon.pid).net_connections("all")
        heard = {line.laddr for line in connections if line.status == psutil.CONN_LISTEN}
        assert {address.ip for address in heard} == {"127.0.0.1"}
        assert set(daemon.ports.values()) <= {address.port for address in heard}


def test_everything_is_private(up):
    """What the cluster keeps can be entered by its owner only, and no file outside containers' is open to others."""
    root = up.layout.root
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, up.layout.conf, up.layout.logs, up.layout.run)] == [
        0o700
    ] * 4
    containers = up.layout.run_of("nodemanager-1")
    open_to_others = [
        path
        for path in root.rglob("*")
        if containers not in path.parents and not path.is_symlink() and path.is_file() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []


def test_pages_answer(up, cli):
    """Every address that `ui` prints answers 200."""
    printed = [line.split() for line in cli("cluster", "ui", "--name", "own").stdout.splitlines()[1:]]
    assert {name for name, _ in printed} == DAEMONS
    for _, url in printed:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
            assert answer.status == 200


def test_up_again_does_nothing(up, cli):
    """A second `up` says that the cluster ran already, and no process is another."""
    before = _pids(up)
    told = cli("cluster", "up", "--name", "own")
    assert (told.returncode, told.stderr) == (0, "The cluster 'own' ran already.\n")
    assert _pids(up) == before


def test_changed_queue_restarts_one_daemon(up, cli):
    """Another queue restarts the ResourceManager alone, and `up` says so before it does."""
    before = _pids(up)
    told = cli("cluster", "up", "--name", "own", "--queue", "batch=70", "--queue", "default=30")
    assert told.returncode == 0, told.stderr
    assert "restarting: resourcemanager\n" in told.stderr
    after = _pids(up)
    assert {name for name in DAEMONS if before[name] != after[name]} == {"resourcemanager"}
    assert [(queue.name, queue.share) for queue in up.status().queues] == [("batch", 70.0), ("default", 30.0)]


def test_killed_daemons_are_seen_and_mended(up, cli):
    """After kill -9 `status` names the dead, `up` starts exactly those, and the data are there."""
    _write(up, "/kept", b"still here")
    before = _pids(up)
    for name in ("namenode", "nodemanager-1"):
        os.kill(before[name], signal.SIGKILL)
    told = cli("cluster", "status", "--name", "own", "--json")
    assert told.returncode == 1
    status = json.loads(told.stdout)
    dead = {daemon["name"] for daemon in status["daemons"] if daemon["state"] == "dead"}
    assert (status["state"], dead) == ("broken", {"namenode", "nodemanager-1"})
    changes = up.up()
    assert {launch.name for launch in changes.start} == {"namenode", "nodemanager-1"}
    after = _pids(up)
    assert {name for name in DAEMONS if before[name] != after[name]} == {"namenode", "nodemanager-1"}
    assert up.status().state == "up"
    assert _read(up, "/kept") == b"still here"


def test_node_is_the_one_that_was_started(up):
    """What the ResourceManager knows of a restarted node was said by the new process, not by the one before it."""
    os.kill(_pids(up)["nodemanager-1"], signal.SIGKILL)
    up.up()
    process = ProcessIdentity.from_pid(_pids(up)["nodemanager-1"])
    with urllib.request.urlopen(f"{_manager(up)}/ws/v1/cluster/nodes", timeout=10) as answer:  # noqa: S310
        (node,) = json.load(answer)["nodes"]["node"]
    assert node["state"] == "RUNNING"
    assert node["lastHealthUpdate"] / 1000 > process.started_s - 1


def test_environment_serves_stock_clients(up, cli, tmp_path):
    """With what `env` prints, hdfs-native and Hadoop's own shell use the cluster without further words."""
    _write(up, "/for-clients", b"x")
    script = tmp_path / "list.py"
    script.write_text("import hdfs_native; print([f.path for f in hdfs_native.Client().list_status('/')])")
    lib = json.loads(up.layout.state.read_text())["lib"]
    python = shlex.quote(sys.executable)
    shell = f"""eval "$({python} -m clusterkit cluster env --name own)"
{python} {script}
"$JAVA_HOME/bin/java" -cp "$HADOOP_CONF_DIR:{lib}/*" org.apache.hadoop.fs.FsShell -ls /"""
    done = subprocess.run(
        ["/bin/bash", "-ec", shell], env=cli.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    listed, *lines = done.stdout.splitlines()
    assert "'/for-clients'" in listed
    assert any(line.endswith(" /for-clients") for line in lines)


def test_down_leaves_nothing_but_data(up, cli, submit_shell):
    """After `down` there is no process, port or temporary file, what containers started included; the data stay."""
    _write(up, "/data", b"to stay")
    wanderer = _wandering_process(up, submit_shell)
    held = {port for daemon in up.status().daemons for port in daemon.ports.values()}
    running = [mark.process for mark in marks.daemons(up.layout.root)]
    told = cli("cluster", "down", "--name", "own")
    assert (told.returncode, told.stderr.splitlines()[-1]) == (0, "The cluster 'own' is down."), told.stderr
    assert [process for process in (*running, wanderer) if process.alive] == []
    assert all(ports.is_free("127.0.0.1", port) for port in held)
    assert {path.name for path in up.layout.root.iterdir()} == {"cluster.json", "conf", "data", "logs"}
    assert _leftovers(running) == []
    assert cli("cluster", "down", "--name", "own").stderr == "The cluster 'own' did not run.\n"
    assert up.status().state == "down"
    up.up()
    assert _read(up, "/data") == b"to stay"
    up.down(purge=True)
    assert (up.layout.root.exists(), up.status()) == (False, None)


def _wandering_process(cluster, submit_shell) -> ProcessIdentity:
    """Have a container start a process in a session of its own, and return that process."""
    submit_shell(cluster.cluster(), "setsid sleep 987654 </dev/null >/dev/null 2>&1 & sleep 987653")
    return _wait_for(lambda: next(iter(_with_arguments("sleep", "987654")), None), "the container's process")


def _with_arguments(*argv: str) -> list[ProcessIdentity]:
    return [ProcessIdentity.from_pid(p.pid) for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == [*argv]]


def _wait_for(look, what: str, timeout_s: float = 60.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    pytest.fail(f"{what} did not appear within {timeout_s:g} s")


def _leftovers(processes) -> list[Path]:
    """Return what JVMs left in the directory for temporary files."""
    directory = Path(tempfile.gettempdir())
    names = {str(process.pid) for process in processes}
    found = [path for path in directory.glob("hsperfdata_*/*") if path.name in names]
    return found + [path for path in directory.glob(".java_pid*") if path.name.removeprefix(".java_pid") in names]
