"""The folder of a Qwen-VL checkpoint around its weights: found, read, checked before anything is trained, written back.

What a run saves is the folder that was loaded with other weights: config, tokenizer, chat template, processors and
generation config are its own bytes, so whoever opens a release (transformers 4.57 and 5, vLLM) opens what was made of
it. A folder that lacks something, or asks for something that this project would not do, is refused in one sentence.
"""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
FILES += ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
FILES += ("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
INDEX = "model.safetensors.index.json"
WEIGHTS = ("*.safetensors", INDEX)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")  # PEFT's settings and weights
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}

# Options of a text model that Hugging Face's code or others' would follow and the sampler or packed rows would not,
# with the values at which they change nothing.
WITHOUT_EFFECT = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (None, False),
    "attention_dropout": (None, 0),
    "mlp_bias": (None, False),
    "num_experts": (None, 0),
    "attention_chunk_size": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "partial_rotary_factor": (None, 1),
    "rope_type": ("default", "linear", "llama3", "yarn"),  # others' frequencies change with the length of a text
}


# ------------------------------------------------------------------------------------------------------- found and read


def find_folder(path: str | Path) -> Path:
    """The folder of a model: `path` itself, or where a hub name's files are, which are downloaded if need be."""
    path = str(path)
    if Path(path).is_dir():
        return Path(path)
    if path.startswith((".", "/", "runs/")) or path.count("/") != 1:
        remedy = f"Make a tiny model with `python tiny.py {path}`, or give a hub name"
        raise FileNotFoundError(f"{path}: no such folder. {remedy}.")
    try:
        return Path(snapshot_download(path, allow_patterns=[*FILES, *WEIGHTS, *ADAPTER]))
    except Exception as error:  # offline, an unknown name, a licence not accepted: each has an error of its own
        what = f"{path} is no folder here, and the Hugging Face hub did not give it ({first_line(error)})"
        raise FileNotFoundError(f"{what}. Offline, download it elsewhere and give its folder.") from error


def read_files(folder: Path) -> dict[str, bytes]:
    """{name: content} of everything but weights. Kept in memory: a run outlives the checkpoint that it goes on from.
    Raises ValueError for an invalid json file: transformers passes over some without a word."""
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    for name, content in files.items():
        try:
            said = json.loads(content.decode()) if name.endswith(".json") else {}  # decoded: a BOM is refused here, too
        except ValueError as error:
            raise broken(f"{folder}/{name} is no JSON ({error})") from None
        if not isinstance(said, dict):
            raise broken(f"{folder}/{name} holds no JSON object")
    return files


def read_config(folder: Path, files: dict[str, bytes]):
    """The transformers config of a folder. Raises ValueError where it holds no model that can be trained here as it is
    meant."""
    said = json.loads(files.get("config.json", b"{}"))
    family = said.get("model_type")
    if family is None:
        what = f"{folder} is no model's folder, it has no config.json with a model_type"
        raise ValueError(f"{what}; of a run, give checkpoints/step-N.")
    if family not in FAMILIES:
        raise ValueError(f"{folder} is a {family} model; nanovinci trains {' and '.join(FAMILIES)}.")
    if quantized := said.get("quantization_config") or said.get("compression_config"):
        method = quantized.get("quant_method", "") if isinstance(quantized, dict) else ""
        raise ValueError(f"{folder} is quantized ({method}): give the model that was, in 16 or 32 bits.")
    text = said.get("text_config") or (said if family == "qwen2_5_vl" else None)  # whose older configs are flat
    for name, part in (("text_config", text), ("vision_config", said.get("vision_config"))):
        if not isinstance(part, dict):
            raise broken(f"{folder}/config.json has no {name}")
    from transformers import AutoConfig

    config = readable(f"{folder}/config.json", "it", AutoConfig.from_pretrained, folder)
    if not any("rope_theta" in (part or {}) for part in (text, text.get("rope_parameters"), text.get("rope_scaling"))):
        raise broken(f"{folder}/config.json has no rope_theta, and a default need not be what it was trained with")
    if not {"preprocessor_config.json", "processor_config.json"} & files.keys():
        raise broken(f"{folder} has no preprocessor_config.json")
    if unread := unread_options(config):
        asked = ", ".join(unread)
        raise ValueError(f"{folder}/config.json asks for what nanovinci does not do: {asked}; give a model without.")
    return config


def unread_options(config) -> list[str]:
    """Options of the text model, as "name value", that would change its numbers and that the sampler would ignore."""
    text, rope = config.text_config, config.text_config.rope_parameters
    said = {name: rope.get(name, getattr(text, name, None)) for name in WITHOUT_EFFECT}
    interleaved = config.model_type == "qwen3_vl"
    if not interleaved:  # Qwen2.5-VL has biases on queries, keys and values whatever is said
        said["attention_bias"] = None
    unread = [f"{name} {value}" for name, value in said.items() if value not in WITHOUT_EFFECT[name]]
    windows = getattr(text, "use_sliding_window", False)
    layers = getattr(text, "layer_types", None) or ["sliding_attention" if windows else "full_attention"]
    if set(layers) != {"full_attention"}:
        unread.append("use_sliding_window True")
    if rope.get("mrope_interleaved", interleaved) != interleaved:
        unread.append(f"mrope_interleaved {not interleaved}")
    return unread


def is_adapter(folder: Path) -> bool:
    """Whether it holds a LoRA adapter, whose base lies elsewhere, and no model."""
    return (folder / ADAPTER[0]).is_file() and not any((folder / name).exists() for name in ("config.json", INDEX))


def weight_files(folder: Path) -> list[Path]:
    """The files that have to hold a folder's weights, whether they are there or not."""
    if (folder / INDEX).exists() and not (folder / "model.safetensors").exists():
        return sorted(folder / name for name in set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
    return [folder / "model.safetensors"]


def check_weights(folder: Path) -> None:
    """Raise ValueError, naming the file, where weights are missing or cut off."""
    for file in readable(folder / INDEX, "it", weight_files, folder):
        if not file.exists() and not (folder / INDEX).exists():
            raise broken(f"{folder} has no weights, neither {file.name} nor {INDEX} with its shards", "them")
        if not file.exists():
            raise broken(f"{folder} has no {file.name}, which {INDEX} names")
        readable(file, "it", safe_open, file, "pt")


def check_loaded(folder: Path, info: dict) -> str:
    """Raise ValueError where the weights are not those that config.json describes, from what transformers says of
    loading them. Returns a sentence about weights that have no place in the model, or nothing."""
    some = lambda names: f"{min(names)}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")  # noqa: E731
    what, missing, left = f"The weights in {folder}", info["missing_keys"], info["unexpected_keys"]
    if missing:
        also = f" and have {some(left)}, for which there is no place" if left else ""
        raise broken(f"{what} lack {some(missing)}{also}", "them and config.json")
    if other := {name: (tuple(has), tuple(wants)) for name, has, wants in info["mismatched_keys"]}:
        has, wants = other[min(other)]
        shapes = f"{some(other)}, {has} instead of {wants}"
        raise broken(f"{what} have other shapes than config.json asks for: {shapes}", "them and config.json")
    return f"{what} have {some(left)}, for which there is no place in the model: left out." if left else ""


def weights_dtype(folder: Path) -> torch.dtype:
    """The number format of a folder's weights."""
    with safe_open(weight_files(folder)[0], "pt") as file:
        return DTYPES.get(file.get_slice(next(iter(file.keys()))).get_dtype(), torch.float32)


def readable(what: str | Path, remedy: str, load: Callable, *arguments, **options):
    """What `load` returns. Its errors, whose kinds differ between libraries and their releases, become one sentence.
    remedy: what to copy."""
    try:
        return load(*arguments, **options)
    except Exception as error:
        raise broken(f"{what} cannot be read ({first_line(error)})", remedy) from error


def broken(said: str, remedy: str = "it") -> ValueError:
    """What to raise for a folder that is not as it was released. remedy: what to copy."""
    return ValueError(f"{said}; copy {remedy} from the model's release again.")


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = textwrap.shorten(lines[0], 200, placeholder=" ...") if lines else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# ---------------------------------------------------------------------------------- the tokenizer and its chat template

PICTURE = "<|image_pad|>"
PROMPT = "\ue000prompt\ue000"  # stands for a user's text; no template has it
SYSTEM = "\ue000system\ue000"
ANSWER = "\ue000answer\ue000"


def check_tokenizer(tokenizer, config) -> None:
    """Raise ValueError where a tokenizer is not the one that `config` was made with: transformers makes an empty one
    where there are no files."""
    words, picture, vocabulary = tokenizer.get_vocab(), config.image_token_id, config.text_config.vocab_size
    if words.get(PICTURE) != picture:
        said = f"{words.get(PICTURE, 'none')} of its tokenizer and {picture} in its config.json (image_token_id)"
        raise broken(f"{PICTURE} is token {said}", " and ".join(TOKENIZER))
    if (largest := max(words.values())) >= vocabulary:
        said = f"its tokenizer has a token {largest}, its config.json a vocab_size of {vocabulary}"
        raise broken(said, "tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise broken("its tokenizer has no eos_token", "tokenizer_config.json")


def take_template(tokenizer, files: dict[str, bytes]) -> None:
    """Older processors keep their chat template in a file of its own, which tokenizers do not look at."""
    if "chat_template.json" in files and "chat_template.jinja" not in files:
        said = json.loads(files["chat_template.json"])
        tokenizer.chat_template = said.get("chat_template") or tokenizer.chat_template


def check_image_processor(folder: Path, image_processor, config) -> None:
    """Raise ValueError where an image processor cuts other patches than the vision tower takes."""
    vision = config.vision_config
    takes = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    cuts = (image_processor.patch_size, image_processor.temporal_patch_size, image_processor.merge_size)
    if cuts != takes:
        said = f"makes patches of {cuts} (side, frames, merged side), config.json takes {takes}"
        raise broken(f"{folder}/preprocessor_config.json {said}")


def prompt_text(tokenizer, prompt: str, system: str = "") -> str:
    """The chat template's text for a picture and a user's `prompt`, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": content})
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def chat_frame(tokenizer, system: bool = False) -> list[str]:
    """What the chat template writes before and after a user's text, up to and from the special token next to it: head,
    tail; with a `system` message, which comes first, head, middle, tail. A picture's placeholder is in one of them.

    Raises ValueError for a template that cannot place a picture, or does not end an answer with the tokenizer's eos.
    """
    its_file = "chat_template.json or chat_template.jinja"
    if not tokenizer.chat_template:
        raise broken("its tokenizer has no chat template", its_file)
    try:
        text = prompt_text(tokenizer, PROMPT, SYSTEM if system else "")
        answered = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": ANSWER}]
        answered = tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # jinja's own, and whatever its expressions raise
        raise broken(f"its chat template takes no pictures ({first_line(error)})", its_file) from error
    if text.count(PROMPT) != 1 or text.count(PICTURE) != 1:
        raise broken(f"its chat template does not place one {PICTURE} beside a user's text", its_file)
    if system and not 0 <= text.find(SYSTEM) < text.find(PROMPT):
        raise ValueError("its chat template has no place for a system message")
    end = tokenizer.eos_token
    if not answered.partition(ANSWER)[2].lstrip().startswith(end):
        said = f"its chat template does not end an answer with the tokenizer's eos_token {end}"
        raise broken(said, f"tokenizer_config.json and {its_file}")
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    head, *middle, tail = text.replace(SYSTEM, PROMPT).split(PROMPT)
    first = lambda part: min(part.find(token) for token in special if token in part)  # noqa: E731
    last = lambda part: max(part.rfind(token) + len(token) for token in special if token in part)  # noqa: E731
    return [head[: last(head)], *(part[first(part) : last(part)] for part in middle), tail[first(tail) :]]


def split_prompt(tokenizer, frame: list[str], prompt: str, system: str = "") -> list[str]:
    """`prompt_text` in pieces, the template's (`chat_frame`) and what others wrote in turns. Raises ValueError where
    the template writes something else for this text."""
    text = prompt_text(tokenizer, prompt, system)
    head, *middle, tail = frame
    if not (text.startswith(head) and text.endswith(tail)):
        raise ValueError("the chat template writes something else around this prompt")
    end = len(text) - len(tail)
    if not middle:
        return [head, text[len(head) : end], tail]
    at = prompt_text(tokenizer, PROMPT, system).partition(PROMPT)[0].rindex(middle[0])  # also where `system` holds it
    return [head, text[len(head) : at], middle[0], text[at + len(middle[0]) : end], tail]


# --------------------------------------------------------------------------------------------------------- written back


def write_files(folder: Path, files: dict[str, bytes], image_processor, dtype: torch.dtype) -> None:
    """Put `files` of the folder that was loaded beside new weights of number format `dtype` and, where they
    have none, the tokenizer's own. What other readers want besides is made: processors, and the names that options had
    before transformers 5."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_bytes())
    _add_older_names(config, str(dtype).removeprefix("torch."))
    _rewrite(folder / "config.json", config)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_bytes())
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(tokenizer.get("extra_special_tokens"), list):
        tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
    _rewrite(folder / "tokenizer_config.json", tokenizer)
    if "preprocessor_config.json" not in files:
        image_processor.save_pretrained(folder)
        image = json.loads((folder / "preprocessor_config.json").read_bytes())
        both = json.loads(files.get("processor_config.json", b"{}"))  # where transformers 5 writes them
        for name, processor in _processors(image, both.get("video_processor") or {}, config["model_type"]).items():
            if name not in files:
                _rewrite(folder / name, processor)


def _rewrite(path: Path, content: dict) -> None:
    """Leave a file that says this already as it is."""
    if not path.exists() or json.loads(path.read_bytes()) != content:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _add_older_names(config: dict, dtype: str) -> None:
    """Make transformers 4.57 understand a config.json, too: it reads rope_scaling and rope_theta where 5 reads
    rope_parameters. Both ways of writing may stand side by side. vLLM wants one of rope_type and its older name type,
    and asks the text model whether embeddings and head are one."""
    text = config.get("text_config") or config
    rope = text.get("rope_parameters")
    if rope and not text.get("rope_scaling"):
        text["rope_scaling"] = {name: value for name, value in rope.items() if name not in ("rope_theta", "type")}
        text["rope_theta"] = rope.get("rope_theta", text.get("rope_theta"))
        text.setdefault("tie_word_embeddings", config.get("tie_word_embeddings", False))
    for part in (config, text, config["vision_config"]):
        part.update({name: dtype for name in ("dtype", "torch_dtype") if name in part})


def _processors(image: dict, video: dict, family: str) -> dict[str, dict]:
    """The processor files of a release, as text: transformers builds a video processor with torchvision installed
    alone, which nothing here needs. video: what is known of it."""
    shared = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std", "size")
    kind = {"qwen3_vl": "Qwen3VLVideoProcessor", "qwen2_5_vl": "Qwen2VLVideoProcessor"}[family]
    whole = {"processor_class": {"qwen3_vl": "Qwen3VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}[family]}
    video = {name: image[name] for name in shared} | {"video_processor_type": kind} | video
    return {"preprocessor_config.json": image | whole, "video_preprocessor_config.json": video | whole}
