"""Packing a scientific environment of 1.7 GB, and shipping it again, edited and unchanged, beside those who do it too.

One list of packages stands as a conda prefix (for conda-pack) and as a virtual environment (for venv-pack, pex and
cluster-pack); both are made once, in `.peers/env`. Ours reads and packs either, into an empty store, and carries the
interpreter, which the three others leave to the nodes. Nothing is slimmed. What each archive holds is compared with the
environment, file by file, before a figure is given. The archives take minutes: each is made twice, in turns, and the
shorter time counts.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING

import zstandard
from harness import PYTHON, REPOSITORY, ResultsDifferError, Row, alternate, beside, limit, main, run, wall

from clusterkit.environments import wheels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness import Run

PACKAGES = ("numpy", "scipy", "pandas<3", "pyarrow", "numba", "scikit-learn", "dask", "mkl")
ROUNDS = 2
TIMEOUT_S = 3600
HOME = REPOSITORY / ".peers" / "env"
JOB = Path(__file__).parent / "jobs" / "pack_environment.py"
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
BUILT_S = 1_700_000_000  # the time of every file in the conda packages, and in their byte code
BESIDE = {"prefix": ("conda-pack", "conda-pack -j 2"), "venv": ("venv-pack", "pex", "cluster-pack")}

UPLOAD = """
import shutil, sys
from pathlib import Path
import cluster_pack
from cluster_pack import packaging
out = Path(sys.argv[1])
cluster_pack.upload_env((out / "env.pex").as_uri())
for path in packaging.get_editable_requirements().values():
    shutil.move(packaging.zip_path(path), out / "editable.zip")
"""


def pack() -> Sequence[Row]:
    """Pack the whole environment, as a prefix and as a virtual environment."""
    contenders = _contenders()
    runs = alternate({name: one.pack_afresh for name, one in contenders.items()}, rounds=ROUNDS)
    _check(contenders)
    wall_s = {name: min(one.wall_s for one in several) for name, several in runs.items()}
    core_s = {name: min(one.core_s for one in several) for name, several in runs.items()}
    size_mb = {name: sum(size for size, _ in one.files().values()) / 1e6 for name, one in contenders.items()}
    rows = []
    for ours, peers in BESIDE.items():
        fastest = min(peers, key=wall_s.__getitem__)
        for peer in peers:
            target = 3.0 if peer == fastest else None
            rows.append(beside(f"pack a {ours}", peer, ours=wall_s[ours], theirs=wall_s[peer], target=target))
        for peer in peers:
            core = {"ours": core_s[ours], "theirs": core_s[peer], "unit": "core-s", "target": None}
            rows.append(beside(f"pack a {ours}, processors", peer, **core))
        for peer in peers:
            target = 1 / 0.87 if peer == "conda-pack" else None
            size = {"ours": size_mb[ours], "theirs": size_mb[peer], "unit": "MB", "target": target}
            rows.append(beside(f"pack a {ours}, size", peer, **size))
    return rows


def reship() -> Sequence[Row]:
    """Edit one line of the user's code, and make what has to be shipped again."""
    seconds, kib = {}, {}
    for name, one in _contenders().items():
        if not one.files():
            one.pack_afresh()
        before = one.files()
        _edit()
        seconds[name] = one.pack().wall_s
        kib[name] = sum(size for file, (size, made) in one.files().items() if before.get(file) != (size, made)) / 1024
        print(f"  {name}: {seconds[name]:.2f} s, {kib[name]:.0f} KiB", file=sys.stderr, flush=True)
    rows = []
    for ours, peers in BESIDE.items():
        what = f"re-ship a {ours} after an edit"
        rows.append(limit(what, ours=seconds[ours], unit="s", at_most=2.0))
        rows.append(limit(f"{what}, size", ours=kib[ours], unit="KiB", at_most=64.0))
        for peer in peers:
            rows.append(beside(what, peer, ours=seconds[ours], theirs=seconds[peer], target=None))
            rows.append(beside(f"{what}, size", peer, ours=kib[ours], theirs=kib[peer], unit="KiB", target=None))
    return rows


def unchanged(rounds: int = 5) -> Sequence[Row]:
    """Submit an environment again that did not change: what is done between the command and the job's start."""
    contenders = _contenders()
    again = contenders["cluster-pack"]
    if not again.files():
        again.pack_afresh()
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "CLUSTERKIT_DATA_DIR": directory}
        command = [str(PYTHON), "-m", "clusterkit"]
        run([*command, "cluster", "up"], env=environment)
        try:
            put = [*command, "env", "put", "--cluster", "default", str(_venv())]
            run(put, env=environment)
            runs = alternate({"ours": lambda: run(put, env=environment), "theirs": again.pack}, rounds=rounds)
        finally:
            run([*command, "cluster", "down", "--purge"], env=environment)
    if any("0 files sent" not in one.stdout for one in runs["ours"]):
        raise ResultsDifferError("something of an unchanged environment was sent again")
    what = "unchanged environment, put again"
    ours, theirs = wall(runs["ours"]), wall(runs["theirs"])
    return [
        limit(what, ours=ours, unit="s", at_most=1.0),
        beside(what, "cluster-pack, to a local directory", ours=ours, theirs=theirs, target=None),
    ]


@dataclass(frozen=True)
class _Contender:
    """One way to pack: a command, and the directory that receives what has to be shipped."""

    argv: Sequence[str | Path]
    out: Path
    kept: tuple[Path, ...] = ()
    installed: Path | None = None
    env: Mapping[str, str] | None = None

    def pack_afresh(self) -> Run:
        """Pack with nothing there yet."""
        for directory in (self.out, *self.kept):
            shutil.rmtree(directory, ignore_errors=True)
        return self.pack()

    def pack(self) -> Run:
        """Pack; whoever knows no code of the user's own gets it as a module among the packages."""
        self.out.mkdir(parents=True, exist_ok=True)
        if self.installed:
            shutil.copytree(_project() / "orders", self.installed / "orders", dirs_exist_ok=True)
        try:
            return run([str(part) for part in self.argv], env=self.env, timeout_s=TIMEOUT_S)
        finally:
            if self.installed:
                shutil.rmtree(self.installed / "orders")

    def files(self) -> dict[str, tuple[int, int]]:
        """Return the size and time of each file that has to be shipped."""
        found = {path.name: path.stat() for path in sorted(self.out.rglob("*")) if path.is_file()}
        return {name: (status.st_size, status.st_mtime_ns) for name, status in found.items()}


def _contenders() -> dict[str, _Contender]:
    venv, project, cluster_pack = _venv(), _project(), _cluster_pack_venv()
    prefix, tools = _prefix(venv), _tools()
    out = HOME / "out"

    def ours(kind: str, environment: Path) -> _Contender:
        kept = (out / f"ours-{kind}", out / f"cache-{kind}")
        argv = [PYTHON, JOB, kind, environment, project, *kept]
        return _Contender(argv, kept[0] / "layers", kept=kept)

    def conda_pack(name: str, *options: str) -> _Contender:
        argv = [PYTHON.with_name("conda-pack"), "-q", "-f", "-p", prefix, "-o", out / name / "env.tar.gz", *options]
        return _Contender(argv, out / name, installed=prefix / SITE)

    venv_pack = [tools / "venv-pack", "-q", "-f", "-p", venv, "-o", out / "venv-pack" / "env.tar.gz"]
    pex = [tools / "pex", "--venv-repository", venv, *PACKAGES, "-D", project, "-o", out / "pex" / "env.pex"]
    upload = [cluster_pack / "bin" / "python", "-c", UPLOAD, out / "cluster-pack"]
    path = {**os.environ, "PATH": f"{cluster_pack / 'bin'}:{os.environ['PATH']}"}
    return {
        "prefix": ours("prefix", prefix),
        "venv": ours("venv", venv),
        "conda-pack": conda_pack("conda-pack"),
        "conda-pack -j 2": conda_pack("conda-pack-2", "-j", "2"),
        "venv-pack": _Contender(venv_pack, out / "venv-pack", installed=venv / SITE),
        "pex": _Contender(pex, out / "pex"),
        "cluster-pack": _Contender(upload, out / "cluster-pack", env=path),
    }


def _check(contenders: Mapping[str, _Contender]) -> None:
    """Raise ResultsDifferError unless every archive holds every file of the packages."""
    wanted = {digest: name for name, digest in _packaged(_venv())}
    repaired = _repaired(_venv())
    for name, one in contenders.items():
        held = {digest for path in one.out.iterdir() for digest in _digests(path)}
        missing = {wanted[digest] for digest in wanted.keys() - held}
        if name == "venv":  # ours, which leaves no library with a search path of the machine it was built on
            missing -= repaired
        if missing:
            raise ResultsDifferError(f"{name} lacks {len(missing)} files, such as {sorted(missing)[:3]}")


def _packaged(venv: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that a package brought and a program may open: no byte code, no script, no record."""
    for distribution in _distributions(venv):
        for file in distribution.files or ():
            path = Path(os.path.normpath(venv / SITE / file))
            aside = (".dist-info", "__pycache__", f"{venv}/bin/")
            if path.is_file() and path.stat().st_size and not any(part in str(path) for part in aside):
                yield str(file), _digest(path.open("rb"))


def _repaired(venv: Path) -> set[str]:
    """Return the libraries whose search path ours repairs: their bytes lie elsewhere than in the environment."""
    tree = wheels.read(venv, cache_dir=HOME / "out" / "cache-venv")
    site = f"{SITE}/"
    return {
        file.path.removeprefix(site)
        for file in tree.files
        if file.path.startswith(site) and (isinstance(file.source, bytes) or venv not in file.source.parents)
    }


def _distributions(venv: Path) -> Iterator[metadata.Distribution]:
    """Yield what was asked for and what it needs; pip and setuptools are there with every environment."""
    for distribution in metadata.distributions(path=[str(venv / SITE)]):
        if distribution.name not in {"pip", "setuptools"}:
            yield distribution


def _digests(path: Path) -> Iterator[str]:
    if path.name.endswith(".tar.zst"):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            yield from _tar_digests(stream, "r|")
    elif path.name.endswith(".tar.gz"):
        with path.open("rb") as file:
            yield from _tar_digests(file, "r|gz")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (_digest(archive.open(name)) for name in archive.namelist())


def _tar_digests(stream: IO[bytes], mode: str) -> Iterator[str]:
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        yield from (_digest(archive.extractfile(member)) for member in archive if member.isfile())


def _digest(file: IO[bytes]) -> str:
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _edit() -> None:
    """Change one line of the user's module, to what it never was."""
    module = _project() / "orders" / "__init__.py"
    number = int(re.findall(r"EDIT = (\d+)", module.read_text())[0])
    module.write_text(re.sub(r"EDIT = \d+", f"EDIT = {number + 1}", module.read_text()))


def _project() -> Path:
    """Return the user's own code: a package of twenty modules."""
    project = HOME / "project"
    if not project.exists():
        (project / "orders").mkdir(parents=True)
        (project / "orders" / "__init__.py").write_text("EDIT = 1\n")
        for number in range(20):
            module = "".join(f"def total_{line}(prices):\n    return sum(prices) * {line}\n\n\n" for line in range(100))
            (project / "orders" / f"part{number}.py").write_text(module)
        (project / "pyproject.toml").write_text('[project]\nname = "orders"\nversion = "1"\n')
    return project


def _venv() -> Path:
    """Return the environment that is packed: the versions that cluster-pack, which packs its own, can have too."""

    def make(venv: Path) -> None:
        versions = HOME / "versions.txt"
        versions.write_text(run([str(_cluster_pack_venv() / "bin" / "pip"), "freeze", "--exclude-editable"]).stdout)
        _install(venv, "-c", str(versions), *PACKAGES)

    return _made(HOME / "venv", make)


def _tools() -> Path:
    return _made(HOME / "tools", lambda venv: _install(venv, "venv-pack", "pex", "setuptools")) / "bin"


def _cluster_pack_venv() -> Path:
    """Return another environment of the same packages: cluster-pack packs the one it runs in."""

    def make(venv: Path) -> None:
        _install(venv, "cluster-pack", "setuptools", *PACKAGES)
        _install(venv, "-e", str(_project()))

    return _made(HOME / "cluster-pack", make)


def _prefix(venv: Path) -> Path:
    """Return the packages of the virtual environment as a conda prefix: made into conda packages, and installed."""

    def make(prefix: Path) -> None:
        from clusterkit.environments import conda  # noqa: PLC0415 - only where it is made
        from clusterkit.specs.environment import EnvironmentSpec  # noqa: PLC0415

        sys.path.insert(0, str(REPOSITORY / "tests" / "environments"))
        import conda_channel  # noqa: PLC0415

        channel = conda_channel.Channel(HOME / "channel")
        names = []
        for distribution in _distributions(venv):
            names.append(re.sub(r"[-_.]+", "-", distribution.name).lower())
            entries = tuple(_entries(conda_channel, venv, distribution))
            package = conda_channel.Package(names[-1], distribution.version, depends=("python",), entries=entries)
            conda_channel.write(package, channel.folder)
        channel.add(conda_channel.python())
        spec = EnvironmentSpec(name="benchmark", packages=tuple(names), channels=(channel.url,))
        conda.install(conda.lock(spec, cache_dir=HOME / "conda"), prefix, cache_dir=HOME / "conda")

    return _made(HOME / "prefix", make, venv=False)


def _entries(conda_channel, venv: Path, distribution: metadata.Distribution):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for file in distribution.files or ():
        path = Path(os.path.normpath(venv / SITE / file))
        if not path.is_file() or path.parent == venv / "bin" or path.name == "RECORD":
            continue
        data = path.read_bytes()
        if path.suffix == ".pyc":
            data = data[:8] + BUILT_S.to_bytes(4, "little") + data[12:]
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        yield conda_channel.Entry(str(path.relative_to(venv)), data, mode=mode)


def _made(place: Path, make: Callable[[Path], None], *, venv: bool = True) -> Path:
    """Return what was made before, or make it now; half of it is made again."""
    complete = HOME / f"{place.name}.complete"
    if not complete.exists():
        print(f"  making {place}", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        if venv:
            run([str(PYTHON), "-m", "venv", str(place)])
        make(place)
        complete.touch()
    return place


def _install(venv: Path, *requirements: str) -> None:
    run([str(venv / "bin" / "python"), "-m", "pip", "install", "-q", *requirements], timeout_s=TIMEOUT_S)


if __name__ == "__main__":
    main({"pack": pack, "reship": reship, "unchanged": unchanged})
