"""SHA-256 without `hashlib`, which loads every other algorithm too."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Hash(Protocol):
        """A digest in the making."""

        def update(self, data: bytes | memoryview, /) -> None:
            """Add data."""

        def hexdigest(self) -> str:
            """Return the digest so far."""


def small_sha256(data: bytes) -> str:
    """Return the digest of little data, by what loads in no time."""
    hashed = _built_in()
    hashed.update(data)
    return hashed.hexdigest()


def sha256() -> Hash:
    """Return a hash for much data: OpenSSL's, which knows the processor's own instructions, where it is there."""
    try:
        from _hashlib import openssl_sha256  # noqa: PLC0415 - where it is needed alone
    except ImportError:
        return _built_in()
    found: Hash = openssl_sha256(usedforsecurity=False)
    return found


def _built_in() -> Hash:
    if sys.version_info >= (3, 12):
        from _sha2 import sha256 as built_in  # type: ignore[import-not-found]  # noqa: PLC0415
    else:
        from _sha256 import sha256 as built_in  # type: ignore[import-not-found]  # noqa: PLC0415
    found: Hash = built_in()
    return found
