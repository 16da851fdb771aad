"""`advisor plan`: the whole space ranked on the twin, no launch."""

from __future__ import annotations

from pathlib import Path

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import guarded


@guarded
def plan(
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    concurrency: opt.Concurrency = None,
    request_rate: opt.RequestRate = None,
    workload: opt.Workloads = None,
    slo: opt.SloText = "",
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
    search_space: opt.SpaceName = None,
    vary: opt.Vary = None,
    objective: opt.ObjectiveName = None,
    gpu_price: opt.GpuPrice = None,
    results: opt.Results = Path("results"),
    calibration: opt.UseCalibration = True,
    twin_world: opt.LearntWorld = 0,
    output: opt.Output = opt.OutputFormat.text,
    top_n: opt.TopN = 10,
) -> None:
    """Rank every configuration of the space by what the twin predicts, and say what will not fit."""
    from advisor.app.estimating import plan_question
    from advisor.report import console, plan_view

    asked = question(
        study=study,
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        request_rate_per_s=request_rate,
        workloads=workload,
        slo=slo,
        objective=objective,
        gpu_price_usd_per_hour=gpu_price,
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
        search_space=search_space,
        vary=vary,
    )
    documents = plan_question(asked, top_n, results if calibration else None, twin_world)
    if output is opt.OutputFormat.json:
        console.show_document(plan_view.json_text(documents))
    else:
        console.show(*map(plan_view.plan_ranking, documents))
