from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from clusterkit import settings
from clusterkit.applications import probe
from clusterkit.applications.probe import NodeFacts
from clusterkit.environments.manifest import Layer, Library, Manifest, Proof, StoredLayer
from clusterkit.errors import ClusterError, ImageError
from clusterkit.launch import images
from clusterkit.specs.environment import EnvironmentSpec
from clusterkit.specs.job import SESSION, JobSpec

ZST = {"zst": StoredLayer(size_bytes=1, sha256="")}
IMAGE = Manifest(
    name="analysis",
    python="3.11.7",
    platform="linux-64",
    glibc="2.28",
    lock="l",
    layers=(Layer(digest="a" * 64, kind="packages", name="packages", files=1, size_bytes=1, stored=ZST),),
    blas="mkl",
    proof=Proof(blas="mkl", libraries=(Library(api="mkl", version="2026.2", path="lib/libmkl_rt.so.3"),)),
)
FACTS = NodeFacts(architecture="x86_64", glibc="2.28", java="17.0.15", cache="usable", asked=datetime.now(UTC))


def test_an_image_that_fits_is_not_refused():
    """The same platform, a glibc that is as new, and a proof."""
    images.check(IMAGE, FACTS, "prod")
    images.check(IMAGE, None, "prod")  # a cluster that was not asked
    images.check(IMAGE, msgspec.structs.replace(FACTS, glibc=""), "prod")  # musl, or no getconf


@pytest.mark.parametrize(
    ("image", "facts", "why"),
    [
        ({"glibc": "2.36"}, {}, "it needs glibc 2.36, and the nodes of prod have 2.28"),
        ({"glibc": "2.10"}, {"glibc": "2.9"}, "it needs glibc 2.10, and the nodes of prod have 2.9"),
        ({}, {"architecture": "aarch64"}, "it is for linux-64, and the nodes of prod are linux-aarch64"),
        ({"proof": None}, {}, "it claims mkl, and nobody has seen it in use"),
        ({"proof": Proof(blas="openblas")}, {}, "it claims mkl, and its proof shows openblas"),
    ],
    ids=["glibc", "numbers, not text", "architecture", "no proof", "another proof"],
)
def test_an_image_that_nodes_cannot_run_is_refused_before_it_is_sent(image, facts, why):
    """Each reason is told with both sides."""
    with pytest.raises(ImageError) as caught:
        images.check(msgspec.structs.replace(IMAGE, **image), msgspec.structs.replace(FACTS, **facts), "prod")

    assert caught.value.why == why


@pytest.mark.parametrize(
    ("chosen", "cache", "transport"),
    [
        ("auto", "usable", "fast"),
        ("auto", "noexec", "native"),
        ("auto", "refused", "native"),
        ("fast", "noexec", "fast"),
        ("native", "usable", "native"),
    ],
)
def test_the_transport_is_what_nodes_allow_unless_it_is_named(chosen, cache, transport):
    """A cache that may not be used or run from means native; who names one gets it."""
    loaded = settings.load({"transport": chosen}, environ={}, directory=Path("/"))

    assert images._transport(loaded, msgspec.structs.replace(FACTS, cache=cache)) == transport


def cluster(*, embedded):
    return SimpleNamespace(embedded=embedded, name="prod")


@pytest.mark.parametrize(
    ("embedded", "conf", "machine", "name"),
    [
        (True, {}, {}, None),
        (False, {}, {}, images._name_of_this()),
        (False, {"spark.pyspark.python": "/usr/bin/python3"}, {}, None),
        (False, {}, {"spark.pyspark.python": "/usr/bin/python3"}, None),
    ],
    ids=["embedded", "elsewhere", "the job names a Python", "the machine does"],
)
def test_without_a_name_other_clusters_get_the_environment_that_runs_clusterkit(embedded, conf, machine, name):
    """The embedded cluster uses this interpreter in place; whoever names a Python of the nodes gets that."""
    loaded = settings.load(environ={}, directory=Path("/"))

    found = images.wanted(JobSpec(job=Path("/j.py"), name="j", conf=conf), loaded, cluster(embedded=embedded), machine)

    assert (found.name if found else None) == name


def test_the_setting_blas_decides_where_an_environment_says_nothing(tmp_path):
    """An environment's own word is stronger."""
    (tmp_path / "requirements.txt").write_text("numpy\n")
    loaded = settings.load({"env": str(tmp_path / "requirements.txt"), "blas": "mkl"}, environ={}, directory=Path("/"))
    own = EnvironmentSpec(name="x", blas="openblas")

    assert images.specification(loaded).blas == "mkl"
    assert images._with_blas(own, loaded) == own


def test_modules_beside_a_job_travel_with_it(tmp_path):
    """As Python finds them there where the driver runs; a job that stands alone sends nothing."""
    job = tmp_path / "job.py"
    job.touch()
    alone = images._with_job(EnvironmentSpec(name="x"), job)
    (tmp_path / "helper.py").touch()
    accompanied = images._with_job(EnvironmentSpec(name="x"), job)

    assert (alone.local, accompanied.local) == ((), (tmp_path,))
    assert images._with_job(EnvironmentSpec(name="x"), Path.home() / "job.py").local == ()


def test_facts_are_believed_for_a_week(tmp_path, monkeypatch):
    """A file answers until it is too old, or cannot be read."""
    asked: list[str] = []
    monkeypatch.setattr(
        probe, "_run_here", lambda script: asked.append(script) or "clusterkit-fact architecture=x86_64\n"
    )
    keep = tmp_path / "nodes" / "prod.json"

    def ask():
        return probe.facts(cluster(embedded=True), node_cache="/var/tmp/it's", queue="default", keep=keep).architecture

    assert [ask(), ask(), len(asked)] == ["x86_64", "x86_64", 1]
    old = msgspec.structs.replace(FACTS, asked=datetime.now(UTC) - timedelta(days=8))
    keep.write_bytes(msgspec.json.encode(old))
    assert [ask(), len(asked)] == ["x86_64", 2]
    keep.write_text("{")
    assert [ask(), len(asked)] == ["x86_64", 3]


def test_a_real_shell_tells_the_facts(tmp_path):
    """The script, run by sh, tells this machine's architecture and whether programs may run where images would lie."""
    found = probe.facts(
        cluster(embedded=True), node_cache=str(tmp_path / "it's a cache"), queue="default", keep=tmp_path / "kept.json"
    )

    assert (found.platform, found.cache) in {("linux-64", "usable"), ("linux-aarch64", "usable")}
    assert list(tmp_path.glob(".clusterkit-probe*")) == []


def test_a_container_without_a_word_is_told(monkeypatch):
    """What YARN said of the end stands in the error, and the next step needs no probe."""
    ended = SimpleNamespace(id="application_1_0001", ended=True, state="FAILED", diagnostics="no room")
    manager = SimpleNamespace(submit=lambda *_, **__: ended.id, application=lambda _: ended)
    there = SimpleNamespace(embedded=False, name="prod", resource_manager=manager)

    with pytest.raises(ClusterError) as caught:
        probe._run_there("exit 1", there, "default")

    assert caught.value.why == "no room"
    assert "--transport" in caught.value.mend


def test_a_session_in_another_python_is_refused():
    """The driver of a session is the Python that asks for it: its version must be the image's."""
    other = msgspec.structs.replace(IMAGE, python="3.9.1")

    with pytest.raises(ImageError) as caught:
        images.check_driver(JobSpec(job=SESSION, name="session"), other)

    assert caught.value.why.startswith(f"its Python is 3.9, and the driver's, {sys.executable}, is 3.")
    images.check_driver(JobSpec(job=Path("/j.py"), name="j"), other)  # runs the environment's own Python
