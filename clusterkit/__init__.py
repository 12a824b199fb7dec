"""clusterkit makes a Hadoop cluster feel like one fast Python machine.

Public names are loaded when they are first used: `import clusterkit` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterkit.applications.application import Application as Application
    from clusterkit.errors import ApplicationError as ApplicationError
    from clusterkit.errors import ClusterError as ClusterError
    from clusterkit.errors import ClusterkitError as ClusterkitError
    from clusterkit.errors import LaunchError as LaunchError
    from clusterkit.errors import SettingsError as SettingsError
    from clusterkit.errors import SpecError as SpecError
    from clusterkit.launch import spark as spark
    from clusterkit.launch import submit as submit
    from clusterkit.settings import Settings as Settings
    from clusterkit.specs.cluster import ClusterSpec as ClusterSpec
    from clusterkit.specs.job import JobSpec as JobSpec

__version__ = "0.1.0"

_HOMES = {
    "Application": "clusterkit.applications.application",
    "ApplicationError": "clusterkit.errors",
    "ClusterError": "clusterkit.errors",
    "ClusterSpec": "clusterkit.specs.cluster",
    "ClusterkitError": "clusterkit.errors",
    "JobSpec": "clusterkit.specs.job",
    "LaunchError": "clusterkit.errors",
    "Settings": "clusterkit.settings",
    "SettingsError": "clusterkit.errors",
    "SpecError": "clusterkit.errors",
    "spark": "clusterkit.launch",
    "submit": "clusterkit.launch",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (the table is the list)


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'clusterkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
