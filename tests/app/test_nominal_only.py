"""What proposes, admits, ranks and estimates knows only the nominal twin: a drawn world shows in launches alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.app.setup import Question
from advisor.app.trial_runner import run_trial
from advisor.app.tuning import How, Session, open_session
from advisor.domain.measurement import Metrics
from advisor.domain.ports import LaunchSpec, TrialRequest
from advisor.domain.serving_config import ServingConfig
from advisor.domain.trial import TrialRecord
from advisor.report import plan_view
from advisor.search.space import all_configs

WORLDS = (0, 1, 2, 17)
QUESTION = Question(study="llama3.1-8b-h100", workloads=("1k1k_c16", "4k1k_c8"), slo="ttft:p95<2s", max_launches=12)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Session]:
    out = tmp_path_factory.mktemp("out")
    return {world: open_session(QUESTION, How(engine="twin", twin_world=world, out=out)) for world in WORLDS}


def launch(session: Session, config: ServingConfig) -> TrialRecord:
    context = session.context
    spec = LaunchSpec(deployment=context.deployment, config=config, workloads=context.workloads, seed=11)
    request = TrialRequest(number=0, role="search", origin="test", engine=context.engine, spec=spec)
    return run_trial(request, session.engine)


def metrics_of(record: TrialRecord) -> list[Metrics | None]:
    return [outcome.metrics for outcome in record.workloads]


def test_predictions_references_and_baselines_are_those_of_the_nominal_twin(sessions: dict[int, Session]) -> None:
    nominal = sessions[0].context
    some = [entry.config for entry in nominal.baselines if entry.config is not None]
    for world in WORLDS[1:]:
        context = sessions[world].context
        assert context.references == nominal.references
        assert context.baselines == nominal.baselines
        for config in some:
            for workload in context.workloads:
                assert context.predict(config, workload) == nominal.predict(config, workload)


def test_admission_and_starts_are_those_of_the_nominal_twin(sessions: dict[int, Session]) -> None:
    nominal = sessions[0]
    some = all_configs(nominal.context.space)[::900]
    for world in WORLDS[1:]:
        session = sessions[world]
        assert session.starts.next_start(()) == nominal.starts.next_start(())
        for config in some:
            assert session.gate.forecast(config, ()) == nominal.gate.forecast(config, ())
            assert session.gate.admit(config, ()) == nominal.gate.admit(config, ())


def test_the_plan_of_a_study_is_the_same_but_for_its_name(sessions: dict[int, Session]) -> None:
    documents = [plan_view.plan_document(session).model_dump() for session in sessions.values()]
    names = [(document.pop("engine_label"), document.pop("run_folder")) for document in documents]
    assert all(document == documents[0] for document in documents)
    assert len(set(names)) == len(WORLDS), "runs of different worlds never share a folder"
    assert all(f"world {world}," in label for world, (label, _) in zip(WORLDS[1:], names[1:], strict=True))


def test_the_first_proposal_is_the_same_and_the_next_ones_follow_from_what_was_measured_alone(
    sessions: dict[int, Session],
) -> None:
    nominal = sessions[0]
    first = nominal.proposer.propose((), 0)
    history = (launch(nominal, first.config),)
    for world in WORLDS[1:]:
        session = sessions[world]
        assert session.proposer.propose((), 0) == first
        assert session.proposer.propose(history, 0) == nominal.proposer.propose(history, 0)
        assert session.starts.next_start(history) == nominal.starts.next_start(history)
        assert session.gate.forecast(first.config, history) == nominal.gate.forecast(first.config, history)


def test_launches_are_what_differs(sessions: dict[int, Session]) -> None:
    config = sessions[0].context.baseline.config
    assert config is not None
    records = [launch(session, config) for session in sessions.values()]
    speeds = [tuple(each.output_tok_per_s for each in metrics_of(record) if each) for record in records]
    assert len(set(speeds)) == len(WORLDS)
    memories = [record.memory_measured_gib for record in records]
    assert len({memory.model_dump_json() for memory in memories if memory}) == len(WORLDS)


def test_the_engine_is_the_only_module_that_knows_worlds() -> None:
    package = Path(__file__).parents[2] / "advisor"
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "draw_world" in path.read_text(encoding="utf-8")
    }
    assert knowing == {"twin/worlds.py", "engines/simulated.py"}
