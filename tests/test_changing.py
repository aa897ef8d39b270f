"""What docs/changing.md promises: each of its diffs is small, applies to this version, and does what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_render import need

import sandbox

ROOT = Path(__file__).parent.parent
CHANGES = dict(re.findall(r"(?ms)^## ([^\n]+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/changing.md").read_text()))
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "build", "shared", "results", "tests", "__pycache__")
MOST_FILES, MOST_LINES = 2, 40


def changed_copy(title: str, folder: Path) -> Path:
    """A copy of the project with the diffs of one section applied, each of them of the promised size."""
    copy = folder / "project"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    if (ROOT / ".venv").exists():
        (copy / ".venv").symlink_to((ROOT / ".venv").resolve())
    diffs = re.findall(r"(?ms)^```diff\n(.*?)^```$", CHANGES[title])
    assert diffs, "there is nothing to apply"
    for diff in diffs:
        lines = [line for line in diff.splitlines() if re.match(r"[+-](?!\+\+ |-- )", line)]
        assert diff.count("\n+++ ") <= MOST_FILES and len(lines) <= MOST_LINES
        applied = subprocess.run(["git", "apply", "-"], cwd=copy, input=diff, capture_output=True, text=True)
        assert applied.returncode == 0, applied.stderr
    return copy


def run(copy: Path, program: str) -> str:
    """What a program prints that runs in the copy, where it must end well."""
    ended = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


LANGUAGE = r"""
import json
import numpy as np
import data, flaws, prompts, render
from corpus.checks import problems
from corpus.drafts import Draft
from languages import LANGUAGES
from pathlib import Path
from pictures import is_blank
from synth import png_bytes

vega, rng = LANGUAGES["vega"], np.random.default_rng(0)
prompt = prompts.direct_prompt("vega", "vega", rng)
assert prompts.language_of(prompt) == prompts.language_named("Vega-Lite") == "vega", prompt
for tag in ("vega", "vegalite", "vega-lite"):
    assert prompts.extract_code(prompts.fenced(vega.sample, tag), "vega") == vega.sample

draft = flaws.mutate(vega.sample, "vega", rng)
assert draft != vega.sample and json.loads(draft)
assert prompts.language_of(prompts.refine_prompt("vega", draft)) == "vega"
assert json.loads(Draft(vega.sample, "vega", rng).propose()) != json.loads(vega.sample)
assert problems([(vega.sample, "vega")]) == [""]

with render.Renderer(workers=1, timeout=60) as renderer:
    drawn = renderer.render(vega.sample, "vega")
    assert drawn.image and not is_blank(drawn.image), drawn.error
    assert renderer.render(draft, "vega").image.tobytes() != drawn.image.tobytes()
    assert "JSONDecodeError" in renderer.render("{", "vega").error
    assert renderer.render('{"data": {"url": "http://a.test/b.json"}, "mark": "bar"}', "vega").image is None
    render.doctor(renderer)

Path("rows").mkdir()
Path("rows/bars.vl.json").write_text(vega.sample)
Path("rows/MANIFEST.jsonl").write_text(json.dumps({"language": "vega", "path": "bars.vl.json"}) + "\n")
answer = "Here it is:\n" + prompts.fenced(vega.sample, "vega-lite")
row = {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
Path("picture.png").write_bytes(png_bytes(drawn.image))
Path("rows.jsonl").write_text(json.dumps(row | {"images": ["picture.png"]}) + "\n")
for path in ("rows", "rows.jsonl"):
    (sample,) = data.load(path)
    assert (sample.language, sample.domain, sample.code.strip()) == ("vega", "vega", vega.sample.strip()), sample
render.main(render.Config((Path("rows/bars.vl.json"),)))
"""


@pytest.mark.skipif(not sandbox.probe().safe, reason="no sandbox works on this machine")
def test_a_language_is_one_file(tmp_path):
    need("html")
    copy = changed_copy("A language", tmp_path)
    if not (ROOT / ".venv/render/share/vega.js").is_file():
        pytest.skip("vega.js is absent: run `make setup`")
    shown = run(copy, LANGUAGE)
    assert re.search(r"(?m)^vega +works, \d+ x \d+ px", shown), shown
    assert (copy / "rows/bars.png").is_file()


LOSS = """
import torch
from train_virl import PRESETS, Config, policy_loss
from run import parse_config

parse_config(PRESETS, "tiny --model m --data d --out runs/x --loss reinforce".split())
logps = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
advantages, owner = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0, 0, 1])
loss, held = policy_loss(logps, logps.detach() - 5, advantages, owner, Config(loss="reinforce", minibatches=4))
loss.sum().backward()
assert torch.equal(logps.grad, -advantages) and not held.any()  # however far the ratio is from 1
"""


def test_a_loss_is_a_few_lines_of_one_function(tmp_path):
    run(changed_copy("A loss", tmp_path), LOSS)


METRIC = """
import json
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from report.curves import plot_curves
from reward import Score
from step import rollout_metrics, status_line

score = Score(1.0, 1.0, [1.0], total=1.0, alignment=1.0, executed=True, error=None)
completions = [SimpleNamespace(ids=np.zeros(n), finish="eos", logps=np.zeros(n)) for n in (3, 17)]
records = [SimpleNamespace(score=score, failure=None)] * 2
sample = SimpleNamespace(domain="svg")
metrics = rollout_metrics([SimpleNamespace(sample=sample, completions=completions, records=records)])
assert metrics["length/longest"] == 17 and "longest=17" in status_line(metrics)
Path("metrics.jsonl").write_text("".join(json.dumps({"step": step} | metrics) + chr(10) for step in range(3)))
plot_curves("metrics.jsonl", "curves.png")
print(Path("curves.svg").read_text())
"""


def test_a_metric_is_a_line(tmp_path):
    assert "length/longest" in run(changed_copy("A metric of a step", tmp_path), METRIC)


TWO_SCENES = """
from PIL import Image, ImageDraw

for name, shapes in (("target", 2), ("attempt", 1)):
    picture = Image.new("RGB", (96, 64), "white")
    for k, colour in enumerate(("red", "blue")[:shapes]):
        ImageDraw.Draw(picture).ellipse((8 + 40 * k, 12, 40 + 40 * k, 44), fill=colour)
    picture.save(f"{name}.png")
"""


@pytest.mark.parametrize(
    ("title", "flags", "said"),
    [
        ("A reward", "--reward visual=0.8 colours.py:colours=0.2", r"colours +0\.8\d+, weight 0\.2"),
        ("An encoder", "--encoder grid.py:Grid", r"visual +0\.[2-7]"),
    ],
)
def test_a_reward_and_an_encoder_are_a_file_of_ones_own(title, flags, said, tmp_path):
    copy = changed_copy(title, tmp_path)
    run(copy, TWO_SCENES)
    command = [sys.executable, "reward.py", "target.png", "attempt.png", *flags.split()]
    ended = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert ended.returncode == 0 and re.search(said, ended.stdout), ended.stdout + ended.stderr
