from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from clusterkit.launchers.spark import jvm
from clusterkit.launchers.spark.home import SparkHome
from clusterkit.launchers.spark.plan import Jvm, NodeImage, NodePython, Site, plan_spark
from clusterkit.specs.job import JobSpec

JVM = Jvm(java=Path("/jdk/bin/java"), options=("-Dopened=yes",), class_path="/cache/spark/jars/*")
PYTHON = NodePython(executable="/venv/bin/python", origin="in place", packages=Path("/venv/site-packages"))
SPARK = SparkHome(Path("/cache/spark"), "4.3.0", "2.13", Path("/venv/site-packages"))


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.py"
    path.write_text("print(1)\n")
    return path


IMAGE = NodeImage(
    id="3f9a" * 16,
    name="analysis",
    archives=("hdfs://nn/clusterkit/bare/b.tar.gz#clusterkit",),
    files=("hdfs://nn/clusterkit/images/3f9a/manifest.json#clusterkit-image.json",),
    variables={"_CLUSTERKIT_NODE_CACHE": "/var/tmp/clusterkit"},
    driver_python=Path("/envs/analysis/bin/python"),
    driver_path=(Path("/home/u/src"),),
    pyspark="4.3.0",
)


def planned(spec, tmp_path, *, site=None, java=JVM, python=PYTHON, machine_defaults=None):
    site = site or Site(name="here", conf_dir=tmp_path, loopback=True, conf={"spark.yarn.jars": "local:/cache/jars/*"})
    return plan_spark(
        spec,
        site,
        spark=SPARK,
        jvm=java,
        python=python,
        directory=tmp_path / "clusterkit-0001",
        machine_defaults=machine_defaults,
    )


def test_the_whole_command_of_a_job_in_client_mode(tmp_path, job):
    """The job is a Python of its own beside Spark's JVM, whose configuration is in a file, not in arguments."""
    plan = planned(JobSpec(job=job, name="job", args=("--out", "a b"), driver_memory_mib=2048), tmp_path)

    assert plan.argv == (
        "/jdk/bin/java",
        "-Dopened=yes",
        "-Xmx2048m",
        "-cp",
        f"/cache/spark/jars/*:{tmp_path}/clusterkit-0001/configuration.jar",
        "org.apache.spark.deploy.SparkSubmit",
        "--properties-file",
        f"{tmp_path}/clusterkit-0001/spark.properties",
        "pyspark-shell",
    )
    assert plan.job_argv == (sys.executable, str(job), "--out", "a b")


def test_the_whole_environment_of_a_job_on_this_machine(tmp_path, job):
    """The job finds the cluster, Spark and its Python, and stays on the loopback address."""
    plan = planned(JobSpec(job=job, name="job", env_vars={"TZ": "UTC"}), tmp_path)

    assert plan.environment == {
        "_CLUSTERKIT_DRIVER_LOG": f"{tmp_path}/clusterkit-0001/driver.log",
        "_CLUSTERKIT_GATEWAY": f"{tmp_path}/clusterkit-0001/gateway",
        "HADOOP_CONF_DIR": str(tmp_path),
        "PYSPARK_ARCHIVES_PATH": "local:/venv/site-packages",
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYSPARK_PYTHON": "/venv/bin/python",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "SPARK_CONNECT_MODE": "0",
        "SPARK_HOME": "/cache/spark",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SCALA_VERSION": "2.13",
        "TZ": "UTC",
        "_PYSPARK_DRIVER_CONN_INFO_PATH": f"{tmp_path}/clusterkit-0001/gateway",
    }
    assert plan.job_path == (Path("/venv/site-packages"),)


def test_the_user_has_the_last_word_over_every_default(tmp_path, job):
    """Defaults, the machine's, the cluster's, the properties file's and --conf are weaker in this order."""
    properties = tmp_path / "mine.properties"
    properties.write_text("spark.b=file\nspark.c=file\nspark.yarn.maxAppAttempts=3\n")
    spec = JobSpec(job=job, name="job", properties_file=properties, conf={"spark.c": "flag"})

    conf = planned(spec, tmp_path, machine_defaults={"spark.a": "machine", "spark.b": "machine"}).conf

    assert {key: conf[key] for key in ("spark.a", "spark.b", "spark.c", "spark.yarn.maxAppAttempts")} == {
        "spark.a": "machine",
        "spark.b": "file",
        "spark.c": "flag",
        "spark.yarn.maxAppAttempts": "3",
    }


def test_files_travel_as_uris_with_their_aliases(tmp_path, job):
    """Local paths become file URIs, percent-encoded, whatever their names hold; other URIs stay."""
    odd = tmp_path / "a b;'é.txt"
    odd.write_text("x")
    spec = JobSpec(job=job, name="job", files=(f"{odd}#data", "hdfs:///shared/model.bin"), packages=("g:a:1", "g:b:2"))

    plan = planned(spec, tmp_path)

    assert plan.conf["spark.yarn.dist.files"] == f"{odd.as_uri()}#data,hdfs:///shared/model.bin"
    assert plan.conf["spark.jars.packages"] == "g:a:1,g:b:2"
    assert [(upload.path, upload.size_bytes) for upload in plan.uploads] == [(odd, 1)]


def test_a_job_with_a_hostile_name_travels_under_a_plain_one_in_cluster_mode(tmp_path):
    """Spark puts the bare name into a shell command of the node, so quotes and blanks are replaced there."""
    job = tmp_path / "it's a; job.py"
    job.write_text("print(1)\n")
    plan = planned(JobSpec(job=job, name="job", deploy_mode="cluster", args=("x",)), tmp_path)

    jvm.write_files(plan)

    copy = plan.directory / "it_s_a__job.py"
    assert plan.argv[-2:] == (copy.as_uri(), "x")
    assert copy.read_text() == "print(1)\n"


def test_the_archive_of_classes_reaches_every_jvm_unless_the_user_has_a_class_path(tmp_path, job):
    """Driver, ApplicationMaster and executors map the archive; a user's own class path comes first and rules it out."""
    mapped = msgspec.structs.replace(JVM, archive_options=("-XX:SharedArchiveFile=/cache/spark.jsa",), on_nodes=True)

    plain = planned(JobSpec(job=job, name="job"), tmp_path, java=mapped)
    own = planned(
        JobSpec(job=job, name="job", conf={"spark.driver.extraClassPath": "/mine.jar"}), tmp_path, java=mapped
    )

    assert plain.conf["spark.executor.extraClassPath"] == "/cache/spark/jars/*"
    assert plain.conf["spark.yarn.am.extraJavaOptions"] == "-XX:SharedArchiveFile=/cache/spark.jsa"
    assert plain.argv.count("-XX:SharedArchiveFile=/cache/spark.jsa") == 1
    assert own.argv[own.argv.index("-cp") + 1].startswith("/mine.jar:/cache/spark/jars/*:")


@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_a_job_in_an_image(tmp_path, job, mode):
    """The containers get the image beside the user's own files; a driver here runs the same environment's Python."""
    python = NodePython(executable="clusterkit/bin/python", origin="the image analysis", image=IMAGE)
    spec = JobSpec(job=job, name="job", deploy_mode=mode, files=("/data/a.csv",))

    plan = planned(spec, tmp_path, python=python)

    here = "/envs/analysis/bin/python" if mode == "client" else None
    wanted = {
        "spark.pyspark.python": "clusterkit/bin/python",
        "spark.pyspark.driver.python": here,
        "spark.yarn.dist.archives": "hdfs://nn/clusterkit/bare/b.tar.gz#clusterkit",
        "spark.yarn.dist.files": (
            "file:///data/a.csv,hdfs://nn/clusterkit/images/3f9a/manifest.json#clusterkit-image.json"
        ),
        "spark.executorEnv._CLUSTERKIT_NODE_CACHE": "/var/tmp/clusterkit",
        "spark.yarn.appMasterEnv._CLUSTERKIT_NODE_CACHE": "/var/tmp/clusterkit",
        "spark.yarn.tags": "clusterkit-0001,clusterkit-image-3f9a3f9a3f9a",
    }
    assert {key: plan.conf.get(key) for key in wanted} == wanted
    assert plan.environment["PYSPARK_ARCHIVES_PATH"] == "local:/dev/null"
    assert plan.job_path == ((Path("/home/u/src"),) if here else ())
    assert plan.job_argv[:1] == ((here,) if here else ())


def test_an_image_without_pyspark_gets_sparks_own(tmp_path, job):
    """Driver and nodes import pyspark from the archives that Spark has beside its jars, and nothing else of ours."""
    python = NodePython(
        executable="clusterkit/bin/python", origin="x", image=msgspec.structs.replace(IMAGE, pyspark="")
    )
    spark = SparkHome(Path("/cache/spark"), "4.3.0", "2.13", Path("/venv/site-packages"), (Path("/spark/pyspark.zip"),))
    site = Site(name="here", conf_dir=tmp_path, loopback=True)

    plan = plan_spark(
        JobSpec(job=job, name="job"), site, spark=spark, jvm=JVM, python=python, directory=tmp_path / "clusterkit-0001"
    )

    assert plan.environment["PYSPARK_ARCHIVES_PATH"] == "file:///spark/pyspark.zip"
    assert plan.job_path == (Path("/home/u/src"), Path("/spark/pyspark.zip"))


@pytest.mark.parametrize(
    ("mode", "conf", "listeners"),
    [
        ("client", {}, "clusterkit.FilterBeforePages"),
        ("client", {"spark.extraListeners": "a.Mine"}, "clusterkit.FilterBeforePages,a.Mine"),
        ("client", {"spark.ui.enabled": "false"}, None),
        ("cluster", {}, None),
    ],
)
def test_the_pages_of_a_driver_here_wait_for_the_filter_of_yarn(tmp_path, job, mode, conf, listeners):
    """Only where the filter comes from another machine, and there are pages; the user's own listeners stay."""
    plan = planned(JobSpec(job=job, name="job", deploy_mode=mode, conf=conf), tmp_path)

    assert plan.conf.get("spark.extraListeners") == listeners


def test_elsewhere_the_nodes_get_sparks_jars_from_one_archive_on_hdfs(tmp_path, job):
    """A cluster that has no Spark of ours reads one archive, named by its content, unless the user named another."""
    jars = tmp_path / "spark" / "jars"
    jars.mkdir(parents=True)
    (jars / "spark-core_2.13-4.3.0.jar").write_bytes(b"12345")
    spark = SparkHome(tmp_path / "spark", "4.3.0", "2.13", None)
    site = Site(name="prod", conf_dir=tmp_path, loopback=False, root="hdfs://nn/clusterkit")

    def conf_of(spec):
        plan = plan_spark(spec, site, spark=spark, jvm=JVM, python=PYTHON, directory=tmp_path / "launch")
        return plan.conf.get("spark.yarn.archive")

    assert conf_of(JobSpec(job=job, name="job")) == "hdfs://nn/clusterkit/spark/spark-4.3.0-4cd94f8cb0614831.zip"
    assert conf_of(JobSpec(job=job, name="job", conf={"spark.yarn.archive": "hdfs:///own.zip"})) == "hdfs:///own.zip"


def test_secrets_are_not_shown(tmp_path, job):
    """A plan for people and programs hides the secrets of configuration, environment and arguments."""
    conf = {"spark.hadoop.fs.s3a.secret.key": "hunter2", "spark.x": "shown"}
    args = ("--password", "hunter4")
    spec = JobSpec(job=job, name="job", conf=conf, env_vars={"API_TOKEN": "hunter3"}, args=args, deploy_mode="cluster")
    plan = planned(spec, tmp_path)

    text, document = plan.to_text(), json.dumps(plan.to_builtins())

    assert [word for word in ("hunter2", "hunter3", "hunter4") if word in text or word in document] == []
    assert "spark.x=shown" in text


def test_secrets_are_in_no_argument(tmp_path, job):
    """The command line, which everybody on the machine can read, holds no configuration."""
    spec = JobSpec(job=job, name="job", conf={"spark.authenticate.secret": "hunter2"})

    assert not [word for word in planned(spec, tmp_path).argv if "hunter2" in word]


def test_the_files_of_a_launch_are_for_its_user_alone(tmp_path, job):
    """Properties may hold secrets: the directory and every file in it are closed to others."""
    (tmp_path / "core-site.xml").write_text("<configuration/>")
    plan = planned(JobSpec(job=job, name="job"), tmp_path)

    jvm.write_files(plan)

    assert oct(plan.directory.stat().st_mode & 0o777) == "0o700"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in plan.directory.iterdir()} == {
        "configuration.jar": "0o600",
        "spark.properties": "0o600",
    }
