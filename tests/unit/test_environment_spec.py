from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.errors import SpecError
from clusterkit.specs import codec
from clusterkit.specs.environment import EnvironmentSpec


def made(root: Path, kind: str) -> Path:
    path = root / "my project"
    path.mkdir()
    marks = {"prefix": "conda-meta/history", "venv": "pyvenv.cfg", "project": "pyproject.toml"}
    if kind in marks:
        (path / marks[kind]).parent.mkdir(exist_ok=True)
        (path / marks[kind]).touch()
        return path
    file = path / {"environment.yml": "environment.yml", "requirements": "requirements.txt"}[kind]
    file.write_text("dependencies: [python]\n")
    return file


@pytest.mark.parametrize("kind", ["prefix", "venv", "project", "environment.yml", "requirements"])
def test_a_source_is_known_by_what_it_is(tmp_path, kind):
    """Directories by what they hold, files by their names."""
    spec = EnvironmentSpec.find(str(made(tmp_path, kind)), {}, Path("/"))

    assert spec.kind == kind


def test_without_a_source_it_is_the_running_interpreter_or_the_packages():
    """No source means this Python; packages alone are an environment too."""
    assert EnvironmentSpec(name="x").kind == "interpreter"
    assert EnvironmentSpec(name="x", packages=("numpy",)).kind == "packages"


def test_a_name_in_the_settings_wins(tmp_path):
    """A word that settings know is that environment, whatever lies beside."""
    named = {"analysis": EnvironmentSpec(name="analysis", packages=("numpy",))}
    (tmp_path / "analysis").mkdir()

    assert EnvironmentSpec.find("analysis", named, tmp_path) is named["analysis"]


def test_a_word_that_means_nothing_is_refused_with_the_nearest(tmp_path):
    """What settings know is listed, and the nearest is offered."""
    named = {"analysis": EnvironmentSpec(name="analysis")}

    with pytest.raises(SpecError) as caught:
        EnvironmentSpec.find("analysys", named, tmp_path)

    assert str(caught.value) == (
        "there is no environment analysys\n"
        f"  Why:  there is no file or directory {tmp_path}/analysys, "
        "and settings know analysis; did you mean analysis?\n"
        "  Mend: add [environments.analysys] to clusterkit.toml, or name a path"
    )


def test_a_specification_of_its_own_file_starts_its_paths_there(tmp_path):
    """A YAML file without `dependencies` is ours; its paths start from its directory."""
    path = tmp_path / "analysis.yaml"
    path.write_text("name: analysis\nsource: requirements.txt\nblas: mkl\nlocal: [src]\n")

    assert EnvironmentSpec.find("analysis.yaml", {}, tmp_path) == EnvironmentSpec(
        name="analysis", source=tmp_path / "requirements.txt", blas="mkl", local=(tmp_path / "src",)
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/u/analysis/environment.yml", "analysis"),
        ("/home/u/analysis/.venv", "analysis"),
        ("/home/u/analysis/genes.yml", "genes"),
        ("/opt/conda/envs/ml", "ml"),
    ],
)
def test_a_path_names_the_environment(path, name):
    """By the directory where the file's own name says nothing."""
    from clusterkit.specs.environment import _name_of

    assert _name_of(Path(path)) == name


def test_hostile_paths_get_a_plain_name_of_their_own():
    """Two paths with the same letters left are two environments."""
    from clusterkit.specs.environment import _name_of

    first, second = _name_of(Path("/tmp/é; rm -rf")), _name_of(Path("/tmp/ü; rm -rf"))
    assert first != second
    assert EnvironmentSpec(name=first).name == first


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda root: root / "nothing.txt", "nothing.txt does not exist"),
        (lambda root: root, "it holds neither conda-meta, nor pyvenv.cfg, nor pyproject.toml"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, make, why):
    """A missing file and a plain directory are told as what they are."""
    with pytest.raises(SpecError) as caught:
        _ = EnvironmentSpec(name="x", source=make(tmp_path)).kind

    assert why in caught.value.why


def test_round_trip():
    """It reads back from every form it is written in."""
    spec = EnvironmentSpec(name="x", source=Path("/a/b"), blas="auto", accelerate=("fft",), java=True)

    assert codec.from_json(EnvironmentSpec, codec.to_json(spec)) == spec
    assert codec.from_toml(EnvironmentSpec, codec.to_toml(spec)) == spec
    assert codec.from_yaml(EnvironmentSpec, codec.to_yaml(spec)) == spec


def test_a_name_is_one_part_of_a_path():
    """It becomes a file's name on HDFS."""
    with pytest.raises(SpecError):
        EnvironmentSpec(name="a/b")
