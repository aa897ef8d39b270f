"""The folder of a Qwen-VL checkpoint around its weights: found, read, checked before anything is trained, written back.

What a run saves is the folder that was loaded with other weights: config, tokenizer, chat template, processors and
generation config are its own bytes, so whoever opens a release (transformers 4.57 and 5, vLLM) opens what was made of
it. A folder that lacks something, or asks for something that this project would not do, is refused in one sentence.
"""

import copy
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
FILES += ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
FILES += ("added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
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


# ---------------------------------------------------------------------------------------------------------------------
# found and read


def find_folder(path: str | Path) -> Path:
    """The folder of a model: `path` itself, or where a hub name's files are, which are downloaded if need be."""
    path = str(path)
    if Path(path).is_dir():
        return Path(path)
    if path.startswith((".", "/", "runs/")) or path.count("/") != 1:
        raise FileNotFoundError(
            f"{path}: no such folder. Make a tiny model with `python tiny.py {path}`, or give a hub name."
        )
    try:
        return Path(snapshot_download(path, allow_patterns=[*FILES, *WEIGHTS]))
    except Exception as error:  # offline, a name that is none, a licence not accepted: each has an error of its own
        raise FileNotFoundError(
            f"{path} is no folder here, and the Hugging Face hub did not give it ({first_line(error)}). "
            "Offline, download it elsewhere and give its folder."
        ) from error


def read_files(folder: Path) -> dict[str, bytes]:
    """{name: content} of everything but weights. Kept in memory: a run outlives the checkpoint that it goes on from.
    Raises ValueError for a json file that is none: transformers passes over some without a word."""
    files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    for name, content in files.items():
        try:
            said = json.loads(content.decode()) if name.endswith(".json") else {}  # decoded: a BOM is refused here, too
        except ValueError as error:
            raise ValueError(f"{folder}/{name} is no JSON ({error}); copy it from the model's release again.") from None
        if not isinstance(said, dict):
            raise ValueError(f"{folder}/{name} holds no JSON object; copy it from the model's release again.")
    return files


def read_config(folder: Path, files: dict[str, bytes]) -> "PretrainedConfig":
    """Raises FileNotFoundError or ValueError where `folder` holds no model that can be trained here as it is meant."""
    if "config.json" not in files:
        adapter = (folder / "adapter_config.json").exists()
        remedy = "merge its adapter into the model first" if adapter else "of a run, give checkpoints/step-N"
        raise FileNotFoundError(f"{folder} is no model's folder, it has no config.json; {remedy}.")
    said = json.loads(files["config.json"])
    family = said.get("model_type")
    if family is None:
        raise ValueError(
            f"{folder}/config.json is no model's, it has no model_type; of a run, give checkpoints/step-N."
        )
    if family not in FAMILIES:
        raise ValueError(f"{folder} is a {family} model; nanovinci trains {' and '.join(FAMILIES)}.")
    if quantized := said.get("quantization_config") or said.get("compression_config"):
        method = quantized.get("quant_method", "") if isinstance(quantized, dict) else ""
        raise ValueError(f"{folder} is quantized ({method}): give the model that was, in 16 or 32 bits.")
    text = said.get("text_config") or (said if family == "qwen2_5_vl" else None)  # whose older configs are flat
    for name, part in (("text_config", text), ("vision_config", said.get("vision_config"))):
        if not isinstance(part, dict):
            raise ValueError(f"{folder}/config.json has no {name}; copy it from the model's release again.")
    from transformers import AutoConfig

    config = readable(f"{folder}/config.json", "it", AutoConfig.from_pretrained, folder)
    if not any("rope_theta" in (part or {}) for part in (text, text.get("rope_parameters"), text.get("rope_scaling"))):
        raise ValueError(
            f"{folder}/config.json has no rope_theta, and a default need not be what it was trained with; "
            "copy it from the model's release again."
        )
    if not {"preprocessor_config.json", "processor_config.json"} & files.keys():
        raise FileNotFoundError(f"{folder} has no preprocessor_config.json; copy it from the model's release.")
    if unread := unread_options(config):
        asked = ", ".join(unread)
        raise ValueError(f"{folder}/config.json asks for what nanovinci does not do: {asked}; give a model without.")
    return config


def unread_options(config: "PretrainedConfig") -> list[str]:
    """Options of the text model, as "name value", that would change its numbers and that the sampler would ignore."""
    text, rope = config.text_config, config.text_config.rope_parameters
    said = {name: rope.get(name, getattr(text, name, None)) for name in WITHOUT_EFFECT}
    if config.model_type != "qwen3_vl":  # Qwen2.5-VL has biases on queries, keys and values whatever is said
        said["attention_bias"] = None
    unread = [f"{name} {value}" for name, value in said.items() if value not in WITHOUT_EFFECT[name]]
    windows = getattr(text, "use_sliding_window", False)
    layers = getattr(text, "layer_types", None) or ["sliding_attention" if windows else "full_attention"]
    if set(layers) != {"full_attention"}:
        unread.append("use_sliding_window True")
    interleaved = config.model_type == "qwen3_vl"
    if rope.get("mrope_interleaved", interleaved) != interleaved:
        unread.append(f"mrope_interleaved {not interleaved}")
    return unread


def check_weights(folder: Path) -> None:
    """Raise FileNotFoundError or ValueError, naming the file, where weights are missing or cut off."""
    names, index = ["model.safetensors"], folder / "model.safetensors.index.json"
    if not (folder / names[0]).exists():
        if not index.exists() and any(folder.glob("pytorch_model*.bin")):  # older: transformers reads them
            return
        if not index.exists():
            raise FileNotFoundError(
                f"{folder} has no weights, neither {names[0]} nor {index.name} with its shards; "
                "copy them from the model's release."
            )
        names = readable(index, "it", lambda: sorted(set(json.loads(index.read_bytes())["weight_map"].values())))
    for name in names:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder} has no {name}, which {index.name} names; copy it from the model's release."
            )
        readable(folder / name, "it", safe_open, folder / name, "pt")


def check_loaded(folder: Path, info: dict) -> str:
    """Raise ValueError where the weights are not those that config.json describes, from what transformers says of
    loading them. Returns a sentence about weights that have no place in the model, or nothing."""
    some = lambda names: f"{min(names)}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")  # noqa: E731
    what, missing, left = f"The weights in {folder}", info["missing_keys"], info["unexpected_keys"]
    if missing:
        also = f" and have {some(left)}, for which there is no place" if left else ""
        raise ValueError(
            f"{what} lack {some(missing)}{also}; copy them and config.json from the model's release again."
        )
    if other := {name: (tuple(has), tuple(wants)) for name, has, wants in info["mismatched_keys"]}:
        has, wants = other[min(other)]
        raise ValueError(
            f"{what} have other shapes than config.json asks for: {some(other)}, {has} instead of {wants}; "
            "copy them and config.json from the model's release again."
        )
    return f"{what} have {some(left)}, for which there is no place in the model: left out." if left else ""


def weights_dtype(folder: Path) -> torch.dtype:
    """The number format of a folder's weights; fp32 where they are in older files than safetensors."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        return torch.float32
    with safe_open(paths[0], "pt") as file:
        return DTYPES.get(file.get_slice(next(iter(file.keys()))).get_dtype(), torch.float32)


def readable(what: str | Path, remedy: str, load: Callable, *arguments, **options):
    """What `load` returns. Its errors, whose kinds differ between libraries and their releases, become one sentence.
    remedy: what to copy."""
    try:
        return load(*arguments, **options)
    except Exception as error:
        raise ValueError(
            f"{what} cannot be read ({first_line(error)}); copy {remedy} from the model's release again."
        ) from error


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = textwrap.shorten(lines[0], 200, placeholder=" ...") if lines else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# the tokenizer and its chat template

PICTURE = "<|image_pad|>"
PROMPT = "\ue000prompt\ue000"  # stands for a user's text; no template has it
SYSTEM = "\ue000system\ue000"
ANSWER = "\ue000answer\ue000"


def check_tokenizer(tokenizer, config: "PretrainedConfig") -> None:
    """Raise ValueError where a tokenizer is not the one that `config` was made with: transformers makes an empty one
    where there are no files."""
    words, picture, vocabulary = tokenizer.get_vocab(), config.image_token_id, config.text_config.vocab_size
    if words.get(PICTURE) != picture:
        raise ValueError(
            f"{PICTURE} is token {words.get(PICTURE, 'none')} of its tokenizer and {picture} in its config.json "
            "(image_token_id); copy tokenizer.json and tokenizer_config.json from the model's release."
        )
    if (largest := max(words.values())) >= vocabulary:
        raise ValueError(
            f"its tokenizer has a token {largest}, its config.json a vocab_size of {vocabulary}; "
            "copy tokenizer.json from the model's release."
        )
    if tokenizer.eos_token_id is None:
        raise ValueError("its tokenizer has no eos_token; copy tokenizer_config.json from the model's release.")


def take_template(tokenizer, files: dict[str, bytes]) -> None:
    """Older processors keep their chat template in a file of its own, which tokenizers do not look at."""
    if "chat_template.json" in files and "chat_template.jinja" not in files:
        said = json.loads(files["chat_template.json"])
        tokenizer.chat_template = said.get("chat_template") or tokenizer.chat_template


def check_image_processor(folder: Path, image_processor, config: "PretrainedConfig") -> None:
    """Raise ValueError where an image processor cuts other patches than the vision tower takes."""
    vision = config.vision_config
    takes = (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size)
    cuts = (image_processor.patch_size, image_processor.temporal_patch_size, image_processor.merge_size)
    if cuts != takes:
        raise ValueError(
            f"{folder}/preprocessor_config.json makes patches of {cuts} (side, frames, merged side), config.json takes "
            f"{takes}; copy it from the model's release."
        )


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
    remedy = "copy chat_template.json or chat_template.jinja from the model's release."
    if not tokenizer.chat_template:
        raise ValueError(f"its tokenizer has no chat template; {remedy}")
    try:
        text = prompt_text(tokenizer, PROMPT, SYSTEM if system else "")
        answered = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": ANSWER}]
        answered = tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # jinja's own, and whatever its expressions raise
        raise ValueError(f"its chat template takes no pictures ({first_line(error)}); {remedy}") from error
    if text.count(PROMPT) != 1 or text.count(PICTURE) != 1:
        raise ValueError(f"its chat template does not place one {PICTURE} beside a user's text; {remedy}")
    if system and not 0 <= text.find(SYSTEM) < text.find(PROMPT):
        raise ValueError("its chat template has no place for a system message")
    end = tokenizer.eos_token
    if not answered.partition(ANSWER)[2].lstrip().startswith(end):
        raise ValueError(
            f"its chat template does not end an answer with the tokenizer's eos_token {end}; copy "
            "tokenizer_config.json and chat_template.json or chat_template.jinja from the model's release."
        )
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


# ---------------------------------------------------------------------------------------------------------------------
# written back


def write_files(folder: Path, files: dict[str, bytes], image_processor, dtype: torch.dtype) -> None:
    """Put `files` of the folder that was loaded beside new weights of number format `dtype` and, where they
    have none, the tokenizer's own. What other readers want besides is made: processors, and the names that options had
    before transformers 5."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    config = json.loads((folder / "config.json").read_bytes())
    _rewrite(folder / "config.json", _with_older_names(config, str(dtype).removeprefix("torch.")))
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


def _with_older_names(config: dict, dtype: str) -> dict:
    """A config.json that transformers 4.57 understands, too: it reads rope_scaling and rope_theta where 5 reads
    rope_parameters. Both ways of writing may stand side by side. vLLM wants one of rope_type and its older name type,
    and asks the text model whether embeddings and head are one."""
    config = copy.deepcopy(config)
    text = config.get("text_config") or config
    rope = text.get("rope_parameters")
    if rope and not text.get("rope_scaling"):
        text["rope_scaling"] = {name: value for name, value in rope.items() if name not in ("rope_theta", "type")}
        text["rope_theta"] = rope.get("rope_theta", text.get("rope_theta"))
        text.setdefault("tie_word_embeddings", config.get("tie_word_embeddings", False))
    for part in (config, text, config["vision_config"]):
        part.update({name: dtype for name in ("dtype", "torch_dtype") if name in part})
    return config


def _processors(image: dict, video: dict, family: str) -> dict[str, dict]:
    """The processor files of a release, as text: transformers builds a video processor with torchvision installed
    alone, which nothing here needs. video: what is known of it."""
    shared = ("patch_size", "merge_size", "temporal_patch_size", "image_mean", "image_std", "size")
    kind = {"qwen3_vl": "Qwen3VLVideoProcessor", "qwen2_5_vl": "Qwen2VLVideoProcessor"}[family]
    whole = {"processor_class": {"qwen3_vl": "Qwen3VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}[family]}
    video = {name: image[name] for name in shared} | {"video_processor_type": kind} | video
    return {"preprocessor_config.json": image | whole, "video_preprocessor_config.json": video | whole}
