"""TEST EQUIPMENT: `TorchLlmArgs` of the release that is played, built from its published schema."""

from tensorrt_llm import __version__
from tests.standin.releases import released
from tests.standin.schema import llm_args_class

TorchLlmArgs = llm_args_class(released(__version__).key)
LlmArgs = TorchLlmArgs
