"""What every unit test stands on: no settings but its own, and paths that break careless code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from clusterkit.settings import files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings, caches and clusters of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith(("CLUSTERKIT_", "_CLUSTERKIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "clusterkit.toml")


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty directory that is the working directory."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a directory whose name holds what shells, XML, YAML and URIs trip over."""
    directory = tmp_path / "a b'c\"d;e&f<g>%41 \n é 日本"
    directory.mkdir()
    return directory
