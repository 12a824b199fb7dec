from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusterkit.applications.following import ends_of_collected_logs
from clusterkit.applications.why import Evidence, explain
from clusterkit.embedded import marks
from clusterkit.hadoop.cluster import Cluster
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Callable

JOBS = Path(__file__).parent / "jobs"
FAILURES = JOBS / "failures.py"
SMALL = ("--executor-memory", "512m", "--executor-cores", "1", "--driver-memory", "600m")
CONTAINER = r"container_(?:e\d+_)?\d+_\d+_\d+_\d+"


def told(stderr: str) -> str:
    """Return the three sentences that a command ended with."""
    return f"\n{stderr}".rpartition("\nError: ")[2].partition("\n  Logs: ")[0].rstrip("\n")


def at(code: str, function: str = "<module>", path: Path = FAILURES) -> str:
    """Return a frame of a job as it is told: the place of a line of code, and the line."""
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.strip() == code)
    return f'File "{path}", line {number}, in {function}\n  {code}'


def in_lines(text: str) -> str:
    """Return a sentence of several lines as an error prints it."""
    return text.replace("\n", "\n        ")


@pytest.fixture(scope="module")
def yarn(cluster) -> Cluster:
    """Return the session's cluster as a client sees it."""
    return Cluster.from_directory("default", cluster.layout.conf, embedded=True)


# A job that fails in many ways, one after the other, on real executors.

IN_A_JOB = {
    "worker_exception": (
        "user-exception",
        "the job raised ZeroDivisionError in a Python worker on a node",
        f"{at('return 100 // (total - 3)', 'share')}\nZeroDivisionError: integer division or modulo by zero",
        rf"correct the job at {re.escape(str(FAILURES))}:\d+; the lines above are its own",
    ),
    "worker_import": (
        "import-error",
        "the module no_such_module is missing on a node",
        f"{at('import no_such_module', 'load')}\nModuleNotFoundError: No module named 'no_such_module'",
        r"send it along, --py-files no_such_module\.py .*",
    ),
    "missing_table": (
        "file-missing",
        "the job reads {fs}/no/such/table with spaces, which does not exist",
        "HDFS has no such file or directory\n"
        + at('spark.read.parquet("/no/such/table with spaces").show()', "missing_table"),
        "check the path: .*--files",
    ),
    "missing_file": (
        "file-missing",
        "the job reads {fs}/no/such/file.txt, which does not exist",
        "HDFS has no such file or directory\n" + at('sc.textFile("/no/such/file.txt").count()', "missing_file"),
        "check the path: .*--files",
    ),
    "denied": (
        "permission-denied",
        "HDFS does not let somebody write in /user",
        "access=WRITE on inode /user, which belongs to {user}:supergroup with mode drwxr-xr-x\n"
        + at(
            'files.FileSystem.newInstance(uri, conf, "somebody").mkdirs(files.Path("/user/private"))',
            "denied",
        ),
        "use a path that belongs to somebody, such as /user/somebody, or ask .* for it",
    ),
    "python_missing": (
        "python-missing",
        "a node cannot run the Python /opt/none/python3",
        "on localhost: there is no such file (error=2, No such file or directory)",
        "name a Python that every node has: --conf spark.pyspark.python=PATH; .*",
    ),
    "worker_killed": (
        "worker-crashed",
        "a Python worker on a node ended without an exception",
        "it crashed in compiled code, or was killed\n"
        + at(
            "sc.parallelize(range(1), 1).map(lambda _: os.kill(os.getpid(), signal.SIGKILL)).collect()", "worker_killed"
        ),
        "submit it with --conf spark.python.worker.faulthandler.enabled=true .*",
    ),
    "executor_heap": (
        "heap-exhausted",
        "the JVM of the executor ran out of memory",
        "its heap of 512 MiB is full: Java heap space\n"
        + at(
            'spark.range(1).selectExpr("length(repeat(repeat(cast(id as string), 50000000), 30))").collect()',
            "executor_heap",
        ),
        "give it more: --executor-memory 1024m; or use more partitions",
    ),
    "driver_heap": (
        "heap-exhausted",
        "the JVM of the driver ran out of memory",
        "its heap of 600 MiB is full: Java heap space\n"
        + at("blocks.add(sc._jvm.java.nio.ByteBuffer.allocate(100_000_000))", "driver_heap"),
        "give it more: --driver-memory 1200m; or write or aggregate the result instead of collecting it",
    ),
    "executor_killed": (
        "executor-lost",
        r"executor {number} was lost: its process on localhost was ended by SIGKILL",
        "exit status 137: YARN did not kill it for its memory; a person, a program or the node's kernel did it",
        rf"read its last words: `clusterkit app logs {{id}} --container {CONTAINER}`; `dmesg` on the node says .*",
    ),
}


@pytest.fixture(scope="module")
def failures(cluster, clusterkit_cli, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run the job that fails in every way, and last of memory; return what it kept, and how the command ended."""
    kept = tmp_path_factory.mktemp("failures")
    done = clusterkit_cli(
        "submit", *SMALL, "--conf", "spark.task.maxFailures=1", str(FAILURES), str(kept), *IN_A_JOB, "executor_memory"
    )
    return kept, done


@pytest.mark.parametrize("failure", IN_A_JOB)
def test_failure_in_a_job(failures, yarn, failure):
    """What Spark and Python wrote of each failure is told as its cause, with place, numbers and next step."""
    kept, _ = failures
    report = yarn.resource_manager.applications(limit=1)[0]
    evidence = Evidence(
        1,
        report,
        stderr=(kept / f"{failure}.txt").read_text(),
        spec={"executor": {"memory_mib": 512}, "driver_memory_mib": 600},
        logs_of=lambda container_id: ends_of_collected_logs(yarn, report.id, container_id),
        scheduler=yarn.resource_manager.scheduler,
    )

    cause = explain(evidence)

    kind, what, why, mend = IN_A_JOB[failure]
    number = re.findall(r"executor (\d+) was lost", cause.what)
    known = {"fs": yarn.hdfs.uri, "user": yarn.configuration.user, "number": "".join(number)}
    assert (cause.kind, cause.what, cause.why) == (kind, what.format(**known), why.replace("{user}", known["user"]))
    assert re.fullmatch(mend.replace("{id}", report.id), cause.mend)


def test_executor_that_uses_too_much_memory(failures):
    """Submit ends with the cause: what was used, of how much, and what to set."""
    _, done = failures

    assert done.returncode == 1
    found = re.fullmatch(
        r"the executor was killed for using more memory than it asked for\n"
        r"  Why:  its container used (1\.[0-9]) GiB, and may use 896 MiB: 512 MiB of heap and 384 MiB for everything "
        r"else, which is where Python's memory counts\n"
        r"  Mend: give it at least --conf spark\.executor\.memoryOverhead=(\d+)m, or let it hold less at a time",
        told(done.stderr),
    )
    assert found, done.stderr
    assert float(found[1]) * 1024 < int(found[2]) + 512


# What YARN refuses, though clusterkit itself was not asked.


@pytest.fixture(scope="module")
def too_much(cluster, clusterkit_cli, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run the job that asks for what there is not; return what it kept, and how the command ended."""
    kept = tmp_path_factory.mktemp("too-much")
    return kept, clusterkit_cli("submit", *SMALL, str(JOBS / "too_much.py"), str(kept))


def test_queue_that_yarn_does_not_know(too_much, yarn):
    """A queue that the job itself names is explained like one that was asked for."""
    stderr = (too_much[0] / "unknown-queue.txt").read_text()

    cause = explain(Evidence(1, None, stderr=stderr, scheduler=yarn.resource_manager.scheduler))

    assert (cause.kind, cause.what, cause.why, cause.mend) == (
        "unknown-queue",
        "the queue nope does not exist",
        "the cluster has default",
        "name one that exists: --queue default",
    )


def test_memory_that_no_node_has(too_much, yarn):
    """More memory than a container may have, asked for by the job itself."""
    stderr = (too_much[0] / "too-large.txt").read_text()
    most_mib = yarn.resource_manager.scheduler().max_allocation.memory_mib

    cause = explain(Evidence(1, None, stderr=stderr))

    assert (cause.kind, cause.what) == (
        "too-large",
        "the executor asks for more memory than the cluster gives one container",
    )
    heap_mib = int(cause.mend.removeprefix("ask for at most --executor-memory ").removesuffix("m"))
    assert heap_mib + max(384, heap_mib // 10) <= most_mib < heap_mib + max(384, heap_mib // 10) + 64


def test_vcores_that_no_node_has(too_much, yarn):
    """More vcores than a container may have: YARN refuses the ApplicationMaster's request, and submit says so."""
    most = yarn.resource_manager.scheduler().max_allocation.vcores

    assert told(too_much[1].stderr) == (
        "a container of the job asks for more vcores than the cluster gives one\n"
        f"  Why:  it is 64; the most is {most}\n"
        f"  Mend: ask for at most --executor-cores {most}"
    )


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--queue", "nope"), "the queue nope does not exist"),
        (
            ("--executor-memory", "100g"),
            "the executor asks for more memory than the cluster default gives one container",
        ),
        (("--executor-cores", "640"), "the executor asks for more vcores than the cluster default gives one container"),
    ],
)
def test_what_is_refused_before_anything_is_sent(cluster, clusterkit_cli, tmp_path, options, what):
    """The same, asked of clusterkit, is a wrong request: nothing is started for it."""
    job = tmp_path / "job.py"
    job.write_text("print(1)\n")

    done = clusterkit_cli("submit", *options, str(job))

    assert (done.returncode, done.stdout) == (64, "")
    assert told(done.stderr).startswith(f"{what}\n")


# Drivers, here and on the cluster.


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("raise LookupError('what a pity')", "the job raised LookupError in the driver"),
        ("import no_such_module", "the module no_such_module is missing in the driver"),
        ("raise SystemExit(5)", "the job ended with exit code 5"),
    ],
)
def test_driver_here(cluster, clusterkit_cli, tmp_path, code, what):
    """What a driver in client mode ended of is told below what it printed."""
    job = tmp_path / "job.py"
    job.write_text(f"{code}\n")

    done = clusterkit_cli("submit", str(job))

    assert done.returncode == (5 if "5" in what else 1)
    assert told(done.stderr).startswith(f"{what}\n")


ON_THE_CLUSTER = {
    "exception": (
        "def main():\n    raise LookupError('what a pity')\nmain()\n",
        1,
        (
            "the job raised LookupError in the driver\n"
            '  Why:  File "job.py", line 3, in <module>\n'
            "          main()\n"
            '        File "job.py", line 2, in main\n'
            "          raise LookupError('what a pity')\n"
            "        LookupError: what a pity\n"
            "  Mend: correct the job at job.py:2; the lines above are its own"
        ),
    ),
    "import": (
        "import no_such_module\n",
        1,
        (
            "the module no_such_module is missing on the node of the driver\n"
            '  Why:  File "job.py", line 1, in <module>\n'
            "          import no_such_module\n"
            "        ModuleNotFoundError: No module named 'no_such_module'\n"
            "  Mend: send it along, --py-files no_such_module.py (a package: as a .zip), or have it in the Python of "
            "the nodes (--conf spark.pyspark.python=PATH)"
        ),
    ),
    "killed": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n",
        137,
        (
            "the process of the driver on localhost was ended by SIGKILL\n"
            "  Why:  its container exited with 137, and YARN did not kill it for its memory: a person, a program or "
            "the node's kernel did it\n"
            "  Mend: read its last words: `clusterkit app logs ID`; `dmesg` on the node says whether the kernel ended "
            "it for want of memory"
        ),
    ),
    "memory": (
        "import time\ndata = bytearray(b'x') * (1200 * 1024**2)\ntime.sleep(240)\n",
        1,
        (
            r"the driver was killed for using more memory than it asked for\n"
            r"  Why:  its container used 1\.[2-5] GiB, and may use 1 GiB: 600 MiB of heap and 424 MiB for everything "
            r"else, which is where Python's memory counts\n"
            r"  Mend: give it at least --conf spark\.driver\.memoryOverhead=\d+m, or let it hold less at a time"
        ),
    ),
}


@pytest.mark.parametrize("failure", ON_THE_CLUSTER)
def test_driver_on_the_cluster(cluster, clusterkit_cli, yarn, tmp_path, failure):
    """In cluster mode the driver's logs and YARN tell the cause, to submit and to `app why` from another shell."""
    code, exit_code, text = ON_THE_CLUSTER[failure]
    job = tmp_path / "job.py"
    job.write_text(code)

    done = clusterkit_cli("submit", *SMALL, "--deploy-mode", "cluster", str(job))

    application_id = yarn.resource_manager.applications(limit=1)[0].id
    assert done.returncode == exit_code, done.stderr
    assert (
        re.fullmatch(text, told(done.stderr))
        if failure == "memory"
        else told(done.stderr).replace(application_id, "ID") == text
    ), done.stderr
    assert clusterkit_cli("app", "why", application_id).stdout == f"{told(done.stderr)}\n"


def test_python_that_the_driver_node_does_not_have(cluster, clusterkit_cli, tmp_path):
    """A Python that is nowhere is told when the driver cannot be started with it."""
    job = tmp_path / "job.py"
    job.write_text("print(1)\n")

    done = clusterkit_cli(
        "submit", "--deploy-mode", "cluster", "--conf", "spark.pyspark.python=/opt/none/python3", *SMALL, str(job)
    )

    assert done.returncode == 1
    assert told(done.stderr).startswith(
        "a node cannot run the Python /opt/none/python3\n"
        "  Why:  on the driver's node: there is no such file (error=2, No such file or directory)\n"
    )


def test_application_master_that_does_not_start(cluster, clusterkit_cli, tmp_path):
    """What the ApplicationMaster's own JVM said is told, not the exception that it caused here."""
    job = tmp_path / "job.py"
    job.write_text("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\n")

    done = clusterkit_cli("submit", *SMALL, "--conf", "spark.yarn.am.extraJavaOptions=-agentlib:none", str(job))

    assert done.returncode == 1
    assert told(done.stderr).startswith(
        "the application's first container did not start\n  Why:  Could not find agent library none on the library path"
    ), done.stderr


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_user_without_a_home_directory(cluster, clusterkit_cli, yarn, tmp_path, mode):
    """A submission that HDFS refuses to a user says who may not do what where, and how to mend it."""
    job = tmp_path / "job.py"
    job.write_text("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\n")

    done = clusterkit_cli("submit", *SMALL, "--deploy-mode", mode, str(job), env={"HADOOP_USER_NAME": "somebody"})

    place = in_lines("\n" + at("SparkSession.builder.getOrCreate()", path=job)) if mode == "client" else ""
    assert done.returncode != 0
    assert told(done.stderr) == (
        "HDFS does not let somebody write in /user\n"
        f"  Why:  access=WRITE on inode /user, which belongs to {yarn.configuration.user}:supergroup with mode "
        f"drwxr-xr-x{place}\n"
        "  Mend: somebody has no home directory, where Spark puts a job's files: have HDFS's administrator make one, "
        "`hdfs dfs -mkdir /user/somebody` and `hdfs dfs -chown somebody /user/somebody`"
    )


# A cluster of our own: small, with two queues, and broken on purpose.


@pytest.fixture(scope="module")
def small(fresh_cluster, clusterkit_cli):
    """Return a small cluster with two queues, which shares the session's command line."""
    made = fresh_cluster("small", data_dir=clusterkit_cli.data_dir)
    made.up(ClusterSpec(name="small", memory_mib=3072, queues={"a": 50, "b": 50}))
    return made


def eventually(done: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)


def test_what_an_application_waits_for(small, clusterkit_cli, submit_shell):
    """Three applications: one runs, one finds no room, one is kept back by the share of ApplicationMasters."""
    yarn = small.cluster()
    manager = yarn.resource_manager
    runs = submit_shell(yarn, "sleep 120", memory_mib=2600, queue="a")
    try:
        eventually(lambda: manager.application(runs).running_containers == 1, "the first application has its container")
        full, kept_back = (submit_shell(yarn, "sleep 120", memory_mib=640, queue=queue) for queue in ("b", "a"))
        for waiting in (full, kept_back):
            eventually(
                lambda waiting=waiting: "Details" in manager.application(waiting).diagnostics, f"{waiting} is looked at"
            )

        told_full, told_back = (
            clusterkit_cli("app", "why", "--cluster", "small", waiting).stdout for waiting in (full, kept_back)
        )
        status = clusterkit_cli("app", "status", "--cluster", "small", kept_back).stdout
    finally:
        for report in manager.applications(states=["ACCEPTED", "RUNNING"]):
            manager.kill(report.id)

    assert told_full == (
        f"{full} waits in the queue root.b: no node has room for its first container\n"
        "  Why:  applications hold 2688 MiB of the cluster's 3 GiB; the queue uses 0 % of the cluster, and may use "
        "100 %\n"
        "  Mend: wait until one of `clusterkit app ls --all --state RUNNING` has ended, or ask for less memory\n"
    )
    assert told_back == (
        f"{kept_back} waits: the share of the queue root.a for ApplicationMasters is used up\n"
        "  Why:  those of the queue may use 1536 MiB and 4 vcores; the running ones use 2688 MiB and 1 vcores, and "
        "this one needs 640 MiB and 1 vcores\n"
        "  Mend: wait until one of `clusterkit app ls --all --state RUNNING --queue a` has ended, use another queue "
        "(--queue b), or have yarn.scheduler.capacity.maximum-am-resource-percent raised in capacity-scheduler.xml\n"
    )
    assert re.search(r"^waits +the queue's share for ApplicationMasters is used up$", status, re.MULTILINE)


def test_safe_mode(small, clusterkit_cli, tmp_path):
    """A NameNode that allows no writes is named as the cause of a submission that failed."""
    job = tmp_path / "job.py"
    job.write_text("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\n")
    safe_mode(small, "enter")
    try:
        done = clusterkit_cli("submit", "--cluster", "small", "--queue", "a", *SMALL, str(job))
    finally:
        safe_mode(small, "leave")

    assert done.returncode == 1
    assert re.fullmatch(
        r"HDFS accepts no writes: its NameNode is in safe mode\n"
        r"  Why:  Cannot create (?:directory|file) ?/user/.*\n"
        r'        File ".*job\.py", line 2, in <module>\n'
        r"          SparkSession\.builder\.getOrCreate\(\)\n"
        r"  Mend: wait until it leaves safe mode by itself, .*`hdfs dfsadmin -safemode leave`",
        told(done.stderr),
    ), done.stderr


def safe_mode(small, change: str) -> None:
    """Change the NameNode's safe mode with Hadoop's own command."""
    environment = small.environment()
    lib = small.cluster().configuration.get("yarn.application.classpath").rpartition(",")[2]
    subprocess.run(
        [
            f"{environment['JAVA_HOME']}/bin/java",
            "-cp",
            f"{environment['HADOOP_CONF_DIR']}:{lib}",
            "org.apache.hadoop.hdfs.tools.DFSAdmin",
            "-safemode",
            change,
        ],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_resource_manager_that_is_gone(small, clusterkit_cli, tmp_path):
    """A ResourceManager that dies under a job, is asked for another, and is asked why: each says where it was."""
    (manager,) = (mark.process for mark in marks.daemons(small.layout.root) if mark.daemon == "resourcemanager")
    ports = small.cluster().configuration
    client, web = ports.get("yarn.resourcemanager.address"), ports.get("yarn.resourcemanager.webapp.address")
    job = tmp_path / "job.py"
    job.write_text(
        f"import os, signal\nos.kill({manager.pid}, signal.SIGKILL)\n"
        "from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\n"
    )
    patience = (
        *("--conf", "spark.hadoop.yarn.resourcemanager.connect.max-wait.ms=1000"),
        *("--conf", "spark.hadoop.ipc.client.connect.max.retries=1"),
    )
    arguments = ("--cluster", "small", "--queue", "a", *SMALL, *patience, str(job))
    try:
        under_the_job = clusterkit_cli("submit", *arguments)
        eventually(lambda: not manager.alive, "the ResourceManager is dead")
        before_the_job = clusterkit_cli("submit", *arguments)
        asked_why = clusterkit_cli("app", "why", "--cluster", "small", "application_1700000000000_0001")
    finally:
        small.up()

    assert under_the_job.returncode == 1
    assert told(under_the_job.stderr).startswith(
        f"the ResourceManager at {client.replace('127.0.0.1', 'localhost')} does not answer\n"
        "  Why:  Connection refused\n"
    ), under_the_job.stderr
    for done in (before_the_job, asked_why):
        assert done.returncode == 69
        assert web in done.stderr
        assert len(told(done.stderr).splitlines()) == 3
