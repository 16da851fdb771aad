"""`advisor tune`: the study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import guarded


@guarded
def tune(
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
    engine: opt.Engine = "auto",
    container_image: opt.ContainerImage = None,
    launch_prefix: opt.LaunchPrefix = None,
    client_check: opt.ClientCheck = True,
    hold_next: Annotated[
        bool,
        typer.Option(
            "--hold-next",
            help="vLLM: the next launch's process imports while the current server comes up.",
            rich_help_panel=opt.DEPLOYMENT,
        ),
    ] = False,
    engine_version: opt.EngineVersion = None,
    load_format: opt.LoadFormat = None,
    study: opt.StudyName = None,
    search_space: opt.SpaceName = None,
    vary: opt.Vary = None,
    objective: opt.ObjectiveName = None,
    gpu_price: opt.GpuPrice = None,
    sampler: Annotated[
        str, typer.Option(help="advisor (its own), tpe, random, qmc, gp, nsgaii or cmaes.", rich_help_panel=opt.STUDY)
    ] = "advisor",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Launch this too: default, guide, trtllm-bench, aiconfigurator, curated, or a YAML file; repeatable.",
            rich_help_panel=opt.STUDY,
        ),
    ] = None,
    rescue: Annotated[
        str | None,
        typer.Option(
            help="A YAML file that crashes: find the nearest configuration that serves the workload, in few launches.",
            rich_help_panel=opt.STUDY,
        ),
    ] = None,
    max_answer_drift: Annotated[
        float | None,
        typer.Option(
            help="With dimensions that can change answers: share of prompts, beyond noise, that may be answered "
            "otherwise than by the baseline; 1 allows anything. [default: the study's, 0.25]",
            min=0,
            max=1,
            rich_help_panel=opt.STUDY,
        ),
    ] = None,
    twin_world: opt.TwinWorld = 0,
    seed: opt.Seed = 0,
    max_launches: Annotated[
        int | None,
        typer.Option(help="Process starts in all, the confirmation included.", min=1, rich_help_panel=opt.BUDGET),
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(help="Server hours in all; virtual ones on the twin.", rich_help_panel=opt.BUDGET)
    ] = None,
    gpu_hours: Annotated[
        float | None,
        typer.Option(help="Server hours times GPUs in all; virtual ones on the twin.", rich_help_panel=opt.BUDGET),
    ] = None,
    max_probes: Annotated[
        int | None,
        typer.Option(
            help="Memory-only starts beside the launches, bought where they pay; by default a quarter of the launches.",
            min=0,
            rich_help_panel=opt.BUDGET,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run where it stopped.", rich_help_panel=opt.BUDGET)
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer/--no-transfer",
            help="Learn from earlier studies of this model below --out; a resumed run keeps what it began with.",
            rich_help_panel=opt.STUDY,
        ),
    ] = True,
    calibration: opt.UseCalibration = True,
    early_stop: Annotated[
        bool,
        typer.Option(
            help="Stop benchmarks that cannot beat the best so far; baseline and confirmation are always whole.",
            rich_help_panel=opt.BUDGET,
        ),
    ] = True,
    soak: Annotated[
        bool,
        typer.Option(
            help="Serve the heaviest load of the study, with every request as long as its longest, on the winner.",
            rich_help_panel=opt.BUDGET,
        ),
    ] = True,
    verifiable: Annotated[
        bool,
        typer.Option(
            "--verifiable",
            help="Then launch each best again, beyond --max-launches, until `advisor verify` can tell a loss of 5 % "
            "at the noise seen: 9 to 16 launches in all, mostly 7 more. With --resume also of a finished study.",
            rich_help_panel=opt.BUDGET,
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, launch nothing.", rich_help_panel=opt.BUDGET)
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="Launch although the twin expects no gain above the noise.", rich_help_panel=opt.BUDGET
        ),
    ] = False,
    out: opt.Out = Path("results"),
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage URL instead of the run's journal file.", rich_help_panel=opt.OUTPUT),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Show the report while the study runs, on this machine.", rich_help_panel=opt.OUTPUT
        ),
    ] = False,
    port: opt.Port = None,
    output: opt.Output = opt.OutputFormat.text,
    top_n: opt.TopN = 5,
) -> None:
    """Find the best configuration for a workload by launching and benchmarking it.

    `advisor tune --isl 4096 --osl 1024` needs nothing else: it tunes Llama-4-Maverick FP8 on 8 GPUs. Without a GPU the
    launches are simulated by the twin, and everything says so.
    """
    from advisor.app import tuning
    from advisor.cli import present

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
        load_format=load_format,
        search_space=search_space,
        vary=vary,
        max_answer_drift=max_answer_drift,
        max_launches=max_launches,
        max_hours=max_hours,
        gpu_hours=gpu_hours,
    )
    how = tuning.How(
        engine=engine,
        twin_world=twin_world,
        container_image=container_image,
        launch_prefix=launch_prefix,
        client_check=client_check,
        hold_next=hold_next,
        sampler=sampler,
        baselines=tuple(baseline or ()),
        rescue=rescue,
        seed=seed,
        out=out,
        storage=storage,
        resume=resume,
        transfer=transfer,
        calibration=calibration,
        max_probes=max_probes,
        top_n=top_n,
        early_stop=early_stop,
        soak=soak,
        verifiable=verifiable,
    )
    session = tuning.open_session(asked, how)
    if dry_run:
        present.dry_run(session, output)
        return
    if not yes and not present.worth_launching(session, output):
        return
    raise typer.Exit(present.run(session, output, opt.LIVE_PORT if live and port is None else port))
