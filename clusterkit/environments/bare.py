"""The bare archive: an interpreter of a few files, with which a node unpacks everything else.

YARN unpacks it into each user's cache as `clusterkit/`, and without libhadoop runs one `chmod` for every file in it. So
the standard library is two zip files of byte code, and only those extension modules are there that what runs on a node
can need. It is the interpreter that runs clusterkit, not the one of the image: what it starts may be any version.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import marshal
import os
import re
import struct
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.environments import archive as archives
from clusterkit.environments import elf, interpreter
from clusterkit.environments.tree import File
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.environments.interpreter import Interpreter

NODE = "clusterkit_node"
"""The package on the node: a copy of `clusterkit.node`, which imports nothing but itself and the standard library."""

STANDARD = "lib/standard.zip"
"""The standard library but for what every start needs: the directory of a zip file is read whole."""

_EXTENSIONS = re.compile(
    r"_(asyncio|bisect|blake2|contextvars|ctypes|datetime|hashlib|heapq|json|opcode|pickle|posixsubprocess|queue|random|sha2"
    r"|sha256|sha512|socket|struct)|array|binascii|fcntl|grp|math|resource|select|unicodedata|zlib"
)
_LEFT_OUT = re.compile(
    r"(site-packages|lib-dynload|ensurepip|lib2to3|pydoc_data|distutils|curses|dbm|sqlite3|venv|msilib|unittest"
    r"|xml|xmlrpc|wsgiref)/|(turtle|this|antigravity|pydoc|doctest|sitecustomize)\.py|_sysconfigdata.*"
)
_WRAPPER = """\
#!/bin/sh
# Has the image on this node, unpacked once for all containers, and becomes its Python: see clusterkit_node/start.py.
case $0 in
  */bin/python) bare=${{0%/bin/python}} ;;
  *) bare=$(dirname "$0")/.. ;;
esac
case $bare in
  */*) work=${{bare%/*}} ;;
  *) work=. ;;
esac
exec "$bare/bin/{program}" -I -S -B -c '{start}' "${{work:-/}}" "$@"
"""
_ALWAYS = ("encodings/", "__future__.")  # all that is imported where the image is there, but for what is frozen
_START = f'import sys; sys.path.append(sys.prefix + "/{STANDARD}"); from {NODE}.start import main; main()'
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive(*, into: Path) -> tuple[str, Path]:
    """Write the bare archive, unless the same one is there already.

    Parameters
    ----------
    into : Path
        A store's directory; the archive is `bare/{digest}.tar.gz` in it.

    Returns
    -------
    tuple of str and Path
        The SHA-256 of the uncompressed tar stream, and the archive.

    Raises
    ------
    ImageError
        If the interpreter that runs clusterkit cannot be copied, or the directory cannot be written.
    """
    directory = into / "bare"
    sources = _Sources.of_this()
    known = directory / f".{sources.key}.json"
    found = _known(known, directory)
    if found is not None:
        return found
    written = archives.write(_files(sources), directory, archives.How(formats=("gz",)))
    aside = known.with_name(f"{known.name}.{os.getpid()}.part")
    aside.write_text(json.dumps(written.digest))
    aside.replace(known)
    return written.digest, directory / f"{written.digest}.tar.gz"


def _known(known: Path, directory: Path) -> tuple[str, Path] | None:
    """Return the archive that was made of the same sources before."""
    try:
        digest = json.loads(known.read_text())
    except (OSError, ValueError):
        return None
    path = directory / f"{digest}.tar.gz"
    return (digest, path) if path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Sources:
    """What the archive is made of: an interpreter, the code for nodes, and zstandard."""

    executable: Path
    node: tuple[Path, ...]
    zstandard: Path

    @classmethod
    def of_this(cls) -> _Sources:
        executable = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
        node = Path(__file__).resolve().parent.parent / "node"
        return cls(executable, tuple(sorted(node.glob("*.py"))), _extension_of_zstandard())

    @property
    def key(self) -> str:
        """A name for these sources: the code by its bytes, what is installed by size and time."""
        key = hashlib.sha256(f"{sys.version}\0".encode())
        for path in (Path(__file__), *self.node):
            key.update(path.name.encode() + path.read_bytes())
        for path in (self.executable, self.zstandard, Path(os.__file__)):
            found = path.stat()
            key.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
        return key.hexdigest()


def _extension_of_zstandard() -> Path:
    spec = importlib.util.find_spec("zstandard.backend_c")
    if spec is None or spec.origin is None:
        raise ImageError(
            "the bare interpreter cannot be made",
            why="zstandard has no compiled module here",
            mend="install it from its wheel: `pip install --force-reinstall --only-binary :all: zstandard`",
        )
    return Path(spec.origin)


def _files(sources: _Sources) -> list[File]:
    base = interpreter.probe(sources.executable)
    parts = interpreter.read(base)
    library = f"lib/python{base.minor}"
    extensions = [file for file in parts.files if _is_needed(file, f"{library}/lib-dynload/")]
    libraries = _libraries(base, extensions)
    modules = _standard_library([file for file in parts.files if file.path.startswith(f"{library}/")], library)
    always = {name: data for name, data in modules.items() if name.startswith(_ALWAYS)}
    others = {name: data for name, data in modules.items() if name not in always}
    programs = [file for file in parts.files if file.path == f"bin/python{base.minor}" or file.path in libraries]
    return [
        *map(_without_debugging, [*programs, *extensions]),
        _of_bytes(f"lib/python{base.minor.replace('.', '')}.zip", _zip({**always, **_node(sources.node)})),
        _of_bytes(STANDARD, _zip(others)),
        *_zstandard(sources.zstandard, library),
        _of_bytes("bin/python", _WRAPPER.format(program=f"python{base.minor}", start=_START).encode(), 0o755),
    ]


def _is_needed(file: File, directory: str) -> bool:
    name = file.path.removeprefix(directory)
    return name != file.path and _EXTENSIONS.fullmatch(name.partition(".")[0]) is not None


def _libraries(base: Interpreter, extensions: Iterable[File]) -> set[str]:
    """Return which libraries the program and the extension modules that are carried need, as paths of the archive."""
    names = {file.path.rpartition("/")[2] for file in extensions}
    return {f"lib/{name}" for name in elf.closure([base.executable, *(base.extensions / name for name in names)])}


def _zstandard(extension: Path, library: str) -> Iterator[File]:
    for path, mode in ((extension, 0o755), (extension.with_name("__init__.py"), 0o644)):
        yield _without_debugging(File(f"{library}/zstandard/{path.name}", path, mode, path.stat().st_size))


def _without_debugging(file: File) -> File:
    """Return a file with zeros for what a debugger alone reads: two thirds of the archive, and nothing moves."""
    data = file.read()
    if elf.read(data) is None:
        return file
    cleared = bytearray(data)
    for offset, size in _debugging(data):
        cleared[offset : offset + size] = bytes(size)
    return File(file.path, bytes(cleared), file.mode, len(cleared), file.package)


def _debugging(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the sections of a 64-bit ELF file lie that begin with `.debug_` and are never loaded."""
    (table,) = struct.unpack_from("<Q", data, 40)
    width, count, names_index = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, table + width * number) for number in range(count)] if table else []
    for name, _, flags, _, offset, size in sections:
        start = sections[names_index][4] + name
        if not flags & 0x2 and data.startswith(b".debug_", start):  # SHF_ALLOC
            yield offset, size


def _standard_library(files: list[File], library: str) -> dict[str, bytes]:
    """Return the byte code of the standard library, without what no program on a node needs."""
    by_path = {file.path: file for file in files}
    code: dict[str, bytes] = {}
    for file in files:
        name = file.path.removeprefix(f"{library}/")
        if name.endswith(".py") and not _LEFT_OUT.match(name):
            cached = by_path.get(importlib.util.cache_from_source(file.path, optimization=""))
            code[f"{name}c"] = _byte_code(file, cached, name)
    return code


def _node(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the code for nodes, with its source for tracebacks and for what another Python runs of it."""
    code: dict[str, bytes] = {}
    for path in paths:
        name = f"{NODE}/{path.name}"
        source = File(name, path, 0o644, path.stat().st_size)
        code[name] = source.read()
        code[f"{name}c"] = _byte_code(source, None, name)
    return code


def _zip(members: dict[str, bytes]) -> bytes:
    """Return a zip file in which nothing has to be inflated."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return stream.getvalue()


def _byte_code(source: File, cached: File | None, name: str) -> bytes:
    """Return byte code that is loaded without a look at its source (PEP 552)."""
    data = source.read()
    body = None if cached is None else _current(cached.read(), source)
    if body is None:
        body = marshal.dumps(compile(data, name, "exec", dont_inherit=True, optimize=0), 2)  # 2: the same each time
    return importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little") + importlib.util.source_hash(data) + body


def _current(cached: bytes, source: File) -> bytes | None:
    """Return what a `.pyc` holds if it belongs to its source, by time and size or by hash."""
    flags = int.from_bytes(cached[4:8], "little")
    if flags:
        known = cached[8:16] == importlib.util.source_hash(source.read())
    else:
        found = Path(os.fsdecode(source.source)).stat()
        times = (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
        known = times == (int.from_bytes(cached[8:12], "little"), int.from_bytes(cached[12:16], "little"))
    return cached[16:] if known and cached[:4] == importlib.util.MAGIC_NUMBER else None


def _of_bytes(path: str, data: bytes, mode: int = 0o644) -> File:
    return File(path, data, mode, len(data))
