"""What lives where on a GPU in each phase of a run: arithmetic from a model's shape, held against what tests measure.

Counted are weights, gradients, moments, the sampler's buffer, keys and values, and the activations at the peak, which
is the backward pass through a layer's MLP or through the log-probs. Not counted: CUDA's own half a GB and what the
allocator cannot use (hence USABLE), attention's scratch memory, the reward's encoder, --eval-data in SFT, and a frozen
vision tower's forward pass, which is smaller than that peak. Rows are of groups of eight answers, `[2,048 | 8 x 1,024]`
tokens, all of the prompt a picture's, unless settings say otherwise.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from transformers import AutoConfig, AutoModelForImageTextToText

import lora
from releases import is_adapter
from run import print_once

P, R, G = 2048, 1024, 8
PREFILL, CHUNK, SLOTS = 16384, 1024, 256  # tokens of a prefill, of the log-probs computed together; samples together
USABLE, POOL = 0.95, 0.8  # of a card: what one process gets; of what is free: what the page pool takes
GB, CARDS = 1e9, (24, 48, 80, 141)
COUNTED: dict[tuple, "WeightCount"] = {}

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
        return config_of(lora.base_of(Path(name))) if is_adapter(Path(name)) else AutoConfig.from_pretrained(name)
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


@dataclass(frozen=True)
class Plan:
    """What decides how much memory a run takes, besides the model."""

    gpus: int = 1
    row_tokens: int = 32768
    lora: int | None = None  # rank
    targets: tuple[str, ...] = ()
    checkpointing: bool = True
    frozen_vision: bool = False
    samples: bool = True  # ViRL; SFT only trains
    reference: bool = False  # a copy for the KL
    one: int = 2  # bytes of a number in the forward pass; on a CPU 4, and what is sampled from is what is trained
    prompt: int = P  # tokens
    answer: int = R
    group: int = G
    prefill: int = PREFILL
    slots: int = SLOTS
    pictures: float = P / (P + G * R)  # share of a row's tokens


@dataclass
class WeightCount:
    """How many numbers: of all weights, of the text model and head, of one decoder layer, of what is in no layer
    (embedding, head, mergers), of an adapter, of the text model's matrices that it adds to, and into these how many
    numbers of a token go in a layer, and ranks."""

    total: int
    text: int
    layer: int
    others: int
    adapter: int = 0
    adapted: int = 0
    inputs: int = 0
    ranks: int = 0


def count_weights(config, rank: int | None = None, targets: tuple[str, ...] = ()) -> WeightCount:
    """From the real classes, on the meta device, once for each shape."""
    shape = config.to_json_string(use_diff=False), rank, targets
    if shape not in COUNTED:
        COUNTED[shape] = _counted(config, rank, targets)
    return COUNTED[shape]


def _counted(config, rank: int | None, targets: tuple[str, ...]) -> WeightCount:
    with torch.device("meta"):
        hf = AutoModelForImageTextToText.from_config(config)
    hf.tie_weights()
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    layers, total, visual = hf.model.language_model.layers, count(hf), count(hf.model.visual)
    counted = WeightCount(
        total, total - visual, count(layers[0]), total - count(layers) - count(hf.model.visual.blocks)
    )
    names = lora.pattern(hf, targets) if rank else "(?!)"
    for name, module in hf.named_modules():
        if re.fullmatch(names, name):
            counted.adapter += rank * sum(module.weight.shape)
            if ".language_model." in name:
                counted.adapted += module.weight.numel()
            if ".language_model.layers.0." in name:
                counted.inputs, counted.ranks = counted.inputs + module.in_features, counted.ranks + rank
    return counted


def key_value_bytes(config, one: int = 2) -> int:
    """Bytes of the keys and values of one token; `one` of a number."""
    text = config.text_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head * one


def lives(config, plan: Plan) -> dict[str, tuple[float, float]]:
    """{what: (bytes in a rollout, bytes at the peak of training)} on each of the GPUs of a machine."""
    w, gpus, one, adapter = count_weights(config, plan.lora, plan.targets), plan.gpus, plan.one, plan.lora is not None
    parts, V, h = {}, config.text_config.vocab_size, config.text_config.hidden_size
    trained = w.adapter if adapter else w.total
    if adapter:
        parts["base, frozen"] = (one * w.total / gpus,) * 2
    parts["weights that are trained, fp32"] = (4 * trained / gpus,) * 2
    parts["Adam's moments, fp32"] = (8 * trained / gpus,) * 2
    parts["gradients, fp32"] = (0, 4 * trained / gpus)
    if plan.samples and gpus > 1:
        parts["weights to sample from"] = (2 * w.total + 4 * w.adapter + 2 * w.adapted,) * 2
    elif plan.samples and adapter:
        parts["matrices with products, to sample from"] = (one * w.adapted,) * 2
    elif plan.samples and one == 2:
        parts["weights to sample from"] = (2 * w.text,) * 2
    if plan.reference and not adapter and gpus == 1:
        parts["the KL's reference"] = (0, one * w.total)
    if gpus > 1:  # gathered in bf16; of what is trained also gradients in bf16, summed in fp32
        parts["weights outside layers, gathered"] = (0, (2 if adapter else 8) * w.others)
        parts["two layers gathered, one's gradient"] = (0, (4 if adapter else 10) * w.layer)
    elif one == 2:
        parts["autocast's copies of what is trained"] = (0, 2 * trained)
    kept, again = activations(config, plan, w)
    parts["of all layers, kept"], parts["of one layer, or log-probs"] = (0, kept), (0, again)
    if plan.samples:
        i = config.text_config.intermediate_size
        parts["a prefill, and logits"] = (plan.prefill * (6 * h + 4 * i) * one + 3 * plan.slots * V * 4, 0)
    return parts


def activations(config, plan: Plan, w: WeightCount) -> tuple[float, float]:
    """(bytes kept of all layers, bytes of what is at work) at the peak of the backward pass of a row.

    A norm keeps its input, an fp32 copy of it where that is bf16, its output and, where its gain is trained, what it
    multiplies. Attention keeps queries, keys, values, keys and values gathered for each answer, and its output; the
    MLP gate, up, SiLU and product, and two more while their gradients are made.
    """
    text, vision, T, one = config.text_config, config.vision_config, plan.row_tokens, plan.one
    adapter, in_tower = plan.lora is not None, any(target.startswith("visual.") for target in plan.targets)
    L, h, i, V = text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.vocab_size
    H, C, gpu = text.num_attention_heads, text.num_key_value_heads, plan.one == 2
    D = getattr(text, "head_dim", None) or h // H
    stream = 4 if gpu and plan.gpus == 1 and not adapter else one  # autocast leaves the residual stream in fp32
    norm = lambda number: number * (3 - adapter) + (4 if number == 2 else 0)  # noqa: E731
    per_head = norm(one) if "qwen3" in config.model_type else one
    copies = (plan.prompt + plan.group * (plan.prompt + plan.answer)) / (plan.prompt + plan.group * plan.answer)
    attention = D * (per_head * (H + C) + one * (C + 2 * copies * C + H * (1 if gpu else 2)))
    casts = 2 * (w.inputs if adapter else 5 * h) if gpu and (adapter or plan.gpus == 1) else 0
    layer = 2 * norm(stream) * h + attention + casts + 4 * i * one + w.ranks * one
    frozen = plan.frozen_vision or (adapter and not in_tower)
    patches = 0 if frozen else plan.pictures * T * vision.spatial_merge_size**2
    tower = vision.depth * patches * vision.hidden_size * (stream if plan.checkpointing else 13 * one)
    kept = L * T * (h * stream if plan.checkpointing else layer) + tower
    mlp = T * ((layer if plan.checkpointing else 0) + 2 * i * one + h * stream)
    head = 3 * T * h * stream + 2 * CHUNK * V * 4 + (0 if adapter else V * h * 4)
    return kept, max(mlp, head)


# ---------------------------------------------------------------------------------------------------------- will it fit


def plan_of(config) -> Plan:
    """Of a run's settings."""
    samples = hasattr(config, "group")
    prompt, answer = (config.max_prompt_tokens, config.max_new_tokens) if samples else (0, config.max_tokens)
    plan = Plan(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), max(config.row_tokens, prompt + answer), config.lora)
    plan = replace(plan, targets=config.lora_targets, checkpointing=config.gradient_checkpointing, samples=samples)
    plan = replace(plan, frozen_vision=config.freeze == "vision", one=2 if config.device.startswith("cuda") else 4)
    if not samples:
        return replace(plan, prompt=answer // 2, answer=answer // 2, group=1)
    plan = replace(plan, prompt=prompt, answer=answer, group=config.group, reference=config.kl > 0)
    return replace(plan, slots=config.slots, prefill=min(PREFILL, config.prompts * prompt))


def sums(config, plan: Plan) -> tuple[float, float]:
    """Bytes in a rollout, and at the peak of training."""
    return tuple(map(sum, zip(*lives(config, plan).values(), strict=True)))


def room(config, plan: Plan, usable: float) -> int:
    """Samples of the longest answer, with their shares of a prompt, whose keys and values a rollout has room for."""
    free = POOL * (usable - sums(config, plan)[0])
    return max(0, int(free / key_value_bytes(config, plan.one) / (plan.prompt / plan.group + plan.answer)))


def fits(config, plan: Plan, usable: float) -> bool:
    return sums(config, plan)[1] < usable and (not plan.samples or room(config, plan, usable) >= plan.group)


def remedy(config, plan: Plan, usable: float, may_be_lora: bool = True) -> str:
    """Flags with which it fits, the least change first; "" where none make it fit."""
    changes = {} if plan.checkpointing else {"--gradient-checkpointing": {"checkpointing": True}}
    changes |= {"--lora 32": {"lora": 32}} if may_be_lora and not plan.lora else {}
    shorter = plan
    while shorter.row_tokens >= 1024:
        wanted, flags = shorter, lengths(shorter, plan)
        for flag, change in [("", {}), *changes.items()]:
            wanted, flags = replace(wanted, **change), [*flags, flag]
            if fits(config, wanted, usable):
                return " ".join(filter(None, flags))
        half = shorter.row_tokens // 2
        shares = {"prompt": shorter.prompt // 2, "answer": shorter.answer // 2}  # a row holds one of each at least
        shorter = replace(shorter, row_tokens=half, **(shares if shorter.prompt + shorter.answer > half else {}))
    return ""


def lengths(plan: Plan, before: Plan) -> list[str]:
    """The flags for the lengths of rows, and of what is in them, where they have changed."""
    flags = [f"--row-tokens {plan.row_tokens}"] if plan.row_tokens != before.row_tokens else []
    if plan.answer == before.answer:
        return flags
    if not plan.samples:
        return [*flags, f"--max-tokens {plan.prompt + plan.answer}"]
    return [*flags, f"--max-prompt-tokens {plan.prompt}", f"--max-new-tokens {plan.answer}"]


def say_whether_it_fits(settings) -> None:
    """Before a run loads its model: what it will take, of what is there, and which flags would make it fit. Nothing of
    a model that cannot be read: who loads it says why."""
    try:
        config, plan = config_of(settings.model), plan_of(settings)
        rollout, training = sums(config, plan)
    except Exception:  # of transformers, and of folders
        return
    usable, where = memory_of(settings.device)
    needs = f"Memory: {training / GB:.1f} GB at the peak of training"
    needs += f", {rollout / GB:.1f} GB and keys and values in a rollout" if plan.samples else ""
    if fits(config, plan, usable):
        samples = room(config, plan, usable) if plan.samples else plan.slots
        waits = (
            f", with {samples} of the longest answers at a time, not --slots {plan.slots}"
            if samples < plan.slots
            else ""
        )
        print_once(f"{needs}, of {usable / GB:.1f} GB {where}: it fits{waits}.")
        return
    flags = remedy(config, plan, usable, may_be_lora=not settings.resume)
    advice = f"with {flags} it would" if flags else "it needs more GPUs (torchrun), larger ones or a smaller model"
    print_once(f"{needs}, of {usable / GB:.1f} GB {where}: it will hardly fit; {advice}.")


def memory_of(device: str) -> tuple[float, str]:
    """Bytes that a process gets, and of what."""
    if device.startswith("cuda"):
        return USABLE * torch.cuda.mem_get_info(torch.device(device))[0], "free on this GPU"
    words = Path("/proc/meminfo").read_text().split()
    return 1024.0 * int(words[words.index("MemAvailable:") + 1]), "available here"


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass
class Memory:
    """Say what lives where in each phase of ViRL, in GB per GPU, and what is left for keys and values; without a model,
    what fits on which card."""

    model: tyro.conf.Positional[str] = ""
    """A release's name (Qwen3-VL-8B, -4B, -2B, Qwen2.5-VL-7B, -3B) or a folder."""
    gpus: int = 8
    """GPUs of a machine; further machines change nothing."""
    row_tokens: int = 32768
    """Tokens of one packed row."""
    lora: int | None = None
    """Rank of an adapter."""
    cards: tuple[int, ...] = CARDS
    """Memory of a GPU, GB."""

    def __call__(self) -> None:
        plan = Plan(self.gpus, self.row_tokens, self.lora)
        print(table(self.model, plan, self.cards) if self.model else overview(self.cards))


def table(name: str, plan: Plan, cards: tuple[int, ...] = CARDS) -> str:
    """What `python -m report memory MODEL` prints: GB per GPU in both phases, and what is left for keys and values."""
    config = config_of(name)
    weights, parts = count_weights(config), lives(config, plan)
    lines = [f"{name}: {weights.total / GB:.3f} B weights, {plan.gpus} GPUs, rows of {plan.row_tokens} tokens", ""]
    lines += [f"{'GB per GPU':<42}{'rollout':>9}{'training':>10}"]
    shown = lambda x: f"{x / GB:.1f}" if x else "-"  # noqa: E731
    lines += [f"{what:<42}{shown(a):>9}{shown(b):>10}" for what, (a, b) in parts.items()]
    rollout, training = sums(config, plan)
    lines += [f"{'sum':<42}{rollout / GB:9.1f}{training / GB:10.1f}", ""]
    each = key_value_bytes(config)
    for card in cards:
        usable = USABLE * card * GB
        pool = max(0.0, POOL * (usable - rollout))
        flags = remedy(config, plan, usable)
        fit = "fits" if fits(config, plan, usable) else f"does not fit: {flags or 'more GPUs'}"
        holds = f"{pool / GB:.1f} GB hold {pool / each / 1e3:.0f} thousand tokens' keys and values"
        lines.append(f"{card} GB: {fit}; in a rollout {holds}, or {room(config, plan, usable)} samples *")
    host = 4 * weights.total / GB, 12 * weights.total / GB
    if not plan.lora:
        lines.append(f"host memory: {host[0]:.0f} GB a process while it loads, {host[1]:.0f} GB in the first one")
        lines[-1] += " while it saves"
    return "\n".join([*lines, f"* of {R:,} tokens, each with its share of a prompt of {P:,} tokens and {G} samples"])


def overview(cards: tuple[int, ...] = CARDS) -> str:
    """What `python -m report memory` prints, and docs/models.md has: one GPU, the gpu24 presets' lengths, with and
    without --lora 32; of ViRL how many samples of the longest answers a card has room for."""
    titles = ["one GPU, GB", "SFT", "ViRL, training", "ViRL, rollout", *(f"{card} GB" for card in cards)]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name in ("Qwen3-VL-2B", "Qwen3-VL-4B", "Qwen3-VL-8B"):
        for rank in (None, 32):
            config, sft = config_of(name), Plan(1, 8192, rank, samples=False, prompt=4096, answer=4096, group=1)
            virl = replace(sft, samples=True, prompt=2048, answer=2048, group=8, slots=64)
            row = [name + (f", --lora {rank}" if rank else ", all weights"), f"{sums(config, sft)[1] / GB:.1f}"]
            row += [f"{peak / GB:.1f}" for peak in reversed(sums(config, virl))]
            for usable in (USABLE * card * GB for card in cards):
                stages = ["SFT"] if fits(config, sft, usable) else []
                stages += [f"ViRL ({room(config, virl, usable)})"] if fits(config, virl, usable) else []
                row.append(", ".join(stages) or "-")
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)
