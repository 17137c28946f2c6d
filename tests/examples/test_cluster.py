"""The cluster files: as Ray and Kubernetes read them, with commands that `irc` takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from irtools.cli.main import VERBS
from irtools.cli.verbs.tune import tune

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"


def read(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def check_command(line: str) -> dict[str, Any]:
    program, verb, *given = shlex.split(line)
    assert program == "irc" and verb in VERBS
    context = click.Context(tune, info_name="tune")
    tune.parse_args(context, given)
    return context.params


@pytest.mark.ray
def test_the_cluster_file_is_one_that_ray_reads() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = read("ray-cluster.yaml")
    jsonschema.validate(config, schema)
    workers = " ".join(config["worker_start_ray_commands"])
    assert json.loads(workers.partition("--resources='")[2].partition("'")[0]) == {"irtools": 1}
    assert "--num-cpus=0" in " ".join(config["head_start_ray_commands"])


def test_the_job_runs_a_search_with_whole_cpus() -> None:
    job = read("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    params = check_command(job["spec"]["entrypoint"])
    assert params["on"] == "ray" and params["storage"] == "/results/tune.db"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
    # KubeRay puts the value on the command line as it stands.
    resources = cluster["workerGroupSpecs"][0]["rayStartParams"]["resources"]
    assert json.loads(shlex.split(resources)[0]) == {"irtools": 1}
