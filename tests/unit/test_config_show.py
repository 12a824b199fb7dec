"""`clusterkit config show`: each key, its value, and where the value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusterkit.cli import main
from clusterkit.settings.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

TOML = """\
queue = "batch"
files = ["a.csv", "hdfs:///b.csv"]
dynamic_allocation = false

[executor]
memory = "4g"

[clusters.prod]
conf_dir = "conf"

[spark.conf]
"spark.ssl.keyPassword" = "hunter2"
"spark.eventLog.enabled" = true
"""


@pytest.fixture
def show(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs `config show` in a project with a file, and returns what it prints."""
    (project / "clusterkit.toml").write_text(TOML)

    def run(*args: str) -> str:
        assert main(["config", "show", *args]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


def test_show_is_aligned(show: Callable[..., str], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, values and origins stand in columns, in the order of the settings table."""
    monkeypatch.setenv("CLUSTERKIT_EXECUTOR_CORES", "2")
    lines = show().splitlines()
    assert lines[0].split() == ["KEY", "VALUE", "ORIGIN"]
    column = lines[0].index("ORIGIN")
    rows = {line.split()[0]: (" ".join(line[:column].split()[1:]), line[column:]) for line in lines[1:]}
    assert rows == {
        setting.key: ("-", "default") for setting in TABLE if not setting.open and not setting.file_only
    } | {
        "clusters.prod.conf_dir": (f"{project}/conf", "clusterkit.toml:9"),
        "deploy_mode": ("client", "default"),
        "queue": ("batch", "clusterkit.toml:1"),
        "executor.memory": ("4 GiB", "clusterkit.toml:6"),
        "executor.cores": ("2", "CLUSTERKIT_EXECUTOR_CORES"),
        "dynamic_allocation": ("false", "clusterkit.toml:3"),
        "files": (f"{project}/a.csv, hdfs:///b.csv", "clusterkit.toml:2"),
        "env_vars": ("-", "default"),
        "spark.conf.spark.eventLog.enabled": ("true", "clusterkit.toml:13"),
        "spark.conf.spark.ssl.keyPassword": ("*********", "clusterkit.toml:12"),
        "hdfs_root": ("/clusterkit", "default"),
        "cache_dir": (f"{Path.home()}/.cache/clusterkit", "default"),
        "data_dir": (f"{Path.home()}/.local/share/clusterkit", "default"),
        "environments": ("-", "default"),
        "transport": ("auto", "default"),
        "node_cache": ("/var/tmp/clusterkit", "default"),
        "kernelspecs": ("-", "default"),
    }


def test_show_one_key(show: Callable[..., str]) -> None:
    """With a key, that setting alone is shown, or all of a table."""
    assert show("queue").splitlines()[1:] == ["queue  batch  clusterkit.toml:1"]
    assert [line.split()[0] for line in show("executor").splitlines()[1:]] == [
        "executor.count",
        "executor.memory",
        "executor.cores",
    ]
    assert show("spark.conf.spark.eventLog.enabled").splitlines()[1].split()[1:] == ["true", "clusterkit.toml:13"]
    assert show("kernelspecs").splitlines()[1].split() == ["kernelspecs", "-", "default"]


def test_show_json(show: Callable[..., str], project: Path) -> None:
    """As JSON a value keeps its type, and a secret stays hidden."""
    shown = json.loads(show("--json"))
    assert {key: shown[key] for key in ("executor.memory", "files", "dynamic_allocation", "name", "env_vars")} == {
        "executor.memory": {"value": 4096, "origin": "clusterkit.toml:6"},
        "files": {"value": [f"{project}/a.csv", "hdfs:///b.csv"], "origin": "clusterkit.toml:2"},
        "dynamic_allocation": {"value": False, "origin": "clusterkit.toml:3"},
        "name": {"value": None, "origin": "default"},
        "env_vars": {"value": {}, "origin": "default"},
    }
    assert shown["spark.conf.spark.ssl.keyPassword"]["value"] == "*********"


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "API_KEY", "spark.hadoop.fs.s3a.access.key"]
)
def test_secrets_are_never_shown(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What looks secret by its name is not printed, in a table or as JSON."""
    monkeypatch.setenv(
        "CLUSTERKIT_SPARK_CONF" if name.startswith("spark.") else "CLUSTERKIT_ENV_VARS", f"{name}=hunter2"
    )
    for extra in ((), ("--json",)):
        assert main(["config", "show", *extra]) == 0
    assert "hunter2" not in capsys.readouterr().out


def test_unknown_key(show: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """A key that does not exist is refused with the nearest one."""
    assert main(["config", "show", "executor.memroy"]) == 64
    assert capsys.readouterr().err == (
        "Error: there is no setting executor.memroy\n"
        "  Why:  clusterkit does not know it; did you mean executor.memory?\n"
        "  Mend: `clusterkit config show` lists every setting\n"
    )


def test_wrong_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in a file is three lines with its place, whatever was asked."""
    (project / "clusterkit.toml").write_text("\nqueu = 'x'\n")
    assert main(["config", "show", "name"]) == 64
    assert capsys.readouterr() == (
        "",
        (
            "Error: there is no setting queu\n"
            "  Why:  clusterkit does not know it; did you mean queue? (clusterkit.toml:2)\n"
            "  Mend: correct clusterkit.toml:2; `clusterkit config show` lists every setting\n"
        ),
    )


def test_name_that_is_not_utf8(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value with bytes that are no text is printed, not crashed on."""
    monkeypatch.setenv("CLUSTERKIT_DATA_DIR", "/x\udcff")
    for extra in ((), ("--json",)):
        assert main(["config", "show", "data_dir", *extra]) == 0
    assert b"/x\\udcff" in capfdbinary.readouterr().out
