"""What a ViRL step costs in a group-packed row against one padded sample per row; what chunked log-probs save.

    python benchmarks/train.py                                # a CPU, a minute
    python benchmarks/train.py --shape 2b --device cuda --prompt 2048 --response 512

The step is forward and backward of the policy gradient of N groups of G answers:
    packed       `[prompt | r1 | .. | rG]`, one row per group, prompt and picture once (train_virl.update does this)
    per sample   the same packing with G = 1: no padding, but every answer behind its own prompt and picture
    padded       Hugging Face's forward on right-padded batches of one group's G samples, log-probs from whole logits
All three have the same gradient (tests/test_model.py); here it is compared with the packed one's once more. For the
packed one `gradient_apart` compares two runs: a GPU adds in another order each time.
"""

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import environment  # noqa: E402, F401

import shapes  # noqa: E402
import torch  # noqa: E402

import model  # noqa: E402
import packing  # noqa: E402


def packed(policy, groups) -> torch.Tensor:
    total = 0.0
    for prompt, responses in groups:
        total = total + backward(policy(packing.pack([(prompt, responses)]).to(policy.device)))
    return total


def per_sample(policy, groups) -> torch.Tensor:
    total = 0.0
    for prompt, responses in groups:
        row = packing.pack([(prompt, [response]) for response in responses]).to(policy.device)
        total = total + backward(policy(row))
    return total


def padded(policy, groups) -> torch.Tensor:
    total = 0.0
    for prompt, responses in groups:
        P, longest = len(prompt.ids), max(map(len, responses))
        ids = torch.zeros(len(responses), P + longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, response in enumerate(responses):
            both = torch.cat([prompt.ids, torch.as_tensor(response)])
            ids[row, : len(both)], mask[row, : len(both)] = both, 1
        logits = policy.hf(
            input_ids=ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            mm_token_type_ids=(ids == policy.image_id).int().to(policy.device),
            pixel_values=prompt.patches.repeat(len(responses), 1).to(policy.device),
            image_grid_thw=prompt.grid.repeat(len(responses), 1).to(policy.device),
            use_cache=False,
        ).logits[:, P - 1 : -1]
        logps = logits.float().log_softmax(-1).gather(-1, ids[:, P:, None].to(policy.device))[..., 0]
        total = total + backward(logps[mask[:, P:].bool().to(policy.device)])
    return total


def backward(logps: torch.Tensor) -> float:
    """A policy gradient with made-up advantages, the same for the same tokens in the same order."""
    loss = (logps * torch.linspace(-1, 1, len(logps), device=logps.device)).sum()
    loss.backward()
    return loss.item()


def gradient(policy, way, groups) -> torch.Tensor:
    policy.zero_grad()
    way(policy, groups)
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


class PeakMemory:
    """Most memory in use while inside, GB above what was there before: CUDA's own count, or the resident set on a CPU,
    watched from a thread."""

    def __init__(self, device):
        self.cuda = torch.device(device).type == "cuda"

    def _now(self) -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e9

    def __enter__(self):
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 1e9
            return self
        self.before = self.most = self._now()
        self.watching = True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.watching:
            self.most = max(self.most, self._now())
            time.sleep(0.001)

    def __exit__(self, *_):
        if self.cuda:
            self.GB = torch.cuda.max_memory_allocated() / 1e9 - self.before
            return
        self.watching = False
        self.thread.join()
        self.GB = self.most - self.before


def log_probs(device, dtype, tokens: int, width: int, vocabulary: int, chunk: int, repeats: int) -> dict:
    """Peak and time, forward and backward, of chunked log-probs against whole logits."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, dtype=dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=device, dtype=dtype) * width**-0.5).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), device=device)
    ways = {
        "chunked": lambda: model.token_logprobs(hidden, weight, targets, 1.0, chunk),
        "whole": lambda: (hidden @ weight.T).float().log_softmax(-1).gather(-1, targets[:, None]),
    }
    result = {"tokens": tokens, "width": width, "vocabulary": vocabulary, "chunk": chunk}
    for name, way in ways.items():

        def run(way=way):
            hidden.grad = weight.grad = None
            way().sum().backward()

        try:
            with PeakMemory(device) as memory:
                run()
            result[name] = {"peak_GB": round(memory.GB, 3), "seconds": round(shapes.measured(run, device, repeats), 4)}
        except torch.OutOfMemoryError:
            result[name] = {"error": "does not fit into the GPU's memory"}
    return result


@dataclass
class Config:
    """Measure, print, write."""

    shape: Literal[tuple(shapes.SHAPES)] = "tiny"
    """Size of the random model."""
    groups: int = 4
    """N."""
    G: int = 8
    """Answers of each."""
    prompt: int = 384
    """P, prompt tokens."""
    response: int = 96
    """R, tokens of an answer: lognormal around this mean."""
    repeats: int = 3
    """Each way is run so often; the fastest counts."""
    logprob_tokens: int = 2048
    """Tokens of the log-prob measurement."""
    logprob_vocabulary: int = 32768
    """Its vocabulary."""
    logprob_width: int | None = None
    """Its width; the model's if not given."""
    chunk: int = 256
    """Its chunk."""
    device: str = "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """Where the figures go."""


def main(config: Config) -> dict:
    if config.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/train.py: there is no GPU here; leave out --device cuda.")
    dtype = torch.bfloat16 if config.device == "cuda" else torch.float32
    policy = shapes.make_policy(config.shape, config.device, dtype).train()
    prompts = shapes.make_prompts(policy, config.groups, config.prompt, config.prompt // 2)
    lengths = shapes.sample_lengths("lognormal", config.groups * config.G, config.response).reshape(-1, config.G)
    rng = np.random.default_rng(0)
    answers = [[rng.integers(10, 250, length) for length in row] for row in lengths]
    groups = list(zip(prompts, answers, strict=True))
    ways = {"packed": packed, "per_sample": per_sample, "padded": padded}
    reference = gradient(policy, packed, groups)
    result = {"shape": config.shape, "N": config.groups, "G": config.G, "P": config.prompt, "R": float(lengths.mean())}
    for name, way in ways.items():
        policy.hf.set_attn_implementation("sdpa" if way is padded else "packed_rows")
        try:
            with PeakMemory(config.device) as memory:
                apart = (gradient(policy, way, groups) - reference).norm() / reference.norm()
            seconds = shapes.measured(lambda way=way: gradient(policy, way, groups), config.device, config.repeats)
        except torch.OutOfMemoryError:
            result[name] = {"error": "does not fit into the GPU's memory"}
            continue
        result[name] = {"seconds": round(seconds, 3), "gradient_apart": float(f"{apart.item():.1e}")}
        if config.device == "cuda":  # a CPU process does not give back what an earlier way took
            result[name]["peak_GB"] = round(memory.GB, 3)
        if name != "packed":
            result[f"packed_is_faster_than_{name}"] = round(seconds / result["packed"]["seconds"], 2)
    width = config.logprob_width or policy.hf.config.text_config.hidden_size
    size = (config.logprob_tokens, width, config.logprob_vocabulary, config.chunk)
    result["log_probs"] = log_probs(config.device, dtype, *size, config.repeats)
    print(json.dumps(result, indent=1))
    if config.out:
        page = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "device": config.device} | result
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(page, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
