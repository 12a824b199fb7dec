"""Read a conda prefix from its own records."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments import conda
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.tree import PLACEHOLDER, File, Link
from clusterkit.errors import ImageError
from clusterkit.node.baking import bake

if TYPE_CHECKING:
    from pathlib import Path

THEIRS = ("/opt/a_placehold" + "_placehold" * 30)[:255]
SITE = "lib/python3.11/site-packages"


class Prefix:
    """A prefix as conda leaves it: files, and a record for each package."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.install("python", "3.11.7", {"bin/python3.11": b"\x7fELF", "lib/python3.11/os.py": b"import sys\n"})

    def install(self, name, version="1.0", files=None, *, made_at=None, placeholder=THEIRS, made=(), noarch=False):
        """Install a package; a file's placeholder is replaced, entry points in `made` are recorded as such."""
        entries = []
        for path, data in (files or {}).items():
            entry = {"_path": path, "path_type": "hardlink", "sha256": sha256(data), "size_in_bytes": len(data)}
            if isinstance(data, str):
                entry |= {"path_type": "softlink", "size_in_bytes": 0}
            elif path in made:
                entry["path_type"] = "unix_python_entry_point"
            elif placeholder.encode() in data:
                mode = "binary" if b"\0" in data else "text"
                entry |= {"prefix_placeholder": placeholder, "file_mode": mode}
                data = bake(data, placeholder, str(made_at or self.path), mode)  # noqa: PLW2901
            entries.append(entry)
            self.write(path, data)
        subdir = "noarch" if noarch else "linux-64"
        record = {"name": name, "version": version, "build": "0", "subdir": subdir, "sha256": sha256(name.encode())}
        record |= {"url": f"https://channel/{subdir}/{name}-{version}-0.conda", "files": [e["_path"] for e in entries]}
        record |= {"paths_data": {"paths": entries, "paths_version": 1}, "link": {"source": "/gone", "type": 1}}
        self.write(f"conda-meta/{name}-{version}-0.json", json.dumps(record).encode())

    def install_wheel(self, name, version, files, installer=b"pip\n"):
        """Put a wheel over it, as pip does."""
        info = f"{SITE}/{name}-{version}.dist-info"
        files = {f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n".encode(), **files}
        files[f"{info}/INSTALLER"] = installer
        rows = [f"{os.path.relpath(path, SITE)},sha256={urlsafe(data)},{len(data)}" for path, data in files.items()]
        record = "\n".join([*rows, f"{name}-{version}.dist-info/RECORD,,"]) + "\n"
        for path, data in {**files, f"{info}/RECORD": record.encode()}.items():
            self.write(path, data)

    def write(self, path, data):
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if isinstance(data, str):
            place.symlink_to(data)
            return
        place.write_bytes(data)
        place.chmod(0o755 if path.startswith("bin/") else 0o644)


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(b"" if isinstance(data, str) else data).hexdigest()


def urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix(tmp_path / "env")


def files(tree):
    return {file.path: file for file in tree.files}


def test_a_whole_prefix(prefix: Prefix):
    """Every file is there once: its package's, the prefix taken out where conda wrote it in."""
    placed = THEIRS.encode()
    binary = b"\x7fELF\0" + placed + b"/a:" + placed + b"/b\0tail"
    prefix.install(
        "tool",
        files={
            "bin/tool": b"#!" + placed + b"/bin/python3.11\npass\n",
            "etc/tool.ini": b"root=" + placed + b"\n",
            "lib/libtool.so.1": binary,
            "lib/libtool.so": "libtool.so.1",
            "share/tool.txt": b"text\n",
        },
    )
    entry_point = f"#!{prefix.path}/bin/python3.11\nimport demo\n".encode()
    prefix.install("demo", files={f"{SITE}/demo.py": b"", "bin/demo": entry_point}, made={"bin/demo"}, noarch=True)
    prefix.write(f"{SITE}/__pycache__/demo.cpython-311.pyc", b"\0pyc")
    (prefix.path / "var" / "empty").mkdir(parents=True)

    tree = conda.read(prefix.path)

    place, root = PLACEHOLDER.encode(), prefix.path
    script = b"#!" + place + b"/bin/python3.11\n"
    ours = binary.replace(placed, place)
    assert tree.files == (
        File("bin/demo", script + b"import demo\n", 0o755, len(script) + 12, "demo", "shebang"),
        File("bin/python3.11", root / "bin/python3.11", 0o755, 4, "python"),
        File("bin/tool", script + b"pass\n", 0o755, len(script) + 5, "tool", "shebang"),
        File("conda-meta/history", b"", 0o644, 0),
        File("etc/tool.ini", b"root=" + place + b"\n", 0o644, 261, "tool", "text"),
        File("lib/libtool.so.1", ours, 0o644, len(ours), "tool", "binary"),
        File("lib/python3.11/os.py", root / "lib/python3.11/os.py", 0o644, 11, "python"),
        File(
            f"{SITE}/__pycache__/demo.cpython-311.pyc",
            root / f"{SITE}/__pycache__/demo.cpython-311.pyc",
            0o644,
            4,
            "demo",
        ),
        File(f"{SITE}/demo.py", root / f"{SITE}/demo.py", 0o644, 0, "demo"),
        File("share/tool.txt", root / "share/tool.txt", 0o644, 5, "tool"),
    )
    assert tree.links == (Link("lib/libtool.so", "libtool.so.1", "tool"),)
    assert (tree.python, tree.platform, tree.directories) == ("3.11.7", "linux-64", ("var/empty",))
    assert [(p.name, p.version, p.kind, p.subdir) for p in tree.packages] == [
        ("demo", "1.0", "conda", "noarch"),
        ("python", "3.11.7", "conda", "linux-64"),
        ("tool", "1.0", "conda", "linux-64"),
    ]
    assert tree.environment == {"CONDA_PREFIX": PLACEHOLDER}
    assert (tree.stale, tree.notes) == ((str(root),), ())


def test_the_same_prefix_elsewhere_is_the_same_tree(tmp_path: Path):
    """Where a prefix lies leaves no trace in what is packed."""
    trees = []
    for place in ("a", "a much longer path, with spaces"):
        prefix = Prefix(tmp_path / place)
        prefix.install("tool", files={"bin/tool": b"\x7fELF" + THEIRS.encode() + b"/x\0\0", "etc/t": THEIRS.encode()})
        script = f"#!{prefix.path}/bin/python3.11\n".encode()
        prefix.install_wheel("six", "1.16.0", {f"{SITE}/six.py": b"", "bin/six": script})
        trees.append(conda.read(prefix.path))
    first, second = ([(f.path, f.read(), f.bake, f.package) for f in tree.files] for tree in trees)
    assert first == second
    assert trees[0].packages == trees[1].packages


def test_an_edited_file_is_packed_as_it_is_and_noted(prefix: Prefix):
    """What a user changed stays changed: with the prefix in it, and without."""
    prefix.install("tool", files={"etc/a.ini": b"root=" + THEIRS.encode(), "share/b.txt": b"text"})
    prefix.write("etc/a.ini", f"root={prefix.path}/mine".encode())
    prefix.write("share/b.txt", f"longer, in {prefix.path}".encode())

    tree = conda.read(prefix.path)

    assert files(tree)["etc/a.ini"].read() == f"root={PLACEHOLDER}/mine".encode()
    assert files(tree)["share/b.txt"].read() == f"longer, in {PLACEHOLDER}".encode()
    assert tree.notes == (
        "2 files of tool, such as etc/a.ini, were edited after it was installed; they are packed as they are",
    )


def test_an_edited_binary_grows_into_its_padding(prefix: Prefix):
    """A binary that was changed after conda wrote the prefix into it still has the room that conda left."""
    prefix.install("tool", files={"lib/tool.so": b"\x7fELF\0" + THEIRS.encode() + b"/share\0end"})
    live = (prefix.path / "lib/tool.so").read_bytes()
    prefix.write("lib/tool.so", live + b"signed")

    tree = conda.read(prefix.path)

    assert files(tree)["lib/tool.so"].read() == b"\x7fELF\0" + PLACEHOLDER.encode() + b"/share\0endsigned"
    assert files(tree)["lib/tool.so"].bake == "binary"
    assert tree.notes == ("lib/tool.so of tool was edited after it was installed; it is packed as it is",)


def test_a_missing_file_is_refused(prefix: Prefix):
    """What conda installed and nobody has any more is named, with its package and the cure; byte code is not missed."""
    prefix.install("tool", files={"share/a.txt": b"", "share/b.txt": b"", "lib/__pycache__/t.cpython-311.pyc": b""})
    for path in ("share/a.txt", "lib/__pycache__/t.cpython-311.pyc"):
        (prefix.path / path).unlink()

    with pytest.raises(ImageError) as raised:
        conda.read(prefix.path)

    assert raised.value.what == "the environment env is not complete"
    assert raised.value.why == "files that conda installed are not there any more: share/a.txt of tool"
    assert raised.value.mend == f"install them again: conda install -p {prefix.path} --force-reinstall tool"


def test_pip_over_conda(prefix: Prefix):
    """A package that pip put in the place of conda's is the one that is packed, and no file of conda's is missed."""
    info = f"{SITE}/numpy-1.26.0.dist-info"
    meta = {f"{info}/METADATA": b"Name: numpy\nVersion: 1.26.0\n", f"{info}/INSTALLER": b"conda\n"}
    prefix.install("numpy", "1.26.0", {**meta, f"{SITE}/numpy/old.py": b"", f"{SITE}/numpy/both.py": b"1.26"})
    for path in (*meta, f"{SITE}/numpy/old.py"):
        (prefix.path / path).unlink()
    prefix.install_wheel("numpy", "2.0.0", {f"{SITE}/numpy/both.py": b"2.0"})

    tree = conda.read(prefix.path)

    assert [(p.name, p.version, p.kind) for p in tree.packages] == [
        ("python", "3.11.7", "conda"),
        ("numpy", "2.0.0", "wheel"),
    ]
    assert files(tree)[f"{SITE}/numpy/both.py"].read() == b"2.0"
    assert tree.notes == ("pip has put numpy 2.0.0 in the place of conda's numpy; that is what is packed",)


def test_the_last_writer_owns_a_file(prefix: Prefix):
    """Of two packages that hold a path, the one whose bytes are there owns it, and the other one is named."""
    prefix.install("one", files={"share/a": b"one", "share/b": b"one"})
    prefix.install("two", files={"share/a": b"two", "share/b": b"two"})
    prefix.write("share/a", b"one")
    prefix.install_wheel("three", "1", {"share/b": b"three"})

    tree = conda.read(prefix.path)

    assert {path: files(tree)[path].package for path in ("share/a", "share/b")} == {
        "share/a": "one",
        "share/b": "three",
    }
    assert tree.notes == (
        "one has written over 1 file of two; what was written last is packed",
        "two has written over 1 file of one; what was written last is packed",
        "three has written over 1 file of two; what was written last is packed",
    )


def test_what_pip_installed(prefix: Prefix):
    """A wheel's files are its own, the prefix is taken out of its scripts, and no digest of them is left in RECORD."""
    script = f"#!{prefix.path}/bin/python3.11\npass\n".encode()
    prefix.install_wheel("My.Tool", "2", {f"{SITE}/mine.py": b"x = 1\n", "bin/mine": script})

    tree = conda.read(prefix.path)

    assert tree.packages[1].name == "my-tool"
    assert (files(tree)["bin/mine"].package, files(tree)["bin/mine"].bake) == ("my-tool", "shebang")
    rows = files(tree)[f"{SITE}/My.Tool-2.dist-info/RECORD"].read().decode().splitlines()
    assert "../../../bin/mine,," in rows
    assert f"mine.py,sha256={urlsafe(b'x = 1' + bytes([10]))},6" in rows


def test_a_prefix_that_was_moved(prefix: Prefix):
    """Files that name another path prove by their digests which one it was; it is taken out, and noted."""
    script = b"#!" + THEIRS.encode() + b"/bin/python3.11\n"
    prefix.install("tool", files={"bin/tool": script, "etc/t": THEIRS.encode()}, made_at="/data/conda/envs/old")

    tree = conda.read(prefix.path)

    assert files(tree)["bin/tool"].read() == script.replace(THEIRS.encode(), PLACEHOLDER.encode())
    assert files(tree)["etc/t"].read() == PLACEHOLDER.encode()
    assert tree.stale == (str(prefix.path), "/data/conda/envs/old")
    assert tree.notes == ("the environment was made at /data/conda/envs/old and moved since; its files name that path",)


def test_byte_code_of_a_module_that_holds_the_prefix_is_left_out(prefix: Prefix):
    """Compiled constants would bring this machine's prefix back, in whatever path the module itself names."""
    prefix.install("tool", files={f"{SITE}/where.py": b"ROOT = '" + THEIRS.encode() + b"'\n", f"{SITE}/other.py": b""})
    for name in ("where", "other"):
        prefix.write(f"{SITE}/__pycache__/{name}.cpython-311.pyc", b"pyc")
    cached = [path for path in files(conda.read(prefix.path)) if path.endswith(".pyc")]
    assert cached == [f"{SITE}/__pycache__/other.cpython-311.pyc"]


def test_links(prefix: Prefix, tmp_path: Path):
    """Links inside stay links, relative ones; what a link out leads to is packed; one that leads nowhere is noted."""
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    prefix.write("share/inside", str(prefix.path / "lib/python3.11/os.py"))
    prefix.write("share/out", str(outside))
    prefix.write("share/nowhere", "../../../nowhere")

    tree = conda.read(prefix.path)

    assert tree.links == (Link("share/inside", "../lib/python3.11/os.py", ""),)
    assert files(tree)["share/out"].read() == b"outside"
    assert tree.notes == (
        "share/nowhere is a link to ../../../nowhere, which does not exist; it is left out",
        f"share/out is a link to {outside}, outside of the environment; the file is packed",
    )


def refused(prefix: Prefix) -> tuple[str, str]:
    with pytest.raises(ImageError) as raised:
        conda.read(prefix.path)
    return raised.value.why, raised.value.mend


def test_a_link_to_a_directory_outside_is_refused(prefix: Prefix, tmp_path: Path):
    """A directory outside of the environment cannot travel with it."""
    prefix.write("share/data", str(tmp_path))
    assert refused(prefix) == (
        f"share/data is a link to the directory {tmp_path}, outside of the environment",
        f"copy the directory into the environment, or remove {prefix.path}/share/data",
    )


def test_a_pipe_is_refused(prefix: Prefix):
    """What is neither file nor link is named."""
    os.mkfifo(prefix.path / "pipe")
    assert refused(prefix) == ("pipe is neither a file nor a link", f"remove {prefix.path}/pipe")


def test_a_short_placeholder_is_refused(prefix: Prefix):
    """A binary from the days of short prefixes has no room for a node's path; its package is to be renewed."""
    short = "/opt/" + "p" * 75
    prefix.install("old", files={"lib/old.so": b"\0" + short.encode() + b"\0"}, placeholder=short, made_at="/opt/e")
    prefix.install("hint", files={"bin/hint": b"#!" + THEIRS.encode() + b"/bin/python\n"}, made_at="/opt/e")
    why, mend = refused(prefix)
    assert why.startswith("lib/old.so has room for a prefix of 80 bytes")
    assert mend == "install a newer build of old: conda update old"


def test_a_record_that_cannot_be_read_is_refused(prefix: Prefix):
    """A broken record names its package."""
    prefix.write("conda-meta/tool-1.0-0.json", b"{")
    why, mend = refused(prefix)
    assert why.startswith("the record tool-1.0-0.json cannot be read: ")
    assert mend.startswith("install tool again (conda install --force-reinstall)")


def test_a_record_with_nulls(prefix: Prefix):
    """What a record's writer did not know is absent, not wrong."""
    record = {"name": "odd", "version": "1", "build": None, "url": None, "sha256": None, "files": ["share/odd"]}
    record["paths_data"] = {"paths": [{"_path": "share/odd", "path_type": "hardlink", "prefix_placeholder": None}]}
    prefix.write("conda-meta/odd-1-0.json", json.dumps(record).encode())
    prefix.write("share/odd", f"see {prefix.path}/share".encode())
    tree = conda.read(prefix.path)
    assert tree.packages[0] == LockedPackage(name="odd", version="1", kind="conda", subdir="noarch")
    assert files(tree)["share/odd"].read() == f"see {PLACEHOLDER}/share".encode()


def test_a_prefix_without_python_is_refused(tmp_path: Path):
    """An environment has a Python."""
    (tmp_path / "conda-meta").mkdir()
    with pytest.raises(ImageError, match="there is no Python in it"):
        conda.read(tmp_path)


def test_no_prefix_is_refused(tmp_path: Path):
    """A directory without conda-meta is no conda environment."""
    with pytest.raises(ImageError, match="there is no directory"):
        conda.read(tmp_path)


def test_an_interrupted_installation_is_refused(prefix: Prefix):
    """What was left unfinished is not packed."""
    prefix.write("conda-meta/clusterkit-unfinished", b"")
    assert refused(prefix)[0] == "its installation was interrupted"


def test_a_base_environment_without_its_cache_and_its_other_environments(prefix: Prefix):
    """Conda's own machinery in a base environment is none of the environment's files."""
    for path in ("pkgs/tool/a", "envs/other/bin/python", "conda-meta/state"):
        prefix.write(path, b"{}")
    assert [path for path in files(conda.read(prefix.path)) if path.startswith(("pkgs", "envs", "conda-meta"))] == [
        "conda-meta/history"
    ]


def test_what_is_left_out(prefix: Prefix):
    """A folder below site-packages can be left out, and is not missed."""
    prefix.install("pyspark", files={f"{SITE}/pyspark/jars/a.jar": b"", f"{SITE}/pyspark/sql.py": b""})
    paths = [file.path for file in conda.read(prefix.path, without={"pyspark/jars"}).files]
    assert [path for path in paths if "pyspark" in path] == [f"{SITE}/pyspark/sql.py"]


def test_what_activation_sets(prefix: Prefix):
    """Variables come from what is there, from conda's own files, and from the scripts, in conda's order."""
    prefix.install(
        "data",
        files={
            "ssl/cacert.pem": b"",
            "share/proj/proj.db": b"",
            "etc/conda/activate.d/a.sh": b'export A="$CONDA_PREFIX/a" B=script PATH="/x:$PATH"\necho noise\n',
            "etc/conda/activate.d/b.sh": b'export D="$A/$B"\n[ -d "$CONDA_PREFIX/ssl" ] && export E=yes\nF=local\n',
            "etc/conda/env_vars.d/data.json": b'{"B": "file", "C": "c"}',
        },
    )
    prefix.write("conda-meta/state", b'{"env_vars": {"C": "state", "G": "g"}}')

    assert conda.read(prefix.path).environment == {
        "A": f"{PLACEHOLDER}/a",
        "B": "script",
        "C": "state",
        "CONDA_PREFIX": PLACEHOLDER,
        "D": f"{PLACEHOLDER}/a/script",
        "E": "yes",
        "G": "g",
        "PROJ_DATA": f"{PLACEHOLDER}/share/proj",
        "SSL_CERT_FILE": f"{PLACEHOLDER}/ssl/cacert.pem",
    }


def test_a_script_that_ends_the_shell_is_refused(prefix: Prefix):
    """An activation script that fails is named: an environment without its variables is not what was asked for."""
    prefix.install("data", files={"etc/conda/activate.d/a.sh": b"echo no licence >&2\nexit 3\n"})
    why, mend = refused(prefix)
    assert why == "etc/conda/activate.d/a.sh: no licence"
    assert mend.startswith("run `conda activate` by hand")


def test_editable_code_is_no_part_of_the_prefix(prefix: Prefix, tmp_path: Path):
    """A project that a .pth file names becomes code of its own."""
    package = tmp_path / "project" / "src" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    prefix.write(f"{SITE}/mine.pth", f"{package.parent}\n".encode())

    tree = conda.read(prefix.path)

    assert f"{SITE}/mine.pth" not in files(tree)
    assert [(code.name, [file.path for file in code.files]) for code in tree.code] == [("mine", ["mine/__init__.py"])]


def test_a_path_that_breaks_careless_code(hostile: Path):
    """Spaces, quotes, and letters beyond ASCII in the prefix's path change nothing."""
    prefix = Prefix(hostile)
    prefix.install(
        "tool",
        files={"etc/t": b"a " + THEIRS.encode() + b"/b", "etc/conda/activate.d/t.sh": b"export T=$CONDA_PREFIX\n"},
    )
    tree = conda.read(hostile)
    assert files(tree)["etc/t"].read() == f"a {PLACEHOLDER}/b".encode()
    assert (tree.environment["T"], tree.notes) == (PLACEHOLDER, ())


def test_what_is_said(prefix: Prefix):
    """The listener hears the stage, and each note as a warning."""
    prefix.install("tool", files={"etc/t": b"a"})
    prefix.write("etc/t", b"other")
    heard = []
    conda.read(prefix.path, said=lambda stage, detail: heard.append((stage, detail)))
    edited = "etc/t of tool was edited after it was installed; it is packed as it is"
    assert heard == [("reading", str(prefix.path)), ("warning", edited)]


def test_a_package_of_the_record(prefix: Prefix):
    """A locked package is what the record says of it."""
    assert conda.read(prefix.path).packages == (
        LockedPackage(
            name="python",
            version="3.11.7",
            kind="conda",
            build="0",
            sha256=sha256(b"python"),
            subdir="linux-64",
            url="https://channel/linux-64/python-3.11.7-0.conda",
        ),
    )
