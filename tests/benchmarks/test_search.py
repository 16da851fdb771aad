"""The search benchmark: its truths are what they say, every contender meets the same ones, and scores follow."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from advisor.domain.objective import Slo
from advisor.domain.outcome import OutOfMemory
from advisor.search.space import all_configs, contains
from advisor.twin.constants import NOMINAL
from benchmarks.search.__main__ import main
from benchmarks.search.contenders import CONTENDERS, OURS, CoarseGrid, Entry, Listed
from benchmarks.search.play import CONFIRMATION_NUMBER, MARKS, Score, play
from benchmarks.search.table import judged, lines
from benchmarks.search.truths import CLASSES, VLLM_ALONE, DrawnTruth, Effects, draw_truth

pytestmark = pytest.mark.xdist_group("search truths")  # drawn once, by one worker

ROOT = Path(__file__).parents[2]
QUICK = {"right-form": 2, "wrong-form": 1, "no-twin": 0, "tight": 1, "multi": 3}
"""Seeds that are drawn after few attempts."""

FROZEN = {
    "right-form": ("Llama-4-Maverick-17B-128E-Instruct-FP8 on 8 x h100_sxm, 3000-700_c1024, max_throughput", ""),
    "wrong-form": ("Llama-3.3-70B-Instruct-FP8 on 4 x h100_sxm, 512-2048_c512, default", ""),
    "no-twin": (
        "Llama-3.3-70B-Instruct-FP8 on 2 x b200_sxm, 512-2048_c256, default",
        "ttft:p95<326000ms,tpot:mean<17.2ms",
    ),
    "tight": (
        "Llama-3.3-70B-Instruct-FP8 on 1 x h200_sxm, 1k1k_c512, max_throughput",
        "ttft:p95<149000ms,tpot:mean<74.4ms",
    ),
    "multi": ("Llama-3.1-8B-Instruct on 1 x h100_sxm, 2048-512_c64+8k1k_c1024+3000-700_c1024, default", ""),
}

drawn = functools.cache(draw_truth.__wrapped__)


def some_configs(truth: DrawnTruth, n: int = 40) -> list[int]:
    return [int(place) for place in np.random.default_rng(1).choice(len(truth.grid.runs), size=n, replace=False)]


@pytest.mark.parametrize("name", QUICK)
def test_a_class_keeps_its_promises(name: str) -> None:
    kind, truth = CLASSES[name], drawn(name, QUICK[name])
    out_of_memory = float(np.mean(~truth.grid.fits))
    assert kind.out_of_memory[0] <= out_of_memory <= kind.out_of_memory[1]
    assert all(kind.feasible[0] <= share <= kind.feasible[1] for share in truth.grid_kept().mean(axis=1))
    assert (truth.problem.forecaster is not None) == kind.has_twin
    assert bool(truth.fields) == kind.wrong_form == (truth.effects != Effects())
    assert len(truth.problem.workloads) == kind.n_workloads
    assert 5_000 <= len(all_configs(truth.problem.space)) <= 50_000


def test_constants_are_off_by_thirty_percent_at_most_and_all_of_them() -> None:
    constants = dataclasses.asdict(drawn("right-form", QUICK["right-form"]).twin.constants)
    tilt = constants.pop("decode_tilt")
    assert 32 ** abs(tilt) < 1.3
    # The reserve is composed of what is used; it may move by a rounding.
    ratios = {name: value / getattr(NOMINAL, name) for name, value in constants.items()}
    assert {name for name, ratio in ratios.items() if ratio == 1.0} == {
        name for name in ratios if name.startswith(VLLM_ALONE)
    }
    assert all(1 / 1.3001 < ratio < 1.3001 for ratio in ratios.values())


def test_the_same_seed_is_the_same_truth() -> None:
    once, again = drawn("wrong-form", 1), draw_truth.__wrapped__("wrong-form", 1)
    assert (once.problem.name, once.problem.slo, once.twin.constants) == (
        again.problem.name,
        again.problem.slo,
        again.twin.constants,
    )
    np.testing.assert_array_equal(once.grid_values(), again.grid_values())
    config = once.problem.baseline
    assert once.launch(config, 3) == again.launch(config, 3)
    assert once.launch(config, 3) != once.launch(config, 4)


def test_frozen_truths_are_still_those_that_were_frozen() -> None:
    found = {name: (drawn(name, seed).problem.name, drawn(name, seed).problem.slo.text) for name, seed in QUICK.items()}
    assert found == FROZEN


def test_the_best_is_the_best_of_the_grid() -> None:
    truth = drawn("tight", QUICK["tight"])
    (workload,) = truth.problem.workloads
    configs, best = all_configs(truth.problem.space), truth.best(workload)
    winner = int(np.nanargmax(np.where(truth.grid_kept()[0], truth.grid_values()[0], np.nan)))
    near = [*some_configs(truth), winner, *np.flatnonzero(truth.grid_kept()[0])[:20].tolist()]
    values = []
    for place in near:
        value = truth.value(configs[place], workload)
        keeps = value is not None and truth.excess(configs[place], workload) <= 0
        assert keeps == truth.grid_kept()[0][place]
        values += [value] if keeps and value is not None else []
    assert max(values) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("name", ["tight", "multi"])
def test_a_launch_tells_what_is_true_but_for_its_noise(name: str) -> None:
    truth = drawn(name, QUICK[name])
    configs, logs = all_configs(truth.problem.space), []
    for place in some_configs(truth):
        record = truth.launch(configs[place], 5)
        assert record.source == "simulated"
        assert record.measured == truth.grid.runs[place]
        assert record.out_of_memory <= (not truth.grid.fits[place])
        if isinstance(record.outcome, OutOfMemory):
            assert record.outcome.tried_gib is not None and record.outcome.short_gib > 0
        for workload in truth.problem.workloads if record.measured else ():
            outcome, value = record.workload(workload.name), truth.value(configs[place], workload)
            assert outcome is not None and outcome.metrics is not None and value is not None
            logs.append(math.log(outcome.metrics.output_tok_per_s_per_gpu / value))
            e2e = outcome.metrics.e2e_ms
            assert e2e.p50 <= e2e.p90 <= e2e.p95 <= e2e.p99
    assert len(logs) > 10
    assert 0.01 < float(np.std(logs)) < 0.03


def test_with_nominal_constants_a_truth_is_the_twin() -> None:
    truth = drawn("right-form", QUICK["right-form"])
    forecaster, (workload,) = truth.problem.forecaster, truth.problem.workloads
    assert forecaster is not None
    nominal = dataclasses.replace(truth, twin=forecaster.twin)
    configs = [all_configs(truth.problem.space)[place] for place in some_configs(truth)]
    ranking, surface = forecaster.rank(configs, workload), nominal.surface(configs)
    np.testing.assert_allclose(surface.output_tok_per_s[0], ranking.output_tok_per_s)
    np.testing.assert_allclose(surface.ttft_ms[0], ranking.ttft_ms)


def test_a_configuration_beside_the_grid_is_evaluated_like_one_on_it() -> None:
    truth = drawn("wrong-form", 1)
    config = all_configs(truth.problem.space)[7]
    alone = truth.surface([config])
    np.testing.assert_allclose(alone.output_tok_per_s[:, 0], truth.grid.output_tok_per_s[:, 7])


def test_who_launches_the_best_second_is_near_it_at_two() -> None:
    truth = drawn("tight", QUICK["tight"])
    winner = int(np.nanargmax(np.where(truth.grid_kept()[0], truth.grid_values()[0], np.nan)))
    score = play(truth, Listed((all_configs(truth.problem.space)[winner],)))
    assert (score.n_to_near, score.n_launches) == (2, 2)
    assert all(0.0 <= regret <= 1.0 for mark in MARKS for regret in score.regret[mark])


def test_the_baseline_alone_scores_its_own_regret() -> None:
    served = drawn("wrong-form", 1)
    truth = dataclasses.replace(served, problem=dataclasses.replace(served.problem, slo=Slo()))
    (workload,) = truth.problem.workloads
    value = truth.value(truth.problem.baseline, workload)
    assert value is not None
    (regret,) = play(truth, Listed(())).regret[12]
    assert regret == pytest.approx(1 - value / truth.best(workload))


def test_the_coarse_grid_ends_and_stays_in_the_space() -> None:
    truth = drawn("wrong-form", 1)
    contender, history = CoarseGrid(truth.problem), [truth.launch(truth.problem.baseline, 0)]
    while (config := contender.next(history)) is not None:
        assert contains(truth.problem.space, config)
        history.append(truth.launch(config, len(history)))
        assert len(history) < 30
    assert len({record.config for record in history}) == len(history)


def test_confirmations_lie_beyond_every_search() -> None:
    assert max(MARKS) < CONFIRMATION_NUMBER


def score(regret: float, n_oom: int = 0) -> Score:
    return Score(dict.fromkeys(MARKS, (regret,)), (False,), n_oom, 2, 20, 1.0)


def test_targets_are_judged_for_our_own_search_alone() -> None:
    assert judged("right-form", {"random": [score(0.5)]}) == []
    good = judged("right-form", {OURS: [score(0.01)], "tpe": [dataclasses.replace(score(0.2), n_to_near=None)]})
    assert len(good) == 5 and all(verdict.met for verdict in good)
    bad = judged("right-form", {OURS: [score(0.02, n_oom=1)]})
    assert [verdict.met for verdict in bad] == [False, True, True, False]
    assert len(lines({"random": [score(0.5)]})) == 2


def test_a_contender_without_its_packages_is_known() -> None:
    assert Entry(CONTENDERS["random"].make, "", needs=("no_such_package",)).missing == ("no_such_package",)


def test_the_documented_truth_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "search-benchmark.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    path = tmp_path / "my_server.py"
    path.write_text(example, encoding="utf-8")
    arguments = ["--truth", str(path), "--truths", "2", "--processes", "1"]
    assert main([*arguments, "--contenders", "random", "vllm-grid", "baseline"]) == 0
    printed = capsys.readouterr().out
    assert "outside" in printed
    assert [line.split()[0] for line in printed.splitlines()[-3:]] == ["random", "vllm-grid", "baseline"]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "is no file"), ("x = 1\n", "does not define truth")], ids=["no file", "no function"]
)
def test_a_truth_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["--truth", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_contender_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--contenders", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
