"""The ResourceManager's answers as values, and which one of a pair is asked."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from clusterkit.errors import ApplicationError, ClusterError
from clusterkit.hadoop.configuration import Endpoint
from clusterkit.hadoop.resource_manager import (
    ApplicationReport,
    Attempt,
    ClusterInfo,
    Container,
    Queue,
    ResourceManager,
    Resources,
    Scheduler,
)
from clusterkit.hadoop.rest import RemoteError, UnreachableError

ROOT = "/ws/v1/cluster"
ID = "application_1700000000000_0007"
APP = {
    "id": ID,
    "user": "alice",
    "name": "job",
    "queue": "root.default",
    "state": "RUNNING",
    "finalStatus": "UNDEFINED",
    "progress": 10.0,
    "trackingUrl": "http://rm:8088/proxy/x/",
    "diagnostics": "",
    "applicationType": "SPARK",
    "applicationTags": "a,b",
    "startedTime": 1700000000001,
    "launchTime": 1700000001000,
    "finishedTime": 0,
    "amContainerLogs": "http://n1:8042/node/containerlogs/container_e03_1700000000000_0007_01_000001/alice",
    "amHostHttpAddress": "n1:8042",
    "masterNodeId": "n1:45454",
    "allocatedMB": 2048,
    "allocatedVCores": 2,
    "runningContainers": 2,
    "memorySeconds": 17,
    "vcoreSeconds": 3,
    "logAggregationStatus": "NOT_START",
    "unmanagedApplication": "false",
}
REPORT = ApplicationReport(
    id=ID,
    name="job",
    user="alice",
    queue="root.default",
    type="SPARK",
    tags=("a", "b"),
    state="RUNNING",
    final_status="UNDEFINED",
    progress=10.0,
    diagnostics="",
    tracking_url="http://rm:8088/proxy/x/",
    am_container_id="container_e03_1700000000000_0007_01_000001",
    am_node="n1:45454",
    am_http_address="n1:8042",
    submitted=datetime(2023, 11, 14, 22, 13, 20, 1000, UTC),
    launched=datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
    finished=None,
    allocated=Resources(2048, 2),
    running_containers=2,
    memory_mib_seconds=17,
    vcore_seconds=3,
    log_aggregation="NOT_START",
    unmanaged=False,
)
INFO = {
    "id": 1700000000000,
    "state": "STARTED",
    "haState": "ACTIVE",
    "hadoopVersion": "3.5.0",
    "startedOn": 1700000000000,
}


@dataclass
class Reply:
    """What a fake daemon answers."""

    body: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def document(value):
    return Reply(json.dumps(value))


@pytest.fixture
def fake(daemon):
    made = daemon()
    made.replies[f"{ROOT}/info"] = document({"clusterInfo": INFO})
    return made


def manager(*daemons, failover_s=0.5):
    endpoints = [Endpoint(f"rm{i}", "127.0.0.1", each.port, "http") for i, each in enumerate(daemons, 1)]
    return ResourceManager(endpoints, "alice", failover_s=failover_s)


def test_info(fake):
    """The active ResourceManager says version, state and start."""
    assert manager(fake).info() == ClusterInfo(
        1700000000000, "STARTED", "ACTIVE", "3.5.0", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    )


def test_application(fake):
    """An application's report is read whole; a time of 0 is none."""
    fake.replies[f"{ROOT}/apps/{ID}"] = document({"app": APP})
    assert manager(fake).application(ID) == REPORT
    assert not REPORT.ended


@pytest.mark.parametrize("empty", [{"apps": None}, {"apps": {}}, {}])
def test_no_applications(fake, empty):
    """Every way in which versions of YARN write an empty list is an empty list."""
    fake.replies[f"{ROOT}/apps"] = document(empty)
    assert manager(fake).applications() == ()


def test_applications_are_filtered_and_sorted(fake):
    """Filters travel as YARN names them, tags in lower case; the newest application comes first."""
    apps = [{**APP, "id": f"application_1700000000000_{number:04}"} for number in (2, 11, 1)]
    fake.replies[f"{ROOT}/apps"] = document({"apps": {"app": apps}})
    found = manager(fake).applications(
        states=["RUNNING", "ACCEPTED"], user="bob", tags=["T1", "t2"], types=["SPARK"], queue="q", limit=2
    )
    assert [report.id[-4:] for report in found] == ["0011", "0002"]
    assert fake.requests[-1][2] == {
        "user.name": "alice",
        "states": "RUNNING,ACCEPTED",
        "applicationTags": "t1,t2",
        "applicationTypes": "SPARK",
        "user": "bob",
        "queue": "q",
    }


def test_one_application_unwrapped(fake):
    """A list of one that YARN did not write as a list is a list of one."""
    fake.replies[f"{ROOT}/apps"] = document({"apps": {"app": APP}})
    assert manager(fake).applications() == (REPORT,)


def test_attempts_and_containers(fake):
    """Attempts come in order; the containers of all of them are joined."""
    attempt = {
        "id": 1,
        "startTime": 1700000000000,
        "finishedTime": 0,
        "containerId": "container_1700000000000_0007_01_000001",
        "nodeHttpAddress": "n1:8042",
        "nodeId": "n1:45454",
        "appAttemptId": "appattempt_1700000000000_0007_000001",
        "appAttemptState": "RUNNING",
    }
    container = {
        "containerId": "container_1700000000000_0007_01_000002",
        "allocatedMB": "1024",
        "allocatedVCores": "1",
        "assignedNodeId": "n1:45454",
        "startedTime": 1700000000000,
        "finishedTime": 0,
        "containerExitStatus": 0,
        "containerState": "RUNNING",
        "nodeHttpAddress": "http://n1:8042",
    }
    fake.replies[f"{ROOT}/apps/{ID}/appattempts"] = document({"appAttempts": {"appAttempt": [attempt]}})
    fake.replies[f"{ROOT}/apps/{ID}/appattempts/appattempt_1700000000000_0007_000001/containers"] = document(
        {"container": [container]}
    )
    started = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert manager(fake).attempts(ID) == (
        Attempt(attempt["appAttemptId"], 1, "RUNNING", attempt["containerId"], "n1:45454", "n1:8042", started, None),
    )
    assert manager(fake).containers(ID) == (
        Container(
            container["containerId"], "n1:45454", "http://n1:8042", "RUNNING", 0, Resources(1024, 1), started, None
        ),
    )


def test_capacity_scheduler(fake):
    """Leaf queues are found below their parents, with what ApplicationMasters may use."""
    leaf = {
        "queueName": "etl",
        "queuePath": "root.prod.etl",
        "state": "STOPPED",
        "absoluteCapacity": 30.0,
        "absoluteMaxCapacity": 60.0,
        "absoluteUsedCapacity": 12.5,
        "resourcesUsed": {"memory": 512, "vCores": 1},
        "AMResourceLimit": {"memory": 1024, "vCores": 1},
        "usedAMResource": {"memory": 512, "vCores": 1},
        "userAMResourceLimit": {"memory": 256, "vCores": 1},
        "maximumAllocation": {"memory": 4096, "vCores": 4},
        "numActiveApplications": 1,
        "numPendingApplications": 2,
    }
    parent = {"queueName": "prod", "queuePath": "root.prod", "queues": {"queue": [leaf]}}
    root = {
        "type": "capacityScheduler",
        "queueName": "root",
        "queuePath": "root",
        "queues": {"queue": [parent]},
        "maximumAllocation": {"memory": 8192, "vCores": 4},
    }
    fake.replies[f"{ROOT}/scheduler"] = document({"scheduler": {"schedulerInfo": root}})
    queue = Queue(
        name="etl",
        path="root.prod.etl",
        state="STOPPED",
        capacity=30.0,
        max_capacity=60.0,
        used_capacity=12.5,
        used=Resources(512, 1),
        am_limit=Resources(1024, 1),
        am_used=Resources(512, 1),
        user_am_limit=Resources(256, 1),
        max_allocation=Resources(4096, 4),
        running=1,
        pending=2,
    )
    found = manager(fake).scheduler()
    assert found == Scheduler("capacityScheduler", Resources(8192, 4), (queue,))
    assert [found.queue(name) for name in ("etl", "root.prod.etl", "prod.etl", "prod")] == [queue, queue, queue, None]


def test_fair_scheduler(fake):
    """The fair scheduler's queues are read too."""
    leaf = {
        "queueName": "root.default",
        "usedResources": {"memory": 1, "vCores": 1},
        "amMaxResources": {"memory": 2, "vCores": 1},
        "amUsedResources": {"memory": 1, "vCores": 1},
        "numActiveApps": 3,
        "numPendingApps": 4,
    }
    root = {"queueName": "root", "childQueues": {"queue": [leaf]}}
    fake.replies[f"{ROOT}/scheduler"] = document(
        {"scheduler": {"schedulerInfo": {"type": "fairScheduler", "rootQueue": root}}}
    )
    (queue,) = manager(fake).queues()
    assert (queue.name, queue.path, queue.am_limit, queue.running, queue.pending) == (
        "default",
        "root.default",
        Resources(2, 1),
        3,
        4,
    )


def test_kill(fake):
    """A kill asks for the state KILLED and tells the state that was answered."""
    fake.replies[f"{ROOT}/apps/{ID}/state"] = Reply('{"state":"KILLING"}', 202)
    assert manager(fake).kill(ID) == "KILLING"
    assert (fake.requests[-1][0], json.loads(fake.requests[-1][3])) == ("PUT", {"state": "KILLED"})


def test_unknown_application_offers_the_nearest(fake):
    """An application that is not known is said to be forgotten, and the nearest known one is offered."""
    fake.replies[f"{ROOT}/apps"] = document({"apps": {"app": [{**APP, "id": "application_1700000000000_0070"}]}})
    with pytest.raises(ApplicationError) as caught:
        manager(fake).application(ID)
    error = caught.value
    assert (error.application_id, error.why, error.mend) == (
        ID,
        "the ResourceManager has forgotten it, or never had it",
        "did you mean application_1700000000000_0070? `clusterkit app ls` lists them",
    )


def test_application_of_an_earlier_start(fake):
    """An id that begins with another start than the ResourceManager's says so."""
    fake.replies[f"{ROOT}/apps"] = document({"apps": None})
    with pytest.raises(ApplicationError) as caught:
        manager(fake).application("application_1600000000000_0001")
    assert "application_1700000000000_" in caught.value.why
    assert caught.value.mend == "list them with `clusterkit app ls`"


@pytest.mark.parametrize("wrong", ["", "job", "application_1", "application_1_0001/../x", "application_1_0001\n"])
def test_no_application_id(fake, wrong):
    """What is no application id is refused before anything but the list of applications is asked for."""
    fake.replies[f"{ROOT}/apps"] = document({})
    with pytest.raises(ApplicationError, match="is no application id"):
        manager(fake).application(wrong)
    assert {request[1] for request in fake.requests} <= {f"{ROOT}/apps"}


def test_refusal_is_not_taken_for_an_unknown_application(fake):
    """A refusal for another reason than absence keeps its reason."""
    fake.replies[f"{ROOT}/apps/{ID}"] = Reply(
        '{"RemoteException":{"exception":"ForbiddenException","message":"no"}}', 403
    )
    with pytest.raises(RemoteError) as caught:
        manager(fake).application(ID)
    assert (caught.value.status, caught.value.why) == (403, "no")


def test_something_else_answers(fake):
    """A web server that is no ResourceManager is said to be none."""
    fake.replies[f"{ROOT}/metrics"] = Reply("<html>Hello</html>")
    with pytest.raises(ClusterError, match="is no ResourceManager") as caught:
        manager(fake).metrics()
    assert (caught.value.port, "<html>Hello</html>" in caught.value.why) == (fake.port, True)


STANDBY = [
    Reply("This is standby RM. The redirect url is: /ws/v1/cluster/apps\n", 307, {"Location": "http://127.0.0.1:1/ws"}),
    Reply("Can not find any active RM. Will retry in next 5 seconds.\n", 307, {"Refresh": "5;url=http://127.0.0.1:1/"}),
    Reply("There is no active RM right now.\nHA Zookeeper Connection State: CONNECTED\n"),
]


@pytest.mark.parametrize("standby", STANDBY)
def test_the_other_of_a_pair_is_asked(fake, daemon, standby):
    """Whatever a standby answers, the active one is asked, and asked first from then on."""
    other = daemon()
    other.replies[f"{ROOT}/apps"] = standby
    fake.replies[f"{ROOT}/apps"] = document({})
    pair = manager(other, fake)
    assert (pair.applications(), pair.applications()) == ((), ())
    assert (len(other.requests), len(fake.requests)) == (1, 2)
    assert pair.active.id == "rm2"


def test_a_dead_one_of_a_pair_is_passed_over(fake, daemon):
    """When the one that answered last is dead, the other one is asked."""
    dead = daemon()
    dead.replies[f"{ROOT}/apps"] = fake.replies[f"{ROOT}/apps"] = document({})
    pair = manager(dead, fake)
    assert (pair.applications(), pair.active.id) == ((), "rm1")
    dead.server.shutdown()
    dead.server.server_close()
    with socket.create_server(("127.0.0.1", 0)) as closed:  # the kept connection is of no use either
        pair._endpoints = (Endpoint("rm1", "127.0.0.1", closed.getsockname()[1], "http"), pair._endpoints[1])
    pair._active = pair._endpoints[0]
    assert (pair.applications(), pair.active.id) == ((), "rm2")


def test_info_is_the_active_ones(fake, daemon):
    """A standby answers for itself when it is asked for its information: the active one's is returned."""
    other = daemon()
    other.replies[f"{ROOT}/info"] = document({"clusterInfo": {**INFO, "haState": "STANDBY"}})
    assert manager(other, fake).info().ha_state == "ACTIVE"


def test_moment_without_an_active_one_is_waited_for(daemon):
    """While both are on standby they are asked again, until one becomes active."""
    one, two = daemon(), daemon()
    for each in (one, two):
        each.replies[f"{ROOT}/apps"] = STANDBY[2]
    pair = manager(one, two, failover_s=20)
    elected = threading.Timer(0.4, lambda: two.replies.update({f"{ROOT}/apps": document({})}))
    elected.start()
    assert (pair.applications(), pair.active.id) == ((), "rm2")


def test_none_becomes_active(daemon):
    """When none becomes active in time, each one is named with its state."""
    one, two = daemon(), daemon()
    one.replies[f"{ROOT}/apps"] = two.replies[f"{ROOT}/apps"] = STANDBY[0]
    with pytest.raises(UnreachableError, match="no ResourceManager of the cluster is active") as caught:
        manager(one, two, failover_s=0.1).applications()
    assert caught.value.why == (f"rm1 at 127.0.0.1:{one.port} is on standby; rm2 at 127.0.0.1:{two.port} is on standby")


def test_both_dead_is_not_waited_for():
    """When neither of a pair can be reached, nothing is waited for."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(server.getsockname()[1])
    pair = ResourceManager([Endpoint(f"rm{i}", "127.0.0.1", port, "http") for i, port in enumerate(ports)], "a")
    with pytest.raises(UnreachableError) as caught:
        pair.info()
    assert caught.value.why == (
        f"rm0 at 127.0.0.1:{ports[0]} does not answer; rm1 at 127.0.0.1:{ports[1]} does not answer"
    )
