"""A study that is killed with SIGKILL at chosen moments: `python -m tests.store.crash_worker RUN N_TRIALS KILL_AT...`.

Each number is one life of the study: it ends right before that durable operation (fsync or rename). The last life runs
to the end. Prints one JSON list: for every life, the trials launched in it and those committed before it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from advisor.domain.ports import Proposal
from advisor.store.stock_samplers import make_proposer
from advisor.store.trial_folder import TrialFolder, committed
from tests.store.servers import BASELINE, SLO, SPACE, launch, open_ledger, value_of


def live(run: Path, n_trials: int, launched: int) -> None:
    """One life: go on from whatever is there."""
    with open_ledger(run) as ledger:
        while len(ledger.records()) < n_trials:
            if not ledger.records():
                asked = ledger.ask("baseline", Proposal(config=BASELINE, origin="baseline test"))
            else:
                asked = ledger.ask("search")
            os.write(launched, f"{asked.number}\n".encode())
            folder = ledger.folder(asked.number)
            folder.write_launch(["serve", str(asked.number)], "max_batch_size: 1\n", "config.yml")
            folder.write_samples("4k1k_c256", {"ttft_ms": [1.0, 2.0]})
            ledger.commit(launch(asked))


def die_before_operation(number: int) -> None:
    """Count fsyncs and renames, and end this process, as a power switch would, before the given one."""
    left = [number]

    def counted(operation: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **options)

        return run

    os.fsync = counted(os.fsync)
    os.replace = counted(os.replace)
    os.rename = counted(os.rename)


def main(run: Path, n_trials: int, kill_at: list[int]) -> None:
    make_proposer("tpe", SPACE, SLO, value_of).propose([], 0)  # loads Optuna once, not in every life
    lives = []
    for number in [*kill_at, 0]:
        before = [record.number for record in committed(run)] if run.exists() else []
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            if number:
                die_before_operation(number)
            live(run, n_trials, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as launched:
            numbers = [int(line) for line in launched]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lives.append({"before": before, "launched": numbers, "status": status})
        uncommitted = [n for n in numbers if n not in before and not TrialFolder(run, n).is_committed]
        assert len(uncommitted) <= 1
    json.dump(lives, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(number) for number in sys.argv[3:]])
