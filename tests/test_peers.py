"""benchmarks/peers.py: what it makes of the steps of both sides. With TRL (`make benchmark-peers`): its loss is ours,
and its trainer takes our reward."""

import json
import sys
from pathlib import Path

import pytest
from conftest import picture

from data import Sample
from synth import write_parquet

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import peers  # noqa: E402

STEP = {"step": 2.0, "generate": 0.5, "judge": 0.25, "update": 1.0, "cpu": 3.0, "tokens": 100, "peak_mib": 800.0}
CIRCLE = '<svg viewBox="0 0 64 64"><circle cx="{}" cy="30" r="8" fill="red"/></svg>'
needs_trl = pytest.mark.skipif(
    not (peers.PEERS / "trl").exists(), reason="TRL is not here: `make benchmark-peers` lays it aside"
)


def test_a_summary_has_medians_and_what_is_of_no_phase():
    rows = [STEP, STEP | {"step": 3.0}, STEP | {"step": 9.0, "tokens": 540}]
    found = peers.summary(rows)
    assert found["step"] == 3.0 and found["rest"] == 1.25 and found["steps"] == 3
    assert found["step_seconds"] == [2.0, 3.0, 9.0] and found["tokens_per_second"] == 50


def test_the_table_has_a_row_for_each_side():
    sft = {name: STEP[name] for name in ("step", "cpu", "tokens", "peak_mib")}
    cells = {
        name: {side: peers.summary([dict(row)]) for side in ("ours", "trl")} for name, row in (("a", STEP), ("b", sft))
    }
    lines = peers.table(
        {name: sides | {"times_faster": 1.5, "times_less_cpu": 1.2} for name, sides in cells.items()}
    ).splitlines()
    assert lines[2] == "| a: ours | 2.00 | 0.50 | 0.25 | 1.00 | 0.25 | 3.00 | 50 | 800 | 1.5, 1.2 |"
    assert lines[5] == "| b: trl | 2.00 |  |  |  |  | 3.00 | 50 | 800 |  |"
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"cells": ("sft",)}, "there is no cell 'sft'; choose of virl short"),
        ({"rounds": 0}, "--rounds has to be at least 1"),
        ({"steps": 1}, "--steps at least 2"),
    ],
)
def test_it_refuses_in_one_sentence(wrong, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        peers.main(peers.Config(work=tmp_path, out=tmp_path / "out.json", **wrong))


def test_without_trl_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    with pytest.raises(ValueError, match="`make benchmark-peers` lays it into .venv-peers"):
        peers.main(peers.Config(work=tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_a_side_that_fails_names_its_log(tmp_path):
    with pytest.raises(RuntimeError, match=rf"tiny.py ended with 2; {tmp_path}/log says why"):
        peers.python("tiny.py", "--nonsense", log=tmp_path / "log")


@needs_trl
def test_trl_has_our_loss_and_takes_our_reward(qwen3_folder, tmp_path):
    rows = [
        Sample("", "svg", "svg", picture(i), "Write SVG code." + " Please." * (i % 3), CIRCLE.format(i))
        for i in range(24)
    ]
    write_parquet(rows, tmp_path / "rows.parquet")
    model, script = ("--model", qwen3_folder), "benchmarks/peers_trl.py"
    data = "--pool", tmp_path / "rows.parquet", "--pairs", tmp_path / "rows.parquet"
    peers.python(script, "agree", *model, *data, "--out", tmp_path / "agree.json", log=tmp_path / "log")
    found = json.loads((tmp_path / "agree.json").read_text())
    pairs = [
        found["virl"]["sampled just now"],
        found["virl"]["sampled by another"],
        found["sft"]["up to the end of turn"],
    ]
    assert all(pair["gradient_apart"] < 1e-4 for pair in pairs), found
    shape = "--steps", 1, "--prompts", 2, "--group", 2, "--batch", 4, "--new-tokens", 8
    options = "--data", tmp_path / "rows.parquet", "--out", tmp_path / "virl.json"
    peers.python(script, "virl", *model, *options, *shape, log=tmp_path / "log")
    (row,) = json.loads((tmp_path / "virl.json").read_text())
    assert 0 <= row["reward"] <= 1 and row["tokens"] <= 32 and row["judge"] > 0


@needs_trl
def test_it_says_which_versions_were_compared():
    assert set(peers.versions()) == {"torch", "transformers", "trl", "accelerate"}


def test_ours_is_read_from_the_metrics(qwen3_folder, tmp_path):
    """Both scripts, two steps each, from a folder as `prepare` leaves it."""
    (tmp_path / "short").symlink_to(qwen3_folder)
    rows = [Sample("", "svg", "svg", picture(i), "Write SVG code.", CIRCLE.format(i)) for i in range(8)]
    write_parquet(rows, tmp_path / "rows.parquet")
    config = peers.Config(steps=1, work=tmp_path)
    sft = peers.ours(peers.Cell("sft", "short", "rows", batch=4), config, 0)
    assert len(sft) == 2 and set(peers.summary(sft)) >= {"step", "loss", "peak_mib", "tokens_per_second"}
    (virl,) = peers.ours(peers.Cell("virl", "short", "rows", 8), config, 0)
    assert set(virl) >= {*peers.PHASES[:-1], "step", "cpu", "reward", "cut"} and virl["peak_mib"] > 100
