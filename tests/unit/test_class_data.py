from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clusterkit.embedded import class_data, class_data_builder
from clusterkit.hadoop.java import Java

JAVA = """#!/bin/sh
'''exec' "{python}" -I "$0" "$@"  # a path with spaces fits into no first line
' '''
import pathlib, sys, time
home = pathlib.Path({home!r})
options = dict(word.split("=", 1) if "=" in word else (word, None) for word in sys.argv[1:])
with home.joinpath("calls").open("a") as calls:
    calls.write(" ".join(word for word in sys.argv[1:] if not word.startswith("-Xlog")) + "\\n")
if "-Xshare:dump" in options:
    if home.joinpath("hangs").exists():
        time.sleep(60)
    lines = pathlib.Path(options["-XX:SharedClassListFile"]).read_text().splitlines()
    if home.joinpath("old").exists() and any(line.startswith("@") for line in lines):
        sys.exit(print("class list format error.") or 1)
    pathlib.Path(options["-XX:SharedArchiveFile"]).write_text(f"{{len(lines)}} lines")
    if home.joinpath("leaves out").exists():
        print(*(f"[1s][warning][cds] Skipping {{line}}: Unsupported location" for line in lines), sep="\\n")
elif home.joinpath("refuses").exists():
    sys.exit(print("shared class paths mismatch", file=sys.stderr) or 1)
"""


@pytest.fixture
def java(tmp_path):
    """Return a Java whose `java` dumps and maps archives as told by files in its home."""
    home = tmp_path / "java home"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "lib" / "modules").write_bytes(b"modules")
    (home / "lib" / "classlist").write_text("# a comment\njava/lang/Object\nits/own/Class\n")
    executable = home / "bin" / "java"
    executable.write_text(JAVA.format(python=sys.executable, home=str(home)))
    executable.chmod(0o755)
    return Java(home, "17.0.15", "17.0.15+6")


@pytest.fixture
def lib(tmp_path):
    """Return a directory with two jars."""
    directory = tmp_path / "lib é"
    directory.mkdir()
    for name in ("a.jar", "b.jar"):
        (directory / name).write_bytes(name.encode())
        os.utime(directory / name, (1, 1))
    return directory


@pytest.fixture
def cache(tmp_path):
    """Return a cache directory; whatever builds in it is ended."""
    directory = tmp_path / "cache"
    yield directory
    class_data.stop_builders(directory)


@pytest.fixture
def archive(cache, java, lib):
    """Return the archive for Spark's JVMs, which was not begun."""
    return class_data.spark_archive(cache, java, lib)


@pytest.fixture
def begun(archive):
    """Return the same archive with its directory, as a builder finds it."""
    archive.directory.mkdir(parents=True)
    (archive.directory / "archive.json").write_text(json.dumps(archive.to_json()))
    return archive


def calls(java: Java) -> list[str]:
    return (java.home / "calls").read_text().splitlines()


class TestIdentity:
    """What an archive is named after."""

    def test_the_same_again(self, archive, cache, java, lib):
        """The same Java and jars have the same archive."""
        assert class_data.spark_archive(cache, java, lib) == archive

    def test_class_path_and_modules(self, archive, cache, java, lib):
        """The class path is that of the directory's jars; Spark's JVMs have one more module."""
        daemons = class_data.daemon_archive(cache, java, lib)
        assert (archive.class_path, archive.options) == (f"{lib}/*", ("--add-modules=jdk.incubator.vector",))
        assert (daemons.class_path, daemons.options) == (f"{lib}/*", ())
        assert daemons.directory.name.startswith("daemons-")

    @pytest.mark.parametrize(
        "change",
        [
            lambda java, lib: os.utime(lib / "a.jar", (2, 2)),
            lambda java, lib: (lib / "c.jar").write_bytes(b""),
            lambda java, lib: (java.home / "lib" / "modules").write_bytes(b"newer modules"),
        ],
        ids=["a touched jar", "one more jar", "a reinstalled Java"],
    )
    def test_what_a_jvm_compares(self, archive, cache, java, lib, change):
        """Whatever a JVM would refuse the archive for gives another archive."""
        change(java, lib)
        assert class_data.spark_archive(cache, java, lib).directory != archive.directory

    def test_another_build_and_another_path(self, archive, cache, java, lib, tmp_path):
        """Another build of Java, or the same jars by another path, has another archive."""
        link = tmp_path / "link"
        link.symlink_to(lib)
        others = {
            class_data.spark_archive(cache, Java(java.home, "17.0.16", "17.0.16+1"), lib).directory,
            class_data.spark_archive(cache, java, link).directory,
        }
        assert len(others - {archive.directory}) == 2

    def test_round_trip(self, begun):
        """An archive is read back from its directory."""
        assert class_data.Archive.from_json(begun.directory) == begun


class TestBuild:
    """What a builder does."""

    def test_absent(self, archive):
        """Without an archive a JVM gets no option, and nothing was written."""
        assert (archive.state, archive.ready, archive.jvm_options) == ("absent", False, ())
        assert not archive.directory.exists()

    def test_dumped_mapped_renamed(self, begun, java, lib):
        """The classes are dumped aside, a JVM has to map them, and then they are in their place."""
        assert class_data_builder.build(begun) is None
        scratch = calls(java)[0].partition("SharedArchiveFile=")[2].partition("/classes.jsa")[0]
        dumped, mapped = calls(java)
        assert dumped == (
            f"-Xshare:dump --add-modules=jdk.incubator.vector -XX:SharedClassListFile={scratch}/classes.lst "
            f"-XX:SharedArchiveFile={scratch}/classes.jsa -cp {lib}/*"
        )
        assert mapped == (
            "-Xshare:on -XX:+UnlockDiagnosticVMOptions -XX:ArchiveRelocationMode=0 "
            f"-XX:SharedArchiveFile={scratch}/classes.jsa --add-modules=jdk.incubator.vector "
            f"-cp {lib}/*:{begun.directory}/configuration.jar -version"
        )
        assert Path(scratch).parent == begun.directory
        assert sorted(path.name for path in begun.directory.iterdir()) == ["archive.json", "classes.jsa", "dump.log"]
        assert begun.jvm_options == (
            *("-Xlog:disable", "-Xlog:all=warning:stderr", "-XX:+UnlockDiagnosticVMOptions"),
            *("-XX:ArchiveRelocationMode=0", f"-XX:SharedArchiveFile={begun.path}"),
        )

    def test_the_javas_own_classes_too(self, begun):
        """The list holds what was recorded and what this Java lists itself, each line once and no comment."""
        lines = class_data_builder.recorded_classes(begun)
        assert "org/apache/spark/SparkConf" in lines
        assert [lines.count(line) for line in ("its/own/Class", "java/lang/Object", "# a comment")] == [1, 1, 0]

    def test_a_java_that_reads_no_lambdas(self, begun, java):
        """Where the lines about lambdas are not understood the classes are dumped without them."""
        (java.home / "old").touch()
        assert class_data_builder.build(begun) is None
        kept = [line for line in class_data_builder.recorded_classes(begun) if not line.startswith("@")]
        assert begun.path.read_text() == f"{len(kept)} lines"

    def test_a_jvm_that_refuses(self, begun, java):
        """An archive that a JVM does not map never gets to its place."""
        (java.home / "refuses").touch()
        assert class_data_builder.build(begun) == ("a JVM refused the new archive: shared class paths mismatch")
        assert not begun.ready

    def test_a_java_that_leaves_classes_out(self, begun, java, lib):
        """An archive without the classes of the class path, as Java 21 makes where it has a space, is of no use."""
        (java.home / "leaves out").touch()
        assert class_data_builder.build(begun) == (
            f"this Java leaves out all classes below {lib}: "
            "the path has a space, or another character that it does not read back"
        )
        assert not begun.ready

    def test_a_full_disk(self, begun, monkeypatch):
        """Without room nothing is begun, and the reason has both numbers."""
        monkeypatch.setattr(class_data_builder, "NEEDED_BYTES", 1 << 60)
        assert "a build needs 1048576 TiB" in class_data_builder.build(begun)

    def test_what_a_killed_build_left_goes(self, begun):
        """The scratch directory of a killed build is removed by the next."""
        (begun.directory / "building-old").mkdir()
        class_data_builder.build(begun)
        assert list(begun.directory.glob("building-*")) == []

    def test_only_a_few_stay(self, begun, cache):
        """Of older archives the newest two stay beside the new one; one of another kind stays as well."""
        for age in range(4):
            old = cache / "class-data" / f"spark-{age}"
            old.mkdir()
            (old / "archive.json").write_text(json.dumps(begun.to_json()))
            os.utime(old, (1000 - age, 1000 - age))
        other = cache / "class-data" / "daemons-0"
        other.mkdir()
        (other / "archive.json").write_text(json.dumps(begun.to_json() | {"kind": "daemons"}))
        class_data_builder.prune(begun)
        left = {path.name for path in (cache / "class-data").iterdir()}
        assert left == {begun.directory.name, "spark-0", "spark-1", "daemons-0"}


class TestBackground:
    """Building while nobody waits."""

    def test_ready_after_a_while(self, archive):
        """A builder is started, is found by its directory, and leaves the archive ready."""
        builder = archive.build_in_background()
        assert (archive.state, archive.builder) == ("building", builder)
        assert archive.wait(30)
        assert (archive.state, archive.failure) == ("present", None)
        assert archive.build_in_background() is None

    def test_one_builder(self, archive, java):
        """While one builds no second one is started."""
        (java.home / "hangs").touch()
        assert archive.build_in_background() == archive.build_in_background()

    def test_a_failure_is_told_and_not_repeated(self, archive, java):
        """Why a build failed is kept; another is started only after an hour."""
        (java.home / "refuses").touch()
        archive.build_in_background()
        assert not archive.wait(30)
        assert (archive.state, archive.failure) == (
            "failed",
            "a JVM refused the new archive: shared class paths mismatch",
        )
        assert archive.build_in_background() is None
        failure = archive.directory / "failure.json"
        failure.write_text(json.dumps(json.loads(failure.read_text()) | {"at": time.time() - 3601}))
        (java.home / "refuses").unlink()
        assert archive.build_in_background() is not None
        assert archive.wait(30)

    def test_stopped_without_a_trace(self, archive, cache, java):
        """Stopping ends the builder and its JVM, and half an archive does not stay."""
        (java.home / "hangs").touch()
        builder = archive.build_in_background()
        deadline = time.monotonic() + 30
        while not (java.home / "calls").exists():
            assert time.monotonic() < deadline, "the JVM was never started"
            time.sleep(0.02)
        family = psutil.Process(builder.pid).children(recursive=True)
        assert family
        assert class_data.stop_builders(cache) == (builder,)
        assert [process for process in family if process.is_running()] == []
        assert (archive.state, list(archive.directory.glob("building-*"))) == ("absent", [])


class TestMapped:
    """What a living process has mapped."""

    def test_started_without(self):
        """A process that was not told of an archive has none to map, and neither has one that is gone."""
        assert (class_data.maps_archive(os.getpid()), class_data.maps_archive(2**30)) == (None, None)

    @pytest.mark.parametrize("opened", [True, False])
    def test_told_and_mapped(self, tmp_path, opened):
        """Of a process that was told of an archive it counts whether the file is in its memory."""
        (tmp_path / "classes.jsa").write_bytes(b"x")
        code = (
            "import mmap, sys; file = open(sys.argv[1].partition('=')[2], 'r+b'); "
            "kept = mmap.mmap(file.fileno(), 0) if sys.argv[2] == 'True' else None; "
            "print(flush=True); sys.stdin.read()"
        )
        argv = [sys.executable, "-c", code, f"-XX:SharedArchiveFile={tmp_path}/classes.jsa", str(opened)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            assert class_data.maps_archive(process.pid) is opened
            process.stdin.close()
