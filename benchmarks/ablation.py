"""One change at a time, by one command: what a plan says is trained, evaluated and compared, over several seeds.

    python benchmarks/ablation.py benchmarks/plans/text_reward.toml              # 2 cores: an hour
    python benchmarks/ablation.py benchmarks/plans/text_reward.toml --dry        # what it would run

A plan (TOML) has `made`: commands that are run once, one after the other; `cells`: a training each, for every seed;
`evaluated`: the ways in which each is evaluated; `compared`: pairs of cells, `ways`: pairs of ways; `domains`: those
that have figures of their own. In a command {name} is the path of what `name` made, {name:newest} the newest checkpoint
there, {seed} the seed, or a text of that name in `common`. What is done is not done again; a training that was broken
off goes on. Before a cell starts it says how many minutes it took before.

The results have every cell's means per seed with 95 % bootstrap intervals over targets, and for each pair the mean
difference over targets and seeds with an interval that draws both anew: seeds, and targets (the same for all seeds).
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

from answers.recorded import read_records  # noqa: E402
from checkpoint import latest_checkpoint  # noqa: E402
from report.statistics import bootstrap, per_target  # noqa: E402


@dataclass
class Config:
    plan: tyro.conf.Positional[Path]
    """The plan, a TOML file."""
    out: Path | None = None
    """Folder of everything that is made; runs/NAME of the plan's own name if not given."""
    results: Path | None = None
    """Where the figures go; results/NAME.json if not given."""
    seeds: tuple[int, ...] = ()
    """Other seeds than the plan's."""
    dry: bool = False
    """Only say what would be run."""


class Runner:
    """Runs a plan's commands, each once: OUT/done.json keeps which, and how many seconds they took."""

    def __init__(self, out: Path, dry: bool, common: dict[str, str]):
        self.out, self.dry, self.common, self.file = out, dry, common, out / "done.json"
        out.mkdir(parents=True, exist_ok=True)
        self.done = json.loads(self.file.read_text()) if self.file.exists() else {}

    def filled(self, command: str, **values) -> str:
        def value(found) -> str:
            name, newest = found[1], found[2]
            path = values.get(name, self.out / name)
            return shlex.quote(str((latest_checkpoint(path) or path) if newest else path))

        for name, text in self.common.items():
            command = command.replace(f"{{{name}}}", text)
        return re.sub(r"\{([\w.-]+)(:newest)?\}", value, command)

    def run(self, name: str, command: str, like: str) -> None:
        """name: of what it makes, OUT/name; like: commands that take about as long, of any seed."""
        if self.done.get(name, {}).get("command") == command:
            return
        before = [row["seconds"] for row in self.done.values() if row["like"] == like]
        minutes = f"about {np.median(before) / 60:.0f} min, as before" if before else "for the first time"
        print(f"{time.strftime('%H:%M')} {name} ({minutes})\n$ {command}", flush=True)
        if self.dry:
            return
        script, *arguments = shlex.split(command)
        newest = script.startswith("train_") and latest_checkpoint(self.out / name)
        arguments += ["--resume"] if newest else []
        settings = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
        start = time.perf_counter()
        command_line = [sys.executable, str(ROOT / script), *arguments]
        with open(self.out / f"{name.replace('/', '-')}.log", "a") as log:
            subprocess.run(command_line, env=settings, check=True, stdout=log, stderr=log)
        seconds = round(time.perf_counter() - start, 1)
        self.done[name] = {"command": command, "seconds": seconds, "like": like}
        self.file.write_text(json.dumps(self.done, indent=1) + "\n")


def everything(plan: dict, runner: Runner, seeds: list[int]) -> None:
    for made in plan["made"]:
        runner.run(made["name"], runner.filled(made["run"]), made["name"])
    for seed in seeds:  # all cells of a seed first: what there is can be compared early
        for cell in plan["cells"]:
            name = folder_of(cell, seed)
            if cell.get("once") and seed != seeds[0]:
                continue
            if "run" in cell:
                runner.run(name, runner.filled(cell["run"], seed=seed, cell=runner.out / name), cell["name"])
            for way, options in plan["evaluated"].items():
                out = runner.out / "eval" / f"{name}-{way}"
                command = "eval.py run --model {model:newest} --out {out} " + options
                command = runner.filled(command, model=runner.out / name, out=out, seed=seed)
                runner.run(f"eval/{name}-{way}", command, f"eval {way}")


def folder_of(cell: dict, seed: int) -> str:
    return cell["name"] if cell.get("once") else f"{cell['name']}-{seed}"


def paired(a: list[dict], b: list[dict], resamples: int = 4000) -> tuple[float, float, float]:
    """(mean, low, high) of a - b: {target: value} of each seed. A resample draws seeds, and targets for all of them."""
    targets = [target for target in a[0] if all(target in values for values in [*a, *b])]
    table = np.array([[x[t] - y[t] for t in targets] for x, y in zip(a, b, strict=True)])  # (seeds, targets)
    rng, means = np.random.default_rng(0), []
    for _ in range(resamples):
        rows, columns = rng.integers(len(table), size=len(table)), rng.integers(len(targets), size=len(targets))
        means.append(table[rows][:, columns].mean())
    return float(table.mean()), *map(float, np.percentile(means, (2.5, 97.5)))


def figures(plan: dict, runner: Runner, seeds: list[int]) -> dict:
    cells, values = {cell["name"]: cell for cell in plan["cells"]}, {}  # (cell, way, metric) -> {target: value} by seed
    kinds = [(metric, domain) for domain in (None, *plan.get("domains", ())) for metric in plan["metrics"]]
    metrics = [f"{metric}/{domain}" if domain else metric for metric, domain in kinds]
    for way in plan["evaluated"]:
        for name, cell in cells.items():
            folders = [runner.out / "eval" / f"{folder_of(cell, seed)}-{way}" for seed in seeds]
            runs = [list(read_records(folder)) for folder in folders]
            for label, (metric, domain) in zip(metrics, kinds, strict=True):
                of_domain = [[r for r in run if domain in (None, r.sample.domain)] for run in runs]
                values[name, way, label] = [per_target(records, metric) for records in of_domain]
    rounded = lambda numbers: [round(number, 4) for number in numbers]  # noqa: E731
    result = {"about": plan["about"], "seeds": seeds, "cells": {}, "differences": {}}
    for (name, way, metric), runs in values.items():
        runs = runs[:1] if cells[name].get("once") else runs
        row = result["cells"].setdefault(name, {}).setdefault(way, {})
        row[metric] = {"per_seed": [rounded(bootstrap(list(run.values()))) for run in runs], "targets": len(runs[0])}
    difference = lambda one, other: {  # noqa: E731
        metric: rounded(paired(values[*one, metric], values[*other, metric])) for metric in metrics
    }
    for a, b in plan["compared"]:
        result["differences"][f"{a} - {b}"] = {way: difference((a, way), (b, way)) for way in plan["evaluated"]}
    for a, b in plan.get("ways", ()):
        result["differences"][f"{a} - {b}"] = {name: difference((name, a), (name, b)) for name in cells}
    result["seconds"] = {name: row["seconds"] for name, row in runner.done.items()}
    return result


def show(result: dict) -> None:
    for pair, ways in result["differences"].items():
        for way, row in ways.items():
            for metric, (mean, low, high) in row.items():
                print(f"{pair:40} {way:16} {metric:12} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")


def main(config: Config) -> None:
    plan, name = tomllib.loads(config.plan.read_text()), config.plan.stem
    runner = Runner(config.out or Path("runs") / name, config.dry, plan.get("common", {}))
    seeds = list(config.seeds or plan["seeds"])
    everything(plan, runner, seeds)
    if not config.dry:
        result = figures(plan, runner, seeds)
        show(result)
        results = config.results or ROOT / "results" / f"{name}.json"
        results.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {results}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (ValueError, KeyError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"benchmarks/ablation.py: {error}")
