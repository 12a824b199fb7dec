"""Options that are settings: made from the settings table, so that flag, help and key never part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from clusterkit.settings import kinds
from clusterkit.settings.table import BY_KEY, BY_KEYWORD, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def settings_options(*keys: str) -> Callable[[_Function], _Function]:
    """Give a command the flags of settings, in this order.

    The command receives each by its keyword (`executor_memory`), None or () where it was not given; `flags_from` turns
    them into what `settings.load` takes.

    Parameters
    ----------
    *keys : str
        Dotted keys of settings.
    """

    def decorate(function: _Function) -> _Function:
        for key in reversed(keys):
            function = _option(BY_KEY[key])(function)
        return function

    return decorate


def flags_from(given: Mapping[str, Any]) -> dict[str, object]:
    """Return those parameters of a command that are settings, by dotted key."""
    return {BY_KEYWORD[name].key: value for name, value in given.items() if name in BY_KEYWORD}


def _option(setting: Setting) -> Callable[[_Function], _Function]:
    names = [setting.keyword, setting.flag, *([setting.short] if setting.short else [])]
    match setting.kind:
        case kinds.Boolean():
            both = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
            return click.option(setting.keyword, both, default=None, help=setting.help)
        case kinds.Table():
            return click.option(*names, multiple=True, metavar="NAME=VALUE", help=f"{setting.help} Repeatable.")
        case kinds.Texts():
            kind = click.Path() if isinstance(setting.kind, kinds.Files) else click.STRING
            text = f"{setting.help} Commas between entries."
            return click.option(*names, multiple=True, type=kind, metavar="LIST", help=text)
        case kinds.LocalPath():
            return click.option(*names, type=click.Path(), metavar="PATH", help=setting.help)
        case kinds.Text(choices=choices) if choices:
            complete = _completion(choices)
            return click.option(*names, metavar="|".join(choices), shell_complete=complete, help=setting.help)
        case _:
            return click.option(*names, metavar=_METAVARS.get(type(setting.kind), "TEXT"), help=setting.help)


def _completion(choices: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete one of a few words; what is no such word is refused by the settings, with the place."""
    return lambda _context, _parameter, begun: [word for word in choices if word.startswith(begun)]


_METAVARS: dict[type, str] = {kinds.Integer: "N", kinds.Memory: "SIZE"}
