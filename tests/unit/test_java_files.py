"""A Java runtime as files."""

from __future__ import annotations

import pytest

from clusterkit.environments import java
from clusterkit.errors import ImageError


@pytest.fixture
def home(tmp_path):
    """A JDK as Debian lays it out: its settings and certificates are links out of it."""
    root = tmp_path / "jdk"
    for name in (
        "bin/java",
        "lib/modules",
        "lib/src.zip",
        "jmods/java.base.jmod",
        "demo/x.jar",
        "man/java.1",
        "legal/x",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "bin/java").chmod(0o755)
    (root / "release").write_text('IMPLEMENTOR="Debian"\nJAVA_VERSION="17.0.15"\n')
    outside = tmp_path / "etc"
    (outside / "conf").mkdir(parents=True)
    (outside / "conf/net.properties").write_text("x")
    (outside / "cacerts").write_text("y")
    (root / "conf").symlink_to(outside / "conf")
    (root / "lib/cacerts").symlink_to(outside / "cacerts")
    (root / "lib/again").symlink_to(root)
    (root / "docs").symlink_to("/nowhere")
    return root


def test_only_what_runs_is_packed_and_links_are_followed(home, tmp_path):
    """No sources, jmods or demos; settings and certificates come as files; a link to its own parent ends nowhere."""
    assert [(file.path, file.mode) for file in java.files(home)] == [
        ("bin/java", 0o755),
        ("conf/net.properties", 0o644),
        ("lib/cacerts", 0o644),
        ("lib/modules", 0o644),
        ("release", 0o644),
    ]
    assert {file.path: file.source for file in java.files(home)}["lib/cacerts"] == tmp_path / "etc/cacerts"


def test_its_version_is_what_its_release_file_says(home, tmp_path):
    """Without that file it is not known."""
    assert (java.version(home), java.version(tmp_path)) == ("17.0.15", "")


def test_a_directory_without_java_is_refused(tmp_path):
    """The setting that names another one is told."""
    with pytest.raises(ImageError) as caught:
        java.files(tmp_path)
    assert caught.value.mend == "name the home of a JDK or JRE with the setting java_home"
