from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clusterkit.hadoop.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = Path(__file__).parent / "jobs"
SMALL = ("--executor-memory", "512m", "--executor-cores", "1", "--driver-memory", "600m")
PRINTED = b"".join(b"line %d\n" % number for number in range(20)) + b"x" * 300_000 + b"\ncaf\xe9, and no end"


@pytest.fixture(scope="module")
def yarn(cluster) -> Cluster:
    """Return the session's cluster as a client sees it."""
    return Cluster.from_directory("default", cluster.layout.conf, embedded=True)


@pytest.fixture(scope="module")
def lines(cluster, clusterkit_cli, yarn, tmp_path_factory) -> tuple[str, int, bytes, float]:
    """Run the job that prints lines in cluster mode: its id, exit code and output, and when the first line came."""
    command = clusterkit_cli.argv(
        "submit", *SMALL, "--deploy-mode", "cluster", "--env-var", "DB_PASSWORD=hunter2", str(JOBS / "lines.py"), "a b"
    )
    process = subprocess.Popen(
        command, env=clusterkit_cli.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        first = process.stdout.read(7)
        began_s = time.monotonic()
        rest = process.stdout.read()
        process.wait(timeout=60)
    newest = yarn.resource_manager.applications(limit=1)[0]
    return newest.id, process.returncode, first + rest, time.monotonic() - began_s


@pytest.fixture
def sleeping(yarn, submit_shell) -> Iterator[str]:
    """Yield the id of an application that runs until somebody kills it."""
    application_id = submit_shell(
        yarn, "(echo begun; echo to err >&2; exec sleep 120) 1><LOG_DIR>/stdout 2><LOG_DIR>/stderr"
    )
    eventually(lambda: yarn.resource_manager.application(application_id).running_containers == 1)
    yield application_id
    yarn.resource_manager.kill(application_id)


def eventually(done: Callable[[], Any], timeout_s: float = 30) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s"
        time.sleep(0.05)


def told(stderr: str) -> list[str]:
    """Return the three lines of an error."""
    return f"\n{stderr}".rpartition("\nError: ")[2].splitlines()


def test_output_of_a_driver_on_the_cluster(lines):
    """Every byte the driver printed arrives once, in order, while it runs; the exit code is the job's."""
    _, exit_code, output, took_s = lines

    assert output == PRINTED
    assert exit_code == 3
    assert took_s > 1.5  # the first line came while the job, which takes 3 s to print, was still printing


def test_report_is_kept(lines, clusterkit_cli, yarn):
    """The report on HDFS holds what was asked for, the stages, the end and its cause, and no secret."""
    application_id = lines[0]

    report = json.loads(clusterkit_cli("app", "show", "--json", application_id).stdout)

    assert [stage["stage"] for stage in report["stages"]] == ["submitting", "uploading", "accepted", "running"]
    assert report["spec"] == {
        "job": str(JOBS / "lines.py"),
        "name": "lines.py",
        "args": ["a b"],
        "deploy_mode": "cluster",
        "executor": {"memory_mib": 512, "cores": 1},
        "driver_memory_mib": 600,
        "env_vars": {"DB_PASSWORD": "*********"},
    }
    assert (report["id"], report["state"], report["final_status"], report["exit_code"]) == (
        application_id,
        "FINISHED",
        "FAILED",
        3,
    )
    assert report["cause"]["kind"] == "exit-code"
    modes = {
        path: yarn.hdfs.status(path).mode & 0o7777
        for path in ("/clusterkit/applications", f"/clusterkit/applications/{application_id}")
    }
    assert modes == {"/clusterkit/applications": 0o1777, f"/clusterkit/applications/{application_id}": 0o750}


def test_report_for_people(lines, clusterkit_cli):
    """`app show` prints the same for people."""
    shown = clusterkit_cli("app", "show", lines[0]).stdout

    assert re.search(r"^exit code +3$", shown, re.MULTILINE)
    assert re.search(r"^what +the job ended with exit code 3$", shown, re.MULTILINE)
    assert "hunter2" not in shown


def test_list(lines, clusterkit_cli, yarn, sleeping):
    """`app ls` lists what clusterkit launched for me; --all everything, --state, --queue and --limit choose."""

    def listed(*options: str) -> list[str]:
        return [each["id"] for each in json.loads(clusterkit_cli("app", "ls", "--json", *options).stdout)]

    mine = listed("--limit", "100")
    assert lines[0] in mine
    assert sleeping not in mine
    assert listed("--all", "--limit", "1") == [sleeping]
    assert sleeping in listed("--all", "--state", "running", "--state", "ACCEPTED")
    assert lines[0] not in listed("--all", "--state", "running", "--state", "ACCEPTED")
    assert listed("--all", "--queue", "default", "--limit", "1") == [sleeping]
    assert listed("--all", "--queue", "other") == []
    table = clusterkit_cli("app", "ls", "--all", "--limit", "1")
    assert table.stdout.split()[:8] == ["ID", "NAME", "USER", "QUEUE", "STATE", "FINAL", "STARTED", "TOOK"]
    assert sleeping in table.stdout
    assert re.search(r"\d+ more: --limit \d+ shows them", table.stderr)


def test_status(lines, clusterkit_cli, sleeping):
    """`app status` tells state, end and exit code; an id may be given by its number."""
    ended = clusterkit_cli("app", "status", str(int(lines[0].rpartition("_")[2]))).stdout
    document = json.loads(clusterkit_cli("app", "status", "--json", sleeping).stdout)

    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in ended.splitlines())
    assert facts["application"] == lines[0]
    assert (facts["state"], facts["final status"], facts["exit code"]) == ("FINISHED", "FAILED", "3")
    assert facts["why"] == f"`clusterkit app why {lines[0]}`"
    assert (document["id"], document["running_containers"], document["exit_code"]) == (sleeping, 1, None)


def test_logs(lines, clusterkit_cli):
    """`app logs` prints files as `yarn logs` does, of the container and names asked for; --grep prints lines."""
    application_id = lines[0]
    driver = f"container_{application_id.removeprefix('application_')}_01_000001"
    argv = clusterkit_cli.argv("app", "logs", "--name", "stdout", "--container")
    found = clusterkit_cli("app", "logs", "--grep", "^line 1$|exited with status", application_id).stdout
    container = re.match(r"\S+", found)
    assert container is not None
    assert re.sub(r"e\d+_", "", container[0]) == driver

    whole = subprocess.run(
        [*argv, container[0], application_id], env=clusterkit_cli.environment, capture_output=True, check=True
    ).stdout

    head, _, rest = whole.partition(b"LogContents:\n")
    assert head.decode().splitlines()[0].startswith(f"Container: {container[0]} on ")
    assert rest == PRINTED + b"\nEnd of LogType:stdout\n" + b"*" * 71 + b"\n\n"
    assert re.findall(r"^\S+ (stdout:\d+: .*|stderr:\d+: .* ERROR .*)$", found, re.MULTILINE) == [
        line for line in re.findall(r"^\S+ (.*)$", found, re.MULTILINE) if " ERROR " in line or "stdout" in line
    ]
    assert f"{container[0]} stdout:2: line 1\n" in found


def test_logs_that_are_followed(clusterkit_cli, yarn, sleeping):
    """`app logs --follow` prints what is there, what comes, and ends with the application."""
    command = clusterkit_cli.argv("app", "logs", "--follow", "--name", "std*", sleeping)
    with subprocess.Popen(command, env=clusterkit_cli.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        yarn.resource_manager.kill(sleeping)
        rest = process.stdout.read()
        process.wait(timeout=60)

    assert process.returncode == 0
    said = (first + rest).decode()
    assert sorted(line for line in said.splitlines() if not line.startswith("==>")) == ["begun", "to err"]
    assert re.findall(r"==> \S+ (\w+) <==", said) in (["stderr", "stdout"], ["stdout", "stderr"])


def test_kill(clusterkit_cli, yarn, sleeping):
    """`app kill` returns when YARN says that the application has ended; once more is no error."""
    killed, again = (clusterkit_cli("app", "kill", sleeping) for _ in range(2))

    assert yarn.resource_manager.application(sleeping).state == "KILLED"
    assert (killed.returncode, killed.stdout, killed.stderr) == (0, "", f"killed {sleeping}\n")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", f"{sleeping} had ended already\n")
    assert clusterkit_cli("app", "why", sleeping).stdout.splitlines()[0] == f"{sleeping} was killed"


def test_client_that_was_killed_in_cluster_mode(cluster, clusterkit_cli, yarn, tmp_path):
    """The application goes on, and its report is completed by whoever asks next."""
    job = tmp_path / "goes_on.py"
    job.write_text("import time\nprint('begun', flush=True)\ntime.sleep(3)\nraise SystemExit(9)\n")
    command = clusterkit_cli.argv("submit", *SMALL, "--deploy-mode", "cluster", str(job))
    process = subprocess.Popen(
        command, env=clusterkit_cli.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
    newest = yarn.resource_manager.applications(limit=1)[0]
    eventually(lambda: yarn.resource_manager.application(newest.id).ended, timeout_s=60)

    report = json.loads(clusterkit_cli("app", "show", "--json", newest.id).stdout)

    assert (report["name"], report["final_status"], report["exit_code"]) == ("goes_on.py", "FAILED", 9)
    assert report["cause"]["what"] == "the job ended with exit code 9"


@pytest.mark.parametrize("noun", ["status", "logs", "why", "kill"])
def test_unknown_application(cluster, clusterkit_cli, lines, noun):
    """An id that YARN does not know is told in three lines, with the nearest one."""
    done = clusterkit_cli("app", noun, f"{lines[0][:-2]}99")

    assert done.returncode == 69
    assert done.stdout == ""
    what, _, mend = told(done.stderr)
    assert what == f"there is no application {lines[0][:-2]}99"
    assert mend.startswith("  Mend: did you mean application_")


def test_nonsense(cluster, clusterkit_cli, sleeping):
    """What is no id, no expression, no report: three lines each, never a traceback."""
    for arguments, code, what in (
        (("status", "nonsense"), 69, "'nonsense' is no application id"),
        (("status", "987654"), 69, "there is no application 987654"),
        (("logs", "--grep", "(", sleeping), 64, "`clusterkit app logs` was not understood"),
        (("show", sleeping), 69, f"there is no report of {sleeping}"),
    ):
        done = clusterkit_cli("app", *arguments)
        assert (done.returncode, told(done.stderr)[0], len(told(done.stderr))) == (code, what, 3)


def test_reader_that_goes_away(lines, clusterkit_cli):
    """`app logs ID | head -1` ends quietly."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                clusterkit_cli.argv("app", "logs", lines[0]),
                env=clusterkit_cli.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
