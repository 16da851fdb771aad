"""The measurer over a real server: numbers that count, and every reason why they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from advisor.app.trial_runner import judged, never, silent
from advisor.domain.errors import EngineFailed
from advisor.domain.measurement import RefereeReport, ServerReport, WorkloadOutcome
from advisor.domain.objective import parse_slo
from advisor.domain.outcome import Infrastructure, Unhealthy
from advisor.domain.ports import EvidenceStore, NoEvidence, RunningServer, TrialEvent
from advisor.domain.strict import changed
from advisor.domain.workload import Workload
from advisor.load.measurer import HttpMeasurer
from advisor.load.pulse import ClientLimits
from advisor.load.warm_up import MAX_ROUNDS, MIN_ROUNDS, WARM_UP_OSL
from tests.load.running import Samples, Served
from tests.load.server import CompletionServer, Dials, completion_server

ISL, OSL, N, LANES = 64, 40, 24, 4
WORKLOAD = Workload(isl=ISL, osl=OSL, concurrency=LANES, n_requests=N)
THREE = (5, 6, 20)
BRISK = Dials(ttft_s=0.01, itl_s=0.0005, stream_interval=4)
EASY = ClientLimits(cpu_share=100, lag_ms=1e9, open_share=0)  # a busy machine is no concern of these tests


def measure(
    server: CompletionServer, told: dict[str, Any] | None = None, workload: Workload = WORKLOAD, **other: Any
) -> WorkloadOutcome:
    served = Served(server.target(**other), told or {})
    return HttpMeasurer(limits=EASY).measure(served, workload, 3, never, silent, NoEvidence())


def test_a_measurement_that_counts() -> None:
    events, samples = list[TrialEvent](), Samples()
    with completion_server(BRISK) as server:
        served = Served(
            server.target(n_gpus=2), {"kv_cache_hit_rate": 0.9}, {"kv_cache_hit_rate": 0.0, "limited_by": "gpu"}
        )
        outcome = HttpMeasurer(limits=EASY).measure(served, WORKLOAD, 3, never, events.append, samples)
    metrics, warm_up = outcome.metrics, outcome.warm_up
    assert metrics is not None and metrics.itl_ms is not None and metrics.tpot_ms is not None
    assert (metrics.n_requests, outcome.n_short, outcome.stopped_early, outcome.seed) == (N, 0, False, 3)
    assert metrics.output_tok_per_s * metrics.duration_s == pytest.approx(N * OSL)
    assert metrics.output_tok_per_s_per_gpu == pytest.approx(metrics.output_tok_per_s / 2)
    assert metrics.ttft_ms.p50 >= 10
    assert (outcome.kv_cache_hit_rate, outcome.limited_by) == (0.0, "gpu"), "what was counted before is drained"
    assert outcome.ci95 is not None and outcome.ci95[0] <= metrics.output_tok_per_s <= outcome.ci95[1]
    assert outcome.client is not None and not outcome.client.saturated

    written = samples.of[WORKLOAD.name]
    assert {len(values) for name, values in written.items() if name != "itl_ms"} == {N}
    assert float(np.percentile(written["itl_ms"], 50)) == pytest.approx(metrics.itl_ms.p50, rel=0.01)
    assert metrics.ttft_ms.mean == pytest.approx(float((written["first_token_ms"] - written["sent_ms"]).mean()))
    assert (written["n_output"] == OSL).all() and (written["n_chunks"] == 11).all()

    assert warm_up is not None
    assert MIN_ROUNDS <= len(warm_up.output_tok_per_s) <= MAX_ROUNDS
    before, measured = server.seen[:-N], server.seen[-N:]
    assert len(before) == LANES * len(warm_up.output_tok_per_s), "rounds of one wave"
    assert {seen.body["max_tokens"] for seen in before} == {WARM_UP_OSL}
    assert {seen.body["max_tokens"] for seen in measured} == {OSL}
    assert {len(seen.prompt) for seen in server.seen} == {ISL}
    assert len({tuple(seen.prompt[:8]) for seen in server.seen}) == len(server.seen), "no two runs share a prompt"

    assert [event.detail for event in events if event.kind == "phase"] == [WORKLOAD.name]
    progress = [event.fraction_done for event in events if event.kind == "progress"]
    assert progress[0] == 0.0 and len(progress) > len(warm_up.output_tok_per_s)


def test_a_full_http_thread_is_the_limit_whatever_waits_behind_it_and_is_kept() -> None:
    with completion_server(BRISK) as server:
        full = measure(server, {"http_cpu_share": 0.97, "limited_by": "max_num_tokens"})
        untold = measure(server, {"limited_by": "max_num_tokens"})
    assert full.metrics is not None, "a limit like any other, no reason not to count"
    assert (full.limited_by, full.server) == ("streaming", ServerReport(http_cpu_share=0.97))
    assert (untold.limited_by, untold.server) == ("max_num_tokens", None)


def test_energy_is_that_of_the_measurement_and_goodput_is_counted_by_request() -> None:
    with completion_server(lambda place: Dials(ttft_s=0.3 if place % 4 == 3 else 0.0)) as server:
        target = server.target(slo=parse_slo("ttft:p50<200ms,itl:p99<1000s"))
        served = Served(target, energy_j=[1000.0, 1480.0])
        outcome = HttpMeasurer(limits=EASY).measure(served, WORKLOAD, 3, never, silent, NoEvidence())
        untold = measure(server)
    assert outcome.metrics is not None and untold.metrics is not None
    assert outcome.metrics.energy_j == 480.0
    assert outcome.metrics.energy_j_per_million_tok == pytest.approx(480.0 / (N * OSL) * 1e6)
    assert outcome.metrics.goodput_request_per_s == pytest.approx(outcome.metrics.request_per_s * 0.75, rel=0.2)
    assert (untold.metrics.energy_j, untold.metrics.energy_j_per_million_tok) == (None, None)
    assert untold.metrics.goodput_request_per_s is None, "there are no limits"


def test_warming_up_goes_on_until_two_rounds_agree() -> None:
    # The first wave is ten times slower, as with kernels that are made just in time.
    with completion_server(lambda place: Dials(ttft_s=0.3 if place < LANES else 0.02)) as server:
        outcome = measure(server)
    assert outcome.warm_up is not None
    rates = outcome.warm_up.output_tok_per_s
    assert len(rates) >= 3
    assert rates[0] < 0.5 * rates[1]
    assert outcome.warm_up.stable or (outcome.note or "").startswith("not settled after 5 rounds"), "it is told"
    assert outcome.metrics is not None


def test_a_measurement_in_which_the_server_got_faster_was_a_round_of_warming_up() -> None:
    # Slow through all rounds there may be, which agree with each other, and two waves more.
    slow = MAX_ROUNDS * LANES + 2 * LANES
    with completion_server(lambda place: Dials(ttft_s=0.25 if place < slow else 0.01, itl_s=0.0005)) as server:
        outcome = measure(server, workload=changed(WORKLOAD, n_requests=56))
    assert outcome.warm_up is not None and outcome.metrics is not None
    discarded = outcome.warm_up.discarded_tok_per_s
    assert discarded is not None and discarded < outcome.metrics.output_tok_per_s
    assert outcome.metrics.n_requests == 56
    assert len(server.seen) == LANES * len(outcome.warm_up.output_tok_per_s) + 2 * 56
    assert len({tuple(seen.prompt[:8]) for seen in server.seen}) == len(server.seen), "no two of them share a prompt"


@pytest.mark.parametrize(
    ("dials", "at", "note"),
    [
        (Dials(clamp=36), THREE, "3 of 24 requests returned 36 of 40 tokens: the server clamps to its max_seq_len"),
        (Dials(usage={"prompt_tokens": 65}), THREE, "3 of 24 requests counted 65 prompt tokens where 64 were sent"),
        (Dials(refuse=(400, '{"error": "no"}')), THREE, "3 of 24 requests got HTTP 400: no"),
        (Dials(cut_after=2, cut="quiet"), (5,), "1 of 24 requests got a stream that ended without [DONE]; the run"),
        (Dials(cut_after=2, cut="fin"), (5,), "lost its connection after 2 events: the server cut the stream"),
        (Dials(cut_after=2, cut="error"), (5,), "got an error in its stream: CUDA out of memory"),
    ],
)  # fmt: skip
def test_a_request_that_falls_short_spoils_the_measurement(dials: Dials, at: tuple[int, ...], note: str) -> None:
    measured: list[int] = []

    def script(place: int) -> Dials:
        if server.seen[place].body["max_tokens"] != OSL:
            return BRISK
        measured.append(place)
        return dials if len(measured) in at else BRISK

    with completion_server(script) as server:
        outcome = measure(server)
    assert outcome.metrics is None
    assert outcome.n_short == len(at)
    assert note in (outcome.note or "")
    assert isinstance(judged(outcome), Unhealthy)


def test_a_server_that_refuses_every_prompt_is_found_while_warming_up() -> None:
    with completion_server(Dials(refuse=(400, '{"error": "prompt longer than max_num_tokens"}'))) as server:
        outcome = measure(server)
    assert len(server.seen) == LANES
    assert outcome.n_short == LANES
    assert outcome.note == "while warming up, 4 of 4 requests got HTTP 400: prompt longer than max_num_tokens"


def test_after_a_broken_stream_the_server_is_asked_whether_it_lives() -> None:
    dead = False

    def script(place: int) -> Dials:
        nonlocal dead
        broken, dead = dead, dead or place >= 15
        return Dials(before="silent") if broken else Dials(cut_after=1, cut="error") if dead else BRISK

    with completion_server(script) as server, pytest.raises(EngineFailed) as caught:
        measure(server, silence_timeout_s=0.5)
    assert "CUDA out of memory; asked again, it did not answer" in str(caught.value)


def test_a_reset_is_the_client_s_trouble() -> None:
    def script(place: int) -> Dials:
        return Dials(cut_after=2, cut="rst") if place == 15 else BRISK

    with completion_server(script) as server, pytest.raises(EngineFailed, match="reset"):
        measure(server)


@pytest.mark.parametrize(
    ("shared", "reuse", "hit_rate", "counts"),
    [
        (0, True, 0.0, True),
        (0, True, 0.4, False),  # prompts came twice
        (32, True, 0.5, True),
        (32, True, 0.0, False),  # the prefix is not reused
        (32, False, 0.5, False),  # it is, and should not be
        (32, False, 0.0, True),
        (32, True, None, True),  # nobody tells
    ],
)
def test_the_cache_must_be_hit_as_the_workload_says(
    shared: int, reuse: bool, hit_rate: float | None, counts: bool
) -> None:
    told: dict[str, Any] = {} if hit_rate is None else {"kv_cache_hit_rate": hit_rate}
    workload = Workload(isl=ISL, osl=OSL, concurrency=LANES, n_requests=8, shared_prefix_tokens=shared)
    with completion_server(BRISK) as server:
        outcome = measure(server, told, workload=workload, block_reuse=reuse)
    assert len({tuple(seen.prompt[:shared]) for seen in server.seen}) == 1
    assert (outcome.metrics is not None) == counts
    assert ("hit rate" in (outcome.note or "")) != counts
    assert outcome.kv_cache_hit_rate == hit_rate
    if not counts:
        assert isinstance(judged(outcome), Infrastructure)


def test_a_saturated_client_measures_itself_and_says_so() -> None:
    limits = ClientLimits(cpu_share=1e-9, lag_ms=1e9)
    with completion_server(BRISK) as server:
        served = Served(server.target(), {"limited_by": "gpu"})
        outcome = HttpMeasurer(limits=limits).measure(served, WORKLOAD, 3, never, silent, NoEvidence())
    assert outcome.metrics is None and outcome.ci95 is None
    assert outcome.limited_by == "client"
    assert outcome.client is not None and outcome.client.saturated
    assert (outcome.note or "").startswith("the client was the limit: it used")
    assert isinstance(judged(outcome), Infrastructure)


def test_a_hopeless_run_is_stopped_early() -> None:
    samples = Samples()
    with completion_server(BRISK) as server:
        measurer, served = HttpMeasurer(limits=EASY), Served(server.target())
        outcome = measurer.measure(served, WORKLOAD, 3, lambda partial: partial.n_done >= 6, silent, samples)
        whole = measurer.measure(served, WORKLOAD, 4, never, silent, samples)
    assert outcome.stopped_early and outcome.metrics is None and outcome.n_short == 0
    assert (outcome.note or "").startswith("stopped early after ")
    assert judged(outcome) is None, "nothing is wrong with the server"
    assert whole.metrics is not None
    assert len({tuple(seen.prompt[:8]) for seen in server.seen}) == len(server.seen), "nor do two benchmarks"


def test_the_open_loop_is_measured_too() -> None:
    workload = Workload(isl=ISL, osl=OSL, osl_min=30, request_rate_per_s=400.0, n_requests=60)
    with completion_server(BRISK) as server:
        outcome = measure(server, workload=workload)
    assert outcome.metrics is not None
    assert outcome.metrics.n_requests == 60
    outputs = [seen.body["max_tokens"] for seen in server.seen[-60:]]
    assert min(outputs) >= 30 and max(outputs) <= OSL and len(set(outputs)) > 3
    assert outcome.metrics.output_tok_per_s * outcome.metrics.duration_s == pytest.approx(sum(outputs))


def test_the_referee_is_held_against_what_was_measured() -> None:
    asked: list[int] = []

    def referee(server: RunningServer, workload: Workload, seed: int, evidence: EvidenceStore) -> RefereeReport:
        asked.append(seed)
        return RefereeReport(command=("script",), n_requests=N, n_completed=N, output_tok_per_s=1e6, ttft_ms_mean=5.0)

    with completion_server(BRISK) as server:
        measurer, served = HttpMeasurer(referee, EASY), Served(server.target())
        unmeasured = measurer.referee(served, WORKLOAD, 1, NoEvidence())
        outcome = measurer.measure(served, WORKLOAD, 2, never, silent, NoEvidence())
        report = measurer.referee(served, WORKLOAD, 3, NoEvidence())
        assert HttpMeasurer().referee(served, WORKLOAD, 3, NoEvidence()) is None
    assert unmeasured is not None and unmeasured.difference == {}
    assert report is not None and outcome.metrics is not None
    assert report.difference["output_tok_per_s"] == pytest.approx(1e6 / outcome.metrics.output_tok_per_s - 1)
    assert set(report.difference) == {"output_tok_per_s", "ttft_ms_mean"}, "what it does not say is not compared"
    assert asked == [1, 3]


def test_an_event_of_many_tokens_makes_itl_longer_and_tpot_not() -> None:
    with completion_server(Dials(itl_s=0.01, stream_interval=13)) as server:
        metrics = measure(server).metrics
    assert metrics is not None and metrics.tpot_ms is not None and metrics.itl_ms is not None
    assert metrics.itl_ms.mean == pytest.approx(13 * metrics.tpot_ms.mean), "chunks after tokens 1, 14, 27 and 40"
