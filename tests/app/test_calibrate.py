"""A drawn world is a server whose constants are known: what a calibration finds of them, and what that is good for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from advisor.app.calibrate import calibrate, calibrated
from advisor.app.estimating import estimate_question, plan_question
from advisor.app.forecast import Forecaster
from advisor.app.setup import Question
from advisor.app.trial_runner import run_trial
from advisor.app.tuning import How, Session, open_session
from advisor.cli.app import app
from advisor.domain.calibration import Calibration
from advisor.domain.errors import BadInput
from advisor.domain.ports import LaunchSpec, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.domain.trial import TrialRecord
from advisor.search.space import all_configs
from advisor.store.calibrations import calibration_below, calibration_path, read_calibration, write_calibration
from advisor.store.run_card import RunCard, write_card
from advisor.store.trial_folder import TrialFolder
from advisor.twin.constants import NOMINAL
from advisor.twin.worlds import draw_world
from tests.app.studies import Watcher, play

STUDY, WORLD, N_LAUNCHES = "llama3.1-8b-h100", 7, 8
SHAPES = ("1k1k_c64", "4k1k_c16")


def opened(
    root: Path, *, world: int = WORLD, shapes: tuple[str, ...] = SHAPES, calibration: bool = True, resume: bool = False
) -> Session:
    question = Question(study=STUDY, workloads=shapes, max_launches=2)
    return open_session(
        question, How(engine="twin", twin_world=world, out=root, calibration=calibration, resume=resume)
    )


def card_of(session: Session) -> RunCard:
    context = session.context
    return RunCard(
        study=context.name,
        source=context.identity.source,
        engine_label=context.identity.label,
        deployment=context.deployment,
        workloads=context.workloads,
        objective=context.objective,
        slo=context.slo,
    )


def launched(session: Session, number: int, config: ServingConfig) -> TrialRecord:
    context = session.context
    spec = LaunchSpec(deployment=context.deployment, config=config, workloads=context.workloads, seed=100 + number)
    request = TrialRequest(number=number, role="search", origin="test", engine=context.engine, spec=spec)
    return run_trial(request, session.engine)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[TrialRecord]]:
    """Configurations from all over the space, those that the nominal twin would launch; the first eight are kept."""
    session = opened(tmp_path_factory.mktemp("results"))
    grid = all_configs(session.context.space)
    drawn = (grid[place] for place in np.random.default_rng(1).permutation(len(grid)))
    likely = (config for config in drawn if session.gate.admit(config, ()) is None)
    records = [launched(session, number, config) for number, config in zip(range(16), likely, strict=False)]
    session.run_folder.mkdir(parents=True)
    for record in records[:N_LAUNCHES]:
        TrialFolder(session.run_folder, record.number).commit(record)
    write_card(session.run_folder, card_of(session))
    return session, records


@pytest.fixture(scope="module")
def found(trials: tuple[Session, list[TrialRecord]]) -> Calibration:
    return calibrate([trials[0].run_folder])


def test_the_constants_of_a_drawn_world_are_recovered_within_their_stated_deviations(found: Calibration) -> None:
    truth = draw_world(WORLD)
    z = np.array([(each.fitted - getattr(truth, each.name)) / each.sd for each in found.constants])
    pinned = np.array([each.pinned for each in found.constants]) > 0.05
    assert np.abs(z[pinned]).max() < 3
    assert np.sqrt((z[pinned] ** 2).mean()) < 1.5
    assert {each.name for each in found.constants if each.pinned > 0.5} >= {
        *("dense_factor", "attention_factor", "prefill_factor", "weights_factor", "activations_factor")
    }
    untold = [each for each in found.constants if each.name.startswith(("moe", "nvfp4"))]
    assert all(each.fitted == pytest.approx(each.nominal) and each.pinned < 0.01 for each in untold)


def test_configurations_that_were_not_launched_are_predicted_better(
    trials: tuple[Session, list[TrialRecord]], found: Calibration
) -> None:
    session, records = trials
    deployment, workloads = session.context.deployment, session.context.workloads
    errors = []
    for constants in (NOMINAL, calibrated(found, deployment)):
        forecaster = Forecaster(deployment, workloads, constants=constants)
        errors.append(
            [
                abs(metrics.output_tok_per_s / outcome.metrics.output_tok_per_s - 1)
                for record in records[N_LAUNCHES:]
                for workload in workloads
                if (outcome := record.workload(workload.name)) and outcome.metrics
                if (metrics := forecaster.predict(record.config, workload).metrics)
            ]
        )
    assert len(errors[0]) == len(errors[1]) >= 8
    before, after = map(np.median, errors)
    assert after < 0.02 < before, "two deviations of a repeat"


def test_a_calibration_is_of_every_benchmark_and_says_what_is_left(found: Calibration) -> None:
    assert found.n_launches == N_LAUNCHES
    assert len(found.errors) == N_LAUNCHES * len(SHAPES)
    for median in found.median_errors:
        assert median.after == pytest.approx(np.median([abs(each.after[median.output]) for each in found.errors]))
        assert median.after < median.before


def test_memory_is_believed_of_the_same_deployment_and_times_of_every_model(found: Calibration) -> None:
    same = found.deployments[0]
    other = changed(same, model="meta-llama/Meta-Llama-3.1-70B", gpus=4, tp=4)
    ours, theirs = calibrated(found, same), calibrated(found, other)
    assert theirs.dense_factor == ours.dense_factor != NOMINAL.dense_factor
    assert theirs.weights_factor == NOMINAL.weights_factor != ours.weights_factor
    assert calibrated(None, same) == NOMINAL


def test_later_verbs_go_by_it_and_say_so(
    trials: tuple[Session, list[TrialRecord]], found: Calibration, tmp_path: Path
) -> None:
    run, root = trials[0].run_folder, tmp_path
    write_calibration(calibration_path(root, found.deployments[0], found.source, found.engine_label), found)
    question = Question(study=STUDY, workloads=("2k1k_c32",))
    (nominal,) = estimate_question(question, {})
    (fitted,) = estimate_question(question, {}, twin_world=WORLD, calibrations=root)
    assert nominal.twin_calibration == "none"
    assert fitted.twin_calibration == f"8 launches in {run}"
    assert nominal.metrics != fitted.metrics
    (plan,) = plan_question(question, 1, root, WORLD)
    assert plan.twin_calibration == fitted.twin_calibration
    for other in (estimate_question(question, {}, calibrations=root)[0], opened(root, world=WORLD + 1)):
        assert other.twin_calibration == "none", "simulated in another world, or not at all"
    session, without = opened(root), opened(root, calibration=False)
    assert session.twin_calibration == fitted.twin_calibration
    assert without.context.references == trials[0].context.references != session.context.references


def test_a_run_keeps_the_calibration_that_it_began_with(
    trials: tuple[Session, list[TrialRecord]], found: Calibration, tmp_path: Path
) -> None:
    path = calibration_path(tmp_path, found.deployments[0], found.source, found.engine_label)
    play(opened(tmp_path, shapes=("1k1k_c8",)), Watcher(cancel_after=1))
    write_calibration(path, found)
    assert opened(tmp_path, shapes=("1k1k_c8",), resume=True).twin_calibration == "none", "it began without"
    play(opened(tmp_path, shapes=("2k1k_c8",)), Watcher(cancel_after=1))
    path.unlink()
    again = opened(tmp_path, shapes=("2k1k_c8",), resume=True, calibration=False)
    assert again.twin_calibration == found.label


def test_the_verb_saves_and_shows_what_is_simulated_as_simulated(
    trials: tuple[Session, list[TrialRecord]], tmp_path: Path
) -> None:
    session, records = trials
    run = tmp_path / STUDY / "run"
    TrialFolder(run, 0).commit(records[0])
    write_card(run, card_of(session))
    shown = CliRunner().invoke(app, ["calibrate", str(run.parent)])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.lstrip().startswith("SIMULATED")
    saved = calibration_below(tmp_path, session.context.deployment, "simulated", session.context.identity.label)
    assert saved is not None
    assert all(each.name in shown.stdout for each in saved.constants)
    told = CliRunner().invoke(app, ["calibrate", str(run), "--save", str(tmp_path / "mine.json"), "--output", "json"])
    assert read_calibration(tmp_path / "mine.json") == Calibration.model_validate_json(told.stdout) == saved


def test_what_cannot_be_fitted_is_said(
    trials: tuple[Session, list[TrialRecord]], found: Calibration, tmp_path: Path
) -> None:
    run, deployment = trials[0].run_folder, trials[0].context.deployment
    with pytest.raises(BadInput, match="is no run: give results/STUDY/RUN"):
        calibrate([tmp_path])
    empty = tmp_path / "study" / "run"
    empty.mkdir(parents=True)
    (empty / "study.json").write_text((run / "study.json").read_text())
    with pytest.raises(BadInput, match="Nothing to fit"):
        calibrate([empty])
    card = json.loads((run / "study.json").read_text())
    (empty / "study.json").write_text(json.dumps({**card, "deployment": {**card["deployment"], "gpu": "h200_sxm"}}))
    with pytest.raises(BadInput, match="do not belong together"):
        calibrate([run, empty])
    path = calibration_path(tmp_path, deployment, "measured", "")
    write_calibration(path, found)
    with pytest.raises(BadInput, match="not what its name says"):
        calibration_below(tmp_path, deployment, "measured", "")
    path.write_text("{}")
    with pytest.raises(BadInput, match="no calibration of this version"):
        calibration_below(tmp_path, deployment, "measured", "")
    odd = changed(found, constants=(changed(found.constants[0], name="dense_facto"),))
    with pytest.raises(BadInput, match="dense_factor"):
        calibrated(odd, deployment)
