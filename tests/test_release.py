"""Folders like those of the releases, with the real vocabulary: what is fed to the model, trained and saved, and who
opens it. And folders that are not what they should be: each gets one sentence, before anything is trained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, picture, sharpened
from release_like import make_release, needs_the_vocabulary, write_json
from safetensors import safe_open
from test_train import metrics, succeed
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForImageTextToText

import model
import releases
from data import Sample, write_parquet

TORCHVISION = Path(sys.prefix) / "share" / "torchvision"
OTHERS = ROOT / ".venv-others"
needs_torchvision = pytest.mark.skipif(
    not TORCHVISION.exists(), reason="AutoProcessor needs torchvision for its video part: `make setup` fetches it"
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


def same_runs(one: Path, other: Path, last: str) -> None:
    """Metrics, weights and all of the trainer's state of two runs are equal, bit for bit."""
    timed = lambda name: name.startswith(("time/", "judge/", "tokens_per_second", "held_up"))  # noqa: E731
    rows = [[{k: v for k, v in row.items() if not timed(k)} for row in metrics(out)] for out in (one, other)]
    assert rows[0] == rows[1] and any(row["grad_norm"] > 0 for row in rows[0])
    folders = [out / "checkpoints" / last for out in (one, other)]
    assert (folders[0] / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()
    states = [tree_leaves(torch.load(folder / "trainer.pt")) for folder in folders]
    assert all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in zip(*states, strict=True))


@needs_the_vocabulary
@needs_torchvision
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

    (version, name, dtype, eos, ids), logits = opened(saved, tmp_path, [TORCHVISION])
    family = json.loads((release / "config.json").read_text())["model_type"]
    assert (
        version.startswith("5.")
        and name == {"qwen3_vl": "Qwen3VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}[family]
    )
    assert dtype == "torch.bfloat16" and eos == [151645, 151643]
    assert ids == model.Policy.load(saved).encode(write_tasks(tmp_path)[1][0]).ids.tolist()
    if (OTHERS / "transformers").exists():
        others, theirs = opened(saved, tmp_path, [OTHERS, TORCHVISION])
        assert others[0].startswith("4.57.") and others[1:] == [name, dtype, eos, ids]
        assert (logits - theirs).abs().max() < 1e-4 and logits.std() > 0.01


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
