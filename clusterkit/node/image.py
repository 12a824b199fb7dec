"""What a node has to know of a manifest."""

from __future__ import annotations

from . import small_json
from .digests import small_sha256
from .errors import NodeError

_ELSEWHERE = frozenset({"code", "java"})  # beside the prefix: on the import path, and where YARN unpacked it
_HEX = frozenset("0123456789abcdef")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Layer:
    """One layer: its digest, what it is, its bounds, the files that carry it, and how its files are baked."""

    __slots__ = ("bake", "digest", "entries", "kind", "name", "size_bytes", "stored")

    def __init__(self, layer: dict[str, Any]) -> None:
        self.digest: str = _digest(layer["digest"])
        self.kind: str = layer["kind"]
        self.name: str = layer["name"]
        self.entries: int = layer["files"]
        self.size_bytes: int = layer["size_bytes"]
        self.stored: dict[str, dict[str, Any]] = layer.get("stored", {})
        self.bake: dict[str, str] = layer.get("bake", {})


class Image:
    """An image as its manifest describes it.

    Parameters
    ----------
    manifest : mapping
        The manifest, as it is decoded from JSON.

    Raises
    ------
    NodeError
        If the manifest is none, or is of a later format.
    """

    __slots__ = ("base", "blas", "code", "environment", "layers", "name", "placeholder", "proof", "python")

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        if manifest.get("format", 1) != 1:
            raise _unreadable("it is of a format that this version does not know")
        try:
            layers = [Layer(layer) for layer in manifest["layers"]]
            self.name: str = manifest["name"]
            self.environment: dict[str, str] = manifest.get("environment", {})
            self.placeholder: str = manifest.get("placeholder", "")
            self.blas: str = manifest.get("blas", "")
            self.proof: dict[str, Any] | None = manifest.get("proof")
            self.python = _python(manifest["python"])
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise _unreadable(f"{type(exc).__name__}: {exc}") from exc
        self.layers = [layer for layer in layers if layer.kind not in _ELSEWHERE]
        self.code = [layer for layer in layers if layer.kind == "code"]
        self.base = _name([[layer.digest for layer in layers if layer.kind != "code"], self.environment])

    def variables(self, prefix: str) -> dict[str, str]:
        """Return the variables that a process in it needs, with the prefix in place."""
        if not self.placeholder:
            return dict(self.environment)
        return {name: value.replace(self.placeholder, prefix) for name, value in self.environment.items()}


def read(path: str) -> dict[str, Any]:
    """Read a manifest file.

    Raises
    ------
    NodeError
        If it is missing, or is no manifest.
    """
    try:
        with open(path, "rb") as file:
            manifest = small_json.decode(file.read())
    except OSError as exc:
        raise _unreadable(f"{path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise _unreadable(f"{path} is no JSON: {exc}") from exc
    if not isinstance(manifest, dict):
        raise _unreadable(f"{path} holds no manifest")
    return manifest


def _name(value: Any) -> str:
    """Name a value by the digest of its JSON, as the manifest does where it is made."""
    return small_sha256(small_json.encode(value, ordered=True).encode())


def _digest(digest: str) -> str:
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise ValueError(f"{digest!r} is no SHA-256")
    return digest


def _python(version: str) -> str:
    """Return the name of the interpreter of a version: `python3.11`."""
    major, minor = version.split(".")[:2]
    return f"python{int(major)}.{int(minor)}"


def _unreadable(why: str) -> NodeError:
    return NodeError(
        "the manifest of the image cannot be read",
        why=why,
        mend="submit again with the clusterkit that built the image; `clusterkit env show` must read it",
    )
