"""Judgement: each thing that can be wrong gives the finding that names it, with a reason and a way out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.app.checking import AREAS, EnvReport, judge
from advisor.app.checks.facts import Facts
from advisor.app.checks.finding import Finding
from advisor.app.checks.ways import architectures, cuda_of_release, release_of_image
from advisor.engines.images import published
from advisor.engines.installed import Installation
from advisor.host.machine import HostMemory, Limit, Space
from advisor.host.runtimes import ContainerRuntime, Trouble
from advisor.store.hub import HubAccess
from tests.app.machines import CHECKPOINT, ON_VLLM, WELL, busy, gpu, gpus, no_gpus, spoiled

DOCKER = ContainerRuntime(name="docker", command="/usr/bin/docker", gpus=True, has_image=True)
IMAGE = "nvcr.io/nvidia/tensorrt-llm/release:1.2.0"
LOW = Limit(soft=1024, hard=1024)
SMALL_SHM = Space(folder="/dev/shm", total_gib=0.0625, free_gib=0.0625)
OFFLINE = HubAccess(cache="/c/hub", offline=True, token_from=None)
NO_TOKEN = HubAccess(cache="/c/hub", offline=False, token_from=None)
EIGHT = tuple(map(gpu, range(8)))
UNKNOWN = {"name": "NVIDIA GeForce RTX 4090", "key": None}


def installed(version: str | None) -> Installation:
    return Installation(command="/opt/trt/bin/trtllm-serve", interpreter="/opt/trt/bin/python3", version=version)


def docker(trouble: Trouble | None, hands_out_gpus: bool = True) -> ContainerRuntime:
    return ContainerRuntime(name="docker", command="/usr/bin/docker", trouble=trouble, gpus=hands_out_gpus)


# What is spoiled, and the findings that are no longer `ok`.
CASES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"engine__installation": None, "engine__runtimes": (DOCKER,)}, {"engine.serve": "miss"}),
    ({"engine__installation": None, "engine__runtimes": ()}, {"engine.serve": "miss", "engine.runtime": "note"}),
    (
        {"engine__installation": None, "engine__beside_advisor": "/v/bin/trtllm-serve", "engine__runtimes": (DOCKER,)},
        {"engine.serve": "miss"},
    ),
    (
        {"engine__installation": installed("1.2.0.dev2025")},
        {"engine.version": "warning"},
    ),
    ({"engine__installation": installed("9.9.9")}, {"engine.version": "warning"}),
    ({"engine__installation": installed("0.17.0")}, {"engine.version": "miss"}),
    ({"engine__installation": installed("odd")}, {"engine.version": "miss"}),
    (
        {"engine__installation": installed(None), "engine__packages": None},
        {"engine.version": "warning", "engine.packages": "warning"},
    ),
    ({"wanted__engine_version": "1.0.0"}, {"engine.version": "miss"}),
    ({"engine__packages__versions": {"tensorrt_llm": "1.2.0", "torch": "2.9.1"}}, {"engine.packages": "warning"}),
    ({"engine__mpi__library": None}, {"engine.mpi": "warning"}),
    ({"engine__mpi__inside": "srun", "engine__mpi__variables": ("SLURM_STEP_ID",)}, {"engine.launcher": "warning"}),
    ({"engine__cuda_home": None}, {"engine.cuda_home": "note"}),
    ({"gpus": gpus(*EIGHT[:4], cuda="12.8")}, {"engine.cuda": "miss"}),
    ({"gpus": gpus(*EIGHT[:4], cuda="12.6"), "engine__cuda_needed": "12.8"}, {"engine.cuda": "note"}),
    ({"gpus": no_gpus()}, {"gpu.driver": "miss"}),
    ({"gpus": no_gpus(), "host__container": "docker"}, {"gpu.driver": "miss", "host.container": "note"}),
    ({"gpus": no_gpus(), "host__nvidia__forbidden": ("/dev/nvidia0",)}, {"gpu.driver": "miss"}),
    ({"gpus": gpus()}, {"gpu.driver": "miss"}),
    ({"gpus": gpus(*EIGHT[:4], seen=(), env="7")}, {"gpu.visible": "miss"}),
    ({"gpus": gpus(*EIGHT, seen=EIGHT[:4], env="0,1,2,3")}, {"gpu.visible": "note"}),
    ({"gpus": gpus(*EIGHT[:2])}, {"gpu.count": "miss"}),
    ({"gpus": gpus(*EIGHT, seen=EIGHT[:2], env="0,1")}, {"gpu.count": "miss", "gpu.visible": "note"}),
    ({"gpus": gpus(*(gpu(index, **UNKNOWN) for index in range(4)))}, {"gpu.kind": "warning"}),
    ({"gpus": gpus(*EIGHT[:3], gpu(3, name="NVIDIA H200", key="h200_sxm"))}, {"gpu.kind": "warning"}),
    ({"wanted__gpu": "b200_sxm"}, {"gpu.kind": "miss"}),
    ({"gpus": gpus(busy(0, 20.0), *EIGHT[1:4])}, {"gpu.memory": "miss"}),
    ({"gpus": gpus(*EIGHT[:4], busy(4, 20.0))}, {"gpu.memory": "note"}),
    ({"gpus": gpus(gpu(0, used_gib=20.0), *EIGHT[1:4])}, {"gpu.memory": "miss"}),
    ({"gpus": gpus(*EIGHT[:3], gpu(3, mig=True))}, {"gpu.mig": "miss"}),
    ({"weights__checkpoint__quantization": "nvfp4", "wanted__quantization": "nvfp4"}, {"gpu.compute": "miss"}),
    ({"gpus": gpus(*(gpu(index, nvlinks=0) for index in range(4)))}, {"gpu.nvlink": "warning"}),
    ({"gpus": gpus(*(gpu(index, nvlinks=None, key="h100_pcie") for index in range(4))), "wanted__gpu": "h100_pcie"},
     {"gpu.nvlink": "note"}),
    ({"host__shared_memory": SMALL_SHM}, {"host.shm": "warning"}),
    ({"host__shared_memory": None}, {"host.shm": "warning"}),
    ({"host__shared_memory": Space(folder="/dev/shm", total_gib=64.0, free_gib=0.01)}, {"host.shm": "warning"}),
    ({"host__shared_memory": SMALL_SHM, "wanted__gpus": 1, "wanted__deployment": None}, {"host.shm": "note"}),
    ({"host__limits__memlock_bytes": LOW}, {"host.memlock": "note"}),
    ({"host__limits__stack_bytes": Limit(soft=8 << 20, hard=None)}, {"host.stack": "note"}),
    ({"host__limits__open_files": LOW}, {"host.open_files": "warning"}),
    ({"host__limits__processes": LOW}, {"host.processes": "warning"}),
    ({"host__max_processes": 512}, {"host.pids": "warning"}),
    ({"host__memory": HostMemory(total_gib=64.0, available_gib=60.0)}, {"host.memory": "warning"}),
    ({"host__cpus": 4.0}, {"host.cpus": "warning"}),
    ({"host__container": "kubernetes"}, {"host.container": "note"}),
    ({"weights__checkpoint__missing": ("a.safetensors",)}, {"checkpoint.files": "note"}),
    ({"weights__checkpoint": None}, {"checkpoint.files": "note"}),
    ({"weights__checkpoint": None, "weights__hub": OFFLINE}, {"checkpoint.files": "miss"}),
    ({"weights__checkpoint": None, "weights__hub_client": None},
     {"checkpoint.files": "note", "checkpoint.client": "warning"}),
    ({"weights__checkpoint": None, "weights__hub": NO_TOKEN},
     {"checkpoint.files": "note", "checkpoint.access": "note"}),
    ({"weights__checkpoint": None, "weights__hub": NO_TOKEN, "wanted__model": "meta-llama/Llama-3.1-8B"},
     {"checkpoint.files": "note", "checkpoint.access": "warning"}),
    ({"weights__checkpoint": None, "weights__cache_space": Space(folder="/c", total_gib=100.0, free_gib=60.0)},
     {"checkpoint.files": "note", "checkpoint.disk": "miss"}),
    ({"weights__checkpoint": None, "weights__cache_space": Space(folder="/c", total_gib=100.0, free_gib=68.0)},
     {"checkpoint.files": "note", "checkpoint.disk": "warning"}),
    ({"weights__is_folder": True, "weights__checkpoint__missing": ("a", "b", "c", "d")}, {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint__pointers": ("a",)}, {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint__damaged": ("a",)}, {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint__n_weight_files": 0}, {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint__trouble": "Not JSON."}, {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint__has_tokenizer": False}, {"checkpoint.tokenizer": "warning"}),
    ({"weights__is_folder": True, "weights__checkpoint__share_with_text": 0.12}, {"checkpoint.tokenizer": "warning"}),
    ({"weights__is_folder": True, "weights__checkpoint__share_with_text": 0.995}, {}),
    ({"weights__is_folder": True, "weights__checkpoint__n_weight_files": 0, "weights__checkpoint__engine_files": 4},
     {"checkpoint.files": "miss"}),
    ({"weights__is_folder": True, "weights__checkpoint": None}, {"checkpoint.files": "miss"}),
    ({"weights__is_hub_name": False, "weights__checkpoint": None}, {"checkpoint.files": "miss"}),
    ({"weights__knows_architecture": False}, {"checkpoint.architecture": "warning"}),
    ({"wanted__quantization": "bf16"}, {"checkpoint.quantization": "warning"}),
    ({"weights__checkpoint__quantization": None}, {"checkpoint.quantization": "warning"}),
    ({"weights__fit__n_serving": 0}, {"checkpoint.fit": "miss"}),
    ({"weights__fit": None, "wanted__deployment": None, "wanted__unresolved": "No such model."},
     {"checkpoint.fit": "miss"}),
    ({"wanted__container_image": IMAGE, "engine__runtimes": (DOCKER,)}, {}),
    ({"wanted__container_image": "mine:latest", "engine__runtimes": (DOCKER,)}, {"engine.version": "warning"}),
    ({"wanted__container_image": IMAGE, "engine__runtimes": ()}, {"engine.runtime": "miss"}),
    ({"wanted__container_image": IMAGE, "engine__runtimes": (docker("away"), DOCKER)}, {"engine.runtime": "miss"}),
    *(
        ({"wanted__container_image": IMAGE, "engine__runtimes": (found,)}, {"engine.runtime": "miss"})
        for found in (docker("silent"), docker("denied"), docker("away"), docker("other"), docker(None, False))
    ),
    (
        {
            "wanted__container_image": IMAGE,
            "engine__runtimes": (ContainerRuntime(name="podman", command="/p", gpus=True, has_image=False),),
        },
        {"engine.image": "miss"},
    ),
    ({"unread": {"host": "no answer within 20 s"}}, {"host.unread": "warning"}),
    ({"unread": {"checkpoint": "no answer within 20 s"}}, {"checkpoint.unread": "miss"}),
]  # fmt: skip


def judged(facts: Facts) -> list[Finding]:
    return list(judge(facts))


def test_on_a_machine_where_all_is_well_nothing_is_to_do() -> None:
    found = judged(WELL)
    assert {each.level for each in found} == {"ok"}
    assert {each.area for each in found} == set(AREAS)


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=lambda value: "-".join(value) if value else "nothing")
def test_what_is_wrong_is_named(changes: dict[str, Any], expected: dict[str, str]) -> None:
    found = judged(spoiled(WELL, **changes))
    assert {each.id: each.level for each in found if each.level != "ok"} == expected


OF_TRTLLM = ("/trt/", "tensorrt", "engine_files")
COMMON = [changes for changes, _ in CASES if not any(each in str(changes) for each in OF_TRTLLM)]


@pytest.mark.parametrize("changes", COMMON, ids=lambda value: "-".join(value) or "nothing")
def test_who_runs_vllm_is_told_nothing_of_another_engine(changes: dict[str, Any]) -> None:
    for each in judged(spoiled(ON_VLLM, **changes)):
        told = each.model_dump_json().lower()
        assert "tensorrt" not in told, each
        assert "trtllm" not in told, each


def test_vllm_needs_neither_mpi_nor_a_toolkit() -> None:
    assert {each.level for each in judged(ON_VLLM)} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"engine__installation__version": "0.32.0"}, "ok"),
        ({"engine__installation__version": "7.0.0"}, "warning"),
        ({"engine__installation__version": "odd"}, "miss"),
        ({"engine__installation__version": None, "engine__packages": None}, "warning"),
        ({"wanted__engine_version": "0.32.0"}, "miss"),
    ],
)
def test_releases_of_vllm_are_judged_by_its_own(changes: dict[str, Any], level: str) -> None:
    found = next(each for each in judged(spoiled(ON_VLLM, **changes)) if each.id == "engine.version")
    assert found.level == level, found


def test_ways_to_get_vllm() -> None:
    facts = spoiled(ON_VLLM, engine__installation=None, engine__packages=None)
    said = commands(next(each for each in judged(facts) if each.id == "engine.serve"))
    assert "vllm/vllm-openai:v0.24.0" in said
    assert "vllm==0.24.0" in said


def test_on_processors_no_gpu_is_missed() -> None:
    facts = spoiled(ON_VLLM, wanted__gpu="cpu", wanted__capability=None, gpus=no_gpus())
    assert {each.level for each in judged(facts)} == {"ok"}


@given(chosen=st.lists(st.sampled_from(CASES), max_size=4))
def test_whatever_is_wrong_together_each_finding_can_be_acted_on(
    chosen: list[tuple[dict[str, Any], dict[str, str]]],
) -> None:
    facts = WELL
    for changes, _ in chosen:
        try:
            facts = spoiled(facts, **changes)
        except AssertionError:  # a change inside something that an earlier one took away
            continue
    found = judged(facts)
    for each in found:
        assert each.area in AREAS
        if each.level in ("warning", "miss"):
            assert each.why, each
            assert each.ways, each
        assert each.what.endswith(".")
    report = EnvReport(launchable=True, findings=tuple(found), facts=facts)
    assert EnvReport.model_validate_json(report.model_dump_json()) == report


# -- words that matter -----------------------------------------------------------------------------------------------


def finding(id_: str, **changes: Any) -> Finding:
    return next(each for each in judged(spoiled(WELL, **changes)) if each.id == id_)


def commands(found: Finding) -> str:
    return "\n".join(command for way in found.ways for command in way.commands)


def nothing_installed(**changes: Any) -> str:
    return commands(finding("engine.serve", engine__installation=None, engine__packages=None, **changes))


def test_the_ways_to_get_the_engine_are_for_the_gpu_and_the_release_at_hand() -> None:
    said = nothing_installed(engine__runtimes=(DOCKER,))
    assert '--cuda_architectures "90-real"' in said
    assert "git checkout v1.2.0" in said
    assert "tensorrt_llm==1.2.0" in said
    assert "--ulimit memlock=-1 --ulimit stack=67108864" in said
    assert f"advisor check-env --container-image {IMAGE}" in said
    b200 = tuple(gpu(index, name="NVIDIA B200", key="b200_sxm", compute_capability=(10, 0)) for index in range(4))
    assert '"100-real"' in nothing_installed(gpus=gpus(*b200))
    assert '"89-real;90-real"' in nothing_installed(gpus=gpus(gpu(0, compute_capability=(8, 9)), gpu(1)))


def test_without_a_gpu_the_one_that_was_named_counts() -> None:
    assert '"100-real"' in nothing_installed(gpus=no_gpus(), wanted__capability=(10, 0))
    found = finding("engine.serve", engine__installation=None, gpus=no_gpus())
    assert "name yours with --gpu" in found.ways[-1].what


def test_the_containers_are_given_the_cache_and_the_checkpoint() -> None:
    said = nothing_installed(
        engine__runtimes=(ContainerRuntime(name="podman", command="/p", gpus=True),),
        weights__is_folder=True,
        wanted__model="/data/my model",
        weights__hub=HubAccess(cache="/data/hf/hub", offline=False, token_from=None),
    )
    assert said.startswith("podman run")
    assert "--device nvidia.com/gpu=all" in said
    assert "-v /data/hf:/root/.cache/huggingface " in said
    assert "-v '/data/my model:/data/my model:ro'" in said


def test_on_a_cluster_job_steps_are_offered() -> None:
    assert "--ntasks-per-node=4 --mpi=pmix" in nothing_installed(engine__has_srun=True)
    assert "srun" not in nothing_installed()


def test_who_holds_memory_is_named_and_free_gpus_are_offered() -> None:
    found = finding("gpu.memory", gpus=gpus(busy(0, 20.0, pid=4711), *EIGHT[1:8]))
    assert "python3 (pid 4711, 20.0 GiB)" in found.what
    assert "export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,2,3,4" in commands(found)
    assert "4711" in commands(found)
    crowded = finding("gpu.memory", gpus=gpus(busy(0, 20.0), *EIGHT[1:4]))
    assert "CUDA_VISIBLE_DEVICES" not in commands(crowded)


def test_a_container_that_was_given_fewer_gpus_than_there_are() -> None:
    found = finding("gpu.count", gpus=gpus(*EIGHT[:2]), host__nvidia__pci_gpus=8)
    assert "The machine has 8" in found.ways[0].what
    assert "--tp 2" in found.ways[1].what


def test_without_a_layout_a_crowded_gpu_matters_only_when_none_is_free() -> None:
    bare = {"wanted__gpus": None, "wanted__deployment": None, "wanted__gpu": None}
    assert finding("gpu.memory", gpus=gpus(busy(0, 20.0), *EIGHT[1:4]), **bare).level == "warning"
    assert finding("gpu.memory", gpus=gpus(busy(0, 20.0)), **bare).level == "miss"


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("docker", "--gpus all"),
        ("podman", "--device nvidia.com/gpu=all"),
        ("kubernetes", "nvidia.com/gpu: 4"),
        ("apptainer", "--nv"),
        ("enroot", "NVIDIA_VISIBLE_DEVICES"),
        (None, "sudo ubuntu-drivers install"),
    ],
)
def test_the_way_to_a_gpu_is_that_of_the_container(container: str | None, words: str) -> None:
    found = finding("gpu.driver", gpus=no_gpus(), host__container=container)
    assert words in f"{[way.what for way in found.ways]}{commands(found)}"


def test_a_machine_without_nvidia_hardware_is_not_told_to_install_a_driver() -> None:
    found = finding("gpu.driver", gpus=no_gpus(), host__nvidia__pci_gpus=0)
    assert "ubuntu-drivers" not in commands(found)
    assert "the machine that has the GPUs" in found.ways[0].what


@pytest.mark.parametrize(
    ("quantization", "capability", "fits"),
    [
        ("bf16", (7, 5), False), ("bf16", (8, 0), True), ("fp8", (8, 6), False), ("fp8", (8, 9), True),
        ("fp8_block", (8, 9), False), ("fp8_block", (9, 0), True), ("nvfp4", (9, 0), False), ("nvfp4", (10, 0), True),
        ("nvfp4", (12, 0), True), ("mxfp4", (8, 9), False), ("mxfp4", (9, 0), True),
    ],
)  # fmt: skip
def test_kernels_for_a_precision(quantization: str, capability: tuple[int, int], fits: bool) -> None:
    here = gpus(*(gpu(index, compute_capability=capability) for index in range(4)))
    checkpoint = {"weights__checkpoint__quantization": quantization, "wanted__quantization": quantization}
    assert (finding("gpu.compute", gpus=here, **checkpoint).level == "ok") is fits


def test_what_is_still_to_be_fetched_is_what_is_missing() -> None:
    half = CHECKPOINT.model_copy(update={"missing": ("x",), "weights_gib": 30.0, "total_gib": 70.0})
    found = finding("checkpoint.files", weights__checkpoint=half)
    assert "about 40 GiB" in found.what
    assert "30.0 GiB of it are in the cache" in found.what
    assert "hf download nvidia/Llama-3.3-70B-Instruct-FP8" in commands(found)


def test_versions_as_tags_and_as_cuda() -> None:
    assert [published(each) for each in ("1.2.0", "1.3.0rc24", "1.1.0rc2.post1", "main", "1.4.0.dev0")] == [
        "1.2.0", "1.3.0rc24", "1.1.0rc2.post1", None, None,
    ]  # fmt: skip
    assert [cuda_of_release(each) for each in ("0.17.0", "1.1.0", "1.2.0", "1.3.0rc24", "main")] == [
        None, "12.8", "13.0", "13.0", None,
    ]  # fmt: skip
    assert release_of_image(IMAGE) == "1.2.0"
    assert release_of_image("localhost:5000/trt") is None
    assert architectures([(9, 0), (8, 9), (9, 0)]) == "89-real;90-real"
    assert architectures([]) is None
