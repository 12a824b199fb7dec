from __future__ import annotations

from dataclasses import dataclass

import pytest

from clusterkit.applications import naming
from clusterkit.errors import ApplicationError


@dataclass
class Known:
    """An application that YARN knows."""

    id: str
    ended: bool = True


class FakeResourceManager:
    """Knows some applications, the newest first."""

    def __init__(self, *known: Known) -> None:
        self._known = known

    def applications(self) -> tuple[Known, ...]:
        """Return them."""
        return self._known


MANAGER = FakeResourceManager(
    Known("application_2000_0002", ended=False),
    Known("application_2000_0001"),
    Known("application_1000_0012"),
    Known("application_1000_0002"),
)


@pytest.mark.parametrize(
    ("text", "application_id"),
    [
        ("application_9_0001", "application_9_0001"),
        ("2000_0002", "application_2000_0002"),
        ("12", "application_1000_0012"),
        ("0012", "application_1000_0012"),
        ("2", "application_2000_0002"),
        ("nonsense", "nonsense"),
    ],
)
def test_names_of_applications(text, application_id):
    """A whole id is taken as it is; a number means the newest application of that number."""
    assert naming.resolve(text, MANAGER) == application_id


def test_a_number_that_an_earlier_one_still_runs_under():
    """Two starts of the ResourceManager, both with a second application, the earlier one running: that is not clear."""
    manager = FakeResourceManager(Known("application_2000_0002"), Known("application_1000_0002", ended=False))

    with pytest.raises(ApplicationError) as caught:
        naming.resolve("2", manager)

    assert str(caught.value) == (
        "it is not clear which application 2 is\n"
        "  Why:  the ResourceManager knows application_2000_0002 and application_1000_0002\n"
        "  Mend: give the whole id, as `clusterkit app ls --all` prints it"
    )


def test_a_number_that_nobody_knows():
    """The nearest ones are offered."""
    with pytest.raises(ApplicationError) as caught:
        naming.resolve("13", MANAGER)

    assert caught.value.why.startswith("the ones nearest to it are application_1000_0012, application_2000_0002")
