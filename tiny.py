"""A tiny model: the real classes, small and with random weights, and a tokenizer trained on procedural programs.

python tiny.py runs/tiny                      # a tiny Qwen3-VL, as an ordinary Hugging Face folder
python tiny.py runs/tiny25 --family qwen2_5_vl
"""

import environment  # noqa: F401

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import data
import synth
from model import Policy

CHAT_TEMPLATE = (  # the part of Qwen's own template that one user turn with pictures needs
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL_TOKENS += ["<|image_pad|>", "<|video_pad|>"]


def train_tokenizer(texts: Sequence[str], vocab_size: int):
    """A byte-level BPE tokenizer with Qwen's special tokens. Digits stay single, so numbers are spelled alike; other
    merges may cross words, so that a phrase like `" fill="` is one token and a tiny model's answers are short."""
    bpe = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r"\n|[0-9]|[^0-9\n]+"), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def tiny_config(family: str, tokenizer, width: int, layers: int) -> PretrainedConfig:
    head, heads = 32, width // 32
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5]}  # 16: half of a head
    text = dict(hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=heads)
    text |= dict(num_key_value_heads=heads // 2 if heads % 2 == 0 else heads, rope_parameters=rope, bos_token_id=None)
    text |= dict(vocab_size=len(tokenizer), max_position_embeddings=4096, tie_word_embeddings=True)
    text |= dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    vision = dict(depth=3, hidden_size=128, num_heads=4, patch_size=8, out_hidden_size=width, intermediate_size=256)
    if family == "qwen3_vl":
        text |= dict(head_dim=head, rope_parameters=rope | {"mrope_interleaved": True})
        vision |= dict(deepstack_visual_indexes=[1], num_position_embeddings=64)
    else:
        vision |= dict(window_size=64, fullatt_block_indexes=[1, 2])
    special = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    special |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    ids = {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in special.items()}
    return AutoConfig.for_model(family, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


def texts_of(path: Path, count: int = 2000) -> list[str]:
    """What the first rows of a data set ask and answer."""
    samples = data.load(path, count)
    return [text for _, one, _ in data.check(samples) if one for text in (one.prompt, data.answer_text(one))]


def synth_texts(count: int = 400) -> list[str]:
    samples = [synth.make(domain, i, seed=10_007, difficulty=0.2) for domain in synth.DOMAINS for i in range(count)]
    return [text for sample in samples for text in (sample.prompt, f"```{sample.language}\n{sample.code}\n```")]


@dataclass
class Create:
    """Create a tiny Qwen-VL with random weights as a Hugging Face folder, and say what it is."""

    path: tyro.conf.Positional[str]
    """Folder to write."""
    family: Literal["qwen3_vl", "qwen2_5_vl"] = "qwen3_vl"
    """Which architecture."""
    width: int = 160
    """Width of the text model (a multiple of 32)."""
    layers: int = 4
    """Layers of the text model."""
    vocab_size: int = 1024
    """Size of the byte-level BPE vocabulary."""
    pixels: int = 64 * 64
    """Pictures are resized to about so many pixels; each 256 are a token."""
    data: Path | None = None
    """Rows (as data.load reads them) whose programs the tokenizer is trained on; procedural ones if not given."""
    seed: int = 0
    """Seed of the random weights."""


def create_tiny(
    path: str | Path,
    family: Literal["qwen3_vl", "qwen2_5_vl"] = "qwen3_vl",
    texts: Sequence[str] | None = None,
    vocab_size: int = 1024,
    width: int = 160,
    layers: int = 4,
    pixels: int = 64 * 64,
    seed: int = 0,
) -> Path:
    """Create a small Qwen-VL of the real classes with random weights, as a Hugging Face folder. Pictures are resized to
    about `pixels` pixels. texts: what the tokenizer is trained on; synth.py's programs and prompts if not given."""
    tokenizer = train_tokenizer(texts if texts is not None else synth_texts(), vocab_size)
    torch.manual_seed(seed)
    hf = AutoModelForImageTextToText.from_config(tiny_config(family, tokenizer, width, layers))
    hf.generation_config.eos_token_id = tokenizer.eos_token_id
    hf.generation_config.pad_token_id = tokenizer.pad_token_id
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    image_processor = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=2, size=size)
    Policy(hf, tokenizer, image_processor).save(path)
    return Path(path)


def main() -> None:
    config = tyro.cli(Create, description=__doc__)
    try:
        texts = texts_of(config.data) if config.data else None
        shape = config.vocab_size, config.width, config.layers, config.pixels, config.seed
        create_tiny(config.path, config.family, texts, *shape)
    except (OSError, ValueError) as error:
        sys.exit(f"tiny.py: {error}")
    policy = Policy.load(config.path)
    total, vision = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (policy.hf, policy.hf.model.visual))
    print(f"{config.path}: {config.family}, {total:.2f} M parameters, {vision:.2f} M of them in the vision tower")


if __name__ == "__main__":
    main()
