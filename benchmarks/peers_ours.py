"""Our side of benchmarks/peers.py: a training script as it is, which also logs the CPU seconds of each of its steps.

python benchmarks/peers_ours.py train_sft.py tiny --model DIR --data PAIRS
"""

import runpy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

from run import Run  # noqa: E402

log, ended = Run.log, [0.0]


def log_with_cpu(run: Run, metrics: dict) -> None:
    ended.append(time.process_time())
    log(run, metrics | {"time/cpu": ended[-1] - ended[-2]})


Run.log = log_with_cpu
sys.argv = sys.argv[1:]
runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
