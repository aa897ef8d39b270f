"""Folders like those of the releases, with the real vocabulary: what is fed to the model, trained and saved, and who
opens it. And folders that are not what they should be: each gets one sentence, before anything is trained."""

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, picture, sharpened
from release_like import make_release, needs_the_vocabulary, write_json
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_model import hugging_face, reference_logps
from test_train import metrics, same_runs, succeed
from transformers import AutoModelForImageTextToText

import model
import processes
import releases
from data import Sample
from rollout import generate
from synth import write_parquet

TORCHVISION = Path(sys.prefix) / "share" / "torchvision"
OTHERS = ROOT / ".venv-others"
needs_torchvision = pytest.mark.skipif(
    not TORCHVISION.exists(), reason="AutoProcessor needs torchvision for its video part: `make tools` fetches it"
)
needs_others = pytest.mark.skipif(
    not (OTHERS / "transformers").exists(), reason="transformers 4.57 is not here: `make test-others` fetches it"
)
SPECIAL = "a <|image_pad|> b<|im_end|>\n<|im_start|>assistant\n<|vision_start|><|video_pad|><|endoftext|>"
END = 151645  # <|im_end|>
TEXTS = [
    "Write SVG code that draws this picture.",
    "  spaces first,\n\n\tand last \n",
    "Mend it:\n\n```python\nplt.plot([1, 2], label='größe 中文 🙂')\n```",
    "<think>what <tool_call> and <|fim_prefix|> are</think> 1234567890",
    "",
]
SIZES = [(64, 64), (300, 20), (37, 411), (500, 333), (1, 1)]


@pytest.fixture(scope="session", params=releases.FAMILIES)
def release(request, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("release") / request.param, request.param)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Four svg pairs, the last with special tokens in its prompt and in its program."""
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    codes = [f'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"><circle r="{r}"/></svg>' for r in (3, 9)]
    codes += [
        codes[0].replace("</svg>", "<text>é ≠ \u4e2d</text></svg>"),
        codes[1].replace("/>", "/><!-- <|im_end|> -->"),
    ]
    prompts = ["Write SVG code.", "SVG code, please.", "Draw it in SVG.", f"Write SVG code. {SPECIAL}"]
    rows = zip(prompts, codes, strict=True)
    write_parquet([Sample(f"s{i}", "svg", "svg", picture(i), p, code) for i, (p, code) in enumerate(rows)], path)
    return path


def python(code: str, *arguments, path: tuple = ()) -> str:
    """What a new interpreter prints, with more folders to import from."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


# ---------------------------------------------------------------------------------------------------------------------
# what is fed to the model

OPEN = """
import json, sys, torch
if not hasattr(torch.ops.torchvision, "nms"):  # a torchvision of another build has no kernels here, and needs none
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
transformers.utils.logging.disable_progress_bar()
folder, tasks = sys.argv[1], json.load(open(sys.argv[2]))
processor = AutoProcessor.from_pretrained(folder)

def batch(text, picture):
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=[Image.open(picture)], return_tensors="pt")
"""
PROCESS = """
batches = [batch(*task) for task in tasks]
print(json.dumps([[b["input_ids"][0].tolist(), b["image_grid_thw"].tolist()] for b in batches]))
"""


def write_tasks(folder: Path, texts=TEXTS, sizes=SIZES) -> tuple[Path, list[Sample]]:
    """A json file of (text, path of a picture), and the same as samples."""
    tasks, samples = [], []
    for number, (text, size) in enumerate(zip(texts, sizes, strict=True)):
        samples.append(Sample(f"t{number}", "svg", "svg", picture(number, size), text))
        samples[-1].image.save(folder / f"{number}.png")
        tasks.append((text, str(folder / f"{number}.png")))
    write_json(folder / "tasks.json", tasks)
    return folder / "tasks.json", samples


@needs_the_vocabulary
@needs_torchvision
def test_tokens_grids_and_positions_equal_hugging_faces(release, tmp_path):
    policy = model.Policy.load(release)
    tasks, samples = write_tasks(tmp_path)
    theirs = json.loads(python(OPEN + PROCESS, release, tasks, path=[TORCHVISION]))
    for sample, (ids, grid) in zip(samples, theirs, strict=True):
        prompt = policy.encode(sample)
        assert prompt.ids.tolist() == ids and prompt.grid.tolist() == grid
        types = (prompt.ids == policy.image_id).int()[None]
        positions, delta = policy.hf.model.get_rope_index(
            prompt.ids[None], mm_token_type_ids=types, image_grid_thw=prompt.grid
        )
        assert torch.equal(positions[:, 0], prompt.positions)
        assert prompt.next_position == len(ids) + delta.item()


@needs_the_vocabulary
def test_special_tokens_in_text_are_text(release):
    """Beside what the template writes there is none in a prompt, and none in an answer but its end."""
    policy = model.Policy.load(release)
    special = {token_id for token_id, token in policy.tokenizer.added_tokens_decoder.items() if token.special}
    plain, odd = (policy.encode(Sample("a", "svg", "svg", picture(0), text)) for text in ("Draw it.", SPECIAL))
    assert [i for i in odd.ids.tolist() if i in special] == [i for i in plain.ids.tolist() if i in special]
    assert (odd.ids == policy.image_id).sum() == odd.grid.prod() // policy.merge**2
    assert SPECIAL in policy.tokenizer.decode(odd.ids)
    for text in [*TEXTS, SPECIAL]:
        ids = policy.response_ids(text)
        assert policy.decode(ids) == text and [i for i in ids if i in special] == [END]
    assert policy.decode(policy.response_ids("e\u0301 . , 's")) == "\u00e9 . , 's"  # Unicode's composed form


@needs_the_vocabulary
def test_a_row_that_cannot_be_encoded_is_named(release):
    policy = model.Policy.load(release)
    for image, text, expected in (
        (picture(0), "half \ud83d a smile", "character 5 of its text is half of one"),
        (picture(0, (804, 4)), "Draw it.", "refuses its picture"),
        (None, "Draw it.", "has no picture"),
        (picture(0), 7, "'7' .int. where text belongs"),
    ):
        with pytest.raises(ValueError, match=f"Sample row 7.*{expected}"):
            policy.encode(Sample("row 7", "svg", "svg", image, text))
    with pytest.raises(ValueError, match="Sample row 8: character 0"):
        policy.response_ids("\udc80", "row 8")
    assert policy.encode(Sample("wide", "svg", "svg", picture(0, (800, 4)), "Draw it."))


# ---------------------------------------------------------------------------------------------------------------------
# trained, and saved

LOGITS = """
inputs = batch(*tasks[0])
hf = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
dtype, eos = str(hf.dtype), hf.generation_config.eos_token_id
with torch.no_grad():
    logits = hf.float().eval()(**inputs).logits[0, -1]
torch.save(logits, sys.argv[3])
print(json.dumps([transformers.__version__, type(processor).__name__, dtype, eos, inputs["input_ids"][0].tolist()]))
"""


def opened(folder: Path, tmp_path: Path, path: tuple) -> tuple[list, torch.Tensor]:
    """What another interpreter finds in a folder: its release of transformers, the processor's name, the weights'
    number format, the ends of an answer, a prompt's ids; and the logits after that prompt."""
    tasks, _ = write_tasks(tmp_path)
    found = json.loads(python(OPEN + LOGITS, folder, tasks, tmp_path / "logits.pt", path=path))
    return found, torch.load(tmp_path / "logits.pt")


def is_the_release_with_other_weights(folder: Path, release: Path) -> None:
    """All files but the weights are the same bytes, and the weights have the release's names and number format."""
    for name in releases.FILES:
        assert (folder / name).exists() == (release / name).exists(), name
        if (release / name).exists():
            assert (folder / name).read_bytes() == (release / name).read_bytes(), name
    formats = [{}, {}]
    for found, where in zip(formats, (folder, release), strict=True):
        for path in where.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                found |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert formats[0] == formats[1] and set(formats[0].values()) == {"BF16"}


@needs_the_vocabulary
def test_sft_virl_and_eval_on_a_release(release, corpus, tmp_path):
    """A few steps of each; what is saved is the release with other weights, and resuming loses none of their bits."""
    sft = ["tiny", "--model", release, "--data", corpus, "--batch-size", 2, "--save-every", 1, "--optimizer", "adamw"]
    sft += ["--lr", 1e-4, "--warmup", 0]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    succeed("train_sft.py", *sft, "--steps", 3, "--out", straight)
    shutil.copytree(straight, broken)
    shutil.rmtree(broken / "checkpoints/step-000003")
    succeed("train_sft.py", "tiny", "--out", broken, "--resume")
    same_runs(straight, broken, "step-000003")
    saved = straight / "checkpoints/step-000003"
    is_the_release_with_other_weights(saved, release)
    trained = torch.load(saved / "trainer.pt")["weights"]
    for name, weight in AutoModelForImageTextToText.from_pretrained(saved, dtype="auto").named_parameters():
        assert trained[name].dtype == torch.float32 and torch.equal(trained[name].bfloat16(), weight), name
    assert any((weight != weight.bfloat16()).any() for weight in trained.values())

    virl = ["--prompts", 2, "--group", 2, "--max-new-tokens", 6, "--steps", 1]
    out = tmp_path / "virl"
    succeed("tests/virl_made_rewards.py", "tiny", "--model", saved, "--data", corpus, "--out", out, *virl)
    (row,) = metrics(out)
    assert row["mismatch"] < 1e-3 and row["grad_norm"] > 0
    is_the_release_with_other_weights(out / "checkpoints/step-000001", release)
    succeed("eval.py", "--model", saved, "--data", corpus, "--max-new-tokens", 4, "--out", tmp_path / "eval")
    assert len((tmp_path / "eval/records.jsonl").read_text().splitlines()) == 4


def test_sharded_weights_resume_from_all_of_their_bits(qwen3_folder, corpus, tmp_path):
    """Two processes, each with half of every weight; the folder is bf16, what goes on is not."""
    sft = ["tiny", "--model", qwen3_folder, "--data", corpus, "--batch-size", 2, "--save-every", 1, "--steps", 2]
    sft += ["--save-dtype", "bfloat16", "--warmup", 0]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    succeed("train_sft.py", *sft, "--out", straight, processes=2)
    shutil.copytree(straight, broken)
    shutil.rmtree(broken / "checkpoints/step-000002")
    succeed("train_sft.py", "tiny", "--out", broken, "--resume", processes=2)
    same_runs(straight, broken, "step-000002")
    saved = model.Policy.load(straight / "checkpoints/step-000002")
    assert saved.save_dtype == torch.bfloat16 and json.loads(saved.files["config.json"])["dtype"] == "bfloat16"


@pytest.fixture(scope="session")
def saved(release, tmp_path_factory):
    """A release, saved with other weights."""
    policy, folder = sharpened(release), tmp_path_factory.mktemp("saved")
    policy.save(folder)
    return folder


@needs_the_vocabulary
@needs_torchvision
def test_a_saved_release_opens_with_the_auto_classes(release, saved, tmp_path):
    is_the_release_with_other_weights(saved, release)
    (version, name, dtype, eos, ids), logits = opened(saved, tmp_path, [TORCHVISION])
    family = json.loads((release / "config.json").read_text())["model_type"]
    assert name == {"qwen3_vl": "Qwen3VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}[family]
    assert version.startswith("5.") and dtype == "torch.bfloat16" and eos == [151645, 151643]
    assert ids == model.Policy.load(saved).encode(write_tasks(tmp_path)[1][0]).ids.tolist()
    assert logits.std() > 0.1


@needs_the_vocabulary
@needs_torchvision
@needs_others
def test_others_open_a_saved_release(saved, tmp_path):
    (version, *ours), mine = opened(saved, tmp_path, [TORCHVISION])
    (older, *others), theirs = opened(saved, tmp_path, [OTHERS, TORCHVISION])
    assert version.startswith("5.") and older.startswith("4.57.") and ours == others
    assert (mine - theirs).abs().max() < 1e-3


WRITE = """
processor.save_pretrained(sys.argv[3])
AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").save_pretrained(sys.argv[3])
"""


@needs_the_vocabulary
@needs_torchvision
@needs_others
def test_others_open_what_transformers_5_wrote_before(release, tmp_path):
    """A release that went through transformers 5, which has other files and names, is read and saved all the same."""
    tasks, samples = write_tasks(tmp_path)
    python(OPEN + WRITE, release, tasks, tmp_path / "five", path=[TORCHVISION])
    assert not (tmp_path / "five/preprocessor_config.json").exists()
    policy, plain = model.Policy.load(tmp_path / "five"), model.Policy.load(release)
    ids, grids = zip(*((a.ids.tolist(), a.grid.tolist()) for a in map(plain.encode, samples)), strict=True)
    prompts = [policy.encode(sample) for sample in samples]
    assert [p.ids.tolist() for p in prompts] == list(ids) and [p.grid.tolist() for p in prompts] == list(grids)
    policy.save(tmp_path / "saved")
    video = [
        json.loads((tmp_path / name).read_text())
        for name in ("saved/video_preprocessor_config.json", "five/processor_config.json")
    ]
    assert video[0].items() >= video[1]["video_processor"].items()
    (version, _, dtype, eos, prompt), logits = opened(tmp_path / "saved", tmp_path, [OTHERS, TORCHVISION])
    assert version.startswith("4.57.") and dtype == "torch.bfloat16" and eos == [151645, 151643] and prompt == ids[0]
    assert logits.std() > 0.01


@needs_others
@needs_torchvision
def test_others_open_what_is_made_here(tiny_folder, tmp_path):
    """A tiny model that was never a release opens in transformers 4.57 and means the same there."""
    (tmp_path / "saved").mkdir()
    policy = sharpened(tiny_folder)
    policy.save(tmp_path / "saved")
    (version, *ours), mine = opened(tmp_path / "saved", tmp_path, [TORCHVISION])
    (older, *others), theirs = opened(tmp_path / "saved", tmp_path, [OTHERS, TORCHVISION])
    assert version.startswith("5.") and older.startswith("4.57.") and ours == others
    assert (mine - theirs).abs().max() < 1e-3 and mine.std() > 0.1


# ---------------------------------------------------------------------------------------------------------------------
# options of a config


def with_options(folder: Path, to: Path, **options) -> Path:
    """A copy of a folder whose text model has other options; "rope" adds to its rotary embedding's."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    text = config["text_config"]
    text["rope_parameters"] |= options.pop("rope", {})
    for name in ("rope_scaling", "rope_theta"):  # which say the same, for others
        text.pop(name)
    write_json(to / "config.json", config | {"text_config": text | options})
    return to


ROPES = {
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "linear": {"factor": 3.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}


@pytest.mark.parametrize("kind", ROPES)
def test_the_sampler_rotates_as_hugging_face_does(tiny_folder, tmp_path, samples, kind):
    """Log-probs of what is sampled are those of Hugging Face's forward pass, and not those of the default rotation."""
    folder = with_options(tiny_folder, tmp_path / kind, rope={"rope_type": kind, **ROPES[kind]})
    policy, plain = sharpened(folder), sharpened(tiny_folder)
    rotary = policy.hf.model.language_model.rotary_emb
    assert rotary.rope_type == kind and (kind == "yarn") == (rotary.attention_scaling != 1)
    references = hugging_face(policy, folder), hugging_face(plain, tiny_folder)
    prompts = {sample.id: policy.encode(sample) for sample in samples}
    apart = [[], []]
    with torch.no_grad():
        for c in generate(policy, list(prompts.values()), G=2, max_new_tokens=30, seed=2):
            for reference, distances in zip(references, apart, strict=True):
                theirs = reference_logps(reference, policy, prompts[c.sample_id], c.ids.tolist())
                distances.append(np.abs(theirs.numpy() - c.logps).max())
    assert max(apart[0]) < 1e-4 and max(apart[1]) > 1e-2


UNREAD = {
    "rope_type dynamic": {"rope": {"rope_type": "dynamic", "factor": 2.0}},
    "rope_type longrope": {
        "rope": {
            "rope_type": "longrope",
            "factor": 2.0,
            "short_factor": [1.0] * 16,
            "long_factor": [2.0] * 16,
            "original_max_position_embeddings": 64,
        }
    },
    "partial_rotary_factor 0.5": {"rope": {"partial_rotary_factor": 0.5}},
    "hidden_act gelu": {"hidden_act": "gelu"},
    "attention_dropout 0.1": {"attention_dropout": 0.1},
    "use_sliding_window True": {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "layer_types": None,
    },
    "final_logit_softcapping 30.0": {"final_logit_softcapping": 30.0},
    "attn_logit_softcapping 50.0": {"attn_logit_softcapping": 50.0},
}


@pytest.mark.parametrize("said", UNREAD)
def test_an_option_that_the_sampler_does_not_follow_is_refused_by_name(tiny_folder, tmp_path, said):
    folder = with_options(tiny_folder, tmp_path / "model", **json.loads(json.dumps(UNREAD[said])))
    with pytest.raises(ValueError, match=f"asks for what nanovinci does not do: {said}"):
        model.Policy.load(folder)


def test_options_of_one_family(qwen3_folder, tmp_path):
    """Biases: Qwen2.5-VL has those that it has whatever is said, Qwen3-VL those that its config asks for."""
    with pytest.raises(ValueError, match="attention_bias True"):
        model.Policy.load(with_options(qwen3_folder, tmp_path / "bias", attention_bias=True))
    with pytest.raises(ValueError, match="mrope_interleaved False"):
        model.Policy.load(with_options(qwen3_folder, tmp_path / "sections", rope={"mrope_interleaved": False}))
    harmless = dict(use_sliding_window=False, attention_dropout=0, final_logit_softcapping=None, num_experts=0)
    assert model.Policy.load(with_options(qwen3_folder, tmp_path / "harmless", **harmless))


# ---------------------------------------------------------------------------------------------------------------------
# folders that are not what they should be


def rewrite(name: str, change) -> "callable":
    """Change a json file of a folder."""

    def rewritten(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        write_json(folder / name, change(content) or content)

    return rewritten


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name: str, content: str):
    return lambda folder: (folder / name).write_text(content)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["odd.weight"] = weights.pop("model.language_model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


INDEX = "model.safetensors.index.json"


def shards(folder: Path) -> None:
    """Put the weights into three files and their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{i % 3 + 1:05d}-of-00003.safetensors" for i, name in enumerate(weights)}
    for file in set(where.values()):
        part = {name: weight for name, weight in weights.items() if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    write_json(folder / INDEX, {"metadata": {}, "weight_map": where})


def without_a_shard(folder: Path) -> None:
    shards(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def without_theta(config: dict) -> None:
    text = config["text_config"]
    for rope in (text, text["rope_parameters"], text["rope_scaling"]):
        rope.pop("rope_theta", None)


def ends_with(eos):
    return rewrite("generation_config.json", lambda c: c.update(eos_token_id=eos))


def of_a_run(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write_json(folder / "config.json", {"model": "x", "steps": 3})


STRINGS_ADDED = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
STRINGS_PRINTED = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
ENDLESS = STRINGS_PRINTED.replace(
    "{{ m.content }}", "<|image_pad|>{{ m.content[1].text if m.role == 'user' else m.content }}"
)
BROKEN = {
    "no tokenizer": (
        remove("tokenizer.json", "tokenizer_config.json"),
        "it has no tokenizer.json and tokenizer_config.json; copy that from the model's release",
    ),
    "another picture token": (
        rewrite("config.json", lambda c: c | {"image_token_id": 4}),
        "is token 5 of its tokenizer and 4 in",
    ),
    "no end": (rewrite("tokenizer_config.json", lambda c: c.pop("eos_token") and None), "no eos_token"),
    "another end": (
        rewrite("tokenizer_config.json", lambda c: c | {"eos_token": "<|endoftext|>"}),
        r"does not end an answer with the tokenizer's eos_token <\|endoftext\|>",
    ),
    "no template": (remove("chat_template.jinja"), "no chat template"),
    "strings added": (write("chat_template.jinja", STRINGS_ADDED), "takes no pictures"),
    "strings printed": (write("chat_template.jinja", STRINGS_PRINTED), "does not place one"),
    "no jinja": (write("chat_template.jinja", "{% for"), "takes no pictures"),
    "answers without end": (
        write("chat_template.jinja", ENDLESS.replace("<|im_end|>", "{{ '<|im_end|>' if m.role == 'user' }}")),
        "does not end an answer",
    ),
    "no config": (remove("config.json"), "has no config.json"),
    "half a config": (write("config.json", '{"model_type": "qwen3_vl", "text_con'), "config.json is no JSON"),
    "a config that is a list": (write("config.json", "[1]"), "config.json holds no JSON object"),
    "half a generation config": (write("generation_config.json", "{"), "generation_config.json is no JSON"),
    "a word for a number": (
        rewrite("config.json", lambda c: c["text_config"].update(hidden_size="large")),
        "config.json cannot be read",
    ),
    "a run": (of_a_run, "of a run, give checkpoints/step-N"),
    "an adapter": (lambda f: (remove("config.json")(f), write("adapter_config.json", "{}")(f)), "names no base"),
    "awq": (rewrite("config.json", lambda c: c | {"quantization_config": {"quant_method": "awq"}}), "quantized .awq."),
    "gptq": (
        rewrite("config.json", lambda c: c | {"quantization_config": {"quant_method": "gptq"}}),
        "quantized .gptq.",
    ),
    "half of the weights": (cut, "/model.safetensors cannot be read .*; copy it from"),
    "no weights": (remove("model.safetensors"), "has no weights, neither model.safetensors nor .*; copy them from"),
    "no shard": (
        without_a_shard,
        "has no model-00002-of-000.*, which model.safetensors.index.json names; copy it from",
    ),
    "half of an index": (lambda f: (shards(f), write(INDEX, "{")(f)), "index.json cannot be read .*; copy it from"),
    "a weight that is not there": (
        without_a_weight,
        "weights in .* lack model.language_model.layers.1.mlp.up_proj.weight and have odd.weight, for which there",
    ),
    "other shapes": (
        rewrite("config.json", lambda c: c["text_config"].update(intermediate_size=64)),
        r"have other shapes .*mlp.down_proj.weight and 11 more, \(160, 480\) instead of \(160, 64\); copy them",
    ),
    "no image processor": (remove("preprocessor_config.json"), "has no preprocessor_config.json; copy it from"),
    "other patches": (
        rewrite("preprocessor_config.json", lambda c: c | {"patch_size": 14}),
        r"makes patches of \(14, 2, 2\)",
    ),
    "no tokenizer config": (remove("tokenizer_config.json"), "it has no tokenizer_config.json; copy that from"),
    "a byte order mark": (
        lambda f: (f / "config.json").write_bytes(b"\xef\xbb\xbf" + (f / "config.json").read_bytes()),
        "config.json is no JSON .Unexpected UTF-8 BOM",
    ),
    "no vision config": (
        rewrite("config.json", lambda c: c.pop("vision_config") and None),
        "has no vision_config; copy",
    ),
    "no text config": (rewrite("config.json", lambda c: c.pop("text_config") and None), "has no text_config; copy it"),
    "no rope_theta": (rewrite("config.json", without_theta), "config.json has no rope_theta"),
    "an end that is a word": (ends_with([2, "x"]), "generation_config.json has an eos_token_id 'x', .* 0 to"),
    "an end beyond the vocabulary": (ends_with([2, 999]), "generation_config.json has an eos_token_id 999, .* 0 to"),
    "a negative end": (ends_with(-1), "generation_config.json has an eos_token_id -1, .* 0 to"),
    "an end that is true": (ends_with(True), "generation_config.json has an eos_token_id True, .* 0 to"),
    "half a tokenizer": (write("tokenizer.json", '{"version": "1.0"}'), "tokenizer in .* cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_lacks_something_gets_one_sentence(qwen3_folder, tmp_path, what):
    folder = shutil.copytree(qwen3_folder, tmp_path / "model")
    change, expected = BROKEN[what]
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=expected) as raised:
        model.Policy.load(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_weights_without_a_place_are_named_in_one_line(qwen3_folder, tmp_path, capsys):
    """And Hugging Face's table of them, which grows with the model, is not printed."""
    folder, records = shutil.copytree(qwen3_folder, tmp_path / "model"), []
    shards(folder)
    assert model.Policy.load(folder) and not capsys.readouterr().err
    more = {f"odd.{number}": torch.ones(2) for number in range(3)}
    save_file(load_file(qwen3_folder / "model.safetensors") | more, folder / "model.safetensors", {"format": "pt"})
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(handler)
    model.Policy.load(folder)
    logger.removeHandler(handler)
    said = f"The weights in {folder} have odd.0 and 2 more, for which there is no place in the model: left out.\n"
    assert capsys.readouterr().err == said and not records


@pytest.mark.parametrize("device", ["cuda", "cuda:63", "gpu"])
def test_a_device_that_is_not_here_gets_one_sentence(qwen3_folder, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for refuse in (processes.init_distributed, lambda device: model.Policy.load(qwen3_folder, device)):
        with pytest.raises(ValueError, match=f"^--device {device}"):
            refuse(device)


HUB = "import model; model.Policy.load('nobody/no-model')"


def test_a_hub_name_offline_is_refused_without_trying_again(tmp_path):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", HUB], capture_output=True, text=True, cwd=ROOT, env=os.environ | nowhere
    )
    assert (
        "FileNotFoundError: nobody/no-model is no folder here, and the Hugging Face hub did not give it" in ended.stderr
    )
    assert "). Offline, download it elsewhere" in ended.stderr
    assert "Retry" not in ended.stderr


def test_a_hub_name_whose_files_are_here_opens_offline(qwen3_folder, tmp_path, monkeypatch, samples):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--nobody--tiny"
    shutil.copytree(qwen3_folder, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0" * 40)
    theirs = model.Policy.load(qwen3_folder).encode(samples[0]).ids
    assert torch.equal(model.Policy.load("nobody/tiny").encode(samples[0]).ids, theirs)


# ---------------------------------------------------------------------------------------------------------------------
# what is saved


def test_a_saved_folder_needs_no_longer_the_one_it_came_from(qwen3_folder, tmp_path):
    """A run goes on from a checkpoint that is later deleted; and a generation config that transformers refuses to write
    is kept as it is."""
    folder = shutil.copytree(qwen3_folder, tmp_path / "model")
    odd = '{"eos_token_id": [2, 0], "do_sample": false, "temperature": 0.3}'
    (folder / "generation_config.json").write_text(odd)
    policy = model.Policy.load(folder)
    assert policy.eos_ids == [2, 0]
    shutil.rmtree(folder)
    policy.save(tmp_path / "saved")
    assert (tmp_path / "saved/generation_config.json").read_text() == odd
    assert model.Policy.load(tmp_path / "saved").eos_ids == [2, 0]


def test_a_folder_without_a_tokenizer_config_is_saved_with_one(qwen3_folder, tmp_path, samples):
    """It may do without: where special_tokens_map.json says how an answer ends. Its rope_theta stands alone."""
    folder = shutil.copytree(qwen3_folder, tmp_path / "model")
    remove("tokenizer_config.json")(folder)
    write_json(folder / "special_tokens_map.json", {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    config = json.loads((folder / "config.json").read_text())
    theta = config["text_config"]["rope_parameters"].pop("rope_theta")
    config["text_config"].pop("rope_scaling")
    write_json(folder / "config.json", config | {"text_config": config["text_config"] | {"rope_theta": theta}})
    policy = model.Policy.load(folder)
    policy.save(tmp_path / "saved")
    again = model.Policy.load(tmp_path / "saved")
    assert "tokenizer_config.json" in again.files and again.tokenizer.eos_token == "<|im_end|>"
    assert json.loads(again.files["config.json"])["text_config"]["rope_theta"] == theta == 10_000
    assert again.files["tokenizer.json"] == (folder / "tokenizer.json").read_bytes()
    for sample in samples:
        assert torch.equal(policy.encode(sample).ids, again.encode(sample).ids)


def test_the_chat_template_is_taken_apart_once(qwen3_folder, samples, monkeypatch):
    calls, take_apart = [], releases.chat_frame
    monkeypatch.setattr(releases, "chat_frame", lambda *a, **o: calls.append(o) or take_apart(*a, **o))
    policy = model.Policy.load(qwen3_folder)
    assert calls == [{}]
    for sample in samples:
        policy.encode(dataclasses.replace(sample, system="Be brief."))
    assert calls == [{}, {"system": True}]
    del policy.system_frame
    policy.tokenizer.chat_template = policy.tokenizer.chat_template.replace("message.", "messages[-1].")
    with pytest.raises(ValueError, match="Sample square: its chat template"):
        policy.encode(dataclasses.replace(samples[0], system="Be brief."))


def test_what_transformers_5_writes_gets_the_names_that_came_before(qwen3_folder, tmp_path):
    policy = model.Policy.load(qwen3_folder)
    new = json.loads(policy.files["tokenizer_config.json"])
    new = {"extra_special_tokens": ["<|im_start|>"], "tokenizer_class": "TokenizersBackend"} | new
    policy.files["tokenizer_config.json"] = json.dumps(new | {"tokenizer_class": "TokenizersBackend"}).encode()
    policy.save_dtype = torch.bfloat16
    policy.save(tmp_path)
    tokenizer, config = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("tokenizer_config", "config"))
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in tokenizer
    assert tokenizer["additional_special_tokens"] == ["<|im_start|>"]
    rope = config["text_config"]["rope_parameters"]
    assert config["text_config"]["rope_scaling"] | {"rope_theta": config["text_config"]["rope_theta"]} == rope
    assert config["dtype"] == "bfloat16"
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    assert again.dtype == torch.bfloat16 and again.config.text_config.rope_parameters == rope
