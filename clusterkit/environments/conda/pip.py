"""What the list `pip:` of an environment.yml asks for: resolved and installed by the pip of that environment."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from clusterkit import processes
from clusterkit.environments.lock import LockedPackage
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterkit.environments.conda.request import Request

_TIMEOUT_S = 1800.0
_NOT_FOR_US = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"}
_OPTIONS = ("--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--root-user-action=ignore")
_NO_MATCH = re.compile(r"No matching distribution found for ([^\s;(]+)")
_WRONG_HASH = re.compile(r"DO NOT MATCH THE HASHES.*?\n\s+([\w.-]+)", re.DOTALL)


def resolve(prefix: Path, asked: Request) -> tuple[LockedPackage, ...]:
    """Return what pip would install into a prefix, each file with its digest.

    Raises
    ------
    ImageError
        If pip finds no set of packages, or a package has no digest (one from version control).
    """
    with tempfile.TemporaryDirectory(prefix="clusterkit-pip-") as scratch:
        report = Path(scratch, "report.json")
        _pip(prefix, asked.pip, ("--dry-run", "--report", str(report)), asked.places)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return tuple(sorted((_locked(entry) for entry in found), key=lambda package: package.name))


def install(prefix: Path, packages: Sequence[LockedPackage]) -> None:
    """Install exactly these packages into a prefix; pip checks their digests.

    They are looked for in pip's index first, whichever that is by now, and then where they were when they were locked.

    Raises
    ------
    ImageError
        If a package is gone, or its bytes are not those of the lock.
    """
    by_name, by_url = (
        [f"{line} --hash=sha256:{package.sha256}" for package, line in _requirements(packages, by_name=named)]
        for named in (True, False)
    )
    options = ("--no-deps", "--require-hashes", "--no-compile")
    try:
        _pip(prefix, by_name, options, {})
    except ImageError:
        if by_url == by_name:
            raise
        _pip(prefix, by_url, options, {})


def _locked(entry: Mapping[str, Any]) -> LockedPackage:
    found, described = entry["download_info"], entry["metadata"]
    name = re.sub(r"[-_.]+", "-", described["name"]).lower()
    digest = found.get("archive_info", {}).get("hashes", {}).get("sha256", "")
    if not digest:
        raise ImageError(
            f"{name} cannot be locked",
            why=f"{found['url']} is a working tree, which has no digest",
            mend=f"build a wheel of {name} and name the file, or name its folder in the environment's `local`",
        )
    file = urlsplit(found["url"]).path.rpartition("/")[2]
    tags = file.removesuffix(".whl").split("-", 2)[2] if file.endswith(".whl") and file.count("-") >= 4 else "sdist"
    url = f"{found['url']}#sha256={digest}" if entry.get("is_direct") else _without_user(found["url"])
    return LockedPackage(name=name, version=described["version"], kind="wheel", build=tags, sha256=digest, url=url)


def _requirements(packages: Sequence[LockedPackage], *, by_name: bool) -> Iterator[tuple[LockedPackage, str]]:
    """Yield each package with how pip finds it again; one that was asked for by its URL has no other name."""
    for package in packages:
        named = not package.url or (by_name and "#sha256=" not in package.url)
        yield package, f"{package.name}=={package.version}" if named else f"{package.name} @ {package.url}"


def _pip(prefix: Path, lines: Sequence[str], options: Sequence[str], places: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="clusterkit-pip-") as scratch:
        file = Path(scratch, "requirements.txt")
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        python = str(prefix / "bin" / "python")
        argv = [python, "-m", "pip", "install", *_OPTIONS, *options, "-r", str(file)]
        done = processes.run(argv, timeout_s=_TIMEOUT_S, env=_environment(prefix))
    if done.exit_code:
        raise _failed(done, lines, places)


def _environment(prefix: Path) -> dict[str, str]:
    """Return our own surroundings (proxies, pip's settings) without what would make pip write elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_US}
    path = os.pathsep.join((str(prefix / "bin"), kept.get("PATH", os.defpath)))
    return kept | {
        "PATH": path,
        "CONDA_PREFIX": str(prefix),
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _failed(done: processes.Completed, lines: Sequence[str], places: Mapping[str, str]) -> ImageError:
    text = done.stderr + done.stdout
    wrong, missing = _WRONG_HASH.search(text), _NO_MATCH.search(text)
    if wrong:
        return ImageError(
            f"{wrong[1]} is not the package that was locked",
            why="the file that pip found has other bytes than the lock names",
            mend="lock the environment anew with `clusterkit env lock` if that is what you want",
        )
    if "No module named pip" in text:
        return ImageError(
            "the list `pip:` cannot be installed",
            why="the environment has no pip",
            mend="add `pip` to its dependencies",
        )
    named = missing[1] if missing else ""
    place = next((places[line] for line in lines if named and line.startswith(named) and line in places), "")
    shown = [line for line in text.splitlines() if line.startswith("ERROR")] or text.strip().splitlines()[-5:]
    return ImageError(
        f"pip did not find {named}" if named else "pip did not install what `pip:` names",
        why="\n".join(line.removeprefix("ERROR: ") for line in shown) + (f" ({place})" if place else ""),
        mend="correct the list `pip:` of the environment.yml, or pip's index (PIP_INDEX_URL, pip.conf)",
    )


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
