"""conda-pack's archives and parcels, and where conda-pack alone is silently wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import warnings
from typing import TYPE_CHECKING

import conda_pack
import pytest

from clusterkit.environments import conda, export
from clusterkit.environments.export import Parcel
from clusterkit.errors import ImageError, SpecError
from clusterkit.specs.environment import EnvironmentSpec

from .conda_channel import MINOR, Channel, demo
from .conftest import called

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc: a binary with a prefix in it cannot be made"),
]


def installed(channel: Channel, prefix: Path, cache: Path, *names: str) -> Path:
    spec = EnvironmentSpec(name="it", packages=names, channels=(channel.url,))
    conda.install(conda.lock(spec, cache_dir=cache), prefix, cache_dir=cache)
    return prefix


def unpacked(archive: Path, there: Path, *, finish: bool = False) -> Path:
    there.mkdir(parents=True)
    called(["tar", "-xf", archive, "-C", there])
    if finish:
        called([there / "bin" / "python", there / "bin" / "conda-unpack"])
    return there


def run(program: Path, *args: str) -> tuple[int, str]:
    """Run a program without a PATH."""
    done = subprocess.run([str(program), *args], capture_output=True, text=True, check=False, env={})
    return done.returncode, done.stdout


def of_conda_pack(prefix: Path, archive: Path, **options) -> Path:
    """Pack as conda-pack does by itself; its warnings are of no account, as on a command line that scrolls by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conda_pack.pack(prefix=str(prefix), output=str(archive), compress_level=0, **options)
    return archive


@pytest.fixture
def away(conda_prefix: Path, tmp_path: Path):
    """A prefix of its own, that can be moved out of the way: what is run must not find its origin."""

    def copy(channel: Channel, cache: Path) -> Path:
        return installed(channel, tmp_path / "origin", cache, "ckdemo", "ckconf", "hello-prefix")

    return copy


def test_without_its_package_cache(channel: Channel, away, tmp_path: Path):
    """The cache was cleaned: conda-pack leaves this machine's prefix in a binary, and says nothing; ours is right."""
    cache = tmp_path / "cache"
    prefix = away(channel, cache)
    shutil.rmtree(cache)
    theirs = of_conda_pack(prefix, tmp_path / "theirs.tar")
    ours = export.conda_pack(conda.read(prefix), tmp_path / "ours.tar", format="tar")
    prefix.rename(tmp_path / "hidden")

    there = unpacked(theirs, tmp_path / "theirs", finish=True)
    assert run(there / "bin" / "hello") == (3, "")
    assert str(prefix).encode() in (there / "bin" / "hello").read_bytes()
    there = unpacked(ours, tmp_path / "ours", finish=True)
    assert run(there / "bin" / "hello", "x") == (0, f"{there}/a:{there}/b\nhello from the prefix\n")
    assert str(prefix).encode() not in (there / "bin" / "hello").read_bytes()


def test_installed_for_another_path(channel: Channel, conda_cache: Path, tmp_path: Path):
    """The prefix was baked for its final path at installation: conda-pack brings placeholders back; ours keeps it."""
    import asyncio

    import rattler

    final = tmp_path / "final"
    spec = EnvironmentSpec(name="it", packages=("ckconf", "hello-prefix"), channels=(channel.url,))
    records = [installing_record(package) for package in conda.lock(spec, cache_dir=conda_cache).packages]
    prefix = tmp_path / "staging"
    cache = conda_cache / "conda" / "packages"
    asyncio.run(rattler.install(records, prefix, cache_dir=cache, show_progress=False, alternative_target_prefix=final))
    theirs = of_conda_pack(prefix, tmp_path / "theirs.tar")
    ours = export.conda_pack(conda.read(prefix), tmp_path / "ours.tar", format="tar", destination=str(final))
    prefix.rename(tmp_path / "hidden")

    unpacked(theirs, final)
    assert run(final / "bin" / "hello") == (3, "")
    assert f"{final}/share" not in (final / "etc" / "ckconf.ini").read_text()
    shutil.rmtree(final)
    unpacked(ours, final)
    assert run(final / "bin" / "hello") == (0, "hello from the prefix\n")
    assert (final / "etc" / "ckconf.ini").read_text() == f"[paths]\nroot = {final}/share\nagain = {final}\n"
    assert run(final / "bin" / "ckconf") == (0, "conf\n")


def installing_record(package):
    from clusterkit.environments.conda.installing import _record

    return _record(package)


def test_a_noarch_package_without_link_json(channel: Channel, tmp_path: Path):
    """conda-pack takes the files of such a package for deleted; ours packs and runs it."""
    import dataclasses

    other = Channel(tmp_path / "other")
    shutil.copytree(channel.folder, other.folder)
    other.add(dataclasses.replace(demo("2.0"), has_link_json=False, entry_points=()))
    prefix = installed(other, tmp_path / "origin", tmp_path / "cache", "ckdemo>=2")

    with pytest.raises(conda_pack.CondaPackException, match="deleted/overwritten"):
        of_conda_pack(prefix, tmp_path / "theirs.tar")
    there = unpacked(export.conda_pack(conda.read(prefix), tmp_path / "ours.tar", format="tar"), tmp_path / "ours")
    assert run(there / "bin" / "python", "-c", "import ckdemo; ckdemo.main()") == (0, f"demo {there}\n")


def test_a_destination_longer_than_any_placeholder(conda_prefix: Path, tmp_path: Path):
    """conda-pack ends in a traceback; ours says what has no room."""
    long = "/opt/" + "d" * 260
    with pytest.raises(ValueError, match="negative padding"):
        of_conda_pack(conda_prefix, tmp_path / "theirs.tar", dest_prefix=long)
    with pytest.raises(ImageError) as raised:
        export.conda_pack(conda.read(conda_prefix), tmp_path / "ours.tar", format="tar", destination=long)
    assert raised.value.why == f"{long} is 265 bytes long, and there is room for 255"
    assert [path.name for path in tmp_path.iterdir()] == []


def test_scripts_do_not_ask_the_path(conda_prefix: Path, tmp_path: Path):
    """conda-pack's scripts run the Python that PATH has, or none; ours run the one beside them, before conda-unpack."""
    theirs = unpacked(of_conda_pack(conda_prefix, tmp_path / "theirs.tar"), tmp_path / "theirs")
    ours = unpacked(export.conda_pack(conda.read(conda_prefix), tmp_path / "o.tar", format="tar"), tmp_path / "o u r s")
    assert (theirs / "bin" / "ckdemo").read_text().startswith(f"#!/usr/bin/env python{MINOR}\n")
    assert run(ours / "bin" / "ckdemo") == (0, f"demo {ours}\n")
    link = tmp_path / "ckdemo"
    link.symlink_to(ours / "bin" / "ckdemo")
    assert run(link) == (0, f"demo {ours}\n")


def test_what_comes_with_conda_pack(conda_prefix: Path, tmp_path: Path):
    """The archive has conda-pack's own scripts, and a record of each package for `conda list`."""
    archive = export.conda_pack(conda.read(conda_prefix), tmp_path / "ours.tar.gz")
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        record = json.load(tar.extractfile("conda-meta/ckdemo-1.0-pyhd_0.json"))
    assert {"bin/activate", "bin/deactivate", "bin/conda-unpack", "bin/python", f"bin/python{MINOR}"} <= names
    assert (record["name"], record["version"], record["subdir"]) == ("ckdemo", "1.0", "noarch")
    assert "bin/ckdemo" in record["files"]
    assert archive.stat().st_mode & 0o777 == 0o644


def test_a_parcel(conda_prefix: Path, tmp_path: Path):
    """A parcel has the description that Cloudera Manager reads, and files that know where it will lie."""
    parcel = Parcel("science", "1.2", "el9", root=str(tmp_path / "parcels"))

    file = export.parcel(conda.read(conda_prefix), tmp_path, parcel)

    assert file == tmp_path / "science-1.2-el9.parcel"
    there = unpacked(file, tmp_path / "parcels") / "science-1.2"
    described = json.loads((there / "meta" / "parcel.json").read_text())
    assert (described["name"], described["version"], described["extraVersionInfo"]["fullVersion"]) == (
        "science",
        "1.2",
        "1.2-el9",
    )
    assert {"name": "ckdemo", "version": "1.0-pyhd_0"} in described["packages"]
    assert run(there / "bin" / "hello") == (0, "hello from the prefix\n")
    assert run(there / "bin" / "ckdemo") == (0, f"demo {there}\n")


@pytest.mark.parametrize(("key", "value"), [("name", "my-env"), ("version", "1-2"), ("distro", "el 9")])
def test_a_parcel_with_a_dash(key, value):
    """A dash would be read as the end of the name."""
    with pytest.raises(SpecError) as raised:
        Parcel(**{"name": "science", key: value})
    assert raised.value.what == f"{value!r} cannot be the {key} of a parcel"


def test_a_directory_that_is_not_there(conda_prefix: Path, tmp_path: Path):
    """An archive that cannot be written leaves nothing, and says where."""
    with pytest.raises(ImageError) as raised:
        export.conda_pack(conda.read(conda_prefix), tmp_path / "missing" / "ours.tar.gz")
    assert raised.value.mend == f"check {tmp_path / 'missing'} and the room on its disk"
