"""Sampling speed of the engine against Hugging Face's `generate`, in the same run, and against what the machine allows.

    python benchmarks/rollout.py --shape tiny                        # a CPU, minutes
    python benchmarks/rollout.py --shape 8b --device cuda --prompts 1 8 --prompt 2048 --new 1024

Three ways to get G samples of each of N prompts, with random weights and pictures, decoded to given lengths:
    engine       rollout.generate
    duplicated   `generate` on every prompt repeated G times, which is how TRL samples from a vision model in-process
    returned     `generate(num_return_sequences=G)`
Lengths are equal, or lognormal with the same mean and at most four times it: the end of turn is then said when the
length is reached (a mask on the logits of all three), and `generate` runs until the last one ends.

The bound: one decode step has to read the weights and every live key and value once, and to multiply once; bandwidth
and FLOP/s are measured in this run. `decode_share_of_bound` leaves out what is no decode step: running the prompts, and
recording CUDA graphs.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
import environment  # noqa: E402, F401

import torch  # noqa: E402
import transformers  # noqa: E402
from shapes import SHAPES, machine, make_policy, make_prompts, sample_lengths, synchronize  # noqa: E402

import kernels  # noqa: E402
import rollout  # noqa: E402

# ---------------------------------------------------------------------------------------------------------------------
# the three ways


@dataclass
class Run:
    """What one of them took."""

    tokens: int
    seconds: float
    prefill_tokens: int
    vision_pictures: int
    prefill_seconds: float
    capture_seconds: float = 0.0  # CUDA graphs
    steps: int = 0


def timed(engine, name: str, seconds: Counter) -> None:
    """From now on the engine adds to `seconds` what its method takes; `delattr` ends that."""
    method = getattr(engine, name)

    def with_a_clock(*arguments):
        synchronize(engine.policy.device)
        start = time.perf_counter()
        result = method(*arguments)
        synchronize(engine.policy.device)
        seconds[name] += time.perf_counter() - start
        return result

    setattr(engine, name, with_a_clock)


def by_engine(policy, prompts, G, lengths, most: int | None = None) -> Run:
    """The engine, told to end every sample at its length; `most` is the longest that it has to expect."""
    engine, seconds = policy.engine, Counter()
    engine.counters.clear()
    wanted = dict(zip(((p.sample_id, g) for p in prompts for g in range(G)), lengths.tolist(), strict=True))
    say = rollout.Scheduler.append_tokens

    def say_until_length(batch, answer, ids, logps):
        room = wanted[answer.group.prompt.sample_id, answer.index] - answer.length
        return say(batch, answer, ids[:room], logps[:room]) or len(ids) >= room

    rollout.Scheduler.append_tokens = say_until_length
    for name in ("prefill", "capture"):
        timed(engine, name, seconds)
    try:
        start = time.perf_counter()
        completions = list(rollout.generate(policy, prompts, G, most or int(lengths.max()), slots=G * len(prompts)))
        took = time.perf_counter() - start
    finally:
        rollout.Scheduler.append_tokens = say
        del engine.prefill, engine.capture
    tokens, counters = sum(len(completion.ids) for completion in completions), engine.counters
    assert tokens == lengths.sum(), (tokens, lengths.sum())
    work = tokens, took, counters["prefill_tokens"], counters["vision_calls"]
    return Run(*work, seconds["prefill"], seconds["capture"], counters["steps"])


class EndAt:
    """A logits processor: allows nothing but the end of turn once a sample has its length."""

    def __init__(self, lengths, prompt_length: int, eos: int):
        self.lengths, self.prompt_length, self.eos = lengths, prompt_length, eos

    def __call__(self, ids, scores):
        done = ids.shape[1] - self.prompt_length + 1 >= self.lengths
        scores[done] = -float("inf")
        scores[:, self.eos] = torch.where(done, 0.0, -float("inf"))
        return scores


def by_hugging_face(policy, prompts, G, lengths, duplicated: bool) -> Run:
    """`generate` on all prompts at once (they have one length, so nothing is padded)."""
    hf, times = policy.hf, G if duplicated else 1
    ids = torch.stack([prompt.ids for prompt in prompts]).repeat_interleave(times, 0).to(policy.device)
    picture = lambda name: torch.cat([getattr(p, name) for p in prompts for _ in range(times)])  # noqa: E731
    ends = EndAt(torch.as_tensor(lengths, device=policy.device), ids.shape[1], policy.end)
    options = dict(do_sample=True, top_k=0, top_p=1.0, max_new_tokens=int(lengths.max()), logits_processor=[ends])
    hf.set_attn_implementation("sdpa")
    prompts_done = []

    def note_time(*_):
        if not prompts_done:  # the first of all forward passes is the one of the prompts
            synchronize(policy.device)
            prompts_done.append(time.perf_counter())

    hook = hf.register_forward_hook(note_time)
    start = time.perf_counter()
    try:
        with torch.no_grad():
            hf.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=(ids == policy.image_id).int(),
                pixel_values=picture("patches").to(policy.device),
                image_grid_thw=picture("grid").to(policy.device),
                num_return_sequences=1 if duplicated else G,
                pad_token_id=0,
                eos_token_id=policy.end,
                **options,
            )
        synchronize(policy.device)
        seconds = time.perf_counter() - start
    finally:
        hook.remove()
        hf.set_attn_implementation("packed_rows")
    return Run(int(lengths.sum()), seconds, ids.numel(), len(prompts) * times, prompts_done[0] - start)


# ---------------------------------------------------------------------------------------------------------------------
# what the machine allows


def bound_seconds(policy, lengths, P: int, G: int, bandwidth: float, flops: float) -> float:
    """The least time all decode steps can take: weights are read once a step, a prompt's keys and values once for its
    group, a response's once for itself; no step's products are faster than the machine's."""
    config, weights = policy.hf.config.text_config, policy.engine.weights
    one = weights.buffer.element_size()
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * policy.engine.head_size * one
    read = weights.buffer.numel() - (0 if weights.lm_head is weights.embed else weights.embed.numel())
    seconds = 0.0
    for step in range(1, int(lengths.max())):  # the first token comes from the prompt
        live = lengths > step
        groups = live.reshape(-1, G).any(1).sum()
        keys = (groups * P + live.sum() * step) * per_token
        seconds += max(read * one / bandwidth, 2 * read * live.sum() / flops) + keys / bandwidth
    return seconds


@dataclass
class Config:
    """Measure, print a table, write it as JSON."""

    shape: Literal[tuple(SHAPES)] = "tiny"
    """Size of the random model."""
    prompts: tuple[int, ...] = (8,)
    """N, one measurement each."""
    G: int = 8
    """Samples of each."""
    prompt: int | None = None
    """Prompt tokens; by default 384, then 48."""
    new: int | None = None
    """Mean tokens of a sample; by default 96, then 192."""
    lengths: tuple[Literal["equal", "lognormal"], ...] = ("equal", "lognormal")
    """How sample lengths spread."""
    repeats: int = 3
    """Each way is run so often, in turn; the fastest counts."""
    baselines: bool = True
    """Run Hugging Face's generate too."""
    device: str = "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """Where the figures go."""


def measure(policy, config: Config, N: int, P: int, R: int, kind: str, bandwidth: float, flops: float) -> dict:
    prompts, gpu = make_prompts(policy, N, P, P // 2), config.device == "cuda"
    lengths = sample_lengths(kind, N * config.G, R)
    ways = {"engine": by_engine}
    if config.baselines:
        ways["duplicated"] = lambda *job: by_hugging_face(*job, duplicated=True)
        ways["returned"] = lambda *job: by_hugging_face(*job, duplicated=False)
    if not hasattr(policy, "engine"):
        policy.engine = rollout.Engine(policy)
    policy.engine.release_memory()
    weights_GB = torch.cuda.memory_allocated() / 1e9 if gpu else 0.0
    best, peaks = {}, {}
    # kernels are compiled and graphs recorded, once
    first = by_engine(policy, prompts, config.G, np.maximum(2, lengths // 8), most=int(lengths.max()))
    for _ in range(config.repeats):
        for name, way in ways.items():
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            run = way(policy, prompts, config.G, lengths)
            best[name] = min(best.get(name, run), run, key=lambda run: run.seconds)
            if gpu:
                peaks[name] = torch.cuda.max_memory_allocated() / 1e9 - weights_GB
                if name == "engine" and config.baselines:
                    policy.engine.release_memory()  # its keys and values would count as theirs
    result = {"prompt": P, "new": R, "lengths": kind, "N": N, "G": config.G}
    for name, run in best.items():
        result[name] = {"tokens_per_second": round(run.tokens / run.seconds, 1), "seconds": round(run.seconds, 3)}
        result[name] |= {"prefill_seconds": round(run.prefill_seconds, 3), "prefill_tokens": run.prefill_tokens}
        result[name] |= {"vision_pictures": run.vision_pictures}
        if gpu:
            result[name]["peak_GB_beside_weights"] = round(peaks[name], 2)
    run, bound = best["engine"], bound_seconds(policy, lengths, P, config.G, bandwidth, flops)
    decoding = run.seconds - run.prefill_seconds - run.capture_seconds
    result["engine"]["ms_per_step"] = round(1000 * decoding / run.steps, 3)
    if gpu:
        result["engine"]["capture_seconds_at_first"] = round(first.capture_seconds, 2)
    result |= {"decode_bound_seconds": round(bound, 4), "share_of_bound": round(bound / run.seconds, 3)}
    result["decode_share_of_bound"] = round(bound / decoding, 3)
    for name in list(ways)[1:]:
        result[f"times_{name}"] = round(best[name].seconds / run.seconds, 2)
    return result


def main(config: Config) -> list[dict]:
    if config.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/rollout.py: there is no GPU here; leave out --device cuda.")
    dtype = torch.bfloat16 if config.device == "cuda" else torch.float32
    bandwidth, flops = machine(config.device, dtype)
    policy = make_policy(config.shape, config.device, dtype)
    kind = f"{config.shape}, {config.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{kind}, transformers {transformers.__version__}, Triton {bool(kernels.triton)}")
    print(f"{bandwidth / 1e9:.1f} GB/s, {flops / 1e12:.3f} TFLOP/s measured")
    cases = [(config.prompt or 384, config.new or 96), (config.prompt or 48, config.new or 192)]
    results = []
    cases = [(N, *case) for case in cases[: 1 if config.prompt else 2] for N in config.prompts]
    for N, P, R in cases:
        for kind in config.lengths:
            results.append(measure(policy, config, N, P, R, kind, bandwidth, flops))
            print(json.dumps(results[-1]), flush=True)
            write(config, bandwidth, flops, results)
    return results


def write(config: Config, bandwidth: float, flops: float, results: list[dict]) -> None:
    if config.out:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        machine_is = {"GB/s": round(bandwidth / 1e9, 1), "TFLOP/s": round(flops / 1e12, 3), "device": config.device}
        page = {"date": time.strftime("%Y-%m-%d"), "shape": config.shape} | versions | machine_is | {"runs": results}
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(page, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
