"""What the speed benchmarks share: random models of several sizes, prompts, lengths, and what the machine can do."""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import model  # noqa: E402
import packing  # noqa: E402
import tiny  # noqa: E402

SHAPES = {  # width, layers, query heads, key/value heads, head size, MLP width, vocabulary
    "tiny": (160, 4, 8, 2, 32, 480, 1024),
    "0.1b": (512, 12, 8, 4, 64, 1536, 32768),
    "2b": (2048, 28, 16, 8, 128, 6144, 151936),
    "8b": (4096, 36, 32, 8, 128, 12288, 151936),
}


def make_policy(shape: str, device: str, dtype: torch.dtype) -> model.Policy:
    """A Qwen3-VL of the given shape with random weights, made on the device; its vision tower is the tiny model's."""
    width, layers, heads, kv_heads, head, mlp, vocabulary = SHAPES[shape]
    tokenizer = tiny.train_tokenizer(["Write code that draws this picture."] * 4, 320)
    config = tiny.tiny_config("qwen3_vl", tokenizer, 160, layers)
    config.vision_config.out_hidden_size = width
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head)
    sizes |= dict(intermediate_size=mlp, vocab_size=vocabulary, max_position_embeddings=65536)
    for name, value in sizes.items():
        setattr(config.text_config, name, value)
    part = head // 2
    config.text_config.rope_parameters["mrope_section"] = [part - 2 * (part // 3), part // 3, part // 3]
    config._attn_implementation = "packed_rows"
    torch.manual_seed(0)
    transformers, _ = model.hugging_face()  # which knows the attention of packed rows
    with torch.device(device):
        hf = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    policy = model.Policy(hf.eval(), tokenizer, image_processor=None)
    policy.end, policy.eos_ids = policy.eos_ids[0], []  # random weights say the end of turn anywhere: lengths are given
    return policy


def make_prompts(policy: model.Policy, count: int, length: int, picture_tokens: int) -> list[packing.Prompt]:
    """Random prompts of `length` tokens of which about `picture_tokens` belong to a random picture."""
    side = max(1, int(picture_tokens**0.5))
    grid = (1, side * policy.merge, side * policy.merge)
    generator = torch.Generator().manual_seed(1)
    prompts = []
    for i in range(count):
        text = torch.randint(10, 250, (length - side * side - 1,), generator=generator).tolist()
        picture = [policy.hf.config.vision_start_token_id] + [policy.image_id] * side * side  # `generate` counts starts
        ids = text[:4] + picture + text[4:]
        positions, after = packing.mrope_positions(ids, [grid], policy.image_id, policy.merge)
        patches = torch.randn(grid[1] * grid[2], 3 * 2 * 8 * 8, generator=generator)
        prompts.append(packing.Prompt(f"p{i}", torch.tensor(ids), positions, after, patches, torch.tensor([grid])))
    return prompts


def sample_lengths(kind: str, count: int, mean: int) -> np.ndarray:
    """(count,) tokens per sample."""
    if kind == "equal":
        return np.full(count, mean)
    draws = np.random.default_rng(0).lognormal(0, 0.8, count)
    return np.clip((draws * mean / draws.mean()).astype(int), 2, 4 * mean)


def synchronize(device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def measured(function, device, repeats: int = 5) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def machine(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """(bytes per second of a copy, read and write; FLOP/s of a large matrix product)."""
    n, side = (2**30, 8192) if device == "cuda" else (2**26, 1024)
    source, target = torch.ones(2, n, dtype=torch.uint8, device=device)
    a, b = torch.ones(2, side, side, dtype=dtype, device=device)
    bandwidth = 2 * n / measured(lambda: target.copy_(source), device)
    return bandwidth, 2 * side**3 / measured(lambda: a @ b, device)
