"""One server in one container, whatever starts it: what `docker run`, compose, Slurm and Kubernetes have to agree on.

Inside there are fixed places: the bundle at `BUNDLE_FOLDER`, Hugging Face's cache at `CACHE_FOLDER`, and `PORT` on
every address of the container, which whoever starts it publishes as narrowly as it likes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.measurement import MemoryReport, Metrics
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import StrictModel, changed
from advisor.engines.dialect import EngineDialect
from advisor.engines.images import Image, image_named, image_of
from advisor.engines.trtllm.environment import is_folder
from advisor.host.containers import INSIDE, STACK_BYTES
from advisor.store.catalog import CPU

PORT = 8000
BUNDLE_FOLDER = "/advisor"
CACHE_FOLDER = "/hf"
PROBE_NAME = "probe.py"
PROBE_ARGV = ("python3", f"{BUNDLE_FOLDER}/{PROBE_NAME}")
TOKEN = "HF_TOKEN"  # its name alone is ever written
ULIMITS = {"memlock": -1, "stack": STACK_BYTES}
SHM_GIB = 16
GPUS_PER_NODE = 8
_GPUS_PER_NODE = {"gb200": 4, "gb300": 4}

# A generation waits behind the queue, so a probe that is to be believed under load allows for a multiple of its TTFT.
TTFT_TIMES = 10
LEAST_ANSWER_S, MOST_ANSWER_S = 30, 300
CACHE_TIMES = 1.3  # of the weights: a download is written beside what is there

_PROBE = """\
# Ends with 0 when the server on this machine generates a token: /health says 200 for one that is dead inside.
# Usage: python3 {name} [PORT]
import http.client, json, sys

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else {port}


def ask(method, path, body=None):
    link = http.client.HTTPConnection("127.0.0.1", PORT, timeout={answer_s})
    link.request(method, path, body, {{"Content-Type": "application/json"}})
    answer = link.getresponse()
    if answer.status != 200:
        sys.exit(f"{{path}}: HTTP {{answer.status}}")
    return json.load(answer)


try:
    model = ask("GET", "/v1/models")["data"][0]["id"]
    wanted = {{"model": model, "prompt": [11, 12, 13, 14], "max_tokens": 1, "ignore_eos": True, "temperature": 0}}
    generated = ask("POST", "/v1/completions", json.dumps(wanted))["usage"]["completion_tokens"]
except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
    sys.exit(f"no token: {{error!r}}")
sys.exit(0 if generated > 0 else "no token was generated")
"""


class Contained(StrictModel):
    """A server in a container."""

    name: str = Field(description="A label as DNS has them, of the model and the workload")
    image: Image
    argv: tuple[str, ...] = Field(description="The whole command inside, the entrypoint's program included")
    flags: dict[str, str] = Field(description="Neutral name to flag, of what differs from place to place")
    environment: dict[str, str] = Field(description="What the configuration asks of the environment")
    gpus: int = Field(ge=1)
    gpu: str
    config_name: str
    config_text: str
    checkpoint: str | None = Field(description="Folder to mount where it lies; null for a model of the hub")
    cache_gib: int = Field(description="Room for a model of the hub")
    answer_s: int = Field(description="What a probe waits for its token")
    start_s: int = Field(description="What a start may take, a download not included")
    stop_s: int

    @property
    def command(self) -> tuple[str, ...]:
        """What follows the entrypoint."""
        return self.argv[len(self.image.entrypoint) :]

    @property
    def probe_text(self) -> str:
        """A program that succeeds when a token was generated."""
        return _PROBE.format(name=PROBE_NAME, port=PORT, answer_s=self.answer_s)

    @property
    def nodes(self) -> int | None:
        """Machines that its GPUs come from; None where they cannot be divided equally."""
        per_node = _GPUS_PER_NODE.get(self.gpu, GPUS_PER_NODE)
        nodes = math.ceil(self.gpus / per_node)
        return nodes if self.gpus % nodes == 0 else None


def contained(
    spoken: EngineDialect,
    deployment: Deployment,
    config: ServingConfig,
    max_seq_len: int,
    *,
    image: Image,
    purpose: str,
    config_text: str,
    measured: Sequence[Metrics],
    memory_gib: MemoryReport | None,
    deadlines: Deadlines,
) -> Contained:
    """The server of a configuration.

    Args:
        spoken: Its release.
        deployment: As the study fixes it.
        config: Its settings.
        max_seq_len: Tokens of the longest request.
        image: What it runs in.
        purpose: What it is for, such as a workload; a part of its label.
        config_text: Its configuration file.
        measured: What it did under each load that it is meant for, measured or simulated.
        memory_gib: Of one GPU, measured or predicted; None where nobody knows.
        deadlines: Of the study.
    """
    folder = str(Path(deployment.model).expanduser().absolute()) if is_folder(deployment.model) else None
    served = deployment if folder is None else changed(deployment, model=folder)
    config_path = f"{BUNDLE_FOLDER}/{spoken.config_name}"
    weights_gib = 100.0 if memory_gib is None else memory_gib.weights * deployment.gpus
    phases_s = (deadlines.launch_s, deadlines.load_s, deadlines.kv_estimate_s, deadlines.kv_allocate_s)
    return Contained(
        name=label_of(deployment.model, purpose),
        image=image,
        argv=spoken.argv(served, config, max_seq_len, host=INSIDE, port=PORT, config_path=config_path),
        flags=dict(spoken.flags),
        environment=spoken.environment(served, config),
        gpus=deployment.gpus,
        gpu=deployment.gpu,
        config_name=spoken.config_name,
        config_text=config_text,
        checkpoint=folder,
        cache_gib=math.ceil(CACHE_TIMES * weights_gib),
        answer_s=answer_s(measured),
        start_s=math.ceil(sum(phases_s) + deadlines.warm_up_s),
        stop_s=math.ceil(deadlines.stop_s),
    )


def image_for(spoken: EngineDialect, deployment: Deployment, measured_in: str | None) -> Image | None:
    """The image that a study ran in, else the published one of its version or of the release it is spoken to as.

    None where there is none, as for a build from source or vLLM without a GPU.
    """
    if measured_in:
        return image_named(deployment.engine, measured_in)
    if deployment.gpu == CPU:
        return None
    return image_of(deployment.engine, deployment.engine_version, spoken.release)


def answer_s(measured: Sequence[Metrics]) -> int:
    """Seconds within which a loaded server answers with one token, generously."""
    slowest_ms = max((metrics.ttft_ms.p99 for metrics in measured), default=0.0)
    return min(MOST_ANSWER_S, max(LEAST_ANSWER_S, math.ceil(TTFT_TIMES * slowest_ms / 1000)))


def label_of(model: str, purpose: str) -> str:
    """A label of at most 55 characters as Kubernetes wants the names of Services: a-z, 0-9 and dashes between.

    The purpose, which tells the servers of one model apart, is kept as long as it has no more than 40 of them.
    """
    kept = _plain(purpose)[:40]
    words = ["advisor", _plain(Path(model).name)[: 46 - len(kept)], kept]
    return "-".join(part for word in words if (part := word.strip("-")))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
