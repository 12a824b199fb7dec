from __future__ import annotations

from types import SimpleNamespace

import pytest

from clusterkit.errors import SpecError
from clusterkit.hadoop.resource_manager import Queue, Resources, Scheduler
from clusterkit.launchers.spark import preflight

NOTHING = Resources(0, 0)


def queue(name, *, state="RUNNING", max_allocation=None):
    return Queue(
        name=name,
        path=f"root.{name}",
        state=state,
        capacity=50.0,
        max_capacity=100.0,
        used_capacity=0.0,
        used=NOTHING,
        am_limit=None,
        am_used=None,
        user_am_limit=None,
        max_allocation=max_allocation,
        running=0,
        pending=0,
    )


def check(conf, *, deploy_mode="client", queues=()):
    queues = queues or (queue("default"), queue("batch"))
    plan = SimpleNamespace(spec=SimpleNamespace(deploy_mode=deploy_mode), conf=conf, cluster="here")
    scheduler = Scheduler(type="capacityScheduler", max_allocation=Resources(8192, 4), queues=queues)
    preflight.check(plan, SimpleNamespace(scheduler=lambda: scheduler))


def test_what_fits_passes():
    """A job whose largest container is exactly what the cluster grants is let through."""
    check({"spark.yarn.queue": "batch", "spark.executor.memory": "7447m", "spark.executor.cores": "4"})


def test_an_unknown_queue_is_refused_with_the_nearest_name():
    """A misspelt queue is refused before anything is sent, and the right one is offered."""
    with pytest.raises(SpecError) as caught:
        check({"spark.yarn.queue": "bacth"})

    assert caught.value.what == "the queue bacth does not exist"
    assert caught.value.why == "the cluster here has default, batch; did you mean batch?"
    assert caught.value.key == "queue"


def test_a_stopped_queue_is_refused():
    """A queue that takes no applications is refused with its state."""
    with pytest.raises(SpecError, match="takes no applications") as caught:
        check({"spark.yarn.queue": "batch"}, queues=(queue("batch", state="STOPPED"),))

    assert caught.value.why == "its state is STOPPED"


def test_too_much_memory_is_refused_with_the_largest_that_works():
    """The message counts Spark's overhead, and the size it offers passes."""
    with pytest.raises(SpecError) as caught:
        check({"spark.executor.memory": "8g"})

    assert caught.value.why == "executor.memory of 8 GiB and 819 MiB of overhead make 9011 MiB; the most is 8 GiB"
    assert caught.value.mend == "set executor.memory to at most 7447m"
    assert caught.value.key == "executor.memory"


def test_the_limit_of_a_queue_counts():
    """A queue may grant less than the cluster does."""
    with pytest.raises(SpecError, match="asks for more memory"):
        check({"spark.executor.memory": "4g"}, queues=(queue("default", max_allocation=Resources(4096, 4)),))


def test_too_many_vcores_are_refused():
    """More vcores than one container may have are refused with the number that works."""
    with pytest.raises(SpecError) as caught:
        check({"spark.executor.cores": "5"})

    assert caught.value.mend == "set executor.cores to at most 4"


def test_the_driver_counts_where_it_runs_under_yarn():
    """In cluster mode the driver is a container; in client mode only a small ApplicationMaster is."""
    check({"spark.driver.memory": "32g"})

    with pytest.raises(SpecError, match="the driver asks for more memory"):
        check({"spark.driver.memory": "32g"}, deploy_mode="cluster")


def test_memory_beside_the_heap_counts():
    """Overhead that is set, and memory set aside for Python, make the container larger."""
    conf = {"spark.executor.memory": "6g", "spark.executor.memoryOverhead": "1g"}
    check(conf)

    with pytest.raises(SpecError, match="asks for more memory"):
        check({**conf, "spark.executor.pyspark.memory": "2g"})
