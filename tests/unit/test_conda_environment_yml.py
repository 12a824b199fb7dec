"""conda's environment.yml, and what a solver is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.environments.conda import Nodes, request
from clusterkit.environments.conda.request import Request
from clusterkit.errors import SpecError
from clusterkit.specs import environment_yml
from clusterkit.specs.environment import EnvironmentSpec

WHOLE = """\
name: science
channels:
  - file:///srv/channel
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - numpy >=2,<3
  - pip:
    - six==1.16.0
    - -r more.txt
variables:
  OMP_NUM_THREADS: 1
prefix: /home/someone/envs/science
"""


@pytest.fixture
def yml(tmp_path):
    def write(text):
        path = tmp_path / "environment.yml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_whole_file(yml, tmp_path: Path):
    """Every key is read, what pip includes stands in its place, and each entry knows its line."""
    (tmp_path / "more.txt").write_text("# what else\nclick>=8  # a comment\n\npackaging \\\n  >=24\n")

    read = environment_yml.load(yml(WHOLE))

    assert read.name == "science"
    assert read.channels == ("file:///srv/channel", "conda-forge")
    assert read.dependencies == ("python=3.11", "numpy >=2,<3")
    assert read.pip == ("six==1.16.0", "click>=8", "packaging    >=24")
    assert read.variables == {"OMP_NUM_THREADS": "1"}
    assert read.place("numpy >=2,<3") == f"{tmp_path / 'environment.yml'}:8"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("name: x\ndependancies: [numpy]\n", 2, "there is no key dependancies; did you mean dependencies?"),
        ("name: x\nname: y\n", 2, "the key name is there twice"),
        ("dependencies:\n  - numpy\n  - npm: [left-pad]\n", 3, "a nested list is for pip alone, not for npm"),
        ("dependencies:\n  numpy: 2\n", 2, "dependencies is not a list"),
        ("dependencies:\n  - numpy\n  -\n", 3, "a dependency is not text"),
        ("dependencies:\n  - pip:\n    - -e ./mine\n", 3, "./mine is editable: code that is edited is no package"),
        (
            "dependencies:\n  - pip:\n    - --editable=./mine\n",
            3,
            "./mine is editable: code that is edited is no package",
        ),
        ("dependencies:\n  - pip:\n    - .\n", 3, ". is a folder, whose content has no version"),
        ("dependencies:\n  - pip:\n    - -c no.txt\n", 3, "{folder}/no.txt does not exist"),
        ("variables:\n  a-b: 1\n", 2, "'a-b' is no name for a variable"),
        ("channels: [a\n", 2, "it is not YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(yml, text, line, why):
    """A key or entry that cannot be used is refused where it stands."""
    path = yml(text)
    with pytest.raises(SpecError) as raised:
        environment_yml.load(path)
    assert raised.value.place == f"{path}:{line}"
    assert raised.value.why == f"{why.format(folder=path.parent)} ({path}:{line})"


def test_what_pip_is_told_besides(yml, tmp_path: Path):
    """Files and folders that pip shall use are found from wherever pip is called; its other options are its own."""
    (tmp_path / "limits.txt").touch()
    (tmp_path / "mine-1-py3-none-any.whl").touch()
    (tmp_path / "wheels").mkdir()
    pip = "[-c limits.txt, --find-links=wheels, ./mine-1-py3-none-any.whl, --no-binary six]"
    read = environment_yml.load(yml(f"dependencies: [{{pip: {pip}}}]\n"))
    assert read.pip == (
        f"-c {tmp_path}/limits.txt",
        f"-f {tmp_path}/wheels",
        f"{tmp_path}/mine-1-py3-none-any.whl",
        "--no-binary six",
    )


def test_a_file_that_pip_shall_read_is_missing(yml, tmp_path: Path):
    """A missing file of requirements is refused where it is named."""
    with pytest.raises(SpecError, match=r"more\.txt, which pip shall read, cannot be read") as raised:
        environment_yml.load(yml(WHOLE))
    assert raised.value.place == f"{tmp_path / 'environment.yml'}:11"


@pytest.mark.parametrize("text", ["", "- numpy\n", "numpy\n"])
def test_no_table(yml, text):
    """A file that is no table says what one holds."""
    with pytest.raises(SpecError) as raised:
        environment_yml.load(yml(text))
    assert raised.value.why.startswith("it is not a table of name, channels and dependencies")


def test_mkl_is_a_constraint_and_no_package(yml):
    """`blas: mkl` holds for a BLAS that something brings in, and brings none in itself."""
    spec = EnvironmentSpec(name="x", source=yml("dependencies: [numpy]\n"), blas="mkl", packages=("scipy",))

    asked = Request.of(spec, Nodes())

    assert asked.channels == ("conda-forge",)
    assert asked.specs == ("numpy", "scipy", "python")
    assert asked.constraints == ("libblas * *mkl", "blas * *mkl")


def test_no_mkl_on_arm(yml):
    """There is no MKL for aarch64, so OpenBLAS is asked for."""
    spec = EnvironmentSpec(name="x", source=yml("dependencies: [numpy]\n"), blas="mkl", accelerate=("fft",))

    asked = Request.of(spec, Nodes(platform="linux-aarch64"))

    assert (asked.specs, asked.constraints) == (("numpy", "python"), ("libblas * *openblas", "blas * *openblas"))


def test_python_pip_and_accelerations_are_added(yml):
    """The Python asked for, pip where it has work, and what accelerates are packages of the environment."""
    spec = EnvironmentSpec(
        name="x",
        source=yml("dependencies: [{pip: [six]}]\nchannels: [b]\n"),
        channels=("a", "b"),
        python="3.12",
        accelerate=("fft", "sklearn"),
    )

    asked = Request.of(spec, Nodes())

    assert asked.channels == ("a", "b")
    assert asked.specs == ("python 3.12.*", "pip", "mkl_fft", "scikit-learn-intelex")


def test_a_request_is_another_one_when_anything_of_it_changes(yml, tmp_path: Path):
    """The digest follows the request, the nodes and the files it includes; where they lie is of no account."""
    limits = tmp_path / "limits.txt"
    limits.write_text("six<2\n")
    path = yml("dependencies: [numpy, {pip: [six, -c limits.txt]}]\n")
    first = request(EnvironmentSpec(name="x", source=path))

    assert request(EnvironmentSpec(name="y", source=path)) == first
    others = [
        request(EnvironmentSpec(name="x", source=path, blas="openblas")),
        request(EnvironmentSpec(name="x", source=path, python="3.12")),
        request(EnvironmentSpec(name="x", source=path), Nodes(glibc="2.17")),
    ]
    limits.write_text("six<1.17\n")
    others.append(request(EnvironmentSpec(name="x", source=path)))
    assert len({first, *others}) == 5


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        ("https://me:secret123@host.example/channel", "https://host.example/channel"),
        ("https://host.example/t/secret123/channel", "https://host.example/channel"),
    ],
)
def test_a_secret_in_a_channel_is_refused(yml, channel, shown):
    """A password in a URL would be in every lock: it is refused where it stands, and not printed."""
    path = yml(f"channels:\n  - {channel}\ndependencies: [numpy]\n")
    with pytest.raises(SpecError) as raised:
        request(EnvironmentSpec(name="x", source=path))
    assert raised.value.what == f"the channel {shown} cannot be used as it is written"
    assert raised.value.place == f"{path}:2"
    assert "secret123" not in str(raised.value)


def test_the_example_is_solved_from_conda_forge_with_mkl():
    """The example names conda-forge alone, and pins MKL as conda-forge documents it."""
    example = Path(__file__).parents[2] / "examples" / "environment.yml"
    asked = Request.of(EnvironmentSpec(name="x", source=example), Nodes())
    assert asked.channels == ("conda-forge",)
    assert {"numpy>=2", "scipy", "numba", "scikit-learn", "libblas=*=*mkl"} < set(asked.specs)
    assert asked.pip == ()


def test_nodes_are_what_the_solver_is_told():
    """The virtual packages are those of the nodes, whatever this machine is."""
    nodes = Nodes(glibc="2.17", cpu="x86_64_v3")
    assert nodes.virtual_packages == (
        ("__unix", "0", "0"),
        ("__linux", "4.18", "0"),
        ("__glibc", "2.17", "0"),
        ("__archspec", "1", "x86_64_v3"),
    )
