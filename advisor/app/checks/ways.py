"""How to get an engine, with the commands of its own guides for the release and the GPU at hand.

Sources, repository NVIDIA/TensorRT-LLM: docs/source/installation/{installation-guide,linux,build-from-source-linux}.md,
docs/source/blogs/Best_perf_practice_on_DeepSeek-R1_in_TensorRT-LLM.md, examples/llm-api/llm_mgmn_trtllm_serve.sh;
vllm-project/vllm: docs/getting_started/{quickstart,installation/gpu.cuda.inc}.md, docs/deployment/docker.md.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from advisor.app.checks.finding import Way
from advisor.domain.errors import BadInput
from advisor.engines.images import published, usual_image
from advisor.engines.versions import version_key

REPOSITORY = "https://github.com/NVIDIA/TensorRT-LLM.git"
PIP_GUIDE = "https://nvidia.github.io/TensorRT-LLM/installation/linux.html"
WHEEL_PYTHONS = ("3.10", "3.12")
GUIDE_ULIMITS = "--ulimit memlock=-1 --ulimit stack=67108864"
FIRST_BLACKWELL = (10, 0)
_WHOSE = {"trtllm": "NVIDIA's", "vllm": "vLLM's"}
_ENTERED = {"trtllm": "", "vllm": "--entrypoint bash "}  # vLLM's image serves at once unless told otherwise
# From which release on the wheels are built for which CUDA.
CUDA_OF_RELEASES = (("0.20.0", "12.8"), ("1.2.0", "13.0"))
OLDEST_DRIVER = {"12": "525", "13": "580"}  # by the major version of CUDA


def release_of_image(image: str) -> str | None:
    """The release that an image's tag names, as NVIDIA's own do; None for other tags."""
    tag = re.search(r":v?(\d[\w.]*)$", image)
    return tag[1] if tag else None


def cuda_of_release(release: str) -> str | None:
    """The CUDA that the wheel of a release is built for; None for what is no version."""
    try:
        key = version_key(release)
    except BadInput:
        return None
    known = [cuda for since, cuda in CUDA_OF_RELEASES if version_key(since) <= key]
    return known[-1] if known else None


def architectures(capabilities: Collection[tuple[int, int]]) -> str | None:
    """GPUs as `build_wheel.py` names them: `90-real` for H100, `89-real;90-real` for two kinds."""
    return ";".join(f"{major}{minor}-real" for major, minor in sorted(set(capabilities))) or None


def release_container(engine: str, release: str, runtime: str, cache: str, folder: str | None) -> Way:
    """The engine's release container, with this folder, the model cache and a checkpoint folder in it."""
    devices = "--device nvidia.com/gpu=all" if runtime == "podman" else "--gpus all"
    hint = "" if published(release) else "; put a published release for x.y.z"
    home = cache.removesuffix("/hub")  # where the token lies too
    inside = "/root/.cache/huggingface" if home != cache else "/root/.cache/huggingface/hub"
    checkpoint = f" -v {shlex.quote(f'{folder}:{folder}:ro')}" if folder else ""
    return Way(
        what=f"Start {_WHOSE[engine]} release container, and run advisor in it (pip install . in advisor's checkout)"
        f"{hint}:",
        commands=(
            f"{runtime} run --rm -it --ipc host {devices} {GUIDE_ULIMITS} -p 8000:8000 \\\n"
            f"  -v $PWD:$PWD -w $PWD -v {shlex.quote(f'{home}:{inside}')}{checkpoint} \\\n"
            f"  {_ENTERED[engine]}{usual_image(engine, release)}",
        ),
    )


def container_from_here(engine: str, release: str) -> Way:
    """The same container, started by advisor for every launch."""
    asked = "" if engine == "trtllm" else f" --engine {engine}"
    return Way(
        what="Or leave advisor where it is and let it start the container for every launch:",
        commands=(f"advisor check-env{asked} --container-image {usual_image(engine, release)}",),
    )


def slurm_container(release: str, gpus: int) -> Way:
    """The same container as job steps, for clusters with pyxis."""
    image = usual_image("trtllm", release).replace("nvcr.io/", "nvcr.io#", 1)
    return Way(
        what="On a Slurm cluster with pyxis, let advisor start job steps:",
        commands=(
            f'advisor tune --launch-prefix "srun -N1 --ntasks-per-node={gpus} --mpi=pmix --container-image={image} '
            '--container-mounts=$PWD:$PWD trtllm-llmapi-launch"',
        ),
    )


def wheel(release: str, python: str, capabilities: Collection[tuple[int, int]]) -> Way:
    """NVIDIA's wheel and what it needs before it."""
    number = published(release)
    cuda = cuda_of_release(release)
    is_blackwell = any(capability >= FIRST_BLACKWELL for capability in capabilities)
    said = [f"Install NVIDIA's wheel, into Python {' or '.join(WHEEL_PYTHONS)}"]
    if not python.startswith(tuple(f"{each}." for each in WHEEL_PYTHONS)):
        said.append(f"(there is none for advisor's own {python})")
    if cuda is not None and (is_blackwell or not cuda.startswith("12")):
        said.append(f"with PyTorch for CUDA {cuda} installed first, as {PIP_GUIDE} shows")
    return Way(
        what=", ".join(said).replace(", (", " (") + ":",
        commands=(
            "sudo apt-get -y install libopenmpi-dev",
            f"pip3 install --upgrade pip setuptools && pip3 install tensorrt_llm{f'=={number}' if number else ''}",
        ),
    )


def vllm_wheel(release: str) -> Way:
    """vLLM's wheel with the PyTorch that suits the driver."""
    number = published(release)
    return Way(
        what="Install vLLM into an environment of its own, and put it on the PATH:",
        commands=(
            "pip3 install uv && uv venv --python 3.12 --seed vllm && source vllm/bin/activate",
            f"uv pip install vllm{f'=={number}' if number else ''} --torch-backend=auto",
        ),
    )


def source_build(release: str, capabilities: Collection[tuple[int, int]]) -> Way:
    """A build from source in NVIDIA's development container, for the GPUs at hand alone."""
    tag = published(release)
    built_for = architectures(capabilities)
    choose = "" if built_for else " (90 is H100 and H200, 100 B200, 80 A100, 89 L40S: name yours with --gpu)"
    return Way(
        what=f"Build it from source in NVIDIA's development container, which takes 63 GB of disk{choose}:",
        commands=(
            "sudo apt-get update && sudo apt-get -y install git git-lfs && git lfs install",
            f"git clone {REPOSITORY} && cd TensorRT-LLM{f' && git checkout v{tag}' if tag else ''}",
            "git submodule update --init --recursive && git lfs pull",
            "make -C docker build",
            "make -C docker run LOCAL_USER=1",
            "# and then inside the container:",
            f'python3 ./scripts/build_wheel.py --clean --cuda_architectures "{built_for or "90-real"}"',
            "pip install --user build/tensorrt_llm*.whl",
            "export PATH=${HOME}/.local/bin:${PATH} PYTHONPATH=$PWD",
        ),
    )


def toolkit(runtime: str) -> Way:
    """The NVIDIA Container Toolkit, which hands GPUs to containers."""
    tail = (
        ("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",)
        if runtime == "podman"
        else ("sudo nvidia-ctk runtime configure --runtime=docker", "sudo systemctl restart docker")
    )
    return Way(
        what="Install the NVIDIA Container Toolkit (its package comes from NVIDIA's own repository: "
        "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html):",
        commands=("sudo apt-get install -y nvidia-container-toolkit", *tail),
    )
