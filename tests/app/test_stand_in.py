"""Studies that no twin can play: what is known of them is kept, what is guessed is never shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advisor.app.admission import LearntFrontier
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question, resolve
from advisor.app.stand_in import stand_in, stand_in_here
from advisor.domain.deployment import Deployment, GpuFacts
from advisor.domain.errors import BadInput
from advisor.domain.objective import Objective
from advisor.domain.strict import changed
from advisor.domain.units import GIB_BYTES
from advisor.domain.workload import parse_workload
from advisor.search.space import all_configs
from advisor.store import catalog
from tests.store.checkpoint_folders import checkpoint

MYSTERY = {"architectures": ["MysteryForCausalLM"]}
WORKLOAD = parse_workload("1k1k_c64")
KNOWN = Deployment(model="meta-llama/Llama-3.1-8B-Instruct", quantization="bf16", gpu="h100_sxm", gpus=2, tp=2)
CONFIGS = all_configs(catalog.search_space("default"))[::97]


def mystery(folder: Path, gib: float = 60.0) -> Deployment:
    model = checkpoint(folder / "mystery", config=MYSTERY, total_bytes=round(gib * GIB_BYTES))
    return changed(KNOWN, model=str(model))


def guessing(deployment: Deployment) -> Forecaster:
    found = stand_in_here(deployment)
    assert found is not None
    return Forecaster(deployment, (WORKLOAD,), stand_in=found)


def test_where_the_twin_can_play_nothing_stands_in() -> None:
    assert stand_in_here(KNOWN) is None


def test_of_an_unknown_model_the_weights_and_the_gpu_are_what_they_are(tmp_path: Path) -> None:
    forecaster = guessing(mystery(tmp_path))
    terms = forecaster.twin.memory_terms(forecaster.deployment)
    assert terms.weights_gib == pytest.approx(30.0)
    assert terms.capacity_gib * GIB_BYTES == pytest.approx(catalog.gpu_facts("h100_sxm").memory_bytes)
    assert forecaster.stand_in is not None
    assert forecaster.stand_in.is_typical
    assert "only the checkpoint's size is known" in forecaster.stand_in.why


def test_a_checkpoint_in_the_cache_of_the_hub_has_a_size_too(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--acme--mystery" / "snapshots" / "abc"
    checkpoint(snapshot, config=MYSTERY, total_bytes=8 * GIB_BYTES)
    found = stand_in_here(changed(KNOWN, model="acme/mystery"), {"HF_HUB_CACHE": str(tmp_path)})
    assert found is not None
    assert found.tables_for(found.deployment).memory.weights_gib == pytest.approx(4.0)


def test_pipeline_stages_cut_the_weights_like_ranks_of_a_known_model() -> None:
    forecaster = guessing(changed(KNOWN, tp=1, pp=2))
    terms = forecaster.twin.memory_terms(forecaster.deployment)
    assert terms == Forecaster(KNOWN, (WORKLOAD,)).twin.memory_terms(KNOWN)
    assert forecaster.stand_in is not None
    assert not forecaster.stand_in.is_typical


def test_an_unknown_gpu_has_its_own_memory_and_the_speed_of_its_nearest() -> None:
    gpu = GpuFacts(name="l99", title="NVIDIA L99", memory_bytes=46 * GIB_BYTES, compute_capability=(8, 9))
    facts = catalog.model_facts(KNOWN.model)
    forecaster = Forecaster(KNOWN, (WORKLOAD,), stand_in=stand_in(changed(KNOWN, gpu="l99"), gpu, facts, None, "why"))
    assert forecaster.deployment.gpu == "l40s"
    assert forecaster.twin.memory_terms(forecaster.deployment).capacity_gib == 46.0


def test_nothing_that_is_guessed_is_shown_or_refuses_a_request(tmp_path: Path) -> None:
    forecaster = guessing(mystery(tmp_path))
    config = CONFIGS[0]
    assert forecaster.shown(config, WORKLOAD) is None
    assert forecaster.predict(config, WORKLOAD).metrics is not None
    assert forecaster.references((), (), Objective(), catalog.search_space("default")) == {WORKLOAD.name: 1.0}
    assert forecaster.relaxations(config, 1.0, catalog.search_space("default")) == ()


def test_memory_is_doubted_more_than_where_the_model_is_known(tmp_path: Path) -> None:
    guess, known = guessing(mystery(tmp_path, 15.0)), Forecaster(KNOWN, (WORKLOAD,))
    widths = [
        LearntFrontier(each)([]).margin_gib(slopes, margins)[1]
        for each in (guess, known)
        for margins, slopes in [each.slopes(CONFIGS)]
    ]
    assert (widths[0] > 2 * widths[1]).all()
    assert np.isfinite(widths[0]).all()


def test_a_study_is_resolved_only_where_it_is_served(tmp_path: Path) -> None:
    question = Question(model=mystery(tmp_path).model, gpu="h100_sxm", quant="bf16", workloads=("1k1k_c64",))
    assert resolve(question, here=True).deployment.model == question.model
    with pytest.raises(BadInput, match="is missing"):
        resolve(question)
    for model, why in (("acme/nowhere-8b", "No architecture numbers for model"), (str(tmp_path), "config.json")):
        with pytest.raises(BadInput, match=why):
            resolve(changed(question, model=model), here=True)
    with pytest.raises(BadInput, match="Unknown GPU 'h99'"):
        resolve(Question(study="llama3.1-8b-h100", gpu="h99"), here=True)
