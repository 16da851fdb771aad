"""What runs inside the interpreter that has tensorrt_llm, and answers the questions of `upstream.py`.

It is handed over as text, so that this folder does not stand on the module path, and imports nothing of advisor. One
line of JSON a question (`argv`, `document`) and an answer; the first answer, unasked, tells the version or why not. It
ends when its input does.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

CONFIG_FLAGS = ("--extra_llm_api_options", "--config")
EFFECTIVE = (
    "max_batch_size",
    "max_num_tokens",
    "max_seq_len",
    "tensor_parallel_size",
    "enable_attention_dp",
    "enable_chunked_prefill",
    "cuda_graph_config.max_batch_size",
    "kv_cache_config.free_gpu_memory_fraction",
)
NO_GPU = "No GPU devices found on the node"


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the import prints
    try:
        package = importlib.import_module("tensorrt_llm")
        llm_args = importlib.import_module("tensorrt_llm.llmapi.llm_args")
        model = getattr(llm_args, "TorchLlmArgs", None) or llm_args.LlmArgs
    except BaseException as error:  # noqa: BLE001 - an import may also want to end the process
        _say(answers, {"reason": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"version": str(package.__version__)})
    for line in sys.stdin:
        question = json.loads(line)
        _say(answers, judged(model, question["argv"], question["document"]))


def judged(model: Any, argv: list[str], document: dict[str, Any]) -> dict[str, Any]:
    """What upstream's own code makes of a command line and the file that it names; of the file alone without one."""
    through = "class"
    try:
        arguments: dict[str, Any] = {"model": "model", **document}
        merged = merged_by_serve(argv, document) if argv else None
        if merged is not None:
            through, arguments = "command_line", merged
        if "build_config" not in model.model_fields:
            arguments.pop("build_config", None)  # as trtllm-serve does
        built = getattr(model, "from_kwargs", model)(**arguments)
        return {"through": through, "errors": [], "effective": effective(built)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever upstream raises is its verdict
        return {"through": through, "errors": messages(error), "effective": {}}


def merged_by_serve(argv: list[str], document: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments with which `trtllm-serve` would start its engine; None where they cannot be had without a GPU."""
    try:
        serve: Any = importlib.import_module("tensorrt_llm.commands.serve")
        yaml = importlib.import_module("yaml")
        command, launch = serve.serve, serve.launch_server
    except (ImportError, AttributeError):
        return None
    captured: list[dict[str, Any]] = []

    def capture(host: str, port: int, llm_args: dict[str, Any], *_: Any, **__: Any) -> None:
        captured.append(dict(llm_args))

    serve.launch_server = capture
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "config.yml")
            path.write_text(yaml.safe_dump(document), encoding="utf-8")
            words = with_config(argv, str(path))
            sys.argv = ["trtllm-serve", *words]
            command.main(words, standalone_mode=False)
    except ValueError as error:
        if NO_GPU not in str(error):
            raise
    finally:
        serve.launch_server = launch
    return captured[0] if captured else None


def with_config(argv: list[str], path: str) -> list[str]:
    """The words behind the program's name (and `serve`), with this file as the configuration."""
    words = argv[2:] if argv[1:2] == ["serve"] else argv[1:]
    for flag in CONFIG_FLAGS:
        if flag in words:
            place = words.index(flag) + 1
            return [*words[:place], path, *words[place + 1 :]]
    return [*words, CONFIG_FLAGS[0], path]


def effective(built: Any) -> dict[str, Any]:
    """The settings that the engine would start with, as far as they are plain."""
    found = {}
    for path in EFFECTIVE:
        value = built
        for name in path.split("."):
            value = getattr(value, name, None)
        if isinstance(value, (bool, int, float, str)):
            found[path] = value
    return found


def messages(error: BaseException) -> list[str]:
    """A refusal in words: each mistake of pydantic, click's own sentence, or the text of anything else."""
    listed = getattr(error, "errors", None)
    if callable(listed):
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in listed()]
    sentence = getattr(error, "format_message", None)
    return [str(sentence()) if callable(sentence) else f"{type(error).__name__}: {error}"]


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
