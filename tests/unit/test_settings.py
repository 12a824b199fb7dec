"""Settings: which layer wins, where each value comes from, and what is said about a mistake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit import settings
from clusterkit.errors import SettingsError
from clusterkit.settings import Origin, files
from clusterkit.settings.table import BY_KEY, SPARK_KEYS, TABLE
from clusterkit.specs.environment import EnvironmentSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def user_file() -> Path:
    return Path.home() / ".config" / "clusterkit" / "clusterkit.toml"


def refused(
    *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, **keywords: object
) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings.load(flags, keywords=keywords, environ=environ or {})
    return caught.value


def refused_file(project: Path, text: str) -> tuple[str, str, str]:
    written(project / "clusterkit.toml", text)
    error = refused()
    return error.what, error.why, error.mend


def test_defaults(project: Path) -> None:
    """Without any layer every key has its default, and directories of its own for this user."""
    loaded = settings.load(environ={})
    home = Path.home()
    assert {leaf.key: leaf.value for leaf in loaded.leaves if leaf.value not in (None, ())} == {
        "deploy_mode": "client",
        "queue": "default",
        "hdfs_root": "/clusterkit",
        "transport": "auto",
        "node_cache": "/var/tmp/clusterkit",
        "cache_dir": home / ".cache" / "clusterkit",
        "data_dir": home / ".local" / "share" / "clusterkit",
    }
    assert {leaf.origin for leaf in loaded.leaves} == {Origin("default")}
    assert (loaded.executor.memory, loaded.spark.conf, loaded.clusters, loaded.files) == (None, {}, {}, ())


def test_each_layer_beats_the_one_below(project: Path) -> None:
    """Flags beat variables, which beat the nearest file upward, the user's file, the system's file and the default."""
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    seen = [settings.load(environ={}, directory=deep)]
    for path, queue in ((files.SYSTEM_FILE, "system"), (user_file(), "user"), (project / "clusterkit.toml", "project")):
        written(path, f'# a comment\nqueue = "{queue}"\n')
        seen.append(settings.load(environ={}, directory=deep))
    environ = {"CLUSTERKIT_QUEUE": "variable"}
    seen.append(settings.load(environ=environ, directory=deep))
    seen.append(settings.load(environ=environ, keywords={"queue": "keyword"}, directory=deep))
    seen.append(settings.load({"queue": "flag"}, environ=environ, directory=deep))
    assert [(each.queue, str(each.origin("queue"))) for each in seen] == [
        ("default", "default"),
        ("system", f"{files.SYSTEM_FILE}:2"),
        ("user", f"{user_file()}:2"),
        ("project", "../../clusterkit.toml:2"),
        ("variable", "CLUSTERKIT_QUEUE"),
        ("keyword", "queue="),
        ("flag", "flag --queue"),
    ]


def test_nearest_file_upward_is_the_only_project_file(project: Path) -> None:
    """A file further up is not read when there is a nearer one."""
    written(project / "clusterkit.toml", 'queue = "far"\nname = "far"\n')
    written(project / "a" / "clusterkit.toml", 'queue = "near"\n')
    loaded = settings.load(environ={}, directory=project / "a")
    assert (loaded.queue, loaded.name, str(loaded.origin("queue"))) == ("near", None, "clusterkit.toml:1")


def test_user_file_is_read_once(project: Path) -> None:
    """In the directory of the user's file, that file is the user's layer and no project's."""
    written(user_file(), 'queue = "user"\n')
    loaded = settings.load(environ={}, directory=user_file().parent)
    assert loaded.origin("queue") == Origin("user file", "clusterkit.toml:1")


def test_tables_merge_and_lists_replace(project: Path) -> None:
    """A table's entries come from all layers, each with its origin; a list is taken whole from the highest."""
    written(user_file(), 'files = ["/a", "/b"]\n[spark.conf]\n"spark.a" = "user"\n"spark.b" = "user"\n')
    written(project / "clusterkit.toml", 'files = ["/c"]\n[spark.conf]\n"spark.b" = "project"\n')
    loaded = settings.load({"spark.conf": ("spark.c=flag=1",)}, environ={})
    assert loaded.files == ("/c",)
    assert loaded.spark.conf == {"spark.a": "user", "spark.b": "project", "spark.c": "flag=1"}
    assert [str(loaded.origin(f"spark.conf.spark.{name}")) for name in "abc"] == [
        f"{user_file()}:3",
        "clusterkit.toml:3",
        "flag --conf",
    ]
    assert str(loaded.origin("spark.conf")) == "flag --conf"


def test_every_kind_has_four_spellings(project: Path) -> None:
    """One key is read from TOML, a variable, a flag and a keyword, each in its own way."""
    toml = """
executor = { memory = "4 GiB", cores = 2 }
dynamic_allocation = true
java_home = "jdk"
py_files = ["a.py", "hdfs:///b.py"]
packages = ["g:a:1"]
env_vars = { A = "x y", N = 3 }
"""
    written(project / "clusterkit.toml", toml)
    variables = {
        "CLUSTERKIT_EXECUTOR_MEMORY": "4g",
        "CLUSTERKIT_EXECUTOR_CORES": "2",
        "CLUSTERKIT_DYNAMIC_ALLOCATION": "true",
        "CLUSTERKIT_JAVA_HOME": "jdk",
        "CLUSTERKIT_PY_FILES": "a.py,hdfs:///b.py",
        "CLUSTERKIT_PACKAGES": "g:a:1",
        "CLUSTERKIT_ENV_VARS": "'A=x y' N=3",
    }
    flags = {
        "executor.memory": "4096",
        "executor.cores": "2",
        "dynamic_allocation": True,
        "java_home": "jdk",
        "py_files": ("a.py", "hdfs:///b.py"),
        "packages": ("g:a:1",),
        "env_vars": ("A=x y", "N=3"),
    }
    keywords = {
        "executor_memory": 4096,
        "executor_cores": 2,
        "dynamic_allocation": True,
        "java_home": Path("jdk"),
        "py_files": ["a.py", "hdfs:///b.py"],
        "packages": ["g:a:1"],
        "env_vars": {"A": "x y", "N": 3},
    }
    loaded = [settings.load(environ={})]
    (project / "clusterkit.toml").unlink()
    loaded += [settings.load(environ=variables), settings.load(flags, environ={})]
    loaded += [settings.load(keywords=keywords, environ={})]
    for each in loaded:
        assert (each.executor.memory, each.executor.cores, each.dynamic_allocation) == (4096, 2, True)
        assert (each.java_home, each.py_files) == (project / "jdk", (str(project / "a.py"), "hdfs:///b.py"))
        assert (each.packages, each.env_vars) == (("g:a:1",), {"A": "x y", "N": "3"})


def test_paths_in_a_file_start_from_it(project: Path) -> None:
    """A relative path in a file is meant from that file's directory, in a variable from the working directory."""
    written(project / "clusterkit.toml", 'files = ["x.csv"]\nkeytab = "~/k"\n[clusters.prod]\nconf_dir = "conf"\n')
    deep = project / "a"
    deep.mkdir()
    loaded = settings.load(environ={"CLUSTERKIT_JARS": "x.jar"}, directory=deep)
    assert loaded.files == (str(project / "x.csv"),)
    assert loaded.jars == (str(deep / "x.jar"),)
    assert loaded.keytab == Path.home() / "k"
    assert loaded.clusters["prod"].conf_dir == project / "conf"
    assert str(loaded.origin("clusters.prod")) == "../clusterkit.toml:4"


def test_empty_variable_is_not_set(project: Path) -> None:
    """An empty variable leaves the layer below in force, as do flags that were not given."""
    loaded = settings.load({"queue": None, "files": ()}, environ={"CLUSTERKIT_QUEUE": ""}, keywords={"name": None})
    assert (loaded.queue, loaded.files, loaded.origin("queue")) == ("default", (), Origin("default"))


def test_resolved_settings_do_not_change(project: Path) -> None:
    """Settings are frozen."""
    with pytest.raises(AttributeError, match="immutable type"):
        settings.load(environ={}).queue = "other"  # type: ignore[misc]


def test_empty_tables_may_stand(project: Path) -> None:
    """A table without entries says nothing, and is no error."""
    written(project / "clusterkit.toml", "[executor]\n[spark.conf]\n[env_vars]\n[clusters.prod]\n[environments.x]\n")
    assert settings.load(environ={}, keywords={"spark_conf": {}}) == settings.load(environ={}, directory=Path("/"))


def test_environments_are_specifications(project: Path) -> None:
    """A table of environments becomes one specification each; paths start from the file."""
    text = '[environments.x]\nsource = "requirements.txt"\nblas = "mkl"\naccelerate = ["fft"]\nlocal = ["src"]\n'
    written(project / "clusterkit.toml", text)
    assert settings.load(environ={}, directory=project).environments == {
        "x": EnvironmentSpec(
            name="x",
            source=project / "requirements.txt",
            blas="mkl",
            accelerate=("fft",),
            local=(project / "src",),
        )
    }


def test_spark_conf_passes_through(project: Path) -> None:
    """Quoted and dotted keys mean the same, and values become the text that Spark reads."""
    text = '[spark.conf]\nspark.eventLog.enabled = true\n"spark.x.y" = "a = b; #c"\nspark.n = 3\nspark.f = 0.5\n'
    written(project / "clusterkit.toml", text)
    assert settings.load(environ={}).spark.conf == {
        "spark.eventLog.enabled": "true",
        "spark.x.y": "a = b; #c",
        "spark.n": "3",
        "spark.f": "0.5",
    }


@pytest.mark.parametrize(("name", "owner"), SPARK_KEYS.items())
def test_spark_keys_with_an_owner_are_refused(project: Path, name: str, owner: str) -> None:
    """A property that a setting owns is refused with the setting to use."""
    error = refused(flags={"spark.conf": (f"{name}=x",)})
    assert str(error) == (
        f"{name} cannot be set in spark.conf\n"
        f"  Why:  the setting {owner} owns it (--conf)\n"
        f"  Mend: set {owner} in clusterkit.toml, or use {BY_KEY[owner].flag}"
    )
    assert (error.key, error.place) == (f"spark.conf.{name}", "--conf")


def test_property_that_spark_would_ignore_is_refused(project: Path) -> None:
    """Spark drops what does not begin with `spark.`, so clusterkit says so first."""
    assert refused_file(project, '\n[spark.conf]\n"dfs.replication" = 1\n') == (
        "dfs.replication cannot be set in spark.conf",
        "Spark ignores every property that does not begin with `spark.` (clusterkit.toml:3)",
        "correct clusterkit.toml:3; a Hadoop property is written spark.hadoop.dfs.replication",
    )


@pytest.mark.parametrize(
    ("text", "wrong", "line", "near"),
    [
        ('qeue = "x"', "qeue", 1, "queue"),
        ("[executor]\ncores = 1\nmemmory = 4", "executor.memmory", 3, "executor.memory"),
        ("\n[executer]\ncores = 1", "executer.cores", 3, "executor.cores"),
        ('[clusters.prod]\nconfdir = "x"', "clusters.prod.confdir", 2, "clusters.prod.conf_dir"),
        ('[spark.cnf]\n"spark.a" = "x"', "spark.cnf.spark.a", 2, "spark.conf.spark.a"),
        ("[enviroments.x]\n", "enviroments.x", 1, "environments.x"),
        ("zzz = 1", "zzz", 1, None),
    ],
)
def test_misspelt_key_in_a_file(project: Path, text: str, wrong: str, line: int, near: str | None) -> None:
    """A key that does not exist is refused with its line and the nearest known one."""
    hint = f"; did you mean {near}?" if near else ""
    assert refused_file(project, text) == (
        f"there is no setting {wrong}",
        f"clusterkit does not know it{hint} (clusterkit.toml:{line})",
        f"correct clusterkit.toml:{line}; `clusterkit config show` lists every setting",
    )


def test_misspelt_variable(project: Path) -> None:
    """A variable that does not exist is refused with the nearest known one."""
    error = refused(environ={"CLUSTERKIT_EXECUTOR_MEMROY": "4g", "PATH": "/bin"})
    assert error.what == "there is no environment variable CLUSTERKIT_EXECUTOR_MEMROY"
    assert "did you mean CLUSTERKIT_EXECUTOR_MEMORY?" in error.why
    assert error.place == "CLUSTERKIT_EXECUTOR_MEMROY"


def test_misspelt_keyword(project: Path) -> None:
    """A keyword argument that does not exist is refused with the nearest known one."""
    error = refused(executor_memroy="4g")
    assert (error.what, error.place) == ("there is no keyword argument executor_memroy", "executor_memroy=")
    assert "did you mean executor_memory?" in error.why


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ('executor.cores = "2"', "executor.cores", "it takes a whole number, and was given text"),
        ("executor.cores = 2.5", "executor.cores", "it takes a whole number, and was given a number with a fraction"),
        ("executor.cores = true", "executor.cores", "it takes a whole number, and was given a Boolean"),
        ("executor.count = 0", "executor.count", "0 is less than 1"),
        ("queue = 3", "queue", "it takes the name of a queue, and was given a number"),
        (
            'dynamic_allocation = "true"',
            "dynamic_allocation",
            "it takes true or false, without quotes, and was given text",
        ),
        (
            "dynamic_allocation = 1",
            "dynamic_allocation",
            "it takes true or false, without quotes, and was given a number",
        ),
        ('files = "a.csv"', "files", "it takes a list of paths, and was given text"),
        ("files = [1]", "files", "it takes a path, and was given a number"),
        (
            '[cluster.prod]\nconf_dir = "x"',
            "cluster.prod.conf_dir",
            "it takes a name, and was given a table; did you mean clusters.prod.conf_dir?",
        ),
        ('executor = "4g"', "executor", "it is a table, which holds executor.count, executor.memory, executor.cores"),
        ('spark.conf = "x"', "spark.conf", "it takes a table of names and values, and was given one value"),
        ('kernelspecs.x = "y"', "kernelspecs.x", "it takes a table, in a file, and was given one value"),
        (
            'clusters.x = "y"',
            "clusters.x",
            "it is a table, which holds clusters.x.conf_dir",
        ),
        ('environments.x.blas = "atlas"', "environments.x.blas", "'atlas' is none of mkl, openblas, auto"),
        (
            'environments.x.accelerate = ["gpu"]',
            "environments.x.accelerate",
            "'gpu' is none of fft, random, umath, sklearn",
        ),
        (
            "environments.x.python = 3.12",
            "environments.x.python",
            "it takes a Python version, and was given a number with a fraction",
        ),
        ('deploy_mode = "local"', "deploy_mode", "'local' is none of client, cluster"),
        ('hdfs_root = "tmp"', "hdfs_root", "'tmp' is not an absolute path"),
        ('name = "a\\nb"', "name", "'a\\nb' is not text"),
        ("[env_vars.A]", "env_vars.A", "it takes text, and was given a table"),
        ('[env_vars]\nA = ["x"]', "env_vars.A", "it takes text, and was given a list"),
        (
            'executor.memory = "4x"',
            "executor.memory",
            "'4x' is not a size: write a number and a unit, such as '512 MiB' or '4g'",
        ),
        ("executor.memory = 0", "executor.memory", "'0' is less than one MiB"),
        (
            "executor.memory = -4",
            "executor.memory",
            "'-4' is not a size: write a number and a unit, such as '512 MiB' or '4g'",
        ),
    ],
)
def test_wrong_value_in_a_file(project: Path, text: str, key: str, why: str) -> None:
    """A value of the wrong type or size is refused with its key, its line and the reason."""
    line = 1 + text.count("\n")
    assert refused_file(project, text) == (
        f"{key} was not accepted",
        f"{why} (clusterkit.toml:{line})",
        f"correct clusterkit.toml:{line}",
    )


@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        ("CLUSTERKIT_DYNAMIC_ALLOCATION", "yes", "'yes' is not true or false"),
        ("CLUSTERKIT_DYNAMIC_ALLOCATION", "1", "'1' is not true or false"),
        ("CLUSTERKIT_EXECUTOR_CORES", "two", "'two' is not a whole number"),
        ("CLUSTERKIT_EXECUTOR_COUNT", "-1", "-1 is less than 1"),
        ("CLUSTERKIT_EXECUTOR_CORES", "9" * 5000, f"{'9' * 5000!r} is not a whole number"),
        ("CLUSTERKIT_ENV_VARS", "A", "an entry is not written NAME=VALUE"),
        ("CLUSTERKIT_ENV_VARS", "A='x", "No closing quotation"),
    ],
)
def test_wrong_text_in_a_variable(project: Path, variable: str, text: str, why: str) -> None:
    """The text of a variable is refused with the variable's name."""
    error = refused(environ={variable: text})
    assert (error.why, error.mend) == (f"{why} ({variable})", f"correct {variable}")


def test_value_of_a_variable_table_is_never_printed(project: Path) -> None:
    """A refused environment variable or property shows its name, not its value, which may be a secret."""
    error = refused(flags={"env_vars": ("hunter2",)})
    nested = refused(env_vars={"TOKEN": ["hunter2"]})
    assert "hunter2" not in f"{nested}{error}"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"queue = \n", "it is not TOML: Invalid value (at line 1, column 9)"),
        (b"a = 1\na = 2\n", "it is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"queue = '\xff'\n", "it is not UTF-8 text"),
    ],
)
def test_malformed_file(project: Path, content: bytes, why: str) -> None:
    """A file that is no TOML is refused with the line."""
    (project / "clusterkit.toml").write_bytes(content)
    error = refused()
    assert (error.what, error.place) == ("clusterkit.toml was not read", "clusterkit.toml")
    assert error.why.startswith(why)


def test_planted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody else could leave in a directory of everybody is not obeyed; one of our own is."""
    everybodys = tmp_path / "tmp"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    (everybodys / "mine").mkdir()
    monkeypatch.chdir(everybodys / "mine")
    path = written(everybodys / "clusterkit.toml", 'java_home = "/tmp/trap"\n')
    assert settings.load(environ={}).java_home == Path("/tmp/trap")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    error = refused()
    assert (error.what, error.mend) == (
        "../clusterkit.toml was not read",
        f"remove {path}, or work in another directory",
    )
    everybodys.chmod(0o755)
    assert settings.load(environ={}).java_home == Path("/tmp/trap")


def test_removed_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that stands in a removed directory is told so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused().why == "the working directory was removed"


def test_unreadable_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is named, with the reason."""
    path = written(project / "clusterkit.toml", "")

    def fail(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", fail)
    error = refused()
    assert (error.why, error.mend) == ("Permission denied (clusterkit.toml)", f"make {path} readable, or remove it")


def test_file_in_a_hostile_directory(hostile: Path) -> None:
    """A project may stand in a directory of any name."""
    written(hostile / "clusterkit.toml", 'files = ["d é.csv"]\n')
    assert settings.load(environ={}, directory=hostile).files == (str(hostile / "d é.csv"),)


def test_comma_in_a_real_name_does_not_split_it(project: Path) -> None:
    """A flag's list is split at commas, but a file whose name has one stays whole, to be refused by name."""
    (project / "a,b.csv").touch()
    loaded = settings.load({"files": ("a,b.csv", "c.csv,d.csv")}, environ={})
    assert loaded.files == tuple(str(project / name) for name in ("a,b.csv", "c.csv", "d.csv"))


def test_lines_of_every_way_to_write_toml() -> None:
    """The line of a key is found in tables, dotted keys, inline tables and after values of many lines."""
    text = (
        'queue = """\n[executor]\nmemory = 3\n"""\n'
        'files = [ # a\n  "x", # ]\n\n  "y",\n]\n'
        "[executor] # table\n"
        "memory = 1\n\n"
        "'cores' = 2\n"
        '[clusters."a.b"]\n'
        'conf_dir = "x"\n'
        '[spark]\nconf = { "spark.a" = "1", "spark.b" = "2" }\n'
    )
    found = files._lines(text)
    assert {keys: line for keys, line in found.items() if len(keys) > 1 or keys[0] in {"queue", "files"}} == {
        ("queue",): 1,
        ("files",): 5,
        ("executor", "memory"): 11,
        ("executor", "cores"): 13,
        ("clusters", "a.b"): 14,
        ("clusters", "a.b", "conf_dir"): 15,
        ("spark", "conf", "spark.a"): 17,
        ("spark", "conf", "spark.b"): 17,
    }


def test_spellings_are_unique() -> None:
    """No two settings share a flag, a variable or a keyword."""
    for spelling in ("key", "flag", "variable", "keyword"):
        values = [getattr(setting, spelling) for setting in TABLE]
        assert sorted(set(values)) == sorted(values)


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "queue": TEXT,
    "name": TEXT,
    "executor.count": st.integers(1, 10**6),
    "executor.memory": st.integers(1, 10**6),
    "dynamic_allocation": st.booleans(),
    "packages": st.lists(TEXT),
    "env_vars": st.dictionaries(TEXT, TEXT, max_size=3),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_what_toml_holds_is_what_settings_say(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    """Whatever text, number or table a file holds arrives unchanged."""
    import tomlkit

    nested: dict[str, Any] = {}
    for key, value in tree.items():
        table, _, name = key.rpartition(".")
        (nested.setdefault(table, {}) if table else nested)[name] = value
    directory = tmp_path_factory.mktemp("p")
    (directory / "clusterkit.toml").write_text(tomlkit.dumps(nested), encoding="utf-8", newline="")
    loaded = settings.load(environ={}, directory=directory)
    found = {leaf.key: leaf.value for leaf in loaded.leaves if leaf.origin.layer != "default"}
    wanted = {key: tuple(value) if key == "packages" else value for key, value in tree.items() if key != "env_vars"}
    assert {key: value for key, value in found.items() if not key.startswith("env_vars.")} == wanted
    assert loaded.env_vars == tree.get("env_vars", {})
