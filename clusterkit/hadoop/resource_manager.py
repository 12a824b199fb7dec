"""YARN's ResourceManager through REST: the cluster, its queues, its applications.

References
----------
https://hadoop.apache.org/docs/r3.5.0/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit.errors import ApplicationError, ClusterError
from clusterkit.hadoop.rest import Answer, RemoteError, Rest, UnreachableError
from clusterkit.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from clusterkit.hadoop.configuration import Endpoint

FINAL_STATES = ("FINISHED", "FAILED", "KILLED")
"""The states an application does not leave."""

FAILOVER_S = 25.0
"""Seconds to wait for one ResourceManager of a pair to become active (ZooKeeper needs 10 s to see a dead one)."""

_RETRY_S = 0.25
_ROOT = "/ws/v1/cluster"
_APPLICATION_ID = re.compile(r"application_(\d+)_(\d{4,})")
_CONTAINER_ID = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_\d+")
_STANDBY = (b"This is standby RM", b"Can not find any active RM", b"There is no active RM")


class Resources(msgspec.Struct, frozen=True):
    """An amount of memory (MiB) and vcores."""

    memory_mib: int
    vcores: int


class ClusterInfo(msgspec.Struct, frozen=True):
    """The ResourceManager that answers: its version, state and start."""

    id: int
    state: str
    ha_state: str
    hadoop_version: str
    started: datetime | None


class Metrics(msgspec.Struct, frozen=True):
    """What the cluster has and uses."""

    total: Resources
    available: Resources
    allocated: Resources
    active_nodes: int
    unhealthy_nodes: int
    lost_nodes: int
    applications_running: int
    applications_pending: int


class Node(msgspec.Struct, frozen=True):
    """One NodeManager: its id (`host:port`), address for REST, state, and what is used and free on it."""

    id: str
    host: str
    http_address: str
    state: str
    health: str
    version: str
    containers: int
    used: Resources
    available: Resources
    labels: tuple[str, ...]
    last_heartbeat: datetime | None

    @property
    def total(self) -> Resources:
        """What the node offers."""
        return Resources(self.used.memory_mib + self.available.memory_mib, self.used.vcores + self.available.vcores)


class Queue(msgspec.Struct, frozen=True):
    """One leaf queue; capacities are percentages of the whole cluster.

    `am_limit` and `am_used` are what ApplicationMasters may and do use in it, None where the scheduler does not say.
    """

    name: str
    path: str
    state: str
    capacity: float
    max_capacity: float
    used_capacity: float
    used: Resources
    am_limit: Resources | None
    am_used: Resources | None
    user_am_limit: Resources | None
    max_allocation: Resources | None
    running: int
    pending: int


class Scheduler(msgspec.Struct, frozen=True):
    """The scheduler: its type, the largest container it grants, and its leaf queues."""

    type: str
    max_allocation: Resources | None
    queues: tuple[Queue, ...]

    def queue(self, name: str) -> Queue | None:
        """Return the leaf queue of a name or a path, with or without `root.`."""
        wanted = {name, f"root.{name}"}
        return next((queue for queue in self.queues if queue.path in wanted), None) or next(
            (queue for queue in self.queues if queue.name == name), None
        )


class ApplicationReport(msgspec.Struct, frozen=True):
    """What YARN says of an application; times are aware, None until they are reached."""

    id: str
    name: str
    user: str
    queue: str
    type: str
    tags: tuple[str, ...]
    state: str
    final_status: str
    progress: float
    diagnostics: str
    tracking_url: str | None
    am_container_id: str | None
    am_node: str | None
    am_http_address: str | None
    submitted: datetime | None
    launched: datetime | None
    finished: datetime | None
    allocated: Resources
    running_containers: int
    memory_mib_seconds: int
    vcore_seconds: int
    log_aggregation: str
    unmanaged: bool

    @property
    def ended(self) -> bool:
        """Whether it has reached a state it does not leave."""
        return self.state in FINAL_STATES


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to run an application: its ApplicationMaster's container and node."""

    id: str
    number: int
    state: str
    container_id: str | None
    node: str | None
    http_address: str | None
    started: datetime | None
    finished: datetime | None


class Container(msgspec.Struct, frozen=True):
    """A container that the ResourceManager still knows of (living ones, as a rule)."""

    id: str
    node: str
    http_address: str
    state: str
    exit_status: int
    allocated: Resources
    started: datetime | None
    finished: datetime | None


class ResourceManager:
    """The active ResourceManager of a cluster.

    Parameters
    ----------
    endpoints : collection of Endpoint
        Every ResourceManager; of a pair the one that answered last is asked first.
    user : str
        Who we are where there is no Kerberos.
    failover_s : float
        Seconds to wait while none of a pair is active, > 0.

    Notes
    -----
    Every method raises `ClusterError` when no ResourceManager answers, or the one that does refuses.
    """

    def __init__(self, endpoints: Collection[Endpoint], user: str, *, failover_s: float = FAILOVER_S) -> None:
        self._endpoints = tuple(endpoints)
        self._rest = Rest("ResourceManager", user)
        self._failover_s = failover_s
        self._active = self._endpoints[0]
        self._lock = threading.Lock()

    @property
    def active(self) -> Endpoint:
        """The ResourceManager that answered last."""
        return self._active

    def info(self) -> ClusterInfo:
        """Return version, state and start of the active ResourceManager."""
        raw = self._get("/info", active=lambda answer: _is_active(answer.json()))["clusterInfo"]
        return ClusterInfo(
            id=int(raw["id"]),
            state=raw["state"],
            ha_state=raw.get("haState", "ACTIVE"),
            hadoop_version=raw.get("hadoopVersion", raw.get("resourceManagerVersion", "")),
            started=_time(raw.get("startedOn")),
        )

    def metrics(self) -> Metrics:
        """Return what the cluster has and uses."""
        raw = self._get("/metrics")["clusterMetrics"]
        return Metrics(
            total=Resources(raw["totalMB"], raw["totalVirtualCores"]),
            available=Resources(raw["availableMB"], raw["availableVirtualCores"]),
            allocated=Resources(raw["allocatedMB"], raw["allocatedVirtualCores"]),
            active_nodes=raw["activeNodes"],
            unhealthy_nodes=raw["unhealthyNodes"],
            lost_nodes=raw["lostNodes"],
            applications_running=raw["appsRunning"],
            applications_pending=raw["appsPending"],
        )

    def nodes(self, states: Collection[str] = ()) -> tuple[Node, ...]:
        """Return the nodes, of some states (`RUNNING`, `LOST`, ...) or, without any, of all but the lost ones."""
        params = {"states": ",".join(states)} if states else {}
        return tuple(_node(raw) for raw in _items(self._get("/nodes", params), "nodes", "node"))

    def scheduler(self) -> Scheduler:
        """Return the scheduler's type, its largest container and its leaf queues."""
        raw = self._get("/scheduler")["scheduler"]["schedulerInfo"]
        root = raw.get("rootQueue", raw)
        return Scheduler(
            type=raw.get("type", ""),
            max_allocation=_resources(raw.get("maximumAllocation") or raw.get("maxContainerAllocation")),
            queues=tuple(_leaves(root)),
        )

    def queues(self) -> tuple[Queue, ...]:
        """Return the leaf queues."""
        return self.scheduler().queues

    def applications(
        self,
        *,
        states: Collection[str] = (),
        user: str | None = None,
        tags: Collection[str] = (),
        types: Collection[str] = (),
        queue: str | None = None,
        limit: int | None = None,
    ) -> tuple[ApplicationReport, ...]:
        """Return applications, the newest first.

        Parameters
        ----------
        states : collection of str
            `NEW`, `ACCEPTED`, `RUNNING`, ...; any state when empty.
        user : str, optional
            Whose.
        tags : collection of str
            Of those that carry any of these tags (YARN keeps them in lower case).
        types : collection of str
            `SPARK`, `clusterkit`, ...
        queue : str, optional
            The queue's name.
        limit : int, optional
            At most so many.
        """
        lists = {"states": states, "applicationTags": [tag.lower() for tag in tags], "applicationTypes": types}
        params = {key: ",".join(words) for key, words in lists.items() if words}
        params |= {key: value for key, value in (("user", user), ("queue", queue)) if value}
        reports = [_report(raw) for raw in _items(self._get("/apps", params), "apps", "app")]
        reports.sort(key=lambda report: _sequence(report.id), reverse=True)
        return tuple(reports[:limit])

    def application(self, application_id: str) -> ApplicationReport:
        """Return what YARN says of one application.

        Raises
        ------
        ApplicationError
            If this is no application id, or the ResourceManager does not know it.
        """
        return _report(self._of_application(application_id)["app"])

    def attempts(self, application_id: str) -> tuple[Attempt, ...]:
        """Return the attempts to run an application, the first one first.

        Raises
        ------
        ApplicationError
            If the ResourceManager does not know the application.
        """
        raw = self._of_application(application_id, "/appattempts")
        attempts = (_attempt(entry) for entry in _items(raw, "appAttempts", "appAttempt"))
        return tuple(sorted(attempts, key=lambda attempt: attempt.number))

    def containers(self, application_id: str) -> tuple[Container, ...]:
        """Return the containers of every attempt that the ResourceManager still knows of.

        Raises
        ------
        ApplicationError
            If the ResourceManager does not know the application.
        """
        found: dict[str, Container] = {}
        for attempt in self.attempts(application_id):
            raw = self._of_application(application_id, f"/appattempts/{attempt.id}/containers")
            containers = (_container(entry) for entry in _items(raw, "containers", "container"))
            found |= {container.id: container for container in containers}
        return tuple(found[key] for key in sorted(found))

    def kill(self, application_id: str) -> str:
        """Ask for an application's end and return the state it is in: `KILLED`, or `KILLING` for a moment.

        Raises
        ------
        ApplicationError
            If the ResourceManager does not know the application.
        """
        raw = self._of_application(application_id, "/state", method="PUT", document={"state": "KILLED"})
        return str(raw.get("state", "KILLING"))

    def submit(
        self,
        command: str,
        *,
        name: str,
        queue: str = "default",
        memory_mib: int = 128,
        tags: Collection[str] = (),
    ) -> str:
        """Run a shell command once, in the one container of an application of its own, and return its id.

        The command is the ApplicationMaster and does not register, so the application fails when it ends; YARN then
        keeps the end of its standard error in the diagnostics.

        Parameters
        ----------
        command : str
            What bash runs on the node; without double quotes, dollars and backquotes, which YARN's script expands.
        name : str
            The application's name.
        queue : str
            Its queue.
        memory_mib : int
            The memory of the container.
        tags : collection of str
            YARN tags.
        """
        application_id = str(self._call("POST", "/apps/new-application", {}, None)["application-id"])
        document = {
            "application-id": application_id,
            "application-name": name,
            "application-type": "CLUSTERKIT",
            "queue": queue,
            "application-tags": {"tag": sorted(tags)},
            "max-app-attempts": 1,
            "am-container-spec": {"commands": {"command": command}},
            "resource": {"memory": memory_mib, "vCores": 1},
        }
        self._call("POST", "/apps", {}, document)
        return application_id

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._rest.close()

    def _of_application(
        self, application_id: str, path: str = "", *, method: str = "GET", document: object | None = None
    ) -> Any:
        if _APPLICATION_ID.fullmatch(application_id) is None:
            raise ApplicationError(
                f"{application_id!r} is no application id",
                why="YARN's ids read application_<cluster start>_<number>, such as application_1700000000000_0001",
                mend=self._offer(application_id),
                application_id=application_id,
            )
        try:
            return self._call(method, f"/apps/{application_id}{path}", {}, document)
        except RemoteError as exc:
            if exc.status != 404:
                raise
            raise self._unknown(application_id) from exc

    def _unknown(self, application_id: str) -> ApplicationError:
        match = _APPLICATION_ID.fullmatch(application_id)
        info = self.info()
        same_start = match is not None and int(match[1]) == info.id
        return ApplicationError(
            f"there is no application {application_id}",
            why="the ResourceManager has forgotten it, or never had it"
            if same_start
            else f"the ResourceManager at {self._active.url} started later or is another one (its ids begin with "
            f"application_{info.id}_)",
            mend=self._offer(application_id),
            application_id=application_id,
        )

    def _offer(self, application_id: str) -> str:
        """Say which known application may be meant."""
        match = nearest(application_id, [report.id for report in self.applications(limit=200)])
        return (
            f"did you mean {match}? `clusterkit app ls` lists them" if match else "list them with `clusterkit app ls`"
        )

    def _get(self, path: str, params: Mapping[str, str] | None = None, *, active: Any = None) -> Any:
        return self._call("GET", path, params or {}, None, active)

    def _call(
        self, method: str, path: str, params: Mapping[str, str], document: object | None, active: Any = None
    ) -> Any:
        """Ask the active ResourceManager, and find out which one that is."""
        deadline = time.monotonic() + self._failover_s
        while True:
            states: dict[Endpoint, str] = {}
            failure: UnreachableError | None = None
            for endpoint in self._in_order():
                try:
                    answer = self._rest.call(method, f"{endpoint.url}{_ROOT}{path}", params, document)
                except UnreachableError as exc:
                    states[endpoint], failure = "does not answer", exc
                    continue
                if not _on_standby(answer) and (active is None or active(answer)):
                    self._remember(endpoint)
                    return self._decoded(endpoint, answer)
                states[endpoint] = "is on standby"
            if failure is not None and set(states.values()) == {"does not answer"}:
                raise failure if len(states) == 1 else self._none_active(states) from failure
            if time.monotonic() >= deadline:
                raise self._none_active(states) from failure
            time.sleep(_RETRY_S)

    def _in_order(self) -> Iterator[Endpoint]:
        first = self._active
        yield first
        yield from (endpoint for endpoint in self._endpoints if endpoint != first)

    def _remember(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._active = endpoint

    def _decoded(self, endpoint: Endpoint, answer: Answer) -> Any:
        try:
            return answer.json()
        except ValueError as exc:
            raise ClusterError(
                f"{endpoint.url} is no ResourceManager",
                why=f"it answered {answer.text.strip()[:100]!r} where JSON was asked for",
                mend="check yarn.resourcemanager.webapp.address in yarn-site.xml",
                host=endpoint.host,
                port=endpoint.port,
            ) from exc

    def _none_active(self, states: Mapping[Endpoint, str]) -> UnreachableError:
        first = self._endpoints[0]
        return UnreachableError(
            "no ResourceManager of the cluster is active",
            why="; ".join(
                f"{endpoint.id} at {endpoint.host}:{endpoint.port} {state}" for endpoint, state in states.items()
            ),
            mend="see their state with `yarn rmadmin -getAllServiceState`, or `clusterkit cluster status` where the "
            "cluster is of this machine",
            host=first.host,
            port=first.port,
        )


def _on_standby(answer: Answer) -> bool:
    return 300 <= answer.status < 400 or answer.body.lstrip().startswith(_STANDBY)


def _is_active(document: Any) -> bool:
    return bool(document["clusterInfo"].get("haState", "ACTIVE") == "ACTIVE")


def _items(document: Any, outer: str, inner: str) -> list[Any]:
    """Return the entries of a list; when it is short, versions of YARN leave it out, null it or unwrap it."""
    holder = document.get(outer, document) or {}
    entries = holder.get(inner) if isinstance(holder, dict) else holder
    if entries is None:
        return []
    return entries if isinstance(entries, list) else [entries]


def _time(milliseconds: Any) -> datetime | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds and int(milliseconds) > 0 else None


def _resources(raw: Any) -> Resources | None:
    return Resources(int(raw["memory"]), int(raw["vCores"])) if isinstance(raw, dict) and "memory" in raw else None


def _sequence(application_id: str) -> tuple[int, int]:
    match = _APPLICATION_ID.fullmatch(application_id)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _node(raw: Any) -> Node:
    return Node(
        id=raw["id"],
        host=raw["nodeHostName"],
        http_address=raw.get("nodeHTTPAddress", ""),
        state=raw["state"],
        health=raw.get("healthReport", ""),
        version=raw.get("version", ""),
        containers=raw.get("numContainers", 0),
        used=Resources(raw.get("usedMemoryMB", 0), raw.get("usedVirtualCores", 0)),
        available=Resources(raw.get("availMemoryMB", 0), raw.get("availableVirtualCores", 0)),
        labels=tuple(raw.get("nodeLabels") or ()),
        last_heartbeat=_time(raw.get("lastHealthUpdate")),
    )


def _leaves(raw: Any) -> Iterator[Queue]:
    children = _items(raw, "queues", "queue") or _items(raw.get("childQueues") or {}, "childQueues", "queue")
    if not children:
        yield _queue(raw)
    for child in children:
        yield from _leaves(child)


def _queue(raw: Any) -> Queue:
    path = raw.get("queuePath") or raw["queueName"]
    return Queue(
        name=path.rpartition(".")[2],
        path=path,
        state=raw.get("state", "RUNNING"),
        capacity=float(raw.get("absoluteCapacity", 0.0)),
        max_capacity=float(raw.get("absoluteMaxCapacity", 100.0)),
        used_capacity=float(raw.get("absoluteUsedCapacity", 0.0)),
        used=_resources(raw.get("resourcesUsed") or raw.get("usedResources")) or Resources(0, 0),
        am_limit=_resources(raw.get("AMResourceLimit") or raw.get("amMaxResources")),
        am_used=_resources(raw.get("usedAMResource") or raw.get("amUsedResources")),
        user_am_limit=_resources(raw.get("userAMResourceLimit")),
        max_allocation=_resources(raw.get("maximumAllocation") or raw.get("maxContainerAllocation")),
        running=raw.get("numActiveApplications", raw.get("numActiveApps", 0)),
        pending=raw.get("numPendingApplications", raw.get("numPendingApps", 0)),
    )


def _report(raw: Any) -> ApplicationReport:
    am_container = _CONTAINER_ID.search(raw.get("amContainerLogs") or "")
    return ApplicationReport(
        id=raw["id"],
        name=raw.get("name", ""),
        user=raw.get("user", ""),
        queue=raw.get("queue", ""),
        type=raw.get("applicationType", ""),
        tags=tuple(tag for tag in (raw.get("applicationTags") or "").split(",") if tag),
        state=raw["state"],
        final_status=raw.get("finalStatus", "UNDEFINED"),
        progress=float(raw.get("progress", 0.0)),
        diagnostics=raw.get("diagnostics", ""),
        tracking_url=raw.get("trackingUrl") or None,
        am_container_id=am_container[0] if am_container else None,
        am_node=raw.get("masterNodeId") or None,
        am_http_address=raw.get("amHostHttpAddress") or None,
        submitted=_time(raw.get("startedTime")),
        launched=_time(raw.get("launchTime")),
        finished=_time(raw.get("finishedTime")),
        allocated=Resources(max(0, raw.get("allocatedMB", 0)), max(0, raw.get("allocatedVCores", 0))),
        running_containers=max(0, raw.get("runningContainers", 0)),
        memory_mib_seconds=raw.get("memorySeconds", 0),
        vcore_seconds=raw.get("vcoreSeconds", 0),
        log_aggregation=raw.get("logAggregationStatus", ""),
        unmanaged=raw.get("unmanagedApplication", False) in {True, "true"},
    )


def _attempt(raw: Any) -> Attempt:
    return Attempt(
        id=raw["appAttemptId"],
        number=int(raw["id"]),
        state=raw.get("appAttemptState", ""),
        container_id=raw.get("containerId") or None,
        node=raw.get("nodeId") or None,
        http_address=raw.get("nodeHttpAddress") or None,
        started=_time(raw.get("startTime")),
        finished=_time(raw.get("finishedTime")),
    )


def _container(raw: Any) -> Container:
    return Container(
        id=raw["containerId"],
        node=raw.get("nodeId") or raw.get("assignedNodeId", ""),
        http_address=raw.get("nodeHttpAddress", ""),
        state=raw.get("containerState", ""),
        exit_status=int(raw.get("containerExitStatus", 0)),
        allocated=Resources(int(raw.get("allocatedMB", 0)), int(raw.get("allocatedVCores", 0))),
        started=_time(raw.get("startedTime")),
        finished=_time(raw.get("finishedTime")),
    )
