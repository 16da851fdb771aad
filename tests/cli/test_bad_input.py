"""Bad input: one paragraph that says what was wrong, where and what to do; the exit code; nothing left behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advisor.cli.app import app

ROOT = Path(__file__).parents[2]
STUDY = (ROOT / "studies" / "llama3.1-8b-h100.yaml").read_text()
SPACE = (ROOT / "search_spaces" / "default.yaml").read_text()
ONE = ["--isl", "1024", "--osl", "64"]
Edit = Callable[[str], str]


def replaced(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text, f"{old!r} is not in the file any more"
        return text.replace(old, new)

    return edit


def plus(line: str) -> Edit:
    return lambda text: f"{text}\n{line}\n"


def instead(whole: str) -> Edit:
    return lambda _: whole


def refused(argv: Sequence[str], code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What was said in one paragraph on stderr, after the invariants of every refusal were checked."""
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(app, list(argv))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert sorted(folder.rglob("*")) == before, "something was left behind"
    assert "Traceback" not in result.stderr
    assert "validation error" not in result.stderr
    return result.stderr


def assert_says(said: str, words: str) -> None:
    assert re.search(words, said), said


def paragraph(said: str) -> str:
    assert said.startswith("advisor: ")
    assert said.count("\n") == 1, "one paragraph"
    return said


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (plus("objectiv: {}"), r"study\.yaml: unknown key 'objectiv'\. Did you mean 'objective'\?"),
        (replaced("tp: 1", "tp: one"), r"study\.yaml: deployment\.tp: .*valid integer \(got 'one'\)"),
        (replaced("tp: 1", "tp: '1'"), r"deployment\.tp: .*valid integer"),
        (plus("name: again"), r"study\.yaml, line \d+, column 1: the key 'name' was already given in line 2"),
        (plus("x: !!python/object:os.system ls"), r"study\.yaml, line \d+.*tag .* is not allowed"),
        (plus("x: &a [1]"), "anchors and aliases are not allowed"),
        (plus("x: [1"), r"study\.yaml, line \d+"),
        (instead(""), "a mapping of keys to values is needed, found nothing"),
        (instead("\x00"), "not YAML"),
        (replaced("schema_version: 1", "schema_version: 2"), "schema_version: Input should be 1"),
        (replaced("name: llama3.1-8b-h100", "name: ../../evil"), "name: String should match"),
        (replaced("gpu: h100_sxm", "gpu: h100_smx"), "Unknown GPU 'h100_smx'. Did you mean 'h100_sxm'"),
        (replaced("search_space: default", "search_space: defalt"), "Unknown search space 'defalt'.*'default'"),
        (
            replaced("vary: [", "vary: [enable_chunkd_prefill, "),
            "'enable_chunkd_prefill'. Did you mean 'enable_chunked_",
        ),
        (replaced("baseline: default", "baseline: defalt"), "Unknown baseline 'defalt'. Did you mean 'default'"),
        (replaced("metric: output_tok_per_s_per_gpu", "metric: output_toks"), "Unknown objective 'output_toks'"),
        (
            replaced("metric: output_tok_per_s_per_gpu", "metric: ttft:p96"),
            "Unknown objective 'ttft:p96'. Did you mean 'ttft:p9",
        ),
        (replaced("engine: trtllm", "engine: trtlm"), "Unknown engine in the study 'trtlm'. Did you mean 'trtllm'"),
        (replaced("workloads: [", "workloads: [foo, "), "'foo' is not a workload name. Write 4k1k"),
    ],
)
def test_study_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, words: str) -> None:
    (tmp_path / "study.yaml").write_text(edit(STUDY))
    said = paragraph(refused(["tune", "--study", "./study.yaml"], 2, tmp_path, monkeypatch))
    assert_says(said, words)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (instead("schema_version: 1\nname: x\ndescription: x\ndimensions: []\n"), "'dimensions' is empty; at least 1"),
        (
            replaced("values: [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97]", "values: []"),
            r"values' is empty",
        ),
        (replaced("values: [0.5,", "values: [-0.5,"), "ladder of kv_cache_free_gpu_memory_fraction:.*greater than 0"),
        (replaced("values: [0.5,", "values: [0.6, 0.5,"), "a ladder step is listed twice|must ascend"),
        (
            replaced("  - name: kv_cache_free_gpu_memory_fraction", "  - name: stream"),
            "leaves out kv_cache_free_gpu_mem",
        ),
        (
            replaced("  - name: max_num_tokens", "  - name: max_tokens"),
            "condition on 'max_num_tokens', which is no dim",
        ),
        (
            replaced("  - name: stream_interval", "  - name: enable_chunked_prefill"),
            "'enable_chunked_prefill' is listed tw",
        ),
        (
            lambda text: replaced("values: [1, 2, 4, 8, 10, 16, 20]", "values: [a, b]")(enabled(text)),
            "dimension stream_interval:.*valid integer.*'a'",
        ),
        (
            lambda text: replaced("name: stream_interval", "name: strem_interval")(enabled(text)),
            "no option 'strem_interval'.*Did you mean 'stream_interval'",
        ),
        (
            lambda text: replaced("name: stream_interval", "name: scheduler_config.capacity_scheduler_policy")(
                replaced("values: [1, 2, 4, 8, 10, 16, 20]", "values: [MAX_UTILIZATION]")(enabled(text))
            ),
            "dimension scheduler_config.capacity_scheduler_policy: nobody says where the baseline stands",
        ),
        (replaced("values: [auto, fp8]", "values: [auto, fp3]"), None),
        (
            replaced("bf16.\n    enabled: false", "bf16."),
            "kv_cache_dtype can change what the model says.*--vary kv_cache_dtype",
        ),
        (
            replaced("at_most: max_batch_size", "at_mots: max_batch_size"),
            "unknown key 'conditions.0.at_mots'. Did you mean 'at_most'",
        ),
        (
            replaced("at_most: max_num_tokens", "at_most: cuda_graph_max_batch_size"),
            "conditions go round in a circle",
        ),
    ],
)
def test_search_space_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, words: str | None) -> None:
    (tmp_path / "space.yaml").write_text(edit(SPACE))
    argv = ["tune", *ONE, "--search-space", "./space.yaml"]
    if words is None:  # what is not searched may be anything
        monkeypatch.chdir(tmp_path)
        assert CliRunner().invoke(app, [*argv, "--dry-run"]).exit_code == 0
    else:
        assert_says(paragraph(refused(argv, 2, tmp_path, monkeypatch)), words)


@pytest.mark.parametrize(
    ("edit", "vary", "words"),
    [
        (replaced("values: [auto, fp8]", "values: [auto, fp3]"), "kv_cache_config.dtype", "'fp8'.*fp3"),
        (replaced("[CUTLASS, TRTLLM]", "[CUTLASS, TRTLM]"), "moe_backend", "no MoE backend|Did you mean 'TRTLLM'"),
        (lambda text: text, "moe_backnd", "Did you mean 'moe_backend'"),
    ],
)
def test_what_is_varied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit, vary: str, words: str) -> None:
    (tmp_path / "space.yaml").write_text(edit(SPACE))
    argv = ["plan", *ONE, "--search-space", "./space.yaml", "--vary", vary]
    assert_says(paragraph(refused(argv, 2, tmp_path, monkeypatch)), words)


def enabled(text: str) -> str:
    """With `stream_interval` searched."""
    return replaced("choppier.\n    enabled: false", "choppier.")(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: x\n", r"mine\.yml: settings: max_batch_size: .*valid integer"),
        ("- a\n", r"mine\.yml: a mapping"),
        ("stream_interval: abc\n", r"mine\.yml: options: stream_interval"),
        ("kv_cache_config: {free_gpu_memory_fraction: 1.5}\n", r"mine\.yml: .*fraction: .*less than 1 \(got 1.5\)"),
        ("kv_cache_config: 3\n", r"mine\.yml: kv_cache_config takes further keys below it, not 3"),
        ("kv_cache_config: {dtype: int3}\n", r"mine\.yml: .*kv_cache_dtype: .*'auto', 'bf16' or 'fp8'"),
        ("a: 1\na: 2\n", r"mine\.yml, line 2.*'a' was already given in line 1"),
    ],
)
def test_baseline_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    (tmp_path / "mine.yml").write_text(text)
    assert_says(paragraph(refused(["tune", *ONE, "--baseline", "./mine.yml"], 2, tmp_path, monkeypatch)), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"There is no file checkpoint/config\.json"),
        ("{", r"checkpoint/config\.json is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", r"checkpoint/config\.json: 'layers' is missing"),
        ('{"architectures": 3}', "does not describe a model"),
        ('{"text_config": 3}', "does not describe a model"),
        ('{"hidden_size": 8, "num_attention_heads": 0}', "does not describe a model"),
        ('{"hidden_size": "8", "num_attention_heads": 2}', "does not describe a model"),
    ],
)
def test_checkpoint_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str) -> None:
    (tmp_path / "checkpoint").mkdir()
    if text is not None:
        (tmp_path / "checkpoint" / "config.json").write_text(text)
    argv = ["estimate", *ONE, "--model", "checkpoint", "--gpu", "h100_sxm"]
    assert_says(paragraph(refused(argv, 2, tmp_path, monkeypatch)), words)


BAD_OPTIONS = [
    # names
    (["tune", "--study", "llama4-maverik-fp8-b200"], "Unknown study.*Did you mean 'llama4-maverick-fp8-b200'"),
    (["tune", "--study", "mine"], r"Unknown study 'mine'.*write its path: \./mine\.yaml"),
    (["tune", "--study", "./nofile.yaml"], r"There is no file nofile\.yaml"),
    (["tune", "--study", "./"], "Cannot read .*Is a directory"),
    (["studies", "llama4-maverick-fp8-b20"], "Did you mean 'llama4-maverick-fp8-b200'"),
    (["tune", *ONE, "--search-space", "defualt"], "Unknown search space 'defualt'. Did you mean 'default'"),
    (
        ["tune", *ONE, "--model", "meta-llama/Llama-3.1-8C"],
        "No architecture numbers.*Near it: .*advisor studies --models",
    ),
    (["tune", *ONE, "--gpu", "h200_smx"], "Unknown GPU 'h200_smx'. Did you mean 'h200_sxm'"),
    (["tune", *ONE, "--quant", "fp7"], r"quantization: .*'bf16', 'fp8'.*\(got 'fp7'\)"),
    (["tune", *ONE, "--engine", "twn"], "Unknown engine 'twn'. Did you mean 'twin'"),
    (["tune", *ONE, "--engine-version", "0.19.0"], "older than every release.*--engine-version"),
    (["estimate", *ONE, "--engine-version", "0.19.0"], "older than every release"),
    (["tune", *ONE, "--engine-version", "latest"], "'latest' is not a version"),
    (["tune", *ONE, "--sampler", "tpr"], "Unknown sampler 'tpr'. Did you mean 'tpe'"),
    (["tune", *ONE, "--sampler", "tpr", "--dry-run"], "Unknown sampler 'tpr'"),
    (["tune", *ONE, "--objective", "output_tok"], "Unknown objective 'output_tok'. Did you mean 'output_tok_per_s'"),
    (["plan", *ONE, "--objective", "ttft:p96"], "Unknown objective 'ttft:p96'"),
    (["tune", *ONE, "--baseline", "guid"], "Unknown baseline 'guid'. Did you mean 'guide'"),
    (["tune", *ONE, "--baseline", "./no.yml"], r"There is no file no\.yml"),
    (["tune", *ONE, "--baseline", "/"], "Cannot read /: Is a directory"),
    (["tune", *ONE, "--study", "llama3.1-8b-h100", "--baseline", "guide"], "'guide' does not apply here: NVIDIA"),
    # limits
    (["tune", *ONE, "--slo", "ttft<2s"], "'ttft<2s' is not a limit: write it like ttft:p95<2s"),
    (["tune", *ONE, "--slo", ","], "--slo ',' is not a limit"),
    (["tune", *ONE, "--slo", "ttf:p95<2s"], "Unknown latency in --slo 'ttf'. Did you mean 'ttft'"),
    (["tune", *ONE, "--slo", "ttft:p96<2s"], "Unknown statistic in --slo 'p96'"),
    (["tune", *ONE, "--slo", "ttft:p95<0s"], "'0s' is not a duration"),
    (["tune", *ONE, "--slo", "ttft:p95<2s,ttft:p95<3s"], "limits ttft:p95 more than once"),
    # workloads
    (["tune", "--isl", "2000000", "--osl", "1"], "needs 2,000,001 tokens.*context of .* ends at 1,048,576; shorten"),
    (["estimate", "--isl", "2000000", "--osl", "1"], "context of .* ends at 1,048,576"),
    (["tune", "--isl", "4096"], "--osl is missing: a workload needs both"),
    (["plan", "--osl", "4096"], "--isl is missing"),
    (["tune", *ONE, "--workload", "1k1k"], "either --isl and --osl or --workload"),
    (["tune", *ONE, "--concurrency", "4", "--request-rate", "3"], "either --concurrency or --request-rate"),
    (["tune", "--workload", "1k1k_c64", "--concurrency", "4"], "1k1k_c64 has one: leave one of the two out"),
    (["tune", *ONE, "--concurrency", "0"], "--concurrency 0: '0' is not a number of requests. Write 256, or several"),
    (["tune", *ONE, "--concurrency", "64,"], "--concurrency 64,: '' is not a number of requests"),
    (["plan", *ONE, "--concurrency", "64,many"], "'many' is not a number of requests"),
    (["tune", *ONE, "--concurrency", "64,64"], "given twice"),
    (["tune", "--isl", "1k,1024", "--osl", "1k"], "given twice"),
    (["tune", "--isl", "1k,", "--osl", "1k"], "'' is not a token count"),
    (
        ["tune", "--isl", "1,2,3,4,5", "--osl", "1,2,3,4,5"],
        "5 ISL x 5 OSL x 1 loads are 25 workloads, and every launch would benchmark all of them; .* at most 24",
    ),
    (["tune", "--isl", "0", "--osl", "64"], "'0' is not a token count"),
    (["tune", "--isl", "-5", "--osl", "64"], "'-5' is not a token count"),
    (["tune", "--isl", "4 thousand", "--osl", "64"], "'4 thousand' is not a token count"),
    (["tune", "--isl", "4096:1024", "--osl", "64"], "'4096:1024' runs backwards"),
    (["tune", "--workload", "100to50-3"], "'100to50' runs backwards"),
    (["tune", "--workload", "1k1k", "--workload", "1k1k"], "given twice"),
    (["tune", "--workload", "1k1k_c1024", "--workload", "1024-1024"], "given twice"),
    (["tune", "--workload", "foo"], "'foo' is not a workload name"),
    (["tune", "--workload", ""], "'' is not a workload name"),
    (["tune", "--workload", "1k1k_c0"], "the load must be above zero"),
    (["tune", "--workload", "1k1k_r0"], "the load must be above zero"),
    (["tune", *ONE, "--request-rate", "0"], "request_rate_per_s: .*greater than 0"),
    (["tune", *ONE, "--request-rate", "nan"], "request_rate_per_s: .*finite"),
    # layouts
    (["tune", *ONE, "--tp", "3"], r"size 3 does not divide the 40 attention heads.*--tp with one of \[1, 2, 4, 5, 8"),
    (["tune", *ONE, "--ep", "3"], r"ep 3 does not divide tp 8; use one of \[1, 2, 4, 8\]"),
    (["tune", *ONE, "--gpus", "3", "--pp", "2"], "= 16 ranks, but 3 GPUs are given"),
    (["tune", *ONE, "--study", "llama3.1-8b-h100", "--tp", "2", "--ep", "2"], "no experts, so --ep 2 means nothing"),
    (["tune", *ONE, "--pp", "2"], "no data for pipeline parallelism .*--pp 1"),
    (["estimate", *ONE, "--pp", "2"], "no data for pipeline parallelism"),
    (["plan", *ONE, "--pp", "2"], "no data for pipeline parallelism"),
    # settings
    (
        ["estimate", "--isl", "4096", "--osl", "64", "--max-num-tokens", "1024"],
        "max_num_tokens 1,024 is below the longest prompt of 4,096.*Raise it, or turn enable_chunked_prefill on",
    ),
    (["estimate", *ONE, "--kv-fraction", "1.5"], r"kv_cache_free_gpu_memory_fraction: .*less than 1 \(got 1.5\)"),
    (["estimate", *ONE, "--kv-fraction", "nan"], "kv_cache_free_gpu_memory_fraction: .*finite"),
    # budgets
    (["tune", *ONE, "--max-hours", "0"], "max_hours: .*greater than 0"),
    (["tune", *ONE, "--gpu-hours", "0"], "gpu_hours: .*greater than 0"),
    (["tune", *ONE, "--max-hours", "nan"], "max_hours: .*finite"),
    (
        ["tune", *ONE, "--max-launches", "1", "--baseline", "default"],
        "--max-launches 1 leaves room for 1 launches.*2 baselines guide, default",
    ),
]


@pytest.mark.parametrize(("argv", "words"), BAD_OPTIONS, ids=[" ".join(argv) for argv, _ in BAD_OPTIONS])
def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str) -> None:
    assert_says(paragraph(refused(argv, 2, tmp_path, monkeypatch)), words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["tune", *ONE, "--max-launches", "0"], "'--max-launches'"),
        (["tune", *ONE, "--seed", "-1"], "'--seed'"),
        (["tune", *ONE, "--twin-world", "-1"], "'--twin-world'"),
        (["tune", *ONE, "--output", "yaml"], "'--output'.*"),
        (["tune", *ONE, "--max-lunches", "3"], "--max-launches"),
        (["plan", "--top-n", "0"], "'--top-n'"),
        (["estimate", "--max-batch-size", "0"], "'--max-batch-size'"),
        (["tun"], "Did you mean 'tune'"),
    ],
)
def test_values_that_the_option_itself_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    assert_says(refused(argv, 2, tmp_path, monkeypatch), words)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (
            ["tune", *ONE, "--engine", "trtllm"],
            4,
            "'trtllm' cannot run here: trtllm-serve is not installed.*--engine twin",
        ),
        (["tune", *ONE, "--engine", "vllm"], 4, "'vllm' cannot run here: vllm is not installed.*--engine twin"),
        (
            ["tune", "--study", "llama4-maverick-fp8-h100", "--gpus", "2"],
            3,
            r"lacks 11\d\.\d GiB of 80 GiB.*fits with --tp 8 \(6 more",
        ),
        (
            ["plan", "--study", "llama4-maverick-fp8-h100", "--gpus", "2"],
            3,
            r"lacks 11\d\.\d GiB of 80 GiB.*fits with --tp 8 \(6 more",
        ),
    ],
)
def test_what_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], code: int, words: str
) -> None:
    assert_says(paragraph(refused(argv, code, tmp_path, monkeypatch)), words)


def test_a_file_where_the_results_should_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").write_text("mine")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["tune", *ONE, "--max-launches", "1", "--out", "out"])
    assert result.exit_code == 2
    assert "A file stands where a folder is needed: move it away, or choose another folder with --out" in result.stderr
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["tune", *ONE, "--max-launches", "1", "--out", "out"])
    assert result.exit_code == 2
    assert "Permission is missing" in result.stderr


def test_the_models_that_the_message_points_at_can_be_listed() -> None:
    result = CliRunner().invoke(app, ["studies", "--models"])
    assert result.exit_code == 0
    assert "meta-llama/Meta-Llama-3.1-8B" in result.stdout.splitlines()
