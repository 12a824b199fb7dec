"""End the applications of an embedded cluster before the cluster itself ends."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from clusterkit.embedded import probe
from clusterkit.embedded.readiness import active_resource_manager

if TYPE_CHECKING:
    from clusterkit.embedded.plan import Plan
    from clusterkit.embedded.start import Said

_UNFINISHED = "NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
_TIMEOUT_S = 5.0
_POLL_S = 0.1


def end(plan: Plan, said: Said) -> None:
    """Kill what still runs, so that it is known as killed, and does not come back when the cluster does.

    What does not end in time is ended with the daemons.
    """
    manager = active_resource_manager(plan)
    if manager is None:
        return
    port = manager.ports["web"]
    unfinished = _count(plan.host, port)
    if not unfinished:
        return
    said("ending", "1 application" if unfinished == 1 else f"{unfinished} applications")
    for application in _applications(plan.host, port):
        path = f"/ws/v1/cluster/apps/{application}/state?user.name={plan.site.user}"
        probe.send(plan.host, port, path, method="PUT", body=json.dumps({"state": "KILLED"}))
    deadline = time.monotonic() + _TIMEOUT_S
    while _count(plan.host, port) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _count(host: str, port: int) -> int:
    """Return how many applications are unfinished."""
    document = probe.json_of(host, port, "/ws/v1/cluster/metrics") or {}
    metrics = document.get("clusterMetrics", {})
    return int(metrics.get("appsRunning", 0)) + int(metrics.get("appsPending", 0))


def _applications(host: str, port: int) -> list[str]:
    document = probe.json_of(host, port, f"/ws/v1/cluster/apps?states={_UNFINISHED}") or {}
    return [application["id"] for application in (document.get("apps") or {}).get("app", [])]
