"""Environments that are made once, and a machine on which they, and the Python behind them, are gone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments import conda, wheels
from clusterkit.environments.materialise import materialise
from clusterkit.specs.environment import EnvironmentSpec

from . import conda_channel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterkit.environments.tree import Tree

DEBIAN = Path("/usr/bin/python3")

PYPROJECT = """\
[build-system]
requires = ["{backend}"]
build-backend = "{module}"

[project]
name = "ck-greeting"
version = "0.1"

[project.scripts]
ck-greet = "ck_greeting:main"

[tool.setuptools.packages.find]
where = ["src"]

[tool.hatch.build.targets.wheel]
packages = ["src/ck_greeting"]
"""


@dataclass(frozen=True)
class Made:
    """A virtual environment, the editable project in it, and the tree read from it."""

    venv: Path
    project: Path
    tree: Tree


@pytest.fixture(scope="session")
def greeting_project(tmp_path_factory) -> Path:
    """A project with one package and one console script, below a path with a space in it."""
    return greeting(tmp_path_factory.mktemp("a project"))


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="clusterkit-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def elf_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def numpy_venv(tmp_path_factory, greeting_project, elf_cache) -> Made:
    """A virtual environment of the Python that runs the tests: click, six, numpy and an editable package."""
    return made(Path(sys.executable), tmp_path_factory.mktemp("venvs") / "of ours", greeting_project, elf_cache)


@pytest.fixture(scope="session")
def debian_venv(tmp_path_factory, greeting_project, elf_cache) -> Made:
    """The same from the distribution's own Python, which looks for packages elsewhere."""
    if not DEBIAN.is_file():
        pytest.skip(f"there is no {DEBIAN}")
    return made(DEBIAN, tmp_path_factory.mktemp("venvs") / "debian", greeting_project, elf_cache)


@pytest.fixture(scope="session")
def channel(tmp_path_factory) -> conda_channel.Channel:
    """A conda channel: Python, click, a package with an entry point, one with its prefix in texts, one in a binary."""
    channel = conda_channel.Channel(tmp_path_factory.mktemp("channel"))
    packages = [conda_channel.python(), conda_channel.distribution("click")]
    packages += [conda_channel.demo(), conda_channel.config()]
    if shutil.which("gcc"):
        packages.append(conda_channel.hello(tmp_path_factory.mktemp("hello")))
    channel.add(*packages)
    return channel


@pytest.fixture(scope="session")
def conda_cache(tmp_path_factory) -> Path:
    """Where package lists and packages are kept."""
    return tmp_path_factory.mktemp("conda-cache")


@pytest.fixture(scope="session")
def conda_prefix(tmp_path_factory, channel, conda_cache) -> Path:
    """Everything of the channel, installed; not to be changed."""
    names = ("click", "ckdemo", "ckconf", *(["hello-prefix"] if shutil.which("gcc") else []))
    spec = EnvironmentSpec(name="all", packages=names, channels=(channel.url,))
    prefix = tmp_path_factory.mktemp("conda") / "all"
    conda.install(conda.lock(spec, cache_dir=conda_cache), prefix, cache_dir=conda_cache)
    return prefix


def greeting(parent: Path, backend: str = "hatchling", module: str = "hatchling.build") -> Path:
    """Write a project with one package, data beside it, and what must not be packed."""
    project = parent / "greeting"
    package = project / "src" / "ck_greeting"
    package.mkdir(parents=True)
    (project / "pyproject.toml").write_text(PYPROJECT.format(backend=backend, module=module))
    (project / "tests").mkdir()
    (project / "tests" / "test_nothing.py").write_text("")
    (package / "__init__.py").write_text(
        textwrap.dedent("""\
            from pathlib import Path

            def words():
                return Path(__file__).with_name("words.txt").read_text().strip()

            def main():
                print(words())
            """)
    )
    (package / "words.txt").write_text("well met\n")
    (package / "huge.bin").write_bytes(b"\0" * 1000)
    (project / ".gitignore").write_text("*.bin\n")
    return project


def made(python: Path, venv: Path, project: Path, cache: Path) -> Made:
    """Make a virtual environment with `-m venv`, install into it, and read it."""
    called([python, "-m", "venv", "--without-pip", venv])
    target = venv / "bin" / "python"
    common = [sys.executable, "-m", "pip", "--python", target, "install", "-q", "--no-compile"]
    called([*common, "click", "six", "numpy"])
    called([*common, "--no-deps", "-e", project])
    return Made(venv, project, wheels.read(venv, cache_dir=cache))


def called(argv: Sequence[str | Path], **options: object) -> str:
    """Run a command that must succeed and return what it wrote to standard output."""
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def laid_out(tree: Tree, prefix: Path) -> Path:
    """Lay a tree out as a node does, the code of each package in `code/NAME`."""
    materialise(tree, prefix)
    for code in tree.code:
        for file in code.files:
            path = prefix / "code" / code.name / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
    called(["chmod", "-R", "a+rX", prefix])
    return prefix


def without(hidden: Sequence[Path], argv: Sequence[str | Path], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as nobody, with an empty environment, where directories of this machine are empty.

    Skips where mount namespaces are not allowed.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may hide directories from a process")
    empty = " && ".join(f"mount -t tmpfs none {_quoted(each)}" for each in hidden)
    names = " ".join(_quoted(f"{name}={value}") for name, value in variables.items())
    command = " ".join(map(_quoted, argv))
    as_nobody = f"cd / && exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i {names} {command}"
    argv = ["/usr/bin/unshare", "-m", "sh", "-c", f"{empty} && {as_nobody}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip(f"mount namespaces are not allowed here: {done.stderr.strip()}")
    return done


def _quoted(value: object) -> str:
    return shlex.quote(str(value))
