"""What is read of virtual environments, their records and scripts, of locks, and of what pip says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments.lock import Lock, LockedPackage
from clusterkit.environments.tree import PLACEHOLDER, File
from clusterkit.environments.wheels import installed, installing, locking, pip, pylock, pythons, scripts, venvs
from clusterkit.errors import ImageError, SpecError
from clusterkit.processes import Completed
from clusterkit.specs.environment import EnvironmentSpec

if TYPE_CHECKING:
    from pathlib import Path

HEADER = b'#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")"/'


def test_a_value_of_pyvenv_cfg_may_hold_an_equals_sign(tmp_path):
    """Peers split at every one, and take the environment for none."""
    path = tmp_path / "pyvenv.cfg"
    path.write_text(
        "home = /opt/a=b/bin\nInclude-System-Site-Packages=false\ncommand = python -m venv --prompt=x y\n\nx\n"
    )
    assert venvs.configuration(path) == {
        "home": "/opt/a=b/bin",
        "include-system-site-packages": "false",
        "command": "python -m venv --prompt=x y",
    }


def test_an_environment_whose_python_is_gone_is_refused_in_three_lines(tmp_path):
    """The place it was made from is named."""
    (tmp_path / "pyvenv.cfg").write_text("home = /no/such/bin\nversion = 3.11.7\n")
    with pytest.raises(ImageError) as caught:
        venvs.find(tmp_path)
    assert str(caught.value) == (
        f"the virtual environment {tmp_path} cannot be packed\n"
        "  Why:  the Python it was made with is gone from /no/such/bin\n"
        "  Mend: make the virtual environment anew with a Python that is there: `python3 -m venv`"
    )


def test_a_directory_without_pyvenv_cfg_is_no_environment(tmp_path):
    """The refusal names what would be one."""
    with pytest.raises(ImageError, match="is no virtual environment"):
        venvs.find(tmp_path)


def script(data: bytes) -> File:
    return File("bin/tool", data, 0o755, len(data), "tool")


REST = b"import sys\nprint(sys.argv)\n"


@pytest.mark.parametrize(
    ("first", "python"),
    [
        (b"#!/opt/my venv/bin/python\n".replace(b" ", b"_"), b"python"),
        (b"#!/venv/bin/python3\n", b"python"),
        (b"#!/venv/bin/python3.11 -I\n", b"python3.11 -I"),
        (b"#! /venv/bin/python -sE\n", b"python -sE"),
        (b"#!/usr/bin/env python3\n", b"python"),
        (b"#!/usr/bin/env -S python3 -u\n", b"python -u"),
        (b"#!python\n", b"python"),
        (b"#!/bin/sh\n'''exec' \"/a path/with spaces/bin/python3\" \"$0\" \"$@\"\n' '''\n", b"python"),
        (b"#!/bin/sh\n'''exec' /venv/bin/python -I \"$0\" \"$@\"\n' '''\n", b"python -I"),
    ],
)
def test_a_console_script_starts_the_python_beside_it(first, python):
    """However its installer wrote the first lines, and with the options that they had."""
    changed = scripts.relocatable(script(first + REST), "/venv").read()
    assert changed == HEADER + python + b" \"$0\" \"$@\"\n' '''\n" + REST
    assert scripts.relocatable(script(changed), "/venv").read() == changed


def test_a_relocated_script_runs_through_a_link_below_a_path_with_a_space(tmp_path):
    """It is a shell script and a Python file at once, and gets its arguments as they are."""
    home = tmp_path / "a b" / "bin"
    home.mkdir(parents=True)
    (home / "python").symlink_to(sys.executable)
    (home / "tool").write_bytes(scripts.relocatable(script(b"#!/venv/bin/python -I\n" + REST), "/venv").read())
    (home / "tool").chmod(0o755)
    (tmp_path / "link").symlink_to(home / "tool")
    done = subprocess.run([tmp_path / "link", "x y", "*"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[str(tmp_path / 'link'), 'x y', '*']}\n"


@pytest.mark.parametrize(
    "data",
    [b"\x7fELF\0/venv/bin", b"#!/bin/bash\necho hello\n", b"#!/usr/bin/perl\n", b"plain text", b"", b"#!/bin/sh\n"],
)
def test_what_is_no_script_of_python_stays_as_it_is(data):
    """Programs, other interpreters' scripts, and files that hold no prefix."""
    assert scripts.relocatable(script(data), "/venv") == script(data)


def test_the_prefix_in_a_script_gives_way_to_the_placeholder():
    """Where it is a whole path: `/venv-old` is another one."""
    changed = scripts.relocatable(script(b"#!/bin/bash\ncat /venv/share/x /venv-old/y /venv\n"), "/venv")
    assert changed.read() == f"#!/bin/bash\ncat {PLACEHOLDER}/share/x /venv-old/y {PLACEHOLDER}\n".encode()
    assert (changed.bake, changed.size_bytes) == ("text", len(changed.read()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python", True),
        ("python3.11", True),
        ("activate", True),
        ("activate.fish", True),
        ("Activate.ps1", True),
        ("deactivate.bat", True),
        ("activate-global-python-argcomplete", False),
        ("pythonista", False),
        ("pip", False),
    ],
)
def test_what_belongs_to_the_environment_itself_is_told_from_what_is_installed(name, expected):
    """Only the former is left out."""
    assert scripts.is_of_the_venv(name) is expected


def distribution(root: Path, record: str, **files: str) -> installed.Distribution:
    info = root / "My.Tool-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: My.Tool\nVersion: 1.0\n\nName: not this\n")
    (info / "RECORD").write_text(record)
    for name, text in files.items():
        (info / name.replace("_json", ".json")).write_text(text)
    (found,) = installed.distributions(root)
    return found


WHEEL = "Wheel-Version: 1.0\nTag: py3-none-any\nTag: py2-none-any\n"
RECORD = (
    'my_tool/__init__.py,sha256=abc,10\n"my_tool/a,b.py",sha256=def,1\nMy.Tool-1.0.dist-info/METADATA,sha256=ghi,3\n'
)
PIPS = "../../../bin/tool,sha256=xyz,200\nmy_tool/__pycache__/a.pyc,,\nMy.Tool-1.0.dist-info/INSTALLER,sha256=pip,4\n"
UVS = "../../../bin/tool,sha256=other,190\nMy.Tool-1.0.dist-info/INSTALLER,sha256=uv,2\n"


def test_a_distribution_is_what_its_records_say(tmp_path):
    """Name normalised, tags in one, quoted names read, and everything it owns."""
    found = distribution(tmp_path, RECORD + PIPS, WHEEL=WHEEL)
    assert (found.name, found.version, found.tags, found.url) == ("my-tool", "1.0", "py2.py3-none-any", "")
    assert found.files[:2] == ("my_tool/__init__.py", "my_tool/a,b.py")
    assert found.locked("linux-64").subdir == "noarch"


def test_the_hash_of_a_distribution_does_not_depend_on_its_installer(tmp_path):
    """Pip lists byte code and the script it wrote; uv another; a changed file changes it."""
    pips = distribution(tmp_path / "a", RECORD + PIPS, WHEEL=WHEEL)
    uvs = distribution(tmp_path / "b", UVS + RECORD, WHEEL=WHEEL)
    other = distribution(tmp_path / "c", RECORD.replace("abc", "changed") + PIPS, WHEEL=WHEEL)
    assert pips.sha256 == uvs.sha256 != other.sha256


def test_the_hash_of_an_archive_is_taken_where_it_is_known(tmp_path):
    """direct_url.json has it, in either form."""
    told = '{"url": "file:///x/my_tool.whl", "archive_info": {"hashes": {"sha256": "aa"}}}'
    found = distribution(tmp_path / "a", RECORD, WHEEL=WHEEL, direct_url_json=told)
    legacy = distribution(tmp_path / "b", RECORD, direct_url_json='{"url": "u", "archive_info": {"hash": "sha256=bb"}}')
    assert (found.sha256, found.url) == ("aa", "file:///x/my_tool.whl")
    assert (legacy.sha256, legacy.url) == ("bb", "u")


def test_an_editable_install_has_no_hash(tmp_path):
    """It is the user's own code, which changes all the time."""
    told = '{"url": "file:///home/me/tool", "dir_info": {"editable": true}}'
    found = distribution(tmp_path, RECORD, WHEEL=WHEEL, direct_url_json=told)
    assert (found.tags, found.sha256, found.url) == ("editable", "", "file:///home/me/tool")


def test_what_an_interrupted_uninstall_left_is_no_distribution(tmp_path):
    """A directory of metadata without METADATA."""
    (tmp_path / "half-1.0.dist-info").mkdir()
    assert installed.distributions(tmp_path) == []


def test_old_distributions_are_known_by_their_egg_info(tmp_path):
    """As Debian's own packages have: a file or a directory, with the names of what they import."""
    (tmp_path / "six-1.16.0.egg-info").write_text("Metadata-Version: 1.0\nName: six\nVersion: 1.16.0\n")
    egg = tmp_path / "Old_Kit.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: Old_Kit\nVersion: 2\n")
    (egg / "top_level.txt").write_text("old\n_old\n")
    found = [(each.name, each.version, each.files) for each in installed.distributions(tmp_path)]
    assert found == [
        ("old-kit", "2", ("Old_Kit.egg-info", "old", "_old")),
        ("six", "1.16.0", ("six-1.16.0.egg-info", "six")),
    ]


def package(**changes: str) -> LockedPackage:
    return LockedPackage(
        **{"name": "six", "version": "1", "kind": "wheel", "build": "py3-none-any", "sha256": "a", **changes}
    )


def lock(*packages: LockedPackage, **changes: str) -> Lock:
    return Lock(**{"kind": "wheels", "platform": "linux-64", "python": "3.11.7", "packages": packages, **changes})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lock(package()), []),
        (lock(package(sha256="b")), ["six 1 has another content than the one that was locked"]),
        (lock(package(sha256="b", url="https://index/six.whl")), []),  # one hash is of the archive, one of its record
        (
            lock(package(build="cp311-cp311-linux_x86_64")),
            ["six 1 was locked as py3-none-any, cp311-cp311-linux_x86_64 is there"],
        ),
        (lock(package(build="editable")), ["six was locked as py3-none-any, editable is there"]),
        (lock(package(version="2")), ["six 1 was locked, 2 is there"]),
        (lock(), ["six 1 was locked, and is missing"]),
        (lock(package(), package(name="new")), ["new 1 was not locked"]),
        (lock(package(), python="3.11.8"), ["Python 3.11.7 was locked, 3.11.8 is there"]),
        (lock(package(), platform="linux-aarch64"), ["it was locked for linux-64, not linux-aarch64"]),
    ],
)
def test_a_drift_is_named(found, expected):
    """A sentence for each package that is not what was locked."""
    assert locking.drift(lock(package()), found) == expected


def test_a_requirement_is_asked_of_the_users_index_unless_a_url_was_required():
    """A lock made behind one mirror can be installed behind another."""
    assert installing._requirement(package(url="https://a.mirror/six.whl")) == "six==1 --hash=sha256:a\n"
    assert (
        installing._requirement(package(url="file:///w/six.whl#sha256=a"))
        == "six @ file:///w/six.whl --hash=sha256:a\n"
    )


SPEC = EnvironmentSpec(name="it", packages=("numpy",), blas="mkl", accelerate=("fft", "sklearn"))


@pytest.mark.parametrize(
    ("there", "platform", "expected", "heard"),
    [
        (["numpy"], "linux-64", ["mkl", "mkl_fft", "mkl-service", "scikit-learn-intelex"], []),
        (["numpy", "mkl", "mkl-fft"], "linux-64", ["mkl-service", "scikit-learn-intelex"], []),
        (["numpy"], "linux-aarch64", [], ["linux-aarch64 keeps OpenBLAS: Intel's libraries are for x86-64 alone"]),
        (["click"], "linux-64", [], ["without NumPy there is nothing for MKL to do: it is not added"]),
    ],
)
def test_intels_wheels_are_added_where_they_can_serve(there, platform, expected, heard):
    """With NumPy, on x86-64, and only those that are missing; the reason is said otherwise."""
    told: list[str] = []
    found = [package(name=name) for name in there]
    assert locking.intels(SPEC, found, platform, lambda _, detail: told.append(detail)) == expected
    assert told == heard


@pytest.mark.parametrize(
    ("said", "why", "mend"),
    [
        (
            (
                "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: 1)\n"
                "ERROR: No matching distribution found for x==9\n"
            ),
            (
                "Could not find a version that satisfies the requirement x==9 (from versions: 1)\n"
                "No matching distribution found for x==9"
            ),
            "check the name and the version of x==9",
        ),
        (
            (
                "ERROR: Cannot install a and b==1 because these package versions have conflicting dependencies.\n"
                "ERROR: ResolutionImpossible: for help visit somewhere\n"
            ),
            (
                "Cannot install a and b==1 because these package versions have conflicting dependencies.\n"
                "ResolutionImpossible: for help visit somewhere"
            ),
            "loosen one of the requirements",
        ),
        (
            "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found for x\n",
            "No matching distribution found for x",
            "pip cannot reach its index",
        ),
        (
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
                "    six==1.17.0 from file:///w/six.whl:\n        Expected sha256 aa\n             Got        bb\n"
            ),
            (
                "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
                "six==1.17.0 from file:///w/six.whl:\nExpected sha256 aa\nGot        bb"
            ),
            "the package is not the one that was locked",
        ),
        (
            "  ERROR: Failed building wheel for pyodbc\n",
            "Failed building wheel for pyodbc",
            "there is no wheel of pyodbc",
        ),
        ("no words of pip's own", "no words of pip's own", "run the same with pip"),
    ],
)
def test_what_pip_says_is_told_with_a_cure(said, why, mend):
    """The packages are in the reason, the next step is a command or a setting."""
    error = pip.failure(Completed(("pip",), 1, "", said), "it cannot be solved")
    assert (error.why, error.mend.startswith(mend)) == (why, True)


def test_pip_keeps_the_users_settings_but_for_where_to_install():
    """An index stays; a PYTHONPATH, whose packages would count as installed, and `user = true` do not."""
    mine = {
        "PIP_INDEX_URL": "https://mirror",
        "HTTPS_PROXY": "x",
        "PYTHONPATH": "/p",
        "PIP_TARGET": "/t",
        "PIP_USER": "1",
    }
    assert pip.environment(mine) == {
        "PIP_INDEX_URL": "https://mirror",
        "HTTPS_PROXY": "x",
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
    }


PYLOCK = {
    "plain": {
        "name": "Plain_Tool",
        "version": "1",
        "wheels": [{"url": "https://i/plain_tool-1-py3-none-any.whl", "hashes": {"sha256": "aa"}}],
    },
    "binary": {
        "name": "fast",
        "version": "2",
        "wheels": [
            {"url": "https://i/fast-2-cp312-cp312-manylinux_2_17_x86_64.whl", "hashes": {"sha256": "no"}},
            {"url": "https://i/fast-2-cp311-cp311-manylinux1_x86_64.whl", "hashes": {"sha256": "old"}},
            {
                "url": "https://i/fast-2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                "hashes": {"sha256": "yes"},
            },
            {"url": "https://i/fast-2-cp311-cp311-win_amd64.whl", "hashes": {"sha256": "no"}},
        ],
    },
    "source": {"name": "slow", "version": "3", "sdist": {"url": "https://i/slow-3.tar.gz", "hashes": {"sha256": "ss"}}},
    "archive": {
        "name": "here",
        "version": "4",
        "archive": {"url": "https://x/here-4-py3-none-any.whl", "hashes": {"sha256": "hh"}},
    },
    "other": {
        "name": "win",
        "version": "1",
        "wheels": [{"url": "u/win-1-cp311-cp311-win32.whl", "hashes": {"sha256": "w"}}],
    },
    "repository": {"name": "git", "vcs": {"type": "git", "url": "https://git/x"}},
}
RANK = {
    tag: index
    for index, tag in enumerate(["cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux1_x86_64", "py3-none-any"])
}


class _Base:
    minor, platform = "3.11", "linux-64"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ("plain-tool", "py3-none-any", "aa", "noarch", "https://i/plain_tool-1-py3-none-any.whl")),
        ("source", ("slow", "sdist", "ss", "linux-64", "https://i/slow-3.tar.gz")),
        ("archive", ("here", "py3-none-any", "hh", "noarch", "https://x/here-4-py3-none-any.whl#sha256=hh")),
    ],
)
def test_a_package_of_uv_lock_is_the_file_this_python_would_take(name, expected, tmp_path):
    """Its best wheel, else its source; a URL that was required is told from one of an index."""
    found = pylock._package(PYLOCK[name], tmp_path, _Base, RANK)
    assert (found.name, found.build, found.sha256, found.subdir, found.url) == expected


def test_the_best_of_several_wheels_is_taken(tmp_path):
    """Not another Python's or platform's, and the newer of two that fit."""
    assert pylock._package(PYLOCK["binary"], tmp_path, _Base, RANK).sha256 == "yes"


@pytest.mark.parametrize(
    ("name", "what"), [("other", "win 1 cannot be installed"), ("repository", "git cannot be locked")]
)
def test_what_cannot_be_locked_is_refused_by_name(name, what, tmp_path):
    """No wheel for this platform and no source, or a repository, whose content has no hash."""
    with pytest.raises(ImageError) as caught:
        pylock._package(PYLOCK[name], tmp_path, _Base, RANK)
    assert caught.value.what == what


def test_a_python_that_is_not_here_is_refused_with_the_command_that_brings_it(monkeypatch):
    """Versions that are here are named."""
    monkeypatch.setattr(pythons, "_candidates", lambda _running, _version: [])
    with pytest.raises(SpecError) as caught:
        pythons.find("3.99")
    assert (caught.value.what, caught.value.key) == ("there is no Python 3.99 on this machine", "python")
    assert "`uv python install 3.99`" in caught.value.mend


def test_what_is_no_version_of_python_is_refused():
    """A range says nothing about which Python to pack."""
    with pytest.raises(SpecError, match="there is no Python >=3"):
        pythons.find(">=3")


def test_a_project_without_a_build_system_is_told_to_name_its_modules(tmp_path):
    """Its dependencies are installed; its own modules are no package."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "App"\nversion = "1"\ndependencies = ["six", "click"]\n'
    )
    heard: list[str] = []
    question = locking._of_project(tmp_path, SPEC, lambda _, detail: heard.append(detail))
    assert (question.arguments, question.known) == (("six", "click", "numpy"), ())
    path = tmp_path / "pyproject.toml"
    assert heard == [f"{path} has no [build-system]: modules of app are packed only if `local` names them"]


def test_the_dependencies_of_a_project_are_read_where_they_are_written(tmp_path):
    """Nothing is built to learn them, unless they are worked out by the build."""
    text = (
        '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "Sales"\nversion = "2"\ndependencies = ["six"]\n'
    )
    (tmp_path / "pyproject.toml").write_text(text)
    question = locking._of_project(tmp_path, SPEC, lambda *_: None)
    assert question.arguments == ("six", "numpy")
    assert [(each.name, each.version, each.build, each.url) for each in question.known] == [
        ("sales", "2", "editable", tmp_path.as_uri())
    ]
    (tmp_path / "pyproject.toml").write_text(text.replace("dependencies = ", 'dynamic = ["dependencies"]\nx = '))
    assert locking._of_project(tmp_path, SPEC, lambda *_: None).arguments == ("-e", str(tmp_path), "numpy")
