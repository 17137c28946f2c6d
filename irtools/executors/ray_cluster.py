"""Workers on a Ray cluster: one on each machine of it, with all of that machine's CPUs.

A worker is an actor that is bound to its node and takes every CPU of it, so that nothing else of
the cluster runs next to what it times. Where a node has the resource `irtools`
(`ray start --resources '{"irtools": 1}'`), only nodes with it are used.
"""

from __future__ import annotations

import os
import re
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irtools.errors import ClusterError, MissingExtraError, OptionError
from irtools.executors.base import (
    Answered,
    Event,
    Failed,
    Joined,
    Lost,
    Service,
    ServiceSpec,
    Worker,
    check_same_code,
    worker_here,
)
from irtools.executors.process import answered
from irtools.words import printable

__all__ = ["RayExecutor"]

_HEAD = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})")
_RESOURCE = "irtools"
_PATIENCE = 5.0
_WAIT_FOR_WORKERS = 120.0


class _Actor:
    """What runs in a worker."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self._service: Service | None = None

    def hello(self) -> Worker:
        """Say what this is."""
        return worker_here()

    def answer(self, payload: Any) -> Any:
        """Answer a job: kind of error or None, and the answer or message."""
        self._service, said = answered(self._spec, self._service, payload)
        return said


@dataclass
class _Node:
    """A node of the cluster with its worker.

    Attributes:
        waits_for: What the actor was asked last; None: nothing is open.
        worker: What it says it is; None: it has not said so yet.
    """

    node_id: str
    actor: Any
    waits_for: Any
    worker: Worker | None = None


class RayExecutor:
    """The nodes of a Ray cluster.

    Args:
        address: `ray://host:port`, `host:port` of the head on one of its machines, or None: what
            the environment names (`RAY_ADDRESS`, which Ray sets for its jobs), else a cluster that
            is started here.
    """

    shares_files = False

    def __init__(self, address: str | None = None) -> None:
        self.name = address or "ray"
        self._address = address
        self._ray = _import_ray()
        self._nodes: dict[str, _Node] = {}
        self._spec: Any = None

    @classmethod
    def open(cls, place: str) -> RayExecutor:
        """Make one of what follows `ray:`.

        Raises:
            MissingExtraError: Ray is not installed.
            OptionError: It names no head.
        """
        if not place:
            return cls()
        if place.startswith("//") and _HEAD.fullmatch(place.removeprefix("//")) is None:
            raise OptionError(f"--on ray:{place}: expected the head and its port, ray://head:10001")
        return cls(f"ray:{place}" if place.startswith("//") else place)

    def start(self, spec: ServiceSpec) -> Sequence[Worker]:
        """Connect, start a worker on every node, and wait for them.

        Raises:
            ClusterError: There is no such cluster, or no worker came up in two minutes.
            UnsupportedError: A worker has another version of irtools.
        """
        self._connect()
        self._spec = self._ray.put(spec)
        self._take_up()
        deadline = time.monotonic() + _WAIT_FOR_WORKERS
        found: list[Worker] = []
        while time.monotonic() < deadline and any(n.worker is None for n in self._nodes.values()):
            found.extend(event.worker for event in self.poll() if isinstance(event, Joined))
        if not found:
            raise ClusterError(f"no worker of {self.name} answered in {_WAIT_FOR_WORKERS:.0f} s")
        return tuple(found)

    def _connect(self) -> None:
        self._check_head()
        # Nothing that irtools starts reports its use to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        given: dict[str, Any] = {} if self._address is None else {"address": self._address}
        if self._address is None and "RAY_ADDRESS" not in os.environ:
            given |= {"include_dashboard": False}
        try:
            with warnings.catch_warnings():
                # What goes wrong is in the error as well.
                warnings.simplefilter("ignore")
                self._ray.init(logging_level="ERROR", log_to_driver=False, **given)
        except Exception as error:  # Whatever the connection raises.
            raise self._gone(error, "cannot be reached") from error

    def _check_head(self) -> None:
        """Refuse a head that nothing listens at, for which Ray waits half a minute."""
        head = _HEAD.fullmatch((self._address or "").removeprefix("ray://"))
        if head is None:
            return
        try:
            socket.create_connection((head[1].strip("[]"), int(head[2])), _PATIENCE).close()
        except OSError as error:
            raise self._gone(error, "cannot be reached") from error

    def _take_up(self) -> None:
        """Start a worker on nodes without one."""
        nodes = self._asking(self._ray.nodes)
        alive = [node for node in nodes if node["Alive"]]
        labelled = any(node["Resources"].get(_RESOURCE) for node in alive)
        for node in alive:
            resources = node["Resources"]
            usable = resources.get("CPU", 0) >= 1 and (not labelled or resources.get(_RESOURCE))
            if usable and node["NodeID"] not in self._nodes:
                actor = self._actor(node["NodeID"], resources)
                made = _Node(node["NodeID"], actor, actor.hello.remote())
                self._nodes[node["NodeID"]] = made

    def _actor(self, node_id: str, resources: Mapping[str, float]) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        own = {_RESOURCE: 1} if resources.get(_RESOURCE) else {}
        return (
            self._ray.remote(_Actor)
            .options(
                num_cpus=resources["CPU"],
                resources=own,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
                max_restarts=0,
            )
            .remote(self._spec)
        )

    def send(self, worker: str, payload: Any) -> None:
        """Give a worker its job."""
        for node in self._nodes.values():
            if node.worker is not None and node.worker.name == worker:
                node.waits_for = self._asking(node.actor.answer.remote, payload)

    def poll(self) -> Sequence[Event]:
        """Wait for answers; look for nodes that joined."""
        self._take_up()
        asked = {node.waits_for: node for node in self._nodes.values() if node.waits_for}
        if not asked:
            self._wait_for_nodes()
            return []
        ready, _ = self._asking(
            self._ray.wait, list(asked), num_returns=1, timeout=_PATIENCE, fetch_local=False
        )
        return [event for one in ready for event in self._events(asked[one])]

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + _WAIT_FOR_WORKERS
        while not self._nodes:
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} has no machine left that could run a worker")
            time.sleep(1)
            self._take_up()

    def _events(self, node: _Node) -> Iterator[Event]:
        asked, node.waits_for = node.waits_for, None
        try:
            said = self._ray.get(asked)
        except self._ray.exceptions.RayActorError as error:
            # The node may be alive: then it gets another worker at the next look.
            del self._nodes[node.node_id]
            if node.worker is not None:
                yield Lost(node.worker.name, _line(error))
            return
        except Exception as error:  # Whatever the connection raises.
            raise self._gone(error, "no longer answers") from error
        if node.worker is None:
            check_same_code(said)
            node.worker = said
            yield Joined(said)
            return
        kind, value = said
        name = node.worker.name
        yield Answered(name, value) if kind is None else Failed(name, kind, value)

    def _asking(self, function: Any, *given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except Exception as error:  # Whatever the connection raises.
            raise self._gone(error, "no longer answers") from error

    def _gone(self, error: Exception, what: str) -> ClusterError:
        return ClusterError(f"the Ray cluster {self.name} {what}: {_line(error)}")

    def close(self) -> None:
        """End the workers and disconnect; a cluster that was started here ends."""
        self._nodes = {}
        self._ray.shutdown()


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0] if lines else type(error).__name__, limit=200)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--on ray", "ray") from error
    return ray
