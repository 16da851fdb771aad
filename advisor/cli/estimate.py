"""`advisor estimate`: one configuration, no launch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import guarded


@guarded
def estimate(
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    concurrency: opt.Concurrency = None,
    request_rate: opt.RequestRate = None,
    workload: opt.Workloads = None,
    model: opt.Model = None,
    gpu: opt.Gpu = None,
    gpus: opt.Gpus = None,
    tp: opt.Tp = None,
    pp: opt.Pp = None,
    ep: opt.Ep = None,
    attention_dp: opt.AttentionDp = None,
    quant: opt.Quant = None,
    kv_cache_dtype: opt.KvCacheDtype = None,
    engine_version: opt.EngineVersion = None,
    study: opt.StudyName = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Requests at once, per rank under attention DP.", min=1)
    ] = None,
    max_num_tokens: Annotated[int | None, typer.Option(help="Tokens of one step.", min=1)] = None,
    cuda_graph_max_batch_size: Annotated[
        int | None, typer.Option(help="Largest captured batch; 0 = no graphs.", min=0)
    ] = None,
    kv_fraction: Annotated[
        float | None,
        typer.Option(
            "--kv-cache-free-gpu-memory-fraction", "--kv-fraction", help="Share of free memory for the KV cache."
        ),
    ] = None,
    chunked_prefill: Annotated[
        bool | None, typer.Option("--chunked-prefill/--no-chunked-prefill", help="Cut prompts to fit a step.")
    ] = None,
    results: opt.Results = Path("results"),
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer/--no-transfer",
            help="Correct the memory law by measured launches of this deployment below --results.",
        ),
    ] = True,
    calibration: opt.UseCalibration = True,
    twin_world: opt.LearntWorld = 0,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Predict memory, KV capacity, throughput and latency of one configuration.

    Settings that are not given are the baseline's. The memory law is corrected by what earlier studies of the same
    deployment measured, and the answer says so.
    """
    from advisor.app.estimating import estimate_question
    from advisor.report import console, plan_view

    asked = question(
        study=study,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        request_rate_per_s=request_rate,
        workloads=workload,
        model=model,
        gpu=gpu,
        gpus=gpus,
        tp=tp,
        pp=pp,
        ep=ep,
        attention_dp=attention_dp,
        quant=quant,
        kv_cache_dtype=kv_cache_dtype,
        engine_version=engine_version,
    )
    settings = {
        "max_batch_size": max_batch_size,
        "max_num_tokens": max_num_tokens,
        "cuda_graph_max_batch_size": cuda_graph_max_batch_size,
        "kv_cache_free_gpu_memory_fraction": kv_fraction,
        "enable_chunked_prefill": chunked_prefill,
    }
    said = {name: value for name, value in settings.items() if value is not None}
    documents = estimate_question(
        asked, said, results if transfer else None, twin_world, results if calibration else None
    )
    if output is opt.OutputFormat.json:
        console.show_document(plan_view.json_text(documents))
    else:
        console.show(*map(plan_view.estimate_view, documents))
