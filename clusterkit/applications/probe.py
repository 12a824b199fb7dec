"""What a node of a cluster is like: asked once, by one small container, and kept."""

from __future__ import annotations

import base64
import os
import re
import shlex
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from clusterkit import processes
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.resource_manager import ApplicationReport

KEPT = timedelta(days=7)
"""How long facts are believed."""

_TIMEOUT_S = 90.0
_POLL_S = 0.2
_MARK = "clusterkit-fact "
_SCRIPT = """\
fact() { echo "clusterkit-fact $1=$2" >&2; }
fact architecture "$(uname -m)"
fact glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
fact java "$("${JAVA_HOME:-/usr}/bin/java" -version 2>&1 | sed -n '1s/.*"\\(.*\\)".*/\\1/p')"
place=$(dirname CACHE)
probe="$place/.clusterkit-probe-$$"
if printf '#!/bin/sh\\nexit 0\\n' 2>/dev/null >"$probe" && chmod 700 "$probe" && "$probe" 2>/dev/null
then fact cache usable; else fact cache "$([ -w "$place" ] && echo noexec || echo refused)"; fi
rm -f "$probe" 2>/dev/null
exit 1
"""


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What matters of a node before an image is sent to it.

    Parameters
    ----------
    architecture : str
        As `uname -m` has it: `x86_64`, `aarch64`.
    glibc : str
        Its version, `2.36`; empty where the C library is another one.
    java : str
        The version of the Java that containers find, `17.0.15`; empty where there is none.
    cache : str
        Whether images can be unpacked in the node cache: `usable`, `noexec` (nothing there may run) or `refused`.
    asked : datetime
        When; aware.
    """

    architecture: str
    glibc: str
    java: str
    cache: str
    asked: datetime

    @property
    def platform(self) -> str:
        """The platform as images name it: `linux-64`, `linux-aarch64`."""
        return {"x86_64": "linux-64"}.get(self.architecture, f"linux-{self.architecture}")


def facts(
    cluster: Cluster,
    *,
    node_cache: str,
    queue: str,
    keep: Path,
    said: Callable[[str, str], None] | None = None,
) -> NodeFacts:
    """Return what a node of a cluster is like, from a file of this machine where it was asked before.

    Parameters
    ----------
    cluster : Cluster
        The cluster.
    node_cache : str
        The directory that is to be looked at.
    queue : str
        Where the container is asked for.
    keep : Path
        The file where the answer is kept for a week.
    said : callable, optional
        Is told when the cluster is asked.

    Raises
    ------
    ClusterError
        If the cluster does not answer, or the container did not run.
    """
    known = _kept(keep)
    if known is not None:
        return known
    if said is not None:
        said("probing", f"asking a node of {cluster.name} what it can run, once a week")
    script = _SCRIPT.replace("CACHE", shlex.quote(node_cache))
    found = _facts(_run_here(script) if cluster.embedded else _run_there(script, cluster, queue))
    keep.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = keep.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(msgspec.json.encode(found))
    aside.replace(keep)
    return found


def _kept(keep: Path) -> NodeFacts | None:
    try:
        known = msgspec.json.decode(keep.read_bytes(), type=NodeFacts)
    except (OSError, msgspec.MsgspecError):
        return None
    return known if datetime.now(UTC) - known.asked < KEPT else None


def _run_here(script: str) -> str:
    return processes.run(["/bin/sh", "-c", script], timeout_s=_TIMEOUT_S).stderr


def _run_there(script: str, cluster: Cluster, queue: str) -> str:
    """Run the script on a node; it fails on purpose, because YARN keeps what a failed container wrote last."""
    encoded = base64.b64encode(script.encode()).decode()
    manager = cluster.resource_manager
    application_id = manager.submit(
        f"echo {encoded} | base64 -d | /bin/sh", name="clusterkit: what a node can run", queue=queue
    )
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not (report := manager.application(application_id)).ended:
        if time.monotonic() > deadline_s:
            manager.kill(application_id)
            raise _no_answer(report, f"it was still {report.state} after {_TIMEOUT_S:.0f} s: {report.diagnostics}")
        time.sleep(_POLL_S)
    if _MARK not in report.diagnostics:
        raise _no_answer(report, report.diagnostics.strip()[-500:])
    return report.diagnostics


def _no_answer(report: ApplicationReport, why: str) -> ClusterError:
    return ClusterError(
        f"no node told what it can run ({report.id})",
        why=why or "its container left no word",
        mend=f"see `clusterkit app why {report.id}`, or name what is known: --transport fast or native",
    )


def _facts(output: str) -> NodeFacts:
    told = dict(re.findall(rf"{_MARK}(\w+)=(.*)", output))
    return NodeFacts(
        architecture=told.get("architecture", "").strip(),
        glibc=told.get("glibc", "").strip(),
        java=told.get("java", "").strip(),
        cache=told.get("cache", "refused").strip(),
        asked=datetime.now(UTC),
    )
