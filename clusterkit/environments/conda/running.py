"""Wait for rattler, whose functions are coroutines; and how it reaches channels."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


def finished(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end and return what it returns; in a notebook too, whose thread has a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as aside:
        return aside.submit(asyncio.run, work).result()


def client() -> Any:
    """Return what fetches: with retries, proxies, and the logins of ~/.netrc and of `rattler auth login`."""
    from rattler.networking import Client  # noqa: PLC0415

    return Client.default_client()
