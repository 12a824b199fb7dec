"""Compare what should run with what runs: what stays, what must end, what must be started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterkit.embedded.layout import Layout
    from clusterkit.embedded.marks import Marked
    from clusterkit.embedded.plan import Launch, Plan
    from clusterkit.specs.cluster import ClusterSpec


@dataclass(frozen=True, slots=True)
class Changes:
    """What `up` has to do.

    Parameters
    ----------
    stay : tuple of Marked
        Daemons that run as they should.
    end : tuple of Marked
        Daemons that run otherwise than they should, or should not run at all.
    start : tuple of Launch
        Daemons to start, in this order.
    """

    stay: tuple[Marked, ...]
    end: tuple[Marked, ...]
    start: tuple[Launch, ...]

    @property
    def none(self) -> bool:
        """Whether everything runs as it should."""
        return not self.end and not self.start

    @property
    def restarted(self) -> tuple[str, ...]:
        """The daemons that are ended in order to be started anew."""
        anew = {launch.name for launch in self.start}
        return tuple(mark.daemon for mark in self.end if mark.daemon in anew)

    @property
    def ended(self) -> tuple[str, ...]:
        """The daemons that are ended for good."""
        return tuple(mark.daemon for mark in self.end if mark.daemon not in self.restarted)


def compare(plan: Plan, running: Iterable[Marked]) -> Changes:
    """Work out how to get from the daemons that run to those that are planned.

    Of two processes that are the same daemon, the older one stays.
    """
    wanted = {launch.name: plan.configuration(launch) for launch in plan.launches}
    stay: dict[str, Marked] = {}
    end: list[Marked] = []
    for mark in sorted(running, key=lambda mark: mark.process.started_s):
        fits = mark.configuration == wanted.get(mark.daemon) and mark.daemon not in stay
        if fits:
            stay[mark.daemon] = mark
        else:
            end.append(mark)
    start = tuple(launch for launch in plan.launches if launch.name not in stay)
    return Changes(tuple(stay.values()), tuple(end), start)


def check(layout: Layout, before: ClusterSpec, after: ClusterSpec) -> None:
    """Refuse a change that would cost data.

    Raises
    ------
    ClusterError
        If HDFS would have to be converted, or a DataNode that holds blocks would go.
    """
    mend = f"choose another --name, or give the data up with `clusterkit cluster down --name {layout.name} --purge`"
    if before.ha != after.ha:
        made = "two NameNodes" if before.ha else "one NameNode"
        raise ClusterError(
            f"the cluster {layout.name!r} was not changed",
            why=f"its HDFS was made with {made}, and converting it could cost data",
            mend=mend,
            cluster=layout.name,
        )
    leaving = [f"datanode-{number}" for number in range(after.nodes + 1, before.nodes + 1)]
    holding = [
        name for name in leaving if next(layout.data_of(name).glob("current/BP-*/current/finalized/**/blk_*"), 0)
    ]
    if holding:
        raise ClusterError(
            f"the cluster {layout.name!r} was not made smaller",
            why=f"{' and '.join(holding)} would go, and hold blocks of files in HDFS",
            mend=f"keep --nodes {before.nodes}; otherwise {mend}",
            cluster=layout.name,
            path=layout.data_of(holding[0]),
        )
