"""The user's own code: editable installs and folders, as one `Code` for each package, so that an edit re-ships little.

What is packed: Python files and the data beside them. What is not: what .gitignore names, byte code, hidden files and
folders (`.git`, `.venv`, `.env`), virtual environments, and build metadata. What a build leaves in a package is packed
even where .gitignore names it, because the package would not import without it: extension modules, `_version.py`,
protobuf's `_pb2.py`.
"""

from __future__ import annotations

import ast
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from clusterkit import processes
from clusterkit.environments.tree import Code, File
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pathspec import GitIgnoreSpec

LIMIT_BYTES = 50 * 1024 * 1024
"""How large one folder of code may be; more is data, which belongs on HDFS."""

_LEFT_OUT = re.compile(r"\..*|__pycache__|node_modules|.*\.egg-info|.*\.dist-info|.*\.py[co]|.*\.egg-link")
_BESIDE_A_PROJECT = re.compile(r"(tests?|testing|docs?|examples?|benchmarks?|build|dist)")
_NO_NAMESPACES = frozenset({"scripts", "tools", "notebooks", "data"})
_NO_MODULES = frozenset({"setup.py", "conftest.py", "noxfile.py", "fabfile.py", "dodo.py"})
_BUILT = re.compile(r".*\.so|(_|__)?version(__)?\.py|.*_pb2(_grpc)?\.py")
_TOO_MANY = 100_000
_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True, slots=True)
class Editables:
    """The editable installs of one site-packages directory.

    Parameters
    ----------
    code : tuple of Code
        What they import, one for each package.
    replaced : mapping of str to bytes or None
        Files of site-packages that named paths of this machine: their new bytes, or None where nothing is left.
    projects : mapping of str to Path
        The folders of the editable distributions, by normalised name.
    """

    code: tuple[Code, ...] = ()
    replaced: dict[str, bytes | None] = field(default_factory=dict)
    projects: dict[str, Path] = field(default_factory=dict)


@dataclass(slots=True)
class _Found:
    """What .pth files name, as it is gathered."""

    roots: dict[Path, str] = field(default_factory=dict)
    modules: dict[str, Path] = field(default_factory=dict)
    replaced: dict[str, bytes | None] = field(default_factory=dict)


def folder(path: Path, *, name: str | None = None) -> Code:
    """Return a folder as code.

    Parameters
    ----------
    path : Path
        A package (it holds `__init__.py`), which is imported by its name, or a folder that stands on the import path
        itself, such as the one a job lies in.
    name : str, optional
        Another name for it.

    Raises
    ------
    ImageError
        If it is missing, or holds more than 50 MB.
    """
    path = path.absolute()
    if not path.is_dir():
        raise ImageError(
            f"the code in {path} cannot be packed", why="there is no such folder", mend="check the paths in `local`"
        )
    is_package = (path / "__init__.py").is_file() and path.name.isidentifier()
    return _checked(Code(name or path.name, _files(path, f"{path.name}/" if is_package else "")), path)


def package(path: Path, name: str) -> Code:
    """Return a folder as the package that is imported by a name, which may be another than its own.

    Raises
    ------
    ImageError
        If it holds more than 50 MB.
    """
    return _checked(Code(name, _files(path, f"{name}/")), path)


def local(path: Path) -> tuple[Code, ...]:
    """Return what a path of `local:` means: a module, a package, a project's packages, or a folder of modules.

    Raises
    ------
    ImageError
        If it is missing, holds no Python file, or more than 50 MB.
    """
    path = path.absolute()
    if path.is_file() and path.suffix == ".py":
        return (Code(path.stem, (_file(path, path.name),)),)
    is_project = any((path / each).is_file() for each in _PROJECT) and not (path / "__init__.py").is_file()
    found = _of_root(path / "src" if (path / "src").is_dir() else path, path.name) if is_project else (folder(path),)
    if not any(file.path.endswith((".py", ".so")) for each in found for file in each.files):
        raise ImageError(
            f"the code in {path} cannot be packed",
            why="it holds no Python file that is not ignored",
            mend="name the folder of a package or of modules in `local`, and look at its .gitignore",
        )
    return found


def editables(site: Path, prefix: Path, *, said: Callable[[str, str], None] | None = None) -> Editables:
    """Return the code of the editable installs of a site-packages directory, and of the folders that .pth files name.

    Parameters
    ----------
    site : Path
        The directory of the packages.
    prefix : Path
        The environment it belongs to; what a .pth file names inside of it is no code of the user's.
    said : callable, optional
        Hears of what is left out.

    Raises
    ------
    ImageError
        If one works in a way that cannot be packed (a build at import time), or is larger than 50 MB.
    """
    projects = _projects(site)
    found = _Found()
    for pth in sorted(site.glob("*.pth")):
        _read_pth(pth, prefix, found, said)
    for link in sorted(site.glob("*.egg-link")):
        found.replaced[link.name] = None
        projects.setdefault(normalised(link.stem), Path(link.read_text("utf-8").splitlines()[0].strip()))
    code = [unit for root, name in found.roots.items() for unit in _of_root(root, _owner(root, name, projects))]
    code += _of_modules(found.modules)
    return Editables(_merged(code), found.replaced, projects)


def normalised(name: str) -> str:
    """Return the name of a distribution as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _projects(site: Path) -> dict[str, Path]:
    """Return the folders of the editable distributions by name (PEP 610)."""
    found = {}
    for path in sorted(site.glob("*.dist-info/direct_url.json")):
        told = json.loads(path.read_text("utf-8"))
        if told.get("dir_info", {}).get("editable"):
            name = normalised(path.parent.name.removesuffix(".dist-info").rsplit("-", 1)[0])
            found[name] = Path(unquote(urlparse(told["url"]).path))
    return found


def _owner(root: Path, name: str, projects: dict[str, Path]) -> str:
    return next((each for each, project in projects.items() if root == project or project in root.parents), name)


def _read_pth(pth: Path, prefix: Path, found: _Found, said: Callable[[str, str], None] | None) -> None:
    """Gather what a .pth file names outside of its environment, and what is left of it."""
    lines = pth.read_text("utf-8-sig", "surrogateescape").splitlines()
    kept: list[str] = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if re.match(r"import[ \t]", line):
            kept += [] if _is_redirection(line, pth, found) else [line]
            continue
        path = Path(os.path.normpath(pth.parent / text))
        if _is_inside(path, prefix):
            kept.append(os.path.relpath(path, pth.parent))
        elif path.is_dir():
            found.roots.setdefault(path, pth.stem)
        elif said is not None:
            said("reading", f"{pth.name} names {path}, which does not exist: left out")
    if kept != lines:
        found.replaced[pth.name] = ("\n".join(kept) + "\n").encode("utf-8", "surrogateescape") if kept else None


def _is_inside(path: Path, prefix: Path) -> bool:
    return path == prefix or prefix in path.parents


def _is_redirection(line: str, pth: Path, found: _Found) -> bool:
    """Say whether a line of code starts an editable install; if so, gather the modules it redirects."""
    match = re.match(r"import[ \t]+([A-Za-z_]\w*)", line)
    module = pth.parent / f"{match[1]}.py" if match else pth
    if match is None or "editable" not in match[1] or not module.is_file():
        return False
    modules = _redirections(module.read_text("utf-8"))
    if modules is None:
        raise ImageError(
            f"the editable install {pth.stem.strip('_')} cannot be packed",
            why=f"{module} redirects imports in a way that works on this machine alone",
            mend="install the package as it is: `pip install .` in its folder, without -e",
        )
    found.modules |= modules
    found.replaced[module.name] = None
    return True


def _redirections(text: str) -> dict[str, Path] | None:
    """Return import names with their folders, from setuptools' finder or from `editables`; None if it is another."""
    modules: dict[str, Path] = {}
    known = False
    for node in ast.walk(ast.parse(text)):
        mapping = _assigned(node, "MAPPING")
        if mapping is not None:
            known = True
            modules |= {str(name): Path(str(path)) for name, path in mapping.items()}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "map_module":
            known = True
            name, path = (ast.literal_eval(each) for each in node.args)
            modules[name] = Path(path).parent if Path(path).name == "__init__.py" else Path(path)
    return modules if known else None


def _assigned(node: ast.AST, name: str) -> dict[object, object] | None:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
    if any(isinstance(each, ast.Name) and each.id == name for each in targets):
        value = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        return value if isinstance(value, dict) else None
    return None


def _of_modules(modules: dict[str, Path]) -> Iterator[Code]:
    for name, path in sorted(modules.items()):
        where = name.replace(".", "/")
        if path.is_dir():
            yield _checked(Code(name.split(".")[0], _files(path, f"{where}/")), path)
        else:
            module = path if path.is_file() else path.with_suffix(".py")
            yield Code(name.split(".")[0], (_file(module, f"{where}{module.suffix}"),))


def _of_root(root: Path, name: str) -> tuple[Code, ...]:
    """Return the packages and modules of a folder that stands on the import path, without what lies beside them."""
    is_project = any((root / each).is_file() for each in _PROJECT)
    packages: list[Code] = []
    modules: list[File] = []
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        path = Path(entry.path)
        if _LEFT_OUT.fullmatch(entry.name) or _is_environment(path):
            continue
        if entry.is_dir():
            if entry.name.isidentifier() and _is_package(path, is_project=is_project):
                packages.append(_checked(Code(entry.name, _files(path, f"{entry.name}/")), path))
        elif entry.name.endswith((".py", ".so")) and not (is_project and entry.name in _NO_MODULES):
            modules.append(_file(path, entry.name))
    return (*packages, *([_checked(Code(name, tuple(modules)), root)] if modules else []))


def _is_package(path: Path, *, is_project: bool) -> bool:
    """Say whether a folder is a package, or one of a namespace; a project's tests and tools are none."""
    if is_project and _BESIDE_A_PROJECT.fullmatch(path.name):
        return False
    if (path / "__init__.py").is_file() or (path / "__init__.pyi").is_file():
        return True
    if is_project:
        return path.name not in _NO_NAMESPACES and any(path.glob("*/__init__.py"))
    return any(path.rglob("*.py"))


def _is_environment(path: Path) -> bool:
    return (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir()


def _merged(code: Iterable[Code]) -> tuple[Code, ...]:
    """Return one `Code` for each name: a namespace package may come from several folders."""
    files: dict[str, dict[str, File]] = {}
    for each in code:
        mine = files.setdefault(each.name, {})
        for file in each.files:
            mine.setdefault(file.path, file)
    return tuple(Code(name, tuple(sorted(each.values(), key=lambda file: file.path))) for name, each in files.items())


def _checked(code: Code, path: Path) -> Code:
    """Refuse a folder that holds data rather than code, naming what is large."""
    size = sum(file.size_bytes for file in code.files)
    if size <= LIMIT_BYTES:
        return code
    largest = sorted(code.files, key=lambda file: -file.size_bytes)[:3]
    named = ", ".join(f"{file.path} ({_megabytes(file.size_bytes)})" for file in largest)
    raise ImageError(
        f"the code in {path} is too large to be packed",
        why=f"it holds {_megabytes(size)}, and the limit is {_megabytes(LIMIT_BYTES)}; largest: {named}",
        mend="put data on HDFS, or name it in the folder's .gitignore",
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f} MB"


def _files(path: Path, below: str) -> tuple[File, ...]:
    """Return the files of a folder that are packed, sorted, with their place below the import path."""
    names = {*_listed(path), *_built(path)}
    kept = (name for name in names if not any(map(_LEFT_OUT.fullmatch, name.split("/"))))
    found = ((name, path / name) for name in sorted(kept))
    return tuple(_file(source, f"{below}{name}") for name, source in found if source.is_file())


def _file(source: Path, path: str) -> File:
    status = source.stat()
    return File(path, source, 0o755 if status.st_mode & 0o111 else 0o644, status.st_size)


def _listed(path: Path) -> Iterator[str]:
    """Yield the files of a folder that are not ignored, those of repositories in it too."""
    for name in _tracked(path) or _not_ignored(path):
        inner = path / name
        if inner.is_dir() and not inner.is_symlink():
            yield from (f"{name.rstrip('/')}/{each}" for each in _listed(inner))
        else:
            yield name


def _tracked(path: Path) -> list[str]:
    """Return what git would take of a folder; nothing where git does not know it, or ignores the whole folder."""
    argv = ["git", "-C", str(path), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    try:
        done = processes.run(argv, timeout_s=60)
    except (OSError, TimeoutError):
        return []
    names = [name for name in done.stdout.split("\0") if name] if done.exit_code == 0 else []
    if any("\N{REPLACEMENT CHARACTER}" in name for name in names):
        return []  # a name that is no text: the folder is walked instead
    environments = {name.rpartition("/")[0] for name in names if name.endswith("/pyvenv.cfg")}
    environments |= {name.partition("/conda-meta/")[0] for name in names if "/conda-meta/" in name}
    return [name for name in names if not any(name.startswith(f"{each}/") for each in environments)]


def _not_ignored(top: Path) -> Iterator[str]:
    """Yield what a folder holds but for what the .gitignore files in it name."""
    above = _above(top)
    root = above[-1] if above else top
    rules = {_below(each, root): _ignore_rules(each) for each in above if (each / ".gitignore").is_file()}
    here = _below(top, root)
    if _is_ignored(here.rstrip("/"), rules) or _is_ignored(f"{here}file", rules):
        rules = {}  # it is named all the same: a build's folder of links, say
    for directory, below, names in _walk(top):
        if Path(directory, ".gitignore").is_file():
            rules[f"{here}{below}"] = _ignore_rules(Path(directory))
        for name in names:
            if not _is_ignored(f"{here}{below}{name}", rules):
                yield f"{below}{name}"


def _above(top: Path) -> list[Path]:
    """Return the folders above one, up to that of its project; none where it belongs to none."""
    for count, parent in enumerate(top.parents, 1):
        if any((parent / each).exists() for each in (*_PROJECT, ".git")):
            return list(top.parents[:count])
    return []


def _below(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"


def _ignore_rules(directory: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - only for folders that git does not know

    return GitIgnoreSpec.from_lines((directory / ".gitignore").read_text("utf-8", "replace").splitlines())


def _is_ignored(path: str, rules: dict[str, GitIgnoreSpec]) -> bool:
    """Say whether the nearest .gitignore that has a rule for a path excludes it."""
    above = path.rpartition("/")[0]
    places = [above + "/" if above else ""]
    while places[-1]:
        parent = places[-1][:-1].rpartition("/")[0]
        places.append(parent + "/" if parent else "")
    for place in places:
        if place in rules:
            decided = rules[place].check_file(path.removeprefix(place)).include
            if decided is not None:
                return decided
    return False


def _built(top: Path) -> Iterator[str]:
    """Yield what a build leaves in a folder, ignored or not."""
    for _, below, names in _walk(top):
        yield from (f"{below}{name}" for name in names if _BUILT.fullmatch(name))


def _walk(top: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (directory, its place below the top with a slash, the names of its files).

    Raises
    ------
    ImageError
        If it is no folder of code at all, but a home directory or the root of a disk.
    """
    count = 0
    for directory, directories, names in os.walk(top):
        count += len(names)
        if count > _TOO_MANY:
            raise ImageError(
                f"the code in {top} cannot be packed",
                why=f"it holds more than {_TOO_MANY:,} files",
                mend="put the code into a folder of its own, and name that",
            )
        directories[:] = sorted(
            each for each in directories if not _LEFT_OUT.fullmatch(each) and not _is_environment(Path(directory, each))
        )
        below = os.path.relpath(directory, top)
        yield directory, "" if below == "." else f"{below}/", names
