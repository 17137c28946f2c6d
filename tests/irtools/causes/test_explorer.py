"""Files for Model Explorer: the fields of its own data classes, and ids that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from benchmarks.why_cases import Pair
from irtools.causes import RecordedFacts, explorer_files

# Fields of the data classes of ai-edge-model-explorer 0.1.34 (`graph_builder.py`,
# `node_data_builder.py`), and those without a default.
FIELDS: Mapping[str, tuple[set[str], set[str]]] = {
    "collection": ({"label", "graphs", "graphSorting"}, {"label"}),
    "graph": ({"id", "nodes", "groupNodeAttributes", "groupNodeConfigs", "nodeLabelsToHide",
               "tasksData", "layoutConfigs"}, {"id"}),
    # The web page takes all of these for given, although the data classes have defaults.
    "node": ({"id", "label", "namespace", "subgraphIds", "attrs", "incomingEdges",
              "outputsMetadata", "inputsMetadata", "style", "config"},
             {"id", "label", "namespace", "subgraphIds", "attrs", "incomingEdges",
              "outputsMetadata", "inputsMetadata"}),
    "edge": ({"sourceNodeId", "sourceNodeOutputId", "targetNodeInputId"}, {"sourceNodeId"}),
    "metadata": ({"id", "attrs"}, {"id"}),
    "pair": ({"key", "value"}, {"key", "value"}),
    "data": ({"results", "name", "thresholds", "gradient"}, {"results"}),
    "result": ({"value", "bgColor", "textColor"}, {"value"}),
    "stop": ({"stop", "bgColor", "textColor"}, {"stop"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def facts(facts_of: Callable[[str], tuple[Pair, RecordedFacts]]) -> RecordedFacts:
    """A float model and its dynamically quantized twin, profiled and compared."""
    return facts_of("dynamic int8 on OpenVINO")[1]


@pytest.fixture(scope="module")
def documents(facts: RecordedFacts) -> Mapping[str, Any]:
    """What is written of them."""
    return explorer_files(facts).documents


def check(kind: str, found: Mapping[str, Any]) -> None:
    """Check that an object has known fields, and those that it must have."""
    known, needed = FIELDS[kind]
    assert needed <= found.keys() <= known, (kind, found)


@pytest.mark.parametrize("name", ["a.json", "b.json"])
def test_graphs_have_the_fields_of_the_package(documents: Mapping[str, Any], name: str) -> None:
    check("collection", documents[name])
    for graph in documents[name]["graphs"]:
        check("graph", graph)
        ids = [node["id"] for node in graph["nodes"]]
        assert len(ids) == len(set(ids))
        for node in graph["nodes"]:
            check("node", node)
            for edge in node.get("incomingEdges", ()):
                check("edge", edge)
                assert edge["sourceNodeId"] in ids
            for item in node.get("outputsMetadata", ()):
                check("metadata", item)
                for pair in item["attrs"]:
                    check("pair", pair)


def test_node_data_is_about_nodes_that_exist(documents: Mapping[str, Any]) -> None:
    overlays = {n for n in documents if n.split("-")[0] in ("bytes", "latency", "slower", "sqnr")}
    assert len(overlays) == 7
    for name in overlays:
        graph = documents["a.json" if name.endswith("-a.json") else "b.json"]["graphs"][0]
        (key, data), *others = documents[name].items()
        assert key == graph["id"] and not others
        check("data", data)
        for stop in data["gradient"]:
            check("stop", stop)
        for node, result in data["results"].items():
            check("result", result)
            assert node in {one["id"] for one in graph["nodes"]}


def test_the_mapping_pairs_products_with_their_quantized_form(
    documents: Mapping[str, Any],
) -> None:
    mapping = documents["mapping.json"]
    assert mapping["showDiffHighlights"] is True
    pairs = {tuple(e["leftNodeIds"]): e["rightNodeIds"] for e in mapping["mappingEntries"]}
    product = next(right for left, right in pairs.items() if "layer.0/MatMul" in left)
    assert "layer.0/MatMul_quant" in product and len(product) > 1
    assert pairs[("layer.0/Relu",)] == ["layer.0/Relu"]


def test_latency_is_that_of_the_profile(facts: RecordedFacts, documents: Mapping[str, Any]) -> None:
    assert facts.profiles is not None
    results = documents["latency-a.json"]["A"]["results"]
    wanted = sum(row.ms for row in facts.profiles[0].nodes if row.node.startswith("layer.0/"))
    found = sum(one["value"] for name, one in results.items() if name.startswith("layer.0/"))
    assert found == pytest.approx(wanted, rel=0.01)


def test_modules_have_both_sides(documents: Mapping[str, Any]) -> None:
    rows = {row["module"]: row for row in documents["modules.json"]["modules"]}
    layer = rows["layer.0"]
    assert layer["before"]["bytes"] == 64 * 64 * 4
    assert layer["after"]["bytes"] >= 64 * 64 and layer["after"]["ms"] > 0


def test_what_was_not_measured_is_left_out(facts: RecordedFacts) -> None:
    bare = RecordedFacts(facts.first, facts.second, facts.target)
    files = explorer_files(bare)
    assert set(files.documents) == {"a.json", "b.json", "mapping.json", "modules.json",
                                    "bytes-a.json", "bytes-b.json"}  # fmt: skip
