"""How long a container waits for an environment of 16,000 files on a node that has never seen it, and on one that has.

The NodeManager is the real one of the embedded cluster, without Hadoop's native library, as it comes. The peer is what
Spark's documentation tells: conda-pack's tar.gz as an ARCHIVE, which YARN unpacks. Ours are the layers of the same
prefix as FILEs, which the bare interpreter unpacks. Each application is one container; its time is from the moment in
which the NodeManager takes it up (its own log) to the first line of the environment's Python, which then imports what
is in it and prints versions: they must be the same. For a first use the files on HDFS get a new time, so that YARN
fetches them again, and ours a new cache; the page cache is warm for both. Our first use includes what the peer does not
do: the digests of all files, and the proof that NumPy and SciPy compute right on this node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import env
from harness import PYTHON, ResultsDifferError, Row, beside, limit, main, run

from clusterkit import settings
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.hadoop.hdfs import Hdfs
from clusterkit.hadoop.rest import Rest
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterkit.hadoop.cluster import Cluster

ROUNDS = 2
TIMEOUT_S = 900
JOB = Path(__file__).parent / "jobs" / "ready.py"
STORE = "/bench"


def localize() -> Sequence[Row]:
    """Start containers in a new environment, and again in one that the node knows."""
    archive, layers = _archives()
    with _cluster() as node:
        peer, ours = _Peer(node, archive), _Ours(node, layers)
        first: dict[str, list[float]] = {"ours": [], "peer": []}
        again: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(ROUNDS):
            for name, one in (("peer", peer), ("ours", ours)):
                one.forget()
                first[name].append(one.start())
                again[name] += [one.start() for _ in range(3)]
                print(
                    f"  round {number + 1}/{ROUNDS} {name}: first {first[name][-1]:.2f} s, "
                    f"again {', '.join(f'{seconds:.2f}' for seconds in again[name][-3:])} s",
                    file=sys.stderr,
                    flush=True,
                )
        if peer.versions != ours.versions:
            raise ResultsDifferError(f"{peer.versions} | {ours.versions}")
    conda_pack = "YARN ARCHIVE of conda-pack"
    return [
        beside("first use on a node", conda_pack, ours=min(first["ours"]), theirs=min(first["peer"]), target=5.0),
        limit("second application on the node", ours=statistics.median(again["ours"]), unit="s", at_most=0.5),
        beside(
            "second application on the node",
            conda_pack,
            ours=statistics.median(again["ours"]),
            theirs=statistics.median(again["peer"]),
            target=None,
        ),
    ]


@dataclass(frozen=True)
class _Resource:
    """A file on HDFS that YARN fetches for a container."""

    link: str
    path: str
    kind: str


class _Node:
    """The cluster, its HDFS and the log of its one NodeManager."""

    def __init__(self, cluster: Cluster, hdfs: Hdfs, log: Path, scratch: Path) -> None:
        self._cluster = cluster
        self._log = log
        self.hdfs = hdfs
        self.scratch = scratch

    def run(self, command: str, resources: Sequence[_Resource], variables: Mapping[str, str]) -> tuple[float, object]:
        """Run one container; return the seconds from its acceptance to its first line, and what it found."""
        told = self.scratch / "told.json"
        told.unlink(missing_ok=True)
        started_at = self._log.stat().st_size
        application = self._submit(f"{command} {JOB} {told} 1>/dev/null 2>{self.scratch}/stderr", resources, variables)
        deadline = time.monotonic() + TIMEOUT_S
        while not told.is_file():
            if time.monotonic() > deadline:
                raise SystemExit(f"{application} has not started:\n{(self.scratch / 'stderr').read_text()[-2000:]}")
            time.sleep(0.02)
        found = json.loads(told.read_text())
        self._wait_for_end(application)
        return found["at"] - self._taken_up(application, started_at), found["versions"]

    def _submit(self, command: str, resources: Sequence[_Resource], variables: Mapping[str, str]) -> str:
        rest = Rest("ResourceManager", self._cluster.configuration.user)
        root = f"{self._cluster.resource_manager.active.url}/ws/v1/cluster/apps"
        application = str(rest.call("POST", f"{root}/new-application").json()["application-id"])
        container = {
            "commands": {"command": command},
            "local-resources": {"entry": [{"key": one.link, "value": self._described(one)} for one in resources]},
            "environment": {"entry": [{"key": name, "value": value} for name, value in variables.items()]},
        }
        document = {
            "application-id": application,
            "application-name": "localize",
            "application-type": "SHELL",
            "max-app-attempts": 1,
            "am-container-spec": container,
            "resource": {"memory": 1024, "vCores": 1},
        }
        rest.call("POST", root, document=document)
        return application

    def _described(self, resource: _Resource) -> dict[str, object]:
        status = self.hdfs.status(resource.path)
        return {
            "resource": f"{self._cluster.configuration.default_fs}{resource.path}",
            "type": resource.kind,
            "visibility": "PUBLIC",
            "size": status.size,
            "timestamp": round(status.modified.timestamp() * 1000),
        }

    def _wait_for_end(self, application: str) -> None:
        while self._cluster.resource_manager.application(application).state not in {"FINISHED", "FAILED", "KILLED"}:
            time.sleep(0.1)

    def _taken_up(self, application: str, started_at: int) -> float:
        """Return when the NodeManager took up the application's container, by its own log."""
        container = application.replace("application", "container")
        with self._log.open("rb") as file:
            file.seek(started_at)
            text = file.read().decode(errors="replace")
        line = re.search(rf"(?m)^(\S+ [\d:]+),(\d+) .*Start request for {container}_", text)
        if line is None:
            raise SystemExit(f"{self._log} does not tell when {application} was taken up")
        return datetime.fromisoformat(line[1]).timestamp() + int(line[2]) / 1000


class _Peer:
    """conda-pack's archive, unpacked by YARN."""

    def __init__(self, node: _Node, archive: Path) -> None:
        self._node = node
        self._archive = _Resource("environment", f"{STORE}/{archive.name}", "ARCHIVE")
        self.versions: object = None
        node.hdfs.put(archive, self._archive.path)

    def forget(self) -> None:
        """Have YARN take the archive for a new one."""
        self._node.hdfs.touch(self._archive.path)

    def start(self) -> float:
        seconds, self.versions = self._node.run("environment/bin/python", [self._archive], {})
        return seconds


class _Ours:
    """The layers of the same environment, unpacked by the bare interpreter."""

    def __init__(self, node: _Node, store: Path) -> None:
        self._node = node
        self._cache = node.scratch / "cache"
        self._number = 0
        self.versions: object = None
        (bare,) = (store / "bare").glob("*.tar.gz")
        self._resources = [
            _Resource("clusterkit", f"{STORE}/{bare.name}", "ARCHIVE"),
            _Resource("clusterkit-image.json", f"{STORE}/manifest.json", "FILE"),
            *(
                _Resource(file.name, f"{STORE}/{file.name}", "FILE")
                for file in sorted((store / "layers").glob("*.zst"))
            ),
        ]
        node.hdfs.put(bare, f"{STORE}/{bare.name}")
        node.hdfs.put(store / "manifest.json", f"{STORE}/manifest.json")
        for file in (store / "layers").glob("*.zst"):
            node.hdfs.put(file, f"{STORE}/{file.name}")

    def forget(self) -> None:
        """Have YARN take all files for new ones, and give the node another cache."""
        shutil.rmtree(self._cache / str(self._number), ignore_errors=True)
        self._number += 1
        (self._cache / str(self._number)).mkdir(parents=True)
        for resource in self._resources:
            self._node.hdfs.touch(resource.path)

    def start(self) -> float:
        variables = {"_CLUSTERKIT_NODE_CACHE": str(self._cache / str(self._number) / "clusterkit")}
        seconds, self.versions = self._node.run("clusterkit/bin/python", self._resources, variables)
        return seconds


@contextmanager
def _cluster() -> Iterator[_Node]:
    """Yield a cluster of one node in a directory of its own, and leave nothing of it."""
    cache_dir = settings.load().cache_dir
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as name:
        made = EmbeddedCluster("default", data_dir=Path(name), cache_dir=cache_dir)
        made.up(ClusterSpec())
        try:
            cluster = made.cluster()
            hdfs = Hdfs(cluster.configuration)
            hdfs.mkdirs(STORE)
            (Path(name) / "scratch").mkdir()
            yield _Node(cluster, hdfs, made.layout.log_of("nodemanager-1"), Path(name) / "scratch")
        finally:
            made.down(purge=True)


def _archives() -> tuple[Path, Path]:
    """Return conda-pack's archive of the prefix, and a store with our layers, manifest and bare interpreter."""
    prefix = env._prefix(env._venv())  # noqa: SLF001 - the environment that benchmarks/env.py makes
    home = env.HOME / "localize"
    archive = home / "env.tar.gz"
    if not archive.is_file():
        home.mkdir(parents=True, exist_ok=True)
        packed = env.HOME / "out" / "conda-pack" / "env.tar.gz"
        if packed.is_file():
            os.link(packed, archive)
        else:
            run([str(PYTHON.with_name("conda-pack")), "-q", "-p", str(prefix), "-o", str(archive)], timeout_s=TIMEOUT_S)
    return archive, _packed(prefix, home / "ours")


def _packed(prefix: Path, store: Path) -> Path:
    import msgspec  # noqa: PLC0415 - where it is packed

    from clusterkit.environments import bare, conda, pack  # noqa: PLC0415
    from clusterkit.environments.manifest import Proof  # noqa: PLC0415

    shutil.rmtree(store / "bare", ignore_errors=True)
    bare.archive(into=store)
    if not (store / "manifest.json").is_file():
        proof = Proof(blas="openblas")  # has the node prove what it unpacked
        manifest = pack.pack(conda.read(prefix), lock_digest="", name="benchmark", blas="", proof=proof, into=store)
        (store / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return store


if __name__ == "__main__":
    main({"localize": localize})
