"""Beside what one would use otherwise: TRL's GRPOTrainer and SFTTrainer, on the same model, data, reward and settings.

    make benchmark-peers                                      # lays TRL aside, then all of it; some 15 minutes
    python benchmarks/peers.py --cells "sft short" --rounds 5

Both train in processes of their own, in turns: ours, TRL's, ours .. A figure is the median over the steps of all
rounds; the first step of each process, which compiles and warms up, is left out. Ours are the two scripts as they are,
by their own metrics.jsonl (peers_ours.py); TRL's are in peers_trl.py, with `generate` in-process (vLLM needs a GPU) and
teach/trl_reward.py.

    generate   sampling; ours draws meanwhile             judge   what is waited for until all is drawn and scored
    update     forward, backward and the optimizer        rest    encoding pictures and prompts, logging

Before that the same answers and pairs are given to the losses of both: how far are loss and gradient apart?
Memory is the greatest resident set of the training process, CPU seconds are those of its threads; the renderer's
workers are other processes. Beside other work `--threads 1` and the CPU seconds say most: threads that wait for one
another at every operation then wait for others as well.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
import tyro

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"
MODELS = {"short": (64 * 64, 120), "long": (256 * 256, 60)}  # pixels: prompts of some 34 and 274 tokens; steps of SFT
PHASES = ("generate", "judge", "update", "rest")
SYNTH = ("--difficulty", "0.15", "--svg-side", "64")
SFT = ("tiny", "--optimizer", "adamw", "--lr", "1e-4", "--warmup", "0", "--refine", "0")
VIRL = ("tiny", "--lr", "1e-4", "--warmup", "0", "--freeze", "nothing", "--prompts", "8", "--group", "8")


@dataclass
class Cell:
    """What is compared: a stage, a model, pairs or a pool, the longest answer, and the answers that TRL trains at
    a time."""

    stage: str
    model: str
    data: str
    new_tokens: int = 0
    batch: int = 24


CELLS = {
    "virl short": Cell("virl", "short", "svg-pool", 160, 64),
    "virl short, charts too": Cell("virl", "short", "mixed-pool", 160, 64),
    "virl long": Cell("virl", "long", "svg-pool", 160, 32),
    "sft short": Cell("sft", "short", "mixed-pairs"),
    "sft long": Cell("sft", "long", "mixed-pairs"),
}


@dataclass
class Config:
    """Compare, print a table, write the figures."""

    cells: tuple[str, ...] = tuple(CELLS)
    """Which of them."""
    rounds: int = 3
    """Turns of each side."""
    steps: int = 6
    """Steps of a turn; SFT takes twice as many. The first is left out."""
    threads: int | None = None
    """Threads of torch; as many as there are cores if not given."""
    work: Path = ROOT / "runs" / "peers"
    """Folder of the models and the data, which are made once, and of the runs."""
    out: Path = ROOT / "results" / "peers.json"
    """Where the figures go."""


def python(*command, log: Path, threads: int | None = None) -> float:
    """Run one of our scripts -> the MiB of memory that it had at most. Raises RuntimeError where it fails."""
    with log.open("w") as said:
        command = [sys.executable, *map(str, command)]
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[1]} ended with {process.returncode}; {log} says why.")
    return usage.ru_maxrss / 1024


def prepare(work: Path) -> None:
    """Pairs, pools without programs, and a model that has learnt to write such programs, as two folders: the second
    one sees its pictures with 16 times as many tokens."""
    if (work / "ready").exists():
        return
    print("making the data and the models ..", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    made = work / "made.log"
    python("tiny.py", work / "untrained", log=made)
    for name, seed, count, domains in (
        ("mixed-pairs", 1, 3000, ("svg", "chart")),
        ("mixed-pool", 2, 64, ("svg", "chart")),
        ("svg-pool", 3, 64, ("svg",)),
    ):
        path = work / f"{name}.parquet"
        more = "--seed", seed, "--count", count, "--domains", *domains
        python("synth.py", "--out", path, *more, *SYNTH, log=made)
        if name.endswith("pool"):  # ViRL needs no programs, and TRL's reward gets none
            rows = pyarrow.parquet.read_table(path).drop_columns(["assistant_content"])
            pyarrow.parquet.write_table(rows.rename_columns({"user_content": "problem"}), path)
    before = work / "untrained"
    for name, (pixels, steps) in MODELS.items():  # the second goes on from the first
        start = work / f"{name}-before"
        shutil.copytree(before, start)
        settings = start / "preprocessor_config.json"
        size = {"size": {"shortest_edge": pixels, "longest_edge": pixels}}
        settings.write_text(json.dumps(json.loads(settings.read_text()) | size))
        where = "--model", start, "--data", work / "mixed-pairs.parquet", "--out", work / f"{name}-sft"
        more = "--steps", steps, "--save-every", steps
        python("train_sft.py", "tiny", *where, *more, log=work / f"{name}-sft.log")
        before = work / name
        shutil.copytree(work / f"{name}-sft" / "checkpoints" / f"step-{steps:06}", before)
    (work / "ready").touch()


def ours(cell: Cell, config: Config, turn: int) -> list[dict]:
    """A row for each step of our script."""
    out, steps = config.work / "ours", config.steps * (1 + (cell.stage == "sft"))
    shutil.rmtree(out, ignore_errors=True)
    settings = {"sft": (*SFT, "--batch-size", cell.batch), "virl": (*VIRL, "--max-new-tokens", cell.new_tokens)}
    where = "--model", config.work / cell.model, "--data", config.work / f"{cell.data}.parquet", "--out", out
    more = "--steps", steps, "--save-every", steps, "--seed", turn
    command = "benchmarks/peers_ours.py", f"train_{cell.stage}.py", *settings[cell.stage], *where, *more
    peak = python(*command, log=config.work / "ours.log", threads=config.threads)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = {
        "time/step": "step",
        "time/cpu": "cpu",
        "tokens": "tokens",
        "loss": "loss",
        "reward/mean": "reward",
        "length/cut": "cut",
    }
    names |= {"time/rollout": "generate", "time/held_up": "judge", "time/update": "update"}
    return [{mine: row[name] for name, mine in names.items() if name in row} | {"peak_mib": peak} for row in metrics]


def trl(cell: Cell, config: Config, turn: int) -> list[dict]:
    """A row for each step of TRL's trainer."""
    out, steps = config.work / "trl.json", config.steps * (1 + (cell.stage == "sft"))
    out.unlink(missing_ok=True)
    where = "--model", config.work / cell.model, "--data", config.work / f"{cell.data}.parquet", "--out", out
    more = "--steps", steps, "--batch", cell.batch
    more += ("--seed", turn, "--new-tokens", cell.new_tokens) if cell.stage == "virl" else ()
    command = "benchmarks/peers_trl.py", cell.stage, *where, *more
    peak = python(*command, log=config.work / "trl.log", threads=config.threads)
    return [row | {"peak_mib": peak} for row in json.loads(out.read_text())]


def summary(rows: Sequence[dict]) -> dict:
    """Medians over steps; what is of no named phase is the rest."""
    if "generate" in rows[0]:
        rows = [row | {"rest": row["step"] - sum(row[phase] for phase in PHASES[:-1])} for row in rows]
    rows = [row | {"tokens_per_second": row["tokens"] / row["step"]} for row in rows]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    result = {name: round(statistics.median(row[name] for row in rows), 4) for name in names}
    return result | {"steps": len(rows), "step_seconds": [round(row["step"], 3) for row in rows]}


def compare(config: Config, loads: list[float]) -> dict:
    """{cell: {"ours": .., "trl": .., "times_faster": ..}}, measured in turns."""
    rows = defaultdict(list)
    for turn in range(config.rounds):
        for name in config.cells:
            for side, steps_of in (("ours", ours), ("trl", trl)):
                loads.append(round(os.getloadavg()[0], 1))
                print(f"{time.strftime('%H:%M:%S')} round {turn + 1}: {name}, {side}", flush=True)
                rows[name, side] += steps_of(CELLS[name], config, turn)[1:]
    result = {}
    for name in config.cells:
        sides = {side: summary(rows[name, side]) for side in ("ours", "trl")}
        for measure, name_of_ratio in (("step", "times_faster"), ("cpu", "times_less_cpu")):
            sides[name_of_ratio] = round(sides["trl"][measure] / sides["ours"][measure], 2)
        tokens = [sides[side]["tokens_per_second"] for side in ("ours", "trl")]
        result[name] = sides | {"times_the_tokens": round(tokens[0] / tokens[1], 2)}
    return result


def table(cells: dict) -> str:
    """Markdown."""
    lines = ["| | seconds a step | generate | judge | update | rest | CPU s | tokens/s | MiB | times faster, by CPU |"]
    lines.append("|---|" + "---|" * 9)
    for name, row in cells.items():
        for side in ("ours", "trl"):
            of = row[side]
            phases = [f"{of[phase]:.2f}" if phase in of else "" for phase in PHASES]
            last = f"{row['times_faster']}, {row['times_less_cpu']}" if side == "ours" else ""
            numbers = [f"{of['step']:.2f}", *phases, f"{of['cpu']:.2f}", f"{of['tokens_per_second']:,.0f}"]
            numbers += [f"{of['peak_mib']:,.0f}", last]
            lines.append(f"| {name}: {side} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def versions() -> dict:
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in "
         "('torch', 'transformers', 'trl', 'accelerate')}))"],
        env=os.environ | {"PYTHONPATH": str(PEERS)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(found.stdout)


def main(config: Config) -> None:
    if unknown := [name for name in config.cells if name not in CELLS]:
        raise ValueError(f"there is no cell {unknown[0]!r}; choose of {', '.join(CELLS)}.")
    if min(config.rounds, config.steps - 1) < 1:
        raise ValueError("--rounds has to be at least 1 and --steps at least 2: the first step is left out.")
    if not (PEERS / "trl").exists():
        raise ValueError("TRL is not here; `make benchmark-peers` lays it into .venv-peers.")
    prepare(config.work)
    agreement, loads = config.work / "agree.json", []
    data = "--pool", config.work / "mixed-pool.parquet", "--pairs", config.work / "mixed-pairs.parquet"
    where = "--model", config.work / "short", *data, "--out", agreement
    python("benchmarks/peers_trl.py", "agree", *where, log=config.work / "agree.log")
    result = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "versions": versions()}
    result |= {"threads": config.threads or os.cpu_count(), "rounds": config.rounds, "steps": config.steps}
    result |= {"agree": json.loads(agreement.read_text())}
    result["cells"] = compare(config, loads)
    result["load_before_turns"] = loads
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["agree"], indent=1))
    print(table(result["cells"]))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"benchmarks/peers.py: {error}")
