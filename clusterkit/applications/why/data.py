"""Causes of failure: HDFS refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence

_DENIED = re.compile(
    r'Permission denied: user=(?P<user>[^,\s]+), access=(?P<access>\w+), inode="(?P<inode>[^"]*)"'
    r"(?::(?P<owner>[^:\s]*):(?P<group>[^:\s]*):(?P<mode>[\w+-]{10,11}))?"
)
_MISSING = re.compile(
    r"\[PATH_NOT_FOUND\] Path does not exist: (?P<table>[^\n]+?)\.?(?: SQLSTATE|\n|$)"
    r"|Input path does not exist: (?P<input>[^\n]+)"
    r"|FileNotFoundException: File(?: does not exist:)? (?P<file>[^\s]+?)(?: does not exist)?[.,;]?(?:\s|$)"
)
_SAFE_MODE = re.compile(r"(?:(?P<action>Cannot [^\n]*?)\. )?Name node is in safe mode")
_SUBMITTING = re.compile(r"api\.java\.JavaSparkContext")
_ACTIONS = {"READ": "read", "WRITE": "write in", "EXECUTE": "enter", "READ_EXECUTE": "list", "ALL": "change"}


def permission_denied(evidence: Evidence) -> Cause | None:
    """Recognise a right that is missing in HDFS."""
    found = _DENIED.search(evidence.words)
    if found is None:
        return None
    user, inode = found["user"], found["inode"] or "/"
    owner = f", which belongs to {found['owner']}:{found['group']} with mode {found['mode']}" if found["mode"] else ""
    return Cause(
        kind="permission-denied",
        what=f"HDFS does not let {user} {_ACTIONS.get(found['access'], found['access'].lower())} {inode}",
        why=_at(f"access={found['access']} on inode {inode}{owner}", evidence),
        mend=_home(user)
        if inode == "/user" and (evidence.report is None or _SUBMITTING.search(evidence.words))
        else f"use a path that belongs to {user}, such as /user/{user}, or ask {found['owner'] or 'its owner'} for it",
    )


def _home(user: str) -> str:
    return (
        f"{user} has no home directory, where Spark puts a job's files: have HDFS's administrator make one, "
        f"`hdfs dfs -mkdir /user/{user}` and `hdfs dfs -chown {user} /user/{user}`"
    )


def file_missing(evidence: Evidence) -> Cause | None:
    """Recognise a path that does not exist, in HDFS or on a node."""
    found = _MISSING.search(evidence.words)
    if found is None:
        return None
    path = (found["table"] or found["input"] or found["file"]).strip()
    local = path.startswith("file:")
    return Cause(
        kind="file-missing",
        what=f"the job reads {path}, which does not exist",
        why=_at(
            "there is no such file on the node that looked" if local else "HDFS has no such file or directory", evidence
        ),
        mend="put the file on HDFS, or send it along with --files: the nodes do not see the files of this machine"
        if local
        else "check the path: one without a scheme is meant in HDFS; a file of this machine is sent along with --files",
    )


def safe_mode(evidence: Evidence) -> Cause | None:
    """Recognise a NameNode that allows reading only."""
    found = _SAFE_MODE.search(evidence.words)
    if found is None:
        return None
    return Cause(
        kind="safe-mode",
        what="HDFS accepts no writes: its NameNode is in safe mode",
        why=_at(found["action"] or "it refused a write", evidence),
        mend="wait until it leaves safe mode by itself, which it does when enough DataNodes have reported, or end it: "
        "`hdfs dfsadmin -safemode leave`",
    )


def _at(first: str, evidence: Evidence) -> str:
    """Add the line of the job that it happened in, where that is known."""
    frames = evidence.traceback.frames if evidence.traceback else ()
    return "\n".join([first, *(str(frame) for frame in frames[-1:])])
