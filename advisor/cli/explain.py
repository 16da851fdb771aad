"""`advisor explain`: what a server's file says, costs and hides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import guarded


@guarded
def explain(
    file: Annotated[
        Path, typer.Argument(help="An extra-llm-api-config.yml of TensorRT-LLM, or a --config file of vLLM.")
    ],
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
    quant: opt.Quant = None,
    engine: Annotated[
        str, typer.Option(help="trtllm or vllm; auto: told by the keys of the file.", rich_help_panel=opt.DEPLOYMENT)
    ] = "auto",
    engine_version: opt.EngineVersion = None,
    study: opt.StudyName = None,
    results: Annotated[Path, typer.Option(help="Folder with studies to learn from.")] = Path("results"),
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer/--no-transfer",
            help="Correct the memory law by measured launches of this deployment below --results.",
        ),
    ] = True,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Explain a server's configuration file: each key, its cost, what is changed silently, what looks wrong.

    Nothing is launched; memory and speed are predicted. The layout is the file's where it says one.
    """
    from advisor.app.explaining import explain as explained
    from advisor.report import console
    from advisor.report.explain_view import explanation_view

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
        quant=quant,
        engine=None if engine == "auto" else engine,
        engine_version=engine_version,
    )
    found = explained(file, asked, results if transfer else None)
    if output is opt.OutputFormat.json:
        console.show_document(found.model_dump_json(indent=2))
    else:
        console.show(explanation_view(found))
