from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from clusterkit.applications.why import Cause, Evidence, explain
from clusterkit.hadoop.resource_manager import ApplicationReport, Queue, Resources, Scheduler

ID = "application_1_0001"
SPEC = {"name": "job.py", "executor": {"memory_mib": 512}, "driver_memory_mib": 600}


def report(state: str = "FINISHED", *, final: str = "FAILED", diagnostics: str = "") -> ApplicationReport:
    return ApplicationReport(
        id=ID,
        name="job.py",
        user="ada",
        queue="root.a",
        type="SPARK",
        tags=(),
        state=state,
        final_status=final,
        progress=0.0,
        diagnostics=diagnostics,
        tracking_url=None,
        am_container_id="container_1_0001_01_000001",
        am_node="worker-1:45454",
        am_http_address="worker-1:8042",
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


def queue(name: str, **facts: object) -> Queue:
    plain = Queue(
        name=name,
        path=f"root.{name}",
        state="RUNNING",
        capacity=50.0,
        max_capacity=100.0,
        used_capacity=0.0,
        used=Resources(0, 0),
        am_limit=None,
        am_used=None,
        user_am_limit=None,
        max_allocation=None,
        running=0,
        pending=0,
    )
    return msgspec.structs.replace(plain, **facts)


def scheduler() -> Scheduler:
    used = {"used_capacity": 87.5, "used": Resources(2688, 1)}
    return Scheduler("capacityScheduler", Resources(3072, 8), (queue("a", **used), queue("b")))


def from_python(error: str, *, code: str = "rdd.collect()") -> str:
    """Return what Python prints of an error at one line of the job."""
    return f'Traceback (most recent call last):\n  File "/home/ada/job.py", line 9, in <module>\n    {code}\n{error}\n'


def from_java(error: str) -> str:
    """Return what Python prints of an error of the JVM."""
    return from_python(
        f"py4j.protocol.Py4JJavaError: An error occurred while calling o1.collect.\n: {error}\n\tat a.B(c)"
    )


CASES = tomllib.loads((Path(__file__).parent / "fixtures" / "causes.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", CASES["client"])
def test_cause_in_what_a_driver_here_printed(kind):
    """Each cause is recognised, and told in three sentences that name what was used, where, and what to set."""
    case = CASES["client"][kind]
    evidence = Evidence(1, report(final="SUCCEEDED"), stderr=case["stderr"], spec=SPEC, scheduler=scheduler)

    assert explain(evidence) == Cause(kind=kind, what=case["what"], why=case["why"], mend=case["mend"])


@pytest.mark.parametrize("kind", CASES["cluster"])
def test_cause_in_what_a_driver_on_the_cluster_left(kind):
    """In cluster mode YARN's diagnostics and the logs of the driver's container tell."""
    case = CASES["cluster"][kind]
    evidence = Evidence(
        1,
        report(diagnostics=case["diagnostics"]),
        deploy_mode="cluster",
        spec=SPEC,
        container_logs=lambda: {"stdout": case.get("stdout", "")},
    )

    assert explain(evidence) == Cause(kind=kind, what=case["what"], why=case["why"], mend=case["mend"])


def test_more_memory_than_a_container_may_have():
    """Where the cluster gives no container that large, more memory is not what is advised."""
    stderr = CASES["client"]["memory-exceeded"]["stderr"].replace("1.5 GB", "2.9 GB")

    cause = explain(Evidence(1, report(), stderr=stderr, spec=SPEC, scheduler=scheduler))

    assert cause.mend.startswith("a container has at most 3 GiB here: let it hold less at a time")


def test_module_that_an_environment_lacks():
    """Where a job runs in an environment, that is the place to add what is missing."""
    stderr = from_python("ModuleNotFoundError: No module named 'lightgbm.sklearn'")

    cause = explain(Evidence(1, report(), stderr=stderr, spec={"env": "analysis"}))

    assert cause.kind == "import-error"
    assert cause.mend == (
        "add lightgbm to the packages of the environment analysis, or code of your own to its `local`; "
        "or send it along: --py-files lightgbm.py"
    )


def test_what_a_job_survived_is_no_cause():
    """A log that tells of a lost executor does not hide the exception that the job ended of."""
    log = "26/11/25 03:37:13.923 ERROR YarnScheduler: Lost executor 1 on worker-2: Exit status: 137.\n"

    cause = explain(Evidence(1, report(), stderr=from_python("KeyError: 'a'"), driver_log=log))

    assert (cause.kind, cause.what) == ("user-exception", "the job raised KeyError in the driver")


def test_jvm_that_went_away_under_the_job():
    """When the job only saw its JVM vanish, the JVM's own log tells why."""
    log = (
        "26/11/25 03:37:13.923 ERROR Utils: uncaught error\njava.lang.OutOfMemoryError: Java heap space\n\tat a.B(c)\n"
    )
    evidence = Evidence(
        1, report(), stderr=from_python("ConnectionRefusedError: [Errno 111]"), driver_log=log, spec=SPEC
    )

    cause = explain(evidence)

    assert (cause.kind, cause.mend) == (
        "heap-exhausted",
        "give it more: --driver-memory 1200m; or write or aggregate the result instead of collecting it",
    )


def test_submission_that_the_name_node_refused():
    """A user without a home directory is told how to get one."""
    log = (
        'Exception in thread "main" org.apache.hadoop.security.AccessControlException: Permission denied: user=ada, '
        'access=WRITE, inode="/user":hdfs:supergroup:drwxr-xr-x\n'
        "\tat org.apache.spark.deploy.yarn.Client.submitApplication(Client.scala:240)\n"
    )

    cause = explain(Evidence(1, None, driver_log=log, deploy_mode="cluster"))

    assert cause == Cause(
        kind="permission-denied",
        what="HDFS does not let ada write in /user",
        why="access=WRITE on inode /user, which belongs to hdfs:supergroup with mode drwxr-xr-x",
        mend="ada has no home directory, where Spark puts a job's files: have HDFS's administrator make one, "
        "`hdfs dfs -mkdir /user/ada` and `hdfs dfs -chown ada /user/ada`",
    )


def test_exit_code_that_only_the_drivers_log_tells():
    """A job that ends before it asks for Spark is no application that did not start."""
    diagnostics = f"Application {ID} failed 1 times due to AM Container for appattempt_1 exited with  exitCode: 9\n"
    logs = {"stderr": "26/11/25 03:38:08 ERROR ApplicationMaster: User application exited with status 9\n"}
    evidence = Evidence(
        9, report("FAILED", diagnostics=diagnostics), deploy_mode="cluster", container_logs=lambda: logs
    )

    assert explain(evidence).what == "the job ended with exit code 9"


def test_executor_that_ended_itself():
    """Spark ends an executor whose heap is full with a signal: its own log tells that it was not somebody else."""
    stderr = CASES["client"]["executor-lost"]["stderr"].replace("Exit status: 137", "Exit status: 143")
    asked = []

    def logs_of(container_id: str) -> dict[str, str]:
        asked.append(container_id)
        return {"stderr": "java.lang.OutOfMemoryError: Java heap space\n", "stdout": "# -XX:OnOutOfMemoryError"}

    cause = explain(Evidence(1, report(), stderr=stderr, spec=SPEC, logs_of=logs_of))

    assert asked == ["container_1_0001_01_000003"]
    assert (cause.kind, cause.what) == ("heap-exhausted", "the JVM of the executor ran out of memory")


def test_killed():
    """Who killed an application is told."""
    killed = report("KILLED", final="KILLED", diagnostics=f"Application {ID} was killed by user root at 127.0.0.1")

    cause = explain(Evidence(143, killed, deploy_mode="cluster"))

    assert (cause.kind, cause.what, cause.why) == ("killed", f"{ID} was killed", "by root at 127.0.0.1")


def test_resource_manager_that_went_away():
    """A connection that YARN's ports refuse is told with its address."""
    error = (
        "java.net.ConnectException: Call From here/127.0.0.1 to localhost:8032 failed on connection exception: "
        "java.net.ConnectException: Connection refused; For more details see: http://wiki.apache.org/"
    )

    cause = explain(Evidence(1, None, stderr=from_java(error)))

    assert (cause.kind, cause.what, cause.why) == (
        "resource-manager-gone",
        "the ResourceManager at localhost:8032 does not answer",
        "Connection refused",
    )


@pytest.mark.parametrize(
    ("state", "final", "kind"),
    [("RUNNING", "UNDEFINED", "running"), ("FINISHED", "SUCCEEDED", "succeeded"), ("FAILED", "FAILED", "unknown")],
)
def test_nothing_to_explain(state, final, kind):
    """What runs, what succeeded, and what left no trace are told as what they are."""
    code = 0 if final == "SUCCEEDED" else None

    assert explain(Evidence(code, report(state, final=final), deploy_mode="cluster")).kind == kind


AM_SHARE = (
    "Application is added to the scheduler and is not yet activated. {whose} AM resource limit exceeded.  Details : AM "
    "Partition = <DEFAULT_PARTITION>; AM Resource Request = <memory:640, vCores:1>; Queue Resource Limit for AM = "
    "<memory:1536, vCores:4>; User AM Resource Limit of the queue = <memory:1024, vCores:2>; Queue AM Resource Usage = "
    "<memory:2688, vCores:1>; "
)
NO_ROOM = (
    "Application is Activated, waiting for resources to be assigned for AM.  Details : AM Partition = "
    "<DEFAULT_PARTITION> ; Partition Resource = <memory:3072, vCores:8> ; Queue's Absolute capacity = 50.0 % ; "
)


@pytest.mark.parametrize(
    ("whose", "kind", "of", "limit"),
    [
        ("Queue's", "am-share", "the queue", "1536 MiB and 4 vcores"),
        ("User's", "user-am-share", "its user", "1 GiB and 2 vcores"),
    ],
)
def test_share_of_application_masters_reached(whose, kind, of, limit):
    """Which limit keeps an application waiting is told with its numbers, and where there is room."""
    evidence = Evidence(None, report("ACCEPTED", diagnostics=AM_SHARE.format(whose=whose)), scheduler=scheduler)

    assert explain(evidence) == Cause(
        kind=kind,
        what=f"{ID} waits: the share of the queue root.a for ApplicationMasters is used up",
        why=f"those of {of} may use {limit}; the running ones use 2688 MiB and 1 vcores, and this one needs 640 MiB "
        "and 1 vcores",
        mend="wait until one of `clusterkit app ls --all --state RUNNING --queue a` has ended, use another queue "
        "(--queue b), or have yarn.scheduler.capacity.maximum-am-resource-percent raised in capacity-scheduler.xml",
    )


def test_no_room_on_any_node():
    """An application that passed every limit but finds no room is told how much others hold."""
    evidence = Evidence(None, report("ACCEPTED", diagnostics=NO_ROOM), scheduler=scheduler)

    assert explain(evidence) == Cause(
        kind="queue-full",
        what=f"{ID} waits in the queue root.a: no node has room for its first container",
        why="applications hold 2688 MiB of the cluster's 3 GiB; the queue uses 87.5 % of the cluster, and may use "
        "100 %",
        mend="wait until one of `clusterkit app ls --all --state RUNNING` has ended, or ask for less memory",
    )


def test_queue_at_its_maximum():
    """A queue that may take no more is full, whatever the nodes have; another one is offered."""
    full = queue("a", used_capacity=50.0, max_capacity=50.0, used=Resources(1536, 1))
    known = Scheduler("capacityScheduler", None, (full, queue("b")))
    evidence = Evidence(None, report("ACCEPTED", diagnostics=NO_ROOM), scheduler=lambda: known)

    cause = explain(evidence)

    assert cause.what == f"{ID} waits in the queue root.a: its queue is full"
    assert cause.mend.startswith(
        "wait until one of `clusterkit app ls --all --state RUNNING --queue a` has ended, use another queue (--queue b)"
    )


@pytest.mark.parametrize(
    ("diagnostics", "kind"),
    [
        ("Skipping AM assignment as cluster resource is empty.", "no-nodes"),
        ("AM container is launched, waiting for AM container to Register with RM", "starting"),
    ],
)
def test_other_waits(diagnostics, kind):
    """A cluster without nodes, and an application that is about to start, are told apart."""
    assert explain(Evidence(None, report("ACCEPTED", diagnostics=diagnostics), scheduler=scheduler)).kind == kind
