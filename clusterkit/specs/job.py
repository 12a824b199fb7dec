"""A Spark job: what is to run, with what, and every check that needs no cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from clusterkit.errors import SpecError
from clusterkit.specs import attachments, python_source
from clusterkit.specs.resources import Resources, check_heap

if TYPE_CHECKING:
    from clusterkit.settings import Settings

_QUEUE = re.compile(r"\w[\w-]*(\.\w[\w-]*)*")
_PRINCIPAL = re.compile(r"[^/@\s]+(/[^/@\s]+)?(@[^/@\s]+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPLACED_BY_YARN = re.compile(r"\{\{|\}\}|<CPS>|<LOG_DIR>")
_COORDINATE = re.compile(r"[\w.-]+:[\w.-]+:[\w.+-]+")
_SAME = (
    "deploy_mode",
    "queue",
    "dynamic_allocation",
    "properties_file",
    "py_files",
    "files",
    "jars",
    "packages",
    "archives",
    "principal",
    "keytab",
    "env_vars",
    "env",
)


SESSION = Path("pyspark-shell")
"""What stands in the place of a job file where Python itself is the driver: Spark's own word for it."""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One PySpark job; a value that exists has legal sizes and names.

    Parameters
    ----------
    job : Path
        The job file, absolute.
    name : str
        The application's name.
    args : tuple of str
        What the job finds in `sys.argv[1:]`.
    deploy_mode : str
        `client` (the driver runs here) or `cluster` (it runs under YARN).
    queue : str
        The YARN queue.
    executor : Resources
        What the executors get.
    driver_memory_mib : int or None
        The driver's heap in MiB, >= 450; None leaves it to Spark.
    dynamic_allocation : bool or None
        Whether Spark asks for executors as it needs them; None leaves it to Spark.
    conf : mapping of str to str
        Spark's own configuration, verbatim.
    properties_file : Path or None
        A file of Spark properties, below everything else.
    py_files, files, jars, archives : tuple of str
        Absolute local paths and URIs, `#alias` where one is wanted.
    packages : tuple of str
        Maven coordinates.
    principal, keytab : str, Path or None
        The Kerberos identity; both or none.
    env_vars : mapping of str to str
        Environment variables of driver and executors.
    env : str or None
        The environment it runs in: a name in the settings, or a path.
    """

    job: Path
    name: str
    args: tuple[str, ...] = ()
    deploy_mode: Literal["client", "cluster"] = "client"
    queue: str = "default"
    executor: Resources = Resources()
    driver_memory_mib: int | None = None
    dynamic_allocation: bool | None = None
    conf: Mapping[str, str] = {}
    properties_file: Path | None = None
    py_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    principal: str | None = None
    keytab: Path | None = None
    env_vars: Mapping[str, str] = {}
    env: str | None = None

    def __post_init__(self) -> None:
        check_heap("driver.memory", self.driver_memory_mib)
        _check_queue(self.queue)
        _check_args(self.args, self.deploy_mode)
        _check_packages(self.packages)
        _check_variables(self.env_vars)
        _check_identity(self.principal, self.keytab)

    @classmethod
    def from_settings(cls, settings: Settings, job: Path, args: Sequence[str] = ()) -> JobSpec:
        """Return the specification of a job, checked as far as this machine can tell.

        Parameters
        ----------
        settings : Settings
            The resolved settings.
        job : Path
            The job file; relative to the working directory.
        args : sequence of str
            The job's own arguments.

        Raises
        ------
        SpecError
            If the job or a file it names is missing, cannot be read or is not what it should be, if a size, queue or
            name is not legal, or if the job is not valid Python.
        """
        with _placed(settings):
            spec = cls(job=job.absolute(), args=tuple(args), **_from_settings(settings, job))
            python_source.check_job(spec.job)
            spec.check_files()
        return spec

    @classmethod
    def for_session(cls, settings: Settings, name: str) -> JobSpec:
        """Return the specification of a session in this Python: no job file, the driver here.

        Parameters
        ----------
        settings : Settings
            The resolved settings; `deploy_mode` is of no account.
        name : str
            The application's name.

        Raises
        ------
        SpecError
            As `from_settings` does.
        """
        with _placed(settings):
            spec = cls(job=SESSION, **_from_settings(settings, Path(name)) | {"deploy_mode": "client"})
            spec.check_files()
        return spec

    def check_files(self) -> None:
        """Check every file on this machine that goes with the job.

        Raises
        ------
        SpecError
            If one is missing, cannot be read, or cannot be sent.
        """
        for key, path in (("properties_file", self.properties_file), ("keytab", self.keytab)):
            if path is not None:
                attachments.check_readable(key, path)
        attachments.check(self.attachments())
        for entry in self.py_files:
            python_source.check_module(entry)

    def attachments(self) -> Mapping[str, tuple[str, ...]]:
        """Return the files that travel with the job, by setting."""
        return {"py_files": self.py_files, "files": self.files, "jars": self.jars, "archives": self.archives}


@contextmanager
def _placed(settings: Settings) -> Iterator[None]:
    """Add to an error about a key the place where the settings have it from."""
    try:
        yield
    except SpecError as exc:
        place = settings.origin(exc.key).place if exc.key else ""
        if not place:
            raise
        raise exc.at(place) from exc


def _from_settings(settings: Settings, job: Path) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in _SAME} | {
        "name": settings.name or "".join(letter if letter.isprintable() else "_" for letter in job.name),
        "executor": Resources(
            count=settings.executor.count, memory_mib=settings.executor.memory, cores=settings.executor.cores
        ),
        "driver_memory_mib": settings.driver.memory,
        "conf": settings.spark.conf,
    }


def _check_queue(queue: str) -> None:
    if not _QUEUE.fullmatch(queue):
        raise SpecError(
            f"{queue!r} is not the name of a queue",
            why="YARN's queues are letters, digits, '-' and '_', with dots between parents and children",
            mend="correct queue; `clusterkit cluster status` lists the queues",
            key="queue",
        )


def _check_args(args: Iterable[str], deploy_mode: str) -> None:
    """Refuse what a job would not find in `sys.argv` as it was given.

    References
    ----------
    `ContainerLaunch.expandEnvironment`, Hadoop 3.3 to 3.5: what it replaces cannot be quoted in a command.
    """
    for arg in args:
        if "\0" in arg:
            raise SpecError(
                "an argument of the job cannot be passed on",
                why="it holds a NUL",
                mend="correct args of clusterkit.submit()",
            )
        found = _REPLACED_BY_YARN.search(arg) if deploy_mode == "cluster" else None
        if found is not None:
            raise SpecError(
                f"the argument {arg!r} cannot be passed on in cluster mode",
                why=f"YARN replaces {found[0]} in the command that starts the driver",
                mend="write a space between the two, as JSON allows, pass it with --env-var or in one of --files, "
                "or use --deploy-mode client",
            )


def _check_packages(packages: Iterable[str]) -> None:
    for coordinate in packages:
        if not _COORDINATE.fullmatch(coordinate):
            raise SpecError(
                f"{coordinate!r} is no package",
                why="a package is written group:artifact:version",
                mend="correct packages, as in org.apache.spark:spark-avro_2.13:4.1.0",
                key="packages",
            )


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise SpecError(
                f"the environment variable {name!r} cannot be set",
                why="a name is letters, digits and '_', and a value holds no NUL",
                mend="correct env_vars",
                key="env_vars",
            )


def _check_identity(principal: str | None, keytab: Path | None) -> None:
    if principal is not None and not _PRINCIPAL.fullmatch(principal):
        raise SpecError(
            f"{principal!r} is no Kerberos principal",
            why="a principal is written name@REALM or name/host@REALM",
            mend="correct principal",
            key="principal",
        )
    if (principal is None) != (keytab is None):
        given, missing = ("keytab", "principal") if principal is None else ("principal", "keytab")
        raise SpecError(
            f"{given} cannot be used without {missing}",
            why="Spark logs in with both of them together",
            mend=f"set {missing} as well, or neither and use the tickets of `kinit`",
            key=given,
        )
