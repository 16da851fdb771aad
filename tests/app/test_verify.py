"""`verify` and `compare` on a real study of the twin: verdicts, what is kept, and folders that are not as they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.app.compare import compare
from advisor.app.manifest import MANIFEST
from advisor.app.setup import Question
from advisor.app.tuning import How, open_session
from advisor.app.verification import VERIFIED, Verification
from advisor.app.verify import How as VerifyHow
from advisor.app.verify import verify
from advisor.domain.errors import BadInput, EngineFailed, Interrupted
from advisor.domain.outcome import Infrastructure, OutOfMemory
from advisor.domain.ports import Engine
from advisor.domain.workload import parse_workload
from advisor.metrics.verdict import FULL_REFERENCE, LOOKS
from advisor.report import bundle
from advisor.search.soaking import soak_workload
from tests.app.paced import PacedEngine
from tests.app.scripted import Act, ScriptedEngine
from tests.app.studies import Watcher

WORKLOAD = "1k1k_c64"
CONFIG = "extra-llm-api-config.yml"
pytestmark = pytest.mark.xdist_group("verify")  # they share the studies


class Going:
    """Nobody stops it; `stopped` does."""

    cancelled = False


class Stopped:
    cancelled = True


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one study in the nominal world, in another one, under limits, and the first made verifiable."""
    found: dict[str, Path] = {}
    asked: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "nominal": ({}, {}),
        "world": ({}, {"twin_world": 5}),
        "limits": ({"slo": "ttft:p95<2s"}, {"seed": 1}),
        "verifiable": ({}, {"resume": True, "verifiable": True}),
    }
    for name, (question, how) in asked.items():
        out = tmp_path_factory.mktemp(name)
        if "resume" in how:
            shutil.copytree(found["nominal"].parents[1], out, dirs_exist_ok=True)
        session = open_session(
            Question(study="llama3.1-8b-h100", workloads=(WORKLOAD,), max_launches=6, **question),
            How(engine="twin", out=out, **how),
        )
        with session.open_ledger() as ledger:
            summary = session.run(ledger, Watcher(), Watcher())
            bundle.write(session, ledger.records(), summary)
        found[name] = session.run_folder
    return found


@pytest.fixture
def copied(studies: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """The folder of the workload in a copy of a run that a test may spoil."""

    def copy(name: str = "nominal") -> Path:
        return Path(shutil.copytree(studies[name], tmp_path / name)) / WORKLOAD

    return copy


def verified(folder: Path, engine: Engine | None = None, **how: Any) -> Verification:
    (found,) = verify(folder, VerifyHow(**how), lambda text: None, Going(), engine).workloads
    return found


def test_an_unchanged_server_passes_and_completes_the_result(copied: Callable[..., Path]) -> None:
    folder, engine = copied(), PacedEngine()
    first = verified(folder, engine)
    assert (first.verdict, first.direction, first.comparison) == ("PASS", "same", "like_with_like")
    assert first.source == "simulated" and "simulated" in first.label
    assert Verification.model_validate_json((folder / VERIFIED).read_text()) == first
    again = verified(folder, engine)
    assert again.verdict == "PASS"
    assert len(again.reference) <= FULL_REFERENCE
    assert again.reference[: len(first.reference)] == first.reference
    assert again.tested[0].n_reference == len(first.reference) > first.tested[0].n_reference
    seeds = [spec.seed for spec in engine.specs]
    assert len(set(seeds)) == len(seeds), "no two launches of all verifications share a seed"
    records = [json.loads(path.read_text()) for path in folder.parent.glob("trials/*/outcome.json")]
    assert not set(seeds) & {record["seed"] for record in records}


@pytest.mark.parametrize(("pace", "direction"), [(0.93, "slower"), (1.12, "faster")])
def test_another_pace_is_a_drift(copied: Callable[..., Path], pace: float, direction: str) -> None:
    folder = copied()
    found = verified(folder, PacedEngine(pace=pace))
    assert (found.verdict, found.direction) == ("DRIFT", direction)
    assert found.tested[0].decision.ratio.low < pace < found.tested[0].decision.ratio.high
    assert len(found.reference) < found.tested[0].n_reference + len(found.launches), "what drifted joins nothing"


@pytest.mark.parametrize("study", ["nominal", "limits", "verifiable"])
@pytest.mark.parametrize("at", range(LOOKS[0]))
def test_one_request_short_of_its_tokens_fails_at_once(copied: Callable[..., Path], study: str, at: int) -> None:
    found = verified(copied(study), PacedEngine(n_short=(0,) * at + (1,)))
    assert (found.verdict, found.direction, len(found.launches)) == ("FAIL", None, at + 1)
    assert "1 requests fell short" in found.reasons[0]


def test_a_first_verification_tells_a_loss_where_the_study_left_enough_launches(copied: Callable[..., Path]) -> None:
    mended = "--resume --verifiable adds them"
    missed, noticed = (verified(copied(study), PacedEngine(pace=0.95)) for study in ("nominal", "verifiable"))
    assert noticed.tested[0].n_reference == 9 > missed.tested[0].n_reference
    assert (noticed.verdict, noticed.direction) == ("DRIFT", "slower")
    assert any(mended in note for note in missed.notes) and not any(mended in note for note in noticed.notes)


def test_what_was_soaked_is_soaked_again_once(copied: Callable[..., Path]) -> None:
    folder = copied("verifiable")
    found = verified(folder, PacedEngine())
    assert found.soak is not None and found.soak.survived
    soaked = json.loads((folder / "result.json").read_text())["soak"]
    assert (found.soak.n_requests, found.soak.tokens_per_request) == (
        soaked["n_requests"],
        soaked["tokens_per_request"],
    )
    oom = OutOfMemory(phase="serve", component="activations", short_gib=0.5)
    heaviest = soak_workload([parse_workload(WORKLOAD)]).name
    dead = verified(folder, ScriptedEngine(Act(under={heaviest: oom})))
    assert (dead.verdict, len(dead.launches)) == ("FAIL", 1)
    assert "out of memory" in dead.reasons[0]


def test_out_of_memory_at_start_fails(copied: Callable[..., Path]) -> None:
    oom = OutOfMemory(phase="warm_up", component="cuda_graphs", short_gib=0.5)
    found = verified(copied(), ScriptedEngine(Act(at_start=oom)))
    assert found.verdict == "FAIL"
    assert "out of memory at warm_up" in found.reasons[0]


def test_other_effective_settings_fail(copied: Callable[..., Path]) -> None:
    found = verified(copied(), ScriptedEngine(Act()))
    assert found.verdict == "FAIL"
    assert any("the effective max_batch_size is 1, it was" in reason for reason in found.reasons)
    assert found.differences, "another engine is named"


def test_a_limit_clearly_broken_fails(copied: Callable[..., Path]) -> None:
    folder = copied("limits")
    assert verified(folder, PacedEngine()).limits[0].state == "kept"
    found = verified(folder, PacedEngine(pace=0.3))
    assert found.verdict == "FAIL"
    assert "ttft:p95" in found.reasons[0] and "above 2000 ms" in found.reasons[0]


def test_what_says_nothing_of_the_server_is_no_verdict(copied: Callable[..., Path]) -> None:
    folder = copied()
    with pytest.raises(EngineFailed, match="no such device"):
        verified(folder, ScriptedEngine(Act(at_start=Infrastructure(reason="no such device"))))
    with pytest.raises(Interrupted):
        verify(folder, VerifyHow(), lambda text: None, Stopped(), PacedEngine())
    assert not (folder / VERIFIED).exists()


def test_a_prediction_is_held_against_a_measurement_and_says_so(copied: Callable[..., Path]) -> None:
    folder = copied()
    close = verified(folder, PacedEngine(pace=0.93, source="measured"))
    assert (close.verdict, close.comparison, close.source) == ("PASS", "prediction", "measured")
    assert "simulated" in close.differences[0] and "measured" in close.differences[0]
    assert len(close.reference) == close.tested[0].n_reference, "a measurement joins no prediction"
    assert verified(folder, PacedEngine(pace=0.5, source="measured")).verdict == "DRIFT"


def test_few_launches_may_be_asked_for(copied: Callable[..., Path]) -> None:
    found = verified(copied(), PacedEngine(), max_launches=1)
    assert (found.verdict, len(found.launches)) == ("PASS", 1)
    assert found.tested[0].decision.detectable_loss > 0.05
    assert LOOKS[-1] > 1


def test_a_verdict_that_cannot_be_kept_stands(copied: Callable[..., Path]) -> None:
    folder, said = copied(), list[str]()
    (folder / VERIFIED).mkdir()
    (folder / "verify").write_text("no folder")
    report = verify(folder, VerifyHow(max_launches=1), said.append, Going(), PacedEngine())
    assert report.verdict == "PASS"
    assert "The verdict stands, but is not kept" in said[-1]


def _edited_yaml(folder: Path) -> None:
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace("enable_padding: true", "enable_padding: false"))


def _wrong_type(folder: Path) -> None:
    data = json.loads((folder / "result.json").read_text())
    data["best"]["serving_config"]["max_batch_size"] = "many"
    (folder / "result.json").write_text(json.dumps(data))


def _newer(folder: Path) -> None:
    data = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**data, "schema_version": 2}))


def _half(folder: Path) -> None:
    path = folder / "result.json"
    path.write_text(path.read_text()[:500])


def _tampered(folder: Path) -> None:
    with (folder / "serve.sh").open("a") as file:
        file.write("# edited\n")


def _hostile(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    data["files"][0]["name"] = "../secret"
    (folder / MANIFEST).write_text(json.dumps(data))


def _old_verification(folder: Path) -> None:
    (folder / VERIFIED).write_text("{")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_edited_yaml, "cuda_graph_config.enable_padding is False, result.json means True"),
        (_wrong_type, "best.serving_config.max_batch_size"),
        (_newer, "schema_version 2; this advisor reads 1"),
        (_half, "is not JSON"),
        (_old_verification, "Remove"),
        (lambda folder: (folder / CONFIG).unlink(), "There is no file"),
        (lambda folder: (folder / "result.json").unlink(), "holds no result.json"),
        (shutil.rmtree, "There is no folder"),
    ],
)
def test_a_folder_that_is_not_as_it_was_is_refused_before_any_launch(
    copied: Callable[..., Path], spoil: Callable[[Path], object], said: str
) -> None:
    """Also where no manifest tells that a file was changed."""
    folder, engine = copied(), PacedEngine()
    (folder / MANIFEST).unlink()
    spoil(folder)
    with pytest.raises(BadInput, match=said):
        verified(folder, engine)
    assert engine.specs == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_tampered, "serve.sh was changed"), (_edited_yaml, f"{CONFIG} was changed"), (_hostile, "outside its folder")],
)
def test_a_bundle_that_its_manifest_does_not_describe_is_refused(
    copied: Callable[..., Path], spoil: Callable[[Path], object], said: str
) -> None:
    folder, engine = copied(), PacedEngine()
    spoil(folder)
    with pytest.raises(BadInput, match=said):
        verified(folder, engine)
    assert engine.specs == []


def test_a_result_of_an_older_advisor_is_one_launch(copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / MANIFEST).unlink()
    data = json.loads((folder / "result.json").read_text())
    for entry in (data["best"], data["baseline"], data["runner_up"], *data["top"]):
        del entry["repeats"], entry["effective"]
    del data["max_seq_len"], data["twin_world"]
    (folder / "result.json").write_text(json.dumps(data))
    found = verified(folder, PacedEngine())
    assert (found.verdict, found.tested[0].n_reference) == ("PASS", 1)


def test_the_same_folder_differs_in_nothing(studies: dict[str, Path]) -> None:
    found = compare(studies["nominal"], studies["nominal"] / WORKLOAD / "result.json")
    (workload,) = found.workloads
    assert {each.kind for each in (*workload.changes, *workload.memory)} == {"noise"}
    assert (workload.caveats, workload.settings, workload.keys, workload.environment) == ((), (), (), ())


def test_two_worlds_differ_in_what_is_real(copied: Callable[..., Path]) -> None:
    ours, theirs = copied("nominal"), copied("world")
    for folder in (ours, theirs):
        assert verified(folder).verdict == "PASS", "each in its own world"
    (workload,) = compare(ours, theirs).workloads
    assert workload.n_real > 0
    assert any(each.kind == "real" for each in workload.memory)
    assert [each.name for each in workload.environment] == ["label"]
    back = compare(theirs, ours).workloads[0]
    for there, here in zip(workload.changes, back.changes, strict=True):
        assert (there.kind, there.before, there.after) == (here.kind, here.after, here.before)


def test_measured_and_simulated_are_never_like_with_like(copied: Callable[..., Path]) -> None:
    ours, theirs = copied("nominal"), copied("limits")
    (theirs / MANIFEST).unlink()
    data = json.loads((theirs / "result.json").read_text())
    (theirs / "result.json").write_text(json.dumps({**data, "source": "measured", "label": "measured on a test"}))
    (workload,) = compare(ours, theirs).workloads
    assert "A is simulated, B is measured" in workload.caveats[0]
    assert any("limits differ" in caveat for caveat in workload.caveats)


def test_nothing_in_common_is_refused(copied: Callable[..., Path], tmp_path: Path) -> None:
    ours = copied()
    (ours / MANIFEST).unlink()
    for name in ("a", "b"):
        shutil.copytree(ours, tmp_path / "run" / name)
        data = json.loads((ours / "result.json").read_text())
        (tmp_path / "run" / name / "result.json").write_text(json.dumps({**data, "workload_name": name}))
    with pytest.raises(BadInput, match="no workload in common"):
        compare(ours, tmp_path / "run")
