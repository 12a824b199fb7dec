"""Write an environment down as text that a shell reads."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def exports(variables: Mapping[str, str], shell: str) -> str:
    r"""Return one command for each variable.

    Parameters
    ----------
    variables : mapping of str to str
        The environment.
    shell : str
        `sh` for every shell of its family, or `fish`.

    Examples
    --------
    >>> print(exports({"HADOOP_CONF_DIR": "/home/o'hara/conf"}, "fish"), end="")
    set -gx HADOOP_CONF_DIR '/home/o\'hara/conf'
    """
    if shell == "fish":
        return "".join(f"set -gx {name} {_fish(value)}\n" for name, value in variables.items())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _fish(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
