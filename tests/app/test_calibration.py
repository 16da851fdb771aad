"""What one study taught about memory is there when the next one begins, and in an estimate; and only where it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.app.calibration import UNTAUGHT, taught_below
from advisor.app.estimating import estimate_question
from advisor.app.setup import Question
from advisor.app.tuning import How, Session, open_session
from advisor.domain.strict import changed
from advisor.memory.constants import MEMORY_ERROR
from advisor.twin.constants import NOMINAL
from advisor.twin.worlds import draw_world
from tests.app.studies import Watcher, play

STUDY, WORLD = "llama3.1-8b-h100", 4


def opened(root: Path, shape: str, *, world: int = WORLD, transfer: bool = True) -> Session:
    question = Question(study=STUDY, workloads=(shape,), max_launches=3)
    return open_session(question, How(engine="twin", twin_world=world, out=root, transfer=transfer))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    play(opened(folder, "1k1k_c8"), Watcher(cancel_after=2))
    return folder


def test_the_next_study_of_the_same_deployment_begins_with_what_was_learnt(root: Path) -> None:
    first, again = opened(root, "2k1k_c8", transfer=False), opened(root, "2k1k_c8")
    assert first.gate.frontier([]).n_launches == 0
    frontier = again.gate.frontier([])
    assert frontier.n_launches == 2
    fitted, truth = frontier.constants(NOMINAL), draw_world(WORLD)
    for name in ("weights_factor", "activations_factor"):  # which every log states
        assert getattr(fitted, name) == pytest.approx(getattr(truth, name), abs=MEMORY_ERROR[name] / 2)
    assert again.summary([], "budget").calibration.startswith(f"2 launches in {STUDY}/")


def test_launches_elsewhere_teach_nothing(root: Path) -> None:
    deployment = opened(root, "2k1k_c8").context.deployment
    assert taught_below(root, deployment, twin_world=WORLD).n_launches == 2
    assert taught_below(root, deployment) == UNTAUGHT, "nothing was measured"
    assert taught_below(root, deployment, twin_world=WORLD + 1) == UNTAUGHT
    for other in ({"gpu": "h200_sxm"}, {"engine_version": "1.0.0"}, {"kv_cache_dtype": "fp8"}):
        assert taught_below(root, changed(deployment, **other), twin_world=WORLD) == UNTAUGHT


def test_an_estimate_is_corrected_by_launches_and_says_so(root: Path) -> None:
    question = Question(study=STUDY, workloads=("4k1k_c64",))
    (nominal,) = estimate_question(question, {})
    (fitted,) = estimate_question(question, {}, root, WORLD)
    assert nominal.calibration == "none"
    assert fitted.calibration.startswith(f"2 launches in {root / STUDY}")
    truth = opened(root, "4k1k_c64").engine.twin(fitted.deployment)  # type: ignore[attr-defined]
    kv_tokens = int(truth.memory(fitted.deployment, fitted.serving_config).kv_tokens)
    assert abs(fitted.kv_tokens - kv_tokens) < 0.2 * abs(nominal.kv_tokens - kv_tokens)
    assert [price.setting for price in fitted.prices] == [price.setting for price in nominal.prices]
    for before, after in zip(nominal.prices, fitted.prices, strict=True):
        assert after.gib_sd <= before.gib_sd
    assert 0 <= fitted.expected_shortfall_gib < 0.1
