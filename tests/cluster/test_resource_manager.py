"""The real ResourceManager and a real NodeManager: what they say of a cluster and of a running application."""

from __future__ import annotations

import time

import pytest

from clusterkit.errors import ApplicationError
from clusterkit.hadoop.resource_manager import Resources


@pytest.fixture(scope="module")
def client(cluster):
    return cluster.cluster()


@pytest.fixture
def running(client, submit_shell):
    """Return the id of an application whose ApplicationMaster runs."""
    application_id = submit_shell(client, "echo started; sleep 120", tags=("First", "second"))
    wait_for("its start", lambda: client.resource_manager.application(application_id).launched)
    yield application_id
    client.resource_manager.kill(application_id)


def wait_for(what, condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        time.sleep(0.1)
    return result


def test_the_cluster(client):
    """The ResourceManager tells its version, its one node, and what that node offers."""
    info = client.resource_manager.info()
    (node,) = client.resource_manager.nodes(["RUNNING"])
    metrics = client.resource_manager.metrics()
    assert (info.hadoop_version, info.state, info.ha_state) == ("3.5.0", "STARTED", "ACTIVE")
    assert (metrics.active_nodes, metrics.total) == (1, node.total)
    assert (node.version, node.state) == ("3.5.0", "RUNNING")


def test_the_queue(client):
    """The capacity scheduler has the one queue, with a share for ApplicationMasters."""
    scheduler = client.resource_manager.scheduler()
    (queue,) = scheduler.queues
    assert (scheduler.type, queue.name, queue.path, queue.state, queue.capacity) == (
        "capacityScheduler",
        "default",
        "root.default",
        "RUNNING",
        100.0,
    )
    assert scheduler.queue("default") is queue
    assert 0 < queue.am_limit.memory_mib <= client.resource_manager.metrics().total.memory_mib
    assert scheduler.max_allocation.memory_mib >= 1024


def test_a_running_application(client, running):
    """An application is reported with its container and node, found by user, tag and state, and ends when killed."""
    resource_manager = client.resource_manager
    report = resource_manager.application(running)
    (attempt,) = resource_manager.attempts(running)
    (container,) = resource_manager.containers(running)
    (node,) = resource_manager.nodes()
    assert (report.user, report.name, report.type, report.state, report.ended) == (
        client.configuration.user,
        "shell",
        "SHELL",
        "ACCEPTED",
        False,
    )
    assert sorted(report.tags) == ["first", "second"]
    assert (report.am_container_id, attempt.container_id, container.id) == (container.id,) * 3
    assert (report.am_node, attempt.node, container.node) == (node.id,) * 3
    assert (report.running_containers, report.allocated, container.state) == (1, container.allocated, "RUNNING")
    assert report.finished is None
    assert report.submitted <= report.launched
    found = resource_manager.applications(states=["ACCEPTED"], user=report.user, tags=["FIRST"], types=["SHELL"])
    assert [each.id for each in found] == [running]
    assert resource_manager.kill(running) in {"ACCEPTED", "KILLING", "KILLED"}  # YARN may answer before it acts
    wait_for("its end", lambda: resource_manager.application(running).ended)
    ended = resource_manager.application(running)
    assert (ended.state, ended.final_status, ended.allocated) == ("KILLED", "KILLED", Resources(0, 0))
    assert ended.submitted < ended.finished
    assert resource_manager.applications(states=["ACCEPTED"], tags=["first"]) == ()


def test_its_container_on_the_node(client, running):
    """The NodeManager tells the container's state, size and logs."""
    (container,) = client.resource_manager.containers(running)
    node_manager = client.node_manager(container.http_address)
    found = wait_for("its process", lambda: running_container(node_manager, container.id))
    assert (found.user, found.memory_mib, found.vcores, found.exit_code) == (
        client.configuration.user,
        container.allocated.memory_mib,
        1,
        None,
    )
    assert container.id in [each.id for each in node_manager.containers()]
    assert node_manager.application_state(running) == "RUNNING"
    assert {"prelaunch.out", "launch_container.sh"} <= {log.name for log in node_manager.logs(container.id)}
    assert node_manager.info()["id"] == container.node


def running_container(node_manager, container_id):
    found = node_manager.container(container_id)
    return found if found and found.state == "RUNNING" and "prelaunch.out" in found.log_files else None


def test_an_application_that_is_not_known(client, running):
    """A misspelt id is refused by every question about it, and the nearest known one is offered."""
    wrong = running.replace("_0", "_9")
    questions = (client.resource_manager.application, client.resource_manager.attempts, client.resource_manager.kill)
    for ask in questions:
        with pytest.raises(ApplicationError) as caught:
            ask(wrong)
        assert (caught.value.what, caught.value.mend) == (
            f"there is no application {wrong}",
            f"did you mean {running}? `clusterkit app ls` lists them",
        )
