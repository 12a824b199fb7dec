from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterkit.hadoop.cluster import Cluster
from clusterkit.launchers.spark.home import find_spark

SMALL = ("--executor-memory", "512m", "--executor-cores", "1", "--driver-memory", "600m", "--executors", "1")
JOB = """\
import json, os, sys
from pyspark.sql import SparkSession

def told(_):
    import helper, mine, six
    return {
        "prefix": sys.prefix, "executable": sys.executable, "six": six.__file__, "mine": mine.ANSWER,
        "helper": helper.WORD, "home": os.environ.get("PYTHONHOME"),
    }

spark = SparkSession.builder.getOrCreate()
print(json.dumps([told(0), spark.sparkContext.parallelize([0], 1).map(told).first()]))
"""


@pytest.fixture(scope="module")
def yarn(cluster) -> Cluster:
    """The session's cluster as a client sees it."""
    return Cluster.from_directory("default", cluster.layout.conf, embedded=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A user's project: an environment of one package, a package of their own, a job with a module beside it."""
    root = tmp_path_factory.mktemp("a project é")
    (root / "clusterkit.toml").write_text('[environments.small]\npackages = ["six==1.17.0"]\nlocal = ["src/mine"]\n')
    (root / "src" / "mine").mkdir(parents=True)
    (root / "src" / "mine" / "__init__.py").write_text("ANSWER = 42\n")
    (root / "jobs").mkdir()
    (root / "jobs" / "helper.py").write_text('WORD = "beside"\n')
    (root / "jobs" / "job.py").write_text(JOB)
    return root


@pytest.fixture(scope="module")
def node_cache(tmp_path_factory) -> Path:
    """Where the nodes unpack images, for these tests alone."""
    return tmp_path_factory.mktemp("node") / "cache"


@pytest.fixture(scope="module")
def submit(cluster, clusterkit_cli, project, node_cache):
    """Submit the project's job in its environment."""

    def run(*options: str, job: str = "jobs/job.py", env: dict[str, str] | None = None):
        return clusterkit_cli(
            "submit",
            *SMALL,
            *("--env", "small"),
            *options,
            job,
            cwd=project,
            env={"CLUSTERKIT_NODE_CACHE": str(node_cache), **(env or {})},
        )

    return run


@pytest.fixture(scope="module")
def first(submit) -> subprocess.CompletedProcess[str]:
    """The first submission of all: everything is built, put and unpacked."""
    return submit("--deploy-mode", "cluster")


def test_driver_and_executors_run_from_the_image(first, node_cache):
    """Interpreter, packages and the user's own code come from the node's cache, on the driver and on the executors."""
    assert first.returncode == 0, first.stderr
    driver, executor = json.loads(first.stdout)
    assert driver == executor
    prefix = Path(executor["prefix"])
    assert prefix.is_relative_to(node_cache)
    assert Path(executor["executable"]).is_relative_to(prefix)
    assert Path(executor["six"]).is_relative_to(prefix)
    assert (executor["mine"], executor["helper"], executor["home"]) == (42, "beside", None)


def test_what_was_done_is_told(first):
    """The upload is a stage, and the image is named."""
    assert re.search(r"^ +[\d.]+ s  uploading: ", first.stderr, re.MULTILINE)
    assert re.search(r"the nodes run clusterkit/bin/python: the image small [0-9a-f]{12}, Python 3\.\d+", first.stderr)


def test_the_report_tells_the_image_and_how_it_came_to_the_nodes(first, clusterkit_cli, yarn):
    """Months later `app show` still says which image a job ran from, and what each container found."""
    application = next(report for report in yarn.resource_manager.applications() if report.name == "job.py")

    shown = json.loads(clusterkit_cli("app", "show", "--json", application.id).stdout)

    assert shown["image"]["name"] == "small"
    assert (shown["image"]["transport"], shown["image"]["proof"]) == ("fast", "without NumPy")
    assert f"clusterkit-image-{shown['image']['id'][:12]}" in application.tags
    assert len(shown["nodes"]) == 2  # the driver's container and the executor's
    assert [node["hit"] for node in shown["nodes"]].count(False) >= 1


def test_an_edit_is_there_at_the_next_submission_and_little_else_travels(first, submit, project):
    """A changed line changes one layer; nothing else is built, uploaded or unpacked again."""
    (project / "src" / "mine" / "__init__.py").write_text("ANSWER = 43\n")

    second = submit()

    assert second.returncode == 0, second.stderr
    driver, executor = json.loads(second.stdout)
    assert executor["mine"] == 43
    assert executor["prefix"] == json.loads(first.stdout)[1]["prefix"]
    assert driver["six"] != executor["six"]  # the driver of client mode is here, in the environment it was made from
    assert "installing" not in second.stderr
    assert "proving" not in second.stderr
    uploaded = re.search(r"uploading: (\d+(?:\.\d+)?) (KiB|B) of ", second.stderr)
    assert "MiB" not in second.stderr.partition("uploading")[2].partition("\n")[0], uploaded


def test_native_transport(first, submit):
    """Where the cache may not be used YARN unpacks the image, which then lies in the container's directory."""
    done = submit("--transport", "native", "--deploy-mode", "cluster")

    assert done.returncode == 0, done.stderr
    for told in json.loads(done.stdout):
        assert re.search(r"/container_\w+/clusterkit-image$", told["prefix"])
        assert (told["mine"], told["helper"]) == (43, "beside")


def test_an_image_brings_its_own_java(cluster, clusterkit_cli, project, node_cache):
    """`java = true` carries this machine's JDK, and the driver's JVM on the cluster runs it."""
    (project / "java.yaml").write_text("name: with-java\npackages: [six==1.17.0]\njava: true\n")
    job = project / "jobs" / "java_home.py"
    job.write_text(
        "from pyspark.sql import SparkSession\n"
        "sc = SparkSession.builder.getOrCreate().sparkContext\n"
        "print(sc._jvm.java.lang.System.getProperty('java.home'))\n"
        "print(sc.parallelize([0], 1).map(lambda _: __import__('os').environ['JAVA_HOME']).first())\n"
    )

    done = clusterkit_cli(
        *("submit", *SMALL, "--env", "java.yaml", "--deploy-mode", "cluster", str(job)),
        cwd=project,
        env={"CLUSTERKIT_NODE_CACHE": str(node_cache)},
    )

    assert done.returncode == 0, done.stderr
    java_home, variable = done.stdout.splitlines()
    assert re.search(r"/filecache/|/container_\w+/clusterkit-java", java_home)
    assert variable == "./clusterkit-java"


def test_images_are_listed_compared_and_kept_while_they_are_used(first, clusterkit_cli, yarn, project):
    """`env ls` and `diff` read the cluster's store; `gc` finds nothing to delete among what was just used."""
    listed = json.loads(clusterkit_cli("env", "ls", "--json", "--cluster", "default").stdout)
    swept = clusterkit_cli("env", "gc", "--cluster", "default")
    verified = clusterkit_cli("env", "verify", "--cluster", "default")

    assert {image["name"] for image in listed} >= {"small"}
    assert "deleted 0" in swept.stdout, swept.stdout + swept.stderr
    assert verified.returncode == 0, verified.stdout
    assert "nothing wrong" in verified.stdout


def test_a_driver_of_another_python_is_refused_before_anything_is_sent(cluster, submit, yarn, tmp_path):
    """Python versions must agree; three lines say so, and no application is made."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.9\n")
    other.chmod(0o755)
    before = len(yarn.resource_manager.applications())

    done = submit("--conf", f"spark.pyspark.driver.python={other}")

    assert done.returncode == 69
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"its Python is {minor}, and the driver's, {other}, is 3.9" in done.stderr
    assert len(yarn.resource_manager.applications()) == before


def test_an_unknown_environment_is_refused(cluster, submit):
    """The nearest name is offered."""
    done = submit("--env", "smal")

    assert done.returncode == 64
    assert "there is no environment smal" in done.stderr
    assert "did you mean small?" in done.stderr


def hide_python(pid: int, scratch: Path) -> None:
    """Hide every Python of this machine in another process's mount namespace; Spark's jars stay where they are."""
    jars = Path(find_spark().jars)
    venv, base = Path(sys.prefix), Path(sys.base_prefix)
    usual = [path for root in (Path("/usr"), Path("/usr/local")) for path in root.glob("*/python3*")]
    hidden = [venv, *([] if base == Path("/usr") else [base]), *usual]
    kept = scratch / "venv" / jars.relative_to(venv)
    kept.mkdir(parents=True)
    (scratch / "jars").mkdir()
    (scratch / "empty").mkdir()
    (scratch / "nothing").touch()
    binds = [(jars, scratch / "jars"), (scratch / "venv", venv), (scratch / "jars", jars)]
    binds += [(scratch / ("empty" if path.is_dir() else "nothing"), path) for path in hidden if path != venv]
    for source, target in binds:
        inside(pid, "mount", "--bind", str(source), str(target)).check_returncode()


def inside(pid: int, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in another process's mount namespace."""
    argv = [str(shutil.which("nsenter")), "-t", str(pid), "-m", *command]
    return subprocess.run(argv, check=False, capture_output=True, timeout=30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a mount namespace")
def test_nodes_need_no_python(first, clusterkit_cli, project, tmp_path_factory, node_cache):
    """A NodeManager that sees no Python at all runs the job: the image carries its own."""
    data_dir = tmp_path_factory.mktemp("bare")
    environment = {"CLUSTERKIT_DATA_DIR": str(data_dir), "CLUSTERKIT_NODE_CACHE": str(data_dir / "cache")}
    up = ["unshare", "-m", "--propagation", "private", *clusterkit_cli.argv("cluster", "up", "--name", "bare")]
    subprocess.run(up, env={**clusterkit_cli.environment, **environment}, check=True, capture_output=True, timeout=120)
    try:
        status = json.loads(clusterkit_cli("cluster", "status", "--name", "bare", "--json", env=environment).stdout)
        pid = next(daemon["pid"] for daemon in status["daemons"] if daemon["name"].startswith("nodemanager"))
        hide_python(pid, tmp_path_factory.mktemp("hidden"))
        seen = inside(pid, sys.executable, "-c", "")
        done = clusterkit_cli(
            *("submit", *SMALL, "--cluster", "bare", "--env", "small", "--deploy-mode", "cluster", "jobs/job.py"),
            cwd=project,
            env=environment,
        )
    finally:
        clusterkit_cli("cluster", "down", "--name", "bare", "--purge", env=environment)

    assert seen.returncode != 0
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)[1]["prefix"]).is_relative_to(data_dir / "cache")
