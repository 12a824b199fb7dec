"""The id of the application that a person means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit.errors import ApplicationError

if TYPE_CHECKING:
    from clusterkit.hadoop.resource_manager import ResourceManager

TAG = "clusterkit-"
"""Begins the YARN tag of every application that clusterkit launched."""

_LISTED = 5


def resolve(text: str, resource_manager: ResourceManager) -> str:
    """Return the id of an application that is named by its id, or by the last number in it.

    A ResourceManager that was started counts from 1 again, and may still know the earlier ones: then the newest of
    that number is meant, unless an earlier one still runs.

    Parameters
    ----------
    text : str
        `application_1700000000000_0012`, `1700000000000_0012`, `0012` or `12`.
    resource_manager : ResourceManager
        Who knows the applications; it is only asked when `text` is not a whole id.

    Raises
    ------
    ApplicationError
        If no application, or more than one, is meant.
    ClusterError
        If the ResourceManager does not answer.
    """
    if re.fullmatch(r"\d+_\d{4,}", text):
        return f"application_{text}"
    if not re.fullmatch(r"\d{1,9}", text):
        return text  # the ResourceManager says what is wrong with it
    known = resource_manager.applications()
    found = [report for report in known if _number(report.id) == int(text)]
    if not found:
        raise _unknown(text, [report.id for report in known])
    newest, *earlier = found
    if all(report.ended for report in earlier):
        return newest.id
    raise _unclear(text, [report.id for report in found])


def _number(application_id: str) -> int:
    return int(application_id.rpartition("_")[2])


def _unclear(text: str, found: list[str]) -> ApplicationError:
    return ApplicationError(
        f"it is not clear which application {text} is",
        why=f"the ResourceManager knows {' and '.join(found)}",
        mend="give the whole id, as `clusterkit app ls --all` prints it",
    )


def _unknown(text: str, known: list[str]) -> ApplicationError:
    last = sorted(known, key=lambda each: abs(_number(each) - int(text)))[:_LISTED]
    return ApplicationError(
        f"there is no application {text}",
        why=f"the ones nearest to it are {', '.join(last)}" if last else "the ResourceManager knows no application",
        mend="list them with `clusterkit app ls --all`",
    )
