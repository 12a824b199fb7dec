from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.embedded.memory import node_memory_mib
from clusterkit.errors import SpecError
from clusterkit.specs import codec
from clusterkit.specs.cluster import ClusterSpec, parse_queues


def test_defaults_are_one_node_on_loopback():
    """Nothing asked for is one node with one queue, on the loopback address."""
    assert codec.to_mapping(ClusterSpec()) == {"queues": {"default": 100}}
    assert msgspec.structs.asdict(ClusterSpec()) == {
        "name": "default",
        "nodes": 1,
        "memory_mib": None,
        "queues": {"default": 100},
        "ha": False,
        "bind": "127.0.0.1",
        "insecure_bind": False,
    }


@pytest.mark.parametrize(
    ("asked", "what", "key"),
    [
        ({"nodes": 0}, "a cluster cannot have 0 nodes", "nodes"),
        ({"nodes": 5}, "a cluster cannot have 5 nodes", "nodes"),
        ({"name": ""}, "a cluster cannot be called ''", "name"),
        ({"name": "../x"}, "a cluster cannot be called '../x'", "name"),
        ({"name": "Größe"}, "a cluster cannot be called 'Größe'", "name"),
        ({"memory_mib": 1023}, "a node cannot work with 1023 MiB", "memory_mib"),
        ({"queues": {}}, "the shares of the queues add up to 0, not to 100", "queues"),
        ({"queues": {"a": 60, "b": 39}}, "the shares of the queues add up to 99, not to 100", "queues"),
        ({"queues": {"a": 101}}, "the queue 'a' cannot have a share of 101", "queues"),
        ({"queues": {"a": 100, "b": 0}}, "the queue 'b' cannot have a share of 0", "queues"),
        ({"queues": {"root": 100}}, "a queue cannot be called 'root'", "queues"),
        ({"queues": {"a.b": 100}}, "a queue cannot be called 'a.b'", "queues"),
        ({"bind": "localhost"}, "the cluster cannot listen on 'localhost'", "bind"),
        ({"bind": "0.0.0.0", "insecure_bind": True}, "the cluster cannot listen on 0.0.0.0", "bind"),  # noqa: S104 - refused
        ({"bind": "192.0.2.7"}, "the cluster was not let listen on 192.0.2.7", "bind"),
    ],
)
def test_what_cannot_be_is_refused(asked, what, key):
    """A value out of its range is refused in three lines that name the key."""
    with pytest.raises(SpecError) as caught:
        ClusterSpec(**asked)
    assert (caught.value.what, caught.value.key) == (what, key)
    assert str(caught.value).splitlines()[0] == what
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == ["Why", "Mend"]


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.3.2.1"])
def test_loopback_needs_no_permission(bind):
    """Every loopback address is fine; another one is when it is asked for explicitly."""
    assert ClusterSpec(bind=bind).bind == bind
    assert ClusterSpec(bind="192.0.2.7", insecure_bind=True).bind == "192.0.2.7"


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["batch"], "the queue 'batch' cannot be read"),
        (["=50"], "the queue '=50' cannot be read"),
        (["batch=half"], "the queue 'batch=half' cannot be read"),
        (["batch=-5"], "the queue 'batch=-5' cannot be read"),
        (["batch=12.5"], "the queue 'batch=12.5' cannot be read"),
        (["a=50", "a=50"], "the queue 'a' is given twice"),
    ],
)
def test_misspelt_queue_is_refused(texts, what):
    """A queue that is not a name and a whole percentage is refused."""
    with pytest.raises(SpecError) as caught:
        parse_queues(texts)
    assert (caught.value.what, caught.value.place) == (what, "--queue")


def test_queues_are_read_in_order():
    """Shares may carry a percent sign and spaces; the order is kept."""
    assert list(parse_queues(["z=20%", "a = 50 %", "m=30"]).items()) == [("z", 20), ("a", 50), ("m", 30)]


_queues = st.lists(st.integers(1, 99), max_size=6, unique=True).map(
    lambda cuts: {
        f"q{index}": high - low
        for index, (low, high) in enumerate(zip([0, *sorted(cuts)], [*sorted(cuts), 100], strict=True))
    }
)


@given(
    st.builds(
        ClusterSpec,
        name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
        nodes=st.integers(1, 4),
        memory_mib=st.none() | st.integers(1024, 1 << 20),
        queues=_queues,
        ha=st.booleans(),
    )
)
def test_round_trip(spec):
    """A specification survives JSON, TOML and YAML."""
    assert codec.from_json(ClusterSpec, codec.to_json(spec)) == spec
    assert codec.from_toml(ClusterSpec, codec.to_toml(spec)) == spec
    assert codec.from_yaml(ClusterSpec, codec.to_yaml(spec)) == spec


def test_unknown_key_is_refused():
    """A key that is no part of a cluster is refused with the nearest one."""
    with pytest.raises(SpecError, match="nodes"):
        codec.from_json(ClusterSpec, '{"node": 2}')


@pytest.mark.parametrize(
    ("spec", "machine_mib", "memory_mib"),
    [
        (ClusterSpec(), 24 * 1024, 17408),
        (ClusterSpec(), 8 * 1024, 5120),
        (ClusterSpec(nodes=4), 24 * 1024, 3840),
        (ClusterSpec(ha=True), 8 * 1024, 4096),
        (ClusterSpec(nodes=4), 2 * 1024, 1024),
        (ClusterSpec(memory_mib=3000), 8 * 1024, 3000),
    ],
)
def test_memory_of_a_node(spec, machine_mib, memory_mib):
    """A node gets its part of three quarters of the machine, less the daemons, and 1 GiB at least."""
    assert node_memory_mib(spec, machine_mib) == memory_mib
