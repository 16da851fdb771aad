"""What one study taught about memory is there when the next one begins, and in an estimate; and only where it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.app.calibration import UNTAUGHT, taught_below
from advisor.app.doctoring import doctor
from advisor.app.estimating import estimate_question
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question, resolve
from advisor.app.tuning import How, Session, open_session
from advisor.domain.errors import BadInput
from advisor.domain.measurement import ProfiledMemory
from advisor.domain.objective import Objective, Slo
from advisor.domain.outcome import Started
from advisor.domain.ports import Asked
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.memory.constants import MEMORY_ERROR
from advisor.store.run_card import RunCard, write_card
from advisor.store.trial_folder import TrialFolder
from advisor.twin.constants import NOMINAL
from advisor.twin.worlds import draw_world
from tests.app.studies import Watcher, play
from tests.store.servers import BASELINE, launch

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


def measured_run(root: Path) -> Path:
    """A run on GPUs whose only launch profiled half of the activations that the law expects."""
    deployment = resolve(Question(study=STUDY, workloads=("1k1k_c8",))).deployment
    card = RunCard(
        study=STUDY,
        source="measured",
        engine_label="measured on one H100",
        deployment=deployment,
        workloads=(parse_workload("1k1k_c8"),),
        objective=Objective(),
        slo=Slo(),
    )
    run, config = root / STUDY / "run", BASELINE
    nominal = float(Forecaster(deployment, card.workloads).budget(config).activations_gib)
    record = changed(
        launch(Asked(number=0, config=config, role="baseline", origin="test")),
        source="measured",
        outcome=Started(),
        memory_measured_gib=None,
        profiled_gib=ProfiledMemory(activations=nominal / 2),
    )
    TrialFolder(run, 0).commit(record)
    write_card(run, card)
    return run


def test_doctor_prices_remedies_by_what_was_measured(tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    log, own = tmp_path / "server.log", run / "trials" / "0000" / "server.log"
    for place in (log, own):
        place.write_text("RuntimeError: Executor creation failed due to insufficient GPU memory.\n")
    named = {"model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "h100_sxm"}
    nominal, fitted = doctor(str(log), **named), doctor(str(log), **named, results=tmp_path)  # type: ignore[arg-type]
    of_its_run = doctor(str(own))
    assert nominal.calibration == "none"
    assert fitted.calibration == of_its_run.calibration == f"1 launch in {run}"
    tokens = [
        next(price for price in found.prices if price.setting == "max_num_tokens")
        for found in (nominal, fitted, of_its_run)
    ]
    assert tokens[1].gib == pytest.approx(tokens[0].gib / 2, rel=0.25)
    assert tokens[2].gib == tokens[1].gib
    with pytest.raises(BadInput, match="name its model"):
        doctor(str(log), results=tmp_path)
