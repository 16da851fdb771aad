"""The options that several verbs share, so that the same word means the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

WORKLOAD, DEPLOYMENT, STUDY, BUDGET, OUTPUT = "Workload", "Deployment", "Study", "Budget", "Output"


class OutputFormat(str, Enum):
    """How a verb prints its answer on stdout."""

    text = "text"
    json = "json"


Isl = Annotated[
    str | None,
    typer.Option(
        "--isl",
        help="Prompt tokens: 4096, 4k, a range 3000:4096; several as 1k,4k, one workload each.",
        rich_help_panel=WORKLOAD,
    ),
]
Osl = Annotated[
    str | None, typer.Option("--osl", help="Output tokens: 1024, 1k, a range, or several.", rich_help_panel=WORKLOAD)
]
Concurrency = Annotated[
    str | None,
    typer.Option(help="Requests in flight over all ranks; several: 64,256. [default: 1024]", rich_help_panel=WORKLOAD),
]
RequestRate = Annotated[
    float | None, typer.Option(help="Requests per second (Poisson) instead of a concurrency.", rich_help_panel=WORKLOAD)
]
Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="Short name such as 1k1k, 4k1k_c256 or 3000-700_r12.5, with _n512 to send 512 requests; repeat for "
        "several, one launch benchmarks all.",
        rich_help_panel=WORKLOAD,
    ),
]
SloText = Annotated[
    str, typer.Option("--slo", help="Limits such as ttft:p95<2s,tpot:mean<20ms.", rich_help_panel=WORKLOAD)
]
Model = Annotated[str | None, typer.Option(help="Hugging Face name or checkpoint folder.", rich_help_panel=DEPLOYMENT)]
Gpu = Annotated[str | None, typer.Option(help="GPU system, such as h200_sxm.", rich_help_panel=DEPLOYMENT)]
Gpus = Annotated[int | None, typer.Option(help="Number of GPUs. [default: tp x pp]", min=1, rich_help_panel=DEPLOYMENT)]
Tp = Annotated[int | None, typer.Option(help="Tensor-parallel size.", min=1, rich_help_panel=DEPLOYMENT)]
Pp = Annotated[int | None, typer.Option(help="Pipeline-parallel size.", min=1, rich_help_panel=DEPLOYMENT)]
Ep = Annotated[int | None, typer.Option(help="Expert-parallel size.", min=1, rich_help_panel=DEPLOYMENT)]
AttentionDp = Annotated[
    bool | None,
    typer.Option(
        "--attention-dp/--no-attention-dp", help="Fix attention data parallelism.", rich_help_panel=DEPLOYMENT
    ),
]
Quant = Annotated[
    str | None,
    typer.Option(
        "--quant",
        help="bf16, fp8, fp8_block, nvfp4 or mxfp4. [default: by the model's name]",
        rich_help_panel=DEPLOYMENT,
    ),
]
KvCacheDtype = Annotated[
    str | None,
    typer.Option(
        "--kv-cache-dtype",
        help="auto, fp8 or bf16; auto follows the checkpoint. [default: the study's]",
        rich_help_panel=DEPLOYMENT,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="auto, or one of `advisor engines`; auto takes the study's engine where it can, else the twin.",
        rich_help_panel=DEPLOYMENT,
    ),
]
SpokenEngine = Annotated[
    str | None, typer.Option("--engine", help="trtllm or vllm. [default: the study's]", rich_help_panel=DEPLOYMENT)
]
ContainerImage = Annotated[
    str | None,
    typer.Option(help="Launch the engine in this image, with docker or podman.", rich_help_panel=DEPLOYMENT),
]
LaunchPrefix = Annotated[
    str | None,
    typer.Option(
        help='Words before the command, such as "srun -N2 --mpi=pmix trtllm-llmapi-launch".',
        rich_help_panel=DEPLOYMENT,
    ),
]
ClientCheck = Annotated[
    bool,
    typer.Option(
        "--client-check/--no-client-check",
        help="Do not count what was measured while the load client itself was the limit.",
        rich_help_panel=WORKLOAD,
    ),
]
EngineVersion = Annotated[
    str | None, typer.Option(help="Release of the engine that the files are for.", rich_help_panel=DEPLOYMENT)
]
LoadFormat = Annotated[
    str | None,
    typer.Option(
        help="How the engine makes weights; dummy: random ones, so that a folder with a config.json is enough.",
        rich_help_panel=DEPLOYMENT,
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option("--study", help="Study by name or file; `advisor studies` lists them.", rich_help_panel=STUDY),
]
SpaceName = Annotated[
    str | None,
    typer.Option(
        "--search-space", help="Search space by name or file: default, low_latency ...", rich_help_panel=STUDY
    ),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        help="Search this dimension of the space too; repeatable. The only way to search one that can change answers.",
        rich_help_panel=STUDY,
    ),
]
ObjectiveName = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="output_tok_per_s_per_gpu, request_per_s, goodput (requests/s that keep --slo), a latency such as "
        "ttft:p95, cost_per_million_tok or energy_j_per_million_tok.",
        rich_help_panel=STUDY,
    ),
]
GpuPrice = Annotated[
    float | None,
    typer.Option(
        "--gpu-price",
        help="USD per GPU and hour: results then tell the cost of a million output tokens.",
        min=0,
        rich_help_panel=STUDY,
    ),
]
TwinWorld = Annotated[
    int,
    typer.Option(
        help="Play a twin whose constants are drawn within its known error; 0 is the nominal one.",
        min=0,
        rich_help_panel=STUDY,
    ),
]
Results = Annotated[Path, typer.Option(help="Folder with studies to learn from.", rich_help_panel=STUDY)]
UseCalibration = Annotated[
    bool,
    typer.Option(
        "--calibration/--no-calibration",
        help="Go by the constants that `advisor calibrate` fitted for this engine, release and GPU, where there are "
        "any; a resumed run keeps what it began with.",
        rich_help_panel=STUDY,
    ),
]
LearntWorld = Annotated[
    int,
    typer.Option(
        "--twin-world",
        help="Learn from launches simulated in this world instead of measured ones.",
        min=0,
        rich_help_panel=STUDY,
    ),
]
Output = Annotated[OutputFormat, typer.Option("--output", help="What to print on stdout.", rich_help_panel=OUTPUT)]
TopN = Annotated[int, typer.Option(help="Rows of the table of best configurations.", min=1, rich_help_panel=OUTPUT)]
Seed = Annotated[int, typer.Option(help="Same seed, same machine, same result.", min=0, rich_help_panel=STUDY)]
Out = Annotated[Path, typer.Option(help="Folder for results.", rich_help_panel=OUTPUT)]
LIVE_PORT, DASHBOARD_PORT = 8765, 8080
Port = Annotated[
    int | None,
    typer.Option(
        help=f"Port of the live page on the loopback address; 0 takes any that is free. [default: {LIVE_PORT}]",
        min=0,
        max=65535,
        rich_help_panel=OUTPUT,
    ),
]
