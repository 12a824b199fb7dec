"""How an environment is split into layers: what changes together lies together."""

from __future__ import annotations

import pytest

from clusterkit.environments import layers
from clusterkit.environments.layers import LARGE_BYTES, LARGE_LAYERS, Part
from clusterkit.environments.tar_stream import Directory
from clusterkit.environments.tree import Code, File, Link, Tree
from clusterkit.errors import ImageError

CODE = File("shop/__init__.py", b"", 0o644, 0)


def file(path: str, package: str = "", *, size_bytes: int = 1, bake: str | None = None) -> File:
    return File(path=path, source=b"", mode=0o644, size_bytes=size_bytes, package=package, bake=bake)


def tree(*files: File, links: tuple[Link, ...] = (), code: tuple[Code, ...] = (), **more: object) -> Tree:
    return Tree(python="3.11.7", platform="linux-64", files=files, links=links, code=code, **more)


def test_each_reason_to_change_has_a_layer() -> None:
    """Interpreter, each large package, the rest, what holds the prefix, Java, and each folder of the user's code."""
    python, stdlib = file("bin/python3.11", "python"), file("lib/python3.11/os.py", "python")
    mkl, mkl_config = file("lib/libmkl_rt.so", "mkl", size_bytes=LARGE_BYTES), file("etc/mkl", "mkl", bake="text")
    six, nobody, script = file("six.py", "six"), file("share/notes"), file("bin/six", "six", bake="shebang")
    java, link, mkl_link = (
        file("jdk/release", "java"),
        Link("bin/python", "python3.11", "python"),
        Link("l", "m", "mkl"),
    )
    whole = tree(
        python,
        stdlib,
        mkl,
        mkl_config,
        six,
        nobody,
        script,
        java,
        links=(link, mkl_link),
        code=(Code("shop", (CODE,)), Code("empty", ())),
        directories=("var",),
    )
    assert layers.split(whole) == (
        Part("interpreter", "python", (python, stdlib, link)),
        Part("binaries", "mkl", (mkl, mkl_link)),
        Part("packages", "packages", (nobody, Directory("var"), six)),
        Part("prefix", "prefix", (mkl_config, script)),
        Part("java", "java", (java,)),
        Part("code", "shop", (CODE,)),
    )


def test_the_layer_of_the_prefix_tells_how_it_stands_in_each_file() -> None:
    """A node needs to know which files to write, and how."""
    whole = tree(file("bin/f2py", "numpy", bake="shebang"), file("lib/x.so", "x", bake="binary"))
    assert [part.bake for part in layers.split(whole)] == [{"bin/f2py": "shebang", "lib/x.so": "binary"}]


def test_a_package_has_a_layer_from_32_mib_on() -> None:
    """The size of all its files counts, of those in a layer of their own too little."""
    whole = tree(
        file("a/1", "just", size_bytes=LARGE_BYTES - 1),
        file("a/2", "just", size_bytes=1),
        file("b", "below", size_bytes=LARGE_BYTES - 1),
        file("c", "baked", size_bytes=LARGE_BYTES, bake="text"),
        file("d", "", size_bytes=LARGE_BYTES),
    )
    assert [(part.kind, part.name) for part in layers.split(whole)] == [
        ("binaries", "just"),
        ("packages", "packages"),
        ("prefix", "prefix"),
    ]


def test_there_are_never_more_than_a_few_layers() -> None:
    """Of very many large packages the largest have layers, and the others share one."""
    sizes = {f"package{number:02}": LARGE_BYTES + number for number in range(30)}
    parts = layers.split(tree(*(file(name, name, size_bytes=size) for name, size in sizes.items())))
    assert [part.name for part in parts] == [*sorted(sizes)[-LARGE_LAYERS:], "packages"]
    assert len(parts[-1].entries) == 30 - LARGE_LAYERS


def test_another_version_of_a_package_changes_its_layer_alone() -> None:
    """All other layers hold the same entries, so they keep their digests."""
    others = (file("lib/mkl.so", "mkl", size_bytes=2 * LARGE_BYTES), file("six.py", "six"), file("x", bake="text"))
    old = layers.split(tree(*others, file("numpy/a.so", "numpy", size_bytes=LARGE_BYTES)))
    new = layers.split(tree(*others, file("numpy/b.so", "numpy", size_bytes=LARGE_BYTES + 5)))
    assert [one.name for one, other in zip(old, new, strict=True) if one != other] == ["numpy"]


def test_an_empty_tree_has_no_layers() -> None:
    """Nothing is packed for nothing."""
    assert layers.split(tree()) == ()


def test_two_owners_of_one_path_are_named() -> None:
    """An archive holds each path once, so two packages that both brought it are refused by name."""
    with pytest.raises(ImageError) as raised:
        layers.split(tree(file("bin/x", "one"), file("bin/x", "two")))
    assert raised.value.why == "the path 'bin/x' is there twice, from one and two"


def test_a_link_and_a_file_cannot_have_one_path() -> None:
    """A path is a path, whatever stands at it."""
    with pytest.raises(ImageError, match="not packed") as raised:
        layers.split(tree(file("bin/x"), links=(Link("bin/x", "y", "two"),)))
    assert raised.value.why == "the path 'bin/x' is there twice, from no package and two"


def test_a_file_cannot_be_a_directory_too() -> None:
    """What lies below a file can be unpacked nowhere."""
    with pytest.raises(ImageError) as raised:
        layers.split(tree(file("lib", "one"), file("lib/deep/x", "two")))
    assert raised.value.why == "'lib' of one is a file, and a directory of another package"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b", ".."])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    """No archive of ours holds a path that an extractor has to refuse; neither does the user's code."""
    with pytest.raises(ImageError, match="not packed"):
        layers.split(tree(file(path, "evil")))
    with pytest.raises(ImageError, match="shop was not packed"):
        layers.split(tree(code=(Code("shop", (file(path),)),)))


@pytest.mark.parametrize("target", ["/etc", "../../etc", "deep/../../x", "lib/lib/.."])
def test_a_link_that_may_lead_out_is_refused(target):
    """A link that nodes would refuse is refused where it is packed, with the package that brought it."""
    with pytest.raises(ImageError) as caught:
        layers.check([Link("lib/door", target, "evil")], "the environment")
    assert caught.value.why == f"the link 'lib/door' of evil may lead out of it: {target!r}"
