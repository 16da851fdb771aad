"""`make soak`: a hundred studies of the stand-in in a row, each under random kills of server, advisor and guardian.

A round that ends badly stops the soak and leaves its folder. What counts as well is in `tests/end_to_end/soak.py`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end.soak import play


def main() -> int:
    """Play the rounds; 0 when every one of them ended well."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=100)
    asked.add_argument("--seed", type=int, default=1, help="of the first round; the next one has the next")
    asked.add_argument("--kills", type=int, default=3, help="at most, in one study")
    said = asked.parse_args()
    began_s, n_kills = time.monotonic(), 0
    for seed in range(said.seed, said.seed + said.rounds):
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{seed}-"))
        try:
            story = play(folder, random.Random(seed), said.kills)
        except AssertionError as error:
            print(f"seed {seed} ended badly in {folder}: {error}", flush=True)
            return 1
        shutil.rmtree(folder)
        n_kills += len(story)
        print(f"seed {seed}: {', '.join(story) or 'ended before the first kill'}", flush=True)
    print(f"{said.rounds} studies in a row ended well under {n_kills} kills, {time.monotonic() - began_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
