"""pip, as the user has configured it: its index, mirrors, certificates and folders of wheels are honoured."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterkit import processes
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RESOLVE_S = 1800.0
_INSTALL_S = 3600.0
_LINE = 240
_BUILDING = r"(?:Failed building wheel for|Failed to build) '?([A-Za-z0-9][\w.-]*)"
_SAID = re.compile(
    r"^\s*(?:ERROR|error|\u00d7|hint|note):?\s*(.*)$"
    r"|^\s+(\S+(?: @ \S+)? from \S.*|Expected sha256 .*|Got .*)$"  # the package whose hash is another one
)


def report(python: Path, arguments: Sequence[str], *, cwd: Path, what: str, cache_dir: Path) -> list[dict[str, Any]]:
    """Return what pip would install, as its installation report tells it.

    Parameters
    ----------
    python : Path
        The Python it would be installed for.
    arguments : sequence of str
        Requirements, and options such as `-r FILE`.
    cwd : Path
        Where relative paths start from.
    what : str
        What cannot be done if it fails, for the message.
    cache_dir : Path
        Where a pip is put if there is none.

    Raises
    ------
    ImageError
        If pip finds no solution.

    References
    ----------
    pip documentation, "Installation Report", version 1.
    """
    with tempfile.TemporaryDirectory(prefix="clusterkit-pip-") as scratch:
        path = Path(scratch, "report.json")
        options = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(path)]
        done = _run(python, [*options, *arguments], cwd=cwd, timeout_s=_RESOLVE_S, cache_dir=cache_dir)
        if done.exit_code != 0:
            raise failure(done, what)
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["install"]
        return found


def install(python: Path, arguments: Sequence[str], *, what: str, cache_dir: Path) -> None:
    """Install into the environment that a Python belongs to.

    Raises
    ------
    ImageError
        If pip refuses or fails.
    """
    options = ["install", "--quiet", "--no-deps", *arguments]
    done = _run(python, options, cwd=None, timeout_s=_INSTALL_S, cache_dir=cache_dir)
    if done.exit_code != 0:
        raise failure(done, what)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that pip runs with: the user's, but for those that say where to install, or what is there.

    A `PYTHONPATH` would make pip take packages for installed that are not in the environment.
    """
    elsewhere = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_REPORT"}
    kept = {name: value for name, value in variables.items() if name not in elsewhere}
    return kept | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def failure(done: processes.Completed, what: str) -> ImageError:
    """Return what pip said, as an error with a cure."""
    text = f"{done.stdout}\n{done.stderr}"
    for pattern, mend in _CURES.items():
        match = re.search(pattern, text)
        if match:
            return ImageError(what, why=_why(text), mend=mend.format(*match.groups()))
    return ImageError(what, why=_why(text), mend="run the same with pip to see more: `pip install ...`")


_CURES: dict[str, str] = {
    _BUILDING: (
        "there is no wheel of {0} for this Python and platform, and building it failed: name a version that has one, "
        "install a compiler and its headers, or put a wheel of it into a folder that pip's `find-links` names"
    ),
    r"DO NOT MATCH THE HASHES|Hashes are required": (
        "the package is not the one that was locked: lock again with `clusterkit env lock`, or ask who serves the "
        "index why the file changed"
    ),
    r"ResolutionImpossible|conflicting dependencies": "loosen one of the requirements that are named, and lock again",
    r"ConnectionError|Max retries|ProxyError|SSLError|CERTIFICATE_VERIFY|timed out|Temporary failure": (
        "pip cannot reach its index: check `pip config list` (index-url, proxy, cert), or give it a folder of wheels "
        "with `find-links`"
    ),
    r"No matching distribution found for (\S+)": (
        "check the name and the version of {0}, and that the index pip is configured with has it for this Python "
        "(`pip config list`, `pip index versions`)"
    ),
    r"no such option: --python": "the pip beside clusterkit is older than 22.3: `pip install --upgrade pip`",
    r"No space left on device": "free some room, or move the directory with the setting cache_dir",
}


def _why(text: str) -> str:
    """Return what pip's own error lines say, each once."""
    matches = (match for line in text.splitlines() if (match := _SAID.match(line)))
    lines = [line for match in matches if (line := (match[1] or match[2] or "").strip())]
    shown = (line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in lines[:8])
    return "\n".join(dict.fromkeys(shown)) or "\n".join(text.strip().splitlines()[-4:]) or "pip said nothing"


def _run(
    python: Path, arguments: Sequence[str], *, cwd: Path | None, timeout_s: float, cache_dir: Path
) -> processes.Completed:
    argv = [*_pip(cache_dir), "--no-input", "--disable-pip-version-check", "--python", str(python), *arguments]
    try:
        return processes.run(argv, timeout_s=timeout_s, cwd=cwd, env=environment(os.environ))
    except TimeoutError as exc:
        raise ImageError(
            "pip did not come to an end", why=str(exc), mend="check that its index can be reached: `pip config list`"
        ) from exc


def _pip(cache_dir: Path) -> list[str]:
    """Return how pip is run: the one beside clusterkit, or one of our own where there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    tool = cache_dir / "tools" / f"pip-{sys.version_info[0]}.{sys.version_info[1]}"
    python = tool / "bin" / "python"
    if not (tool / "bin" / "pip").is_file():
        done = processes.run([sys.executable, "-m", "venv", "--clear", str(tool)], timeout_s=300)
        if done.exit_code != 0:
            raise ImageError(
                "wheels cannot be installed",
                why=f"pip is not installed beside clusterkit: {done.last_lines(3)}",
                mend=f"install it: `uv pip install --python {sys.executable} pip`",
            )
    return [str(python), "-m", "pip"]
