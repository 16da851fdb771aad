"""Which earlier runs may teach a study, and that nothing that lies in the results folder can stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.app import earlier
from advisor.app.earlier import Asking, earlier_runs, find_earlier, note_earlier
from advisor.app.setup import Question, resolve
from advisor.domain.errors import BadInput
from advisor.domain.objective import parse_objective, parse_slo
from advisor.domain.ports import Asked
from advisor.domain.strict import changed
from advisor.domain.workload import parse_workload
from advisor.store.run_card import CARD, RunCard, write_card
from advisor.store.trial_folder import TrialFolder
from tests.store.servers import BASELINE, launch

RESOLVED = resolve(Question(study="llama3.1-8b-h100", workloads=("4k1k_c256",)))
OURS = RunCard(
    study="ours",
    source="simulated",
    engine_label="simulated by the twin (world 3)",
    deployment=RESOLVED.deployment,
    workloads=RESOLVED.workloads,
    objective=RESOLVED.objective,
    slo=RESOLVED.slo,
)


def run(root: Path, name: str, **other: Any) -> Path:
    """A run of one trial that was interrupted after it: there is no summary."""
    folder = root / name
    TrialFolder(folder, 0).commit(launch(Asked(number=0, config=BASELINE, role="baseline", origin="test")))
    write_card(folder, changed(OURS, **other))
    return folder


def asking(root: Path) -> Asking:
    return Asking(root / "ours" / "run", OURS)


def deployment(**other: Any) -> Any:
    return changed(RESOLVED.deployment, **other)


def test_the_same_deployment_comes_first_then_neighbours_by_how_much_differs(tmp_path: Path) -> None:
    run(tmp_path, "other/gpu", deployment=deployment(gpu="h200_sxm"))
    run(tmp_path, "other/release", deployment=deployment(engine_version="1.1.0"))
    run(tmp_path, "same/far", workloads=(parse_workload("1k1k_c32"),))
    run(tmp_path, "same/near", workloads=(parse_workload("4k1k_c128"),))
    found = find_earlier(tmp_path, asking(tmp_path))
    assert [each.folder for each in found.runs] == ["same/near", "same/far", "other/release", "other/gpu"]
    assert [each.same_deployment(OURS.deployment) for each in found.runs] == [True, True, False, False]
    assert len(found.runs[0].records) == 1
    assert not found.notes


@pytest.mark.parametrize(
    "other",
    [
        {"source": "measured"},
        {"engine_label": "simulated by the twin (world 4)"},
        {"deployment": deployment(model="meta-llama/Llama-3.1-70B")},
        {"deployment": deployment(quantization="fp8")},
        {"objective": parse_objective("goodput")},
    ],
)
def test_another_source_world_model_or_meaning_of_the_load_teaches_nothing(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    run(tmp_path, "other/run", **other)
    assert not find_earlier(tmp_path, asking(tmp_path)).runs


def test_goodput_compares_under_the_same_limits_only(tmp_path: Path) -> None:
    goodput = changed(OURS, objective=parse_objective("goodput"), slo=parse_slo("ttft:p95<2s"))
    run(tmp_path, "same/limits", objective=goodput.objective, slo=goodput.slo)
    run(tmp_path, "other/limits", objective=goodput.objective, slo=parse_slo("ttft:p95<9s"))
    found = find_earlier(tmp_path, Asking(tmp_path / "ours" / "run", goodput))
    assert [each.folder for each in found.runs] == ["same/limits"]


def test_nothing_unreadable_is_fatal_and_everything_left_out_is_named(tmp_path: Path) -> None:
    run(tmp_path, "good/run")
    (run(tmp_path, "no/card") / CARD).unlink()
    (run(tmp_path, "bad/card") / CARD).write_text('{"schema_version": 99}')
    (run(tmp_path, "bad/trial") / "trials" / "0000" / "outcome.json").write_text("{")
    (tmp_path / "a file").write_text("")
    (tmp_path / "empty" / "run" / "trials").mkdir(parents=True)
    found = find_earlier(tmp_path, asking(tmp_path))
    assert [each.folder for each in found.runs] == ["good/run"]
    assert [note.count("left out") for note in found.notes] == [1, 1, 1]
    assert not find_earlier(tmp_path / "nowhere", asking(tmp_path)).runs


def test_what_is_looked_at_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "MOST_LOOKED_AT", 4)
    monkeypatch.setattr(earlier, "MOST_STUDIES", 2)
    for n in range(6):
        run(tmp_path, f"study{n}/run")
    assert len(find_earlier(tmp_path, asking(tmp_path)).runs) == 2


def test_a_resumed_run_learns_from_what_it_began_with(tmp_path: Path) -> None:
    first = run(tmp_path, "other/run")
    ours = asking(tmp_path)
    found = earlier_runs(tmp_path, ours)
    run(tmp_path, "ours/run")
    note_earlier(ours.folder, found)
    TrialFolder(first, 1).commit(launch(Asked(number=1, config=BASELINE, role="search", origin="test")))
    run(tmp_path, "later/run")
    assert earlier_runs(tmp_path, ours) == found
    (ours.folder / earlier.EARLIER).write_text("{}x")
    with pytest.raises(BadInput, match=r"earlier\.json is damaged"):
        earlier_runs(tmp_path, ours)
    (ours.folder / earlier.EARLIER).unlink()
    assert not earlier_runs(tmp_path, ours).runs, "it began without"
