"""Every model of the corpus through every pipeline, without data.

Each run ends with a result that runs, is no larger, has the numbers that the pipeline promises,
and says why where it did nothing; or with one line that is right.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from . import refused
from .corpus import CORPUS, KINDS
from .models import CorpusModel
from .outcomes import Outcome, built, outcome, run
from .running import outputs_of, relative_error, signal_to_noise
from .writer import Arrays

EXACT = "cleanup,fuse"
HEADLINE = "prune,int8"
LEAST_SQNR = {"int8": 25.0, "int4": 12.0, "fp16": 45.0}
"""In dB, with random weights, against the original; `prune` without data promises none."""
PIPELINES = (HEADLINE, EXACT, *LEAST_SQNR)
SHRINKS = 2.5
LIKELY = 0.8
"""A lossy pass that leaves more than this share of the file says why."""

QUICK = [model for model in CORPUS if model.quick]


def _name(value: object) -> str:
    return value.name if isinstance(value, CorpusModel) else str(value)


@pytest.mark.parametrize("pipeline", [HEADLINE, EXACT])
@pytest.mark.parametrize("model", QUICK, ids=_name)
def test_quick_models(model: CorpusModel, pipeline: str) -> None:
    check_outcome(model, pipeline, outcome(model.name, pipeline, check=False))


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("model", CORPUS, ids=_name)
def test_all_models(model: CorpusModel, pipeline: str) -> None:
    """The headline with all checks on for the quick half, as the command runs it."""
    check_outcome(model, pipeline, outcome(model.name, pipeline, check=_checked(model, pipeline)))


def _checked(model: CorpusModel, pipeline: str) -> bool:
    return model.quick and pipeline == HEADLINE


@pytest.mark.slow
def test_float_models_shrink() -> None:
    """Geometric mean over all float models, and over each kind that has some."""
    ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for model in CORPUS:
        if model.is_float:
            found = outcome(model.name, HEADLINE, check=_checked(model, HEADLINE))
            assert found.error is None, f"{model.name}: {found.error}"
            ratios[model.kind].append(found.ratio)
    means = {kind: math.exp(np.mean(np.log(some))) for kind, some in ratios.items() if some}
    whole = math.exp(np.mean(np.log([ratio for some in ratios.values() for ratio in some])))
    assert whole >= SHRINKS, {kind: round(mean, 2) for kind, mean in means.items()}


@pytest.mark.parametrize("pipeline", refused.PIPELINES)
@pytest.mark.parametrize("model", refused.MODELS.models, ids=_name)
def test_refusals(model: CorpusModel, pipeline: str) -> None:
    check_outcome(model, pipeline, run(model, pipeline, check=True))


def test_exact_passes_run_where_the_model_does_not() -> None:
    """No input makes this model run: what needs no numbers is done, and the lack is reported."""
    made = CorpusModel("sizes-that-never-fit", "refused", refused.sizes_that_never_fit)
    found = run(made, EXACT, check=True)
    assert found.error is None
    _check_size(found)
    assert "not compared" in found.said


def _check_size(found: Outcome) -> None:
    # What was done to a model is in its metadata: some 170 bytes.
    assert found.model is not None
    history = sum(len(entry.value) + 32 for entry in found.model.metadata_props)
    # A decoder whose cache is read in place says so, and takes lengths of texts from the mask.
    history += 256 * any(entry.key == "shared_cache" for entry in found.model.metadata_props)
    # A Shape in the middle of a model with attention becomes one of an input for each size.
    history += 160 * sum(
        node.op_type == "Shape" and any(attribute.name == "start" for attribute in node.attribute)
        for node in found.model.graph.node
    )
    assert found.after <= found.before + history, f"grows: {found.before} -> {found.after} bytes"


def check_outcome(model: CorpusModel, pipeline: str, found: Outcome) -> None:
    """Check what one run left."""
    wanted = model.refusals.get(pipeline)
    if wanted is not None:
        assert found.error is not None
        assert (found.error.exit_code, "\n" in str(found.error)) == (wanted.exit_code, False)
        assert wanted.phrase in str(found.error)
        return
    if found.error is not None:
        raise found.error
    _check_size(found)
    _check_said(pipeline, found)
    assert found.model is not None
    for feeds in built(model.name).feeds:
        reference = outputs_of(built(model.name).proto, feeds)
        for optimized in (False, True):
            _check_numbers(
                model, pipeline, feeds, reference,
                outputs_of(found.model, feeds, optimized=optimized), optimized,
            )  # fmt: skip


def _check_said(pipeline: str, found: Outcome) -> None:
    """Every pass either did something or is spoken of; a lossy one says why."""
    assert found.report is not None
    for row, name in zip(found.report.rows[1:], pipeline.split(","), strict=True):
        about = [line for line in found.said.splitlines() if line.startswith(name)]
        assert row.modified or about, f"{name} did nothing and nothing is said"
        if name in LEAST_SQNR and found.after > LIKELY * found.before:
            reasons = [line for line in about if not line.endswith("changed nothing")]
            assert reasons, f"{name} leaves {found.after} of {found.before} bytes and not why"


def _check_numbers(
    model: CorpusModel, pipeline: str, feeds: Arrays, reference: Arrays, found: Arrays,
    optimized: bool,
) -> None:  # fmt: skip
    assert list(found) == list(reference)
    exact = pipeline == EXACT
    for name, expected in reference.items():
        array = found[name]
        assert array.dtype == expected.dtype, name
        if model.chooses and not exact:
            continue
        assert array.shape == expected.shape, name
        if name in model.chosen and not exact:
            continue
        if model.random or expected.dtype.kind != "f":
            assert model.random or not exact or np.array_equal(array, expected), name
            continue
        assert np.all(np.isfinite(array)), name
        if exact:
            own = outputs_of(built(model.name).proto, feeds, optimized=True)[name]
            limit = max(1e-4, 2 * relative_error(expected, own))
            assert relative_error(expected, array) <= limit, name
        elif pipeline in LEAST_SQNR and not optimized:
            # The runtime's own int8 kernels round as the CPU does: only the graph is judged.
            least = model.least_sqnr.get(pipeline, LEAST_SQNR[pipeline])
            noise = signal_to_noise(expected, array)
            if noise < least:
                # Weights that come in blocks of 4 bits the runtime multiplies in int8 by itself.
                own = outputs_of(built(model.name).proto, feeds, optimized=True)[name]
                least = min(least, signal_to_noise(expected, own) - 6)
            assert noise >= least, name
