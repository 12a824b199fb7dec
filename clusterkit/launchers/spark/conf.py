"""Spark's configuration of one job: layered from defaults to the user's own words, as one sorted mapping.

From weakest to strongest: clusterkit's defaults, `spark-defaults.conf` of the machine, what the cluster needs, the
job's properties file, `[spark.conf]` and `--conf`, and the typed settings (`executor.memory` and its like).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clusterkit.specs.job import JobSpec

SESSION_DEFAULTS: Mapping[str, str] = {
    # A socket file would lie in the container's directory, whose path is longer than the 107 bytes an address may have.
    "spark.python.unix.domain.socket.enabled": "false",
    # Arrow input that is not Arrow already is copied row by row by this reader: 10-15 % slower on Parquet.
    "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled": "false",
    # With reused workers a later task dies of a closed channel (Spark 4.3.0).
    "spark.python.udf.pipelined.enabled": "false",
}
"""What every session of clusterkit starts with, a job's or `clusterkit.spark()`'s; each can be overridden."""

JOB_DEFAULTS: Mapping[str, str] = {
    **SESSION_DEFAULTS,
    # clusterkit shows the stages itself, and stderr is shared with the job.
    "spark.ui.showConsoleProgress": "false",
    # A job whose code failed would only fail again, and its effects would happen twice.
    "spark.yarn.maxAppAttempts": "1",
    # clusterkit waits by REST: no JVM has to stay for it.
    "spark.yarn.submit.waitAppCompletion": "false",
}
"""What a submitted job starts with."""

_BLANK = r"[ \t\f]"
_PAIR = re.compile(rf"(?P<key>(?:\\.|[^ \t\f=:\\])*)(?:{_BLANK}*[=:]{_BLANK}*|{_BLANK}+|$)(?P<value>.*)", re.DOTALL)
_TRIMMED = "".join(chr(code) for code in range(33) if chr(code) not in "\r\n")
"""What Spark trims from both ends of a value (`Utils.trimExceptCRLF`)."""
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read_properties(path: Path) -> dict[str, str]:
    r"""Read a Java properties file, as `spark-submit --properties-file` reads it.

    Parameters
    ----------
    path : Path
        The file, UTF-8.

    Returns
    -------
    dict of str to str
        Keys and values, blanks around the values removed, later lines winning.

    Raises
    ------
    SpecError
        If it cannot be read.

    References
    ----------
    `java.util.Properties.load(Reader)`, Java 17: comments with `#` or `!`, continuation with a final backslash.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(
            f"the properties file {path} cannot be read",
            why=str(exc),
            mend="check the path and that it is UTF-8 text, or leave --properties-file out",
            key="properties_file",
        ) from exc
    matches = (_PAIR.fullmatch(line) for line in _logical_lines(text))
    return {_unescape(match["key"]): _unescape(match["value"]).strip(_TRIMMED) for match in matches if match}


def write_properties(conf: Mapping[str, str]) -> str:
    """Return the text of a Java properties file that reads back as this mapping."""
    return "".join(f"{_escape(key, key=True)}={_escape(value, key=False)}\n" for key, value in sorted(conf.items()))


def _logical_lines(text: str) -> list[str]:
    """Join lines that end with an odd number of backslashes; drop comments and blank lines."""
    lines: list[str] = []
    pending = ""
    for natural in re.split(r"\r\n|\r|\n", text):
        stripped = natural.lstrip(" \t\f")
        if not pending and (not stripped or stripped[0] in "#!"):
            continue
        line = pending + stripped
        tail = len(stripped) - len(stripped.rstrip("\\"))
        pending = line[:-1] if tail % 2 else ""
        if not tail % 2:
            lines.append(line)
    return [*lines, pending] if pending else lines


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        body = match[1]
        return chr(int(body[1:], 16)) if len(body) > 1 else _CONTROL.get(body, body)

    return _ESCAPE.sub(plain, text)


def _escape(text: str, *, key: bool) -> str:
    text = (
        text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\f", "\\f")
    )
    if key:
        return re.sub(r"([ :=#!])", r"\\\1", text)
    return re.sub(r"^([ #!=:])", r"\\\1", text)


def typed(spec: JobSpec) -> dict[str, str]:
    """Return the Spark keys that a job's typed fields stand for."""
    conf: dict[str, str | None] = {
        "spark.app.name": spec.name,
        "spark.submit.deployMode": spec.deploy_mode,
        "spark.yarn.queue": spec.queue,
        "spark.driver.memory": _mib(spec.driver_memory_mib),
        "spark.executor.memory": _mib(spec.executor.memory_mib),
        "spark.executor.cores": _text(spec.executor.cores),
        "spark.kerberos.principal": spec.principal,
        "spark.kerberos.keytab": _text(spec.keytab),
        **_executors(spec),
        **{f"spark.executorEnv.{name}": in_launch_script(value) for name, value in spec.env_vars.items()},
        **{f"spark.yarn.appMasterEnv.{name}": in_launch_script(value) for name, value in spec.env_vars.items()},
    }
    return {key: value for key, value in conf.items() if value is not None}


def in_launch_script(value: str) -> str:
    r"""Write an environment variable's value so that a container gets it unchanged.

    YARN puts it between double quotes in a bash script as it is, and before that replaces what looks like one of its
    own placeholders: two braces in a row, `<LOG_DIR>`, `<CPS>`. An empty pair of quotes ends the likeness.

    Examples
    --------
    >>> print(in_launch_script('{"a": {"b": "$HOME"}}'))
    {\"a\": {\"b\": \"\$HOME\"}""}

    References
    ----------
    `ContainerLaunch.expandEnvironment` and `UnixShellScriptBuilder.env`, Hadoop 3.3 to 3.5.
    """
    quoted = re.sub(r'(["$`\\])', r"\\\1", value)
    return re.sub(r"([{}])(?=\1)|<(?=[A-Z_]+>)", r'\g<0>""', quoted)


def executors_wanted(conf: Mapping[str, str]) -> int:
    """Return how many executors a configuration asks for, at most.

    References
    ----------
    Spark 4, Running Spark on YARN: `spark.executor.instances` is 2 where nothing is set.
    """
    dynamic = conf.get("spark.dynamicAllocation.enabled") == "true"
    most = conf.get("spark.dynamicAllocation.maxExecutors") if dynamic else None
    return int(most or conf.get("spark.executor.instances", "2"))


def _executors(spec: JobSpec) -> dict[str, str | None]:
    """With dynamic allocation the number of executors is the most it may have; without, the number it gets."""
    count = _text(spec.executor.count)
    if not spec.dynamic_allocation:
        return {"spark.executor.instances": count}
    return {
        "spark.dynamicAllocation.enabled": "true",
        # Shuffle data stays with its executor until it is no longer needed: no shuffle service has to be there.
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.maxExecutors": count,
    }


def _mib(amount: int | None) -> str | None:
    return None if amount is None else f"{amount}m"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
