"""A NodeManager's answers: containers, and log files from any place on while they grow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterkit.hadoop.node_manager import LocalLog, LogGoneError, NodeContainer, NodeManager
from clusterkit.hadoop.rest import RemoteError

ID = "container_1700000000000_0007_01_000001"
ROOT = f"/ws/v1/node/containers/{ID}"


@dataclass
class Reply:
    """What a fake daemon answers."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def document(value):
    return Reply(json.dumps(value))


def served(content, growth=b""):
    """Answer for a log file as a NodeManager does: the last `size` bytes, between header and footer.

    Each answer finds the file longer by `growth`.
    """
    state = {"content": content}

    def answer(query):
        now = state["content"]
        state["content"] += growth
        size = -int(query["size"]) if "size" in query else len(now)
        part = now[max(len(now) - size, 0) :]
        header = (
            f"Container: {ID} on n1:45454\nLogAggregationType: LOCAL\n{'=' * 9}\nLogType:stdout\n"
            f"LogLastModifiedTime:Wed Nov 25 03:10:54 +0000 2026\nLogLength:{len(now)}\nLogContents:\n"
        )
        return Reply(header.encode() + part + b"End of LogType:stdout.\n****\n\nContainer: ...\nLogLength:3\n")

    return answer


@pytest.fixture
def fake(daemon):
    return daemon()


@pytest.fixture
def node(fake):
    return NodeManager(fake.url, "alice")


def test_containers(fake, node):
    """A container's state, size and log files are read; one that runs has no exit code."""
    raw = {
        "id": ID,
        "state": "RUNNING",
        "exitCode": -1000,
        "diagnostics": "",
        "user": "alice",
        "totalMemoryNeededMB": 128,
        "totalVCoresNeeded": 1,
        "containerLogFiles": ["stdout", "stderr"],
    }
    fake.replies["/ws/v1/node/containers"] = document({"containers": {"container": [raw]}})
    fake.replies[ROOT] = document({"container": {**raw, "state": "COMPLETE", "exitCode": 143}})
    running = NodeContainer(ID, "RUNNING", None, "", "alice", 128, 1, ("stderr", "stdout"))
    ended = NodeContainer(ID, "COMPLETE", 143, "", "alice", 128, 1, ("stderr", "stdout"))
    assert (node.containers(), node.container(ID)) == ((running,), ended)
    assert node.container("container_1_0001_01_000001") is None


def test_no_containers(fake, node):
    """A node without containers has none."""
    fake.replies["/ws/v1/node/containers"] = document({"containers": {}})
    assert node.containers() == ()


def test_state_of_an_application(fake, node):
    """An application's state on the node is told until it is forgotten."""
    fake.replies["/ws/v1/node/apps/application_1_0001"] = document({"app": {"state": "FINISHED"}})
    assert node.application_state("application_1_0001") == "FINISHED"
    assert node.application_state("application_1_0002") is None


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"containerLogsInfoes": x}])
def test_log_list(fake, node, wrap):
    """The list of log files is read in every form that versions of YARN give it, without what was collected already."""
    local = {"fileName": "stdout", "fileSize": "3", "lastModifiedTime": "Wed Nov 25 03:10:54 +0000 2026"}
    infos = [
        {"containerLogInfo": [local], "logAggregationType": "LOCAL"},
        {"containerLogInfo": [{**local, "fileSize": "99"}], "logAggregationType": "AGGREGATED"},
    ]
    one = {"containerLogsInfo": infos}
    fake.replies[f"{ROOT}/logs"] = document(infos if wrap(1) == [1] else wrap(one))
    assert node.logs(ID) == (LocalLog("stdout", 3, "Wed Nov 25 03:10:54 +0000 2026"),)


@pytest.mark.parametrize(
    "refusal",
    [
        Reply("HTTP 404 Not Found", 404),
        Reply('{"RemoteException":{"exception":"WebApplicationException","message":"HTTP 404 Not Found"}}', 503),
        Reply("Exception reading log file. It might be because log file was aggregated : stdout", 500),
    ],
)
def test_logs_that_left_the_node(fake, node, refusal):
    """Whatever a node says of logs that it no longer has, they are gone, and that is no failure of the node."""
    fake.replies[f"{ROOT}/logs"] = fake.replies[f"{ROOT}/logs/stdout"] = refusal
    assert node.logs(ID) == ()
    with pytest.raises(LogGoneError):
        list(node.log(ID, "stdout"))


def test_refusal_is_kept(fake, node):
    """A refusal for another reason keeps its reason."""
    fake.replies[f"{ROOT}/logs/stdout"] = Reply("User [alice] is not authorized to view the logs", 500)
    with pytest.raises(RemoteError) as caught:
        list(node.log(ID, "stdout"))
    assert caught.value.why == "User [alice] is not authorized to view the logs"


def test_redirect_to_a_log_server_is_no_log(fake, node):
    """A node that sends us elsewhere has the log no longer."""
    fake.replies[f"{ROOT}/logs/stdout"] = Reply("", 307, {"Location": "http://127.0.0.1:1/"})
    with pytest.raises(LogGoneError):
        list(node.log(ID, "stdout"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), data=st.data())
def test_from_any_place_on(fake, node, content, data):
    """What follows a place in a log file is read exactly, whatever its bytes look like."""
    start = data.draw(st.integers(0, len(content)))
    hint = data.draw(st.integers(0, 400))
    fake.replies[f"{ROOT}/logs/stdout"] = served(content)
    assert b"".join(node.log(ID, "stdout", start=start, size_hint=hint)) == content[start:]


def test_contents_that_look_like_a_header(fake, node):
    """A log that quotes the header of another log is read whole."""
    content = b"LogLength:2\nLogContents:\nhello\nEnd of LogType:stdout.\n"
    fake.replies[f"{ROOT}/logs/stdout"] = served(content)
    assert b"".join(node.log(ID, "stdout")) == content


def test_file_that_grows_faster_than_it_is_read(fake, node):
    """A file that grew by more than the margin since its size was known is asked for again, and nothing is lost."""
    content = bytes(range(256)) * 2000
    fake.replies[f"{ROOT}/logs/stdout"] = served(content, growth=b"x" * 10)
    assert b"".join(node.log(ID, "stdout", start=1000, size_hint=1000)) == content[1000:] + b"x" * 10


def test_shorter_file(fake, node):
    """Of a file that is shorter than the place to start from there is nothing to read."""
    fake.replies[f"{ROOT}/logs/stdout"] = served(b"new")
    assert b"".join(node.log(ID, "stdout", start=1000, size_hint=1000)) == b""


def test_name_is_quoted(fake, node):
    """A log file's name may hold anything a file's name may."""
    fake.replies[f"{ROOT}/logs/na%20me%3F%23%C3%BC"] = served(b"x")
    assert b"".join(node.log(ID, "na me?#ü")) == b"x"
