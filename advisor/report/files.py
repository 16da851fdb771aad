"""The files a person takes away, as text: the YAML, the commands to serve and to benchmark, the lookup row."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.measurement import Source
from advisor.domain.serving_config import FOUR_SETTINGS, ServingConfig
from advisor.domain.strict import StrictModel
from advisor.domain.workload import Workload
from advisor.engines.dialect import EngineDialect
from advisor.engines.trtllm.yaml_text import one_line, scalar
from advisor.engines.words import YamlEntry
from advisor.report.shell import command, script

BENCHMARK_NAME = "benchmark_serving.json"
LOOKUP_ENGINE = "trtllm"  # whose lookup.yaml it is
FIXED = "fixed by the study"

# TensorRT-LLM's lookup.yaml names GPUs by SKU.
_UPSTREAM_GPUS = {"b200_sxm": "B200_NVL", "gb200": "GB200_NVL", "h200_sxm": "H200_SXM", "h100_sxm": "H100_SXM"}


class Story(StrictModel):
    """Where the numbers of a file come from; every file tells it at its top."""

    source: Source
    label: str
    study: str
    workload: str
    model: str
    engine: str = "TensorRT-LLM"
    engine_version: str
    date: str
    confidence: str
    notes: tuple[str, ...] = ()
    benchmark: str = "benchmark.sh"

    @property
    def lines(self) -> tuple[str, ...]:
        """One sentence a line."""
        said = [
            f"Tuned by advisor: {self.label}.",
            f"Study {self.study}, workload {self.workload}, model {self.model}, {self.engine} {self.engine_version}.",
            f"{self.date}. Confidence: {self.confidence}.",
        ]
        if self.source != "measured":
            measure = f"bash serve.sh, then bash {self.benchmark}"
            said.insert(1, f"No GPU was used: measure it ({measure}) before you rely on it.")
        return (*said, *self.notes)


def origins(searched: Collection[str], n_launches: int, default: ServingConfig, why: str = "best of") -> dict[str, str]:
    """Where each searched value came from, as a comment: `searched: best of 24 launches; engine default 2048`."""
    texts = {}
    for name in searched:
        text = f"searched: {why} {n_launches} launches"
        if name in FOUR_SETTINGS:
            text += f"; engine default {getattr(default, name)}"
        texts[name] = text
    return texts


def entries_text(story: Story, entries: Sequence[YamlEntry], origin: Mapping[str, str]) -> str:
    """The engine's configuration file, each line with the origin of its value.

    Args:
        story: Told at the top.
        entries: From the dialect.
        origin: Neutral name to comment; what it does not name was fixed by the study.
    """
    lines = _lines(list(entries), 0, origin)
    width = min(60, max(len(text) for text, _ in lines))
    body = [f"{text:<{width}}  # {one_line(comment)}" if comment else text for text, comment in lines]
    return "\n".join([*(f"# {one_line(line)}" for line in story.lines), "", *body]) + "\n"


def _lines(entries: list[YamlEntry], depth: int, origin: Mapping[str, str]) -> list[tuple[str, str]]:
    """(text, comment) of each line; entries below one key stand together where its first one stood."""
    lines: list[tuple[str, str]] = []
    for key in dict.fromkeys(entry.path[depth] for entry in entries):
        below = [entry for entry in entries if entry.path[depth] == key]
        indent = "  " * depth
        if len(below[0].path) == depth + 1:
            comment = origin.get(below[0].name, FIXED)
            note = f"{comment}; {below[0].note}" if below[0].note else comment
            lines.append((f"{indent}{key}: {scalar(below[0].value)}", note))
        else:
            lines.append((f"{indent}{key}:", ""))
            lines += _lines(below, depth + 1, origin)
    return lines


def config_text(
    story: Story,
    spoken: EngineDialect,
    deployment: Deployment,
    config: ServingConfig,
    max_seq_len: int,
    origin: Mapping[str, str],
) -> str:
    """The whole configuration file of a configuration, with what the release wants to be known about it."""
    notes = [*story.notes, *([spoken.warning] if spoken.warning else []), *spoken.notes(config, max_seq_len)]
    asked = spoken.environment(deployment, config)
    if asked:
        variables = ", ".join(f"{name}={value}" for name, value in asked.items())
        notes.append(f"Must stand in the environment, as in serve.sh: {variables}.")
    told = story.model_copy(update={"notes": tuple(notes)})
    return entries_text(told, spoken.entries(deployment, config, max_seq_len), origin)


def serve_sh(
    story: Story, spoken: EngineDialect, deployment: Deployment, config: ServingConfig, max_seq_len: int
) -> str:
    """`serve.sh`: the engine's command line, next to its configuration file wherever the folder is moved.

    HOST and PORT override the address; further arguments are handed on. What the configuration asks of the environment
    is exported.
    """
    name = spoken.config_name
    argv = spoken.argv(deployment, config, max_seq_len, host="127.0.0.1", port=8000, config_path=name)
    live = {
        spoken.flags["config_path"]: f'"$here"/{name}',
        spoken.flags["host"]: '"$HOST"',
        spoken.flags["port"]: '"$PORT"',
    }
    exports = [f"export {name}={shlex.quote(value)}" for name, value in spoken.environment(deployment, config).items()]
    settings = "\n".join(['HOST="${HOST:-127.0.0.1}"', 'PORT="${PORT:-8000}"', *exports])
    return script(_comments(story), settings, f'exec {command(argv, live)} "$@"')


def benchmark_sh(story: Story, spoken: EngineDialect, deployment: Deployment, workload: Workload) -> str:
    """`benchmark.sh`: the engine's own client with the workload's numbers, and a check that every request was served.

    HOST, PORT and SEED override; the server of `serve.sh` must be up.
    """
    argv = spoken.benchmark_argv(
        deployment, workload, host="127.0.0.1", port=8000, result_dir=".", result_filename=BENCHMARK_NAME
    )
    live = {"--host": '"$HOST"', "--port": '"$PORT"', "--seed": '"$SEED"', "--result-dir": '"$here"'}
    sent = spoken.benchmark_lengths(workload)
    comments = [
        *_comments(story),
        "Give each run on one server its own SEED: equal prompts would hit the prefix cache.",
    ]
    if sent.comment:
        comments.append(sent.comment)
    settings = 'HOST="${HOST:-127.0.0.1}"\nPORT="${PORT:-8000}"\nSEED="${SEED:-0}"'
    exact_tokens = workload.requests() * (sent.output_len or 0)
    check = _CHECK.format(name=BENCHMARK_NAME, n_requests=workload.requests(), n_tokens=exact_tokens)
    return script(comments, settings, f'{command(argv, live)} "$@"\n\n{check}')


# The script ends with 0 even when every request failed, and counts truncated outputs as served.
_CHECK = """python - "$here/{name}" <<'CHECK'
import json, sys
result = json.load(open(sys.argv[1]))
wanted, tokens = {n_requests}, {n_tokens}
if result["completed"] != wanted:
    sys.exit(f"{{wanted - result['completed']}} of {{wanted}} requests failed: these numbers do not count.")
if tokens and result["total_output_tokens"] != tokens:
    sys.exit(f"{{result['total_output_tokens']}} output tokens instead of {{tokens}}: these numbers do not count.")
print(f"all {{wanted}} requests served; output {{result['output_throughput']:.1f}} tok/s")
CHECK"""


def verify_sh(story: Story, deployment: Deployment, workload: Workload, expected_tok_per_s: float) -> str:
    """`verify.sh`: serve, wait for a real one-token answer, benchmark, stop, and hold the result against what was said.

    TIMEOUT_S bounds the start. Every process of the server is ended on every way out.
    """
    comments = [
        *_comments(story),
        f"Starts serve.sh, runs benchmark.sh on it ({workload.name}), stops it, prints measured over {story.source}.",
    ]
    settings = 'export HOST="${HOST:-127.0.0.1}" PORT="${PORT:-8000}"\nTIMEOUT_S="${TIMEOUT_S:-1800}"'
    question = json.dumps({"model": deployment.model, "prompt": "Hi", "max_tokens": 1})
    return script(
        comments,
        settings,
        _VERIFY.format(
            question=shlex.quote(question), expected=expected_tok_per_s, source=story.source, name=BENCHMARK_NAME
        ),
    )


# /health answers 200 with a dead engine behind it, so readiness is a real completion.
_VERIFY = """setsid bash "$here/serve.sh" > "$here/verify-server.log" 2>&1 &
server=$!
end_server() {{
  code=$?
  kill -TERM -- -"$server" 2>/dev/null || true
  for _ in $(seq 300); do kill -0 -- -"$server" 2>/dev/null || break; sleep 0.1; done
  kill -KILL -- -"$server" 2>/dev/null || true
  exit "$code"
}}
trap end_server EXIT
give_up() {{ echo "$1; see $here/verify-server.log" >&2; exit 5; }}
until curl -fsS -m 60 -o /dev/null -H 'Content-Type: application/json' \\
  -d {question} "http://$HOST:$PORT/v1/completions" 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || give_up "the server ended before it answered"
  [ "$SECONDS" -lt "$TIMEOUT_S" ] || give_up "no answer after $TIMEOUT_S s"
  sleep 5
done
SEED=0 bash "$here/benchmark.sh" > /dev/null  # the first benchmark after a start is not a measurement
SEED=1 bash "$here/benchmark.sh"
python - "$here/{name}" <<'COMPARE'
import json, sys
measured, said = json.load(open(sys.argv[1]))["output_throughput"], {expected:.1f}
print(f"measured {{measured:,.0f}} output tok/s; {source} {{said:,.0f}}: {{100 * (measured / said - 1):+.1f}} %")
COMPARE"""


def _comments(story: Story) -> list[str]:
    return [one_line(line) for line in story.lines]


def lookup_row(
    deployment: Deployment, workload: Workload, architecture: str, config_path: str
) -> dict[str, Any] | None:
    """A row in the form of TensorRT-LLM's `examples/configs/database/lookup.yaml`; None for a request rate.

    Upstream's key is a concurrency, and its schema forbids further fields. Another engine's files do not belong there.
    """
    if workload.concurrency is None or deployment.engine != LOOKUP_ENGINE:
        return None
    return {
        "model": deployment.model,
        "arch": architecture,
        "gpu": _UPSTREAM_GPUS.get(deployment.gpu, deployment.gpu.upper()),
        "isl": workload.isl,
        "osl": workload.osl,
        "concurrency": workload.concurrency,
        "config_path": config_path,
        "num_gpus": deployment.gpus,
    }


_LOOKUP_KEY = ("model", "gpu", "isl", "osl", "concurrency", "num_gpus")
_LOOKUP_TOP = """\
# Best configurations of this study, in the form of TensorRT-LLM's examples/configs/database/lookup.yaml.
# The comment on each row says whether it was measured or simulated; config_path is relative to this file.
"""


def merge_lookup(existing: str | None, row: Mapping[str, Any], label: str) -> str:
    """`lookup.yaml` with the row in its place: one row per model, GPU, lengths, concurrency and GPU count.

    A simulated row does not take the place of a measured one.

    Args:
        existing: Text of the file so far, or None.
        row: From `lookup_row`.
        label: `measured on ...` or `simulated by the twin ...`, kept as a comment on the row.

    Raises:
        BadInput: the existing text is no such file.
    """
    rows = _read_lookup(existing or "")
    key = tuple(row[name] for name in _LOOKUP_KEY)
    kept = rows.get(key)
    if kept is None or label.startswith("measured") or not kept[1].startswith("measured"):
        rows[key] = (dict(row), one_line(label))
    ordered = sorted(rows.items(), key=lambda item: [str(part) if isinstance(part, str) else part for part in item[0]])
    return _LOOKUP_TOP + "".join(_lookup_text(entry, comment) for _, (entry, comment) in ordered)


def _lookup_text(row: Mapping[str, Any], comment: str) -> str:
    lines = [f"{name}: {scalar(value)}" for name, value in row.items()]
    lines[0] += f"  # {comment}" if comment else ""
    return "- " + "\n  ".join(lines) + "\n"


def _read_lookup(text: str) -> dict[tuple[Any, ...], tuple[dict[str, Any], str]]:
    """Rows by key, each with the comment on its first line."""
    try:
        rows = yaml.safe_load(text) or []
        first_lines = [line for line in text.splitlines() if line.startswith("- ")]
        return {
            tuple(row[name] for name in _LOOKUP_KEY): (row, line.rpartition("  # ")[2] if "  # " in line else "")
            for row, line in zip(rows, first_lines, strict=True)
        }
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"lookup.yaml is not a list of lookup rows ({error}); move it aside and run again.") from None
