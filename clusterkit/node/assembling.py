"""Put an image together: hard links into its layers, and the prefix written into the files that hold it."""

from __future__ import annotations

import errno
import os
import shutil

from .baking import bake
from .errors import NodeError
from .failures import translated

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
_OWN = ".clusterkit"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .cache import Cache
    from .image import Image

    Said = Callable[[str, str], None]


def assemble(cache: Cache, image: Image, said: Said) -> int:
    """Make an image from its layers, which are all there, and return how many bytes it has that no layer shares.

    Raises
    ------
    NodeError
        If two layers hold the same path, or the file system refuses.
    """
    place = cache.path("images", image.base)
    aside, before = f"{place}.part", f"{place}.old"
    try:
        for leftover in (aside, before):
            if os.path.lexists(leftover):
                shutil.rmtree(leftover)
        said("linking", image.name)
        own_bytes = _tree(cache, image, aside, place)
        if os.path.lexists(place):
            os.rename(place, before)  # what runs from it finds its files at the same names in a moment
        os.rename(aside, place)
        shutil.rmtree(before, ignore_errors=True)
        said("linked", image.name)
    except OSError as exc:
        raise translated(exc, f"the image {image.name} was not put together") from exc
    return own_bytes


def _tree(cache: Cache, image: Image, root: str, prefix: str) -> int:
    os.mkdir(root, 0o755)
    os.mkdir(os.path.join(root, _OWN), 0o755)
    own_bytes = 0
    for layer in image.layers:
        farm = _Farm(cache.path("layers", layer.digest), root, frozenset(layer.bake))
        try:
            farm.add("")
            for path, how in layer.bake.items():
                own_bytes += _baked(farm.source + path, farm.target + path, image.placeholder, prefix, how)
        except FileExistsError as exc:
            raise _unfit(layer.name, f"{exc.filename2 or exc.filename} is in another layer too") from exc
        except FileNotFoundError as exc:
            raise _unfit(layer.name, f"{exc.filename} is not in it") from exc
        own_bytes += farm.copied_bytes
    return own_bytes


class _Farm:
    """Hard links to the files of one directory in another one, copies where the file system has no links.

    No directory is entered that was not made here: a link of one layer never leads another one astray.
    """

    def __init__(self, source: str, target: str, left_out: frozenset[str]) -> None:
        self.source = f"{source}/"
        self.target = f"{target}/"
        self.copied_bytes = 0
        self._left_out = left_out

    def add(self, below: str) -> None:
        """Link everything below a directory; its name is empty or ends with `/`."""
        with os.scandir(self.source + below) as entries:
            for entry in entries:
                path = below + entry.name
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), self.target + path)
                elif entry.is_dir(follow_symlinks=False):
                    self._directory(path)
                    self.add(f"{path}/")
                elif path not in self._left_out:
                    self._file(path)

    def _directory(self, path: str) -> None:
        try:
            os.mkdir(self.target + path, 0o755)
        except FileExistsError:
            if os.path.islink(self.target + path) or path == _OWN:
                raise

    def _file(self, path: str) -> None:
        try:
            os.link(self.source + path, self.target + path)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            self.copied_bytes += _copied(self.source + path, self.target + path)


def _copied(source: str, target: str) -> int:
    with open(source, "rb") as file:
        return _written(target, file.read(), os.fstat(file.fileno()).st_mode)


def _baked(source: str, target: str, placeholder: str, prefix: str, how: str) -> int:
    with open(source, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = bake(file.read(), placeholder, prefix, how)
    return _written(target, data, mode)


def _written(target: str, data: bytes, mode: int) -> int:
    with open(target, "xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode & 0o777)
    return len(data)


def _unfit(layer: str, why: str) -> NodeError:
    return NodeError(
        f"the layer {layer} does not fit into its image",
        why=why,
        mend="build the image again with `clusterkit env build`",
    )
