"""From what a user asks for to an image in a directory of this machine.

What did not change is not done again: an environment whose files have the same names, sizes and times, and whose
specification asks for the same, keeps the image it had, and only the user's own code is looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterkit.environments import sources
from clusterkit.environments.lock import Lock
from clusterkit.environments.manifest import Manifest
from clusterkit.environments.tree import Tree
from clusterkit.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterkit.environments.compression import Format
    from clusterkit.environments.manifest import Layer, Proof
    from clusterkit.environments.sources import Source
    from clusterkit.environments.tree import Code
    from clusterkit.specs.environment import EnvironmentSpec

    Said = Callable[[str, str], None]

_FORMAT = 1
"""Changes when the same environment would be packed differently."""


@dataclass(frozen=True, slots=True)
class Built:
    """An image on this machine.

    Parameters
    ----------
    manifest : Manifest
        What is in it.
    python : Path
        The same environment's Python here.
    lock : Lock
        What is installed.
    import_path : tuple of Path
        Where the user's own code is imported from here.
    fresh : bool
        Whether anything but the user's own code had to be built.
    """

    manifest: Manifest
    python: Path
    lock: Lock
    import_path: tuple[Path, ...]
    fresh: bool


class _Base(msgspec.Struct, frozen=True):
    """What is kept of an image without the user's own code."""

    manifest: Manifest
    lock: Lock


def build(
    spec: EnvironmentSpec,
    *,
    cache_dir: Path,
    lock: Lock | None = None,
    java_home: Path | None = None,
    native: bool = False,
    said: Said | None = None,
) -> Built:
    """Build an image, or find that it is there.

    Parameters
    ----------
    spec : EnvironmentSpec
        What is asked for.
    cache_dir : Path
        The setting `cache_dir`: installed environments go to `environments/`, layers to `images/`.
    lock : Lock, optional
        What has to be installed, to the byte; solved now where it is absent.
    java_home : Path, optional
        The JDK to carry where the specification says `java`.
    native : bool
        Whether it is for the native transport: one archive that YARN unpacks, instead of layers.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    SpecError
        If what is asked for is not possible.
    ImageError
        If it cannot be installed, linked, proved or packed.
    """
    said = said or _silent
    source = sources.find(spec, cache_dir=cache_dir, lock=lock, said=said)
    images = cache_dir / "images"
    kept = images / "builds" / f"{_key(spec, source, java_home, native=native)}.json"
    base = _kept(kept, images)
    fresh = base is None
    if base is None:
        base = _build(spec, source, images, java_home, native=native, said=said)
        _keep(kept, base)
    codes = source.code(spec.local)
    manifest = _with_code(base.manifest, spec.name, codes, images, native=native, said=said)
    return Built(manifest, source.python, base.lock, _import_path(codes), fresh)


def _key(spec: EnvironmentSpec, source: Source, java_home: Path | None, *, native: bool) -> str:
    asked = [spec.blas, spec.accelerate, spec.slim, str(java_home) if spec.java else "", native]
    return hashlib.sha256(msgspec.json.encode([_FORMAT, source.fingerprint, asked])).hexdigest()


def _kept(path: Path, images: Path) -> _Base | None:
    """Return what was built before, if all of its files are still there."""
    try:
        base = msgspec.json.decode(path.read_bytes(), type=_Base)
    except (OSError, msgspec.MsgspecError):
        return None
    layers = base.manifest.layers
    files = (images / "layers" / f"{layer.digest}.tar.{form}" for layer in layers for form in layer.stored)
    return base if all(file.is_file() for file in files) else None


def _keep(path: Path, base: _Base) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(msgspec.json.encode(base))
    aside.replace(path)


@contextmanager
def linked(spec: EnvironmentSpec, source: Source, *, cache_dir: Path, said: Said | None = None) -> Iterator[Linked]:
    """Read an environment and link it as asked for; what had to be changed lies in a directory that is removed after.

    Parameters
    ----------
    spec : EnvironmentSpec
        What is asked for.
    source : Source
        Where its packages are.
    cache_dir : Path
        The setting `cache_dir`.
    said : callable, optional
        Told a stage and its detail.

    Yields
    ------
    Linked
        The tree, the user's own code in it, and room beside it.

    Raises
    ------
    ImageError
        If it cannot be read or linked.
    """
    from clusterkit.environments import blas, slim  # noqa: PLC0415 - only where something is built

    said = said or _silent
    images = cache_dir / "images"
    images.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=images))
    try:
        tree = source.tree(said)
        whole = tree if spec.slim else None
        if spec.slim:
            tree = slim.slim(tree, said=said)
        changed = scratch / "linked"
        tree = blas.link(tree, spec.blas, spec.accelerate, scratch=changed, cache_dir=cache_dir, said=said)
        yield Linked(tree, scratch, whole)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Linked:
    """A tree that is ready to be packed.

    Parameters
    ----------
    tree : Tree
        The environment.
    scratch : Path
        A directory on the same disk, for what is needed meanwhile.
    whole : Tree or None
        What it was before it was slimmed; None where it was not.
    """

    tree: Tree
    scratch: Path
    whole: Tree | None


def _build(
    spec: EnvironmentSpec, source: Source, images: Path, java_home: Path | None, *, native: bool, said: Said
) -> _Base:
    """Read, link, prove and pack everything but the user's own code."""
    from clusterkit.environments import pack  # noqa: PLC0415

    with linked(spec, source, cache_dir=images.parent, said=said) as found:
        lock = source.locked or sources.lock_of(spec, found.tree)
        proof = _proof(found, spec, said)
        tree = dataclasses.replace(found.tree, code=())  # it changes more often, and is packed by itself
        manifest = pack.pack(
            tree, lock_digest=lock.digest, name=spec.name, blas=spec.blas or "", proof=proof, into=images, said=said
        )
        layers = (pack.native(tree, images, said=said),) if native else manifest.layers
    layers = (*layers, *_java(spec, java_home, images, said))
    return _Base(msgspec.structs.replace(manifest, layers=layers), lock)


def _proof(found: Linked, spec: EnvironmentSpec, said: Said) -> Proof | None:
    """Use the environment as a node will, in a place where it never was."""
    from clusterkit.environments import materialise, proof, slim  # noqa: PLC0415

    said("proving", "computing with the environment at another path")
    prefix = found.scratch / "prefix"
    materialise.materialise(found.tree, prefix)
    if found.whole is not None:
        slim.self_test(found.tree, prefix, whole=found.whole)
    return proof.prove(prefix, found.tree.python_path, blas=spec.blas, accelerate=spec.accelerate)


def _java(spec: EnvironmentSpec, java_home: Path | None, images: Path, said: Said) -> tuple[Layer, ...]:
    """Pack the JDK for YARN to unpack: the containers' first command runs its `java`."""
    from clusterkit.environments import java  # noqa: PLC0415

    if not spec.java:
        return ()
    if java_home is None:
        raise SpecError(
            f"the environment {spec.name} cannot carry a JDK",
            why="there is no Java 17 or 21 on this machine",
            mend="install one, name it with java_home, or leave out java",
            key=f"environments.{spec.name}.java",
        )
    return _packed(Tree(python="", platform="", files=java.files(java_home)), spec.name, images, ("gz",), said)


def _with_code(
    base: Manifest, name: str, codes: tuple[Code, ...], images: Path, *, native: bool, said: Said
) -> Manifest:
    """Return the whole manifest: the base and a layer for each folder of the user's own code."""
    manifest = msgspec.structs.replace(base, name=name)
    if not codes:
        return manifest
    only_code = Tree(python=base.python, platform=base.platform, files=(), code=codes)
    layers = _packed(only_code, name, images, ("gz",) if native else ("zst",), said)
    return msgspec.structs.replace(manifest, layers=(*base.layers, *layers))


def _import_path(codes: tuple[Code, ...]) -> tuple[Path, ...]:
    """Return the directories in which the files of some code lie as they are imported."""
    found: dict[Path, None] = {}
    for file in (file for code in codes for file in code.files if isinstance(file.source, Path)):
        parts = Path(file.path).parts
        if isinstance(file.source, Path) and file.source.parts[-len(parts) :] == parts:
            found[file.source.parents[len(parts) - 1]] = None
    return tuple(found)


def _packed(tree: Tree, name: str, images: Path, formats: tuple[Format, ...], said: Said) -> tuple[Layer, ...]:
    """Pack something that needs no proof, and return its layers."""
    from clusterkit.environments import pack  # noqa: PLC0415

    packed = pack.pack(tree, lock_digest="", name=name, blas="", proof=None, into=images, formats=formats, said=said)
    return packed.layers


def _silent(_stage: str, _detail: str) -> None: ...
