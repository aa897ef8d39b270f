"""Stage 2, ViRL: reinforcement learning from what the code looks like (GRPO with a visual reward).

    python train_virl.py tiny --model runs/sft/checkpoints/step-001000 --data pool.parquet --out runs/virl
    python train_virl.py gpu1 --model ... --data ...                 # one GPU
    torchrun --nproc-per-node 8 train_virl.py paper --model ... --data ...
    python train_virl.py gpu1 --out runs/virl --resume               # go on where it stopped

One step: N pictures; the policy writes G programs for each; every program is executed and rendered in the sandbox while
others are still being written; a rendering's reward is its coarse-to-fine similarity with the picture; a program's
advantage is how much better it is than its group; all tokens of a program are made more (or less) likely accordingly.
The targets need no code: rows of pictures and prompts will do. For a picture with answers i = 1 .. G:

    r_i   = 0.65 * visual(rendering of i, picture) + 0.25 * text(what both say)                       `score_groups`
            + 0.1 * (i has a code block in the right language)
    A_i   = (r_i - mean(r)) / (std(r) + 1e-6)                                                    `group_advantages`
    rho_t = exp(logp(token t) - logp of it when it was sampled, or now, with one optimizer step)      `policy_loss`
    loss  = - sum_t min(rho_t * A_i, clip(rho_t, 1 - clip_low, 1 + clip_high) * A_i) / T       T: tokens of a batch

Departures from the paper's release (arXiv 2511.00391, EasyR1):
 1. No pass for old log-probs: with one optimizer step per rollout the ratio is 1, and with more the sampler's own
    log-probs serve. Their distance to the trainer's is logged at every step ("mismatch").
 2. Groups whose G rewards are equal have no advantage; they are counted, and without --kl not trained on.
 3. The reward defaults to mode "calibrated": a blank page looks like nothing. Words count. (`vincicoder` is theirs.)
 4. The prompt and its picture are computed once per group, in the rollout and in training; so is, in training, what
    answers of a group begin with in common.
"""

import environment  # noqa: F401

import math
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.distributed as dist

import data
import loading
from checkpoint import latest_checkpoint, save_checkpoint
from data import Sample, Samples
from loading import Tally
from model import Policy
from packing import Prompt, pack
from processes import all_gather, full_tensor, init_distributed, rank_and_size
from prompts import extract_code
from records import Record
from render import Renderer, Rendering
from reward import DEFAULTS, Rewards, flat
from rollout import Completion, generate, half_the_threads
from run import Rule, Run, parse_config, run_script
from step import rollout_metrics, status_line, timer, training_metrics, write_samples
from training import Training, autocast, held_out, load_policy, load_trainer, optimizer_step, progress_bar, split_rows


@dataclass
class Config(Training):
    out: str = "runs/virl"
    """Folder of the run."""
    steps: int = 164
    """Rollouts, each followed by `minibatches` optimizer steps."""
    prompts: int = 256
    """N, pictures per step."""
    group: int = 8
    """G, programs per picture."""
    max_new_tokens: int = 10240
    """Longest answer."""
    max_prompt_tokens: int = 6144
    """Pictures whose prompt is longer than this are left out of the step, and counted."""
    temperature: float = 1.0
    """Sampling temperature; the loss uses the same one."""
    slots: int = 256
    """Samples that decode together."""
    refine: float = 0.0
    """Share of the pictures that are shown with an answer of the policy's own, to be corrected."""
    lr: float = 1e-6
    """Learning rate, constant after the warm-up."""
    warmup: int = 0
    """Steps of linear warm-up."""
    minibatches: int = 1
    """Optimizer steps per rollout."""
    loss: Literal["clipped", "gspo", "cispo"] = "clipped"
    """clipped: the ratio of each token (PPO); gspo: that of each answer; cispo: a bounded ratio weighs each token."""
    average: Literal["token", "answer", "constant"] = "token"
    """The loss is the mean over tokens (the paper, DAPO), or over answers of their mean (GRPO, GSPO), or over answers
    of their sum divided by max_new_tokens (Dr.GRPO)."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.3
    """The ratio is clipped above at 1 + clip_high."""
    dual_clip: float = 3.0
    """Most that a token of a bad answer may cost, in multiples of the advantage; 0 sets no bound."""
    importance_cap: float = 0.0
    """Weight each token by its probability under the trainer over that under the sampler, at most this; 0 is off. With
    several minibatches the ratio does that already."""
    skip_cut: bool = False
    """Learn nothing from answers that were cut off at max_new_tokens (DAPO's filter)."""
    kl: float = 0.0
    """Weight of the KL to the starting model; above 0 keeps a copy of it, in host memory while it is not needed. With
    --lora that is the base, and no copy."""
    normalize_std: bool = True
    """Divide advantages by their group's standard deviation (GRPO); off is Dr.GRPO."""
    by_rank: bool = False
    """An answer's advantage is by how many of its group it beats, however closely: for rewards that are noisy."""
    reward: tuple[str, ...] = ()
    """What an answer is worth, the sum of weight times reward: NAME=WEIGHT of visual, text (the same words and numbers)
    and alignment (a code block in the asked-for language), or FILE.py:FUNCTION=WEIGHT, as reward.py says; by default
    visual=0.65 text=0.25 alignment=0.1, in mode vincicoder visual=0.9 alignment=0.1."""
    reward_mode: Literal["calibrated", "vincicoder"] = "calibrated"
    """How similarity becomes a reward; see reward.py."""
    encoder: str = "pyramid"
    """Image features of the reward: "pyramid" needs no weights; else a DINOv2 folder or hub name, or FILE.py:NAME."""
    judge_url: str = ""
    """The OpenAI-compatible server of `--reward judge=WEIGHT`; see metrics/judge_reward.py."""
    judge_model: str = ""
    """The name that it knows the judge by."""
    alignment_weight: float | None = None
    """W is short for --reward visual=1-W alignment=W."""
    row_tokens: int = 32768
    """Tokens of one packed row; a larger group is cut between its answers."""
    render_workers: int | None = None
    """Programs that are drawn at a time; by default as many as there are cores for each process."""
    render_timeout: float = 10.0
    """Seconds that one program may have: its CPU time and sleep, not what it waits for a core that others have."""
    render_python: str | None = None
    """The interpreter that Python programs run in, with its packages; .venv/render, which `make` builds, by default."""
    svg_side: int = 448
    """Longer side of a rendered svg, in pixels; give the size of your targets."""
    allow_unsafe_rendering: bool = False
    """Run generated programs even where this machine cannot sandbox them."""
    save_every: int = 20
    """Steps between checkpoints; one is always written at the end."""

    rules: ClassVar[list[Rule]] = [
        (
            ("prompts", "slots", "minibatches", "max_new_tokens", "max_prompt_tokens", "render_workers", "svg_side"),
            lambda x: x >= 1,
            "has to be at least 1",
        ),
        (("group",), lambda x: x >= 2, "has to be at least 2: an answer is compared with the others of its group"),
        (("clip_high",), lambda x: x >= 0, "must not be negative"),
        (("kl",), lambda x: 0 <= x < math.inf, "has to be 0 or more"),
        (("render_timeout",), lambda x: 0 < x < math.inf, "has to be above 0"),
        (("temperature",), lambda x: 0 < x < math.inf, "has to be above 0: greedy answers to a picture are all alike"),
        (("alignment_weight", "clip_low", "refine"), lambda x: 0 <= x <= 1, "has to lie between 0 and 1"),
        (("dual_clip",), lambda x: x == 0 or x > 1, "has to be above 1, or 0 for no bound"),
        (("importance_cap",), lambda x: x == 0 or x >= 1, "has to be at least 1, or 0 for no correction"),
        (("render_python",), shutil.which, "is no program that runs"),
    ]
    batch_setting: ClassVar[str] = "prompts"

    def conflicts(self) -> list[str]:
        wrong = []
        share = self.prompts // int(os.environ.get("WORLD_SIZE", 1))  # pictures of a process
        if self.minibatches > share:
            wrong.append(f"--minibatches {self.minibatches} are more than the pictures of a process, {share}")
        if self.minibatches == 1 and self.loss != "clipped":
            why = "with one every ratio is 1, and it does nothing"
            wrong.append(f"--loss {self.loss} wants several --minibatches: {why}")
        if self.minibatches > 1 and self.importance_cap:
            why = "the ratio corrects for the sampler already"
            wrong.append(f"--importance-cap does nothing with several --minibatches: {why}")
        if any(re.match(r"judge(=|$)", choice) for choice in self.reward) and not (self.judge_url and self.judge_model):
            wrong.append("--reward judge wants a judge: give --judge-url URL --judge-model NAME")
        return wrong


WAVES = 4  # parts of an optimizer step that wait for their pictures one after the other

# fmt: off
PRESETS = {
    "tiny": (
        "A 2.6 M model on a laptop CPU, 64 px pictures.",
        Config(steps=40, prompts=32, group=16, slots=64, max_new_tokens=160, lr=1e-4, warmup=5, freeze="vision",
               row_tokens=8192, svg_side=64, save_every=10),
    ),
    "gpu24": (
        "LoRA of a 2B or 4B model on one GPU of 24 GB.",
        Config(device="cuda", lora=32, lr=2e-5, prompts=32, slots=64, max_new_tokens=2048, max_prompt_tokens=2048,
               row_tokens=8192, gradient_checkpointing=True),
    ),
    "gpu1": (
        "A 2B model on one 80 GB GPU.",
        Config(device="cuda", prompts=32, max_new_tokens=4096, max_prompt_tokens=4096, gradient_checkpointing=True),
    ),
    "paper": (
        "The paper's hyper-parameters (arXiv 2511.00391): an 8B model on eight 80 GB GPUs, under torchrun.",
        Config(device="cuda", gradient_checkpointing=True),
    ),
}
# fmt: on


# ------------------------------------------------------------------------------------------------------- the algorithm


def group_advantages(rewards: np.ndarray, normalize_std: bool = True, by_rank: bool = False) -> np.ndarray:
    """GRPO (arXiv 2402.03300): (r - mean) / (std + 1e-6) within each group, unbiased std. rewards (N, G) -> (N, G).

    normalize_std False leaves the division out (Dr.GRPO, arXiv 2503.20783). by_rank: r is the share of its group that
    an answer beats, less the share that beats it (relative rankings, arXiv 2511.08195). Flat groups, and G = 1, have
    exactly 0: their mean is rounded, and what that leaves would be divided by 1e-6.
    """
    if by_rank:
        rewards = np.sign(np.round(rewards[:, :, None] - rewards[:, None], 8)).mean(2)
    advantages = np.where(flat(rewards)[:, None], 0.0, rewards - rewards.mean(1, keepdims=True))
    if normalize_std and rewards.shape[1] > 1:
        advantages = advantages / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
    return advantages


def policy_loss(logps, sampled, advantages, owner, config: Config):
    """Loss of every token (T,), and whether clipping holds its gradient back (T,) bool.

    logps (T,) under the policy, with gradient; sampled (T,) under the sampler; advantages (T,) of the token's answer;
    owner (T,) int64, the number of that answer in the row.

    Clipping is PPO's, per token (arXiv 1707.06347), with DAPO's two bounds (2503.14476), and a bound on the loss of bad
    tokens that became likelier (1912.09729). GSPO (2507.18071): one ratio per answer, its tokens' geometric mean. CISPO
    (2506.13585): the bounded ratio is a weight without gradient. With one optimizer step per rollout the ratio is 1,
    and importance_cap corrects for a sampler that is not quite the trainer (truncated importance sampling).
    """
    old = logps.detach() if config.minibatches == 1 else sampled
    log_ratio = logps - old
    if config.loss == "gspo":
        counts = owner.bincount()
        log_ratio = (logps.new_zeros(len(counts)).index_add(0, owner, log_ratio) / counts)[owner]
    ratio = log_ratio.exp()
    bounded_ratio = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    if config.loss == "cispo":
        loss, held = -advantages * bounded_ratio.detach() * logps, torch.zeros_like(owner, dtype=torch.bool)
    else:
        plain, bounded = -advantages * ratio, -advantages * bounded_ratio
        loss, held = torch.maximum(plain, bounded), bounded > plain
        if config.dual_clip:
            ceiling = -advantages * config.dual_clip
            held = held | ((advantages < 0) & (loss > ceiling))
            loss = torch.where(advantages < 0, torch.minimum(loss, ceiling), loss)
    if config.importance_cap:
        loss = loss * (old - sampled).exp().clamp(max=config.importance_cap)
    return loss, held


def kl_penalty(logps, reference_logps, sampled=None):
    """Low-variance estimate of KL(policy || reference) per token (Schulman's k3): exp(d) - d - 1, d = ref - logp, times
    the token's ratio to what it was sampled with, `sampled`; None: the policy itself, and the ratio is 1.

    The ratio's gradient says that the policy also decides how often a token comes. Without it the gradient would be
    that of KL(reference || policy) (DeepSeek-V3.2, arXiv 2512.02556).
    """
    difference = (reference_logps - logps).clamp(-20, 20)
    ratio = (logps - (logps.detach() if sampled is None else sampled)).exp()
    return ratio * (difference.exp() - difference - 1)


def loss_weight(completion: Completion, config: Config) -> tuple[float, float]:
    """(weight of each of an answer's tokens in the loss, what the answer adds to the number the loss is divided by)."""
    tokens = len(completion.ids)
    if config.skip_cut and completion.finish == "length":
        return 0.0, 0.0
    counts = {"token": tokens, "answer": 1, "constant": config.max_new_tokens}
    return 1 / tokens if config.average == "answer" else 1.0, float(counts[config.average])


def loss_total(groups: list["Group"], config: Config) -> float:
    """What the loss is divided by: the tokens (or answers) of all groups of an optimizer step, in all processes."""
    mine = sum(loss_weight(completion, config)[1] for group in groups for completion in group.completions)
    return max(1.0, sum(all_gather(mine)))


@dataclass
class Group:
    """One picture, its G answers in order, and what became of them once they are judged."""

    sample: Sample
    prompt: Prompt
    completions: list[Completion]
    codes: list[str | None]  # None: no code block in the answer
    drawing: list[Future | None]
    records: list[Record] = field(default_factory=list)
    advantages: np.ndarray | None = None  # (G,)


@dataclass
class ScoredAnswer:
    """What a packed row takes from a group: an answer, and how much better it is than the others."""

    completion: Completion
    advantage: float

    def __len__(self) -> int:
        return len(self.completion.ids)


def encode_prompts(policy: Policy, samples: Samples, indices: list[int], config: Config) -> tuple:
    """({place in the batch: (sample, prompt)} of this process, how many others were too long, what is wrong with which
    row)."""
    number, processes = rank_and_size()
    first, end = (len(indices) * share // processes for share in (number, number + 1))
    encode = lambda place, sample: (first + place, sample, policy.encode(sample))  # noqa: E731
    prompts, bad = loading.encoded(samples, indices[first:end], encode)
    short = {n: (sample, prompt) for n, sample, prompt in prompts if len(prompt.ids) <= config.max_prompt_tokens}
    return short, len(prompts) - len(short), bad


def own_drafts(policy: Policy, batch: dict[int, tuple[Sample, Prompt]], config: Config, step: int) -> dict:
    """The batch, a share of its pictures as refinement tasks: each shows an answer that the policy gives now, and G
    corrections of it are sampled. What the draft was worth is the same in all of a group: an advantage is by what a
    correction gains. A picture whose draft has no code, or is too long to be shown, stays as it was."""
    chosen = [n for n in batch if np.random.default_rng((config.seed, step, n)).random() < config.refine]
    options = (config.max_new_tokens, config.temperature, -1 - config.seed - step, config.slots)  # noise of its own
    tasks = {}
    for completion in generate(policy, [batch[place][1] for place in chosen], 1, *options, chosen):
        sample, _ = batch[completion.number]
        if code := extract_code(completion.text, sample.language):
            task = data.as_refinement(sample, code, np.random.default_rng((config.seed, step, completion.number)))
            tasks[completion.number] = task, policy.encode(task)
    return batch | {place: task for place, task in tasks.items() if len(task[1].ids) <= config.max_prompt_tokens}


def rollout(
    policy: Policy, batch: dict[int, tuple[Sample, Prompt]], renderer, config: Config, step: int, rewards=None
) -> list[Group]:
    """N samples and prompts by their place in the batch -> N Groups, the one that was sampled first in front. Programs
    are sent to the renderer, and their drawings told to the rewards, while others are still being sampled."""
    groups, answers = [], defaultdict(dict)
    with autocast(policy.device.type):
        batch = own_drafts(policy, batch, config, step) if config.refine else batch
        prompts = [prompt for _, prompt in batch.values()]
        options = (config.max_new_tokens, config.temperature, config.seed + step, config.slots)
        for completion in generate(policy, prompts, config.group, *options, list(batch)):
            (sample, prompt), members = batch[completion.number], answers[completion.number]
            code = extract_code(completion.text, sample.language)
            drawing = renderer.submit(code, sample.language, sample.image.size) if code else None
            if rewards and drawing:
                rewards.begin(sample, drawing)
            members[completion.index] = completion, code, drawing
            if len(members) == config.group:
                in_order = [members[i] for i in range(config.group)]
                groups.append(Group(sample, prompt, *map(list, zip(*in_order, strict=True))))
    return groups


def start_scoring(device: torch.device) -> None:
    """For the thread that judges while the main one trains: they share the cores, or the GPU, and wait each for its own
    work there."""
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))


def rewards_of(config: Config) -> Rewards:
    """Raises ValueError where --alignment-weight comes on top of --reward."""
    reward, share = config.reward, config.alignment_weight
    if share is not None and tuple(reward) not in ((), DEFAULTS["vincicoder"]):  # the default of before
        raise ValueError("--alignment-weight is short for a --reward of visual and alignment: give one of the two")
    chosen = reward if share is None else (f"visual={1 - share}", f"alignment={share}")
    return Rewards(chosen, config.reward_mode, config.encoder, device=config.device)


def score_groups(groups: list[Group], rewards: Rewards, config: Config, times: dict) -> None:
    """Wait for the renderings of `groups`, score them all in one call, and give each answer its advantage."""
    renderings, texts = [], []
    with timer(times, "judge/render_wait"):
        for group in groups:
            no_code = Rendering(None, f"no ```{group.sample.language} block in the answer", 0.0)
            renderings += [future.result() if future else no_code for future in group.drawing]
            texts += [completion.text for completion in group.completions]
    with timer(times, "judge/reward"):
        samples = [group.sample for group in groups for _ in group.completions]
        scores = rewards.score(samples, texts, renderings)
    totals = np.reshape([score.total for score in scores], (len(groups), -1))  # (N, G)
    measured = iter(zip(renderings, scores, strict=True))
    for group, advantages in zip(groups, group_advantages(totals, config.normalize_std, config.by_rank), strict=True):
        for c, code in zip(group.completions, group.codes, strict=True):
            about = {"tokens": len(c.ids), "finish": c.finish, "decoding": "sampled"}
            group.records.append(Record(group.sample, c.index, c.text, code, *next(measured), **about))
        group.advantages = advantages


def update(policy: Policy, groups: list[Group], total: float, config: Config, reference: Policy | None, sums):
    """Add the gradient of `groups` to the policy's, and what is logged to `sums`; `total` is the step's `loss_total`.
    Groups without advantage have no gradient: they are left out."""
    live = [group for group in groups if reference is not None or np.abs(group.advantages).max() > 0] or groups[:1]
    answers = [(group.prompt, list(map(ScoredAnswer, group.completions, group.advantages))) for group in live]
    on_device = lambda values: torch.tensor(values, dtype=torch.float32, device=policy.device)  # noqa: E731
    with on_the_device(reference, policy.device):
        for part, factor in split_rows(answers, config.row_tokens):
            row = pack([(prompt, [answer.completion.ids for answer in own]) for prompt, own in part]).to(policy.device)
            in_order = [answer for _, own in part for answer in own]
            sampled = on_device(np.concatenate([answer.completion.logps for answer in in_order]))
            weights = on_device([loss_weight(answer.completion, config)[0] for answer in in_order])[row.owner]
            advantages = on_device([answer.advantage for answer in in_order])[row.owner]
            with autocast(policy.device.type):
                logps = policy(row, config.temperature)
            loss, held = policy_loss(logps, sampled, advantages, row.owner, config)
            if reference is not None:
                with torch.no_grad(), autocast(policy.device.type):
                    reference_logps = reference(row, config.temperature)
                penalty = kl_penalty(logps, reference_logps, None if config.minibatches == 1 else sampled)
                loss = loss + config.kl * penalty
                sums["kl"] += penalty.sum().item() * bool(factor)
            loss = (loss * weights).sum() / total
            (loss * factor).backward()
            if factor:
                difference = (logps.detach() - sampled).abs()
                sums["loss"] += loss.item()
                sums["clipped"] += held.sum().item()
                sums["mismatch"] += difference.sum().item()
                sums["mismatch_max"] = max(sums["mismatch_max"], difference.max().item())
                sums["trained_tokens"] += len(logps)


def waves(groups: list[Group], config: Config, step: int) -> list[list[list[Group]]]:
    """The groups of each optimizer step of a rollout, in WAVES parts: one part trains while the next is still
    being drawn and judged. Those sampled first go first; among several optimizer steps they are dealt at random."""
    fewest = min(all_gather(len(groups)))  # all processes must agree on the number of parts
    minibatches = min(config.minibatches, fewest)
    if minibatches > 1:
        groups = [groups[i] for i in np.random.default_rng((config.seed, step)).permutation(len(groups))]
    cut = lambda groups, n: [[groups[i] for i in part] for part in np.array_split(range(len(groups)), n)]  # noqa: E731
    return [cut(minibatch, min(WAVES, fewest // minibatches)) for minibatch in cut(groups, minibatches)]


# ------------------------ the policies beside the one that is trained: the sampler of several processes, the reference


@torch.no_grad()
def copy_weights(sampler: Policy, sharded: Policy) -> None:
    """Give the sampler the weights of a sharded policy: sampling needs all of them in every process. Shards arrive in
    place, in the number format of the sampler; after sampling once, that place is the engine's buffer."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before torch 2.13
    for mine, theirs in zip(sampler.parameters(), sharded.parameters(), strict=True):
        mesh = theirs.device_mesh
        if len(theirs) % mesh.shape[-1]:
            mine.copy_(full_tensor(theirs))
        else:
            gather(mine.detach(), theirs.to_local().to(mine.dtype), group=mesh.get_group(mesh.ndim - 1))


@contextmanager
def on_the_device(policy: Policy | None, device):
    """A policy that waits in host memory (`shard` with offload), on the device for as long as it takes. What is sharded
    over several processes comes and goes by itself."""
    alone = isinstance(policy, Policy) and rank_and_size()[1] == 1
    if alone:
        policy.to(device)
    yield
    if alone:
        policy.cpu()


# ---------------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_config(PRESETS, argv)
    init_distributed(config.device)
    samples = data.load(config.data)
    loading.try_some_rows(samples, config.data)
    run = Run(config)
    if data.needs_drawing(samples):
        options = ["--svg-side", str(config.svg_side), "--timeout", str(config.render_timeout)]
        options += ["--python", config.render_python] if config.render_python else []
        options += ["--allow-unsafe-rendering"] if config.allow_unsafe_rendering else []
        samples = loading.drawn_by_a_process(config.data, run.folder / "targets", *options)
    checkpoint = latest_checkpoint(run.folder) if config.resume else None
    torch.manual_seed(config.seed)
    policy, optimizers, state = load_trainer(checkpoint, config)
    inference_dtype = torch.bfloat16 if config.device.startswith("cuda") else torch.float32  # of what is not trained
    sampler = policy  # several processes train shards of the weights; sampling wants all of them, in bf16 on GPUs
    if rank_and_size()[1] > 1:
        sampler = load_policy(checkpoint or config.model, config, inference_dtype)
    reference = policy.without_adapter if config.lora and config.kl > 0 else None
    if config.kl > 0 and not config.lora:
        reference = Policy.load(config.model, config.device, inference_dtype).shard(offload=True)
        reference.requires_grad_(False)
    rewards = rewards_of(config)
    renderer = Renderer(
        config.render_workers or max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))),
        config.render_timeout,
        svg_side=config.svg_side,
        python=config.render_python,
        allow_unsafe=config.allow_unsafe_rendering,
    )
    with ThreadPoolExecutor(1, initializer=start_scoring, initargs=[policy.device]) as scorers, renderer:
        run.start_at(start := state["step"])
        tally = Tally.of(config, samples, "--max-prompt-tokens", state)
        bar = progress_bar("ViRL", start, config.steps)
        evaluate = held_out(config, run, sampler, renderer)
        evaluate(policy, start)
        for step in bar:
            began, times, groups = time.perf_counter(), {}, []
            # 1. N pictures; G programs each, rendered as they come
            indices = loading.batch_indices(samples, config.prompts, config.seed, step, alike=False)
            indices = list(dict.fromkeys(indices))  # each row once
            batch, too_long, bad = encode_prompts(sampler, samples, indices, config)
            rewards.prepare([sample for sample, _ in batch.values()], renderer, config)
            if tally.add(len(batch), too_long, bad):  # every process has work
                if sampler is not policy:
                    copy_weights(sampler, policy)
                with timer(times, "time/rollout"), half_the_threads():
                    groups = rollout(sampler, batch, renderer, config, step, rewards)
                    sampler.engine.release_memory()
                # 2. in waves: how much better than its group is each program, and the gradient that makes it likelier
                lr = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
                parts = waves(groups, config, step)
                every = [wave for part in parts for wave in part]
                judged = iter([scorers.submit(score_groups, wave, rewards, config, times) for wave in every])
                sums, norms = defaultdict(float), []
                for minibatch in parts:
                    total = loss_total(sum(minibatch, []), config)
                    for wave in minibatch:
                        with timer(times, "time/held_up"):
                            next(judged).result()
                        with timer(times, "time/update"):
                            update(policy, wave, total, config, reference, sums)
                    with timer(times, "time/update"):
                        norms.append(optimizer_step(policy, optimizers, lr, config.grad_clip))
                # 3. say what happened
                seconds = time.perf_counter() - began
                metrics = {"step": step, "lr": lr} | rollout_metrics(groups) | training_metrics(sums, norms)
                metrics |= times | {"time/step": seconds, "held_up": times["time/held_up"] / times["time/rollout"]}
                metrics["dropped_prompts"] = len(indices) - sum(all_gather(len(groups)))
                run.log(metrics | tally.metrics() | {"tokens_per_second": metrics["tokens"] / seconds})
                bar.set_postfix_str(status_line(metrics))
            evaluate(policy, step + 1)
            ended = step + 1 == config.steps
            if ended or (step + 1) % config.save_every == 0:
                save_checkpoint(run.folder, step + 1, policy, optimizers, tally.state(), config.keep)
                if ended:
                    run.wait_for_pages()
                if groups and not run.is_drawing():
                    write_samples(run, step, groups)
                    run.draw("curves", "page", ended=ended)
    said = tally.end()
    if run.writes:
        print(f"ViRL done: {latest_checkpoint(run.folder)}{said}")


if __name__ == "__main__":
    run_script(main, PRESETS)
