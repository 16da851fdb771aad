"""The files that start a server in a container: they run, they agree, and no name breaks them."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.domain.deadlines import Deadlines
from advisor.domain.deployment import Deployment
from advisor.domain.serving_config import ServingConfig
from advisor.domain.strict import changed
from advisor.engines.contained import (
    CACHE_FOLDER,
    PROBE_ARGV,
    PROBE_NAME,
    Contained,
    contained,
    image_for,
    label_of,
)
from advisor.engines.images import image_of
from advisor.engines.spoken import spoken_by
from advisor.host.containers import container_trouble
from advisor.report.deploy_files import deploy_files, not_covered
from tests.report.containers import asked, install
from tests.standin.equipment import MODEL
from tests.standin.fixtures import MakeStandIn
from tests.standin.running import PATIENCE_S, free_port

LLAMA = Deployment(
    model=MODEL, quantization="bf16", gpu="h100_sxm", gpus=1, tp=1, chunked_prefill=True, engine_version="1.1.0"
)
VLLM = changed(LLAMA, engine="vllm", engine_version="0.24.0")
CONFIG = ServingConfig(
    max_batch_size=8, max_num_tokens=2048, cuda_graph_max_batch_size=8, kv_cache_free_gpu_memory_fraction=0.8
)
CONFIG_TEXT = "max_seq_len: 2048\n"
COMMENTS = ("Tuned by advisor: simulated by the twin.",)
HOSTILE = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t\"'`$\\#:-{}[](),&*!|>%@")), min_size=1
).filter(lambda text: "\0" not in text and not text.startswith(("-", "/", "./", "../", "~")))


def server(deployment: Deployment = LLAMA, **changes: Any) -> Contained:
    spoken = spoken_by(deployment)
    image = image_for(spoken, deployment, measured_in=None)
    assert image is not None
    made = contained(
        spoken,
        deployment,
        CONFIG,
        2048,
        image=image,
        purpose="1k1k_c8",
        config_text=CONFIG_TEXT,
        measured=[],
        memory_gib=None,
        deadlines=Deadlines(),
    )
    return changed(made, **changes)


def written(folder: Path, made: Contained) -> Path:
    folder.mkdir()
    for name, text in {**deploy_files(COMMENTS, made), made.config_name: CONFIG_TEXT}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# -- they run --------------------------------------------------------------------------------------------------------


@contextmanager
def running(script: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["bash", str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def probe(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(folder / PROBE_NAME), str(port)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def up(process: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (said := probe(folder, port)).returncode != 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, said.stderr
        time.sleep(0.05)


def health(port: int) -> int:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    link.request("GET", "/health")
    status = link.getresponse().status
    link.close()
    return status


def test_docker_sh_serves_and_only_a_generated_token_satisfies_the_probe(
    make_standin: MakeStandIn, tmp_path: Path
) -> None:
    machine = make_standin(faults=[{"kind": "dead_loop", "after_requests": 1}], start_s=0.2)
    folder = written(tmp_path / "a, 'b' $HOME", server(answer_s=2))
    programs, port = install(tmp_path / "programs"), free_port()
    env = machine.env(PORT=str(port), HF_TOKEN="hf_abcdefghijklmnopqrst", HF_HOME=str(tmp_path / "hf"))
    env |= {"PATH": f"{programs}:{env['PATH']}", "ASKED": str(tmp_path / "asked.json")}
    with running(folder / "docker.sh", env) as process:
        up(process, folder, port)
        assert health(port) == 200
        dead = probe(folder, port)
        assert (dead.returncode, health(port)) == (1, 200)
        assert "no token" in dead.stderr
        assert "Traceback" not in dead.stderr
    noted = asked(tmp_path / "asked.json")
    assert noted["mounts"] == {"/advisor": str(folder), CACHE_FOLDER: str(tmp_path / "hf")}
    assert noted["env"] == {"HF_TOKEN": "hf_abcdefghijklmnopqrst", "HF_HOME": CACHE_FOLDER}
    assert "hf_abcdefghijklmnopqrst" not in " ".join(noted["argv"])
    assert f"127.0.0.1:{port}:8000" in noted["argv"]
    (launch,) = machine.launches()
    assert launch["argv"][-1] == str(port)


def test_serve_sbatch_serves_from_the_folder_it_was_submitted_in(make_standin: MakeStandIn, tmp_path: Path) -> None:
    machine = make_standin(start_s=0.2)
    folder = written(tmp_path / "bundle", server())
    spool = shutil.copy(folder / "serve.sbatch", tmp_path / "slurm_script")  # Slurm runs a copy
    programs, port = install(tmp_path / "programs"), free_port()
    env = machine.env(PORT=str(port), HF_HOME=str(tmp_path / "hf"), SLURM_SUBMIT_DIR=str(folder))
    env |= {"PATH": f"{programs}:{env['PATH']}", "ASKED": str(tmp_path / "asked.json")}
    with running(Path(spool), env) as process:
        up(process, folder, port)
    words = asked(tmp_path / "asked.json")["argv"]
    assert words[:3] == [
        "--mpi=pmix",
        f"--export=ALL,HF_HOME={CACHE_FOLDER}",
        "--container-image=nvcr.io#nvidia/tensorrt-llm/release:1.1.0",
    ]
    astray = subprocess.run(
        ["bash", spool], env={**env, "SLURM_SUBMIT_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert astray.returncode == 2
    assert "submit from the folder of this script" in astray.stderr


@pytest.mark.parametrize("deployment", [LLAMA, VLLM], ids=["trtllm", "vllm"])
def test_a_real_docker_understands_every_option(deployment: Deployment, tmp_path: Path) -> None:
    """It gets as far as looking for its daemon."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker client here")
    folder = written(tmp_path / "bundle, 1", server(deployment))
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///no/such/socket", "HF_HOME": str(tmp_path / "hf")}
    said = subprocess.run(
        ["bash", str(folder / "docker.sh")], env=nowhere, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 125
    assert container_trouble(said.stderr) == "The docker daemon is not running: sudo systemctl start docker."


def test_a_probe_of_nobody_fails_at_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "bundle", server())
    assert probe(folder, free_port()).returncode == 1


# -- they agree ------------------------------------------------------------------------------------------------------


def interpolated(text: str, env: dict[str, str]) -> str:
    """As compose replaces: `$$`, `${NAME}` and `${NAME:-otherwise}`, which may hold another."""
    if "$" not in text:
        return text
    before, _, rest = text.partition("$")
    if rest.startswith("$"):
        return before + "$" + interpolated(rest[1:], env)
    found = re.match(r"\{(\w+)(?::-((?:[^{}]|\{[^{}]*\})*))?\}", rest)
    assert found, f"compose would refuse {text!r}"
    value = env.get(found[1]) or interpolated(found[2] or "", env)
    return before + value + interpolated(rest[found.end() :], env)


def manifests(made: Contained) -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all(deploy_files(COMMENTS, made)["kubernetes.yaml"])
    return {document["kind"]: document for document in documents}


def compose_service(made: Contained) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(deploy_files(COMMENTS, made)["compose.yaml"])["services"]["server"]
    return service


def commands(made: Contained) -> list[list[str]]:
    """What compose and Kubernetes run, with what they replace in it replaced."""
    service, (pod,) = compose_service(made), manifests(made)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert service.get("entrypoint") == pod.get("command")
    entrypoint = service.get("entrypoint") or []
    return [
        [*entrypoint, *(interpolated(word, {}) for word in service["command"])],
        [*entrypoint, *(word.replace("$$", "$") for word in pod["args"])],
    ]


@settings(max_examples=30)  # each asks bash four times
@given(model=HOSTILE)
def test_any_model_name_reaches_the_server_as_it_is(model: str) -> None:
    for deployment in (LLAMA, VLLM):
        made = server(changed(deployment, model=model))
        assert commands(made) == [list(made.argv)] * 2
        for name, text in deploy_files(COMMENTS, made).items():
            assert Path(name).name == name
            if name.endswith((".sh", ".sbatch")):
                assert subprocess.run(["bash", "-n"], input=text.encode(), check=True).returncode == 0


def test_a_hostile_name_runs_nothing(tmp_path: Path) -> None:
    made = server(changed(LLAMA, model="x'; touch hacked; $(touch hacked) `touch hacked` \"; touch hacked"))
    folder = written(tmp_path / "bundle", made)
    programs = install(tmp_path / "programs")
    (programs / "trtllm-serve").write_text("#!/bin/sh\n")
    (programs / "trtllm-serve").chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked.json"),
        "HF_HOME": str(tmp_path / "hf"),
    }
    for name in ("docker.sh", "serve.sbatch"):
        subprocess.run(["bash", str(folder / name)], env=env, cwd=folder, check=True)
        assert made.argv[1] in asked(tmp_path / "asked.json")["argv"]
    assert not list(tmp_path.glob("**/hacked"))


def test_kubernetes_asks_for_gpus_a_token_by_reference_and_generations() -> None:
    made = server()
    found = manifests(made)
    assert list(found) == ["ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"]
    assert found["ConfigMap"]["data"] == {made.config_name: CONFIG_TEXT, PROBE_NAME: made.probe_text}
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    token = next(each for each in container["env"] if each["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["optional"]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[kind]["exec"]["command"] == list(PROBE_ARGV)
        assert container[kind]["timeoutSeconds"] > made.answer_s
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= made.start_s
    shm = next(each for each in pod["spec"]["volumes"] if each["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert set(mounted) == {each["name"] for each in pod["spec"]["volumes"]}
    selector = found["Service"]["spec"]["selector"]
    assert selector == found["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    assert found["Service"]["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container["ports"]]


def test_compose_publishes_on_loopback_and_hands_on_the_name_of_the_token_alone() -> None:
    service = compose_service(server())
    assert interpolated(service["ports"][0], {}) == "127.0.0.1:8000:8000"
    assert service["environment"]["HF_TOKEN"] is None
    assert interpolated(service["volumes"][1]["source"], {"HOME": "/home/a"}) == "/home/a/.cache/huggingface"
    assert interpolated(service["volumes"][1]["source"], {"HOME": "/home/a", "HF_HOME": "/x"}) == "/x"
    assert service["healthcheck"]["test"] == ["CMD", *PROBE_ARGV]


def test_a_checkpoint_folder_is_mounted_where_it_lies_and_nothing_is_downloaded() -> None:
    made = server(changed(LLAMA, model="/models/a, $b"))
    files = deploy_files(COMMENTS, made)
    (pod,) = manifests(made)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert [each["mountPath"] for each in pod["volumeMounts"]][-1] == "/models/a, $b"
    assert "PersistentVolumeClaim" not in manifests(made)
    source = compose_service(made)["volumes"][1]["source"]
    assert interpolated(source, {}) == "/models/a, $b"
    assert not any("HF_HOME" in text for text in files.values())


# -- images and labels -----------------------------------------------------------------------------------------------


def test_images_are_those_of_the_release_or_those_that_were_measured() -> None:
    assert server(VLLM).image.reference == "vllm/vllm-openai:v0.24.0"
    assert server(VLLM).image.entrypoint == ("vllm",)
    between = changed(LLAMA, engine_version="1.1.0+standin")
    assert server(between).image.reference == "nvcr.io/nvidia/tensorrt-llm/release:1.1.0"
    own = image_for(spoken_by(LLAMA), LLAMA, "registry.example:5000/own@sha256:" + "0" * 64)
    assert own is not None
    assert own.reference.startswith("registry.example")
    assert image_of("trtllm", "main") is None
    assert not_covered(None) != ()


def test_what_one_machine_cannot_hold_is_left_to_slurm_or_said() -> None:
    sixteen = {"gpus": 16, "tp": 16}
    files = deploy_files(COMMENTS, server(changed(LLAMA, **sixteen)))
    assert set(files) == {PROBE_NAME, "serve.sbatch"}
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=8\n" in files["serve.sbatch"]
    assert "2 nodes" in not_covered(server(changed(LLAMA, **sixteen)))[0]
    assert set(deploy_files(COMMENTS, server(changed(VLLM, **sixteen)))) == {PROBE_NAME}
    assert "no file here" in not_covered(server(changed(VLLM, **sixteen)))[0]


@given(model=st.text(), purpose=st.text(max_size=60), other=st.text("abc012", min_size=1, max_size=40))
def test_labels_are_names_of_services_and_tell_purposes_apart(model: str, purpose: str, other: str) -> None:
    label = label_of(model, purpose)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
    assert len(label) <= 55
    assert label_of(model, other) != label_of(model, f"{other}9"[-40:]) or len(other) == 40
