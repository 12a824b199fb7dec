from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from clusterkit.applications import waiting
from clusterkit.errors import ClusterError
from clusterkit.hadoop.resource_manager import ApplicationReport, Resources

ADDED = "[Wed Nov 25 03:49:49 +0000 2026] Application is added to the scheduler and is not yet activated. "


@pytest.mark.parametrize(
    ("diagnostics", "word", "text"),
    [
        (f"{ADDED}Queue's AM resource limit exceeded.  Details : AM Partition", "am-share", "ApplicationMasters"),
        (f"{ADDED}User's AM resource limit exceeded.  Details : AM Partition", "user-am-share", "your share for"),
        (f"{ADDED}Skipping AM assignment as cluster resource is empty.  Details", "no-nodes", "has no nodes"),
        (f"{ADDED}User capacity has reached its maximum limit.", "user-share", "your share of the queue"),
        (
            "Application is Activated, waiting for resources to be assigned for AM.  Details",
            "no-room",
            "waits for room on a node",
        ),
        (ADDED, "no-room", "waits for room on a node"),
        ("AM container is launched, waiting for AM container to Register with RM", None, "for its ApplicationMaster"),
        ("", None, "for its ApplicationMaster to start"),
    ],
)
def test_what_an_application_waits_for(diagnostics, word, text):
    """What the CapacityScheduler says becomes one word for programs and a few for people."""
    assert waiting.limit(diagnostics) == word
    assert text in waiting.waits_for(diagnostics)


def report(state: str, diagnostics: str = "") -> ApplicationReport:
    return ApplicationReport(
        id="application_1_0001",
        name="job",
        user="ada",
        queue="root.a",
        type="YARN",
        tags=(),
        state=state,
        final_status="UNDEFINED",
        progress=0.0,
        diagnostics=diagnostics,
        tracking_url=None,
        am_container_id=None,
        am_node=None,
        am_http_address=None,
        submitted=datetime(2026, 1, 1, tzinfo=UTC),
        launched=None,
        finished=None,
        allocated=Resources(0, 0),
        running_containers=0,
        memory_mib_seconds=0,
        vcore_seconds=0,
        log_aggregation="",
        unmanaged=False,
    )


HERE = SimpleNamespace(configuration=SimpleNamespace(user="me"))


def test_stages_are_told_as_yarn_reports_them():
    """Accepted with what it waits for, running with its address, silence with its reason; an end is not a stage."""
    told: list[tuple[str, str]] = []
    stages = waiting.Stages(HERE, lambda stage, detail: told.append((stage, detail)))

    stages.report(report("ACCEPTED", f"{ADDED}Queue's AM resource limit exceeded."))
    stages.report(report("RUNNING"))
    stages.unreachable(ClusterError("it is gone", why="no answer from here:8088", mend="start it"))
    stages.report(report("FINISHED"))

    assert told == [
        ("accepted", "queue a, waits: the queue's share for ApplicationMasters is used up"),
        ("running", "no tracking URL yet"),
        ("waiting", "for the ResourceManager: no answer from here:8088"),
    ]


def test_uploads_are_told_by_size():
    """What has begun counts whole, beside all that travels."""
    assert waiting.uploading(frozenset({"a.zip"}), {"a.zip": 2 * 1024**2, "b.zip": 1024**2}) == "2 MiB of 3 MiB"
