"""Which environment a launch runs in, and how its image reaches the nodes."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterkit import processes
from clusterkit.errors import ImageError, StoreError
from clusterkit.specs.job import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.applications.probe import NodeFacts
    from clusterkit.environments.build import Built
    from clusterkit.environments.lock import Lock
    from clusterkit.environments.manifest import Manifest
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.launchers.spark.plan import NodeImage, NodePython
    from clusterkit.settings import Settings
    from clusterkit.specs.environment import EnvironmentSpec
    from clusterkit.specs.job import JobSpec
    from clusterkit.store.blob import Blob, Form
    from clusterkit.store.directory import DirectoryStore
    from clusterkit.store.hdfs import HdfsStore
    from clusterkit.store.put import PutReport
    from clusterkit.store.store import Store

    Tell = Callable[[str, str], None]

BARE = "clusterkit"
"""The bare interpreter's directory in a container: `clusterkit/bin/python` is all that Spark has to know."""

MANIFEST = "clusterkit-image.json"
WHOLE = "clusterkit-image"
JAVA = "clusterkit-java"
_NAMES_PYTHON = ("spark.pyspark.python", "spark.pyspark.driver.python")


@dataclass(frozen=True, slots=True)
class Shipment:
    """An image on its way to a cluster.

    Parameters
    ----------
    manifest : Manifest
        The image.
    transport : str
        `fast` or `native`.
    source : DirectoryStore
        Where its files are here.
    target : HdfsStore
        Where they shall be.
    beside : tuple of Blob
        What travels with the layers: the bare interpreter.
    python : NodePython
        What Spark is told of it.
    """

    manifest: Manifest
    transport: str
    source: DirectoryStore
    target: HdfsStore
    beside: tuple[Blob, ...]
    python: NodePython

    def ship(self, tell: Tell | None = None) -> PutReport:
        """Put on HDFS what is missing there, and say what that was; where nothing is, it takes metadata calls only.

        Raises
        ------
        StoreError
            If HDFS refuses, or files lie elsewhere than was planned.
        """
        from clusterkit.store import names, put  # noqa: PLC0415 - only where there is something to ship

        report = put.image(self.manifest, self.source, self.target, form=self.form, beside=self.beside, said=tell)
        names.point(self.target, self.manifest.name, self.manifest.id)
        planned = {entry.partition("#")[0] for entry in (*self._image.archives, *self._image.files)}
        elsewhere = [stored for stored in (*report.files, report.manifest) if stored.uri not in planned]
        if elsewhere:
            raise StoreError(
                f"{elsewhere[0].blob.what} is not where the launch expects it",
                why=f"its place on HDFS was taken, so that it went to {elsewhere[0].uri}",
                mend="submit again; `clusterkit env verify` names what is broken",
                uri=elsewhere[0].uri,
            )
        return report

    @property
    def form(self) -> Form:
        """How the layers are compressed."""
        return "zst" if self.transport == "fast" else "gz"

    @property
    def _image(self) -> NodeImage:
        assert self.python.image is not None  # noqa: S101 - a shipment is of an image
        return self.python.image


def wanted(spec: JobSpec, settings: Settings, cluster: Cluster, machine: Mapping[str, str]) -> EnvironmentSpec | None:
    """Return the environment that a job runs in; None where the nodes' own Python runs it.

    Without one that is named, a job on another machine runs in the environment that runs clusterkit; on the embedded
    cluster that interpreter is used in place. Whoever names a Python of the nodes gets that.

    Parameters
    ----------
    spec : JobSpec
        The job.
    settings : Settings
        The resolved settings.
    cluster : Cluster
        Where it goes.
    machine : mapping of str to str
        This machine's `spark-defaults.conf`.

    Raises
    ------
    SpecError
        If there is no such environment.
    """
    from clusterkit.specs.environment import EnvironmentSpec  # noqa: PLC0415

    if spec.env is not None:
        return _with_blas(EnvironmentSpec.find(spec.env, settings.environments, Path.cwd()), settings)
    if cluster.embedded or any(name in spec.conf or name in machine for name in _NAMES_PYTHON):
        return None
    return _with_blas(EnvironmentSpec(name=_name_of_this()), settings)


def specification(settings: Settings) -> EnvironmentSpec:
    """Return the environment that the setting env names; the one that runs clusterkit where it names none.

    Raises
    ------
    SpecError
        If there is no such environment.
    """
    from clusterkit.specs.environment import EnvironmentSpec  # noqa: PLC0415

    if settings.env is None:
        return _with_blas(EnvironmentSpec(name=_name_of_this()), settings)
    return _with_blas(EnvironmentSpec.find(settings.env, settings.environments, Path.cwd()), settings)


def shipment(
    environment: EnvironmentSpec,
    spec: JobSpec | None,
    settings: Settings,
    cluster: Cluster,
    *,
    tell: Tell | None = None,
) -> Shipment:
    """Build the image that a job needs, and say how it will reach the nodes; nothing is sent.

    Parameters
    ----------
    environment : EnvironmentSpec
        The environment.
    spec : JobSpec or None
        The job; None where there is none yet.
    settings : Settings
        The resolved settings.
    cluster : Cluster
        Where it goes.
    tell : callable, optional
        Told of what takes a while.

    Raises
    ------
    SpecError, ImageError
        As `environments.build.build` does, and if the nodes cannot run it.
    ClusterError
        If the cluster does not answer.
    """
    facts = _facts(settings, cluster, settings.queue, tell)
    transport = _transport(settings, facts)
    if spec is not None:
        environment = _with_job(environment, spec.job)
    built = build(environment, settings, native=transport == "native", tell=tell)
    check(built.manifest, facts, cluster.name)
    if spec is not None:
        check_driver(spec, built.manifest)
    source, target = local_store(settings), cluster_store(settings, cluster)
    beside = _beside(source)
    python = _python(built, target, beside, transport, settings)
    return Shipment(built.manifest, transport, source, target, beside, python)


def build(
    environment: EnvironmentSpec,
    settings: Settings,
    *,
    lock: Lock | None = None,
    native: bool = False,
    tell: Tell | None = None,
) -> Built:
    """Build an image and keep it, with its name, in the store of this machine.

    Raises
    ------
    SpecError, ImageError
        As `environments.build.build` does.
    """
    from clusterkit.environments.build import build as build_image  # noqa: PLC0415
    from clusterkit.hadoop.java import find_java  # noqa: PLC0415
    from clusterkit.store import names  # noqa: PLC0415

    java = find_java(settings.java_home, os.environ).home if environment.java else None
    built = build_image(environment, cache_dir=settings.cache_dir, lock=lock, java_home=java, native=native, said=tell)
    store = local_store(settings)
    store.save(built.manifest)
    names.point(store, built.manifest.name, built.manifest.id)
    return built


def local_store(settings: Settings) -> DirectoryStore:
    """Return the store of this machine, where images are built."""
    from clusterkit.store.directory import DirectoryStore  # noqa: PLC0415

    return DirectoryStore(settings.cache_dir / "images")


def cluster_store(settings: Settings, cluster: Cluster) -> HdfsStore:
    """Return the store of a cluster."""
    from clusterkit.store.hdfs import HdfsStore  # noqa: PLC0415

    manager = cluster.resource_manager
    return HdfsStore(cluster.hdfs, settings.hdfs_root, nodes=lambda: manager.metrics().active_nodes)


def running(cluster: Cluster) -> list[str]:
    """Return the beginnings of the ids of the images that applications run from."""
    from clusterkit.launchers.spark.plan import IMAGE_TAG  # noqa: PLC0415

    states = ("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED", "RUNNING")
    tags = (tag for report in cluster.resource_manager.applications(states=states) for tag in report.tags)
    return [tag.removeprefix(IMAGE_TAG) for tag in tags if tag.startswith(IMAGE_TAG)]


def check(manifest: Manifest, facts: NodeFacts | None, cluster: str) -> None:
    """Refuse an image that the nodes cannot run, before anything is sent.

    Parameters
    ----------
    manifest : Manifest
        The image.
    facts : NodeFacts or None
        What a node told; None where none was asked.
    cluster : str
        The cluster's name.

    Raises
    ------
    ImageError
        If it is for another architecture, needs a newer glibc, or claims a BLAS that was never seen in use.
    """
    from clusterkit.environments import proof  # noqa: PLC0415 - only where there is an image

    proof.check(manifest)
    if facts is None:
        return
    if facts.platform != manifest.platform:
        raise _unusable(
            manifest,
            f"it is for {manifest.platform}, and the nodes of {cluster} are {facts.platform}",
            f"build it on a machine that is {facts.architecture}, or submit to another cluster with --cluster",
        )
    if facts.glibc and _numbers(manifest.glibc) > _numbers(facts.glibc):
        raise _unusable(
            manifest,
            f"it needs glibc {manifest.glibc}, and the nodes of {cluster} have {facts.glibc}",
            "build it from an environment.yml: conda-forge's packages are made for older systems than this machine",
        )


def check_driver(spec: JobSpec, manifest: Manifest) -> None:
    """Refuse a driver on this machine whose Python is another version than the executors'.

    Raises
    ------
    ImageError
        If Spark was told of a driver's Python with other byte code, or a session in this Python would be such a driver.
    """
    minor = ".".join(manifest.python.split(".")[:2])
    if spec.job == SESSION:
        named, found = sys.executable, f"{sys.version_info[0]}.{sys.version_info[1]}"
        mend = f'run this program with Python {minor}, or build the environment for {found}: python = "{found}"'
    elif spec.deploy_mode == "client" and "spark.pyspark.driver.python" in spec.conf:
        named = spec.conf["spark.pyspark.driver.python"]
        asked = [named, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        found = processes.run(asked, timeout_s=20).stdout.strip()
        mend = "leave out spark.pyspark.driver.python: the driver then runs the environment's own Python"
    else:
        return
    if found != minor:
        raise _unusable(
            manifest, f"its Python is {minor}, and the driver's, {named}, is {found or 'none that runs'}", mend
        )


def _unusable(manifest: Manifest, why: str, mend: str) -> ImageError:
    return ImageError(f"the environment {manifest.name} cannot run there", why=why, mend=mend, image=manifest.id)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _facts(settings: Settings, cluster: Cluster, queue: str, tell: Tell | None) -> NodeFacts | None:
    """Ask a node what it can run; who names the transport on a cluster that cannot be asked gets it unasked."""
    from clusterkit.applications import probe  # noqa: PLC0415
    from clusterkit.errors import ClusterError  # noqa: PLC0415

    plain = re.sub(r"[^\w.-]", "_", cluster.name)
    keep = settings.data_dir / "nodes" / f"{plain}-{re.sub(r'[^a-z0-9]+', '-', cluster.configuration.default_fs)}.json"
    try:
        return probe.facts(cluster, node_cache=settings.node_cache, queue=queue, keep=keep, said=tell)
    except ClusterError:
        if settings.transport == "auto":
            raise
        return None


def _transport(settings: Settings, facts: NodeFacts | None) -> str:
    if settings.transport != "auto":
        return settings.transport
    return "fast" if facts is None or facts.cache == "usable" else "native"


def _with_blas(environment: EnvironmentSpec, settings: Settings) -> EnvironmentSpec:
    """Let the setting blas decide where the environment says nothing of its own."""
    if environment.blas is not None or settings.blas is None:
        return environment
    return msgspec.structs.replace(environment, blas=settings.blas)


def _with_job(environment: EnvironmentSpec, job: Path) -> EnvironmentSpec:
    """Send the modules beside a job along, as Python finds them there where the driver runs."""
    folder = job.parent
    beside = any(path != job for path in folder.glob("*.py")) or any(folder.glob("*/__init__.py"))
    if not beside or folder in {Path.home(), Path("/"), Path("/tmp")}:  # noqa: S108 - a place that is no project
        return environment
    return msgspec.structs.replace(environment, local=(*environment.local, folder))


def _beside(source: DirectoryStore) -> tuple[Blob, ...]:
    from clusterkit.environments import bare  # noqa: PLC0415
    from clusterkit.store.blob import Blob  # noqa: PLC0415

    digest, path = bare.archive(into=source.path)
    return (Blob.bare(digest, path.stat().st_size),)


def _python(built: Built, target: Store, beside: tuple[Blob, ...], transport: str, settings: Settings) -> NodePython:
    """Say what the containers get, by what name, and how Spark starts their Python."""
    from clusterkit.launchers.spark.plan import NodeImage, NodePython  # noqa: PLC0415
    from clusterkit.store.blob import Blob, blobs  # noqa: PLC0415

    manifest = built.manifest

    def uri(blob: Blob, name: str) -> str:
        return f"{target.files.uri}{target.destination(blob)}#{name}"

    archives = [uri(blob, BARE) for blob in beside]
    files = [uri(Blob.of_manifest(manifest), MANIFEST)]
    for layer, blob in zip(manifest.layers, blobs(manifest, "zst" if transport == "fast" else "gz"), strict=True):
        if blob.name.endswith(".gz"):  # YARN unpacks it
            archives.append(uri(blob, {"java": JAVA, "native": WHOLE}.get(layer.kind, layer.digest)))
        else:
            files.append(uri(blob, blob.name))
    variables = {"_CLUSTERKIT_NODE_CACHE": settings.node_cache}
    if any(layer.kind == "java" for layer in manifest.layers):
        variables["JAVA_HOME"] = f"./{JAVA}"  # Spark tells Python workers of it as it is: no variable is replaced
    image = NodeImage(
        id=manifest.id,
        name=manifest.name,
        lock=manifest.lock,
        transport=transport,
        proof=told(manifest),
        archives=tuple(archives),
        files=tuple(files),
        variables=variables,
        driver_python=built.python,
        driver_path=built.import_path,
        pyspark=next((package.version for package in manifest.packages if package.name == "pyspark"), ""),
    )
    origin = f"the image {manifest.name} {manifest.id[:12]}, Python {manifest.python}, {told(manifest)}"
    return NodePython(executable=f"{BARE}/bin/python", origin=origin, image=image)


def told(manifest: Manifest) -> str:
    """Return in a few words which BLAS an image was seen to use.

    Examples
    --------
    >>> from clusterkit.environments.manifest import Manifest
    >>> told(Manifest(name="x", python="3.11.7", platform="linux-64", glibc="2.28", lock="", layers=()))
    'without NumPy'
    """
    proof = manifest.proof
    if proof is None or not proof.blas:
        return "without NumPy"
    version = next((library.version for library in proof.libraries if library.api == proof.blas), "")
    return f"{proof.blas} {version}".strip() + (" or OpenBLAS, chosen on each node" if manifest.blas == "auto" else "")


def _name_of_this() -> str:
    """Return a name for the environment that runs clusterkit: that of the folder it lies in."""
    prefix = Path(sys.prefix)
    name = prefix.parent.name if prefix.name in {".venv", "venv", "env"} else prefix.name
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("._-")[:60] or "python"
