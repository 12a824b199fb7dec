"""Virtual environments, read, and run where neither they nor the Python behind them is."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import msgspec
import pytest

from clusterkit.environments import elf, wheels
from clusterkit.environments.wheels import locking, pythons
from clusterkit.errors import ImageError
from clusterkit.specs.environment import EnvironmentSpec

from .conftest import DEBIAN, called, greeting, laid_out, without

pytestmark = pytest.mark.timeout(240)

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"lib/python{MINOR}/site-packages"
QUESTION = """\
import bz2, ctypes, hashlib, json, lzma, sqlite3, ssl, sys, sysconfig, zlib
import ck_greeting, click, numpy, six
assert numpy.linalg.svd(numpy.eye(3))[1].tolist() == [1, 1, 1]
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count(" ") > 4 and "/" in line}
print(json.dumps({
    "version": sys.version.split()[0],
    "prefix": sys.prefix,
    "purelib": sysconfig.get_path("purelib"),
    "built for": sysconfig.get_config_var("prefix"),
    "words": ck_greeting.words(),
    "libraries": sorted(path for path in mapped if ".so" in path and not path.startswith(sys.prefix)),
}))
"""


@pytest.fixture(params=["numpy_venv", "debian_venv"])
def moved(request, reachable):
    """An environment at another path, and what has to be hidden for it to be alone there."""
    made = request.getfixturevalue(request.param)
    prefix = reachable / request.param
    if not prefix.exists():
        laid_out(made.tree, prefix)
    base = pythons.interpreter.probe(DEBIAN if request.param == "debian_venv" else Path(sys.executable))
    own = [base.stdlib] if base.prefix == Path("/usr") else [base.prefix]
    return made, prefix, [made.venv, made.project, Path(sys.prefix), *own]


def test_an_environment_runs_where_neither_it_nor_its_python_is(moved):
    """As nobody, with an empty environment: everything that is loaded is in the tree, but for glibc."""
    made, prefix, hidden = moved
    done = without(hidden, [prefix / "bin/python", "-c", QUESTION], PYTHONPATH=str(prefix / "code/ck_greeting"))
    told = json.loads(done.stdout) if done.returncode == 0 else pytest.fail(done.stderr)
    libraries = told.pop("libraries")
    assert told == {
        "version": made.tree.python,
        "prefix": str(prefix),
        "purelib": f"{prefix}/{made.tree.site_packages}",
        "built for": str(prefix),
        "words": "well met",
    }
    assert [path for path in libraries if not elf.is_the_nodes_own(Path(path).name)] == []


def test_without_the_copy_of_its_python_an_environment_does_not_run(numpy_venv):
    """What is hidden really is: the environment itself does not start there, so the test above means something."""
    python = pythons.interpreter.probe(Path(sys.executable))
    done = without([python.prefix], [numpy_venv.venv / "bin/python", "-c", ""])
    assert done.returncode != 0


def test_console_scripts_start_the_python_beside_them(moved, reachable):
    """Also through a link from elsewhere, and for a program that is the user's own."""
    _, prefix, hidden = moved
    link = reachable / f"linked {prefix.name}"
    link.symlink_to(prefix / "bin/ck-greet")
    path = str(prefix / "code/ck_greeting")
    assert without(hidden, [prefix / "bin/numpy-config", "--version"]).stdout.count(".") == 2
    assert without(hidden, [link], PYTHONPATH=path).stdout == "well met\n"


@pytest.mark.skipif(not Path("/etc/ssl/certs/ca-certificates.crt").is_file(), reason="no bundle of certificates here")
def test_certificates_are_found_where_another_system_keeps_them(moved):
    """OpenSSL looks where it was built to look; where that is missing, the node's own bundle is named to it."""
    _, prefix, hidden = moved
    question = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 0)"
    done = without([*hidden, Path("/usr/lib/ssl")], [prefix / "bin/python", "-c", question])
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_every_file_has_an_owner_and_nothing_names_this_machine(numpy_venv):
    """Packages by RECORD, the interpreter by itself; pyvenv.cfg, activate and the editable's path are not there."""
    tree = numpy_venv.tree
    files = {file.path: file for file in tree.files}
    assert {file.package for file in tree.files} == {"python", "click", "six", "numpy", "ck-greeting"}
    assert {files[f"{SITE}/numpy/__init__.py"].package, files["bin/f2py"].package} == {"numpy"}
    assert [
        path for path in files if path.startswith(("pyvenv", "bin/activate")) or path.endswith("greeting.pth")
    ] == []
    assert [(code.name, [file.path for file in code.files]) for code in tree.code] == [
        ("ck_greeting", ["ck_greeting/__init__.py", "ck_greeting/words.txt"])
    ]
    assert [link for link in tree.links if link.target.startswith(("/", ".."))] == []
    assert tree.stale[0] == str(numpy_venv.venv)
    texts = [file for file in tree.files if file.path.startswith("bin/") and file.size_bytes < 10_000]
    assert [file.path for file in texts if str(numpy_venv.venv).encode() in file.read()] == []


def test_a_wheel_has_one_hash_wherever_it_is_installed(numpy_venv, debian_venv):
    """Neither the path of the environment nor its Python matters, only what the wheel brought."""
    ours, debians = (
        {p.name: p for p in made.tree.packages if p.name in {"click", "numpy"}} for made in (numpy_venv, debian_venv)
    )
    assert ours == debians
    assert ours["click"].build == "py3-none-any"


def test_paths_that_are_not_wanted_are_left_out(numpy_venv):
    """Below the named folder nothing is read; all else is there."""
    tree = wheels.read(numpy_venv.venv, without=frozenset({"numpy/linalg", "six.py"}))
    gone = {file.path for file in numpy_venv.tree.files} - {file.path for file in tree.files}
    assert {path.removeprefix(f"{SITE}/").partition("/")[0] for path in gone} == {"numpy", "six.py"}
    assert all(path.startswith(f"{SITE}/numpy/linalg/") for path in gone if not path.endswith("six.py"))


def test_links_are_kept_followed_or_named(tmp_path):
    """Inside: a relative link. To a file elsewhere: the file. To a package elsewhere: code. To nothing: told of."""
    venv, elsewhere, heard = tmp_path / "venv", tmp_path / "elsewhere", []
    called([sys.executable, "-m", "venv", "--without-pip", venv])
    (elsewhere / "linked").mkdir(parents=True)
    (elsewhere / "linked/__init__.py").write_text("")
    (elsewhere / "data.json").write_text(json.dumps({"argv": [f"{venv}/bin/python"]}))
    site = venv / SITE
    (site / "pack").mkdir()
    (site / "pack/a.py").write_text("")
    (site / "pack/b.py").symlink_to(site / "pack/a.py")
    (site / "pack/gone.py").symlink_to("/no/such/file")
    (site / "linked").symlink_to(elsewhere / "linked")
    (venv / "share").mkdir()
    (venv / "share/kernel.json").symlink_to(elsewhere / "data.json")
    tree = wheels.read(venv, said=lambda _, detail: heard.append(detail))
    found = {file.path: file for file in tree.files if file.package != "python"}
    assert set(found) == {f"{SITE}/pack/a.py", "share/kernel.json"}
    assert found["share/kernel.json"].bake == "text"
    assert [link for link in tree.links if not link.package] == [
        type(tree.links[0])(path=f"{SITE}/pack/b.py", target="a.py", package="")
    ]
    assert [(code.name, [file.path for file in code.files]) for code in tree.code] == [
        ("linked", ["linked/__init__.py"])
    ]
    assert f"{site}/pack/gone.py is a link to nothing (/no/such/file): left out" in heard


def test_a_library_with_its_own_search_path_finds_what_is_vendored(tmp_path):
    """With a DT_RUNPATH it would take the node's libstdc++ or libssl, or none."""
    extension = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("_ssl.*.so"))
    venv = tmp_path / "venv"
    called([sys.executable, "-m", "venv", "--without-pip", venv])
    (venv / SITE / "native").mkdir()
    shutil.copyfile(extension, venv / SITE / "native/_ssl.so")
    called([elf.patchelf(), "--set-rpath", "$ORIGIN", venv / SITE / "native/_ssl.so"])
    files = {file.path: file for file in wheels.read(venv, cache_dir=tmp_path / "cache").files}
    found = elf.read(files[f"{SITE}/native/_ssl.so"].source)
    assert (found.rpath, found.runpath) == (("$ORIGIN",), ())
    assert {"lib/libssl.so.3", "lib/libcrypto.so.3"} <= set(files) or "lib/libssl.so.1.1" in files


def test_an_environment_that_uv_made_is_read_alike(tmp_path):
    """Its pyvenv.cfg has other keys; nothing that belongs to the virtual environment itself is packed."""
    venv = tmp_path / "venv"
    called([pythons.uv_program(), "venv", "-q", "--python", sys.executable, venv])
    tree = wheels.read(venv)
    assert tree.python == ".".join(map(str, sys.version_info[:3]))
    assert [file.path for file in tree.files if file.package != "python"] == []


def test_packages_of_the_system_come_along_where_the_environment_sees_them(tmp_path, debian_venv):
    """`--system-site-packages`: what the environment has itself comes first, and is not mixed with the system's."""
    venv = tmp_path / "venv"
    called([DEBIAN, "-m", "venv", "--system-site-packages", "--without-pip", venv])
    own = venv / debian_venv.tree.site_packages
    for name in ("six.py", "six-1.17.0.dist-info"):
        source = debian_venv.venv / debian_venv.tree.site_packages / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, own / name)
    if not Path("/usr/lib/python3/dist-packages/six.py").is_file():
        pytest.skip("the system has no six of its own")
    tree = wheels.read(venv)
    assert [package.version for package in tree.packages if package.name == "six"] == ["1.17.0"]
    (six,) = [file for file in tree.files if file.path == f"{tree.site_packages}/six.py"]
    assert six.source == own / "six.py"
    assert [file.path for file in tree.files if "six-1.16" in file.path] == []
    assert len({package.name for package in tree.packages}) > 3


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A requirements.txt, solved and installed: click from the index, and the greeting project in place."""
    root = tmp_path_factory.mktemp("requirements")
    greeting(root)
    (root / "more.txt").write_text("six\n")
    (root / "requirements.txt").write_text("-r more.txt\nclick>=8\n-e ./greeting\n")
    spec = EnvironmentSpec(name="it", source=root / "requirements.txt")
    lock = wheels.lock(spec, cache_dir=root / "cache")
    wheels.install(lock, root / "venv", cache_dir=root / "cache")
    return spec, lock, wheels.read(root / "venv", cache_dir=root / "cache")


def test_a_lock_names_every_package_and_is_what_is_installed(locked):
    """Versions, tags and hashes; the project in place is code and has none."""
    spec, lock, tree = locked
    found = {package.name: package for package in lock.packages}
    assert {name: (package.build, len(package.sha256)) for name, package in found.items()} == {
        "ck-greeting": ("editable", 0),
        "click": ("py3-none-any", 64),
        "six": ("py2.py3-none-any", 64),
    }
    assert (lock.request, lock.python) == (wheels.request(spec), tree.python)
    assert wheels.drift(lock, msgspec.structs.replace(lock, packages=tree.packages)) == []
    assert [code.name for code in tree.code] == ["ck_greeting"]


def test_a_drift_is_named_package_by_package(locked):
    """Another version, a package too many, and one that is missing."""
    _, lock, tree = locked
    packages = {package.name: package for package in tree.packages}
    packages["click"] = msgspec.structs.replace(packages["click"], version="8.0.0")
    packages["extra"] = msgspec.structs.replace(packages.pop("six"), name="extra")
    version = next(package.version for package in lock.packages if package.name == "six")
    click = next(package.version for package in lock.packages if package.name == "click")
    assert wheels.drift(lock, msgspec.structs.replace(lock, packages=tuple(packages.values()))) == [
        f"click {click} was locked, 8.0.0 is there",
        f"extra {version} was not locked",
        f"six {version} was locked, and is missing",
    ]


def test_another_question_has_another_answer(locked):
    """What an included file says, the packages, the BLAS and the Python are all part of what was asked."""
    spec, _, _ = locked
    before = wheels.request(spec)
    others = [
        msgspec.structs.replace(spec, blas="mkl"),
        msgspec.structs.replace(spec, packages=("numpy",)),
        msgspec.structs.replace(spec, python="3.12"),
    ]
    more = spec.source.with_name("more.txt")
    text = more.read_text()
    more.write_text("six>=1\n")
    changed = wheels.request(spec)
    more.write_text(text)
    assert len({before, changed, *map(wheels.request, others)}) == 5
    assert wheels.request(spec) == before


def test_a_file_with_another_hash_is_not_installed(locked, tmp_path):
    """An index that serves something else than what was locked is caught, and the package is named."""
    _, lock, _ = locked
    (six,) = (package for package in lock.packages if package.name == "six")
    wrong = msgspec.structs.replace(lock, packages=(msgspec.structs.replace(six, sha256="0" * 64),))
    with pytest.raises(ImageError) as caught:
        wheels.install(wrong, tmp_path / "venv", cache_dir=tmp_path)
    assert "six" in caught.value.why
    assert caught.value.mend.startswith("the package is not the one that was locked: lock again")


BACKEND = """\
from pathlib import Path

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = Path(directory, "needs_compiler-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: needs-compiler\\nVersion: 1.0\\n")
    return info.name

def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise SystemExit("error: command 'gcc' failed: No such file or directory")
"""


@pytest.fixture
def sources_only(tmp_path) -> Path:
    """A folder with a package that has to be compiled, and cannot be."""
    project = tmp_path / "needs_compiler-1.0"
    project.mkdir()
    (project / "backend.py").write_text(BACKEND)
    (project / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: needs-compiler\nVersion: 1.0\n")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (tmp_path / "links").mkdir()
    called(["tar", "-C", tmp_path, "-czf", tmp_path / "links/needs_compiler-1.0.tar.gz", project.name])
    return tmp_path / "links"


def test_a_package_that_cannot_be_built_is_named_with_its_cure(sources_only, tmp_path, monkeypatch):
    """It has no wheel and there is no compiler; pip's own settings said where it is."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(sources_only))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    spec = EnvironmentSpec(name="it", packages=("needs-compiler",))
    lock = wheels.lock(spec, cache_dir=tmp_path)
    assert [(package.name, package.build) for package in lock.packages] == [("needs-compiler", "sdist")]
    with pytest.raises(ImageError) as caught:
        wheels.install(lock, tmp_path / "venv", cache_dir=tmp_path)
    assert caught.value.mend == (
        "there is no wheel of needs-compiler for this Python and platform, and building it failed: name a version that "
        "has one, install a compiler and its headers, or put a wheel of it into a folder that pip's `find-links` names"
    )


def test_a_wheel_that_is_named_by_its_path_is_locked_and_installed(tmp_path):
    """No index knows it; its hash is checked all the same, and a changed file is refused."""
    path = tmp_path / "own_tool-1.0-py3-none-any.whl"
    info = "own_tool-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("own_tool.py", "x = 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: own-tool\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"own_tool.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    (tmp_path / "requirements.txt").write_text("./own_tool-1.0-py3-none-any.whl\n")
    lock = wheels.lock(EnvironmentSpec(name="it", source=tmp_path / "requirements.txt"), cache_dir=tmp_path)
    (package,) = lock.packages
    assert (package.name, package.sha256) == ("own-tool", hashlib.sha256(path.read_bytes()).hexdigest())
    wheels.install(lock, tmp_path / "venv", cache_dir=tmp_path)
    tree = wheels.read(tmp_path / "venv", cache_dir=tmp_path)
    assert next(each for each in tree.packages if each.name == "own-tool").sha256 == package.sha256
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("more.py", "")
    with pytest.raises(ImageError) as caught:
        wheels.install(lock, tmp_path / "venv", cache_dir=tmp_path)
    assert "own_tool" in caught.value.why.replace("-", "_")


def test_a_package_of_a_repository_is_refused_by_name(sources_only, tmp_path):
    """What a repository gives has no hash, so that it cannot be locked."""
    repository = sources_only.parent / "needs_compiler-1.0"
    git = ["git", "-C", repository, "-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        called([*git, *arguments])
    spec = EnvironmentSpec(name="it", packages=(f"needs-compiler @ git+{repository.as_uri()}",))
    with pytest.raises(ImageError) as caught:
        wheels.lock(spec, cache_dir=tmp_path)
    assert caught.value.what == "needs-compiler cannot be locked"
    assert caught.value.mend.startswith("build a wheel of it once (`pip wheel --no-deps 'needs-compiler @ ...'`)")


def test_an_index_that_does_not_have_a_package_is_told_of_with_its_cure(tmp_path, monkeypatch):
    """The requirement is named, and where pip's settings are seen."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ImageError) as caught:
        wheels.lock(EnvironmentSpec(name="it", packages=("no-such-thing==3",)), cache_dir=tmp_path)
    assert (caught.value.what, "no-such-thing==3" in caught.value.why) == ("the environment it cannot be solved", True)
    assert "`pip config list`" in caught.value.mend


def test_a_projects_uv_lock_is_taken_as_it_is(tmp_path):
    """The wheels it names for this Python, without the network, and the project itself as code."""
    project = greeting(tmp_path)
    path = project / "pyproject.toml"
    text = path.read_text().replace(
        'version = "0.1"', 'version = "0.1"\nrequires-python = ">=3.11"\ndependencies = ["six"]'
    )
    path.write_text(text)
    done = subprocess.run(
        [pythons.uv_program(), "lock", "-q", "--directory", project], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"uv reaches no index from here: {done.stderr.decode()}")
    lock = wheels.lock(EnvironmentSpec(name="it", source=project), cache_dir=tmp_path)
    found = {package.name: (package.build, package.version) for package in lock.packages}
    assert found.pop("six")[0] == "py2.py3-none-any"
    assert found == {"ck-greeting": ("editable", "0.1")}
    assert (
        next(package.sha256 for package in lock.packages if package.name == "six") in (project / "uv.lock").read_text()
    )


def test_what_acceleration_needs_is_installed_beside_an_environment_that_lacks_it(numpy_venv, tmp_path, monkeypatch):
    """The environment itself is never written to; what it has stays as it is, and the answer is kept."""
    monkeypatch.setattr(locking, "INTEL", {"fft": ("threadpoolctl",)})
    spec = EnvironmentSpec(name="it", source=numpy_venv.venv, accelerate=("fft",))
    before = sorted(path.name for path in (numpy_venv.venv / SITE).iterdir())
    found = wheels.beside(spec, cache_dir=tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert wheels.beside(spec, cache_dir=tmp_path) == found
    assert sorted(path.name for path in (numpy_venv.venv / SITE).iterdir()) == before
    tree = wheels.read(numpy_venv.venv, also=found)
    names = {package.name for package in numpy_venv.tree.packages}
    assert {package.name for package in tree.packages} == names | {"threadpoolctl"}
    assert [file.package for file in tree.files if file.path == f"{SITE}/threadpoolctl.py"] == ["threadpoolctl"]
    assert str(found[0]) in tree.stale


def test_nothing_is_installed_beside_an_environment_that_has_all(numpy_venv, tmp_path):
    """Nor beside one that is installed from a lock, which has it."""
    described = EnvironmentSpec(name="it", packages=("numpy",), blas="mkl")
    assert wheels.beside(EnvironmentSpec(name="it", source=numpy_venv.venv), cache_dir=tmp_path) == ()
    assert wheels.beside(described, cache_dir=tmp_path) == ()
