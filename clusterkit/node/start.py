"""What `clusterkit/bin/python` does in a container: have the image on the node, and become its Python.

It is started once for each container, and nearly always finds the image complete: until then it imports no more than
it must.
"""

from __future__ import annotations

import errno
import os
import sys

from . import image as images
from . import small_json
from .bootstrap import LIMIT_BYTES, Prepared, prepare
from .errors import NodeError

MANIFEST = "clusterkit-image.json"
"""The image's manifest, in the container's working directory."""

WHOLE = "clusterkit-image"
"""The image that YARN unpacked, where the node has no cache for it."""

NODE_CACHE = "/var/tmp/clusterkit"  # noqa: S108 - each user's part of it is checked
_PREFIX = "_CLUSTERKIT_"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn


def main() -> NoReturn:
    """Become the image's Python; `sys.argv` has the container's working directory, then the arguments.

    The environment may name `_CLUSTERKIT_NODE_CACHE` and `_CLUSTERKIT_NODE_CACHE_BYTES`, and with `_CLUSTERKIT_REPORT`
    a directory, in which a file tells what was done for this container; that of YARN's logs otherwise.
    """
    work, arguments = os.path.abspath(sys.argv[1]), sys.argv[2:]
    try:
        prepared = ready(work, os.environ)
        _report(prepared, os.environ)
        _become(prepared, arguments, prepared.environment(os.environ))
    except NodeError as exc:
        sys.stderr.write(f"Error: {exc}\n")
        sys.stderr.flush()
        os._exit(exc.exit_code)


def ready(work: str, environ: Mapping[str, str]) -> Prepared:
    """Return the image of a container, ready to run.

    Parameters
    ----------
    work : str
        The container's working directory: the manifest is there, with the layers' files or the whole image.
    environ : mapping of str to str
        The container's environment.

    Raises
    ------
    NodeError
        If it cannot be used on this node.
    """
    if os.path.isdir(os.path.join(work, WHOLE)):
        return _whole(work)
    return prepare(
        images.read(os.path.join(work, MANIFEST)),
        source=work,
        node_cache=environ.get(f"{_PREFIX}NODE_CACHE") or NODE_CACHE,
        limit_bytes=_number(environ.get(f"{_PREFIX}NODE_CACHE_BYTES", ""), LIMIT_BYTES),
        said=_telling(environ),
    )


def _whole(work: str) -> Prepared:
    """Return the image that YARN unpacked for this container; its prefix was written when it was packed."""
    image = images.Image(images.read(os.path.join(work, MANIFEST)))
    code_paths = [os.path.join(work, layer.digest) for layer in image.code]
    for layer, path in zip(image.code, code_paths):  # noqa: B905 - Python 3.9 knows no strict
        if not os.path.isdir(path):
            raise NodeError(
                f"the layer {layer.name} is not on this node",
                why=f"{path} is no directory",
                mend="submit again; `clusterkit env verify` tells whether the store still has the layer",
            )
    report = {"image": image.base, "name": image.name, "transport": "native", "hit": True, "seconds": 0.0}
    return Prepared(image, os.path.join(work, WHOLE), code_paths, report)


def _report(prepared: Prepared, environ: Mapping[str, str]) -> None:
    """Write what was done for this container where the launcher collects it; a report that fails changes nothing."""
    directory = _directory_of_reports(environ)
    if not directory:
        return
    container = environ.get("CONTAINER_ID") or f"{os.uname().nodename}-{os.getpid()}"
    path = os.path.join(directory, f"{container}.json")
    told = {"container": container, "host": os.uname().nodename, "prefix": prepared.prefix, **prepared.report}
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(small_json.encode(told))
    except OSError:
        pass


def _directory_of_reports(environ: Mapping[str, str]) -> str:
    """Return where the launcher looks for reports: the first directory of the container's logs."""
    return environ.get(f"{_PREFIX}REPORT") or environ.get("LOG_DIRS", "").partition(",")[0]


def _become(prepared: Prepared, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execve(prepared.python, [prepared.python, *arguments], environment)  # noqa: S606 - no shell is the point
    except OSError as exc:
        raise _cannot_start(prepared, exc) from exc


def _cannot_start(prepared: Prepared, exc: OSError) -> NodeError:
    if exc.errno == errno.EACCES:
        from .building import cannot_execute  # noqa: PLC0415 - only where it is needed

        return cannot_execute(os.path.dirname(prepared.prefix))
    why = {
        errno.ENOENT: f"{prepared.python}, or the loader of the C library that it names, is not there",
        errno.ENOEXEC: f"{prepared.python} is for another processor than {os.uname().machine}",
        errno.E2BIG: "the arguments and the environment are too long",
    }.get(exc.errno or 0, f"{prepared.python}: {exc.strerror}")
    return NodeError(
        "the image's Python cannot be started",
        why=why,
        mend="compare `clusterkit env show` with the node: platform and glibc must fit",
    )


def _telling(environ: Mapping[str, str]) -> Callable[[str, str], None]:
    """Return what tells of progress: beside the container's logs where it has any, on stderr otherwise.

    Spark mixes the standard error of a driver on the cluster into its standard output, which is the job's alone.
    """
    directory = _directory_of_reports(environ)

    def told(stage: str, detail: str) -> None:
        line = f"clusterkit: {stage} {detail}\n"
        if not directory:
            sys.stderr.write(line)
            sys.stderr.flush()
            return
        try:
            with open(os.path.join(directory, "clusterkit-image"), "a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            pass

    return told


def _number(text: str, default: int) -> int:
    return int(text) if text.isdigit() else default
