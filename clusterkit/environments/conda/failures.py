"""What rattler says when it fails, in three lines."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clusterkit.errors import ClusterkitError, ImageError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.environments.conda.request import Request
    from clusterkit.environments.lock import Lock, LockedPackage

_NAME = re.compile(r"^(?:[^\s\[]*::)?\s*([A-Za-z0-9_.-]+)")
_LOGIN = "put the login into ~/.netrc (machine HOST login NAME password SECRET), or into the file of RATTLER_AUTH_FILE"
_REACH = (
    "check its name and the network (HTTPS_PROXY, a mirror in `channels`); a folder of packages is a channel once it "
    "is indexed: file:///path"
)
_HASH = re.compile(r"hash mismatch|mismatch.*sha256|sha256.*mismatch|hash.*(did|does) not match", re.IGNORECASE)


@contextmanager
def translated(asked: Request) -> Iterator[None]:
    """Raise what a solve raises as a SpecError where the request is at fault, as an ImageError otherwise."""
    try:
        yield
    except ClusterkitError:
        raise
    except BaseException as exc:
        name, text = type(exc).__name__, _cleaned(exc)
        if name == "SolverError":
            raise _unsolvable(asked, text) from exc
        if name in {"InvalidMatchSpecError", "InvalidPackageNameError", "InvalidVersionSpecError"}:
            raise _malformed(asked, text) from exc
        if name in {"InvalidChannelError", "InvalidUrlError"}:
            raise _channel(asked, text) from exc
        if name in {"GatewayError", "FetchRepoDataError", "IoError", "CacheDirError", "PanicException"}:
            raise _unreachable(asked, text) from exc
        raise


@contextmanager
def installed(lock: Lock) -> Iterator[None]:
    """Raise what an installation raises as an ImageError that names the package."""
    try:
        yield
    except ClusterkitError:
        raise
    except BaseException as exc:
        if type(exc).__module__.partition(".")[0] not in {"exceptions", "rattler", "pyo3_runtime"}:
            raise
        text = _cleaned(exc)
        package = next((p for p in lock.packages if p.url and p.url.rpartition("/")[2] in text), None)
        package = package or next((p for p in lock.packages if re.search(rf"\b{re.escape(p.name)}\b", text)), None)
        if package is not None and _HASH.search(text):
            raise drifted(package, text) from exc
        raise ImageError(
            f"{package.name if package else 'the environment'} was not installed",
            why=text,
            mend="check the channel and the room on this disk, then `clusterkit env build` again",
        ) from exc


def drifted(package: LockedPackage, why: str) -> ImageError:
    """Return the error about a package that is not the one in the lock."""
    return ImageError(
        f"{package.name} is not the package that was locked ({package.version} {package.build})".replace(" )", ")"),
        why=why,
        mend=f"if {package.name} was built again on purpose, lock it anew with `clusterkit env lock`; otherwise find "
        f"out who changed {package.url or 'it'}",
    )


def _unsolvable(asked: Request, text: str) -> SpecError:
    text = text.removeprefix("Cannot solve the request because of:").strip()
    named = [spec for spec in asked.specs if re.search(rf"(?<![\w.-]){re.escape(_name_of(spec))}(?![\w.-])", text)]
    place = next((asked.places[spec] for spec in named if spec in asked.places), None)
    return SpecError(
        "no set of packages fulfils the environment",
        why=text,
        mend=_mend(text, asked),
        key="packages",
        place=place,
    )


def _mend(text: str, asked: Request) -> str:
    if "__glibc" in text:
        return "ask for older versions: the nodes' glibc is older than these need"
    if "constraint libblas" in text or "constraint blas" in text:
        return "leave out `blas`, or loosen the version that has no build for that BLAS"
    if "No candidates were found" in text:
        return f"correct the name or version, or add the channel that has it to {', '.join(asked.channels)}"
    return "loosen one of the versions that exclude each other"


def _malformed(asked: Request, text: str) -> SpecError:
    spec = next((spec for spec in (*asked.specs, *asked.constraints) if not _parses(spec)), "")
    return SpecError(
        f"{spec!r} is no conda package specification",
        why=text,
        mend="write it as conda does: `numpy`, `numpy=2.1`, `numpy>=2,<3`, `libblas=*=*mkl`",
        key="packages",
        place=asked.places.get(spec),
    )


def _parses(spec: str) -> bool:
    import rattler  # noqa: PLC0415

    try:
        rattler.MatchSpec(spec)
    except Exception:  # noqa: BLE001 - any of rattler's errors means no
        return False
    return True


def _channel(asked: Request, text: str) -> SpecError:
    return SpecError(
        "a channel cannot be used",
        why=text,
        mend=f"correct channels: {', '.join(asked.channels)}",
        key="channels",
        place=next((asked.places[name] for name in asked.channels if name in asked.places), None),
    )


def _unreachable(asked: Request, text: str) -> ImageError:
    named = next((name for name in asked.channels if name.rstrip("/") in text), ", ".join(asked.channels))
    mend = _LOGIN if re.search(r"\((401|403) ", text) else _REACH
    return ImageError(f"the channel {named} cannot be read", why=text, mend=mend)


def _name_of(spec: str) -> str:
    found = _NAME.match(spec.rpartition("::")[2])
    return found[1].lower() if found else spec


def _cleaned(error: BaseException | Any) -> str:
    """Return what an error says; of a chain of causes the first and the last."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    said = [line for line in lines if not line.startswith("Caused by: ")]
    return "\n".join(said) + (f": {causes[-1]}" if causes else "") or type(error).__name__
