"""`clusterkit env`: environments, their images, and where these are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clusterkit.cli.options import flags_from, settings_options
from clusterkit.cli.output import Progress, print_json, print_table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.environments.lock import Lock
    from clusterkit.environments.manifest import Manifest
    from clusterkit.settings import Settings
    from clusterkit.specs.environment import EnvironmentSpec
    from clusterkit.store.gc import GcPlan
    from clusterkit.store.store import Store

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_env = click.argument("env", required=False)
_reference = click.argument("image")
_where = settings_options("cluster")
_blas = settings_options("blas")


@click.group("env")
def command() -> None:
    """Lock, build and look after environments.

    ENV is a name in [environments] of clusterkit.toml, or a path: an environment.yml, a requirements.txt, a project, a
    virtual environment or a conda prefix. Without it, it is the setting env, else the Python that runs clusterkit.
    IMAGE is an environment's name, or the beginning of an image's id. Images are kept on this machine, and with
    --cluster NAME on HDFS.
    """


@command.command("build")
@_env
@_blas
@click.option("--locked", is_flag=True, help="Install exactly what the lock says, and refuse everything else.")
@click.option(
    "--lock", "lock_path", type=click.Path(path_type=Path), metavar="FILE", help="The lock, instead of its usual place."
)
@click.option("--native", is_flag=True, help="For the native transport: one archive that YARN unpacks.")
@_json_option
def build(env: str | None, lock_path: Path | None, *, locked: bool, native: bool, as_json: bool, **given: Any) -> None:
    """Build the image of an environment: installed, linked, proved and packed.

    What did not change is not done again.
    """
    from clusterkit.environments import lock_file, sources
    from clusterkit.launch import images

    settings, spec = _specified(env, given)
    lock: Lock | None = None
    if locked or lock_path is not None:
        path = lock_path or lock_file.place(spec)
        lock = lock_file.load(path)
        lock_file.check_request(lock, path, sources.request(spec), spec.name)
    with Progress() as progress:
        built = images.build(spec, settings, lock=lock, native=native, tell=progress.stage)
    if as_json:
        print_json(_document(built.manifest))
    else:
        _print_facts(_facts(built.manifest))


@command.command("lock")
@_env
@_blas
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it.")
def lock(env: str | None, output: Path | None, **given: Any) -> None:
    """Write every package of an environment, with version, build and digest, to a file.

    It is NAME.lock beside the environment's source. A description is solved again: newer packages are taken.
    """
    from clusterkit.environments import lock_file, sources

    settings, spec = _specified(env, given)
    with Progress() as progress:
        found = sources.solved(spec, cache_dir=settings.cache_dir, again=True, said=progress.stage)
    path = output or lock_file.place(spec)
    lock_file.save(found, path)
    click.echo(f"{path}: {len(found.packages)} packages, Python {found.python}, {found.platform}")


@command.command("ls")
@_where
@_json_option
def ls(cluster: str | None, *, as_json: bool) -> None:
    """List images, the one used last first."""
    from clusterkit import units
    from clusterkit.store.images import images

    found = images(_store(cluster)[1])
    if as_json:
        print_json([{**_slots(each)} for each in found])
        return
    rows = [
        (
            each.id[:12],
            each.name,
            each.owner,
            ", ".join(each.names) or None,
            each.blas or None,
            each.packages,
            units.format_bytes(each.own_bytes),
            units.format_bytes(each.shared_bytes),
            f"{each.last_used.astimezone():%Y-%m-%d %H:%M}",
        )
        for each in found
    ]
    print_table(("IMAGE", "BUILT AS", "OWNER", "NAMES", "BLAS", "PACKAGES", "OWN", "SHARED", "LAST USED"), rows)


@command.command("show")
@_where
@_json_option
@_reference
def show(cluster: str | None, image: str, *, as_json: bool) -> None:
    """Print what is in an image, and the proof of what it claims."""
    manifest = _manifest(_store(cluster)[1], image)
    if as_json:
        print_json(_document(manifest))
        return
    _print_facts(_facts(manifest))
    print_table(
        ("PACKAGE", "VERSION", "BUILD", "SHA-256"),
        [(each.name, each.version, each.build or None, each.sha256[:12] or None) for each in manifest.packages],
    )


@command.command("diff")
@_where
@_json_option
@click.argument("before")
@click.argument("after")
def diff(cluster: str | None, before: str, after: str, *, as_json: bool) -> None:
    """Print in what one image differs from another: packages, layers, and the bytes that would travel."""
    from clusterkit import units
    from clusterkit.store import images

    store = _store(cluster)[1]
    found = images.diff(_manifest(store, before), _manifest(store, after))
    if as_json:
        print_json({**_slots(found), "added_bytes": found.added_bytes, "removed_bytes": found.removed_bytes})
        return
    if found.packages:
        print_table(
            ("PACKAGE", "BEFORE", "AFTER"),
            [(each.name, each.before or None, each.after or None) for each in found.packages],
        )
    for word, layers in (("added", found.added), ("removed", found.removed), ("kept", found.kept)):
        for layer in layers:
            click.echo(f"{word:8} {layer.kind} {layer.name}, {units.format_bytes(layer.size_bytes)}")
    click.echo(f"{units.format_bytes(found.added_bytes)} to send where the first one is")


@command.command("put")
@settings_options("cluster", "transport", "blas")
@_env
def put(env: str | None, **given: Any) -> None:
    """Build an environment, and put its image on the cluster before a job needs it."""
    from clusterkit import units
    from clusterkit.launch import images
    from clusterkit.launch.clusters import find_cluster

    settings, spec = _specified(env, given)
    with Progress() as progress:
        found = find_cluster(settings, environ=os.environ, start=progress.stage)
        shipment = images.shipment(spec, None, settings, found, tell=progress.stage)
        report = shipment.ship(progress.stage)
    sent = units.format_bytes(report.uploaded_bytes)
    click.echo(
        f"{shipment.manifest.id[:12]} is on {found.name}: {len(report.uploaded)} files sent ({sent}), "
        f"{len(report.hits)} were there"
    )


@command.command("gc")
@_where
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and delete nothing.")
@click.option(
    "--unused", type=click.IntRange(min=0), metavar="DAYS", help="Give up images unused for so long. Default: 30."
)
@click.option("--limit", metavar="SIZE", help="Give up the images unused for longest until all fit into this size.")
@_json_option
def gc(cluster: str | None, unused: int | None, limit: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Delete what no name, no recent use, no manifest and no running application needs."""
    from clusterkit.store import gc as collector

    found, store = _store(cluster)
    planned = collector.plan(store, _running(found), _policy(unused, limit))
    if as_json:
        print_json({"garbage": [_slots(each) for each in planned.garbage], "freed_bytes": planned.freed_bytes})
    else:
        _print_garbage(planned)
    if not dry_run:
        with Progress() as progress:
            swept = collector.sweep(store, planned, said=progress.stage)
        if not as_json:
            click.echo(f"deleted {len(swept.deleted)}, spared {len(swept.spared)} that are needed again")


@command.command("rm")
@_where
@click.argument("name")
def rm(cluster: str | None, name: str) -> None:
    """Forget a name of yours; `clusterkit env gc` deletes its images when nothing else needs them."""
    from clusterkit.errors import SpecError
    from clusterkit.store import names

    store = _store(cluster)[1]
    if not names.remove(store, name):
        raise SpecError(
            f"there is no environment named {name} in {store.uri}",
            why=f"{store.user} has no such name there",
            mend="`clusterkit env ls` lists them",
        )
    click.echo(f"{name} is forgotten")


@command.command("verify")
@_where
@click.option("--quick", is_flag=True, help="Compare sizes only; nothing is read.")
@click.option("--repair", is_flag=True, help="Delete what is broken and yours; the next build or submit puts it again.")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
def verify(cluster: str | None, images: tuple[str, ...], *, quick: bool, repair: bool) -> int:
    """Read every layer and compare its digest; the exit code is 1 when something is wrong."""
    from clusterkit import units
    from clusterkit.store import names
    from clusterkit.store import verify as verifier

    store = _store(cluster)[1]
    ids = [names.find(store, image) for image in images] or None
    with Progress() as progress:
        found = verifier.verify(store, ids, quick=quick, said=progress.stage)
    for finding in found.findings:
        click.echo(f"{finding.what}: {visible(finding.why)}\n  {finding.uri}\n  Mend: {finding.mend}")
    click.echo(
        f"{found.images} images, {found.files} files, {units.format_bytes(found.read_bytes)} read: "
        f"{len(found.findings) or 'nothing'} wrong"
    )
    if repair:
        deleted = verifier.repair(store, found.findings)
        click.echo(f"deleted {len(deleted)}")
    return 1 if found.findings else 0


@command.command("export")
@_env
@_blas
@click.option(
    "--format",
    "kind",
    type=click.Choice(("conda-pack", "parcel")),
    default="conda-pack",
    show_default=True,
    help="What to write.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="The archive; a directory for a parcel."
)
@click.option("--prefix", default="", metavar="PATH", help="Where it will lie; conda-unpack is then not needed.")
@click.option(
    "--distro", default="el8", show_default=True, metavar="NAME", help="The nodes' distribution, for a parcel."
)
def export(env: str | None, kind: str, output: Path | None, prefix: str, distro: str, **given: Any) -> None:
    """Write an environment as an archive for clusters without clusterkit."""
    from clusterkit.environments import build as builder
    from clusterkit.environments import export as exporter
    from clusterkit.environments import sources

    settings, spec = _specified(env, given)
    with Progress() as progress:
        source = sources.find(spec, cache_dir=settings.cache_dir, said=progress.stage)
        with builder.linked(spec, source, cache_dir=settings.cache_dir, said=progress.stage) as found:
            if kind == "parcel":
                parcel = exporter.Parcel(spec.name.replace("-", "_"), distro=distro)
                path = exporter.parcel(found.tree, output or Path.cwd(), parcel, said=progress.stage)
            else:
                target = output or Path.cwd() / f"{spec.name}.tar.gz"
                path = exporter.conda_pack(found.tree, target, destination=prefix, said=progress.stage)
    click.echo(path)


def _specified(env: str | None, given: dict[str, Any] | None = None) -> tuple[Settings, EnvironmentSpec]:
    """Return the environment that a command is about."""
    from clusterkit import settings
    from clusterkit.launch import images

    loaded = settings.load(flags_from({**(given or {}), "env": env}), environ=os.environ)
    return loaded, images.specification(loaded)


def _store(cluster: str | None) -> tuple[Any, Store]:
    """Return the store of this machine, or of a cluster where one is named; and that cluster."""
    from clusterkit import settings
    from clusterkit.launch import images
    from clusterkit.launch.clusters import find_cluster

    loaded = settings.load(flags_from({"cluster": cluster}), environ=os.environ)
    if loaded.cluster is None:
        return None, images.local_store(loaded)
    found = find_cluster(loaded, environ=os.environ)
    return found, images.cluster_store(loaded, found)


def _manifest(store: Store, image: str) -> Manifest:
    from clusterkit.store import names

    return store.load(names.find(store, image))


def _running(cluster: Any) -> list[str]:
    """Return the images of the applications that run on a cluster."""
    from clusterkit.launch import images

    return [] if cluster is None else images.running(cluster)


def _policy(unused: int | None, limit: str | None) -> Any:
    from datetime import timedelta

    from clusterkit import units
    from clusterkit.store.gc import Policy

    plain = Policy()
    return Policy(
        unused=plain.unused if unused is None else timedelta(days=unused),
        named=plain.named if unused is None else max(plain.named, timedelta(days=unused)),
        limit_bytes=None if limit is None else units.parse_memory(limit) << 20,
    )


def _print_garbage(planned: GcPlan) -> None:
    from clusterkit import units

    for each in planned.garbage:
        click.echo(f"{units.format_bytes(each.size_bytes):>10}  {each.what}")
    for each in planned.others:
        click.echo(f"{units.format_bytes(each.size_bytes):>10}  {each.what}; only {each.owner} may delete it")
    click.echo(
        f"{units.format_bytes(planned.freed_bytes)} to delete, {units.format_bytes(planned.kept_bytes)} are kept"
    )


def _document(manifest: Manifest) -> dict[str, Any]:
    import msgspec

    return {"id": manifest.id, **msgspec.to_builtins(manifest)}


def _slots(value: Any) -> dict[str, Any]:
    """Return a value of the store as plain values."""
    import dataclasses

    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(dataclasses.asdict(value), enc_hook=str)
    return plain


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what people want to know of an image, label and text."""
    from clusterkit import units

    yield "image", manifest.id
    yield "name", manifest.name
    yield "built", manifest.created
    yield "python", f"{manifest.python} for {manifest.platform}, glibc {manifest.glibc or 'of any version'}"
    yield "lock", manifest.lock
    yield "packages", str(len(manifest.packages))
    for layer in manifest.layers:
        stored = ", ".join(f"{units.format_bytes(each.size_bytes)} as {form}" for form, each in layer.stored.items())
        yield f"layer {layer.kind}", f"{layer.name}: {units.format_bytes(layer.size_bytes)}, {stored}"
    proof = manifest.proof
    if proof is None:
        return
    yield "blas", f"{proof.blas or 'none'}{f', asked for: {manifest.blas}' if manifest.blas else ''}"
    for library in proof.libraries:
        yield f"mapped {library.api}", " ".join(filter(None, (library.version, library.threading, library.path)))
    for name, found in proof.checks.items():
        yield f"proved {name}", found
    for name, change in proof.accelerated.items():
        yield f"accelerated {name}", change
    for note in proof.notes:
        yield "note", note
    yield "proved in", f"{units.format_duration(proof.seconds)} on {proof.cpu}"


def _print_facts(facts: Iterator[tuple[str, str]]) -> None:
    listed = list(facts)
    width = max(len(label) for label, _ in listed)
    for label, text in listed:
        click.echo(f"{label:{width}}  {visible(text)}")
