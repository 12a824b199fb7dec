"""Write docs/reference from the code: the commands, the settings, the errors.

Run it after a change of any of them: `.venv/bin/python docs/generate_reference.py`. A test compares what is committed
with what this makes.
"""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clusterkit import cli, errors
from clusterkit.settings.table import SPARK_KEYS, TABLE, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent / "reference"


def main() -> None:
    """Write every page."""
    HERE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return each page's text by its file name."""
    made = {"commands.md": _commands(), "settings.md": _settings(), "errors.md": _errors()}
    return {name: re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n" for name, lines in made.items()}


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "Every command has `--help`. Options that are [settings](settings.md) can also be written in a file, as a"
    yield "variable or as a keyword argument. `clusterkit completion` makes bash, zsh and fish complete all of it."
    yield from _command(cli.root, "clusterkit")


def _command(command: click.Command, name: str) -> Iterator[str]:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    yield from ("", f"## {name}", "", f"`{' '.join([name, *_usage(command, arguments)])}`", "", *_help(command))
    if options:
        yield from ("", "| option | what it does |", "|---|---|", *map(_option, options))
    if isinstance(command, click.Group):
        context = click.Context(command)
        below = [each for each in command.list_commands(context) if _exists(command, each)]
        yield from ("", *(f"- [{name} {each}](#{f'{name}-{each}'.replace(' ', '-')})" for each in below))
        for each in below:
            found = command.get_command(context, each)
            if found is not None and not found.hidden:
                yield from _command(found, f"{name} {each}")


def _exists(command: click.Command, name: str) -> bool:
    return command is not cli.root or find_spec(f"clusterkit.cli.{name}") is not None


def _usage(command: click.Command, arguments: list[click.Argument]) -> Iterator[str]:
    yield "[OPTIONS]"
    for argument in arguments:
        word = f"{(argument.metavar or argument.name or '').upper()}{'...' if argument.nargs == -1 else ''}"
        yield word if argument.required else f"[{word}]"
    if isinstance(command, click.Group):
        yield "COMMAND [ARGS]..."


def _help(command: click.Command) -> Iterator[str]:
    """Yield the help text, blocks that are not to be wrapped as code."""
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        if block.startswith("\b"):
            yield from ("```text", *block.splitlines()[1:], "```", "")
        else:
            yield from (*block.splitlines(), "")


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    text = _cell(option.help or "")
    if option.is_flag or option.count:
        return f"| {names} | {text} |"
    default = f" Default: `{option.default}`." if isinstance(option.default, (str, int)) else ""
    return f"| {names} {_cell(option.metavar or _type(option))} | {text}{default} |"


def _type(option: click.Option) -> str:
    choices = getattr(option.type, "choices", None)
    return "|".join(map(str, choices)) if choices else option.type.name.upper()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "One key, four spellings: `executor.memory` in `clusterkit.toml`, `--executor-memory`, the variable"
    yield "`CLUSTERKIT_EXECUTOR_MEMORY`, and `executor_memory=` in Python. The first layer that sets a key wins:"
    yield ""
    yield "1. the flag, or the keyword argument in Python"
    yield "2. the environment variable; an empty one is not set"
    yield "3. `clusterkit.toml` in the working directory, or in the nearest directory above that has one"
    yield "4. the user's file, `~/.config/clusterkit/clusterkit.toml`"
    yield "5. the system's file, `/etc/clusterkit/clusterkit.toml`"
    yield "6. the default"
    yield ""
    yield "Tables merge entry by entry; lists are taken whole. A relative path in a file starts from that file."
    yield "`clusterkit config show` prints each value and where it comes from."
    for setting in TABLE:
        yield from _setting(setting)
    yield from ("", "## Spark properties that a setting owns", "")
    yield "`[spark.conf]` and `--conf` pass everything through to Spark as it is, except these, which have one"
    yield "spelling, the setting's:"
    yield from ("", "| property | setting |", "|---|---|")
    yield from (f"| `{name}` | [`{key}`](#{_anchor(key)}) |" for name, key in SPARK_KEYS.items())


def _setting(setting: Setting) -> Iterator[str]:
    yield from ("", f"## {setting.key.replace('*', 'NAME')}", "", setting.help, "")
    yield f"- takes {setting.kind.words}" + (f": {' or '.join(_choices(setting))}" if _choices(setting) else "")
    if setting.default not in (None, ()):
        yield f"- default `{setting.default}`"
    if setting.file_only:
        yield "- in a file only"
        return
    flags = [setting.flag, *([setting.short] if setting.short else [])]
    yield f"- {', '.join(f'`{flag}`' for flag in flags)}, `{setting.variable}`, `{setting.keyword}=`"


def _choices(setting: Setting) -> tuple[str, ...]:
    return tuple(f"`{choice}`" for choice in getattr(setting.kind, "choices", ()))


def _anchor(key: str) -> str:
    return key.replace(".", "")


def _errors() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every expected failure is a `ClusterkitError`. It says what did not happen, why, and how to mend it; the"
    yield "command line prints these as three lines on stderr. The kind decides the exit code, and carries data for"
    yield "programs."
    yield from ("", "| kind | exit code | data | when |", "|---|---|---|---|")
    for kind in errors.kinds():
        names = [name for name in inspect.signature(kind).parameters if name not in {"what", "why", "mend"}]
        data = ", ".join(f"`{name}`" for name in names)
        yield f"| `{kind.__name__}` | {kind.exit_code} | {data} | {(kind.__doc__ or '').splitlines()[0]} |"
    yield from ("", "## Exit codes", "", "| code | meaning |", "|---|---|")
    yield f"| {errors.EXIT_REQUEST} | the request is wrong: usage, a specification, a setting |"
    yield f"| {errors.EXIT_SURROUNDINGS} | the surroundings are wrong: cluster, store, image, host, launch |"
    yield f"| {errors.EXIT_BUG} | a bug in clusterkit |"
    yield f"| {errors.EXIT_INTERRUPTED} | Ctrl-C (SIGINT) |"
    yield f"| {errors.EXIT_TERMINATED} | SIGTERM |"
    yield "| 141 | the reader of a pipe went away |"
    yield "| any other | the job's own exit code; 1 where YARN hides it |"


if __name__ == "__main__":
    main()
