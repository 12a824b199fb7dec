"""The user's own code: what of a folder is packed, and what editable installs mean."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments import code
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from clusterkit.environments.tree import Code


def filled(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def paths(found: Code) -> list[str]:
    return [file.path for file in found.files]


PACKAGE = {
    "sales/__init__.py": "",
    "sales/model.py": "x = 1\n",
    "sales/words.txt": "well met\n",
    "sales/py.typed": "",
    "sales/__pycache__/model.cpython-311.pyc": "",
    "sales/.secrets": "password",
    "sales/.ipynb_checkpoints/model.py": "",
    "sales/cache/big.parquet": "x",
    "sales/cache/kept.csv": "y",
    "sales/deep/.gitignore": "*.log\n!kept.log\n",
    "sales/deep/a.log": "",
    "sales/deep/kept.log": "",
    "sales/deep/b.py": "",
    ".gitignore": "*.parquet\n/sales/local.py\n",
    "sales/local.py": "",
    "pyproject.toml": "[project]\nname='sales'\n",
    "setup.py": "",
    "conftest.py": "",
    "tests/__init__.py": "",
    "tests/test_sales.py": "",
    "scripts/run.py": "",
}
PACKED = [
    "sales/__init__.py",
    "sales/cache/kept.csv",
    "sales/deep/b.py",
    "sales/deep/kept.log",
    "sales/model.py",
    "sales/py.typed",
    "sales/words.txt",
]


@pytest.mark.parametrize("is_known_to_git", [True, False])
def test_a_package_is_its_python_files_and_its_data(tmp_path, is_known_to_git):
    """The same with git and without: no byte code, nothing hidden, nothing that a .gitignore at any level names."""
    filled(tmp_path, PACKAGE)
    if is_known_to_git:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # noqa: S607 - the user's git
    found = code.folder(tmp_path / "sales")
    assert (found.name, paths(found)) == ("sales", PACKED)


def test_a_projects_packages_are_what_its_editable_install_imports(tmp_path):
    """Not its tests, its setup.py or its scripts."""
    assert [(each.name, paths(each)) for each in code.local(filled(tmp_path, PACKAGE))] == [("sales", PACKED)]


def test_a_project_with_src_is_looked_for_there(tmp_path):
    """A module beside the packages belongs to a `Code` of its own, named after the project."""
    root = filled(
        tmp_path / "my-project", {"pyproject.toml": "", "src/a/__init__.py": "", "src/b.py": "", "setup.py": ""}
    )
    found = [(each.name, paths(each)) for each in code.local(root)]
    assert found == [("a", ["a/__init__.py"]), ("my-project", ["b.py"])]


def test_a_folder_of_a_job_stands_on_the_import_path_itself(tmp_path):
    """Virtual environments and node_modules in it are no code."""
    files = {
        "job.py": "",
        "lib/__init__.py": "",
        ".venv/x.py": "",
        "env/pyvenv.cfg": "",
        "env/lib/y.py": "",
        "node_modules/z.js": "",
    }
    root = filled(tmp_path / "my job", files)
    assert (code.folder(root).name, paths(code.folder(root))) == ("my job", ["job.py", "lib/__init__.py"])


def test_a_module_is_code_by_itself(tmp_path):
    """`local: [helper.py]` is imported as `helper`."""
    path = tmp_path / "helper.py"
    path.write_text("")
    (found,) = code.local(path)
    assert (found.name, paths(found)) == ("helper", ["helper.py"])


def test_what_a_build_leaves_in_a_package_is_packed_although_git_ignores_it(tmp_path):
    """Without it the package would import here and not on a node."""
    built = ["_version.py", "core.cpython-311-x86_64-linux-gnu.so", "rows_pb2.py"]
    ignored = "*.so\n_version.py\n*_pb2.py\nlocal.py\n"
    filled(tmp_path / "fast", {"__init__.py": "", "local.py": "", ".gitignore": ignored} | dict.fromkeys(built, ""))
    assert paths(code.folder(tmp_path / "fast")) == ["fast/__init__.py", *(f"fast/{name}" for name in built)]


def test_a_folder_that_is_ignored_as_a_whole_is_packed_if_it_is_named(tmp_path):
    """Setuptools' strict mode installs a folder of links below `build`, which no repository keeps."""
    files = {".gitignore": "build/\n", "pyproject.toml": "", "code/a.py": "x = 1\n"}
    project = filled(tmp_path / "p", files)
    links = project / "build/__editable__.p/p"
    links.mkdir(parents=True)
    (links / "__init__.py").symlink_to(project / "code/a.py")
    packages = site(tmp_path / "venv", project, {"__editable__.p.pth": f"{links.parent}\n"})
    found = code.editables(packages, tmp_path / "venv")
    assert [(each.name, [(file.path, file.read()) for file in each.files]) for each in found.code] == [
        ("p", [("p/__init__.py", b"x = 1\n")])
    ]


def test_a_repository_in_a_package_is_part_of_it(tmp_path):
    """Git names a submodule or a clone by its folder alone."""
    inner = {"vendored/__init__.py": "", "vendored/.gitignore": "*.log", "vendored/x.log": ""}
    root = filled(tmp_path / "p", {"__init__.py": "", "env/conda-meta/x.json": "", "env/x.py": "", **inner})
    for repository in (root, root / "vendored"):
        subprocess.run(["git", "init", "-q", str(repository)], check=True)  # noqa: S607 - the user's git
    assert paths(code.folder(root)) == ["p/__init__.py", "p/vendored/__init__.py"]


def test_a_home_directory_is_no_folder_of_code(tmp_path, monkeypatch):
    """It is refused before all of it was looked through."""
    monkeypatch.setattr(code, "_TOO_MANY", 2)
    filled(tmp_path / "home", {"job.py": "", "a": "", "b": ""})
    with pytest.raises(ImageError) as caught:
        code.folder(tmp_path / "home")
    assert caught.value.why == "it holds more than 2 files"


def test_a_folder_over_the_limit_is_refused_with_its_largest_files(tmp_path, monkeypatch):
    """The message names what to move, so that it can be moved."""
    monkeypatch.setattr(code, "LIMIT_BYTES", 1024**2)
    root = filled(tmp_path / "model", {"__init__.py": "", "weights.bin": "x" * 1024**2, "more/other.bin": "x" * 2**19})
    with pytest.raises(ImageError) as caught:
        code.folder(root)
    assert caught.value.what == f"the code in {root} is too large to be packed"
    assert caught.value.why == (
        "it holds 1.5 MB, and the limit is 1.0 MB; largest: model/weights.bin (1.0 MB), model/more/other.bin (0.5 MB), "
        "model/__init__.py (0.0 MB)"
    )


@pytest.mark.parametrize("make", [lambda path: None, lambda path: filled(path, {"notes.txt": ""})])
def test_a_path_without_code_is_refused(tmp_path, make):
    """A missing folder and one without a Python file."""
    make(tmp_path / "there")
    with pytest.raises(ImageError, match=r"the code in .*there cannot be packed"):
        code.local(tmp_path / "there")


def site(root: Path, project: Path, files: dict[str, str]) -> Path:
    """Write a site-packages directory with one editable distribution."""
    info = "sales_kit-0.2.dist-info"
    told = json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}})
    return filled(root / "lib/python3.11/site-packages", {f"{info}/direct_url.json": told, **files})


FINDER = """\
from __future__ import annotations
import sys
MAPPING: dict[str, str] = {mapping!r}
NAMESPACES: dict[str, list[str]] = {{}}
PATH_PLACEHOLDER = '__editable__.sales-0.2.finder' + ".__path_hook__"
"""


def test_a_path_in_a_pth_file_is_the_code_below_it(tmp_path):
    """As hatchling, flit, poetry and setuptools' simple mode install: the line goes, the packages are code."""
    project = filled(tmp_path / "a project", PACKAGE)
    packages = site(tmp_path / "venv", project, {"_sales.pth": f"{project}\n"})
    found = code.editables(packages, tmp_path / "venv")
    assert [(each.name, paths(each)) for each in found.code] == [("sales", PACKED)]
    assert (found.replaced, found.projects) == ({"_sales.pth": None}, {"sales-kit": project})


def test_setuptools_finder_maps_packages_modules_and_parts_of_namespaces(tmp_path):
    """The finder and its .pth file go, and names in a namespace keep their place."""
    project = filled(
        tmp_path / "p",
        {"code/sales/__init__.py": "", "code/one.py": "", "code/part/__init__.py": "", "code/part/x.py": ""},
    )
    finder = "__editable___sales_0_2_finder"
    mapping = {
        "sales": str(project / "code/sales"),
        "one": str(project / "code/one"),
        "company.part": str(project / "code/part"),
    }
    packages = site(
        tmp_path / "venv",
        project,
        {
            "__editable__.sales-0.2.pth": f"import {finder}; {finder}.install()\n",
            f"{finder}.py": FINDER.format(mapping=mapping),
        },
    )
    found = code.editables(packages, tmp_path / "venv")
    assert {each.name: paths(each) for each in found.code} == {
        "company": ["company/part/__init__.py", "company/part/x.py"],
        "one": ["one.py"],
        "sales": ["sales/__init__.py"],
    }
    assert found.replaced == {"__editable__.sales-0.2.pth": None, f"{finder}.py": None}


def test_the_redirector_of_the_editables_library_is_understood(tmp_path):
    """As hatchling and pdm install a package whose folder has another name."""
    project = filled(tmp_path / "p", {"lib/__init__.py": "", "lib/x.py": ""})
    redirector = (
        "from editables.redirector import RedirectingFinder as F\nF.install()\n"
        f"F.map_module('sales', {str(project / 'lib/__init__.py')!r})\n"
    )
    packages = site(
        tmp_path / "venv",
        project,
        {"_editable_impl_sales.pth": "import _editable_impl_sales", "_editable_impl_sales.py": redirector},
    )
    found = code.editables(packages, tmp_path / "venv")
    assert {each.name: paths(each) for each in found.code} == {"sales": ["sales/__init__.py", "sales/x.py"]}


def test_a_develop_install_is_code_too(tmp_path):
    """`setup.py develop` left an egg-link and a line in easy-install.pth; the other lines of that file stay."""
    project = filled(tmp_path / "p", {"setup.py": "", "sales/__init__.py": ""})
    packages = filled(
        tmp_path / "venv/lib/python3.11/site-packages",
        {"sales.egg-link": f"{project}\n.\n", "easy-install.pth": f"./other.egg\n{project}\n", "other.egg/x.py": ""},
    )
    found = code.editables(packages, tmp_path / "venv")
    assert {each.name: paths(each) for each in found.code} == {"sales": ["sales/__init__.py"]}
    assert found.replaced == {"easy-install.pth": b"other.egg\n", "sales.egg-link": None}
    assert found.projects == {"sales": project}


def test_lines_of_code_and_paths_inside_of_the_environment_stay(tmp_path):
    """Only what names a folder elsewhere is taken out; a folder that does not exist is told of."""
    heard = []
    line = "import os; var = 'SETUPTOOLS_USE_DISTUTILS'"
    inside = tmp_path / "venv/lib/python3.11/site-packages/vendored"
    packages = filled(
        inside.parent,
        {"vendored/x.py": "", "distutils.pth": line, "mixed.pth": f"# comment\n{inside}\n/gone/away\n{line}\n"},
    )
    found = code.editables(packages, tmp_path / "venv", said=lambda stage, detail: heard.append((stage, detail)))
    assert (found.code, found.replaced) == ((), {"mixed.pth": f"vendored\n{line}\n".encode()})
    assert heard == [("reading", "mixed.pth names /gone/away, which does not exist: left out")]


def test_an_editable_install_that_builds_at_import_is_refused_by_name(tmp_path):
    """Meson and scikit-build do; the cure is a plain install."""
    packages = site(
        tmp_path / "venv",
        tmp_path,
        {"sales-editable.pth": "import _sales_editable_loader", "_sales_editable_loader.py": "def install(): ...\n"},
    )
    with pytest.raises(ImageError) as caught:
        code.editables(packages, tmp_path / "venv")
    assert caught.value.what == "the editable install sales-editable cannot be packed"
    assert caught.value.mend == "install the package as it is: `pip install .` in its folder, without -e"


def test_an_edited_line_changes_one_code_only(tmp_path):
    """Each package stands by itself, so that an edit ships that package and no other."""
    project = filled(tmp_path / "p", {"pyproject.toml": "", "a/__init__.py": "", "b/__init__.py": ""})
    before = {each.name: [file.read() for file in each.files] for each in code.local(project)}
    (project / "a/__init__.py").write_text("x = 1\n")
    after = {each.name: [file.read() for file in each.files] for each in code.local(project)}
    assert {name for name in before if before[name] != after[name]} == {"a"}
