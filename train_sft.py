"""Stage 1: supervised fine-tuning on picture-code pairs, direct and refinement.

    python train_sft.py tiny --model runs/tiny --data train.parquet --out runs/sft         # a laptop CPU, minutes
    python train_sft.py gpu1 --model Qwen/Qwen3-VL-2B-Instruct --data train.parquet        # one GPU
    torchrun --nproc-per-node 8 train_sft.py node8 --model Qwen/Qwen3-VL-8B-Instruct --data train.parquet
    python train_sft.py gpu1 --out runs/sft --resume                                       # go on where it stopped

A step takes `batch_size` pairs, packs them into rows of about `row_tokens` tokens (no padding), and minimises the mean
negative log-likelihood of the answer tokens, counted exactly over the whole batch: how a batch is cut into rows does
not change the gradient. A share of the pairs is turned into refinement tasks: the prompt then shows a flawed program
(the right one with a seeded mutation) and the answer is the right one. Batches, mutations and the learning rate are
pure functions of the step, so a resumed run takes the very same steps.

Departures from the paper: its SFT ran in ms-swift with unpublished settings; its refinement pairs were written by a
model, ours come from mutations (or from the data set where it has them).
"""

import environment  # noqa: F401

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

import data
import loading
from checkpoint import latest_checkpoint, save_checkpoint
from data import Sample, Samples
from flaws import mutate
from loading import Tally
from model import Policy
from packing import Prompt, pack
from processes import all_gather, init_distributed, rank_and_size
from run import Rule, Run, parse_config, run_script
from training import Training, autocast, held_out, learning_rate, load_trainer, optimizer_step, progress_bar, split_rows


@dataclass
class Config(Training):
    out: str = "runs/sft"
    """Folder of the run."""
    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 48
    """Pairs per optimizer step."""
    row_tokens: int = 8192
    """Tokens of one packed row (one forward and backward pass); longer pairs get a row of their own."""
    max_tokens: int = 16384
    """Pairs with more tokens than this are left out, and counted."""
    refine: float = 0.15
    """Share of the pairs turned into refinement tasks."""
    lr: float = 1e-5
    """Peak learning rate."""
    warmup: int = 20
    """Steps of linear warm-up, before a cosine down to a tenth."""
    save_every: int = 200
    """Steps between checkpoints; one is always written at the end."""

    rules: ClassVar[list[Rule]] = [
        (("batch_size", "max_tokens"), lambda x: x >= 1, "has to be at least 1"),
        (("refine",), lambda x: 0 <= x <= 1, "has to lie between 0 and 1"),
    ]
    batch_setting: ClassVar[str] = "batch_size"


PRESETS = {
    "tiny": ("A 2.6 M model on a laptop CPU.", Config(optimizer="muon", lr=3e-3, batch_size=24, row_tokens=4096)),
    "gpu24": (
        "LoRA of a 2B or 4B model on one GPU of 24 GB.",
        Config(device="cuda", lora=32, lr=2e-4, row_tokens=8192, max_tokens=8192, gradient_checkpointing=True),
    ),
    "gpu1": (
        "A 2B model on one 80 GB GPU.",
        Config(device="cuda", batch_size=64, row_tokens=16384, gradient_checkpointing=True),
    ),
    "node8": (
        "An 8B model on eight 80 GB GPUs: torchrun --nproc-per-node 8 train_sft.py node8 ...",
        Config(device="cuda", batch_size=256, row_tokens=16384, gradient_checkpointing=True),
    ),
}


def task(sample: Sample, rng: np.random.Generator, refine: float) -> Sample:
    """The sample, or with probability `refine` its refinement task of a mutated draft."""
    data.answer_text(sample)  # raises where there is none
    if sample.draft is None and rng.random() < refine:
        try:
            return data.as_refinement(sample, mutate(sample.code, sample.language, rng), rng)
        except ValueError:  # nothing in this program can be mutated: it stays a direct task
            pass
    return sample


def encode_batch(policy: Policy, samples: Samples, config: Config, step: int) -> tuple:
    """(the step's pairs of a prompt and [its answer's token ids] of this process, how many others were too long, what
    is wrong with which row): a pure function of the step."""
    indices = loading.batch_indices(samples, config.batch_size, config.seed, step)
    number, processes = rank_and_size()
    rngs = np.random.default_rng((config.seed, step)).spawn(len(indices))[number::processes]

    def encode(place: int, sample: Sample) -> tuple[Prompt, list]:
        sample = task(sample, rngs[place], config.refine)
        return policy.encode(sample), [policy.response_ids(data.answer_text(sample), sample.id)]

    pairs, bad = loading.encoded(samples, indices[number::processes], encode)
    short = [pair for pair in pairs if len(pair[0].ids) + len(pair[1][0]) <= config.max_tokens]
    return short, len(pairs) - len(short), bad


def train_step(policy: Policy, pairs: list[tuple[Prompt, list]], row_tokens: int) -> tuple[float, int]:
    """Gradient of the mean negative log-likelihood of all answer tokens of all processes -> that mean, their number."""
    tokens = sum(all_gather(sum(len(answer) for _, [answer] in pairs)))
    total = 0.0
    for groups, factor in split_rows(pairs, row_tokens):
        with autocast(policy.device.type):
            loss = -policy(pack(groups).to(policy.device)).sum() / tokens
        (loss * factor).backward()
        total += loss.item() if factor else 0.0
    return sum(all_gather(total)), tokens


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(PRESETS, argv)
    init_distributed(config.device)
    samples = data.load(config.data)
    loading.try_some_rows(samples, config.data)
    run = Run(config)
    if data.needs_drawing(samples):
        samples = loading.drawn_by_a_process(config.data, run.folder / "targets")
    checkpoint = latest_checkpoint(run.folder) if config.resume else None
    torch.manual_seed(config.seed)
    policy, optimizers, state = load_trainer(checkpoint, config)
    run.start_at(start := state["step"])
    bar = progress_bar("SFT", start, config.steps)
    tally = Tally.of(config, samples, "--max-tokens", state)
    evaluate = held_out(config, run)
    evaluate(policy, start)
    with ThreadPoolExecutor(1) as ahead:  # the next batch is encoded while this one trains
        upcoming = ahead.submit(encode_batch, policy, samples, config, start)
        for step in bar:
            began = time.perf_counter()
            pairs, too_long, bad = upcoming.result()
            upcoming = ahead.submit(encode_batch, policy, samples, config, step + 1)
            waited = time.perf_counter() - began
            if tally.add(len(pairs), too_long, bad):  # every process has work
                loss, tokens = train_step(policy, pairs, config.row_tokens)
                lr = learning_rate(step, config)
                norm = optimizer_step(policy, optimizers, lr, config.grad_clip)
                seconds = time.perf_counter() - began
                metrics = {"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "tokens": tokens}
                times = {"time/wait": waited, "time/step": seconds, "tokens_per_second": tokens / seconds}
                run.log(metrics | {"too_long": tally.too_long} | tally.metrics() | times)
                bar.set_postfix(loss=f"{loss:.3f}", tok_s=f"{tokens / seconds:.0f}", too_long=tally.too_long)
            evaluate(policy, step + 1)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                save_checkpoint(run.folder, step + 1, policy, optimizers, tally.state(), config.keep)
                run.draw("curves", ended=step + 1 == config.steps)
    said = tally.end()
    if run.writes:
        print(f"SFT done: {latest_checkpoint(run.folder)}{said}")


if __name__ == "__main__":
    run_script(main, PRESETS)
