"""A real Ray cluster of several processes here, whose workers and machines are killed meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from irtools.errors import ClusterError
from irtools.executors import Farm, ServiceSpec, Task, open_executor, worker_here

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Ray's own background threads warn of files that they leave to the process's end.
pytestmark += [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SERVICE = '''
import hashlib, os, signal, time
from pathlib import Path

class Echo:
    """Says when it began and ended; ends its process where its job says so, once."""

    def __init__(self, payload):
        self.folder = Path(payload)

    def answer(self, payload):
        begun = time.monotonic()
        if payload.endswith("!"):
            note = self.folder / payload
            if not note.exists():
                note.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(20_000):
            hashlib.sha256(payload.encode()).digest()
        return payload, os.getpid(), begun, time.monotonic()

    def close(self):
        pass
'''


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """A head that serves clients, and two machines with one CPU each."""
    from ray.cluster_utils import Cluster

    (tmp_path / "echo_service.py").write_text(SERVICE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_CLIENT_RECONNECT_GRACE_PERIOD", "1")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": port}
    made = Cluster()
    try:
        made.add_node(**head)
    except Exception:  # On a busy machine it is given up after 30 seconds.
        made.shutdown()
        made = Cluster(initialize_head=True, head_node_args=head)
    made.client = f"ray://127.0.0.1:{port}"
    yield made
    made.shutdown()


def test_workers_machines_and_the_head_are_killed(cluster: Any, tmp_path: Path) -> None:
    machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
    spec = ServiceSpec("echo_service:Echo", str(tmp_path))
    isa = worker_here().hardware.isa
    said: list[str] = []
    found: dict[str, Any] = {}
    with Farm(open_executor(cluster.client), spec, isa=isa, on_note=said.append) as farm:
        assert farm.size == 2
        for number in range(8):
            farm.submit(Task(f"timed {number}", f"timed {number}", timed=True))
            farm.submit(Task(f"plain {number}", f"plain {number}"))
        farm.submit(Task("ends", "ends!"))
        for outcome in farm.results():
            found[outcome.task.key] = outcome.get()
            if len(found) == 12:
                cluster.remove_node(machines[0], allow_graceful=False)
        assert len(found) == 17 and all(key in v[0] for key, v in found.items())
        # The worker that ended itself is lost at least; the machine may have been idle.
        assert any("was lost" in line for line in said), said
        # Both are on this computer: what was timed on one had all of it.
        times = [(v[2], v[3], key) for key, v in found.items()]
        for begun, ended, key in times:
            if key.startswith("timed"):
                others = [o for o in times if o[2] != key and o[0] < ended and begun < o[1]]
                assert not others, (key, others)
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        farm.submit(Task("late", "late"))
        with pytest.raises(ClusterError, match="no longer answers"):
            list(farm.results())
