"""Sampling speed of the engine against Hugging Face's `generate`, in the same run, and against what the machine allows.

    python benchmarks/rollout.py --shape tiny                        # a CPU, minutes
    python benchmarks/rollout.py --shape 8b --device cuda --prompts 8 --prompt 2048 --new 1024

Three ways to get G samples of each of N prompts, with random weights and pictures, decoded to given lengths:
    engine       rollout.generate
    duplicated   `generate` on every prompt repeated G times, which is how TRL samples from a vision model in-process
    returned     `generate(num_return_sequences=G)`
Lengths are equal, or lognormal with the same mean and at most four times it: the end of turn is then said when the
length is reached (a mask on the logits of all three), and `generate` runs until the last one ends.

The bound: one decode step has to read the weights and every live key and value once, and to multiply once; bandwidth
and FLOP/s are measured in this run.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from shapes import SHAPES, machine, make_policy, make_prompts, sample_lengths, synchronize  # noqa: E402

import kernels  # noqa: E402
import model  # noqa: E402
import rollout  # noqa: E402

# ---------------------------------------------------------------------------------------------------------------------
# the three ways; each returns (tokens, seconds, prompt tokens run, vision tower runs)


def by_engine(policy, prompts, G, lengths):
    """The engine, told to end every sample at its length."""
    engine = policy.engine
    engine.counters.clear()
    wanted = dict(zip(((p.sample_id, g) for p in prompts for g in range(G)), lengths.tolist(), strict=True))
    say = rollout.Batch.say

    def say_until_length(batch, answer, ids, logps):
        room = wanted[answer.group.prompt.sample_id, answer.index] - answer.length
        return say(batch, answer, ids[:room], logps[:room]) or len(ids) >= room

    rollout.Batch.say = say_until_length
    try:
        start = time.perf_counter()
        completions = list(rollout.generate(policy, prompts, G, int(lengths.max()), slots=G * len(prompts)))
        seconds = time.perf_counter() - start
    finally:
        rollout.Batch.say = say
    tokens = sum(len(completion.ids) for completion in completions)
    assert tokens == lengths.sum(), (tokens, lengths.sum())
    return tokens, seconds, engine.counters["prefill_tokens"], engine.counters["vision_calls"]


class EndAt:
    """A logits processor: allows nothing but the end of turn once a sample has its length."""

    def __init__(self, lengths, prompt_length: int, eos: int):
        self.lengths, self.prompt_length, self.eos = lengths, prompt_length, eos

    def __call__(self, ids, scores):
        done = ids.shape[1] - self.prompt_length + 1 >= self.lengths
        scores[done] = -float("inf")
        scores[:, self.eos] = torch.where(done, 0.0, -float("inf"))
        return scores


def by_hugging_face(policy, prompts, G, lengths, duplicated: bool):
    """`generate` on all prompts at once (they have one length, so nothing is padded)."""
    hf, times = policy.hf, G if duplicated else 1
    towers = []
    hook = hf.model.visual.register_forward_hook(lambda module, inputs, output: towers.append(inputs))
    ids = torch.stack([prompt.ids for prompt in prompts]).repeat_interleave(times, 0).to(policy.device)
    picture = lambda name: torch.cat([getattr(p, name) for p in prompts for _ in range(times)])  # noqa: E731
    ends = EndAt(torch.as_tensor(lengths, device=policy.device), ids.shape[1], policy.end)
    options = dict(do_sample=True, top_k=0, top_p=1.0, max_new_tokens=int(lengths.max()), logits_processor=[ends])
    hf.set_attn_implementation("sdpa")
    start = time.perf_counter()
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
    hook.remove()
    hf.set_attn_implementation("packed_rows")
    return int(lengths.sum()), seconds, ids.numel(), len(prompts) * times


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
    prompts: int = 8
    """N."""
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


def measure(policy, config: Config, P: int, R: int, kind: str, bandwidth: float, flops: float) -> dict:
    prompts = make_prompts(policy, config.prompts, P, P // 2)
    lengths = sample_lengths(kind, config.prompts * config.G, R)
    ways = {"engine": by_engine}
    if config.baselines:
        ways["duplicated"] = lambda *job: by_hugging_face(*job, duplicated=True)
        ways["returned"] = lambda *job: by_hugging_face(*job, duplicated=False)
    if not hasattr(policy, "engine"):
        policy.engine = rollout.Engine(policy)
    best = {}
    by_engine(policy, prompts, config.G, lengths)  # kernels are compiled and graphs recorded, once
    for _ in range(config.repeats):
        for name, way in ways.items():
            run = way(policy, prompts, config.G, lengths)
            best[name] = min(best.get(name, run), run, key=lambda figures: figures[1])
    result = {"prompt": P, "new": R, "lengths": kind, "N": config.prompts, "G": config.G}
    for name, (tokens, seconds, prefill, vision) in best.items():
        result[name] = {"tokens_per_second": round(tokens / seconds, 1), "seconds": round(seconds, 3)}
        result[name] |= {"prefill_tokens": prefill, "vision_pictures": vision}
    bound = bound_seconds(policy, lengths, P, config.G, bandwidth, flops)
    result |= {"decode_bound_seconds": round(bound, 4), "share_of_bound": round(bound / best["engine"][1], 3)}
    for name in list(ways)[1:]:
        result[f"times_{name}"] = round(best[name][1] / best["engine"][1], 2)
    if config.device == "cuda":
        result["peak_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return result


def main(config: Config) -> list[dict]:
    if config.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/rollout.py: there is no GPU here; leave out --device cuda.")
    dtype = torch.bfloat16 if config.device == "cuda" else torch.float32
    bandwidth, flops = machine(config.device, dtype)
    policy = make_policy(config.shape, config.device, dtype)
    kind = f"{config.shape}, {config.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{kind}, transformers {model.transformers.__version__}, Triton {bool(kernels.triton)}")
    print(f"{bandwidth / 1e9:.1f} GB/s, {flops / 1e12:.3f} TFLOP/s measured")
    cases = [(config.prompt or 384, config.new or 96), (config.prompt or 48, config.new or 192)]
    results = []
    for P, R in cases[: 1 if config.prompt else 2]:
        for kind in config.lengths:
            results.append(measure(policy, config, P, R, kind, bandwidth, flops))
            print(json.dumps(results[-1]))
    if config.out:
        versions = {"torch": torch.__version__, "transformers": model.transformers.__version__}
        machine_is = {"GB/s": round(bandwidth / 1e9, 1), "TFLOP/s": round(flops / 1e12, 3), "device": config.device}
        page = {"date": time.strftime("%Y-%m-%d"), "shape": config.shape} | versions | machine_is | {"runs": results}
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(page, indent=1) + "\n")
    return results


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
