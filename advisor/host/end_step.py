"""End what `srun` left in the cluster: run by its path, as a command of `Launch.on_end`, with the name of the launch.

It relies on what Slurm documents: `srun --job-name` names the job that srun makes, or the step when there is a job;
`scancel --name` reaches jobs of that name and no steps; `squeue --steps --name` lists steps by theirs; a signal to a
step is delivered at once. A name that nothing has is no error.
"""

from __future__ import annotations

import subprocess
import sys

ASK_S = 15.0


def main(name: str) -> None:
    """Cancel the jobs and kill the steps of that name."""
    _ask("scancel", f"--name={name}")
    steps = _ask("squeue", "--steps", "--noheader", f"--name={name}", "--format=%i").split()
    if steps:
        _ask("scancel", "--signal=KILL", *steps)


def _ask(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=ASK_S, check=False)
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1])
