"""`advisor check-env`: what this machine lacks to launch the engine, and how to get it."""

from __future__ import annotations

import os

import typer

from advisor.cli import options as opt
from advisor.cli.asking import question
from advisor.cli.errors import EXIT_CODES, guarded
from advisor.domain.errors import EngineMissing


@guarded
def check_env(
    model: opt.Model = None,
    gpu: opt.Gpu = None,
    gpus: opt.Gpus = None,
    tp: opt.Tp = None,
    pp: opt.Pp = None,
    ep: opt.Ep = None,
    quant: opt.Quant = None,
    engine: opt.SpokenEngine = None,
    engine_version: opt.EngineVersion = None,
    container_image: opt.ContainerImage = None,
    study: opt.StudyName = None,
    output: opt.Output = opt.OutputFormat.text,
) -> None:
    """Look for the engine, GPUs, limits and the checkpoint, and say what is missing and how to get it.

    Nothing is started or fetched, and it works without a GPU. The exit code is 0 when the engine can be launched here
    (warnings do not count) and 4 when something is missing for it; name a model or a study to have them checked too.
    """
    from advisor.app import checking
    from advisor.report import console, env_view

    asked = question(
        study=study,
        model=model,
        gpu=gpu,
        gpus=gpus,
        tp=tp,
        pp=pp,
        ep=ep,
        quant=quant,
        engine=engine,
        engine_version=engine_version,
    )
    report = checking.check_env(asked, container_image, os.environ)
    if output is opt.OutputFormat.json:
        console.show_document(env_view.report_json(report))
    else:
        console.show_lines(*env_view.report_lines(report))
    raise typer.Exit(0 if report.launchable else EXIT_CODES[EngineMissing])
