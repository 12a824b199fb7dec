"""The codec: what is written is read back the same, and what is not known is refused with its place."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.errors import SpecError
from clusterkit.specs import codec
from clusterkit.specs.cluster import ClusterSpec
from clusterkit.specs.job import JobSpec
from clusterkit.specs.resources import Resources

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAME = st.text(string.ascii_letters + "_", min_size=1)
PATH = st.builds(Path, st.just("/"), TEXT)
COUNT = st.none() | st.integers(1, 10**9)
HEAP = st.none() | st.integers(450, 10**9)
LIST = st.lists(TEXT, max_size=3).map(tuple)

JOBS = st.builds(
    JobSpec,
    job=PATH,
    name=TEXT,
    args=LIST,
    deploy_mode=st.sampled_from(["client", "cluster"]),
    queue=NAME,
    executor=st.builds(Resources, count=COUNT, memory_mib=HEAP, cores=COUNT),
    driver_memory_mib=HEAP,
    dynamic_allocation=st.none() | st.booleans(),
    conf=st.dictionaries(TEXT, TEXT, max_size=3),
    properties_file=st.none() | PATH,
    py_files=LIST,
    files=LIST,
    packages=st.lists(st.just("org.example:thing_2.13:1.0"), max_size=2).map(tuple),
    env_vars=st.dictionaries(NAME, TEXT, max_size=3),
)


@pytest.mark.parametrize(
    ("write", "read"),
    [(codec.to_json, codec.from_json), (codec.to_toml, codec.from_toml), (codec.to_yaml, codec.from_yaml)],
    ids=["json", "toml", "yaml"],
)
@given(spec=JOBS)
def test_round_trip(write: Any, read: Any, spec: JobSpec) -> None:
    """Whatever a job holds, text and back gives the same job."""
    assert read(JobSpec, write(spec)) == spec


@pytest.mark.parametrize("spec", [ClusterSpec(), ClusterSpec(name="big", nodes=4, queues={"a": 30, "b": 70}, ha=True)])
def test_clusters_round_trip(spec: ClusterSpec) -> None:
    """The same codec serves every specification."""
    for write, read in (
        (codec.to_json, codec.from_json),
        (codec.to_toml, codec.from_toml),
        (codec.to_yaml, codec.from_yaml),
    ):
        assert read(ClusterSpec, write(spec)) == spec


SPEC = JobSpec(
    job=Path("/d/job.py"), name="n", executor=Resources(count=2, memory_mib=1024), conf={"spark.a": "1"}, files=("/x",)
)


def test_what_is_written_is_what_was_asked_for() -> None:
    """Defaults are left out, so a specification stays as short as the request."""
    assert codec.to_mapping(SPEC) == {
        "job": "/d/job.py",
        "name": "n",
        "executor": {"count": 2, "memory_mib": 1024},
        "conf": {"spark.a": "1"},
        "files": ["/x"],
    }
    assert codec.to_mapping(JobSpec(job=Path("/j.py"), name="n")) == {"job": "/j.py", "name": "n"}


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml"])
def test_load_reads_by_suffix(suffix: str, hostile: Path) -> None:
    """A file is read as what its name says, wherever it stands."""
    write = {".json": codec.to_json, ".toml": codec.to_toml}.get(suffix, codec.to_yaml)
    path = hostile / f"job{suffix}"
    path.write_text(write(SPEC), encoding="utf-8")
    assert codec.load(JobSpec, path) == SPEC


@pytest.mark.parametrize(
    ("tree", "why", "key"),
    [
        ({"nmae": "x"}, "there is no key nmae; did you mean name?", "nmae"),
        (
            {"executor": {"memroy_mib": 1}},
            "there is no key memroy_mib; did you mean memory_mib?",
            "executor.memroy_mib",
        ),
        ({"zzz": 1}, "there is no key zzz", "zzz"),
        ({3: 1}, "there is no key 3", "3"),
        ({"job": "/j.py"}, "Object missing required field `name`", None),
        ({"job": 3, "name": "n"}, "Expected `str`, got `int`", "job"),
        (
            {"job": "/j.py", "name": "n", "executor": {"count": "2"}},
            "Expected `int | null`, got `str`",
            "executor.count",
        ),
        ({"job": "/j.py", "name": "n", "deploy_mode": "local"}, "Invalid enum value 'local'", "deploy_mode"),
        ([], "it is not a table", None),
    ],
)
def test_what_does_not_fit_is_refused(tree: Any, why: str, key: str | None) -> None:
    """An unknown key, a missing one and a wrong type are refused with the key and the file."""
    with pytest.raises(SpecError) as caught:
        codec.from_mapping(JobSpec, tree, place="job.yaml")
    place = f"job.yaml, at {key}" if key else "job.yaml"
    assert str(caught.value) == f"job.yaml is not a JobSpec\n  Why:  {why} ({place})\n  Mend: correct job.yaml"
    assert (caught.value.key, caught.value.place) == (key, place)


def test_check_of_a_value_keeps_its_own_words() -> None:
    """A value that has the right type and the wrong size is refused as it is anywhere else."""
    with pytest.raises(SpecError, match=r"executor\.memory of 1 MiB is too small"):
        codec.from_mapping(JobSpec, {"job": "/j.py", "name": "n", "executor": {"memory_mib": 1}})


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (codec.from_json, "{", "it is not JSON: Expecting property name"),
        (codec.from_toml, "a = ", "it is not TOML: Invalid value"),
        (codec.from_yaml, "a: [", "it is not YAML: while parsing a flow node"),
        (codec.from_yaml, "!!python/object/apply:os.system [ls]", "it is not YAML: could not determine a constructor"),
        (codec.from_yaml, "", "it is not a table"),
    ],
)
def test_what_is_no_text_of_the_format_is_refused(read: Any, text: str, why: str) -> None:
    """Malformed text is an error of the request, in one line, and YAML never runs code."""
    with pytest.raises(SpecError) as caught:
        read(JobSpec, text)
    assert caught.value.why.startswith(why)
    assert "\n" not in caught.value.why


def test_load_says_what_it_could_not_read(tmp_path: Path) -> None:
    """A file that is missing, of another kind or no text is named."""
    (tmp_path / "a.json").write_bytes(b"\xff")
    found = {}
    for name in ("no.json", "job.ini", "a.json"):
        with pytest.raises(SpecError) as caught:
            codec.load(JobSpec, tmp_path / name)
        found[name] = caught.value.why
    where = f"({tmp_path}/"
    assert found["no.json"] == f"No such file or directory {where}no.json)"
    assert found["job.ini"] == f"its name ends in none of .json, .toml, .yaml, .yml {where}job.ini)"
    assert found["a.json"].startswith("'utf-8' codec can't decode byte 0xff")


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    table: dict[str, _Inner] = {}
    listed: tuple[_Inner, ...] = ()
    maybe: _Inner | None = None


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"table": {"siz": {"siz": 1}}}, "table.siz.siz"),
        ({"listed": [{"size": 1}, {"siz": 1}]}, "listed.1.siz"),
        ({"maybe": {"siz": 1}}, "maybe.siz"),
    ],
)
def test_unknown_keys_are_found_at_any_depth(tree: Any, key: str) -> None:
    """Tables of specifications, lists of them and optional ones are searched; the user's own names are let be."""
    with pytest.raises(SpecError) as caught:
        codec.from_mapping(_Outer, tree)
    assert (caught.value.key, caught.value.why) == (key, f"there is no key siz; did you mean size? (at {key})")
