"""`python -m clusterkit.node.bootstrap`: have an image in a node's cache, as a plain command."""

from __future__ import annotations

import argparse
import sys

from . import image, small_json
from .bootstrap import LIMIT_BYTES, prepare
from .errors import NodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Prepare an image and print the report as JSON: its prefix, interpreter, code paths and variables among it."""
    parser = argparse.ArgumentParser(prog="bootstrap", description=main.__doc__)
    parser.add_argument("--manifest", required=True, metavar="FILE", help="the image's manifest.json")
    parser.add_argument("--source", required=True, metavar="DIR", help="the directory with the layers' files")
    parser.add_argument("--node-cache", required=True, metavar="DIR", help="where images are unpacked")
    parser.add_argument("--limit", type=int, default=LIMIT_BYTES, metavar="BYTES", help="what the cache may hold")
    given = parser.parse_args(argv)
    try:
        prepared = prepare(
            image.read(given.manifest),
            source=given.source,
            node_cache=given.node_cache,
            limit_bytes=given.limit,
            said=told,
        )
    except NodeError as exc:
        sys.stderr.write(f"Error: {exc}\n")
        return exc.exit_code
    found = {
        **prepared.report,
        "prefix": prepared.prefix,
        "python": prepared.python,
        "code_paths": prepared.code_paths,
        "variables": prepared.variables,
    }
    sys.stdout.write(small_json.encode(found) + "\n")
    return 0


def told(stage: str, detail: str) -> None:
    """Print progress on stderr."""
    sys.stderr.write(f"clusterkit: {stage} {detail}\n")
    sys.stderr.flush()
