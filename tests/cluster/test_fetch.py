from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from clusterkit import settings
from clusterkit.embedded import download, jars
from clusterkit.errors import ClusterError
from clusterkit.hadoop.java import find_java

LOCK = jars.JarLock.load()


@pytest.fixture(scope="module")
def java():
    """Return the Java of this machine."""
    return find_java(settings.load().java_home, os.environ)


@pytest.fixture
def cache(tmp_path):
    """Return an empty cache whose path has a space and brackets."""
    return tmp_path / "cache [of jars] (new)"


def without_maven() -> dict[str, str]:
    places = (place for place in os.environ["PATH"].split(os.pathsep) if not Path(place, "mvn").exists())
    return {**os.environ, "PATH": os.pathsep.join(places)}


@pytest.mark.skipif(shutil.which("mvn") is None, reason="this machine has no Maven")
def test_maven_brings_exactly_the_locked_jars(cache, java):
    """The real Maven brings all 184 jars, each with its locked hash, and nothing else."""
    seen = []
    lib = jars.fetch(LOCK, cache, java, seen.append)
    assert {path.name for path in lib.iterdir()} == set(LOCK.by_file_name)
    assert all(jar.matches(lib / jar.file_name) for jar in LOCK.jars)
    assert (seen[-1].jars, seen[-1].size_bytes) == (184, LOCK.size_bytes)


def test_ivy_brings_the_same(cache, java):
    """Where there is no Maven the Ivy of pyspark brings the same jars."""
    environ = without_maven()
    assert isinstance(download.find_tool(java, environ), download.Ivy)
    lib = jars.fetch(LOCK, cache, java, environ=environ)
    assert {path.name for path in lib.iterdir()} == set(LOCK.by_file_name)
    assert all(jar.matches(lib / jar.file_name) for jar in LOCK.jars)


@pytest.mark.parametrize("tool", ["maven", "ivy"])
def test_no_network(tool, cache, java, tmp_path):
    """Without a network the tool, its own words, and the way by bundle are told; nothing stays in the cache."""
    if tool == "maven" and shutil.which("mvn") is None:
        pytest.skip("this machine has no Maven")
    nothing = f"-Duser.home={tmp_path / 'home'} -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    environ = os.environ if tool == "maven" else without_maven()
    with pytest.raises(ClusterError) as caught:
        jars.fetch(LOCK, cache, java, environ={**environ, "JAVA_TOOL_OPTIONS": nothing})
    assert caught.value.what == "the jars of Hadoop were not fetched"
    assert caught.value.why.lower().startswith(f"{tool} (")
    assert "refused" in caught.value.why
    assert "clusterkit cluster fetch --from bundle.tar" in caught.value.mend
    assert jars.unfit(LOCK, cache) == tuple(LOCK.by_file_name)


def test_a_bundle_carries_the_jars(clusterkit_cli, cache, tmp_path):
    """`fetch --to` writes a bundle, `fetch --from` fills another cache from it without any tool."""
    bundle = tmp_path / "the bundle.tar"
    written = clusterkit_cli("cluster", "fetch", "--to", str(bundle))
    assert (written.returncode, written.stdout) == (0, f"{bundle}\n")
    read = clusterkit_cli(
        "cluster", "fetch", "--from", str(bundle), env={"CLUSTERKIT_CACHE_DIR": str(cache), "PATH": "/nonexistent"}
    )
    assert (read.returncode, read.stdout) == (0, f"{jars.directory(LOCK, cache)}\n")
    assert jars.unfit(LOCK, cache) == ()


def test_a_tampered_bundle_is_refused(clusterkit_cli, cache, tmp_path):
    """A bundle with one changed byte in a jar is refused by the jar's name, with exit code 69."""
    bundle = tmp_path / "bundle.tar"
    assert clusterkit_cli("cluster", "fetch", "--to", str(bundle)).returncode == 0
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    done = clusterkit_cli("cluster", "fetch", "--from", str(bundle), env={"CLUSTERKIT_CACHE_DIR": str(cache)})
    assert done.returncode == 69
    assert ".jar was refused" in done.stderr
    assert jars.unfit(LOCK, cache) == tuple(LOCK.by_file_name)
