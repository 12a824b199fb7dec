"""What works for a cluster in the background, so that `down` can end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clusterkit.embedded.layout import write_private
from clusterkit.processes import ProcessIdentity

if TYPE_CHECKING:
    from clusterkit.embedded.class_data import Archive
    from clusterkit.embedded.layout import Layout


def build(layout: Layout, archive: Archive) -> None:
    """Have an archive of classes built on a cluster's behalf, unless it is there or somebody builds it already."""
    if archive.ready or archive.builder is not None:
        return
    builder = archive.build_in_background()
    if builder is not None:
        write_private(layout.builder_of(archive.kind), msgspec.json.encode(builder))


def builders(layout: Layout) -> tuple[ProcessIdentity, ...]:
    """Return the processes that build archives on a cluster's behalf, whether they still run or not."""
    noted = layout.run.glob(layout.builder_of("*").name)
    return tuple(msgspec.json.decode(path.read_bytes(), type=ProcessIdentity) for path in noted)
