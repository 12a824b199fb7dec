"""conda environments from a real channel: locked, installed, read, and run where neither they nor their Python is."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import conda_pack
import msgspec
import pytest

from clusterkit.environments import conda, elf
from clusterkit.environments.conda import pip
from clusterkit.environments.conda.request import Nodes
from clusterkit.environments.lock import Lock
from clusterkit.environments.materialise import materialise
from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.errors import ImageError, SpecError
from clusterkit.specs.environment import EnvironmentSpec

from .conda_channel import (
    DEMO,
    MINOR,
    PLATFORM,
    SITE,
    VERSION,
    Channel,
    Entry,
    Package,
    demo,
    distribution,
    wheel,
    write,
)
from .conftest import called, without

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(240)


def spec(channel: Channel | str, *packages: str, **others) -> EnvironmentSpec:
    url = channel if isinstance(channel, str) else channel.url
    return EnvironmentSpec(name="it", packages=packages, channels=(url,), **others)


@pytest.fixture
def small(tmp_path: Path) -> Channel:
    """A channel of its own, with packages that hold next to nothing."""
    channel = Channel(tmp_path / "small")
    channel.add(Package("python", VERSION, "0_cpython"), demo())
    return channel


@pytest.fixture
def served(small: Channel) -> Iterator[str]:
    """The same channel over HTTP."""
    yield from serving(small, "")


@pytest.fixture
def private(small: Channel) -> Iterator[str]:
    """The same channel over HTTP, for `me` with the password `secret123` alone."""
    yield from serving(small, "Basic " + base64.b64encode(b"me:secret123").decode())


def serving(small: Channel, login: str) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            if login and self.headers.get("Authorization") != login:
                return self.send_error(401)
            return super().send_head()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(small.folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_lock_names_every_package_to_the_byte(channel: Channel, conda_cache: Path):
    """A lock has version, build, platform, digest and address of each package, and survives being written down."""
    lock = conda.lock(spec(channel, "click", "ckdemo"), cache_dir=conda_cache)

    files = {path.name: path for path in channel.folder.glob("*/*.conda")}
    assert [(p.name, p.version, p.kind, p.subdir) for p in lock.packages] == [
        ("ckdemo", "1.0", "conda", "noarch"),
        ("click", next(name for name in files if name.startswith("click-")).split("-")[1], "conda", "noarch"),
        ("python", VERSION, "conda", PLATFORM),
    ]
    for package in lock.packages:
        file = files[package.url.rpartition("/")[2]]
        assert package.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert package.url == file.as_uri()
    assert (lock.python, lock.platform, lock.channels) == (VERSION, PLATFORM, (channel.url,))
    assert lock.request == conda.request(spec(channel, "click", "ckdemo"))
    assert msgspec.json.decode(msgspec.json.encode(lock), type=Lock) == lock


def test_what_cannot_be_solved_is_told_in_three_lines(small: Channel, tmp_path: Path):
    """A version that is nowhere is named, with the line that asks for it and the channels that were searched."""
    yml = tmp_path / "environment.yml"
    yml.write_text(f"channels: [{small.url!r}]\ndependencies:\n  - python\n  - ckdemo>=99\n")

    with pytest.raises(SpecError) as raised:
        conda.lock(EnvironmentSpec(name="it", source=yml), cache_dir=tmp_path / "cache")

    assert str(raised.value) == (
        "no set of packages fulfils the environment\n"
        f"  Why:  No candidates were found for ckdemo >=99. ({yml}:4)\n"
        f"  Mend: correct the name or version, or add the channel that has it to {small.url}"
    )


def test_packages_that_exclude_each_other(small: Channel, tmp_path: Path):
    """Two requests that no package fulfils together are both in the explanation."""
    small.add(Package("one", depends=("base 1.*",)), Package("two", depends=("base 2.*",)))
    small.add(Package("base", "1.0"), Package("base", "2.0"))
    with pytest.raises(SpecError) as raised:
        conda.lock(spec(small, "one", "two"), cache_dir=tmp_path)
    assert "base" in raised.value.why
    assert "one" in raised.value.why
    assert raised.value.mend == "loosen one of the versions that exclude each other"


def test_the_solver_is_told_of_the_nodes(small: Channel, tmp_path: Path):
    """A package that needs a newer glibc than the nodes have is not chosen, whatever this machine has."""
    small.add(Package("tool", "1.0", depends=("__glibc >=2.17",)), Package("tool", "2.0", depends=("__glibc >=2.34",)))
    versions = [
        next(p.version for p in lock.packages if p.name == "tool")
        for nodes in (None, Nodes(glibc="2.34"))
        for lock in [conda.lock(spec(small, "tool"), cache_dir=tmp_path, nodes=nodes)]
    ]
    assert versions == ["1.0", "2.0"]
    with pytest.raises(SpecError) as raised:
        conda.lock(spec(small, "tool>=2"), cache_dir=tmp_path)
    assert raised.value.mend == "ask for older versions: the nodes' glibc is older than these need"


@pytest.mark.parametrize(("blas", "build"), [("mkl", "1_mkl"), ("openblas", "3_openblas"), (None, "3_openblas")])
def test_the_blas_is_pinned_by_the_build_of_libblas(small: Channel, tmp_path: Path, blas, build):
    """`blas: mkl` takes the build of libblas that calls MKL, although a newer one calls OpenBLAS."""
    small.add(
        Package("libblas", "3.9.0", "1_mkl"),
        Package("libblas", "3.9.1", "3_openblas"),
        Package("numpy", "2.0", depends=("libblas >=3.9,<4",)),
    )
    lock = conda.lock(spec(small, "numpy", blas=blas), cache_dir=tmp_path)
    assert {p.name: p.build for p in lock.packages}["libblas"] == build


def test_conda_forges_own_way_to_pin_mkl(small: Channel, tmp_path: Path):
    """`libblas=*=*mkl`, as conda-forge documents it, is understood in an environment.yml."""
    small.add(Package("libblas", "3.9.0", "1_mkl"), Package("libblas", "3.9.1", "3_openblas"))
    yml = tmp_path / "environment.yml"
    yml.write_text(f"channels: [{small.url!r}]\ndependencies: ['libblas=*=*mkl']\n")
    lock = conda.lock(EnvironmentSpec(name="it", source=yml), cache_dir=tmp_path / "cache")
    assert {p.name: p.build for p in lock.packages} == {"libblas": "1_mkl", "python": "0_cpython"}


@pytest.mark.parametrize("text", ["num[py", "numpy>=>2"])
def test_a_specification_that_conda_does_not_understand(small: Channel, tmp_path: Path, text):
    """What is no match specification is shown as it was written."""
    with pytest.raises(SpecError) as raised:
        conda.lock(spec(small, text), cache_dir=tmp_path)
    assert raised.value.what == f"{text!r} is no conda package specification"


def test_a_channel_that_is_not_there(tmp_path: Path):
    """A folder without packages, and a server that does not answer, are named with the cause."""
    with pytest.raises(ImageError) as raised:
        conda.lock(spec(tmp_path.as_uri(), "numpy"), cache_dir=tmp_path / "cache")
    assert raised.value.what == f"the channel {tmp_path.as_uri()} cannot be read"
    assert "No such file or directory" in raised.value.why
    with pytest.raises(ImageError) as raised:
        conda.lock(spec("http://127.0.0.1:9/channel", "numpy"), cache_dir=tmp_path / "cache")
    assert "Connection refused" in raised.value.why


def test_a_private_channel(private: str, tmp_path: Path, monkeypatch):
    """A channel that asks for a login gets that of ~/.netrc, which is in no lock; without one, the cure is named."""
    with pytest.raises(ImageError) as raised:
        conda.lock(spec(private, "ckdemo"), cache_dir=tmp_path / "cache")
    assert raised.value.mend.startswith("put the login into ~/.netrc (machine HOST login NAME password SECRET)")

    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret123\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    lock = conda.lock(spec(private, "ckdemo"), cache_dir=tmp_path / "cache")
    conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")
    assert conda.drift(lock, tmp_path / "env") == ()
    assert b"secret123" not in msgspec.json.encode(lock)


def tampered(channel: Channel) -> Path:
    """Put other bytes into a package whose name stays the same, without a word to the index."""
    return write(demo(source=b"print('somebody else')\n"), channel.folder)


def test_a_package_of_a_folder_that_was_changed_is_refused(small: Channel, tmp_path: Path):
    """A package of a `file://` channel whose bytes are not those of the lock is refused by name, by us."""
    lock = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache")
    file = tampered(small)

    with pytest.raises(ImageError) as raised:
        conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")

    assert raised.value.what == "ckdemo is not the package that was locked (1.0 pyhd_0)"
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    locked = next(p.sha256 for p in lock.packages if p.name == "ckdemo")
    assert raised.value.why == f"{file} has the SHA-256 {found}, the lock has {locked}"


def test_a_package_of_a_server_that_was_changed_is_refused(small: Channel, served: str, tmp_path: Path):
    """The same package from a server is refused by rattler, in the same words."""
    lock = conda.lock(spec(served, "ckdemo"), cache_dir=tmp_path / "cache")
    tampered(small)

    with pytest.raises(ImageError) as raised:
        conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")

    assert raised.value.what == "ckdemo is not the package that was locked (1.0 pyhd_0)"


def test_rattler_alone_installs_a_changed_package_of_a_folder(small: Channel, tmp_path: Path, monkeypatch):
    """The reason for our own check: without it, other bytes than the lock's are installed, and nothing is said."""
    lock = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache")
    tampered(small)
    monkeypatch.setattr("clusterkit.environments.conda.installing._check_local", lambda _packages: None)
    conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")
    assert (tmp_path / "env" / SITE / "ckdemo" / "__init__.py").read_text() == "print('somebody else')\n"


def test_a_package_that_was_built_again_under_its_old_name(small: Channel, tmp_path: Path):
    """A new lock gets the new bytes, although the cache has a package of the same name, version and build."""
    cache = tmp_path / "cache"
    conda.install(conda.lock(spec(small, "ckdemo"), cache_dir=cache), tmp_path / "one", cache_dir=cache)
    small.add(demo(source=b"print('built again')\n"))
    conda.install(conda.lock(spec(small, "ckdemo"), cache_dir=cache), tmp_path / "two", cache_dir=cache)
    found = [(tmp_path / name / SITE / "ckdemo" / "__init__.py").read_text() for name in ("one", "two")]
    assert found == [DEMO.decode(), "print('built again')\n"]


def test_a_package_that_is_gone(small: Channel, tmp_path: Path):
    """A package that the channel has no longer is named."""
    lock = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache")
    file = next(small.folder.glob("noarch/ckdemo*.conda"))
    file.unlink()
    with pytest.raises(ImageError) as raised:
        conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")
    assert (raised.value.what, raised.value.why) == (
        "ckdemo was not installed",
        f"{file} cannot be read: No such file or directory",
    )


def test_drift_is_named(small: Channel, tmp_path: Path):
    """In what a prefix differs from a lock is said for each package."""
    old = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache")
    conda.install(old, tmp_path / "env", cache_dir=tmp_path / "cache")
    small.add(demo("2.0"), Package("more"))
    new = conda.lock(spec(small, "ckdemo", "more"), cache_dir=tmp_path / "cache")
    shas = {p.version: p.sha256 for lock in (old, new) for p in lock.packages if p.name == "ckdemo"}

    assert conda.drift(old, tmp_path / "env") == ()
    assert conda.drift(new, tmp_path / "env") == (
        f"ckdemo is 1.0 pyhd_0 {shas['1.0']}, and 2.0 pyhd_0 {shas['2.0']} in the lock",
        "more 1.0 is in the lock, and not installed",
    )
    with pytest.raises(ImageError, match="holds something else"):
        conda.install(new, tmp_path / "env", cache_dir=tmp_path / "cache")


def test_an_interrupted_installation_is_done_again(small: Channel, tmp_path: Path):
    """What a killed installation left is made anew; a complete one is left as it is."""
    lock, prefix = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache"), tmp_path / "env"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "clusterkit-unfinished").touch()
    (prefix / "half").touch()

    conda.install(lock, prefix, cache_dir=tmp_path / "cache")
    assert not (prefix / "half").exists()
    made = prefix.stat().st_mtime_ns
    conda.install(lock, prefix, cache_dir=tmp_path / "cache")
    assert prefix.stat().st_mtime_ns == made


def test_a_prefix_longer_than_any_placeholder(small: Channel, tmp_path: Path):
    """A path that no package has room for is refused before anything is installed."""
    lock = conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache")
    with pytest.raises(ImageError, match="longer than the 255 bytes"):
        conda.install(lock, tmp_path / ("d" * 200) / ("e" * 60), cache_dir=tmp_path / "cache")


def test_pip_of_the_environment(channel: Channel, conda_cache: Path, tmp_path: Path):
    """What `pip:` lists is locked to the byte, knows what conda has brought, and belongs to its distribution."""
    if not any(channel.folder.glob("noarch/pip-*.conda")):
        channel.add(distribution("pip"))
    yml, local = tmp_path / "environment.yml", wheel(tmp_path, "ckmine")
    yml.write_text(
        f"channels: [{channel.url!r}]\nvariables: {{CK_LEVEL: 7}}\n"
        "dependencies: [python, click, pip: [six==1.16.0, click, ./ckmine-1.0-py3-none-any.whl]]\n"
    )
    asked, prefix = EnvironmentSpec(name="it", source=yml), tmp_path / "env"

    lock = conda.lock(asked, cache_dir=conda_cache)
    conda.install(lock, prefix, cache_dir=conda_cache)
    tree = conda.read(prefix)

    mine, six = (p for p in lock.packages if p.kind == "wheel")
    assert (mine.name, mine.sha256) == ("ckmine", hashlib.sha256(local.read_bytes()).hexdigest())
    assert (six.name, six.version, six.build) == ("six", "1.16.0", "py2.py3-none-any")
    assert six.sha256 == "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"
    owned = {f.path: (f.package, f.bake) for f in tree.files}
    assert (owned[f"{SITE}/six.py"], owned["bin/ckmine"]) == (("six", None), ("ckmine", "shebang"))
    assert called([prefix / "bin" / "ckmine"]) == "this is ckmine\n"
    assert [(p.name, p.kind) for p in tree.packages] == [
        ("click", "conda"),
        ("pip", "conda"),
        ("python", "conda"),
        ("ckmine", "wheel"),
        ("six", "wheel"),
    ]
    assert tree.environment["CK_LEVEL"] == "7"
    assert conda.drift(lock, prefix) == ()
    wrong = msgspec.structs.replace(six, version="1.17.0", sha256="0" * 64)
    with pytest.raises(ImageError, match="six is not the package that was locked"):
        pip.install(prefix, [wrong])


def test_pip_does_not_find_something(channel: Channel, conda_cache: Path, tmp_path: Path):
    """A requirement that pip cannot fulfil is named with its line."""
    if not any(channel.folder.glob("noarch/pip-*.conda")):
        channel.add(distribution("pip"))
    yml = tmp_path / "environment.yml"
    yml.write_text(f"channels: [{channel.url!r}]\ndependencies:\n  - pip:\n    - six==99\n")
    with pytest.raises(ImageError) as raised:
        conda.lock(EnvironmentSpec(name="it", source=yml), cache_dir=conda_cache)
    assert raised.value.what == "pip did not find six==99"
    assert raised.value.why.endswith(f"({yml}:4)")


def test_what_a_real_environment_holds(conda_prefix: Path):
    """The prefix is taken out of texts, scripts, entry points and binaries, and every variable is known."""
    tree = conda.read(conda_prefix)

    baked = {file.path: (file.bake, file.package) for file in tree.files if file.bake and file.package != "python"}
    assert baked == {
        "bin/ckconf": ("shebang", "ckconf"),
        "bin/ckdemo": ("shebang", "ckdemo"),
        "etc/ckconf.ini": ("text", "ckconf"),
    } | ({"bin/hello": ("binary", "hello-prefix")} if shutil.which("gcc") else {})
    assert tree.environment == {
        "CKCONF_HOME": f"{PLACEHOLDER}/share/ckconf",
        "CKCONF_LEVEL": "3",
        "CONDA_PREFIX": PLACEHOLDER,
        "GDAL_DATA": f"{PLACEHOLDER}/share/gdal",
        "PROJ_DATA": f"{PLACEHOLDER}/share/proj",
        "SSL_CERT_FILE": f"{PLACEHOLDER}/ssl/cacert.pem",
    }
    assert tree.python_path in {file.path for file in tree.files}
    assert tree.notes == ()
    assert all(f.package for f in tree.files if f.path not in {"conda-meta/history", "CACHEDIR.TAG"})


def test_another_path_another_user_and_nothing_of_the_first(conda_prefix: Path, conda_cache: Path, tmp_path: Path):
    """Laid out elsewhere, it runs as nobody with an empty environment where its origin and our Python are gone."""
    there = tmp_path / "there"
    materialise(conda.read(conda_prefix), there)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    hidden = [conda_prefix, conda_cache, Path(sys.base_prefix)]
    code = (
        "import click, ssl, sqlite3, json, sys; print(json.dumps([sys.prefix, click.__file__, sys.version_info[:2]]))"
    )

    python = without(hidden, [there / "bin" / "python", "-c", code])
    assert json.loads(python.stdout or "null") == [
        str(there),
        str(there / SITE / "click" / "__init__.py"),
        list(map(int, MINOR.split("."))),
    ], python.stderr
    demo_run = without(hidden, [there / "bin" / "ckdemo"])
    assert (demo_run.stdout, demo_run.stderr) == (f"demo {there}\n", "")
    assert without(hidden, [there / "bin" / "ckconf"]).stdout == "conf\n"
    assert (there / "etc" / "ckconf.ini").read_text() == f"[paths]\nroot = {there}/share\nagain = {there}\n"
    if shutil.which("gcc"):
        hello = without(hidden, [there / "bin" / "hello", "x"])
        assert (hello.returncode, hello.stdout) == (0, f"{there}/a:{there}/b\nhello from the prefix\n")


def test_the_package_cache_is_not_needed(conda_prefix: Path, tmp_path: Path):
    """A prefix that was copied, without its cache and without conda, is read to the same bytes."""
    copy = tmp_path / "copy"
    shutil.copytree(conda_prefix, copy, symlinks=True)
    first, second = (
        {f.path: (f.bake, hashlib.sha256(f.read()).hexdigest()) for f in conda.read(prefix).files}
        for prefix in (conda_prefix, copy)
    )
    assert first == second


def test_two_installations_are_one_tree(channel: Channel, conda_cache: Path, conda_prefix: Path, tmp_path: Path):
    """The same lock, installed at two paths, is packed to the same bytes: byte code too."""
    names = ("click", "ckdemo", "ckconf", *(["hello-prefix"] if shutil.which("gcc") else []))
    lock = conda.lock(spec(channel, *names), cache_dir=conda_cache)
    conda.install(lock, tmp_path / "a longer path than before", cache_dir=conda_cache)
    first, second = (
        {f.path: (f.bake, f.mode, f.package, f.read()) for f in conda.read(prefix).files}
        for prefix in (conda_prefix, tmp_path / "a longer path than before")
    )
    assert first == second


def test_byte_code_is_there_for_nodes_that_may_not_write(conda_prefix: Path):
    """Every module of every package has byte code that is valid without the time of its source."""
    sources = {f.path for f in conda.read(conda_prefix).files if f.path.endswith(".py") and f.path.startswith("lib/")}
    compiled = {p.name for p in conda_prefix.glob(f"{SITE}/**/__pycache__/*.pyc")}
    assert {"core.cpython-" + MINOR.replace(".", "") + ".pyc"} <= compiled
    assert f"{SITE}/click/core.py" in sources
    cached = next(conda_prefix.glob(f"{SITE}/click/__pycache__/core.*.pyc"))
    assert int.from_bytes(cached.read_bytes()[4:8], "little") == 1


def test_conda_pack_is_the_referee(conda_prefix: Path, tmp_path: Path):
    """What we lay out at a path has the files and the bytes that conda-pack and conda-unpack make there."""
    there, theirs = tmp_path / "there", tmp_path / "theirs.tar.gz"
    conda_pack.pack(prefix=str(conda_prefix), output=str(theirs), compress_level=1)
    there.mkdir()
    called(["tar", "-xzf", theirs, "-C", there])
    called([there / "bin" / "python", there / "bin" / "conda-unpack"])
    of_conda_pack = contents(there)
    shutil.rmtree(there)
    materialise(conda.read(conda_prefix), there)
    ours = contents(there)

    added = {"bin/activate", "bin/deactivate", "bin/activate.fish", "bin/conda-unpack", "bin/conda_unpack_progress.py"}
    assert of_conda_pack.keys() - ours.keys() == added
    assert ours.keys() - of_conda_pack.keys() == set()
    different = {path for path in ours if ours[path] != of_conda_pack[path]}
    assert different == {"bin/ckdemo", "bin/ckconf"}  # scripts: theirs ask PATH for the Python
    assert (there / "bin" / "ckdemo").read_text().startswith(f"#!{there}/bin/python")


def contents(prefix: Path) -> dict[str, tuple[str, bool]]:
    """Return digest, or target, and whether it can be executed, of everything but records and byte code."""
    found = {}
    for path in prefix.rglob("*"):
        name = str(path.relative_to(prefix))
        if name.startswith("conda-meta/") or name.endswith(".pyc") or (path.is_dir() and not path.is_symlink()):
            continue
        known = str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = known, bool(path.lstat().st_mode & 0o100)
    return found


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc: nothing can be compiled in the prefix")
def test_an_extension_that_pip_compiled_in_the_prefix(small: Channel, tmp_path: Path):
    """A library that looks for others in the prefix by its full path looks for them beside itself."""
    prefix = tmp_path / "env"
    conda.install(conda.lock(spec(small, "ckdemo"), cache_dir=tmp_path / "cache"), prefix, cache_dir=tmp_path / "cache")
    source, library = tmp_path / "it.c", prefix / SITE / "it.so"
    source.write_text("int it(void) { return 1; }\n")
    called([str(shutil.which("gcc")), "-shared", "-fPIC", f"-Wl,-rpath,{prefix}/lib", "-o", library, source])

    found = {file.path: file for file in conda.read(prefix).files}[f"{SITE}/it.so"]

    assert elf.read(found.read()).runpath == ("$ORIGIN/../..",)
    assert str(prefix).encode() in library.read_bytes()
    assert str(prefix).encode() not in found.read()


def test_rattler_runs_post_link_scripts(small: Channel, tmp_path: Path):
    """A package that finishes its own installation by a script is finished, as with conda."""
    script = b'echo "made in $PREFIX" > "$PREFIX/share-made.txt"\n'
    small.add(Package("late", entries=(Entry("bin/.late-post-link.sh", script, mode=0o755),)))
    lock = conda.lock(spec(small, "late"), cache_dir=tmp_path / "cache")
    conda.install(lock, tmp_path / "env", cache_dir=tmp_path / "cache")
    assert (tmp_path / "env" / "share-made.txt").read_text() == f"made in {tmp_path / 'env'}\n"


def test_in_a_notebook(small: Channel, tmp_path: Path):
    """A running event loop, as a notebook has, is no obstacle."""
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom clusterkit.environments import conda\n"
        "from clusterkit.specs.environment import EnvironmentSpec\n"
        "async def main():\n"
        f"    spec = EnvironmentSpec(name='it', packages=('ckdemo',), channels=({small.url!r},))\n"
        f"    print(len(conda.lock(spec, cache_dir=Path({str(tmp_path / 'cache')!r})).packages))\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n", "")
