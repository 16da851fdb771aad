"""What a question leaves open is taken from where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.app.setup import Question, resolve
from advisor.domain.errors import BadInput
from tests.store.checkpoint_folders import LLAMA_8B, MODELOPT_FP8, checkpoint


@pytest.mark.parametrize(
    ("folder", "quantization", "expected"),
    [
        ("mine", MODELOPT_FP8, "fp8"),
        ("mine", {"quantization": {"quant_algo": "NVFP4"}}, "nvfp4"),
        ("mine", None, "bf16"),
        ("called-FP8-and-is-not", None, "bf16"),
    ],
)
def test_a_checkpoint_folder_knows_its_quantization_better_than_its_name(
    tmp_path: Path, folder: str, quantization: dict[str, Any] | None, expected: str
) -> None:
    model = str(checkpoint(tmp_path / folder, quantization=quantization))
    assert resolve(Question(model=model, gpu="b200_sxm")).deployment.quantization == expected
    said = resolve(Question(model=model, gpu="b200_sxm", quant="mxfp4"))
    assert said.deployment.quantization == "mxfp4"


def test_a_quantization_without_kernel_times_is_named_and_another_may_be_said(tmp_path: Path) -> None:
    model = str(checkpoint(tmp_path / "awq", config=LLAMA_8B | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(BadInput, match=r"awq is quantized with AWQ, .*nearest with --quant, one of bf16, fp8,"):
        resolve(Question(model=model, gpu="h100_sxm"))
    assert resolve(Question(model=model, gpu="h100_sxm", quant="nvfp4")).deployment.quantization == "nvfp4"
