"""The job specification: everything that needs no cluster is checked before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clusterkit import settings
from clusterkit.errors import SpecError
from clusterkit.specs import attachments
from clusterkit.specs.job import SESSION, JobSpec
from clusterkit.specs.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Sequence

GOOD = "import sys\nprint(sys.argv)\n"


@pytest.fixture
def job(project: Path) -> Path:
    """Return a good job in the working directory."""
    path = project / "job.py"
    path.write_text(GOOD)
    return path


def specified(job: Path, args: Sequence[str] = (), **keywords: object) -> JobSpec:
    return JobSpec.from_settings(settings.load(keywords=keywords, environ={}), job, args)


def refused(job: Path, args: Sequence[str] = (), **keywords: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        specified(job, args, **keywords)
    assert "\n" not in caught.value.what
    return caught.value


def test_settings_become_a_job(job: Path, project: Path) -> None:
    """Every setting of a job arrives in its field, paths absolute and sizes in MiB."""
    for name in ("lib.py", "data.csv", "x.jar", "a.zip", "k.keytab", "p.conf"):
        (project / name).touch()
    spec = specified(
        Path("job.py"),
        ["--flag", "a b"],
        deploy_mode="cluster",
        queue="root.batch",
        name="night run",
        executor_count=3,
        executor_memory="2g",
        executor_cores=2,
        driver_memory="512m",
        dynamic_allocation=False,
        spark_conf={"spark.x": "y"},
        properties_file="p.conf",
        py_files=["lib.py"],
        files=["data.csv#d.csv", "hdfs:///x"],
        jars=["x.jar"],
        packages=["org.apache.spark:spark-avro_2.13:4.1.0"],
        archives=["a.zip#env"],
        principal="me/host@REALM",
        keytab="k.keytab",
        env_vars={"A": "1"},
    )
    assert spec == JobSpec(
        job=job,
        name="night run",
        args=("--flag", "a b"),
        deploy_mode="cluster",
        queue="root.batch",
        executor=Resources(count=3, memory_mib=2048, cores=2),
        driver_memory_mib=512,
        dynamic_allocation=False,
        conf={"spark.x": "y"},
        properties_file=project / "p.conf",
        py_files=(str(project / "lib.py"),),
        files=(str(project / "data.csv#d.csv"), "hdfs:///x"),
        jars=(str(project / "x.jar"),),
        packages=("org.apache.spark:spark-avro_2.13:4.1.0",),
        archives=(str(project / "a.zip#env"),),
        principal="me/host@REALM",
        keytab=project / "k.keytab",
        env_vars={"A": "1"},
    )


def test_name_is_the_job_files(job: Path) -> None:
    """Without a name the application is called after the job's file."""
    assert specified(job) == JobSpec(job=job, name="job.py")


def test_job_may_stand_anywhere(hostile: Path) -> None:
    """A job and its files may have any name that the tools below can carry."""
    script = hostile / 'it\'s; é $x `y` "z",#1\n.py'
    script.write_text(GOOD)
    spec = specified(script)
    assert (spec.job, spec.name) == (script, 'it\'s; é $x `y` "z",#1_.py')


def test_missing_job(job: Path, project: Path) -> None:
    """A job that does not exist is refused with the nearest name beside it."""
    assert str(refused(Path("jbo.py"))) == (
        "jbo.py was not submitted\n  Why:  the file does not exist\n  Mend: submit job.py"
    )
    assert refused(project / "no" / "job.py").why == "there is no directory no"
    assert refused(Path("zzz.py")).mend == "check the path zzz.py"


@pytest.mark.parametrize(
    ("name", "what_it_is"),
    [
        ("job.R", "an R script"),
        ("app.jar", "a Java or Scala application"),
        ("book.ipynb", "a notebook"),
        ("job", "no Python file by its name"),
        ("job.PY", "no Python file by its name"),
    ],
)
def test_job_of_another_kind(project: Path, name: str, what_it_is: str) -> None:
    """What is no Python file is refused with what clusterkit submits."""
    (project / name).touch()
    error = refused(Path(name))
    assert error.why == f"it is {what_it_is}, and clusterkit submits PySpark jobs: files whose name ends in .py"


def test_job_that_is_no_file(project: Path) -> None:
    """A directory, standard input and a URI are refused by what they are."""
    (project / "dir.py").mkdir()
    assert refused(Path("dir.py")).why == f"{project}/dir.py is no file"
    assert refused(project).why.startswith("it is a directory")
    assert refused(Path("-")).why == "a job cannot be read from standard input"
    assert refused(Path("hdfs://nn/job.py")).why == "a job is a file on this machine, not a URI"


def test_job_that_may_not_be_read(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that this user may not read is refused with the command that allows it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    error = refused(job)
    assert (error.why, error.mend) == (f"this user may not read {job}", f"run `chmod u+r {job}`")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1\nif True\n    pass\n", "expected ':', line 2 of job.py\n  if True\n         ^"),
        ("def f():\n\treturn (1\n", "'(' was never closed, line 2 of job.py\n  return (1\n         ^"),
        ("return 1\n", "'return' outside function, line 1 of job.py\n  return 1\n  ^"),
        ("print 'x'\n", "Missing parentheses in call to 'print'. Did you mean print(...)?, line 1 of job.py"),
        ("x = 'é\n", "unterminated string literal (detected at line 1), line 1 of job.py\n  x = 'é\n      ^"),
    ],
)
def test_syntax_error(job: Path, source: str, why: str) -> None:
    """A job that Python cannot compile is refused with the line and the place in it."""
    job.write_text(source, encoding="utf-8")
    error = refused(job)
    assert (error.what, error.mend) == ("job.py was not submitted", "correct job.py")
    assert error.why.startswith(why)


@pytest.mark.parametrize("content", [b"x = 1\x00", b"# \xff\n", b"(" * 10000])
def test_what_no_python_can_read(job: Path, content: bytes) -> None:
    """A binary file with a Python name is refused, not crashed on."""
    job.write_bytes(content)
    assert refused(job).what == "job.py was not submitted"


def test_warnings_are_no_errors(job: Path) -> None:
    """Code that Python only warns about is submitted, as the interpreter on the node would run it."""
    job.write_text("x = 1\nassert (x is 1, 'always')\ny = '\\d'\n")
    assert specified(job).job == job


def test_syntax_error_in_a_module(job: Path, project: Path) -> None:
    """A module that travels with the job is compiled too."""
    (project / "lib.py").write_text("def f(:\n")
    error = refused(job, py_files=["lib.py"])
    assert (error.what, error.key) == ("lib.py cannot be sent with the job", "py_files")
    assert error.why == "invalid syntax, line 1 of lib.py (py_files=)\n  def f(:\n        ^"
    assert error.place == "py_files="


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        (
            {"executor_memory": "449m"},
            (
                "executor.memory of 449 MiB is too small\n"
                "  Why:  Spark refuses to start with less than 450 MiB (executor_memory=)\n"
                "  Mend: set executor.memory to 450m or more"
            ),
        ),
        (
            {"driver_memory": 100},
            (
                "driver.memory of 100 MiB is too small\n"
                "  Why:  Spark refuses to start with less than 450 MiB (driver_memory=)\n"
                "  Mend: set driver.memory to 450m or more"
            ),
        ),
        (
            {"queue": "a b"},
            (
                "'a b' is not the name of a queue\n"
                "  Why:  YARN's queues are letters, digits, '-' and '_', with dots between parents and children "
                "(queue=)\n"
                "  Mend: correct queue; `clusterkit cluster status` lists the queues"
            ),
        ),
        (
            {"principal": "me@REALM"},
            (
                "principal cannot be used without keytab\n"
                "  Why:  Spark logs in with both of them together (principal=)\n"
                "  Mend: set keytab as well, or neither and use the tickets of `kinit`"
            ),
        ),
        (
            {"packages": ["spark-avro"]},
            (
                "'spark-avro' is no package\n"
                "  Why:  a package is written group:artifact:version (packages=)\n"
                "  Mend: correct packages, as in org.apache.spark:spark-avro_2.13:4.1.0"
            ),
        ),
        (
            {"env_vars": {"A-B": "x"}},
            (
                "the environment variable 'A-B' cannot be set\n"
                "  Why:  a name is letters, digits and '_', and a value holds no NUL (env_vars=)\n"
                "  Mend: correct env_vars"
            ),
        ),
    ],
)
def test_wrong_setting(job: Path, keywords: dict[str, Any], text: str) -> None:
    """A value that cannot work is refused in three lines with the place where it was written."""
    assert str(refused(job, **keywords)) == text


@pytest.mark.parametrize("queue", ["default", "root.a-1.b_2", "Ärzte"])
def test_legal_queues(job: Path, queue: str) -> None:
    """Letters, digits, dashes, underscores, and dots between parents and children name a queue."""
    assert specified(job, queue=queue).queue == queue


@pytest.mark.parametrize("queue", [".a", "a.", "a..b", "a,b", "a/b", "a:b", "-a", "a;b"])
def test_illegal_queues(job: Path, queue: str) -> None:
    """What the scheduler would read otherwise is refused."""
    assert refused(job, queue=queue).key == "queue"


@pytest.mark.parametrize("principal", ["@R", "a@", "a b@R", "a/b/c@R"])
def test_illegal_principal(job: Path, principal: str) -> None:
    """A principal is a name, a host perhaps, a realm perhaps."""
    assert refused(job, principal=principal, keytab=str(job)).what == f"{principal!r} is no Kerberos principal"


def test_nul_in_an_argument(job: Path) -> None:
    """No process can be given a NUL."""
    assert refused(job, ["a\0b"]).why == "it holds a NUL"


@pytest.mark.parametrize("key", ["properties_file", "keytab"])
def test_single_files_must_exist(job: Path, key: str) -> None:
    """A file that a setting names is checked where it stands."""
    error = refused(job, **{key: "no.x"} | ({"principal": "me"} if key == "keytab" else {}))
    path = Path.cwd() / "no.x"
    assert (error.what, error.why) == (f"{key} cannot be used", f"there is no file {path} ({key}=)")


@pytest.mark.parametrize("name", ["it's; a &b é 日本.csv", "100%41.csv", "a#b.csv", "~x.csv", "-x.csv", "(1).csv"])
def test_hostile_names_that_work(job: Path, project: Path, name: str) -> None:
    """Spaces, quotes, semicolons, percent signs, a # and other alphabets travel."""
    (project / name).touch()
    assert specified(job, files=[project / name]).files == (str(project / name),)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a,b.csv", "Spark takes these files as one list with commas, so a comma cannot stand in a name"),
        ("a[1].csv", "Hadoop gives [ ] in a path a meaning of its own"),
        ("a:b.csv", "Hadoop gives : in a path a meaning of its own"),
        ("a\\b.csv", "Hadoop gives \\ in a path a meaning of its own"),
        ('a"b.csv', "YARN's launch script cannot carry \" in a file's name"),
        ("$(x)`y`.csv", "YARN's launch script cannot carry $ ` in a file's name"),
        ("a\nb.csv", "its path holds control characters, or bytes that are not UTF-8"),
        ("a\udcff.csv", "its path holds control characters, or bytes that are not UTF-8"),
    ],
)
def test_hostile_names_that_cannot_work(job: Path, project: Path, name: str, why: str) -> None:
    """What Spark, Hadoop or YARN would read as something else is refused by name."""
    (project / name).touch()
    error = refused(job, files=[project / name])
    assert (error.what, error.why) == (f"{str(project / name)!r} cannot be sent with the job", f"{why} (files=)")


def test_alias_saves_a_name(job: Path, project: Path) -> None:
    """A file whose name the launch script cannot carry travels under an alias."""
    (project / 'a"b.csv').touch()
    assert specified(job, files=[f'{project}/a"b.csv#ab.csv']).files == (f'{project}/a"b.csv#ab.csv',)


@pytest.mark.parametrize("alias", ["", "../x", "a b", "a/b", ".hidden"])
def test_alias_is_one_plain_name(job: Path, project: Path, alias: str) -> None:
    """An alias that is no plain name would land elsewhere than in the working directory."""
    (project / "a.csv").touch()
    assert refused(job, files=[f"a.csv#{alias}"]).why == f"its alias {alias!r} is not one plain name (files=)"


@pytest.mark.parametrize(
    "uri", ["hdfs:///a.csv", "hdfs://nn:9000/a.csv", "local:/opt/a.csv", "https://h/a.csv", "s3a://b/a"]
)
def test_uris_pass_unchecked(job: Path, uri: str) -> None:
    """What is not on this machine is not looked for here."""
    assert specified(job, files=[uri]).files == (uri,)


@pytest.mark.parametrize(
    ("key", "name", "why"),
    [
        ("archives", "a.tar.bz2", "archives takes names that end in .tar.gz, .tgz, .tar, .zip, .jar"),
        ("py_files", "a.whl", "py_files takes names that end in .py, .zip, .egg, .jar"),
        ("files", "no.csv", "there is no file"),
        ("jars", "dir", None),
    ],
)
def test_attachments_that_would_do_nothing(job: Path, project: Path, key: str, name: str, why: str | None) -> None:
    """What YARN would not unpack, Python would not import, or nobody can find, fails here."""
    if name == "dir":
        (project / name).mkdir()
    elif not name.startswith("no"):
        (project / name).touch()
    assert refused(job, **{key: [name]}).why.startswith(why or f"{project}/dir is no file")


def test_two_files_of_one_name(job: Path, project: Path) -> None:
    """Two files that would have one name in the container are refused; the same file twice is fine."""
    (project / "a").mkdir()
    for path in (project / "x.csv", project / "a" / "x.csv"):
        path.touch()
    error = refused(job, files=["x.csv", "a/x.csv"])
    assert error.why == (
        f"{project}/x.csv has the same name in the container, and Spark would drop one of them (files=)"
    )
    assert specified(job, files=["x.csv", "a/x.csv#y.csv", "x.csv"]).files[1] == f"{project}/a/x.csv#y.csv"


def test_place_of_a_file_setting(job: Path, project: Path) -> None:
    """A refused value names the line of the file it stands in."""
    (project / "clusterkit.toml").write_text("\n[executor]\nmemory = 64\n")
    error = refused(job)
    assert (error.key, error.place) == ("executor.memory", "clusterkit.toml:3")


def test_uri_of_an_attachment(project: Path) -> None:
    """A local path becomes a URI that means the same file, whatever its name."""
    (project / "a#b.csv").touch()
    assert [attachments.to_uri(entry) for entry in (f"{project}/a#b.csv", "/x y/é%.csv#z", "hdfs:///a b")] == [
        f"file://{project}/a%23b.csv",
        "file:///x%20y/%C3%A9%25.csv#z",
        "hdfs:///a b",
    ]


@pytest.mark.parametrize(
    "fields",
    [{"queue": "a b"}, {"executor": {"count": 0}}, {"driver_memory_mib": 1}, {"keytab": Path("/k")}, {"args": ("\0",)}],
)
def test_no_illegal_job_can_be_made(fields: dict[str, Any]) -> None:
    """The checks that need no file hold for every value of the class, however it was made."""
    with pytest.raises(SpecError):
        JobSpec(
            job=Path("/j.py"),
            name="n",
            **{name: Resources(**value) if name == "executor" else value for name, value in fields.items()},
        )


def test_session_has_no_job_file(job: Path) -> None:
    """A session runs in this Python, whatever the deploy mode; what travels with it is checked like a job's."""
    loaded = settings.load(keywords={"deploy_mode": "cluster", "queue": "batch"}, environ={})
    assert JobSpec.for_session(loaded, "mine") == JobSpec(job=SESSION, name="mine", queue="batch")
    wrong = settings.load(keywords={"files": ["no.csv"]}, environ={})
    with pytest.raises(SpecError, match=r"there is no file .*no\.csv \(files=\)"):
        JobSpec.for_session(wrong, "mine")


@pytest.mark.parametrize("arg", ['{"a": {"b": 1}}', "{{HOME}}", "a<CPS>b", "<LOG_DIR>/x"])
def test_an_argument_that_yarn_would_change_is_refused_in_cluster_mode(tmp_path, arg):
    """YARN replaces its placeholders in a command, whatever quotes surround them; a driver here gets them unchanged."""
    job = tmp_path / "job.py"
    job.write_text("print(1)\n")

    assert specified(job, [arg]).args == (arg,)
    error = refused(job, [arg], deploy_mode="cluster")
    assert error.what == f"the argument {arg!r} cannot be passed on in cluster mode"
    assert "--env-var" in error.mend
