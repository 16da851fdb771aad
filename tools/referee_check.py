"""advisor's load client beside `vllm bench serve` on one live vLLM server: do they report the same?

    python -m tools.referee_check http://127.0.0.1:8000 --isl 1024 --osl 64 --concurrency 2 --rounds 5

In every round each side sends the same kind of requests, in turn, every other round in reverse: greedy completions of
fresh random texts of ISL tokens, so that the server's prefix cache helps nobody. Compared are output tok/s, mean TTFT
and mean TPOT, round by round, as the geometric mean of referee over ours with its 95 % interval.
Exits 0 when all three intervals lie within 2 %, else 1.

Beside them stands what the server counted for the same run (`/metrics`): TTFT, TPOT, and the tok/s that requests of its
mean end-to-end latency make with so many in flight. Each client is set against that, and so one against the other:
there the drift of a machine from run to run cancels, and only what a client adds is left. It changes no exit code.

`--explain` lets three more take part: our client as studies use it, with prompts as token ids (`ours-ids`); the
referee as it is without `--temperature 0`, where the server samples (`referee-sampled`); and the referee with the
prompts of its own random data set (`referee-random`). Each differs in one thing from the one that it is compared with.

The texts are cut to length by the server's own `/tokenize` and `/detokenize`. The referee takes them as a file in the
form of ShareGPT, the one form that vLLM 0.24.0 and 0.32.0 both send as it is without further packages; it leaves out
prompts beyond 1,024 tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shlex
import signal
import string
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from advisor.domain.workload import Workload
from advisor.load.client import run_load
from advisor.load.pulse import ClientLimits
from advisor.load.referee import RefereeCall, run_referee
from advisor.load.requests import Load, completion_request
from advisor.load.target import MIN_VOCAB_SIZE, Target
from advisor.metrics.confidence import Interval, NoisePrior, mean_interval
from advisor.metrics.definitions import compute

TOLERANCE = 0.02
FIGURES = ("tok/s", "TTFT ms", "TPOT ms")
E2E = "E2E ms"
COUNTED = {
    "TTFT ms": "time_to_first_token_seconds",
    "TPOT ms": "request_time_per_output_token_seconds",
    E2E: "e2e_request_latency_seconds",
}
NO_PRIOR = NoisePrior(sd=0, dof=0)
LONGEST_PROMPT, LONGEST_REQUEST = 1024, 2048  # tokens; the referee leaves out longer ones of such a file
CUTS = 10  # text cut between tokens may be tokenised otherwise; then it is cut again
LETTERS = string.ascii_lowercase + " "
TIMEOUT_S = 1800.0
ATTEMPTS = 3

Figures = tuple[float, float, float]  # in the order of FIGURES
Counts = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Result:
    """One run: what the client says, and what the server counted meanwhile, by names of FIGURES; NaN if it does not."""

    client: Figures
    server: Mapping[str, float]

    def beside_server(self, figure: str) -> float:
        """What the client says of a figure, over what the server does."""
        return self.client[FIGURES.index(figure)] / self.server[figure]


class DoesNotCount(Exception):
    """A run that says nothing about the server, and why."""


@dataclass(frozen=True)
class Prompt:
    """A text, and the token ids that the server makes of it."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Server:
    """A live vLLM, by its routes."""

    url: str
    name: str
    root: str

    @classmethod
    def at(cls, url: str) -> Server:
        """The first model that it serves."""
        with urllib.request.urlopen(f"{url}/v1/models", timeout=TIMEOUT_S) as answer:
            (model, *_) = json.load(answer)["data"]
        return cls(url, model["id"], model["root"])

    def ids(self, text: str, special: bool = True) -> list[int]:
        """What it makes of a text; a completion of that text begins with the same special tokens, if any."""
        ids: list[int] = self._ask("/tokenize", prompt=text, add_special_tokens=special)["tokens"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        text: str = self._ask("/detokenize", tokens=list(ids))["prompt"]
        return text

    def prompt(self, rng: random.Random, isl: int) -> Prompt:
        """Random letters, cut until they are `isl` tokens, special ones included."""
        text = "".join(rng.choices(LETTERS, k=8 * isl))
        n_special = len(self.ids("a")) - len(self.ids("a", special=False))
        for _ in range(CUTS):
            text = self.text(self.ids(text, special=False)[: isl - n_special])
            if len(ids := self.ids(text)) == isl:
                return Prompt(text, tuple(ids))
            text += "".join(rng.choices(LETTERS, k=isl))
        sys.exit(f"no text of exactly {isl} tokens was found in {CUTS} cuts: choose another --isl")

    def counts(self) -> Counts:
        """Sum in seconds and number of each latency so far, over all engines."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=TIMEOUT_S) as answer:
            page = answer.read().decode()
        return {
            figure: (_total(page, f"{name}_sum"), _total(page, f"{name}_count")) for figure, name in COUNTED.items()
        }

    def _ask(self, path: str, **body: Any) -> dict[str, Any]:
        data = json.dumps({"model": self.name, **body}).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


def _total(page: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


def means_ms(before: Counts, after: Counts) -> dict[str, float]:
    """Mean latency between two readings."""
    found = {}
    for figure, (total_s, n) in after.items():
        more_s, more = total_s - before[figure][0], n - before[figure][1]
        found[figure] = more_s / more * 1e3 if more else math.nan
    return found


def server_figures(latencies_ms: Mapping[str, float], workload: Workload) -> dict[str, float]:
    """FIGURES as the server has them: of every request in flight it makes OSL tokens in its mean end-to-end latency."""
    tok_per_s = 1e3 * (workload.concurrency or 1) * workload.osl / latencies_ms[E2E]
    return {"tok/s": tok_per_s, **{name: ms for name, ms in latencies_ms.items() if name != E2E}}


@dataclass(frozen=True)
class Bench:
    """One server and workload, and how the referee is started."""

    server: Server
    workload: Workload
    vllm: tuple[str, ...]
    tokenizer: str
    folder: Path

    def prompts(self, rng: random.Random) -> list[Prompt]:
        """As many as one run sends."""
        return [self.server.prompt(rng, self.workload.isl) for _ in range(self.workload.requests())]

    def ours(self, prompts: Sequence[Prompt], as_ids: bool = False) -> Figures:
        """advisor's client, by the definitions that its studies go by."""
        target = Target(
            base_url=self.server.url, model=self.server.name, vocab_size=MIN_VOCAB_SIZE, n_gpus=1, block_reuse=True
        )
        osl, n = self.workload.osl, len(prompts)
        sent = [json.dumps(prompt.ids if as_ids else prompt.text).encode() for prompt in prompts]
        load = Load(
            isl=np.array([len(prompt.ids) for prompt in prompts]),
            osl=np.full(n, osl),
            requests=tuple(completion_request(target, each, osl) for each in sent),
            concurrency=self.workload.concurrency,
            send_ms=None,
        )
        run = run_load(target, load, lambda partial: False)
        _, reasons = run.judged(load.nominal_open, ClientLimits())
        if run.shortfalls or reasons:
            raise DoesNotCount(f"ours: {'; '.join({*run.shortfalls.values(), *reasons})}")
        rows = run.samples()
        metrics = compute(rows["sent_ms"], rows["first_token_ms"], rows["done_ms"], rows["n_output"], target.n_gpus)
        assert metrics.tpot_ms is not None
        return metrics.output_tok_per_s, metrics.ttft_ms.mean, metrics.tpot_ms.mean

    def referee(self, data: Sequence[str], temperature: float | None = 0) -> Figures:
        """`vllm bench serve` on a data set."""
        result = self.folder / "referee.json"
        call = RefereeCall(
            argv=(*self.vllm, *referee_argv(self.server, self.workload, self.tokenizer, data, temperature, result)),
            cwd=str(self.folder),
            env=dict(os.environ),
            result_path=str(result),
            output_path=str(self.folder / "referee.log"),
            timeout_s=TIMEOUT_S,
        )
        report = run_referee(call, self.workload)
        figures = report.output_tok_per_s, report.ttft_ms_mean, report.tpot_ms_mean
        if report.problems or None in figures:
            output = Path(call.output_path).read_text(encoding="utf-8", errors="replace")
            raise DoesNotCount(f"the referee: {'; '.join(report.problems)}; it printed:\n{output[-2000:]}")
        return figures  # type: ignore[return-value]  # none of them is None

    def texts(self, prompts: Sequence[Prompt]) -> list[str]:
        """The flags of a data set that holds these prompts."""
        path = self.folder / "prompts.json"
        turns = [[{"value": prompt.text}, {"value": ""}] for prompt in prompts]
        path.write_text(json.dumps([{"conversations": each} for each in turns]), encoding="utf-8")
        argv = ["--dataset-name", "sharegpt", "--dataset-path", str(path), "--disable-shuffle", "--no-oversample"]
        return [*argv, "--sharegpt-output-len", str(self.workload.osl)]

    def random_texts(self, seed: int) -> list[str]:
        """The flags of the referee's own random prompts."""
        isl, osl = str(self.workload.isl), str(self.workload.osl)
        argv = ["--dataset-name", "random", "--random-input-len", isl, "--random-output-len", osl]
        return [*argv, "--seed", str(seed)]


def referee_argv(
    server: Server, workload: Workload, tokenizer: str, data: Sequence[str], temperature: float | None, result: Path
) -> tuple[str, ...]:
    """`bench serve` as vLLM 0.24.0 to 0.32.0 spell it, without a first request of its own."""
    argv = ["bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions", "--base-url", server.url]
    argv += ["--model", server.name, "--tokenizer", tokenizer, *data, "--ignore-eos"]
    argv += ["--num-prompts", str(workload.requests()), "--max-concurrency", str(workload.concurrency)]
    argv += [] if temperature is None else ["--temperature", f"{temperature:g}"]
    argv += ["--ready-check-timeout-sec", "0", "--percentile-metrics", "ttft,tpot", "--disable-tqdm"]
    return (*argv, "--save-result", "--result-dir", str(result.parent), "--result-filename", result.name)


Contestant = Callable[[Bench, random.Random], Figures]
OURS, REFEREE = "ours", "referee"
CONTESTANTS: Mapping[str, Contestant] = {
    OURS: lambda bench, rng: bench.ours(bench.prompts(rng)),
    REFEREE: lambda bench, rng: bench.referee(bench.texts(bench.prompts(rng))),
    "ours-ids": lambda bench, rng: bench.ours(bench.prompts(rng), as_ids=True),
    "referee-sampled": lambda bench, rng: bench.referee(bench.texts(bench.prompts(rng)), temperature=None),
    "referee-random": lambda bench, rng: bench.referee(bench.random_texts(rng.randrange(2**31))),
}
EXPLAINED = (("ours-ids", OURS), ("referee-sampled", REFEREE), ("referee-random", REFEREE))


def rounds(bench: Bench, names: Sequence[str], n: int, rng: random.Random) -> Iterator[tuple[int, str, Result]]:
    """Everybody's results, round by round, every other round in reverse order; one run before is not counted."""
    run_once(OURS, bench, rng)
    for number in range(n):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name, run_once(name, bench, rng)


def run_once(name: str, bench: Bench, rng: random.Random) -> Result:
    """A run that counts; one that does not is told of and made anew, twice at most."""
    for _ in range(ATTEMPTS):
        before = bench.server.counts()
        try:
            figures = CONTESTANTS[name](bench, rng)
        except DoesNotCount as error:
            print(f"not counted: {error}", file=sys.stderr, flush=True)
            continue
        return Result(figures, server_figures(means_ms(before, bench.server.counts()), bench.workload))
    sys.exit(f"{name}: {ATTEMPTS} runs in a row did not count")


def ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """The geometric mean of the ratio in every round, with a 95 % interval; at least two rounds."""
    found = mean_interval([mine / other for mine, other in zip(above, below, strict=True)], prior=NO_PRIOR)
    assert found is not None
    return found


def ratios(above: Sequence[Result], below: Sequence[Result]) -> dict[str, Interval]:
    """Of each of FIGURES."""
    return {
        figure: ratio([run.client[place] for run in above], [run.client[place] for run in below])
        for place, figure in enumerate(FIGURES)
    }


def verdict(interval: Interval) -> str:
    """Whether a ratio is 1 within the tolerance, as far as its interval tells."""
    low, high = 1 - TOLERANCE, 1 + TOLERANCE
    if low <= interval.low and interval.high <= high:
        return f"within {TOLERANCE:.0%}"
    if interval.high < low or high < interval.low:
        return f"beyond {TOLERANCE:.0%}"
    return f"not told from {TOLERANCE:.0%}: more rounds or requests, or a quieter machine"


def shown(figure: str, interval: Interval, says: str = "") -> str:
    """One line of a comparison."""
    return f"  {figure:<8} {interval.estimate:.3f}  {interval.low:.3f} to {interval.high:.3f}  {says}".rstrip()


def summary(found: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """The comparisons, a line each."""
    yield f"mean of {len(found[OURS])} rounds with its 95 % interval"
    yield f"{REFEREE} over {OURS}"
    for figure, interval in ratios(found[REFEREE], found[OURS]).items():
        yield shown(figure, interval, verdict(interval))
    for above, below in EXPLAINED:
        if above in found:
            yield f"{above} over {below}"
            yield from (shown(*each) for each in ratios(found[above], found[below]).items())
    beside = {name: beside_server(runs) for name, runs in found.items()}
    for name, figures in beside.items():
        yield f"{name} over what the server counted"
        yield from (_shown_if_counted(figure, values, [1.0] * len(values)) for figure, values in figures.items())
    yield f"{REFEREE} over {OURS}, each over what the server counted"
    for figure, values in beside[REFEREE].items():
        yield _shown_if_counted(figure, values, beside[OURS][figure], judged=True)


def beside_server(runs: Sequence[Result]) -> dict[str, list[float]]:
    """Of each of FIGURES, run by run."""
    return {figure: [run.beside_server(figure) for run in runs] for figure in FIGURES}


def _shown_if_counted(figure: str, above: Sequence[float], below: Sequence[float], judged: bool = False) -> str:
    if math.isnan(sum((*above, *below))):
        return f"  {figure:<8} not counted"
    interval = ratio(above, below)
    return shown(figure, interval, verdict(interval) if judged else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and say with the exit code whether both agree."""
    options = _parser().parse_args(argv)
    if options.isl > LONGEST_PROMPT or options.isl + options.osl > LONGEST_REQUEST:
        sys.exit(f"the referee leaves out prompts beyond {LONGEST_PROMPT} and requests beyond {LONGEST_REQUEST} tokens")
    if options.rounds < 2:
        sys.exit("one round has no interval: --rounds 2 or more")
    server = Server.at(options.url.rstrip("/"))
    workload = Workload(
        isl=options.isl,
        osl=options.osl,
        concurrency=options.concurrency,
        n_requests=options.requests or 8 * options.concurrency,
    )
    names = list(CONTESTANTS) if options.explain else [OURS, REFEREE]
    sends = f"{workload.requests()} requests of {workload.isl} + {workload.osl} tokens a run"
    print(f"{server.name}: {sends}, {workload.concurrency} in flight")
    columns = (*FIGURES, *(f"server {figure}" for figure in FIGURES))
    print(f"{'round':<6}{'':<16}{''.join(f'{column:>16}' for column in columns)}")
    found: dict[str, list[Result]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="advisor-") as folder:
        vllm = tuple(shlex.split(options.vllm))
        bench = Bench(server, workload, vllm, options.tokenizer or server.root, Path(folder))
        for number, name, result in rounds(bench, names, options.rounds, random.Random(options.seed)):
            found[name].append(result)
            values = (*result.client, *result.server.values())
            print(f"{number + 1:<6}{name:<16}{''.join(f'{value:>16.2f}' for value in values)}", flush=True)
    print(*summary(found), sep="\n")
    judged = ratios(found[REFEREE], found[OURS])
    return 0 if all(verdict(each) == f"within {TOLERANCE:.0%}" for each in judged.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.referee_check", description=__doc__.split("\n\n")[0])
    parser.add_argument("url", help="http://host:port of a vLLM that does nothing else")
    parser.add_argument("--tokenizer", help="folder or name, for the referee (default: the root that the server names)")
    parser.add_argument("--isl", type=int, default=1024, help="prompt tokens (default: %(default)s)")
    parser.add_argument("--osl", type=int, default=64, help="output tokens (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=2, help="requests in flight (default: %(default)s)")
    parser.add_argument("--requests", type=int, help="of one run (default: eight for each in flight)")
    parser.add_argument("--rounds", type=int, default=5, help="each one run of everybody (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the prompts; a seed is good for one start of the server")
    parser.add_argument("--vllm", default="vllm", help='its command (default: %(default)s; or "python3 -m ...")')
    parser.add_argument("--explain", action="store_true", help="let three more take part, see above")
    return parser


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """A signal's handler: leave as an exception does, which ends what was started."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    sys.exit(main())
