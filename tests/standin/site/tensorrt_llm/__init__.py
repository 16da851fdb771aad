"""TEST EQUIPMENT: a stand-in for the package `tensorrt_llm`. It is no part of TensorRT-LLM and computes nothing."""

from importlib.metadata import version

from tests.standin.log import Log

__version__ = version("tensorrt_llm")

Log().version(__version__)
