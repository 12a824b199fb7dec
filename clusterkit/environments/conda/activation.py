"""What `conda activate` would set: evaluated once here, so that no container has to run the scripts."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_TIMEOUT_S = 60.0
_OF_THE_SHELL = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "HOME", "TMPDIR", "PS1", "LC_ALL"}
_SCRIPT = 'for script in "$@"; do . "$script" >&2; done; exec env -0'
_PLACES = (
    ("SSL_CERT_FILE", "ssl/cacert.pem", ""),
    ("PROJ_DATA", "share/proj/proj.db", "share/proj"),
    ("GDAL_DATA", "share/gdal/gdalvrt.xsd", "share/gdal"),
)
"""A variable, the file that says it is needed, and the directory it names where that is not the file."""


def variables(prefix: Path, prefixes: Iterable[str]) -> dict[str, str]:
    """Return the variables of an activated environment, PLACEHOLDER in the place of its prefix.

    Parameters
    ----------
    prefix : Path
        The environment.
    prefixes : iterable of str
        Each path by which the prefix is known.

    Raises
    ------
    ImageError
        If an activation script ends the shell, does not end, or cannot be run.

    References
    ----------
    conda, "Managing environments", activation: `conda-meta/state` and `etc/conda/env_vars.d` come before the scripts of
    `etc/conda/activate.d`, which are sourced in the order of their names.
    """
    found = {"CONDA_PREFIX": str(prefix)}
    found |= {name: str(prefix / (place or sign)) for name, sign, place in _PLACES if (prefix / sign).exists()}
    found |= _configured(prefix)
    scripts = sorted((prefix / "etc" / "conda" / "activate.d").glob("*.sh"))
    if scripts:
        found |= _set_by(scripts, found, prefix)
    return {name: _placed(value, prefixes) for name, value in sorted(found.items())}


def _configured(prefix: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    files = [*sorted((prefix / "etc" / "conda" / "env_vars.d").glob("*.json")), prefix / "conda-meta" / "state"]
    for file in files:
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        known = known.get("env_vars", {}) if file.name == "state" else known
        found |= {name: str(value) for name, value in known.items() if value != "***unset***"}
    return found


def _set_by(scripts: list[Path], known: Mapping[str, str], prefix: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="clusterkit-activation-") as home:
        path = os.pathsep.join((str(prefix / "bin"), "/usr/local/bin", "/usr/bin", "/bin"))
        before = {**known, "PATH": path, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8"}
        argv = ["bash", "--noprofile", "--norc", "-c", _SCRIPT, "bash", *map(str, scripts)]
        try:
            done = processes.run(argv, timeout_s=_TIMEOUT_S, env=before)
        except (OSError, TimeoutError) as exc:
            raise _failed(scripts, prefix, str(exc)) from exc
    if done.exit_code or not done.stdout:
        raise _failed(scripts, prefix, done.last_lines(3) or f"bash ended with exit code {done.exit_code}")
    after = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
    return {
        name: value
        for name, value in after.items()
        if before.get(name) != value and name not in _OF_THE_SHELL and not name.startswith(("BASH_", "CONDA_BACKUP_"))
    }


def _failed(scripts: list[Path], prefix: Path, why: str) -> ImageError:
    names = ", ".join(str(script.relative_to(prefix)) for script in scripts)
    return ImageError(
        "what the environment sets on activation could not be read",
        why=f"{names}: {why}",
        mend="run `conda activate` by hand to see which script fails, and mend or remove it; bash is needed for them",
    )


def _placed(value: str, prefixes: Iterable[str]) -> str:
    for prefix in sorted(prefixes, key=len, reverse=True):
        value = value.replace(prefix, PLACEHOLDER)
    return value
