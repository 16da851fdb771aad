"""Configurations beside a study: a list drawn before anything is measured, and the launches that measure such a list.

    python -m tools.further draw FILE --seed 6                # YAML: the default, then 16 others
    python -m tools.further measure FILE RUN --model FOLDER   # one launch each, into RUN/trials/, like a study's

Drawn are points of the study's search space, uniformly among those that its rules and the memory law allow and that the
twin does not expect to be clearly slower than the default under the first workload: what a study must not miss. They
are launched with the study's `max_seq_len`.
`measure` may run on several GPUs at once with one RUN (`CUDA_VISIBLE_DEVICES`): each takes what no other has begun.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from advisor.app.setup import Question
from advisor.app.trial_runner import run_trial
from advisor.app.tuning import How, Session, open_session
from advisor.domain.ports import Closable, LaunchSpec, TrialEvent, TrialRequest
from advisor.domain.serving_config import ServingConfig, config_from_flat
from advisor.domain.strict import changed
from advisor.search.space import all_configs
from advisor.store.run_card import RunCard, write_card
from advisor.store.trial_folder import TrialFolder

STUDY = "llama3.1-8b-h100-vllm"
WORKLOADS = ("1024-128_c256_n1024", "4096-256_c64_n128")  # the study's; only the first is measured here
LEAST_OF_DEFAULT = 0.95  # of its predicted throughput


def drawn(session: Session, seed: int, n: int) -> list[ServingConfig]:
    """The default, and `n` others in the order of their drawing."""
    context, workload = session.context, session.context.workloads[0]
    default = context.baseline.config
    assert default is not None
    everything = [config for config in all_configs(context.space) if config != default]
    random.Random(seed).shuffle(everything)
    found = [default]
    for config in everything:
        if len(found) > n:
            break
        if session.gate.admit(config, []) is None:
            metrics = session.forecaster.predict(config, workload).metrics
            value = None if metrics is None else context.objective.value(metrics)
            if value is not None and value >= LEAST_OF_DEFAULT * context.references[workload.name]:
                found.append(config)
    return found


def measure(session: Session, configs: Sequence[ServingConfig], run: Path, until_s: float) -> None:
    """Launch what nobody has begun, in order, until the clock says `until_s` (since the epoch)."""
    context, workloads = session.context, session.context.workloads[:1]
    deployment = changed(context.deployment, max_seq_len=context.max_seq_len)
    run.mkdir(parents=True, exist_ok=True)
    write_card(
        run,
        RunCard(
            study=context.name,
            source=context.identity.source,
            engine_label=context.identity.label,
            deployment=deployment,
            workloads=workloads,
            objective=context.objective,
            slo=context.slo,
        ),
    )
    for number, config in enumerate(configs):
        folder = TrialFolder(run, number)
        if time.time() > until_s:
            return
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError:
            continue
        spec = LaunchSpec(
            deployment=deployment,
            config=config,
            workloads=workloads,
            slo=context.slo,
            deadlines=context.deadlines,
            seed=context.seed * 100_003 + number,
        )
        prediction = context.predict(config, context.workloads[0])
        request = TrialRequest(
            number=number,
            role="baseline" if config == context.baseline.config else "search",
            origin="list drawn beforehand",
            engine=context.engine,
            spec=spec,
            memory_predicted_gib=None if prediction is None else prediction.memory_gib,
            max_attempts=1,
        )
        record = run_trial(request, session.engine, _told, folder)
        folder.commit(record)
        metrics = record.workloads[0].metrics if record.workloads else None
        speed = f"{metrics.output_tok_per_s:,.0f} tok/s" if metrics else record.outcome.model_dump_json()
        _say(f"#{number} {config.key}: {speed}, {record.duration_s:.0f} s")


def _told(event: TrialEvent) -> None:
    if event.kind == "phase":
        _say(f"  {event.phase} {event.detail}")


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def main() -> None:
    """Draw, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default=STUDY)
    parser.add_argument("--seed", type=int, default=0, help="of the drawing, or of the prompts")
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw")
    draw.add_argument("file", type=Path)
    draw.add_argument("-n", type=int, default=16)
    launch = commands.add_parser("measure")
    launch.add_argument("file", type=Path)
    launch.add_argument("run", type=Path)
    launch.add_argument("--model", help="folder with a config.json; weights are random")
    launch.add_argument("--gpu", help="where it is not the study's")
    launch.add_argument("--workload", default=WORKLOADS[0], help="what is measured")
    launch.add_argument("--hold-next", action="store_true", help="as for advisor tune")
    launch.add_argument("--until", type=float, default=float("inf"), help="begin nothing after this, s since the epoch")
    said = parser.parse_args()
    drawing = said.command == "draw"
    asked = Question(
        study=said.study,
        workloads=WORKLOADS if drawing else (said.workload, *WORKLOADS[1:]),
        model=None if drawing else said.model,
        gpu=None if drawing else said.gpu,
        load_format=None if drawing else "dummy",
    )
    how = How(
        engine="twin" if drawing else "vllm",
        seed=0 if drawing else said.seed,
        transfer=False,
        calibration=False,
        hold_next=not drawing and said.hold_next,
    )
    session = open_session(asked, how)
    if drawing:
        listed = [config.flat() for config in drawn(session, said.seed, said.n)]
        said.file.write_text(yaml.safe_dump(listed, sort_keys=False), encoding="utf-8")
    else:
        listed = yaml.safe_load(said.file.read_text(encoding="utf-8"))
        try:
            measure(session, [config_from_flat(each) for each in listed], said.run, said.until)
        finally:
            if isinstance(session.engine, Closable):
                session.engine.close()


if __name__ == "__main__":
    main()
