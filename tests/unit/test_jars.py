from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest

from clusterkit.embedded import bundle, download, jars
from clusterkit.embedded.jar_lock import Jar, JarLock
from clusterkit.embedded.jars import Progress
from clusterkit.errors import ClusterError
from clusterkit.hadoop.java import Java

JAVA = Java(Path("/nonexistent/java"), "17.0.15", "17.0.15+6")
CONTENTS = {
    "org.one:alpha:1.0": b"alpha" * 100,
    "org.one:beta:2.0:linux-x86_64": b"beta",
    "org.two:gamma:3.1": b"",
}
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin"
MAVEN = """#!/bin/sh
'''exec' "{python}" -I "$0" "$@"  # a path with spaces fits into no first line
' '''
import pathlib, re, sys
home = pathlib.Path({home!r})
home.joinpath("runs").open("a").write("run\\n")
if home.joinpath("says").exists():
    sys.exit(print(home.joinpath("says").read_text()) or 1)
assert sys.argv[1:] == ["-B", {plugin!r} + ":copy", "-DoutputDirectory=lib"], sys.argv
for group, artifact, version, classifier in re.findall(
    "<artifactItem><groupId>(.*?)</groupId><artifactId>(.*?)</artifactId>"
    "<version>(.*?)</version><classifier>(.*?)</classifier></artifactItem>",
    pathlib.Path("pom.xml").read_text(),
):
    name = "-".join(filter(None, (artifact, version, classifier))) + ".jar"
    if home.joinpath(name).exists():
        pathlib.Path("lib", name).write_bytes(home.joinpath(name).read_bytes())
        print(f"Downloaded from central: https://repository.invalid/maven/{{group}}/{{name}} (1.2 kB at 9 kB/s)")
"""


def lock_of(contents: dict[str, bytes]) -> JarLock:
    rows = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in contents.items()]
    return JarLock.from_text("9.9", "# a comment\n" + "".join(rows))


LOCK = lock_of(CONTENTS)
ALPHA, BETA, GAMMA = LOCK.jars


class FakeMaven:
    """A repository with an `mvn` before it that understands the one command we give."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        executable = home / "mvn"
        executable.write_text(MAVEN.format(python=sys.executable, home=str(home), plugin=PLUGIN))
        executable.chmod(0o755)
        for jar, data in zip(LOCK.jars, CONTENTS.values(), strict=True):
            (home / jar.file_name).write_bytes(data)

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which this is the only tool."""
        return {"PATH": str(self.home)}

    @property
    def runs(self) -> int:
        """How often it was started."""
        runs = self.home / "runs"
        return len(runs.read_text().splitlines()) if runs.exists() else 0


@pytest.fixture
def maven(tmp_path):
    return FakeMaven(tmp_path / "maven home")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache é (x) [y]"


@pytest.fixture
def lib(maven, cache):
    return jars.fetch(LOCK, cache, JAVA, environ=maven.environ)


def contents_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


EXPECTED = {
    "alpha-1.0.jar": b"alpha" * 100,
    "beta-2.0-linux-x86_64.jar": b"beta",
    "gamma-3.1.jar": b"",
}


class TestLock:
    """The lock the package carries, and locks in general."""

    def test_the_packaged_lock_is_complete(self):
        """The package carries 184 jars with distinct file names, whole digests, and no address."""
        lock = JarLock.load()
        assert (len(lock.jars), len(lock.by_file_name), lock.size_bytes) == (184, 184, 102_660_780)
        assert {len(jar.sha256) for jar in lock.jars} == {64}
        assert "hadoop-yarn-server-resourcemanager-3.5.0.jar" in lock.by_file_name
        assert "://" not in lock.text

    def test_coordinates_make_names(self):
        """A jar is named and placed as Maven does it, with its classifier."""
        jar = Jar("io.netty:netty-epoll:4.1:linux-x86_64", 1, "00")
        assert (jar.group, jar.artifact, jar.version, jar.classifier) == (
            *("io.netty", "netty-epoll", "4.1"),
            "linux-x86_64",
        )
        assert jar.repository_path == "io/netty/netty-epoll/4.1/netty-epoll-4.1-linux-x86_64.jar"

    def test_the_digest_is_of_the_jars(self):
        """A comment does not change the digest of a lock, a jar does."""
        same = JarLock.from_text("9.9", LOCK.text + "# more\n")
        other = lock_of(CONTENTS | {"org.two:gamma:3.1": b"x"})
        assert (same.digest == LOCK.digest, other.digest == LOCK.digest) == (True, False)


class TestFetch:
    """Fetching into the cache."""

    def test_exactly_the_locked_jars_arrive(self, lib, cache):
        """A fetch leaves the locked jars and nothing else, where `directory` says."""
        assert lib == jars.directory(LOCK, cache)
        assert contents_of(lib) == EXPECTED
        assert jars.unfit(LOCK, cache) == ()
        assert sorted(path.name for path in lib.parent.iterdir()) == [".lock", "lib"]

    def test_a_second_fetch_starts_nothing(self, lib, maven, cache):
        """When all is there no tool runs."""
        assert jars.fetch(LOCK, cache, JAVA, environ={"PATH": ""}) == lib
        assert maven.runs == 1

    def test_progress_counts_jars_and_bytes(self, maven, cache):
        """Each arriving jar is reported, and the whole at the end."""
        seen = []
        jars.fetch(LOCK, cache, JAVA, seen.append, environ=maven.environ)
        assert seen == [Progress(1, 3, 500, 504), Progress(2, 3, 504, 504), *[Progress(3, 3, 504, 504)] * 2]

    def test_a_wrong_jar_is_refused_by_name(self, maven, cache):
        """A jar with another hash is named with both hashes, and nothing of the fetch stays."""
        (maven.home / BETA.file_name).write_bytes(b"evil")
        with pytest.raises(ClusterError) as caught:
            jars.fetch(LOCK, cache, JAVA, environ=maven.environ)
        evil = hashlib.sha256(b"evil").hexdigest()
        assert caught.value.what == "beta-2.0-linux-x86_64.jar was refused"
        assert caught.value.why == (
            f"Maven ({maven.home}/mvn) brought 4 bytes with sha256 {evil}; locked are 4 bytes with sha256 {BETA.sha256}"
        )
        assert "org/one/beta/2.0/beta-2.0-linux-x86_64.jar" in caught.value.mend
        assert jars.unfit(LOCK, cache) == tuple(EXPECTED)
        assert [path.name for path in jars.directory(LOCK, cache).parent.iterdir()] == [".lock"]

    def test_a_missing_jar_is_named(self, maven, cache):
        """A jar that the tool did not bring, though it ended well, is named."""
        (maven.home / GAMMA.file_name).unlink()
        with pytest.raises(ClusterError) as caught:
            jars.fetch(LOCK, cache, JAVA, environ=maven.environ)
        assert caught.value.what == "gamma-3.1.jar was not fetched"
        assert "org.two:gamma:3.1" in caught.value.why

    def test_a_changed_jar_comes_anew(self, lib, maven, cache):
        """A jar that was changed in the cache is seen, and it alone is fetched again."""
        (lib / ALPHA.file_name).write_bytes(b"omega" * 100)
        assert jars.unfit(LOCK, cache) == (ALPHA.file_name,)
        seen = []
        jars.fetch(LOCK, cache, JAVA, seen.append, environ=maven.environ)
        assert contents_of(lib) == EXPECTED
        assert seen[-1] == Progress(1, 1, 500, 500)

    def test_a_touched_jar_is_hashed_not_fetched(self, lib, cache):
        """A jar with only another time is hashed and kept."""
        os.utime(lib / ALPHA.file_name)
        assert jars.unfit(LOCK, cache) == (ALPHA.file_name,)
        jars.fetch(LOCK, cache, JAVA, environ={"PATH": ""})
        assert jars.unfit(LOCK, cache) == ()

    def test_a_foreign_file_goes(self, lib, cache):
        """Whatever is not locked leaves the directory, a directory too."""
        (lib / "extra.jar").write_bytes(b"x")
        (lib / "more").mkdir()
        assert jars.unfit(LOCK, cache) == ("extra.jar", "more")
        jars.fetch(LOCK, cache, JAVA, environ={"PATH": ""})
        assert contents_of(lib) == EXPECTED

    def test_what_a_killed_fetch_left_goes(self, maven, cache):
        """The scratch directory of a killed fetch is removed by the next."""
        home = jars.directory(LOCK, cache).parent
        (home / "staging-old").mkdir(parents=True)
        jars.fetch(LOCK, cache, JAVA, environ=maven.environ)
        assert sorted(path.name for path in home.iterdir()) == [".lock", "lib"]

    def test_two_at_once_fetch_once(self, maven, cache):
        """Of two fetches at the same time one works and the other waits for it."""
        call = {"target": jars.fetch, "args": (LOCK, cache, JAVA), "kwargs": {"environ": maven.environ}}
        both = [threading.Thread(**call), threading.Thread(**call)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(30)
        assert (contents_of(jars.directory(LOCK, cache)), maven.runs) == (EXPECTED, 1)

    def test_a_failing_tool_is_quoted(self, maven, cache):
        """The tool is named, its telling lines are quoted without the boilerplate, and the way by bundle is given."""
        (maven.home / "says").write_text(
            "[INFO] Scanning\n[ERROR] Could not transfer artifact org.one:alpha: Connection refused -> [Help 1]\n"
            "[ERROR] Failed: Unknown host repository.invalid\n[ERROR] \n"
            "[ERROR] Re-run Maven using the -X switch\n[ERROR] For more information, read\n"
        )
        with pytest.raises(ClusterError) as caught:
            jars.fetch(LOCK, cache, JAVA, environ=maven.environ)
        assert caught.value.what == "the jars of Hadoop were not fetched"
        assert caught.value.why == (
            f"Maven ({maven.home}/mvn) failed: Could not transfer artifact org.one:alpha: Connection refused\n"
            "Failed: Unknown host repository.invalid"
        )
        assert "clusterkit cluster fetch --from bundle.tar" in caught.value.mend

    def test_a_silent_tool_is_given_up(self, maven, cache, monkeypatch):
        """A tool that says nothing for too long is ended and named."""
        monkeypatch.setattr(download, "SILENCE_S", 0.3)
        (maven.home / "mvn").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
        with pytest.raises(ClusterError, match="were not fetched") as caught:
            jars.fetch(LOCK, cache, JAVA, environ=maven.environ)
        assert caught.value.why == f"Maven ({maven.home}/mvn) was silent for 0.3 s and was ended"


class TestTools:
    """Which tool is used and what it is told."""

    def test_neither_tool(self, monkeypatch, tmp_path):
        """Without Maven and without pyspark the ways to go on are given."""
        monkeypatch.setattr(download, "pyspark_jars", lambda: tmp_path)
        with pytest.raises(ClusterError) as caught:
            download.find_tool(JAVA, {"PATH": ""})
        assert "pip install 'clusterkit[spark]'" in caught.value.mend

    def test_ivy_is_found_without_importing_pyspark(self):
        """Without Maven the Ivy jar of the installed pyspark is taken; pyspark is not imported."""
        code = (
            "import sys; from pathlib import Path; from clusterkit.embedded import download as d;"
            "from clusterkit.hadoop.java import Java; t = d.find_tool(Java(Path('/j'), '17', '17'), {'PATH': ''});"
            "print(t.jar.name[:4], t.executable, t.settings, 'pyspark' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "ivy- /j/bin/java None False\n"

    def test_the_users_ivy_settings_count(self, tmp_path):
        """A settings file of the user replaces ours."""
        settings = tmp_path / ".ivy2" / "ivysettings.xml"
        settings.parent.mkdir()
        settings.write_text("<ivysettings/>")
        tool = download.find_tool(JAVA, {"PATH": "", "HOME": str(tmp_path)})
        argv = tool.commands(LOCK.jars, tmp_path)[0]
        assert argv[argv.index("-settings") + 1] == str(settings)

    def test_ivy_gets_each_artifact_once(self, tmp_path):
        """The work is shared among processes; a module lists its artifacts and follows no dependency."""
        ivy = download.Ivy(Path("/j/bin/java"), Path("/s/ivy.jar"), None)
        commands = ivy.commands(LOCK.jars, tmp_path)
        assert [shlex.join(argv).partition("-ivy ")[2].partition(" ")[0] for argv in commands] == [
            "ivy-0.xml",
            "ivy-1.xml",
            "ivy-2.xml",
        ]
        assert (tmp_path / "ivy-1.xml").read_text() == (
            '<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">'
            '<info organisation="clusterkit" module="jars-1" revision="1"/>'
            '<configurations><conf name="default"/></configurations><dependencies>'
            '<dependency org="org.one" name="beta" rev="2.0" transitive="false" conf="default->*">'
            '<artifact name="beta" type="jar" ext="jar" m:classifier="linux-x86_64"/></dependency>'
            "</dependencies></ivy-module>"
        )

    def test_ivy_lines_are_progress(self):
        """What Ivy writes for an artifact is understood as its arrival."""
        line = "downloading https://repository.invalid/m/org/one/alpha/1.0/alpha-1.0.jar ..."
        assert download._ARRIVED.search(line)[1] == "alpha-1.0.jar"


class TestBundle:
    """Bundles: written, read, refused."""

    @pytest.fixture
    def tar(self, lib, cache, tmp_path):
        """Return a bundle of the three jars."""
        path = tmp_path / "the bundle.tar"
        bundle.bundle_to(LOCK, cache, path)
        return path

    @pytest.fixture
    def other_cache(self, tmp_path):
        """Return a cache that nothing was fetched into."""
        return tmp_path / "other"

    def rewrite(self, tar: Path, change) -> None:
        """Write a tar anew with its members changed by a function on the list of (info, data)."""
        with tarfile.open(tar) as old:
            members = [(info, old.extractfile(info).read()) for info in old]
        change(members)
        with tarfile.open(tar, "w") as new:
            for info, data in members:
                new.addfile(info, BytesIO(data))

    def refusal(self, tar: Path, other_cache: Path) -> str:
        """Return why a bundle was refused, having seen that nothing stays in the cache."""
        with pytest.raises(ClusterError) as caught:
            bundle.bundle_from(LOCK, other_cache, tar)
        assert sorted(path.name for path in jars.directory(LOCK, other_cache).parent.iterdir()) == [".lock"]
        return caught.value.why

    def test_round_trip(self, tar, other_cache):
        """A bundle fills another cache, and reports each jar."""
        seen = []
        lib = bundle.bundle_from(LOCK, other_cache, tar, seen.append)
        assert (contents_of(lib), jars.unfit(LOCK, other_cache)) == (EXPECTED, ())
        assert seen == [Progress(1, 3, 500, 504), Progress(2, 3, 504, 504), Progress(3, 3, 504, 504)]

    def test_the_same_bytes_again(self, tar, cache, tmp_path):
        """The same lock gives the same tar, and no scratch file stays beside it."""
        bundle.bundle_to(LOCK, cache, tmp_path / "again.tar")
        assert (tmp_path / "again.tar").read_bytes() == tar.read_bytes()
        assert list(tmp_path.glob(".*")) == []

    def test_an_incomplete_cache_makes_no_bundle(self, lib, cache, tmp_path):
        """A missing jar is named, and no file appears."""
        (lib / ALPHA.file_name).unlink()
        with pytest.raises(ClusterError, match="bundle was not written") as caught:
            bundle.bundle_to(LOCK, cache, tmp_path / "b.tar")
        assert caught.value.why == "alpha-1.0.jar in the cache is missing"
        assert not (tmp_path / "b.tar").exists()

    def test_a_tampered_jar(self, tar, other_cache):
        """A jar with other bytes of the same size is refused by name with both hashes."""
        self.rewrite(tar, lambda members: members.__setitem__(2, (members[2][0], b"evil")))
        with pytest.raises(ClusterError) as caught:
            bundle.bundle_from(LOCK, other_cache, tar)
        assert caught.value.what == "beta-2.0-linux-x86_64.jar was refused"
        assert hashlib.sha256(b"evil").hexdigest() in caught.value.why

    @pytest.mark.parametrize("name", ["lib/extra.jar", "../lib/alpha-1.0.jar", "/etc/passwd", "lib/alpha-1.0.jar"])
    def test_a_foreign_member(self, tar, other_cache, name):
        """A member that is not locked, leads elsewhere, or comes twice is refused by name."""
        self.rewrite(tar, lambda members: members.append((tarfile.TarInfo(name), b"")))
        assert self.refusal(tar, other_cache) == f"it holds {name!r}, which no bundle does, or holds it twice"

    def test_a_link_in_place_of_a_jar(self, tar, other_cache):
        """A symbolic link under a jar's name is refused."""
        link = tarfile.TarInfo("lib/alpha-1.0.jar")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        self.rewrite(tar, lambda members: members.__setitem__(1, (link, b"")))
        assert "lib/alpha-1.0.jar" in self.refusal(tar, other_cache)

    def test_a_jar_of_another_size(self, tar, other_cache):
        """A jar of another size is refused before it is unpacked."""

        def grow(members):
            members[2][0].size = 5
            members[2] = (members[2][0], b"betaa")

        self.rewrite(tar, grow)
        assert self.refusal(tar, other_cache) == "beta-2.0-linux-x86_64.jar in it has 5 bytes, locked are 4"

    def test_a_missing_jar(self, tar, other_cache):
        """A bundle that lacks a jar is refused with its name."""
        self.rewrite(tar, lambda members: members.pop())
        assert self.refusal(tar, other_cache) == "it lacks gamma-3.1.jar"

    def test_another_lock(self, tar, other_cache):
        """A bundle made for other jars is refused."""

        def relabel(members):
            text = members[0][1].replace(b"gamma", b"delta")
            members[0] = (members[0][0], text)

        self.rewrite(tar, relabel)
        assert "other jars" in self.refusal(tar, other_cache)

    def test_no_bundle_at_all(self, tmp_path, other_cache):
        """A tar of something else, and a file that is no tar, are refused."""
        other = tmp_path / "other.tar"
        with tarfile.open(other, "w") as tar:
            tar.addfile(tarfile.TarInfo("README"))
        assert "does not begin with hadoop-9.9.lock" in self.refusal(other, other_cache)
        other.write_bytes(b"hello")
        assert "cannot be read as a tar" in self.refusal(other, other_cache)

    def test_a_cut_bundle(self, tar, other_cache):
        """A bundle that was cut off is refused."""
        tar.write_bytes(tar.read_bytes()[:1700])
        assert self.refusal(tar, other_cache)

    def test_a_path_that_is_not_there(self, tmp_path, other_cache):
        """A missing file is an error about the path."""
        with pytest.raises(ClusterError) as caught:
            bundle.bundle_from(LOCK, other_cache, tmp_path / "none.tar")
        assert caught.value.why == f"No such file or directory: {tmp_path}/none.tar"
