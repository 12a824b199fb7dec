"""What hdfs-native raises, said in clusterkit's terms."""

from __future__ import annotations

import pytest

from clusterkit.errors import ClusterError, StoreError
from clusterkit.hadoop.configuration import Configuration
from clusterkit.hadoop.hdfs import (
    DeniedError,
    Hdfs,
    MissingPathError,
    PathExistsError,
    QuotaError,
    SafeModeError,
)

TRACE = "\\n\\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.x(FSNamesystem.java:1)\\n"
DATANODES = (
    'DataTransferError("All DataNodes failed: [DatanodeInfoProto { id: DatanodeIdProto { ip_addr: \\"10.0.0.1\\", '
    'host_name: \\"n1\\", datanode_uuid: \\"9d\\", xfer_port: 9866, info_port: 1 } }, DatanodeInfoProto { id: '
    'DatanodeIdProto { ip_addr: \\"10.0.0.2\\", host_name: \\"n2\\", datanode_uuid: \\"9e\\", xfer_port: 9867 } }]")'
)


def remote(java, message):
    return RuntimeError(f'RPCError("{java}", "{message}{TRACE}")')


@pytest.mark.parametrize(
    ("raised", "kind", "why"),
    [
        (FileNotFoundError("/a"), MissingPathError, "there is no such file or directory"),
        (FileNotFoundError("Path is not a file: /a\n\tat x"), StoreError, "Path is not a file: /a"),
        (FileExistsError("/a for client 1 already exists\n\tat"), PathExistsError, "the path exists already"),
        (
            remote("org.apache.hadoop.security.AccessControlException", 'Permission denied: inode=\\"/\\":root'),
            DeniedError,
            'Permission denied: inode="/":root',
        ),
        (
            remote(
                "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
                "Cannot create /a. Name node is in safe mode.",
            ),
            SafeModeError,
            "Cannot create /a. Name node is in safe mode.",
        ),
        (
            remote("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "The DiskSpace quota of /a is exceeded"),
            QuotaError,
            "The DiskSpace quota of /a is exceeded",
        ),
        (
            remote("java.io.IOException", "File /a could only be written to 0 of the 1 minReplication nodes."),
            StoreError,
            "File /a could only be written to 0 of the 1 minReplication nodes.",
        ),
        (RuntimeError(DATANODES), StoreError, "all DataNodes that hold it failed (10.0.0.1:9866, 10.0.0.2:9867)"),
        (remote("java.lang.NullPointerException", "null"), StoreError, "null"),
        (RuntimeError(""), StoreError, "RuntimeError"),
        (OSError("Connection refused (os error 111)"), ClusterError, "Connection refused (os error 111)"),
    ],
)
def test_each_is_said_in_our_terms(raised, kind, why):
    """Each refusal becomes an error of its kind, with what HDFS said, without Java's stack, and the whole path."""
    hdfs = Hdfs(Configuration.from_mapping({"fs.defaultFS": "hdfs://127.0.0.1:1"}))
    error = hdfs._translated("/a b", "was not written", raised)
    assert (type(error), error.why) == (kind, why)
    assert error.mend
    if isinstance(error, StoreError):
        assert (error.what, error.uri) == ("hdfs://127.0.0.1:1/a b was not written", "hdfs://127.0.0.1:1/a b")
    else:
        assert (error.what, error.port) == ("HDFS at 127.0.0.1:1 does not answer", 1)
