"""A relocatable copy of a Python: its program, its standard library, and every library they need but glibc's.

The copy runs wherever it lies, on a node that has no Python. The program finds `lib/` by a DT_RPATH `$ORIGIN/../lib`,
which holds for everything it loads and comes before `LD_LIBRARY_PATH`; the standard library is found from where the
program lies, so that neither PYTHONHOME nor any other variable is needed, which child processes would inherit.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.environments import elf
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.tree import PLACEHOLDER, File, Link
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PACKAGE = "python"
"""The package that the files of an interpreter belong to."""

_LEFT_OUT = re.compile(
    r"(site-packages|dist-packages|test|idlelib|turtledemo|tkinter|config-.*|EXTERNALLY-MANAGED|sitecustomize\.py"
    r"|_(tkinter|test\w*|ctypes_test|xxtestfuzz|xxinterpchannels)\..*\.so|.*\.opt-[12]\.pyc)"
)
_SHARED_PREFIXES = frozenset({"", "/", "/usr"})
_QUESTION = """\
import json, os, platform, site, sys, sysconfig
def _certificates():
    try:
        import ssl
    except ImportError:
        return []
    paths = ssl.get_default_verify_paths()
    return [paths.openssl_cafile, paths.openssl_capath]
marker = "/@"
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": platform.python_version(),
    "minor": "%d.%d" % sys.version_info[:2],
    "machine": platform.machine(),
    "bits": sys.maxsize.bit_length() + 1,
    "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "prefix": sys.base_prefix,
    "platlibdir": sys.platlibdir,
    "stdlib": os.path.dirname(os.path.realpath(os.__file__)),
    "path": sys.path,
    "sites": site.getsitepackages([marker]),
    "own_sites": site.getsitepackages([sys.base_prefix]),
    "certificates": _certificates(),
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine, not of a virtual environment.

    Parameters
    ----------
    executable : Path
        The program, links resolved.
    version, minor : str
        `3.11.7` and `3.11`.
    platform : str
        `linux-64` or `linux-aarch64`.
    prefix : Path
        Where it is installed: `sys.base_prefix`.
    stdlib, extensions : Path
        Its standard library and its `lib-dynload`.
    platlibdir : str
        `lib`, or `lib64` where the standard library lies there.
    site_name : str
        Where it looks for packages below its prefix: `lib/python3.11/site-packages`, Debian's elsewhere.
    sites : tuple of Path
        The existing directories of this machine that it looks for packages in.
    certificates : tuple of str
        Where its OpenSSL looks for certificates of authorities.
    """

    executable: Path
    version: str
    minor: str
    platform: str
    prefix: Path
    stdlib: Path
    extensions: Path
    platlibdir: str
    site_name: str
    sites: tuple[Path, ...]
    certificates: tuple[str, ...] = ()

    @property
    def stale(self) -> tuple[str, ...]:
        """The paths that must not survive in a copy; a prefix that all programs share, as /usr, may."""
        return () if str(self.prefix) in _SHARED_PREFIXES else (str(self.prefix),)


@dataclass(frozen=True, slots=True)
class Parts:
    """The files and links of a copy."""

    files: tuple[File, ...]
    links: tuple[Link, ...]


def probe(executable: Path) -> Interpreter:
    """Ask a Python what it is.

    Parameters
    ----------
    executable : Path
        Its program; not the one of a virtual environment.

    Raises
    ------
    ImageError
        If it cannot be run, or is not one that clusterkit can copy.
    """
    try:
        done = processes.run([str(executable), "-I", "-S", "-c", _QUESTION], timeout_s=60)
        told = json.loads(done.stdout) if done.exit_code == 0 else None
    except (OSError, TimeoutError, ValueError) as exc:
        raise _cannot_run(executable, str(exc)) from exc
    if told is None:
        raise _cannot_run(executable, done.last_lines(3))
    _check(executable, told)
    minor, stdlib = told["minor"], Path(told["stdlib"])
    extensions = next((Path(each) for each in told["path"] if each.endswith("lib-dynload")), stdlib / "lib-dynload")
    wanted = f"lib/python{minor}/site-packages"
    names = [each.removeprefix("/@/") for each in told["sites"]]
    return Interpreter(
        executable=Path(os.path.realpath(executable)),
        version=told["version"],
        minor=minor,
        platform="linux-64" if told["machine"] in {"x86_64", "AMD64"} else "linux-aarch64",
        prefix=Path(told["prefix"]),
        stdlib=stdlib,
        extensions=extensions,
        platlibdir=told["platlibdir"],
        site_name=wanted if wanted in names else _nearest(names, minor),
        sites=tuple(path for path in map(Path, told["own_sites"]) if path.is_dir()),
        certificates=tuple(told["certificates"]),
    )


def read(base: Interpreter, *, also: Mapping[str, Path] | None = None, cache_dir: Path | None = None) -> Parts:
    """Return a relocatable copy of an interpreter.

    Parameters
    ----------
    base : Interpreter
        What to copy; it is only read.
    also : mapping of str to Path
        More libraries of this machine that shall lie in `lib/`, by name.
    cache_dir : Path, optional
        Where changed programs and libraries are kept, so that they need not be made again.

    Raises
    ------
    ImageError
        If a search path cannot be changed.
    """
    kept = None if cache_dir is None else cache_dir / "elf"
    library = f"lib/python{base.minor}"
    extensions = list(_extensions(base, library))
    needed = elf.closure([base.executable, *(file.source for file in extensions if isinstance(file.source, Path))])
    needed = {**(also or {}), **needed}
    files = [
        *_program(base, kept),
        *_standard_library(base, library),
        *_relinked(extensions, "$ORIGIN/../..", kept),
        *vendored(needed, kept),
        _certificates(base),
    ]
    return Parts(tuple(files), tuple(_links(base)))


def vendored(libraries: dict[str, Path], kept: Path | None) -> list[File]:
    """Return libraries of this machine as files of `lib/`; those that name directories look beside themselves."""
    files = [_file(f"lib/{name}", path, 0o755) for name, path in libraries.items()]
    own = [file for file in files if isinstance(file.source, Path) and _has_search_path(file.source)]
    changed = {file.path: file for file in _relinked(own, "$ORIGIN", kept, force=True)}
    return [changed.get(file.path, file) for file in files]


def locked(base: Interpreter) -> LockedPackage:
    """Return an interpreter as a package of a lock."""
    return LockedPackage(name=PACKAGE, version=base.version, kind="python", subdir=base.platform)


def _cannot_run(executable: Path, why: str) -> ImageError:
    return ImageError(
        f"the Python {executable} cannot be packed",
        why=f"it cannot be run: {why}",
        mend="check it with `-c 'import sys'`; make the virtual environment anew if its Python is gone",
    )


def _check(executable: Path, told: dict[str, object]) -> None:
    """Refuse what is not a CPython with the usual ABI, on Linux with 64 bits."""
    if told["implementation"] != "cpython" or told["threaded"] or told["bits"] != 64:
        kind = "free-threaded" if told["threaded"] else f"{told['implementation']}, {told['bits']} bits"
        raise ImageError(
            f"the Python {executable} cannot be packed",
            why=f"it is {kind}, and clusterkit packs CPython of 64 bits with its usual ABI",
            mend="name another one with the key `python`, or make the virtual environment with it",
        )


def _nearest(names: Sequence[str], minor: str) -> str:
    """Return where a patched Python looks for packages: preferably beside the standard library."""
    beside = f"lib/python{minor}/"
    return next((each for each in names if each.startswith(beside)), names[-1])


def _program(base: Interpreter, kept: Path | None) -> list[File]:
    return _relinked([_file(f"bin/python{base.minor}", base.executable, 0o755)], "$ORIGIN/../lib", kept, force=True)


def _links(base: Interpreter) -> Iterator[Link]:
    program, standard = f"python{base.minor}", f"lib/python{base.minor}/site-packages"
    for name in ("bin/python", "bin/python3"):
        yield Link(name, program, PACKAGE)
    if base.platlibdir != "lib":
        yield Link(base.platlibdir, "lib", PACKAGE)
    if base.site_name != standard:
        yield Link(base.site_name, os.path.relpath(standard, os.path.dirname(base.site_name)), PACKAGE)  # noqa: PTH120


def _certificates(base: Interpreter) -> File:
    """Return a line that Python runs at its start: where this machine's OpenSSL looks, another system has nothing."""
    usual = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/ca-bundle.pem")
    line = (
        f"import os; any(map(os.path.exists, {base.certificates!r})) or "
        f'[os.environ.setdefault("SSL_CERT_FILE", each) for each in {usual!r} if os.path.exists(each)]\n'
    )
    return _of_bytes(f"lib/python{base.minor}/site-packages/clusterkit_certificates.pth", line.encode())


def _extensions(base: Interpreter, library: str) -> Iterator[File]:
    if not base.extensions.is_dir():
        return  # python-build-standalone has them in the program
    for entry in sorted(os.scandir(base.extensions), key=lambda each: each.name):
        if entry.name.endswith(".so") and not _LEFT_OUT.fullmatch(entry.name):
            yield _file(f"{library}/lib-dynload/{entry.name}", Path(entry.path), 0o755)


def _standard_library(base: Interpreter, library: str) -> Iterator[File]:
    for path, entry in _walk(base.stdlib, ""):
        source = Path(os.path.realpath(entry.path)) if entry.is_symlink() else Path(entry.path)
        if not source.is_file() or path.startswith("lib-dynload/"):
            continue  # a link to nothing; the extensions are treated by themselves
        if "/" not in path and path.startswith("_sysconfigdata"):
            yield _with_placeholder(f"{library}/{path}", source, base)
        elif path in {"sysconfig.py", "sysconfig/__init__.py"}:
            yield _with_usual_places(f"{library}/{path}", source)
        elif not re.match(r"(__pycache__/_sysconfigdata|(sysconfig/)?__pycache__/(sysconfig|__init__)\.)", path):
            yield _file(f"{library}/{path}", source, 0o644)


def _walk(directory: Path, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda each: each.name)
    for entry in ordered:
        if _LEFT_OUT.fullmatch(entry.name) and not _is_a_module_of_that_name(entry, below):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{below}{entry.name}/")
        else:
            yield f"{below}{entry.name}", entry


def _is_a_module_of_that_name(entry: os.DirEntry[str], below: str) -> bool:
    """Say whether an entry below the first level is no test suite: only those of the first level are left out."""
    return below != "" and not entry.name.endswith(".pyc") and entry.name not in {"test", "sitecustomize.py"}


def _file(path: str, source: Path, mode: int) -> File:
    return File(path, source, mode, source.stat().st_size, PACKAGE)


def _of_bytes(path: str, data: bytes, mode: int = 0o644) -> File:
    return File(path, data, mode, len(data), PACKAGE)


def _with_placeholder(path: str, source: Path, base: Interpreter) -> File:
    """Return the variables that the interpreter was built with, for the prefix that the copy will have."""
    text = source.read_text("utf-8")
    named = re.search(r"'prefix': '([^']*)'", text)  # python-build-standalone was built for another place than its own
    for prefix in dict.fromkeys((str(base.prefix), named[1] if named else "")):
        text = re.sub(_occurrences(prefix), PLACEHOLDER, text) if prefix else text
    data = text.encode()
    return File(path, data, 0o644, len(data), PACKAGE, bake="text" if PLACEHOLDER in text else None)


def _occurrences(prefix: str) -> str:
    """Return a pattern for a prefix; of one that all programs share only the paths that are Python's own."""
    escaped = re.escape(prefix)
    if prefix in _SHARED_PREFIXES:
        return rf"(?<=['\"]){escaped}(?=(/(lib|include)/python[\d.]+[^'\"]*)?['\"])"
    return rf"{escaped}(?![\w.-])"


def _with_usual_places(path: str, source: Path) -> File:
    """Return `sysconfig` without a distribution's own places for packages: the copy has the usual ones."""
    text = source.read_text("utf-8")
    if "dist-packages" not in text:
        return _file(path, source, 0o644)
    usual = re.sub(r"/(local/)?lib/python(3|\{py_version_short\})/dist-packages", _USUAL_SITE, text)
    return _of_bytes(path, re.sub(r"(\{base\}|\{platbase\})/local(?=['/])", r"\1", usual).encode())


_USUAL_SITE = "/lib/python{py_version_short}/site-packages"


def _relinked(files: Sequence[File], rpath: str, kept: Path | None, *, force: bool = False) -> list[File]:
    """Return files with another search path; extensions without one keep none, the program's holds for them."""
    paths = {file.path: file.source for file in files if isinstance(file.source, Path)}
    todo = [path for path, source in paths.items() if force or _has_search_path(source)]
    changed = dict(
        zip(todo, elf.with_rpaths([paths[each] for each in todo], rpath, force=force, cache_dir=kept), strict=True)
    )
    return [_replaced(file, changed[file.path]) if file.path in changed else file for file in files]


def _replaced(file: File, source: Path | bytes) -> File:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return File(file.path, source, file.mode, size, file.package, file.bake)


def _has_search_path(path: Path) -> bool:
    found = elf.read(path)
    return found is not None and bool(found.rpath or found.runpath)
