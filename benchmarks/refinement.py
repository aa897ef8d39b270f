"""Does training on refinement rows matter? The tiny model with and without them, at the same number of training tokens.

    python benchmarks/refinement.py --out runs/refinement                 # 2 cores: an hour
    python benchmarks/refinement.py --out runs/smoke --rows 300 --test 40 --steps 4 --seeds 0 --results runs/smoke.json

Svg scenes of synth.py go through `python -m corpus build`, which makes the refinement rows. Three runs of train_sft.py
a seed, each from the same random weights:
    with          direct and refinement rows together, `steps` steps
    without       the direct rows alone, for as many steps as give the same number of answer tokens (those with a loss)
    longer        the direct rows alone, for as many steps as give the same number of tokens in all, prompts included
Tokens are counted on the very batches of the training: two runs are equal to within a batch. Then eval.py, greedy, on
targets that no run saw: the direct task with a round of refinement, and drafts of the same targets to be corrected.
Results go to results/refinement.json. What is there already in OUT is not made again.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

import data  # noqa: E402
import train_sft  # noqa: E402
from answers.recorded import read_records  # noqa: E402
from checkpoint import latest_checkpoint  # noqa: E402
from model import Policy  # noqa: E402
from report.statistics import bootstrap, paired_bootstrap, per_target  # noqa: E402

ARMS = ("with", "without", "longer")


@dataclass
class Config:
    out: Path = Path("runs/refinement")
    """Folder of everything that is made."""
    results: Path = ROOT / "results" / "refinement.json"
    """Where the figures go."""
    rows: int = 10_000
    """Programs to train on."""
    refine: float = 0.4
    """Share of them that also become refinement rows."""
    test: int = 430
    """Held-out programs, before duplicates are left out."""
    steps: int = 800
    """Steps of the run with refinement rows, 24 rows each."""
    seeds: tuple[int, ...] = (0, 1)
    """Each its own initial weights and its own order of the rows."""
    arms: tuple[str, ...] = ARMS
    """Which runs, `with` among them."""
    jobs: int = 2
    """Trainings at the same time, a thread each."""


def python(script: str, *arguments, log: Path | None = None) -> None:
    """A script of ours, or a room's command, with one thread; what it says goes to `log`. Raises CalledProcessError."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    command = [sys.executable, *program, *map(str, arguments)]
    print("$", script, *arguments, flush=True)
    if log is None:
        subprocess.run(command, env=settings, check=True)
    else:
        with open(log, "w") as file:
            subprocess.run(command, env=settings, check=True, stdout=file, stderr=file)


def only(folder: Path, name: str) -> Path:
    """The one shard of a small corpus."""
    [path] = (folder / "sft").glob(f"{name}-*.parquet")
    return path


def make_data(config: Config) -> None:
    """OUT/corpus to train on and OUT/test, both by `corpus build`; no target of the test is in the corpus."""
    out, shape = config.out, ["--svg-side", 64, "--shard-rows", 1_000_000]
    for name, count, seed in (("test", config.test, 3), ("train", config.rows, 1)):
        if not (out / f"{name}.parquet").exists():
            size = ["--count", count, "--seed", seed, "--difficulty", 0.15, "--svg-side", 64]
            python("synth.py", "--out", out / f"{name}.parquet", "--domains", "svg", *size)
    python("corpus", "build", out / "test.parquet", "--refine", 1, *shape, "--out", out / "test")
    against = ["--against", out / "test.parquet", "--refine", config.refine]
    python("corpus", "build", out / "train.parquet", *against, *shape, "--out", out / "corpus")


def tokens_of(policy: Policy, rows: Path, seed: int, steps: int) -> np.ndarray:
    """(steps, 2) int64: tokens of the answers, and of all that the model reads, until the end of each step."""
    config = replace(train_sft.PRESETS["tiny"][1], seed=seed, refine=0.0)
    samples, counts = data.load(rows), []
    for step in range(steps):
        pairs, _, _ = train_sft.encode_batch(policy, samples, config, step)
        answers = sum(len(answer) for _, [answer] in pairs)
        counts.append((answers, answers + sum(len(prompt.ids) for prompt, _ in pairs)))
    return np.cumsum(counts, axis=0)


def plan(config: Config, seed: int) -> dict[str, dict]:
    """arm -> what it trains on, for how many steps, and how many tokens that is."""
    path = config.out / f"plan-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = Policy.load(config.out / f"model-{seed}")
    both, direct = config.out / "corpus" / "sft", only(config.out / "corpus", "direct")
    wanted = tokens_of(policy, both, seed, config.steps)[-1]
    counts = tokens_of(policy, direct, seed, 2 * config.steps)
    arms = {"with": (both, config.steps, wanted)}
    for arm, column in (("without", 0), ("longer", 1)):
        steps = int(np.abs(counts[:, column] - wanted[column]).argmin()) + 1
        arms[arm] = (direct, steps, counts[steps - 1])
    known = {
        arm: {"data": str(rows), "steps": steps, "answer_tokens": int(tokens[0]), "all_tokens": int(tokens[1])}
        for arm, (rows, steps, tokens) in arms.items()
    }
    path.write_text(json.dumps(known, indent=1))
    return known


def train(config: Config, seed: int, arm: str, planned: dict) -> None:
    out = config.out / f"{arm}-{seed}"
    newest = latest_checkpoint(out)
    if newest and newest.name == f"step-{planned['steps']:06}":
        return
    options = ["--model", config.out / f"model-{seed}", "--data", planned["data"], "--out", out, "--seed", seed]
    options += ["--steps", planned["steps"], "--refine", 0, *(["--resume"] if newest else [])]
    python("train_sft.py", "tiny", *options, log=config.out / f"{arm}-{seed}.log")


def write_drafts(config: Config) -> Path:
    """The held-out drafts themselves as answers, to be scored by the same eval.py."""
    path = config.out / "drafts.jsonl"
    rows = [{"id": sample.id, "code": sample.draft} for sample in data.load(only(config.out / "test", "refine"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(config: Config, name: str, task: str, *source) -> None:
    out = config.out / "eval" / f"{name}-{task}"
    if (out / "summary.json").exists():
        return
    rows = only(config.out / "test", "direct" if task == "direct" else "refine")
    options = ["--data", rows, "--svg-side", 64, "--max-new-tokens", 160, "--out", out]
    options += ["--refine", 1] if task == "direct" else []
    out.mkdir(parents=True, exist_ok=True)
    python("eval.py", "run", *source, *options, log=out / "log.txt")


def scores(config: Config, name: str, task: str, metric: str = "visual", round: int = -1) -> dict[str, float]:
    return per_target(read_records(config.out / "eval" / f"{name}-{task}"), metric, round)


def figures(config: Config, seed: int) -> dict:
    """Means with 95 % bootstrap intervals, and paired differences over the same targets."""
    arms, others = config.arms, [arm for arm in config.arms if arm != "with"]
    result = {"score": {}, "difference": {}}
    tasks = {"direct": ("direct", 0), "refined once": ("direct", 1), "drafts corrected": ("refinement", -1)}
    drafts = scores(config, "drafts", "refinement")
    result["score"]["drafts as they are"] = bootstrap(list(drafts.values()))
    for what, (task, turn) in tasks.items():
        values = {arm: scores(config, f"{arm}-{seed}", task, round=turn) for arm in arms}
        executes = {arm: scores(config, f"{arm}-{seed}", task, "execute", turn) for arm in arms}
        for arm in arms:
            result["score"][f"{what}, {arm}"] = bootstrap(list(values[arm].values()))
            result["score"][f"{what}, {arm}, executes"] = bootstrap(list(executes[arm].values()))
        for arm in others:
            pairs = zip(*((values["with"][id], values[arm][id]) for id in values[arm]), strict=True)
            result["difference"][f"{what}: with - {arm}"] = paired_bootstrap(*pairs)
        if task == "refinement":
            for arm in arms:
                pairs = zip(*((values[arm][id], drafts[id]) for id in drafts), strict=True)
                result["difference"][f"{what}, {arm} - drafts"] = paired_bootstrap(*pairs)
    for arm in arms:
        before, after = (scores(config, f"{arm}-{seed}", "direct", round=turn) for turn in (0, 1))
        pairs = zip(*((after[id], before[id]) for id in before), strict=True)
        result["difference"][f"refined once - direct, {arm}"] = paired_bootstrap(*pairs)
    rounded = lambda values: [round(value, 4) for value in values]  # noqa: E731
    return {part: {what: rounded(values) for what, values in rows.items()} for part, rows in result.items()}


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    make_data(config)
    for seed in config.seeds:
        if not (config.out / f"model-{seed}" / "config.json").exists():
            python("tiny.py", config.out / f"model-{seed}", "--seed", seed)
    plans = {seed: plan(config, seed) for seed in config.seeds}
    with ThreadPoolExecutor(config.jobs) as pool:
        jobs = [pool.submit(train, config, seed, arm, plans[seed][arm]) for seed in config.seeds for arm in config.arms]
        for job in jobs:
            job.result()
    evaluate(config, "drafts", "refinement", "--answers", write_drafts(config))
    shape = {key: getattr(config, key) for key in ("rows", "refine", "test", "steps")}
    known = json.loads(config.results.read_text()) if config.results.exists() else {}
    result = known if known.get("config") == shape else {"config": shape, "seeds": {}}  # other seeds stay
    for seed in config.seeds:
        for arm in config.arms:
            model = latest_checkpoint(config.out / f"{arm}-{seed}")
            for task in ("direct", "refinement"):
                evaluate(config, f"{arm}-{seed}", task, "--model", model)
        result["seeds"][str(seed)] = {"trained": plans[seed]} | figures(config, seed)
        for part in ("score", "difference"):
            for what, (mean, low, high) in result["seeds"][str(seed)][part].items():
                print(f"seed {seed}  {what:45} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    config.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"benchmarks/refinement.py: {error}")
