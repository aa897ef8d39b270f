"""What both stages share: the policy and its optimizers, an optimizer's step, the rows of a batch."""

import importlib
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from checkpoint import load_trainer_state
from model import Policy
from packing import Prompt
from processes import all_gather, full_tensor, rank_and_size
from run import Rule


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
    """Weight decay of AdamW and Muon."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    gradient_checkpointing: bool = False
    """Compute each layer twice instead of keeping its activations."""
    freeze: Literal["nothing", "vision"] = "nothing"
    """vision: leave the vision tower as it is."""
    lora: int | None = None
    """Rank of an adapter that is trained instead of the weights, which stay as they are, in bf16 on a GPU (lora.py)."""
    lora_alpha: int | None = None
    """What the adapter adds is scaled by alpha / rank; by default twice the rank."""
    lora_targets: tuple[str, ...] = ()
    """Matrices that it adds to, by their names in a layer, `visual.NAME` in the vision tower; all of the language model
    by default."""
    save_dtype: Literal["release", "bfloat16", "float32"] = "release"
    """Number format of saved weights; release: that of `model`. Training and `resume` keep fp32 either way."""
    log_to: Literal["files", "tensorboard", "wandb"] = "files"
    """Where metrics go besides metrics.jsonl; the other two have to be installed."""
    device: str = "cpu"
    """cpu or cuda."""
    seed: int = 0
    """Seed of the order, the sampling, the refinement tasks and everything else."""
    eval_data: str = ""
    """Held-out targets, as `data`: answered greedily while training; the best model is kept (answers/held_out.py)."""
    eval_every: int = 100
    """Steps between these evaluations; there is one before the first step and one at the end."""
    eval_tokens: int = 1024
    """Longest answer to a held-out target."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`, with the configuration saved there and the other flags over it."""
    keep: int = 5
    """Newest checkpoints that stay, 0 for all. Copies under names of your own, as step-best, always stay."""

    rules: ClassVar[list[Rule]] = []  # what a stage's own settings may be
    batch_setting: ClassVar[str] = ""  # the setting that counts the pictures of a step

    def conflicts(self) -> list[str]:
        """What is wrong with settings that each could work."""
        return []


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
    if config.freeze == "vision":
        policy.hf.model.visual.requires_grad_(False)
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


def load_policy(path: str | Path, config, dtype=torch.float32) -> Policy:
    """The policy at `path`, its weights in `dtype`; with --lora a frozen base and an adapter, as lora.py has them."""
    if config.lora:
        return importlib.import_module("lora").LoraPolicy.of(path, config)
    return Policy.load(path, config.device, dtype)


def load_trainer(checkpoint: Path | None, config) -> tuple[Policy, list[torch.optim.Optimizer], dict]:
    """The policy, sharded over all processes, its optimizers, and the state saved with them: at least the "step"."""
    importlib.import_module("report.memory").say_whether_it_fits(config)
    policy = load_policy(checkpoint or config.model, config)
    if config.save_dtype != "release":
        policy.save_dtype = getattr(torch, config.save_dtype)
    if config.gradient_checkpointing:
        enable = getattr(policy.hf, "activation_checkpointing_enable", None) or policy.hf.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # each layer is computed twice
    policy.shard().train()
    optimizers = make_optimizers(policy, config)
    return policy, optimizers, load_trainer_state(checkpoint, policy, optimizers) if checkpoint else {"step": 0}


class Float32(TorchFunctionMode):
    """Muon iterates in bf16, which a CPU without units for it emulates, several times slower: there it stays fp32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0].clone() if function is torch.Tensor.bfloat16 else function(*args, **(kwargs or {}))


def optimizer_step(policy: Policy, optimizers: list, lr: float, grad_clip: float) -> float:
    """Clip, step, clear -> the gradient's norm before clipping."""
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(policy.parameters(), grad_clip)).item()
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
    parts = []
    for prompt, responses in groups:
        parts += [(prompt, part) for part in filled(responses, len, row_tokens - len(prompt.ids))]
    parts.sort(key=tokens)
    count = max(all_gather(len(filled(parts, tokens, row_tokens))))
    fits = lambda capacity: len(filled(parts, tokens, capacity)) <= count  # noqa: E731
    # the smallest capacity that fills no more rows makes them as equal as can be: `fits` is False below it and
    # True from it on, so bisection finds it
    rows = filled(parts, tokens, bisect_left(range(row_tokens), True, key=fits))
    return [(row, float(rank_and_size()[1])) for row in rows] + [(rows[-1], 0.0)] * (count - len(rows))


def held_out(config, run, sampler: Policy | None = None, renderer=None) -> Callable[[Policy, int], None]:
    """What is called with the policy after so many steps: the evaluation of answers/held_out.py, or nothing."""
    if not config.eval_data:
        return lambda policy, step: None
    return importlib.import_module("answers.held_out").HeldOut(config, run, sampler, renderer)


def progress_bar(name: str, start: int, steps: int) -> tqdm:
    hidden = rank_and_size()[0] > 0
    return tqdm(range(start, steps), name, initial=start, total=steps, unit="step", smoothing=0.05, disable=hidden)
