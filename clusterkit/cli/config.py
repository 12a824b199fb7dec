"""`clusterkit config`: every setting, its value, and where the value comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from clusterkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.settings import Leaf, Settings


@click.group("config")
def command() -> None:
    """Show every setting and where its value comes from."""


@command.command("show")
@click.argument("key", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(key: str | None, *, as_json: bool) -> None:
    """Print each setting, its value and its origin; with KEY, that setting or table alone.

    Values that look secret by their name are not printed.
    """
    from clusterkit import settings

    leaves = [leaf for leaf in _rows(settings.load()) if key is None or _under(leaf.key, key)]
    if not leaves:
        _refuse(key or "")
    if as_json:
        print_json({leaf.key: {"value": _shown(leaf), "origin": str(leaf.origin)} for leaf in leaves})
    else:
        print_table(("KEY", "VALUE", "ORIGIN"), [(leaf.key, _text(leaf), leaf.origin) for leaf in leaves])


def _rows(settings: Settings) -> Iterator[Leaf]:
    """Yield every setting in the table's order, and each entry of the tables."""
    from clusterkit.settings import TABLE, Leaf, Origin

    for setting in TABLE:
        found = sorted((leaf for leaf in settings.leaves if leaf.setting == setting), key=lambda leaf: leaf.path)
        yield from found
        if not found:
            yield Leaf(setting, setting.path[: 1 if setting.file_only else None], {}, Origin("default"))


def _under(key: str, wanted: str) -> bool:
    return key == wanted or key.startswith(f"{wanted}.")


def _shown(leaf: Leaf) -> Any:
    from clusterkit import redaction

    return redaction.HIDDEN if redaction.is_secret(leaf.path[-1]) else leaf.value


def _text(leaf: Leaf) -> str | None:
    """Return a value as clusterkit.toml would hold it; nothing where there is none."""
    from clusterkit import units
    from clusterkit.settings.kinds import Memory

    value = _shown(leaf)
    if value is None or value in ((), {}):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(leaf.setting.kind, Memory):
        return units.format_memory(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _refuse(key: str) -> None:
    from clusterkit.errors import SettingsError
    from clusterkit.nearest import suggestion
    from clusterkit.settings import TABLE

    raise SettingsError(
        f"there is no setting {key}",
        why=f"clusterkit does not know it{suggestion(key, (setting.key for setting in TABLE))}",
        mend="`clusterkit config show` lists every setting",
        key=key,
    )
