"""TEST EQUIPMENT: upstream's benchmark by its command line and its results."""

import sys

from tensorrt_llm import __version__
from tests.standin.benchmark import main
from tests.standin.releases import released

if __version__.startswith("0."):
    raise ModuleNotFoundError("No module named 'tensorrt_llm.serve.scripts.benchmark_serving'")
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], has_new_rows=released(__version__).tells_decoding))
