"""The files of the configuration for all workloads: its YAML and the command to serve it."""

from __future__ import annotations

import datetime

from advisor.app.context import StudyContext
from advisor.app.results import StudySummary
from advisor.app.robustness import RobustChoice
from advisor.engines.spoken import spoken_by
from advisor.report import files


def robust_story(context: StudyContext, summary: StudySummary, choice: RobustChoice) -> files.Story:
    """What every file of it tells at its top."""
    deployment = context.deployment
    lost = ", ".join(f"{workload} {100 * regret:.1f} %" for workload, regret in choice.regret.items())
    return files.Story(
        source=summary.source,
        label=summary.label,
        study=summary.study,
        workload=" ".join(choice.regret),
        model=deployment.model,
        engine=spoken_by(deployment).title,
        engine_version=deployment.engine_version,
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        confidence=f"loses {100 * choice.max_regret:.1f} % at most ({choice.kind.replace('_', ' ')})",
        notes=(f"One configuration for all workloads. Lost against the best of each: {lost}.",),
        benchmark=f"../{next(iter(choice.regret))}/benchmark.sh",
    )


def robust_files(
    context: StudyContext, summary: StudySummary, choice: RobustChoice, story: files.Story
) -> dict[str, str]:
    """Text by file name."""
    deployment, config = context.deployment, choice.serving_config
    spoken = spoken_by(deployment)
    searched = [dimension.name for dimension in context.space.active]
    default = spoken.default_config(context.gpu)
    origin = files.origins(searched, summary.counts.launches, default, "least maximum regret of")
    return {
        spoken.config_name: files.config_text(story, spoken, deployment, config, context.max_seq_len, origin),
        "serve.sh": files.serve_sh(story, spoken, deployment, config, context.max_seq_len),
    }
