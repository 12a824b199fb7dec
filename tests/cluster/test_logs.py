"""Logs of real applications, beside what Hadoop's own LogsCLI prints of them."""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from clusterkit.embedded import state
from clusterkit.errors import ApplicationError, ClusterError
from clusterkit.hadoop import site
from clusterkit.hadoop.cluster import Cluster
from clusterkit.hadoop.logs.application_logs import NoLogsError
from clusterkit.hadoop.logs.log_file import DamagedLogError, grep, write
from clusterkit.specs.cluster import ClusterSpec

FIXTURES = Path(__file__).parents[1] / "unit" / "fixtures" / "logs"
INDEXED = {
    "yarn.log-aggregation.file-formats": "IFile",
    "yarn.log-aggregation.file-controller.IFile.class": (
        "org.apache.hadoop.yarn.logaggregation.filecontroller.ifile.LogAggregationIndexedFileController"
    ),
}
EVERYTHING = (
    "echo hello; echo oops 1>&2; seq 1 300000 ><LOG_DIR>/big; : ><LOG_DIR>/empty; printf 'unfinished' ><LOG_DIR>/end; "
    "printf '\\377\\376\\0\\r\\n' ><LOG_DIR>/bytes; echo x >'<LOG_DIR>/na me ü;&'; head -c 3000000 /dev/urandom "
    "><LOG_DIR>/random; exit 3"
)


@pytest.fixture(scope="module")
def shared(cluster):
    return cluster.cluster()


@pytest.fixture(scope="module")
def indexed(fresh_cluster):
    """Return a cluster that writes the indexed format."""
    made = fresh_cluster("indexed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "Site", partial(site.Site, extra=site.Extra(yarn=INDEXED)))
        made.up(ClusterSpec(name="indexed"))
    return made


@pytest.fixture(scope="module")
def ended(shared, submit_shell):
    """Return the id of an application of two attempts whose logs were collected as TFile."""
    return collected(shared, submit_shell(shared, EVERYTHING, attempts=2))


def wait_for(what, condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        time.sleep(0.1)
    return result


def collected(cluster, application_id):
    wait_for("the end", lambda: cluster.resource_manager.application(application_id).ended)
    wait_for(
        "the collection of the logs",
        lambda: cluster.resource_manager.application(application_id).log_aggregation == "SUCCEEDED",
    )
    return application_id


def logs_cli(embedded, *args):
    remembered = state.load(embedded.layout)
    done = subprocess.run(
        [
            f"{remembered.java_home}/bin/java",
            "-cp",
            f"{embedded.layout.conf}:{remembered.lib}/*",
            "org.apache.hadoop.yarn.client.cli.LogsCLI",
            *args,
        ],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def printed(cluster, application_id, **selection):
    out = io.BytesIO()
    write(cluster.logs.files(application_id, **selection), out)
    return out.getvalue()


def test_tfile_as_logs_cli_prints_it(cluster, shared, ended):
    """All logs of several containers are printed as LogsCLI prints them, byte for byte."""
    expected = logs_cli(cluster, "-applicationId", ended)
    assert printed(shared, ended) == expected
    assert len(expected) > 2 * 4_000_000


def test_indexed_as_logs_cli_prints_it(indexed, submit_shell):
    """In the indexed format, and from several nodes, too."""
    client = indexed.cluster()
    application_id = collected(client, submit_shell(client, EVERYTHING, attempts=2))
    copy_to_another_node(client, application_id)
    assert printed(client, application_id) == logs_cli(indexed, "-applicationId", application_id)
    files = list(client.logs.files(application_id))
    assert {file.node for file in files} > {"another-node_1"}
    container_id = files[0].container_id
    expected = logs_cli(indexed, "-applicationId", application_id, "-containerId", container_id, "-log_files", "big")
    assert printed(client, application_id, containers=[container_id], names=["big"]) == expected


def copy_to_another_node(client, application_id):
    """Put a copy of a node's file where another node's would be: which nodes an application gets is up to YARN."""
    root = f"{client.configuration.get('yarn.nodemanager.remote-app-log-dir')}/{client.configuration.user}"
    directory = f"{root}/bucket-logs-ifile/{application_id[-4:]}/{application_id}"
    file = next(client.hdfs.list(directory))
    client.hdfs.write(f"{directory}/another-node_1", client.hdfs.chunks(file.path))


def test_selection_as_logs_cli_prints_it(cluster, shared, ended):
    """The logs of one container, and of some names, are those that LogsCLI prints."""
    container_id = next(file.container_id for file in shared.logs.files(ended))
    expected = logs_cli(cluster, "-applicationId", ended, "-containerId", container_id)
    assert printed(shared, ended, containers=[container_id]) == expected
    expected = logs_cli(cluster, "-applicationId", ended, "-log_files", "end,bytes")
    assert printed(shared, ended, names=["end", "bytes"]) == expected


def test_grep_in_collected_logs(shared, ended):
    """A pattern is found with the log's name and the line's number, in every container."""
    matches = list(grep(shared.logs.files(ended, names=["big", "random"]), "^299999$"))
    assert [(match.name, match.line, match.text) for match in matches] == [("big", 299999, b"299999")] * 2


def test_unknown_selection_says_what_there_is(shared, ended):
    """A container or a name that left no logs is refused with those that did."""
    with pytest.raises(ApplicationError) as caught:
        list(shared.logs.files(ended, names=["stdoutt"]))
    assert "big, bytes, directory.info, empty, end" in caught.value.why
    with pytest.raises(ApplicationError) as caught:
        list(shared.logs.files(ended, containers=["container_1_0001_01_000001"]))
    assert ended.replace("application", "container") in caught.value.why


def test_running_application_is_read_from_its_node(shared, submit_shell):
    """While an application runs its logs come from its node, as far as they are written."""
    application_id = submit_shell(shared, "echo first; printf half; sleep 120")
    try:
        wait_for("the first line", lambda: first_log(shared, application_id, "prelaunch.out", b"first\nhalf"))
        (file,) = shared.logs.files(application_id, names=["prelaunch.out"])
        node = shared.resource_manager.nodes()[0].id
        assert (file.source, file.node, file.size) == ("LOCAL", node, len(b"".join(file.chunks())))
        assert file.modified is not None
    finally:
        shared.resource_manager.kill(application_id)


def first_log(cluster, application_id, name, text):
    try:
        files = list(cluster.logs.files(application_id, names=[name]))
    except (NoLogsError, ApplicationError):
        return False
    return any(text in b"".join(file.chunks()) for file in files)


LINES = (
    "for i in 1 2 3 4 5 6 7 8; do seq 1 5000 >><LOG_DIR>/lines; printf part >><LOG_DIR>/parts; sleep 0.3; done; exit 1"
)


def test_follow_loses_and_repeats_nothing(shared, submit_shell):
    """What is followed while it is written, over the end and into HDFS, is what was collected, once."""
    application_id = submit_shell(shared, LINES, attempts=2)
    followed, sources = defaultdict(bytes), defaultdict(int)
    for chunk in shared.logs.follow(application_id, poll_s=0.1):
        followed[chunk.container_id, chunk.name] += chunk.data
        sources[chunk.node] += 1
    whole = {
        (file.container_id, file.name): b"".join(file.chunks())
        for file in shared.logs.files(application_id)
        if file.size
    }
    assert dict(followed) == whole
    assert {name for _, name in whole} >= {"lines", "parts"}
    assert shared.resource_manager.nodes()[0].id in sources  # some of it was read while it ran


def test_follow_of_a_named_container_does_not_wait_for_collection(shared, submit_shell):
    """The logs of a named container are whole when it has ended, from its node or, where it is faster, from HDFS."""
    application_id = submit_shell(shared, LINES)
    container_id = wait_for(
        "its container", lambda: shared.resource_manager.application(application_id).am_container_id
    )
    chunks = list(shared.logs.follow(application_id, containers=[container_id], names=["lines"], poll_s=0.1))
    assert b"".join(chunk.data for chunk in chunks) == b"".join(b"%d\n" % n for n in range(1, 5001)) * 8
    assert {(chunk.container_id, chunk.name) for chunk in chunks} == {(container_id, "lines")}


def test_follow_of_an_application_that_has_ended(shared, ended):
    """Following what has ended yields everything at once."""
    chunks = list(shared.logs.follow(ended, names=["end"]))
    assert [chunk.data for chunk in chunks] == [b"unfinished"] * 2


def test_application_that_never_had_a_container(shared, submit_shell):
    """An application that was killed while it waited is said to have logged nothing."""
    most = shared.resource_manager.scheduler().max_allocation.memory_mib
    hog = submit_shell(shared, "sleep 120", memory_mib=128)
    application_id = submit_shell(shared, "sleep 120", memory_mib=most)
    try:
        wait_for("acceptance", lambda: shared.resource_manager.application(application_id).state == "ACCEPTED")
        with pytest.raises(NoLogsError, match="has no logs yet"):
            list(shared.logs.files(application_id))
        shared.resource_manager.kill(application_id)
        wait_for("its end", lambda: shared.resource_manager.application(application_id).ended)
        with pytest.raises(NoLogsError) as caught:
            list(shared.logs.files(application_id, patience_s=0))
        assert caught.value.why == "it ended before it got a container, so nothing was ever logged"
    finally:
        for each in (hog, application_id):
            shared.resource_manager.kill(each)


@pytest.fixture
def home(shared):
    """Return the directory of our own collected logs."""
    return f"{shared.configuration.get('yarn.nodemanager.remote-app-log-dir')}/{shared.configuration.user}"


@pytest.fixture
def planted(shared, home):
    """Put a file into the place of the logs of an application that the ResourceManager does not know."""
    directory = f"{home}/bucket-logs-tfile/0007/application_1700000000000_0007"

    def plant(name, content):
        shared.hdfs.write(f"{directory}/{name}", content)
        return f"{directory}/{name}"

    yield plant
    shared.hdfs.delete(directory, recursive=True)


def test_application_that_the_resource_manager_forgot(shared, planted):
    """The logs of an application that the ResourceManager has forgotten are found in HDFS."""
    planted("node1.example_45454", (FIXTURES / "tfile-none").read_bytes())
    files = list(shared.logs.files("application_1700000000000_0007", names=["long"]))
    assert [(file.node, file.name, file.size) for file in files] == [("node1.example_45454", "long", 3400)]


def test_older_layout_is_found(shared, home):
    """Logs where Hadoop before 3.3 put them are found."""
    directory = f"{home}/logs-tfile/application_1700000000000_0007"
    shared.hdfs.write(f"{directory}/node1.example_45454", (FIXTURES / "tfile-gz").read_bytes())
    try:
        assert len(list(shared.logs.files("application_1700000000000_0007"))) == 17
    finally:
        shared.hdfs.delete(directory, recursive=True)


@pytest.mark.parametrize("damage", [b"", (FIXTURES / "tfile-gz").read_bytes()[:-1]], ids=["empty", "cut"])
def test_damaged_file_is_named_after_the_others_were_read(shared, planted, damage):
    """A damaged file is named at the end, after what other nodes collected was yielded."""
    path = planted("node1.example_45454", damage)
    planted("node2.example_45454", (FIXTURES / "tfile-none").read_bytes())
    planted("node3.example_45454.tmp", b"still being written")
    out = io.BytesIO()
    with pytest.raises(DamagedLogError) as caught:
        write(shared.logs.files("application_1700000000000_0007"), out)
    assert path in caught.value.what
    assert out.getvalue().count(b"LogContents:") == out.getvalue().count(b"on node2.example_45454\n") == 17


def test_somebody_elses_logs(shared, ended, monkeypatch):
    """Logs that HDFS refuses are said to belong to whom they belong to."""
    owner = shared.configuration.user
    monkeypatch.setenv("HADOOP_USER_NAME", "mallory")
    stranger = Cluster.from_directory("mine", shared.conf_dir)
    with pytest.raises(ClusterError) as caught:
        list(stranger.logs.files(ended))
    assert caught.value.what == f"the logs of {ended} were not read"
    assert caught.value.why.startswith(f"they belong to {owner}, and HDFS refuses them to mallory: Permission denied")


def test_collection_that_is_disabled_is_said(shared, ended, monkeypatch):
    """Without log aggregation that is said, and where the logs are."""
    report = structs.replace(shared.resource_manager.application(ended), log_aggregation="DISABLED")
    monkeypatch.setattr(shared.resource_manager, "application", lambda _: report)
    monkeypatch.setattr("clusterkit.hadoop.logs.aggregated.log_files", lambda *_: None)
    with pytest.raises(NoLogsError) as caught:
        list(shared.logs.files(ended))
    assert caught.value.why.startswith("log aggregation is disabled on the cluster")
