from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.errors import ClusterError, SettingsError
from clusterkit.hadoop.java import Java, find_java

NOWHERE = Path("/nonexistent/jvm")


def make_java(home: Path, version: str, *, release: bool = True) -> Path:
    """Make what looks like a Java home; without a release file its `java` answers for itself."""
    (home / "bin").mkdir(parents=True)
    if release:
        (home / "release").write_text(f'JAVA_VERSION="{version}"\nJAVA_RUNTIME_VERSION="{version}+6-Debian"\n')
    executable = home / "bin" / "java"
    executable.write_text(
        f"#!/bin/sh\nprintf 'Property settings:\\n    java.home = {home}\\n"
        f"    java.runtime.version = {version}+9\\n    java.version = {version}\\n\\n' >&2\n"
    )
    executable.chmod(0o755)
    return home


def test_java_home_comes_before_path_and_what_is_installed(tmp_path):
    """JAVA_HOME is taken first when it is supported."""
    named = make_java(tmp_path / "named", "21.0.2")
    make_java(tmp_path / "jvm" / "a", "17.0.15")
    found = find_java(None, {"JAVA_HOME": str(named), "PATH": ""}, installed=tmp_path / "jvm")
    assert found == Java(named, "21.0.2", "21.0.2+6-Debian")


def test_an_unsupported_java_home_is_passed_over(tmp_path):
    """An unsupported JAVA_HOME and an unsupported java on PATH give way to a supported installed one."""
    old = make_java(tmp_path / "old", "1.8.0_402")
    new = make_java(tmp_path / "new", "25.0.3")
    good = make_java(tmp_path / "jvm" / "java-17", "17.0.15")
    environ = {"JAVA_HOME": str(old), "PATH": f"{new}/bin"}
    assert find_java(None, environ, installed=tmp_path / "jvm").home == good


def test_path_is_followed_through_links(tmp_path):
    """A java on PATH that is a link, as Debian's alternatives make it, leads to its true home."""
    home = make_java(tmp_path / "jvm with spaces" / "java-21", "21.0.2")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    assert find_java(None, {"PATH": f":{tmp_path}/bin"}, installed=NOWHERE).home == home


def test_a_wrapper_on_path_is_asked_for_its_home(tmp_path):
    """A java on PATH that is a script elsewhere tells its home itself."""
    home = make_java(tmp_path / "real", "17.0.9", release=False)
    (tmp_path / "shims").mkdir()
    shim = tmp_path / "shims" / "java"
    shim.write_text(f'#!/bin/sh\nexec {home}/bin/java "$@"\n')
    shim.chmod(0o755)
    found = find_java(None, {"PATH": str(tmp_path / "shims")}, installed=NOWHERE)
    assert found == Java(home, "17.0.9", "17.0.9+9")


def test_the_setting_is_final(tmp_path):
    """An unsupported Java in the setting is refused by name although another is installed."""
    named = make_java(tmp_path / "named", "25.0.3")
    make_java(tmp_path / "jvm" / "java-17", "17.0.15")
    with pytest.raises(SettingsError) as caught:
        find_java(named, {}, installed=tmp_path / "jvm")
    assert caught.value.what == "Java 25 cannot be used"
    assert caught.value.why == (
        f"the setting java_home names Java 25.0.3 at {named}; Hadoop and Spark run on Java 17 and 21 only"
    )
    assert caught.value.key == "java_home"


def test_the_setting_may_name_no_java(tmp_path):
    """A setting that names no Java home is refused with the path."""
    with pytest.raises(SettingsError, match=f"there is no Java at {tmp_path}"):
        find_java(tmp_path, {})


def test_nothing_supported_names_each_java(tmp_path):
    """Every Java that was found is named with its version, once, and the way to install one is given."""
    old = make_java(tmp_path / "old", "11.0.22")
    new = make_java(tmp_path / "jvm" / "java-25", "25.0.3")
    with pytest.raises(ClusterError) as caught:
        find_java(None, {"JAVA_HOME": str(old), "PATH": f"{old}/bin"}, installed=tmp_path / "jvm")
    assert caught.value.what == "no Java 17 or 21 was found"
    assert caught.value.why == (
        f"there is only Java 11.0.22 at {old} (JAVA_HOME), Java 25.0.3 at {new} ({tmp_path}/jvm)"
    )
    assert "sudo apt-get install openjdk-17-jdk-headless" in caught.value.mend
    assert len(str(caught.value).splitlines()) == 3


def test_no_java_at_all_is_said(tmp_path):
    """With no Java anywhere the places that were looked at are named."""
    with pytest.raises(ClusterError, match=f"JAVA_HOME, PATH and {tmp_path} name no Java at all"):
        find_java(None, {"JAVA_HOME": "/nonexistent"}, installed=tmp_path)


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("21", 21), ("1.8.0_402", 8), ("25-ea", 25), ("?", 0)])
def test_major(version, major):
    """The major version is the number people use, from Java 8 on."""
    assert Java(NOWHERE, version, version).major == major
