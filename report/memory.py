"""What lives where on a GPU in each phase of ViRL: arithmetic from a model's shape, held against measurements in tests.

Rows are of groups of eight answers, `[2,048 | 8 x 1,024]` tokens, all of the prompt a picture's.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from transformers import AutoConfig, AutoModelForImageTextToText

P, R, G = 2048, 1024, 8
PREFILL, CHUNK, SLOTS = 16384, 1024, 256  # tokens of a prefill, of the log-probs computed together; samples together
USABLE, POOL = 0.95, 0.8  # of a card: what one process gets; of what is free: what the page pool takes

_TEXT = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
_TEXT += ["intermediate_size", "vocab_size"]
_VISION = ["depth", "hidden_size", "intermediate_size", "out_hidden_size"]
RELEASES = {  # name: text model, vision tower, whether embedding and head are one
    "Qwen3-VL-8B": ((4096, 36, 32, 8, 12288, 151936), (27, 1152, 4304, 4096), False),
    "Qwen3-VL-4B": ((2560, 36, 32, 8, 9728, 151936), (24, 1024, 4096, 2560), True),
    "Qwen3-VL-2B": ((2048, 28, 16, 8, 6144, 151936), (24, 1024, 4096, 2048), True),
    "Qwen2.5-VL-7B": ((3584, 28, 28, 4, 18944, 152064), (32, 1280, 3420, 3584), False),
    "Qwen2.5-VL-3B": ((2048, 36, 16, 2, 11008, 151936), (32, 1280, 3420, 2048), True),
}


def config_of(name: str):
    """A release's config by name (nothing is downloaded), or a folder's. ValueError for an unknown name."""
    if Path(name).is_dir():
        return AutoConfig.from_pretrained(name)
    release = name.removeprefix("Qwen/").removesuffix("-Instruct")
    if release not in RELEASES:
        raise ValueError(f"{name} is no folder; releases whose shape is known: {', '.join(RELEASES)}.")
    text, vision, tied = RELEASES[release]
    text, vision = dict(zip(_TEXT, text, strict=True)), dict(zip(_VISION, vision, strict=True)) | {"num_heads": 16}
    family = "qwen2_5_vl"
    if release.startswith("Qwen3"):
        deep = [vision["depth"] * (i + 1) // 4 for i in range(3)]
        family, text, vision = "qwen3_vl", text | {"head_dim": 128}, vision | {"deepstack_visual_indexes": deep}
    return AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=tied)


@dataclass
class WeightCount:
    """How many numbers: of all weights, of one decoder layer, of what is in no layer (embedding, head, mergers)."""

    total: int
    layer: int
    others: int


def count_weights(config) -> WeightCount:
    """From the real classes, on the meta device."""
    with torch.device("meta"):
        hf = AutoModelForImageTextToText.from_config(config)
    hf.tie_weights()
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    layers = hf.model.language_model.layers
    return WeightCount(count(hf), count(layers[0]), count(hf) - count(layers) - count(hf.model.visual.blocks))


def key_value_bytes(config, one: int = 2) -> int:
    """Bytes of the keys and values of one token; `one` of a number."""
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * one


def lives(config, gpus: int = 8, row_tokens: int = 32768, one: int = 2, pictures: float = P / (P + G * R)):
    """{what: (bytes in a rollout, bytes at the peak of training)} on each of the GPUs of a machine.

    one: bytes of a number in the forward pass (fp32 on a CPU: 4; then what is sampled from is what is trained).
    pictures: share of a row's tokens that stand for pictures.
    """
    text, vision, weights, T = config.text_config, config.vision_config, count_weights(config), row_tokens
    h, i, V, H = text.hidden_size, text.intermediate_size, text.vocab_size, text.num_attention_heads
    C = text.num_key_value_heads
    D = getattr(text, "head_dim", None) or h // H
    patches = pictures * T * vision.spatial_merge_size**2
    kept = text.num_hidden_layers * T * h + vision.depth * patches * vision.hidden_size + 3 * T * h
    copies = (P + G * (P + R)) / (P + G * R)  # keys and values of a prompt are gathered for each of its answers
    again = T * (6 * h + 4 * i + (6 * H + 2 * copies * C) * D)  # norms, projections, attention, MLP of a layer
    head = 2 * CHUNK * V * 4 + V * h * 4  # logits of a chunk and their gradient; the head's gradient in fp32
    parts = {
        "weights, fp32": (4 * weights.total / gpus,) * 2,
        "Adam's moments, fp32": (8 * weights.total / gpus,) * 2,
        "gradients, fp32": (0, 4 * weights.total / gpus),
    }
    if one == 2:
        parts["weights to sample from, bf16"] = (2 * weights.total,) * 2
    if gpus > 1:  # gathered in bf16, their gradients in bf16 and summed in fp32
        parts["weights outside layers, gathered"] = (0, 8 * weights.others)
        parts["two layers gathered, one's gradient"] = (0, 10 * weights.layer)
    elif one == 2:
        parts["autocast's copies of weights, bf16"] = (0, 2 * weights.total)
    parts["inputs of all layers, kept"] = (0, kept * (one if gpus > 1 else 4))  # autocast leaves them in fp32
    parts["one layer again, or log-probs"] = (0, max(again * one, head))
    parts["a prefill, and logits"] = (PREFILL * (6 * h + 4 * i) * one + 3 * SLOTS * V * 4, 0)
    return parts


@dataclass
class Memory:
    """Say what lives where in each phase of ViRL, in GB per GPU, and what is left for keys and values."""

    model: tyro.conf.Positional[str]
    """A release's name (Qwen3-VL-8B, -4B, -2B, Qwen2.5-VL-7B, -3B) or a folder."""
    gpus: int = 8
    """GPUs of a machine; further machines change nothing."""
    row_tokens: int = 32768
    """Tokens of one packed row."""
    cards: tuple[int, ...] = (80, 141)
    """Memory of a GPU, GB."""

    def __call__(self) -> None:
        print(table(self.model, self.gpus, self.row_tokens, self.cards))


def table(name: str, gpus: int = 8, row_tokens: int = 32768, cards: tuple[int, ...] = (80, 141)) -> str:
    """What `python -m report memory` prints: GB per GPU in both phases, and what is left for keys and values."""
    config, GB = config_of(name), 1e9
    weights, parts = count_weights(config), lives(config, gpus, row_tokens)
    lines = [f"{name}: {weights.total / GB:.3f} B weights, {gpus} GPUs, rows of {row_tokens} tokens", ""]
    lines += [f"{'GB per GPU':<38}{'rollout':>9}{'training':>10}"]
    shown = lambda x: f"{x / GB:.1f}" if x else "-"  # noqa: E731
    lines += [f"{what:<38}{shown(a):>9}{shown(b):>10}" for what, (a, b) in parts.items()]
    rollout, training = (sum(column) for column in zip(*parts.values(), strict=True))
    lines += [f"{'sum':<38}{rollout / GB:9.1f}{training / GB:10.1f}", ""]
    each = key_value_bytes(config)
    for card in cards:
        pool = max(0.0, POOL * (USABLE * card * GB - rollout))
        slots = int(pool / each / (P / G + R))
        fits = "fits" if training < USABLE * card * GB else "does not fit: fewer --row-tokens, or more GPUs"
        holds = f"{pool / GB:.1f} GB hold {pool / each / 1e3:.0f} thousand tokens' keys and values, or {slots} samples"
        lines.append(f"{card} GB: training {fits}; in a rollout {holds} *")
    host = (
        f"{4 * weights.total / GB:.0f} GB a process while it loads, {12 * weights.total / GB:.0f} GB in the first one"
    )
    lines.append(f"host memory: {host} while it saves")
    return "\n".join([*lines, f"* of {R:,} tokens, each with its share of a prompt of {P:,} tokens and {G} samples"])
