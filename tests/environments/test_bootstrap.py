"""What a container does first: the real bare archive has a real image on the node, and becomes its Python."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from clusterkit.environments import bare, pack
from clusterkit.environments.manifest import Manifest

NOBODY = 65534
DEBIAN = Path("/usr/bin/python3")
PYTHON = "clusterkit/bin/python"
MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class Stored:
    """An image in a store's directory, beside the bare archive."""

    store: Path
    manifest: Manifest

    @property
    def bare(self) -> Path:
        return next((self.store / "bare").glob("*.tar.gz"))

    @property
    def layers(self) -> list[Path]:
        return [self.store / "layers" / f"{layer.digest}.tar.zst" for layer in self.manifest.layers]


@dataclass(frozen=True)
class Container:
    """A container's working directory, as YARN makes it for the fast transport."""

    work: Path
    node_cache: Path
    image: Stored

    @property
    def variables(self) -> dict[str, str]:
        return {"_CLUSTERKIT_NODE_CACHE": str(self.node_cache)}

    @property
    def reporting(self) -> dict[str, str]:
        """The variables that have it write its report, as where YARN keeps logs."""
        return {"LOG_DIRS": f"{self.work}/reports,{self.work}/more"}

    @property
    def prefix(self) -> Path:
        return self.node_cache / str(os.geteuid()) / "images" / self.image.manifest.base

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PYTHON, *arguments],
            cwd=self.work,
            env={**self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run its Python, with nothing else in the environment; return the exit code and what it printed."""
        with self.start(*arguments, **variables) as process:
            out, error = process.communicate(timeout=120)
            return process.returncode, out, error

    def report(self) -> dict:
        (path,) = (self.work / "reports").glob("*.json")
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def image(tmp_path_factory, numpy_venv) -> Stored:
    """An image of click, six, numpy and one package of the user's own."""
    store = tmp_path_factory.mktemp("a store")
    manifest = pack.pack(numpy_venv.tree, lock_digest="0" * 64, name="small", blas="", proof=None, into=store)
    bare.archive(into=store)
    return Stored(store, manifest)


@pytest.fixture
def container(tmp_path, image) -> Container:
    return container_of(image, tmp_path / "a container", tmp_path / "cache")


def container_of(image: Stored, work: Path, node_cache: Path) -> Container:
    """Lay out what YARN puts into a container's directory: links to what it keeps elsewhere."""
    kept = image.store.with_name(f"{image.store.name} kept") / image.bare.name  # one for all containers, as with YARN
    if not kept.exists():
        unpacked(image.bare, kept)
    (work / "reports").mkdir(parents=True)
    (work / "clusterkit").symlink_to(kept)
    (work / "clusterkit-image.json").write_bytes(msgspec.json.encode(image.manifest))
    for layer in image.layers:
        (work / layer.name).symlink_to(layer)
    return Container(work, node_cache, image)


def unpacked(archive: Path, into: Path) -> None:
    into.mkdir(parents=True)
    with tarfile.open(archive) as opened:
        opened.extractall(into, filter="data")


ASK = """\
import json, os, sys, numpy, ck_greeting
print(json.dumps({
    "prefix": sys.prefix, "numpy": numpy.__file__, "code": ck_greeting.__file__, "words": ck_greeting.words(),
    "arguments": sys.argv[1:], "path": os.environ["PATH"], "user": os.environ["PYTHONNOUSERSITE"],
}))
"""


def test_the_first_use_unpacks_and_the_second_does_not(container):
    """A container's Python is the image's, with the user's code first; only the first container unpacks."""
    first = container.run("-c", ASK, "a b", "", PATH="/usr/bin:/bin", **container.reporting)
    assert first[0] == 0, first[2]
    prefix = str(container.prefix)
    (code,) = container.image.manifest.code
    folder = f"{container.node_cache}/{os.geteuid()}/code/{code.digest}"
    assert json.loads(first[1]) == {
        "prefix": prefix,
        "numpy": f"{prefix}/lib/{MINOR}/site-packages/numpy/__init__.py",
        "code": f"{folder}/ck_greeting/__init__.py",
        "words": "well met",
        "arguments": ["a b", ""],
        "path": f"{prefix}/bin:/usr/bin:/bin",
        "user": "1",
    }
    assert first[2] == ""
    assert "clusterkit: unpacking numpy, " in (container.work / "reports/clusterkit-image").read_text()
    assert container.report()["hit"] is False
    shutil.rmtree(container.work / "reports")
    (container.work / "reports").mkdir()
    second = container.run("-c", ASK, "a b", "", PATH="/usr/bin:/bin", **container.reporting)
    assert second == (0, first[1], "")
    report = container.report()
    assert (report["hit"], report["image"], report["prefix"]) == (True, container.image.manifest.base, prefix)


def test_the_exit_code_and_the_process_are_the_programs(container):
    """The wrapper becomes the program: its pid, its exit code, its standard input."""
    with subprocess.Popen(
        [PYTHON, "-c", "import os, sys; print(os.getpid()); sys.exit(int(input()))"],
        cwd=container.work,
        env=container.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        out, _ = process.communicate("7\n", timeout=120)
    assert (process.returncode, out) == (7, f"{process.pid}\n")


def test_console_scripts_run_below_a_path_with_spaces(tmp_path, image):
    """A script of the image starts though its prefix has white space and is longer than a first line may be."""
    container = container_of(image, tmp_path / "c", tmp_path / "a cache")
    done = container.run("-c", "import subprocess; print(subprocess.run(['ck-greet'], capture_output=True).stdout)")
    assert done[:2] == (0, "b'well met\\n'\n")


def test_the_wrapper_works_wherever_it_is_called_from(container):
    """By an absolute path, by PATH, and from its own directory the wrapper finds the container's directory."""
    assert container.run("-c", "pass")[0] == 0
    calls = [
        ([str(container.work / "clusterkit/bin/python")], Path("/")),
        (["/usr/bin/env", "python"], container.work),
        (["./clusterkit/bin/python"], container.work),
    ]
    for argv, directory in calls:
        done = subprocess.run(
            [*argv, "-c", "import sys; print(sys.prefix)"],
            cwd=directory,
            env={**container.variables, "PATH": f"{container.work}/clusterkit/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{container.prefix}\n", "")


def test_four_containers_of_a_node_unpack_once(tmp_path, image):
    """Of four executors that start at once one unpacks, and the others wait for it."""
    containers = [container_of(image, tmp_path / f"container {number}", tmp_path / "cache") for number in range(4)]
    started = [
        container.start("-c", "import numpy; print(numpy.__file__)", **container.reporting) for container in containers
    ]
    outputs = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert outputs == {next(iter(outputs))}
    assert sorted(container.report()["hit"] for container in containers) == [False, True, True, True]


@pytest.mark.parametrize("stage", ["unpacking numpy", "linking", "completing"])
def test_a_container_killed_at_work_is_made_good(container, stage):
    """After kill -9 at any stage the next container has the whole image."""
    with container.start("-c", "pass") as process:
        for line in process.stderr:
            if stage in line:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    returncode, out, error = container.run("-c", ASK)
    assert (returncode, json.loads(out)["words"]) == (0, "well met"), error
    own = container.node_cache / str(os.geteuid())
    assert not [path for kind in ("layers", "images", "code") for path in (own / kind).glob("*.part")]


def test_what_runs_is_not_evicted(tmp_path, image):
    """The lock on an image lives as long as the program that runs from it, beyond exec, and no longer."""
    one = container_of(image, tmp_path / "one", tmp_path / "cache")
    with one.start("-c", "print('up', flush=True); import time; time.sleep(600)") as process:
        assert process.stdout.readline() == "up\n"
        slim = {name: value for name, value in msgspec.to_builtins(image.manifest).items() if name != "environment"}
        other = Stored(image.store, msgspec.convert({**slim, "environment": {"OTHER": "1"}}, Manifest))
        two = container_of(other, tmp_path / "two", tmp_path / "cache")
        assert two.run("-c", "pass", _CLUSTERKIT_NODE_CACHE_BYTES="1")[0] == 0
        assert (one.prefix / ".clusterkit/complete.json").is_file()
        process.kill()
    third = Stored(image.store, msgspec.convert({**slim, "environment": {"OTHER": "2"}}, Manifest))
    assert (
        container_of(third, tmp_path / "three", tmp_path / "cache").run("-c", "pass", _CLUSTERKIT_NODE_CACHE_BYTES="1")[
            0
        ]
        == 0
    )
    assert not one.prefix.exists()


def failing(container: Container, **variables: str) -> list[str]:
    """Run a container that must fail before its program starts; return the last three lines it printed."""
    returncode, out, error = container.run("-c", "print('never')", **variables)
    assert (returncode, out) == (69, "")
    return error.splitlines()[-3:]


def test_a_truncated_layer_is_three_lines(container):
    """A layer file that is cut is named with its sizes, and the container ends with 69."""
    layer = next(path for path in container.image.layers if path.stat().st_size > 1 << 20)
    cut = container.work / layer.name
    cut.unlink()
    cut.write_bytes(layer.read_bytes()[:-1])
    what, why, mend = failing(container)
    assert what.startswith("Error: the layer ")
    assert why == f"  Why:  {cut} has {cut.stat().st_size} of {cut.stat().st_size + 1} bytes"
    assert mend == "  Mend: run `clusterkit env verify`: it checks the store, and names what to put again"


def test_a_missing_manifest_is_three_lines(container):
    """A container without its manifest says which file it wants."""
    (container.work / "clusterkit-image.json").unlink()
    assert failing(container)[1] == f"  Why:  {container.work}/clusterkit-image.json: No such file or directory"


def test_a_python_for_another_processor_is_three_lines(container):
    """An image for another processor says so instead of `Exec format error`."""
    assert container.run("-c", "pass")[0] == 0
    python = container.prefix / "bin" / f"python{'.'.join(container.image.manifest.python.split('.')[:2])}"
    python.unlink()
    python.write_bytes(b"\x7fELF\x02\x01" + bytes(100))
    python.chmod(0o755)
    assert failing(container)[1] == f"  Why:  {python} is for another processor than {os.uname().machine}"


@contextlib.contextmanager
def mounted(path: Path, options: str):
    """Mount a file system in memory; skips where that is not allowed."""
    path.mkdir()
    done = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", path], check=True)


def test_a_noexec_cache_is_three_lines(tmp_path, image):
    """A cache on a noexec mount is found out before anything is unpacked."""
    with mounted(tmp_path / "mount", "noexec,mode=755"):
        container = container_of(image, tmp_path / "c", tmp_path / "mount" / "cache")
        what, why, _ = failing(container)
        assert what == f"Error: no program can be run from the node's cache at {container.prefix.parent.parent}"
        assert why == "  Why:  the file system is mounted noexec, or a security module forbids it"
        assert list(container.prefix.parent.parent.glob("layers/*")) == []


def test_a_full_disk_is_three_lines(tmp_path, image):
    """A cache that is too small is told with both sizes."""
    with mounted(tmp_path / "mount", "size=20m,mode=755"):
        container = container_of(image, tmp_path / "c", tmp_path / "mount" / "cache")
        what, why, _ = failing(container)
    assert what == "Error: the image small does not fit on this node"
    assert re.fullmatch(rf"  Why:  {container.prefix.parent.parent} has (19|20) MiB free, and \d+ MiB are needed", why)


def as_nobody(argv: list[str | Path], *, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, with nothing in the environment but what is given."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return subprocess.run(
        [str(each) for each in argv],
        cwd=cwd,
        env=variables,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def open_path():
    """Yield a directory that every user can reach: pytest's own are closed, and closed again by other runs of it."""
    path = Path(tempfile.mkdtemp(prefix="clusterkit-open-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shared_image(image, open_path) -> Stored:
    """The image where every user can read it."""
    store = open_path / "store"
    shutil.copytree(image.store, store)
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Stored(store, image.manifest)


def test_each_user_has_an_image_of_their_own(open_path, shared_image):
    """In a cache that root made each user has a part, which no other can write to."""
    container = container_of(shared_image, open_path / "c", open_path / "cache")
    assert container.run("-c", "pass")[0] == 0
    variables = {"_CLUSTERKIT_NODE_CACHE": str(container.node_cache)}
    ours = [PYTHON, "-c", "import sys; print(sys.prefix)"]
    done = as_nobody(ours, cwd=container.work, **variables)
    assert (done.returncode, done.stdout) == (
        0,
        f"{container.node_cache}/{NOBODY}/images/{shared_image.manifest.base}\n",
    )
    assert (container.node_cache / str(NOBODY)).stat().st_uid == NOBODY


def test_a_cache_that_another_user_made_in_ones_name_is_three_lines(open_path, shared_image):
    """Whoever makes a directory in another user's name is not trusted by that user."""
    container = container_of(shared_image, open_path / "c", open_path / "cache")
    container.node_cache.mkdir()
    container.node_cache.chmod(0o1777)
    (container.node_cache / str(NOBODY)).mkdir()
    done = as_nobody(
        [PYTHON, "-c", "pass"],
        cwd=container.work,
        _CLUSTERKIT_NODE_CACHE=str(container.node_cache),
    )
    assert (done.returncode, done.stderr.splitlines()[:2]) == (
        69,
        [
            f"Error: the node's cache at {container.node_cache}/{NOBODY} is not used",
            f"  Why:  it belongs to the user 0, and this is {NOBODY}",
        ],
    )


GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "libutil.so.1")


def test_a_node_needs_glibc_and_a_shell_alone(open_path, shared_image):
    """In a root with glibc's libraries, /bin/sh and /proc, as nobody, with no environment, NumPy is imported."""
    root = open_path / "root"
    loader = Path(os.path.realpath("/lib64/ld-linux-x86-64.so.2"))
    if not loader.is_file():
        pytest.skip("the loader of another platform has another name")
    for directory in ("lib64", "bin", "dev", "proc", "var/tmp"):
        (root / directory).mkdir(parents=True)
    (root / "lib").symlink_to("lib64")
    (root / "var/tmp").chmod(0o1777)
    (root / "dev/null").touch()
    shutil.copy(loader, root / "lib64/ld-linux-x86-64.so.2")
    for name in GLIBC:
        shutil.copy(os.path.realpath(loader.with_name(name)), root / "lib64" / name)
    shutil.copy(os.path.realpath("/bin/sh"), root / "bin/sh")
    container_of(shared_image, root / "work", Path("unused"))
    shutil.rmtree(root / "work/clusterkit", ignore_errors=True)
    (root / "work/clusterkit").unlink(missing_ok=True)
    unpacked(shared_image.bare, root / "work/clusterkit")
    for layer in shared_image.layers:
        (root / "work" / layer.name).unlink()
        shutil.copy(layer, root / "work" / layer.name)
    code = "import ssl, ctypes, sqlite3, numpy; print(numpy.arange(3).sum(), ssl.OPENSSL_VERSION[:7])"
    command = f"cd /work && exec clusterkit/bin/python -c '{code}'"
    enter = (
        f"mount -t proc none {root}/proc && exec env -i {shutil.which('chroot')} --userspec={NOBODY}:{NOBODY} {root}"
    )
    done = subprocess.run(
        ["/usr/bin/unshare", "-m", "/bin/sh", "-c", f'{enter} /bin/sh -c "$0"', command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 1 and "unshare" in done.stderr:
        pytest.skip(f"mount namespaces are not allowed here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "3 OpenSSL\n"), done.stderr
    warnings = [line for line in done.stderr.splitlines() if not line.startswith("clusterkit: ")]
    assert warnings == []
    assert (root / f"var/tmp/clusterkit/{NOBODY}/images").is_dir()


def test_the_whole_image_that_yarn_unpacked_is_used_in_place(tmp_path, numpy_venv, image):
    """With the native transport nothing is unpacked or written: the image in the container's directory is used."""
    whole = pack.native(numpy_venv.tree, tmp_path / "store")
    container = container_of(image, tmp_path / "a container", tmp_path / "cache")
    for layer in container.image.layers:
        (container.work / layer.name).unlink()
    unpacked(tmp_path / "store/layers" / f"{whole.digest}.tar.gz", container.work / "clusterkit-image")
    (code,) = image.manifest.code
    coded = pack.pack(
        numpy_venv.tree, lock_digest="", name="x", blas="", proof=None, into=tmp_path / "store", formats=("gz",)
    )
    assert coded.code[0].digest == code.digest
    unpacked(tmp_path / "store/layers" / f"{code.digest}.tar.gz", container.work / code.digest)
    returncode, out, error = container.run("-c", ASK, **container.reporting)
    assert (returncode, error) == (0, "")
    told = json.loads(out)
    assert (told["prefix"], told["words"]) == (str(container.work / "clusterkit-image"), "well met")
    assert not container.node_cache.exists()
    assert container.report()["transport"] == "native"
    script = container.run("-c", "import subprocess; print(subprocess.run(['ck-greet'], capture_output=True).stdout)")
    assert script[:2] == (0, "b'well met\\n'\n")


def test_the_bare_archive_is_small_and_always_the_same(tmp_path):
    """Made twice from scratch the archive has the same bytes; it has fewer than 40 files, and is not made again."""
    first, second = bare.archive(into=tmp_path / "one"), bare.archive(into=tmp_path / "two")
    assert first[0] == second[0]
    assert first[1].read_bytes() == second[1].read_bytes()
    with tarfile.open(first[1]) as archive:
        members = archive.getmembers()
    assert len(members) < 40
    assert {member.type for member in members} == {tarfile.REGTYPE}
    assert first[1].stat().st_size < 16 << 20
    made = first[1].stat().st_mtime_ns
    assert bare.archive(into=tmp_path / "one") == first
    assert first[1].stat().st_mtime_ns == made
    first[1].unlink()
    assert bare.archive(into=tmp_path / "one") == first
    assert first[1].is_file()


def test_the_digest_is_that_of_the_tar_stream(tmp_path):
    """The archive is named, as layers are, by what it unpacks to."""
    import gzip

    digest, path = bare.archive(into=tmp_path)
    assert path == tmp_path / "bare" / f"{digest}.tar.gz"
    assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() == digest


MODULES = """\
import sys
sys.path.append(sys.prefix + "/lib/standard.zip")
import argparse, asyncio, gzip, hashlib, http.client, json, logging, random, shutil, socket, subprocess, tempfile
import threading, urllib.request, uuid, zstandard
assert not [p for p in sys.path if not p.startswith(sys.prefix)], sys.path
print(zstandard.backend, sys.prefix)
"""


@pytest.mark.parametrize("python", [None, DEBIAN])
def test_the_bare_interpreter_runs_by_itself(tmp_path, monkeypatch, python):
    """It starts without a word from wherever it lies, finds nothing of the machine's Python, and reads zstd."""
    if python is not None:
        if not python.is_file() or MINOR not in os.path.realpath(python):
            pytest.skip(f"there is no {python} of this version")
        monkeypatch.setattr(sys, "_base_executable", str(python))
    _, archive = bare.archive(into=tmp_path)
    unpacked(archive, tmp_path / "some where")
    program = next((tmp_path / "some where" / "bin").glob("python3.*"))
    done = subprocess.run(
        [program, "-I", "-S", "-B", "-c", MODULES], env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cext {tmp_path / 'some where'}\n", "")


def test_an_image_that_is_there_is_found_without_the_standard_library(container):
    """The way that nearly every container takes imports next to nothing: no json, no re, no second zip file."""
    assert container.run("-c", "pass")[0] == 0
    code = (
        "import os, sys; sys.path.append(sys.prefix + '/lib/standard.zip'); "
        "from clusterkit_node import start; start.ready(sys.argv[1], os.environ); "
        "print(sorted({'json', 're', 'hashlib', 'zstandard', 'zlib', 'shutil', 'threading'} & sys.modules.keys()), "
        "[path for path in sys.path_importer_cache if path.endswith('standard.zip')])"
    )
    done = subprocess.run(
        [container.work / "clusterkit/bin" / MINOR, "-ISBc", code, "."],
        cwd=container.work,
        env=container.variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[] []\n"


def test_waiting_is_bounded_by_the_work(tmp_path, image):
    """A container that waits says so, and goes on when the one at work is killed."""
    one = container_of(image, tmp_path / "one", tmp_path / "cache")
    two = container_of(image, tmp_path / "two", tmp_path / "cache")
    with one.start("-c", "pass") as worker:
        assert "unpacking" in worker.stderr.readline()
        os.kill(worker.pid, signal.SIGSTOP)
        with two.start("-c", "print('up')") as waiter:
            line = waiter.stderr.readline()
            assert line.startswith("clusterkit: waiting another container of this node unpacks it: unpacking ")
            started = time.monotonic()
            worker.kill()
            assert waiter.communicate(timeout=120)[0] == "up\n"
            assert time.monotonic() - started < 60
