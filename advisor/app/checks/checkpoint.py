"""The checkpoint: is it there and whole, what is it made of, would it fit, and how it would be fetched."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from advisor.app.checks.facts import Facts
from advisor.app.checks.finding import Finding, Way, counted, miss, note, ok, warning
from advisor.engines.checkpoint import LEFT_OUT
from advisor.store.checkpoints import Checkpoint, lacks_text
from advisor.store.hub import is_gated

LEAST_SHARE_FREE, SPARE_SHARE_FREE = 0.9, 1.1  # of an estimated download: below it cannot fit, above it will
WITHOUT_TEXT = "Output without text is slow to serve: vLLM decodes the whole prompt again for each of its tokens."
SHOWN = 3  # names of files that are listed one by one
SUPPORTED_MODELS = {
    "trtllm": "https://nvidia.github.io/TensorRT-LLM/models/supported-models.html",
    "vllm": "https://docs.vllm.ai/en/stable/models/supported_models/",
}


def findings(facts: Facts) -> Iterator[Finding]:
    """Everything about the checkpoint; nothing where no model was named."""
    weights, model = facts.weights, facts.wanted.model
    if model is None:
        return
    if weights.is_folder and weights.checkpoint is not None:
        yield from _folder(weights.checkpoint)
    elif weights.is_folder or not weights.is_hub_name:
        why = "The server gets the model by this name."
        way = Way(what="Name a folder that holds a Hugging Face checkpoint, or a model on the hub as OWNER/NAME.")
        yield miss("checkpoint.files", f"There is no folder {model}.", why, way)
        return
    else:
        yield from _hub(facts, model)
    if weights.checkpoint is not None and weights.checkpoint.trouble is None:
        yield from _made_of(facts, weights.checkpoint)
    yield from _fit(facts)


def _folder(found: Checkpoint) -> Iterator[Finding]:
    """A checkpoint folder of one's own."""
    name = shlex.quote(found.folder)
    if found.engine_files and (found.trouble or not found.n_weight_files):
        why = "advisor tunes the PyTorch backend, which loads checkpoints."
        what = f"{found.folder} holds a built TensorRT engine, not a checkpoint."
        yield miss("checkpoint.files", what, why, Way(what="Name the checkpoint that the engine was built from."))
    elif found.pointers:
        what = f"{_names(found.pointers)} in {found.folder}: pointers of git-lfs, not the files."
        way = Way(what="Fetch them:", commands=("git lfs install", f"git -C {name} lfs pull"))
        yield miss("checkpoint.files", what, "The folder was cloned without git-lfs.", way)
    elif found.trouble is not None:
        way = Way(what="Name the folder of a Hugging Face checkpoint, or fetch it again.")
        yield miss("checkpoint.files", found.trouble, "The server reads the model's architecture from it.", way)
    else:
        yield _weights(found)
    way = Way(what="Copy the tokenizer's files from the model's own repository.")
    if found.trouble is None and not found.has_tokenizer:
        why = "The server needs it to read and write text."
        yield warning("checkpoint.tokenizer", f"{found.folder} holds no tokenizer.", why, way)
    elif lacks_text(found.share_with_text):
        what = f"The tokenizer has text for {found.share_with_text:.0%} of the model's token ids."
        yield warning("checkpoint.tokenizer", what, WITHOUT_TEXT, way)


def _weights(found: Checkpoint) -> Finding:
    """Every weight file there and whole, or which are not."""
    if found.complete:
        size = f"{counted(found.n_weight_files, 'weight file')}, {found.weights_gib:.1f} GiB"
        return ok("checkpoint.files", f"{found.folder}: {size}, complete.")
    if found.missing:
        what = (
            f"{len(found.missing)} of {counted(found.n_weight_files, 'weight file')} missing: {_names(found.missing)}."
        )
    elif found.damaged:
        what = f"Weight files cut short: {_names(found.damaged)}."
    else:
        what = f"{found.folder} holds no weights (*.safetensors)."
    return miss(
        "checkpoint.files", what, "The server stops while it loads them.", Way(what="Copy or download them again.")
    )


def _hub(facts: Facts, model: str) -> Iterator[Finding]:
    """A model by its name on the hub: in the cache, or still to be fetched."""
    weights, found = facts.weights, facts.weights.checkpoint
    if found is not None and found.complete:
        yield _weights(found)
        return
    client = weights.hub_client or "hf"
    there = f" {found.weights_gib:.1f} GiB of it are in the cache." if found is not None and found.weights_gib else ""
    size = "" if weights.to_fetch_gib is None else f", about {weights.to_fetch_gib:.0f} GiB"
    fetch = Way(
        what="Fetch it now:", commands=(f"{client} download {shlex.quote(model)} --exclude {shlex.quote(LEFT_OUT)}",)
    )
    if weights.hub.offline:
        why = "HF_HUB_OFFLINE is set, so nothing is fetched."
        way = Way(what="Fetch it with the network on:", commands=("unset HF_HUB_OFFLINE", *fetch.commands))
        yield miss("checkpoint.files", f"{model} is not whole in {weights.hub.cache}.{there}", why, way)
        return
    yield note("checkpoint.files", f"{model} will be fetched before the first launch{size}.{there}", None, fetch)
    if weights.hub_client is None:
        yield warning(
            "checkpoint.client",
            "Neither hf nor huggingface-cli is on the PATH.",
            "advisor fetches with it before the first launch; without it the server fetches, inside its deadline.",
            Way(what="Install it:", commands=("pip3 install --upgrade huggingface_hub",)),
        )
    yield from _access(facts, model)
    yield from _disk(facts)


def _access(facts: Facts, model: str) -> Iterator[Finding]:
    token = facts.weights.hub.token_from
    login = "huggingface-cli login" if facts.weights.hub_client == "huggingface-cli" else "hf auth login"
    if token is not None:
        yield ok("checkpoint.access", f"A Hugging Face token is in {token}.")
    elif is_gated(model):
        yield warning(
            "checkpoint.access",
            f"{model} is gated, and there is no Hugging Face token here.",
            "The download is refused (401) until the licence is accepted and a token says who asks.",
            Way(what=f"Accept the licence at https://huggingface.co/{model}, then log in:", commands=(login,)),
        )
    else:
        why = "Models whose licence has to be accepted need one; whether this is one of them only the hub knows."
        yield note("checkpoint.access", "There is no Hugging Face token here.", why)


def _disk(facts: Facts) -> Iterator[Finding]:
    space, needed_gib = facts.weights.cache_space, facts.weights.to_fetch_gib
    if space is None or needed_gib is None:
        return
    what = f"{space.free_gib:.0f} GiB are free for {space.folder}"
    if space.free_gib >= SPARE_SHARE_FREE * needed_gib:
        yield ok("checkpoint.disk", f"{what}, about {needed_gib:.0f} GiB are needed.")
        return
    say = miss if space.free_gib < LEAST_SHARE_FREE * needed_gib else warning
    why = "The download would end with a full disk."
    way = Way(
        what="Free some, or keep the cache on a larger disk:", commands=("export HF_HOME=/path/on/a/larger/disk",)
    )
    yield say("checkpoint.disk", f"{what}, and about {needed_gib:.0f} GiB are still to be fetched.", why, way)


def _made_of(facts: Facts, found: Checkpoint) -> Iterator[Finding]:
    """Architecture, precision and KV type as the checkpoint declares them."""
    wanted = facts.wanted.quantization
    if facts.weights.knows_architecture:
        yield ok("checkpoint.architecture", f"{found.architecture}, which advisor knows.")
    else:
        yield warning(
            "checkpoint.architecture",
            f"The architecture {found.architecture or '(none in config.json)'} is not among those that advisor knows.",
            f"{facts.wanted.title} may refuse it, and predictions for it are guesses.",
            Way(what=f"Look for it in the release's list: {SUPPORTED_MODELS[facts.wanted.engine]}"),
        )
    declared = found.declared_quantization or "none, so bf16"
    if found.quantization is None:
        yield warning(
            "checkpoint.quantization",
            f"The checkpoint's quantization, {declared}, is none that advisor knows.",
            f"Its memory and speed cannot be predicted; {facts.wanted.title} may refuse it.",
            Way(what="Take a checkpoint in bf16, FP8, NVFP4 or MXFP4."),
        )
    elif wanted is not None and wanted != found.quantization:
        yield warning(
            "checkpoint.quantization",
            f"The checkpoint is {found.quantization} (declared: {declared}), but {wanted} is assumed.",
            "The server follows the checkpoint; predictions and step times would be those of something else.",
            Way(what=f"Add --quant {found.quantization}."),
        )
    else:
        yield ok("checkpoint.quantization", f"{found.quantization} (declared: {declared}).")
    if found.kv_cache_dtype is not None:
        yield ok(
            "checkpoint.kv_cache", f"It declares a KV cache in {found.kv_cache_dtype}; kv_cache_dtype auto follows."
        )


def _fit(facts: Facts) -> Iterator[Finding]:
    """Whether any configuration of the search space would fit at all."""
    fit, wanted = facts.weights.fit, facts.wanted
    found = facts.weights.checkpoint
    if wanted.unresolved is not None and (found is None or found.trouble is None):
        why = "Without a model, a GPU and a layout that advisor knows, it can predict nothing."
        way = Way(what="Say what is missing: --model, --gpu, --tp, --quant, or a whole study with --study.")
        yield miss("checkpoint.fit", wanted.unresolved, why, way)
    if fit is None or wanted.deployment is None:
        return
    place = f"{wanted.deployment.gpus} x {wanted.deployment.gpu}"
    share = f"{fit.weights_gib:.1f} of {fit.capacity_gib:.0f} GiB per GPU are weights on {place}"
    if fit.n_serving:
        what = f"{share}; {fit.n_serving:,} of {fit.n_configs:,} configurations would fit, by the memory law."
        yield ok("checkpoint.fit", what)
    else:
        yield miss(
            "checkpoint.fit",
            f"{share}; no configuration would fit, by the memory law.",
            fit.why_not or "GPU memory does not suffice.",
            Way(what="Take more GPUs (--tp), a smaller precision, or a shorter workload."),
        )


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
