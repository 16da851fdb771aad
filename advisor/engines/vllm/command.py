"""The `--config` file and the command line of one vLLM launch, as text-free values.

Everything that matters stands in the file; the command line says the model, the file and the address.
"""

from __future__ import annotations

from advisor.domain.deployment import Deployment
from advisor.domain.errors import BadInput
from advisor.domain.serving_config import ServingConfig
from advisor.engines.vllm.releases import Release, check_option
from advisor.engines.words import YamlEntry, YamlValue, flag_words, model_argument

FLAGS = {"config_path": "--config", "host": "--host", "port": "--port"}
ACCESS_LOG = "disable-uvicorn-access-log"


def to_argv(deployment: Deployment, *, host: str, port: int | str, config_path: str) -> tuple[str, ...]:
    """`vllm serve`, with everything but the address in its file.

    Raises:
        BadInput: a model name that would be read as a flag.
    """
    typed = {FLAGS["config_path"]: config_path, FLAGS["host"]: host, FLAGS["port"]: port}
    return ("vllm", "serve", model_argument(deployment), *flag_words(typed))


def to_yaml(row: Release, deployment: Deployment, config: ServingConfig, max_seq_len: int) -> tuple[YamlEntry, ...]:
    """Every entry of the `--config` file: fixed options and settings, in a stable order.

    Raises:
        BadInput: what the release cannot express.
    """
    deployed = deployment.with_options(config.options)
    refused = not_in_release(row, deployed)
    if refused:
        raise BadInput(" ".join(refused))
    values: dict[str, YamlValue] = {
        "max_seq_len": max_seq_len,
        "max_batch_size": config.max_batch_size,
        "max_num_tokens": config.max_num_tokens,
        "tp": 1 if deployed.attention_dp else deployed.tp,
        "pp": deployed.pp,
    }
    if deployed.attention_dp:
        values["dp"] = deployed.tp
    if deployed.ep > 1:
        values["ep"] = True
    values |= {"enable_chunked_prefill": deployed.chunked_prefill, "stream_interval": deployed.stream_interval}
    entries = [_entry(row, name, value) for name, value in values.items()]
    entries.append(_graphs(row, config.cuda_graph_max_batch_size))
    entries.append(
        _entry(row, "kv_cache_free_gpu_memory_fraction", config.kv_cache_free_gpu_memory_fraction, "of the whole GPU")
    )
    entries.append(_entry(row, "enable_block_reuse", deployed.block_reuse))
    if deployed.kv_cache_dtype != "auto":
        entries.append(_entry(row, "kv_cache_dtype", row.kv_cache_dtypes[deployed.kv_cache_dtype]))
    if deployed.moe_backend is not None:
        entries.append(_entry(row, "moe_backend", deployed.moe_backend))
    if not deployed.overlap_scheduler:
        entries.append(_entry(row, "overlap_scheduler", False))
    if deployed.trust_remote_code:
        entries.append(_entry(row, "trust_remote_code", True))
    note = "a line per request costs the one process that serves HTTP its time; advisor measures without them"
    entries.append(YamlEntry(name=ACCESS_LOG, path=(ACCESS_LOG,), value=True, note=note))
    for name, value in further_options(row, deployed).items():
        entries.append(_written(name, name.replace("_", "-"), value))
    return tuple(entries)


def to_environment(row: Release, deployment: Deployment, config: ServingConfig) -> dict[str, str]:
    """Options of a configuration that are environment variables."""
    asked = deployment.with_options(config.options).engine_options
    return {name: str(value) for name, value in asked.items() if name.startswith("VLLM_")}


def further_options(row: Release, deployed: Deployment) -> dict[str, YamlValue]:
    """Options of the deployment, as the trial runs it, that stand in the file under their own names.

    Raises:
        BadInput: an option that the release does not have.
    """
    for name, value in deployed.engine_options.items():
        check_option(row, name, value)
    return {name: value for name, value in deployed.engine_options.items() if not name.startswith("VLLM_")}


def not_in_release(row: Release, deployed: Deployment) -> tuple[str, ...]:
    """What a deployment asks for and vLLM has no word for, each with the way out."""
    found = []
    if not deployed.graph_padding:
        found.append("vLLM always pads batches to the next CUDA graph: set graph_padding to true.")
    if deployed.ep not in (1, deployed.tp):
        found.append(
            f"vLLM spreads experts over all ranks or none, not over {deployed.ep} of {deployed.tp}: set ep to 1 or "
            f"{deployed.tp}."
        )
    if deployed.kv_cache_dtype not in row.kv_cache_dtypes:
        found.append(f"vLLM {row.release} keeps no {deployed.kv_cache_dtype} KV cache: use auto.")
    return tuple(found)


def _entry(row: Release, name: str, value: YamlValue, note: str | None = None) -> YamlEntry:
    return _written(name, row.keys[name], value, note)


def _written(name: str, key: str, value: YamlValue, note: str | None = None) -> YamlEntry:
    """An entry that every release understands: `key: false` is dropped by some, `no-key: true` by none."""
    if value is False:
        return YamlEntry(name=name, path=(f"no-{key}",), value=True, note=note)
    return YamlEntry(name=name, path=(key,), value=value, note=note)


def _graphs(row: Release, largest: int) -> YamlEntry:
    if largest:
        return _entry(row, "cuda_graph_max_batch_size", largest)
    return YamlEntry(
        name="cuda_graph_max_batch_size", path=("enforce-eager",), value=True, note="neither CUDA graphs nor compiling"
    )
