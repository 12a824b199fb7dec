from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from clusterkit.hadoop.cluster import Cluster
from clusterkit.processes import ProcessIdentity

JOBS = Path(__file__).parent / "jobs"
SMALL = ("--executor-memory", "512m", "--executor-cores", "1", "--driver-memory", "600m")


@pytest.fixture(scope="module")
def yarn(cluster):
    """The session's cluster as a client sees it."""
    client = Cluster.from_directory("default", cluster.layout.conf, embedded=True)
    yield client
    client.resource_manager.close()


@pytest.fixture
def attachments(tmp_path):
    """A directory with a module, a file and an archive to send along."""
    (tmp_path / "helper.py").write_text("ANSWER = 42\n")
    (tmp_path / "some data.txt").write_text("déjà vu")
    (tmp_path / "conf.properties").write_text("spark.probe.file=from the file\nspark.probe.flag=weaker\n")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("inner.txt", "inside")
    return tmp_path


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_a_job_finds_everything_that_was_sent_along(cluster, clusterkit_cli, attachments, mode):
    """Arguments, modules, files, archives, variables and configuration reach driver and workers in both modes."""
    directory = attachments / "it's a; « job »"
    directory.mkdir()
    job = directory / "probe me.py"
    job.write_text((JOBS / "probe.py").read_text())

    done = clusterkit_cli(
        "submit",
        *SMALL,
        *("--deploy-mode", mode, "--name", "probe é", "--executors", "1"),
        *("--py-files", str(attachments / "helper.py")),
        *("--files", f"{attachments / 'some data.txt'}#data.txt"),
        *("--archives", f"{attachments / 'archive.zip'}#packed"),
        *("--properties-file", str(attachments / "conf.properties")),
        *("--conf", "spark.probe.flag=a = b", "--env-var", "PROBE_VARIABLE=x=y z"),
        str(job),
        *("--executors", "two words", "$HOME", "é"),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {  # nothing but the job's own line: not a word of ours or of Spark's
        "args": ["--executors", "two words", "$HOME", "é"],
        "worker": {
            "where": "worker",
            "python": sys.executable,
            "helper": 42,
            "variable": "x=y z",
            "file": "déjà vu",
            "archive": "inside",
        },
        "conf": {"spark.probe.flag": "a = b", "spark.probe.file": "from the file", "spark.app.name": "probe é"},
        "executors": 1,
    }
    assert f"the nodes run {sys.executable}: the interpreter that runs clusterkit, used in place" in done.stderr
    assert "running" in done.stderr


def test_the_pages_of_the_driver_are_attached_after_the_filter_of_yarn(cluster, clusterkit_cli, tmp_path):
    """Spark 4.3.0 dies now and then when both happen at once: the driver waits for the filter, and serves its pages."""
    job = tmp_path / "pages.py"
    job.write_text(
        "import os, urllib.request\n"
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.getOrCreate()\n"
        "log = open(os.environ['_CLUSTERKIT_DRIVER_LOG']).read()\n"
        "print('Add WebUI Filter' in log.partition('clusterkit.FilterBeforePages')[0])\n"
        "print(urllib.request.urlopen(spark.sparkContext.uiWebUrl + '/api/v1/version').status)\n"
    )

    done = clusterkit_cli("submit", *SMALL, str(job))

    assert (done.returncode, done.stdout) == (0, "True\n200\n"), done.stderr


def test_plain_python_needs_no_application(cluster, clusterkit_cli, tmp_path):
    """A job that never asks for Spark runs, its exit code is the command's, and it reads our standard input."""
    job = tmp_path / "plain.py"
    job.write_text("import sys\nprint(sys.stdin.read().upper())\nsys.exit(3)\n")

    done = clusterkit_cli("submit", str(job), stdin="abc")

    assert (done.returncode, done.stdout) == (3, "ABC\n")
    assert "Traceback" not in done.stderr


def test_a_job_that_fails_here_is_a_failed_application(cluster, clusterkit_cli, yarn, tmp_path):
    """The driver of client mode tells YARN of the job's failure, whose exit code is the command's."""
    job = tmp_path / "fails.py"
    job.write_text("from pyspark.sql import SparkSession\nSparkSession.builder.getOrCreate()\nraise SystemExit(7)\n")

    done = clusterkit_cli("submit", *SMALL, str(job))

    assert done.returncode == 7
    last = yarn.resource_manager.applications(limit=1)[0]
    assert (last.name, last.final_status) == ("fails.py", "FAILED")


def test_packages_are_resolved_and_reach_driver_and_executors(cluster, clusterkit_cli, tmp_path):
    """--packages fetches a jar from a Maven repository, and every JVM of the job has what it holds."""
    artifact = tmp_path / "repository" / "org" / "example" / "words" / "1.0"
    artifact.mkdir(parents=True)
    (artifact / "words-1.0.pom").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId><artifactId>words</artifactId>"
        "<version>1.0</version></project>"
    )
    with zipfile.ZipFile(artifact / "words-1.0.jar", "w") as jar:
        jar.writestr("words.properties", "word=found")
    settings = tmp_path / "ivy.xml"
    settings.write_text(
        f"""<ivysettings>
          <settings defaultResolver="here"/><caches defaultCacheDir="{tmp_path}/ivy"/>
          <resolvers><ibiblio name="here" m2compatible="true" root="{(tmp_path / "repository").as_uri()}"/></resolvers>
        </ivysettings>"""
    )
    job = tmp_path / "words.py"
    job.write_text(
        "from pyspark.sql import SparkSession\n"
        "sc = SparkSession.builder.getOrCreate().sparkContext\n"
        "loader = sc._jvm.java.lang.Thread.currentThread().getContextClassLoader()\n"
        "print(loader.getResource('words.properties') is not None)\n"
        "import glob\n"
        "print(sc.parallelize([0], 1).map(lambda _: len(glob.glob('*words-1.0.jar'))).collect())\n"
    )

    done = clusterkit_cli(
        "submit",
        *SMALL,
        *("--packages", "org.example:words:1.0", "--conf", f"spark.jars.ivySettings={settings}"),
        str(job),
    )

    assert (done.returncode, done.stdout) == (0, "True\n[1]\n"), done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_submit_kills_its_application(cluster, clusterkit_cli, yarn, tmp_path, number, code):
    """Ctrl-C and SIGTERM kill the application, say so, and leave no process behind."""
    with running(clusterkit_cli, tmp_path) as (process, application_id):
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == code
    assert f"killed {application_id}" in stderr
    assert yarn.resource_manager.application(application_id).state in {"KILLED", "FINISHED"}


def test_an_application_ends_with_a_client_that_was_killed(cluster, clusterkit_cli, yarn, tmp_path):
    """After kill -9 of the client, the driver and the application end by themselves within 30 s."""
    with running(clusterkit_cli, tmp_path) as (process, application_id):
        drivers = [
            ProcessIdentity.from_pid(pid)
            for words in (("SparkSubmit", str(clusterkit_cli.data_dir)), ("wait.py", str(tmp_path / "wait")))
            for pid in pids_of(*words)
            if pid != process.pid
        ]
        process.kill()
        process.communicate(timeout=10)
        eventually(lambda: yarn.resource_manager.application(application_id).ended, timeout_s=30)

    assert len(drivers) == 4  # the job and Spark's JVM, each with the holder of its leash
    eventually(lambda: not any(driver.alive for driver in drivers), timeout_s=10)


def test_secrets_are_nowhere_to_be_read(cluster, clusterkit_cli, yarn, tmp_path):
    """The value of a secret is in no argument of any process, no log, here or on the nodes, and no report."""
    canary = "hunter2-canary-0451"
    options = ("--properties-file", str(tmp_path / "conf"))
    (tmp_path / "conf").write_text(f"spark.hadoop.my.password={canary}\n")
    settings = tmp_path / "clusterkit.toml"
    settings.write_text(f'[spark.conf]\n"spark.hadoop.fs.s3a.secret.key" = "{canary}"\n')
    settings.chmod(0o600)

    with running(clusterkit_cli, tmp_path, *options, cwd=tmp_path) as (process, application_id):
        eventually(lambda: yarn.resource_manager.application(application_id).running_containers == 2, timeout_s=60)
        arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    process.communicate(timeout=60)
    eventually(lambda: yarn.resource_manager.application(application_id).ended, timeout_s=60)

    launches = sorted((clusterkit_cli.data_dir / "launches").iterdir(), key=lambda path: path.stat().st_mtime)
    told = {
        "arguments": b"".join(arguments),
        "driver log": (launches[-1] / "driver.log").read_bytes(),
        "jvm": (launches[-1] / "jvm.err").read_bytes(),
        "logs": clusterkit_cli("app", "logs", application_id).stdout.encode(),
        "report": clusterkit_cli("app", "show", "--json", application_id).stdout.encode(),
        "dry run": clusterkit_cli("submit", "--dry-run", str(JOBS / "wait.py"), cwd=tmp_path).stdout.encode(),
    }
    assert canary in (launches[-1] / "spark.properties").read_text()
    assert all(text for place, text in told.items() if place != "jvm")
    assert {place for place, text in told.items() if canary.encode() in text} == set()


def test_a_detached_job_goes_on_by_itself(cluster, clusterkit_cli, yarn, tmp_path):
    """--detach prints the application's id alone, and the job runs to its end in cluster mode."""
    job = tmp_path / "detached.py"
    job.write_text("from pyspark.sql import SparkSession\nprint(SparkSession.builder.getOrCreate().range(9).count())\n")

    done = clusterkit_cli("submit", "--detach", *SMALL, str(job))

    assert done.returncode == 0, done.stderr
    application_id = done.stdout.strip()
    eventually(lambda: yarn.resource_manager.application(application_id).ended, timeout_s=120)
    assert yarn.resource_manager.application(application_id).final_status == "SUCCEEDED"


def test_a_dry_run_prints_the_plan_and_does_nothing(cluster, clusterkit_cli, yarn, tmp_path):
    """--dry-run --json is the whole plan as JSON; no application, no file on disk."""
    job = tmp_path / "job.py"
    job.write_text("print(1)\n")
    before = len(yarn.resource_manager.applications())

    done = clusterkit_cli("submit", "--dry-run", "--json", "--executor-memory", "1g", str(job), "x")

    plan = json.loads(done.stdout)
    assert plan["spec"]["args"] == ["x"]
    assert plan["conf"]["spark.executor.memory"] == "1024m"
    assert plan["job_argv"] == [sys.executable, str(job), "x"]
    assert not Path(plan["directory"]).exists()
    assert len(yarn.resource_manager.applications()) == before


def test_a_cluster_that_is_not_ours_gets_sparks_jars_and_our_environment(cluster, clusterkit_cli, yarn, tmp_path):
    """With HADOOP_CONF_DIR the nodes read Spark from one archive on HDFS, and run our own environment."""
    conf_dir = tmp_path / "conf"
    conf_dir.mkdir()
    for site in cluster.layout.conf.glob("*-site.xml"):
        (conf_dir / site.name).write_bytes(site.read_bytes())
    job = tmp_path / "where.py"
    job.write_text(
        "import sys\n"
        "from pyspark.sql import SparkSession\n"
        "context = SparkSession.builder.getOrCreate().sparkContext\n"
        "print(context.parallelize([0], 1).map(lambda _: sys.prefix).first())\n"
    )
    environment = {"HADOOP_CONF_DIR": str(conf_dir), "CLUSTERKIT_NODE_CACHE": str(tmp_path / "cache")}
    here = ("--conf", f"spark.pyspark.python={sys.executable}")

    first, second = (
        clusterkit_cli("submit", *python, "--conf", "spark.driver.host=localhost", *SMALL, str(job), env=environment)
        for python in (here, ())
    )

    assert first.stdout == f"{sys.prefix}\n", first.stderr
    assert second.stdout.startswith(f"{tmp_path / 'cache'}/"), second.stderr
    assert "Spark's jars, once" in first.stderr
    assert "Spark's jars, once" not in second.stderr
    assert [status.name.startswith("spark-") for status in yarn.hdfs.list("/clusterkit/spark")] == [True]


def test_python_opens_a_session_and_submits_a_job(cluster, clusterkit_cli, tmp_path):
    """clusterkit.spark() is a SparkSession on the cluster; clusterkit.submit() is the handle of a job."""
    job = tmp_path / "job.py"
    job.write_text("import sys\nsys.exit(4)\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, clusterkit\n"
        "application = clusterkit.submit(sys.argv[1])\n"
        "print(application.wait().exit_code)\n"
        "spark = clusterkit.spark(executor_memory='512m', executor_cores=1)\n"
        "print(spark.range(1000).selectExpr('sum(id)').first()[0], spark.sparkContext.master)\n"
        "print(clusterkit.spark() is spark)\n"
        "spark.stop()\n"
    )

    done = subprocess.run(
        [sys.executable, str(script), str(job)],
        env=clusterkit_cli.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout == "4\n499500 yarn\nTrue\n", done.stderr


def test_executors_come_and_go_with_dynamic_allocation(cluster, clusterkit_cli, tmp_path):
    """With --dynamic-allocation Spark asks for executors as tasks wait, up to --executors."""
    job = tmp_path / "dynamic.py"
    job.write_text(
        "import time\nfrom pyspark.sql import SparkSession\n"
        "sc = SparkSession.builder.getOrCreate().sparkContext\n"
        "before = sc._jsc.sc().getExecutorMemoryStatus().size() - 1\n"
        "hosts = sc.parallelize(range(4), 4).map(lambda n: time.sleep(1)).count()\n"
        "print(sc.getConf().get('spark.dynamicAllocation.maxExecutors'), hosts)\n"
    )

    done = clusterkit_cli("submit", "--dynamic-allocation", "--executors", "2", *SMALL, str(job))

    assert (done.returncode, done.stdout) == (0, "2 4\n"), done.stderr


BAD_REQUESTS = {
    "missing": (("nowhere.py",), "nowhere.py"),
    "syntax": (("broken.py",), "line 2"),
    "size": (("--executor-memory", "4 apples", "good.py"), "--executor-memory"),
    "setting": (("--executor-memry", "4g", "good.py"), "--executor-memory"),
    "queue": (("--queue", "defualt", "good.py"), "default"),
    "too-large": (("--executor-memory", "900g", "good.py"), "--executor-memory"),
    "too-many-vcores": (("--executor-cores", "900", "good.py"), "--executor-cores"),
    "owned-key": (("--conf", "spark.executor.memory=4g", "good.py"), "executor.memory"),
    "no-keytab": (("--principal", "me@REALM", "good.py"), "keytab"),
    "detached-client": (("--detach", "--deploy-mode", "client", "good.py"), "--deploy-mode"),
    "json": (("--json", "good.py"), "--dry-run"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_refused_in_three_lines(cluster, clusterkit_cli, tmp_path, case):
    """What cannot work is refused before anything is sent, in three lines that name it, with exit code 64."""
    args, named = BAD_REQUESTS[case]
    (tmp_path / "good.py").write_text("print(1)\n")
    (tmp_path / "broken.py").write_text("x = 1\nif x print(x)\n")

    done = clusterkit_cli("submit", *args, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (64, "")
    assert named in done.stderr
    lines = done.stderr.splitlines()
    assert [line[:7] for line in lines if line[:7] in {"Error: ", "  Why: ", "  Mend:"}] == [
        "Error: ",
        "  Why: ",
        "  Mend:",
    ]
    assert "Traceback" not in done.stderr


class running:  # noqa: N801 - reads as a statement
    """A submitted job that waits; the file it waits for is removed at the end, whatever happened."""

    def __init__(self, clusterkit_cli, tmp_path, *options, cwd=None):
        self._flag = tmp_path / "wait"
        self._flag.touch()
        self._process = subprocess.Popen(
            clusterkit_cli.argv("submit", *SMALL, *options, str(JOBS / "wait.py"), str(self._flag)),
            env=clusterkit_cli.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        application_id = self._process.stdout.readline().strip()
        assert application_id.startswith("application_"), self._process.communicate()[1]
        return self._process, application_id

    def __exit__(self, *_):
        self._flag.unlink()
        if self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=60)


def pids_of(*words):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if all(word in line for word in words) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def eventually(condition, *, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s"
        time.sleep(0.2)
