"""A Java runtime as files, for nodes whose own Java is too old."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clusterkit.environments.tree import File
from clusterkit.errors import ImageError

PACKAGE = "java"
"""The owner of each of its files: what tells them from those of the environment."""

_LEFT_OUT = re.compile(r"(src\.zip|jmods|demo|sample|man|docs|include|legal|.*\.diz|.*\.debuginfo|ct\.sym)")


def files(home: Path) -> tuple[File, ...]:
    """Return what of a JDK or JRE runs, links followed, at the places it has below its home.

    Sources, modules to link runtimes from, headers, demos and manuals are left out.

    Parameters
    ----------
    home : Path
        JAVA_HOME: it holds `bin/java`, and `release` for most vendors.

    Raises
    ------
    ImageError
        If no Java is there.
    """
    if not (home / "bin" / "java").is_file():
        raise ImageError(
            f"the Java in {home} cannot be packed",
            why="there is no bin/java in it",
            mend="name the home of a JDK or JRE with the setting java_home",
        )
    return tuple(sorted(_walk(home, ""), key=lambda file: file.path))


def version(home: Path) -> str:
    """Return the version of a JDK or JRE as its `release` file gives it, `17.0.15`; empty where it does not."""
    try:
        text = (home / "release").read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r'^JAVA_VERSION="([^"]*)"', text, re.MULTILINE)
    return match[1] if match else ""


def _walk(directory: Path, below: str, above: tuple[str, ...] = ()) -> list[File]:
    """Return the files of a directory; one that is a link into its own parents is passed over."""
    real = os.path.realpath(directory)
    if real in above:
        return []
    found: list[File] = []
    for entry in os.scandir(directory):
        if _LEFT_OUT.fullmatch(entry.name):
            continue
        if entry.is_dir():
            found += _walk(Path(entry.path), f"{below}{entry.name}/", (*above, real))
        elif entry.is_file():
            status = entry.stat()
            mode = 0o755 if status.st_mode & 0o111 else 0o644
            found.append(
                File(f"{below}{entry.name}", Path(os.path.realpath(entry.path)), mode, status.st_size, PACKAGE)
            )
    return found
