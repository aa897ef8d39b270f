"""benchmarks/ablation.py: what a plan's commands become, its intervals, its own rewards."""

import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import train_sft
import train_virl
from data import Sample
from render import Rendering
from reward import Rewards
from run import check_config, parse_config

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation  # noqa: E402

PLANS = sorted((ROOT / "benchmarks" / "plans").glob("*.toml"))
TRAININGS = {"train_sft.py": train_sft, "train_virl.py": train_virl}


@pytest.mark.parametrize("plan", PLANS, ids=[plan.stem for plan in PLANS])
def test_every_command_of_a_plan_can_be_given(plan, tmp_path, capsys, monkeypatch):
    """Its names are all filled in, and the flags of its trainings are known and go together."""
    monkeypatch.chdir(ROOT)
    ablation.main(ablation.Config(plan, out=tmp_path, dry=True))
    commands = [line[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    assert commands and not any("{" in command for command in commands)
    for command in commands:
        script, *arguments = shlex.split(command)
        assert (ROOT / script).is_file()
        if script in TRAININGS:
            config = parse_config(TRAININGS[script].PRESETS, arguments)
            check_config(config)
            if script == "train_virl.py":
                train_virl.rewards_of(config)


def test_a_command_takes_newest_checkpoints_and_common_texts(tmp_path):
    runner = ablation.Runner(tmp_path, False, {"both": "--data {a.parquet} --seed {seed}"})
    for step in ("step-000002", "step-000010"):
        (tmp_path / "SFT" / "checkpoints" / step).mkdir(parents=True)
    command = runner.filled("{both} --model {SFT:newest} --out {SFT}", seed=3)
    assert (
        command
        == f"--data {tmp_path}/a.parquet --seed 3 --model {tmp_path}/SFT/checkpoints/step-000010 --out {tmp_path}/SFT"
    )


def test_an_interval_draws_seeds_and_targets():
    better = [{f"t{i}": 0.5 + 0.1 * seed for i in range(50)} for seed in range(3)]
    worse = [{f"t{i}": 0.4 for i in range(50)} for _ in range(3)]
    mean, low, high = ablation.paired(better, worse)
    assert mean == pytest.approx(0.2)
    assert low == pytest.approx(0.1, abs=0.04) and high == pytest.approx(0.3, abs=0.04)  # targets alone would give 0.2


def test_thumbnail_and_tiles_are_the_halves_of_visual(monkeypatch):
    monkeypatch.chdir(ROOT)
    target, other = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    ImageDraw.Draw(target).rectangle((5, 5, 40, 40), fill="red")
    ImageDraw.Draw(other).rectangle((25, 25, 60, 60), fill="red")
    sample = Sample("a", "svg", "svg", target, "svg")
    renderings = [Rendering(picture, None, 0.0) for picture in (other, target, None)]
    values = {}
    for name in (
        "visual",
        "benchmarks/parts.py:thumbnail",
        "benchmarks/parts.py:tiles",
        "benchmarks/parts.py:likeness",
    ):
        scores = Rewards([f"{name}=1"]).score([sample] * 3, [""] * 3, renderings)
        values[name.rpartition(":")[2]] = [score.total for score in scores]
    assert all(of[1:] == [1.0, 0.0] and 0 < of[0] < 1 for of in values.values())
    assert values["visual"][0] == pytest.approx((values["thumbnail"][0] + values["tiles"][0]) / 2)
