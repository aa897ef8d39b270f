"""Stage 1: supervised fine-tuning on picture-code pairs, direct and refinement.

    python train_sft.py tiny --model runs/tiny --data train.parquet --out runs/sft         # a laptop CPU, minutes
    python train_sft.py gpu1 --model Qwen/Qwen3-VL-2B-Instruct --data train.parquet        # one GPU
    torchrun --nproc-per-node 8 train_sft.py node8 --model Qwen/Qwen3-VL-8B-Instruct --data train.parquet
    python train_sft.py gpu1 --out runs/sft --resume                                       # go on where it stopped

A step takes `batch_size` pairs, packs them into rows of about `row_tokens` tokens (no padding), and minimises the mean
negative log-likelihood of the answer tokens, counted exactly over the whole batch: how a batch is cut into rows does
not change the gradient. A share of the pairs is turned into refinement tasks: the prompt then shows a flawed program
(the right one with a seeded mutation) and the answer is the right one.

Batches, mutations and the learning rate are pure functions of the step, so a resumed run takes the very same steps.

Departures from the paper: its SFT ran in ms-swift with unpublished settings; its refinement pairs were written by a
model, ours come from mutations (or from the data set where it has them).
"""

import environment  # noqa: F401

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

import data
import loading
from checkpoint import latest_checkpoint, load_trainer_state, save_checkpoint
from data import Sample, Samples
from flaws import mutate
from loading import Tally
from model import Policy
from packing import Prompt, pack
from processes import from_all, join_processes, process_number, whole
from run import Run, progress_bar, run_script
from settings import parse_config


@dataclass
class Training:
    """What the configurations of both stages share."""

    model: str = ""
    """Hugging Face folder or hub name to start from; for ViRL usually an SFT checkpoint."""
    data: str = ""
    """What data.load reads: a parquet or jsonl file, a folder of them or with a manifest; FOLDER:test reads another
    split than train. ViRL uses no code that is in it."""
    max_rejects: float = 0.2
    """Stop when more than this share of the rows cannot be used."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices of the layers by Muon, the rest by AdamW; for training from scratch."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    gradient_checkpointing: bool = False
    """Compute each layer twice instead of keeping its activations."""
    freeze: Literal["nothing", "vision"] = "nothing"
    """vision: leave the vision tower as it is."""
    save_dtype: Literal["release", "bfloat16", "float32"] = "release"
    """Number format of saved weights; release: that of `model`. Training and `resume` keep fp32 either way."""
    log_to: Literal["files", "tensorboard", "wandb"] = "files"
    """Where metrics go besides metrics.jsonl; the other two have to be installed."""
    device: str = "cpu"
    """cpu or cuda."""
    seed: int = 0
    """Seed of the order, the sampling, the refinement tasks and everything else."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`, with the configuration saved there and the other flags over it."""
    keep: int = 5
    """Newest checkpoints that stay, 0 for all. Copies under names of your own, as step-best, always stay."""


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


PRESETS = {
    "tiny": ("A 2.5 M model on a laptop CPU.", Config(optimizer="muon", lr=3e-3, batch_size=24, row_tokens=4096)),
    "gpu1": (
        "A 2B model on one 80 GB GPU.",
        Config(device="cuda", batch_size=64, row_tokens=16384, gradient_checkpointing=True),
    ),
    "node8": (
        "An 8B model on eight 80 GB GPUs: torchrun --nproc-per-node 8 train_sft.py node8 ...",
        Config(device="cuda", batch_size=256, row_tokens=16384, gradient_checkpointing=True),
    ),
}


# ---------------------------------------------------------------------------------------------------------------------
# what both stages share: the learning rate, the optimizer, rows


def learning_rate(step: int, config) -> float:
    """Linear warm-up, then a cosine down to a tenth of the peak."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * (0.55 + 0.45 * math.cos(math.pi * progress))


def make_optimizers(policy: Policy, config) -> list[torch.optim.Optimizer]:
    """AdamW over all weights, or Muon over the layers' matrices and AdamW over the rest. No decay of gains and biases.

    Muon (Jordan et al. 2024, torch's own, scaled to the size of AdamW's updates as in arXiv 2502.16982) makes rare
    directions of a gradient as large as frequent ones: from scratch it learns colours where AdamW does not (LOG.md).
    """
    policy.hf.model.visual.requires_grad_(config.freeze != "vision")
    trained = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    is_matrix = lambda name, p: p.ndim == 2 and "embed" not in name and "lm_head" not in name  # noqa: E731
    matrices = [p for name, p in trained if config.optimizer == "muon" and is_matrix(name, p)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in trained if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999), eps=1e-8)]
    if matrices:
        muon = {"weight_decay": config.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        optimizers.append(torch.optim.Muon(matrices, lr=config.lr, **muon))
    return optimizers


def load_trainer(checkpoint: Path | None, config) -> tuple[Policy, list[torch.optim.Optimizer], dict]:
    """The policy, sharded over all processes, its optimizers, and the state saved with them: at least the "step"."""
    policy = Policy.load(checkpoint or config.model, config.device)
    if config.save_dtype != "release":
        policy.save_dtype = getattr(torch, config.save_dtype)
    if config.gradient_checkpointing:
        policy.checkpoint_activations()
    policy.shard().train()
    optimizers = make_optimizers(policy, config)
    return policy, optimizers, load_trainer_state(checkpoint, policy, optimizers) if checkpoint else {"step": 0}


class Float32(TorchFunctionMode):
    """Muon iterates in bf16, which a CPU without units for it emulates, several times slower: there it stays fp32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0].clone() if function is torch.Tensor.bfloat16 else function(*args, **(kwargs or {}))


def optimizer_step(policy: Policy, optimizers: list, lr: float, grad_clip: float) -> float:
    """Clip, step, clear -> the gradient's norm before clipping."""
    norm = whole(torch.nn.utils.clip_grad_norm_(policy.parameters(), grad_clip)).item()
    if not math.isfinite(norm):
        raise RuntimeError(f"The gradient is {norm}; lower --lr and --resume from the last checkpoint.")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        with Float32() if policy.device.type == "cpu" else nullcontext():
            optimizer.step()
        optimizer.zero_grad()
    return norm


def autocast(device: str):
    """Weights stay fp32; on a GPU the forward pass computes in bf16."""
    return torch.autocast("cuda", torch.bfloat16, enabled=str(device).startswith("cuda"))


def narrow(device: str) -> torch.dtype:
    """The number format of weights that are not trained."""
    return torch.bfloat16 if str(device).startswith("cuda") else torch.float32


def filled(items: Sequence, size: Callable, capacity: int) -> list[list]:
    """Items in their order, in lists whose sizes add up to at most `capacity`, or that hold a single item."""
    lists, free = [], 0
    for item in items:
        free -= size(item)
        if not lists or free < 0:
            lists.append([])
            free = capacity - size(item)
        lists[-1].append(item)
    return lists


def split_rows(groups: list[tuple[Prompt, list]], row_tokens: int) -> list[tuple[list[tuple[Prompt, list]], float]]:
    """Cut a batch of (prompt, responses) into rows of at most `row_tokens` tokens, similar lengths side by side, the
    rows as equal as can be. A group longer than a row is cut between its responses, with its prompt in each part.

    Each row comes with the factor of its loss. Sharded processes run forward and backward passes together, so all have
    equally many, and average their gradients, which are meant to be summed: the factor is their number, and 0 for the
    repeated row of a process that has too few groups.
    """
    tokens = lambda part: len(part[0].ids) + sum(map(len, part[1]))  # noqa: E731
    parts = [(prompt, part) for prompt, all in groups for part in filled(all, len, row_tokens - len(prompt.ids))]
    parts.sort(key=tokens)
    count = max(from_all(len(filled(parts, tokens, row_tokens))))
    fits = lambda capacity: len(filled(parts, tokens, capacity)) <= count  # noqa: E731
    rows = filled(parts, tokens, bisect_left(range(row_tokens), True, key=fits))
    return [(row, float(process_number()[1])) for row in rows] + [(rows[-1], 0.0)] * (count - len(rows))


# ---------------------------------------------------------------------------------------------------------------------
# stage 1


def task(sample: Sample, rng: np.random.Generator, refine: float) -> Sample:
    """The sample, or with probability `refine` its refinement task of a mutated draft."""
    answer = data.answer_text(sample)  # which raises where there is none
    if answer and sample.draft is None and rng.random() < refine:
        try:
            return data.as_refinement(sample, mutate(sample.code, sample.language, rng), rng)
        except ValueError:  # nothing in this program can be mutated: it stays a direct task
            pass
    return sample


Pair = tuple[Prompt, list]  # a prompt, [the token ids of its answer]


def encode_batch(policy: Policy, samples: Samples, config: Config, step: int) -> tuple[list[Pair], int, list]:
    """(the pairs of a step for this process, how many others were too long, what is wrong with which row): a pure
    function of the step."""
    indices = loading.batch_indices(samples, config.batch_size, config.seed, step)
    rngs = np.random.default_rng((config.seed, step)).spawn(len(indices))
    number, processes = process_number()
    rngs = rngs[number::processes]

    def encode(place: int, sample: Sample) -> Pair:
        sample = task(sample, rngs[place], config.refine)
        return policy.encode(sample), [policy.response_ids(data.answer_text(sample), sample.id)]

    pairs, bad = loading.encoded(samples, indices[number::processes], encode)
    short = [pair for pair in pairs if len(pair[0].ids) + len(pair[1][0]) <= config.max_tokens]
    return short, len(pairs) - len(short), bad


def train_step(policy: Policy, pairs: list[tuple[Prompt, list]], row_tokens: int) -> tuple[float, int]:
    """Gradient of the mean negative log-likelihood of all answer tokens of all processes -> that mean, their number."""
    tokens = sum(from_all(sum(len(answer) for _, [answer] in pairs)))
    total = 0.0
    for groups, factor in split_rows(pairs, row_tokens):
        with autocast(policy.device.type):
            loss = -policy(pack(groups).to(policy.device)).sum() / tokens
        (loss * factor).backward()
        total += loss.item() if factor else 0.0
    return sum(from_all(total)), tokens


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(PRESETS, argv)
    join_processes(config.device)
    samples = loading.training_samples(config.data)
    run = Run(config)
    checkpoint = latest_checkpoint(run.folder) if config.resume else None
    torch.manual_seed(config.seed)
    policy, optimizers, state = load_trainer(checkpoint, config)
    run.start_at(start := state["step"])
    bar = progress_bar("SFT", start, config.steps)
    tally = Tally.of(config, samples, "--max-tokens", state)
    with ThreadPoolExecutor(1) as ahead:  # the next batch is encoded while this one trains
        upcoming = ahead.submit(encode_batch, policy, samples, config, start)
        for step in bar:
            began = time.perf_counter()
            pairs, too_long, bad = upcoming.result()
            upcoming = ahead.submit(encode_batch, policy, samples, config, step + 1)
            waited = time.perf_counter() - began
            if min(tally.add(len(pairs), too_long, bad)):  # a process without work cannot take part
                loss, tokens = train_step(policy, pairs, config.row_tokens)
                lr = learning_rate(step, config)
                norm = optimizer_step(policy, optimizers, lr, config.grad_clip)
                seconds = time.perf_counter() - began
                metrics = {"step": step, "loss": loss, "lr": lr, "grad_norm": norm, "tokens": tokens}
                times = {"time/wait": waited, "time/step": seconds, "tokens_per_second": tokens / seconds}
                run.log(metrics | {"too_long": tally.too_long} | tally.metrics() | times)
                bar.set_postfix(loss=f"{loss:.3f}", tok_s=f"{tokens / seconds:.0f}", too_long=tally.too_long)
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                save_checkpoint(run.folder, step + 1, policy, optimizers, tally.state(), config.keep)
                run.plot(step + 1 == config.steps)
    said = tally.end()
    if run.writes:
        print(f"SFT done: {latest_checkpoint(run.folder)}{said}")


if __name__ == "__main__":
    run_script(main, PRESETS)
