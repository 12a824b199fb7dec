"""The documentation agrees with the code: the reference, the commands that are named, the links, the examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import clusterkit
from clusterkit import cli, errors, settings
from clusterkit.settings.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(clusterkit.__file__).parent
ROOT = PACKAGE.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCES
    if path.name != "__main__.py"
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def reference() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


def test_reference_is_the_codes() -> None:
    """The committed reference is what the code makes: run `.venv/bin/python docs/generate_reference.py`."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert committed == reference()


def test_every_command_is_documented() -> None:
    """Each command and subcommand has a section, and each of its options a line."""
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for path, command in commands(cli.root, "clusterkit"):
        section = text.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        options = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
        assert section, f"{path} has no section"
        assert {name for name in options if f"`{name}`" not in section} == set()


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.key)
def test_every_setting_is_documented(setting: settings.Setting) -> None:
    """Each setting has a section with its four spellings."""
    text = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {setting.key.replace('*', 'NAME')}\n")[2].partition("\n## ")[0]
    wanted = {setting.help} if setting.file_only else {setting.help, setting.flag, setting.variable, setting.keyword}
    assert {words for words in wanted if words not in section} == set()


@pytest.mark.parametrize("kind", errors.kinds(), ids=lambda kind: kind.__name__)
def test_every_error_kind_is_documented(kind: type[errors.ClusterkitError]) -> None:
    """Each kind of error has a line with its exit code."""
    text = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert f"| `{kind.__name__}` | {kind.exit_code} |" in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page is a file, and its anchor a heading."""
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(file), f"{target}#{anchor} does not exist"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_pages_exist(page: Path) -> None:
    """Each clusterkit command in a code block or between back quotes is one, with options it has."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|console|sh)\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    quoted = re.findall(r"`(clusterkit [^`\n]*)`", text)
    for line in [line for line in (*lines, *quoted) if line.startswith("clusterkit ")]:
        check_command(line)


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_commands_in_messages_exist(source: Path) -> None:
    """Each clusterkit command that a message tells people to run is one, with options it has."""
    for text in strings(ast.parse(source.read_bytes())):
        for line in re.findall(r"`(clusterkit [^`\n]*)`", text):
            check_command(line)


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module; what is filled in later is an X, as an argument would be."""
    inside: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= set(node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def check_command(line: str) -> None:
    """Fail when a command line names a command or an option that does not exist."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli.root
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        name = words.pop(0)
        if command is cli.root and name in command.list_commands(click.Context(command)) and not written(name):
            return
        found = command.get_command(click.Context(command), name)
        if found is None and not name.isupper() and not re.fullmatch(r"[\w<>|.]*(?:TAB|\|)[\w<>|.]*", name):
            pytest.fail(f"`{line}` names {name}, which {command.name} does not have")
        if found is None:
            return
        command = found
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if not word.startswith("-") and command.name == "submit" and "job" in word.lower():
            return  # what follows is the job's own
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known:
            pytest.fail(f"`{line}` uses {word}, which {command.name} does not have")


def written(name: str) -> bool:
    return find_spec(f"clusterkit.cli.{name}") is not None


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if command is not cli.root or written(name):
                below = command.get_command(context, name)
                assert below is not None
                yield from commands(below, f"{path} {name}")


def test_check_of_commands_can_fail() -> None:
    """The check itself sees a command and an option that do not exist."""
    for line in ("clusterkit config shwo", "clusterkit nonsense", "clusterkit config show --jsn", "clusterkit --jsn"):
        with pytest.raises(pytest.fail.Exception, match="does not have"):
            check_command(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_in_pages_is_accepted(page: Path, project: Path) -> None:
    """Each TOML example is a clusterkit.toml that clusterkit reads."""
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        (project / "clusterkit.toml").write_text(text, encoding="utf-8")
        loaded = settings.load(environ={})
        given = [leaf for leaf in loaded.leaves if leaf.origin.layer == "project file"]
        assert len(given) == len(list(settings.files.walk(tomllib.loads(text))))


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each example of a docstring prints what it says."""
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_changelog_has_what_is_coming() -> None:
    """The changelog keeps its format: an unreleased section on top, versions below it."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_licence_is_the_one_that_is_declared() -> None:
    """The text of the licence stands beside the code, and the metadata names it."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert project["license"] == "Apache-2.0"
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
