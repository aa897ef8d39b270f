"""Held-out targets while training: what is measured, what is kept, and that it changes nothing of what is learnt."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from test_train import VIRL, corpus, metrics, run, succeed  # noqa: F401

import data
from answers.held_out import HeldOut
from model import Policy
from rollout import generate
from run import Run
from train_sft import Config


def held_out(folder) -> list[tuple[int, dict]]:
    rows = [row for row in metrics(folder) if "held_out/visual" in row]
    return [(row["step"], {k.removeprefix("held_out/"): v for k, v in row.items() if k != "step"}) for row in rows]


@pytest.fixture(scope="module")
def learnt(qwen3_folder, corpus, tmp_path_factory):  # noqa: F811
    """A run that has learnt one pair by heart, and was asked for it meanwhile."""
    folder = tmp_path_factory.mktemp("held out")
    table = pq.read_table(corpus)
    codes = [sample.code for sample in data.load(corpus)]
    shortest = min(range(len(codes)), key=lambda i: len(codes[i]))
    pq.write_table(table.slice(shortest, 1), folder / "pair.parquet")
    shutil.copy(folder / "pair.parquet", folder / "target.parquet")
    arguments = ["--model", qwen3_folder, "--data", folder / "pair.parquet", "--out", folder / "run", "--refine", 0]
    arguments += ["--batch-size", 1, "--steps", 60, "--eval-data", folder / "target.parquet"]
    arguments += ["--eval-every", 20, "--eval-tokens", 200]
    done = run("train_sft.py", "tiny", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


def test_the_score_rises_as_a_model_learns(learnt):
    folder, done = learnt
    rows = held_out(folder / "run")
    assert [step for step, _ in rows] == [0, 20, 40, 60]
    assert rows[0][1] == {"visual": 0, "executes": 0, "cut": 1}
    assert rows[-1][1] == {"visual": 1, "executes": 1, "cut": 0}
    assert len(metrics(folder / "run")) == 60 + 4
    assert "After step 60: 1 held-out targets, visual 1.0000, 100% drawn" in done.stderr
    assert "The best held-out visual score is 1.0000, after step" in done.stderr
    assert (folder / "run/curves.svg").read_text().count("Held-out") == 1


def test_the_best_model_is_kept_and_answers(learnt):
    folder, _ = learnt
    best = folder / "run/checkpoints/best"
    said = json.loads((best / "held_out.json").read_text())
    first = next(step for step, row in held_out(folder / "run") if row["visual"] == 1)
    assert said == {"step": first, "visual": 1}, "a later one that is as good does not take its place"
    (sample,) = data.load(folder / "target.parquet")
    policy = Policy.load(best)
    (answer,) = generate(policy, [policy.encode(sample)], G=1, max_new_tokens=200, temperature=0.0)
    assert answer.text == data.answer_text(sample)


def test_a_resumed_run_knows_the_best_of_before(learnt, tmp_path):
    folder, _ = learnt
    shutil.copytree(folder / "run", tmp_path / "run")
    before = (tmp_path / "run/checkpoints/best/held_out.json").read_text()
    done = run("train_sft.py", "tiny", "--out", tmp_path / "run", "--resume", "--steps", 61)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [step for step, _ in held_out(tmp_path / "run")] == [0, 20, 40, 60, 61]
    assert (tmp_path / "run/checkpoints/best/held_out.json").read_text() == before
    assert "the best so far" not in done.stderr and f"after step {json.loads(before)['step']}, in" in done.stderr


STAGES = {"train_sft.py": ["--batch-size", 4], VIRL: ["--prompts", 4, "--group", 2, "--max-new-tokens", 8]}


@pytest.mark.parametrize("script", STAGES)
def test_nothing_that_is_learnt_changes_with_one_process_or_two(script, qwen3_folder, corpus, tmp_path):  # noqa: F811
    arguments = ["tiny", "--model", qwen3_folder, "--data", corpus, "--steps", 3, *STAGES[script], "--out"]
    shutil.copy(corpus, tmp_path / "targets.parquet")
    watched = ["--eval-data", tmp_path / "targets.parquet", "--eval-every", 2, "--eval-tokens", 6]
    succeed(script, *arguments, tmp_path / "without")
    succeed(script, *arguments, tmp_path / "with", *watched)
    succeed(script, *arguments, tmp_path / "two", *watched, processes=2)
    timed = ("time/", "judge/", "tokens_per_second", "held_up")
    plain = lambda row: {k: v for k, v in row.items() if not k.startswith(timed)}  # noqa: E731
    trained = [plain(row) for row in metrics(tmp_path / "with") if "loss" in row]
    assert trained == [plain(row) for row in metrics(tmp_path / "without")] and len(trained) == 3
    weights = [
        (tmp_path / name / "checkpoints/step-000003/model.safetensors").read_bytes() for name in ("with", "without")
    ]
    assert weights[0] == weights[1]
    rows = held_out(tmp_path / "with")
    assert [step for step, _ in rows] == [0, 2, 3] and held_out(tmp_path / "two") == rows


def test_targets_of_the_training_and_those_that_are_none_get_one_sentence(script, qwen3_folder, corpus, tmp_path):  # noqa: F811
    arguments = ["tiny", "--model", qwen3_folder, "--data", corpus, "--out", tmp_path / "run", "--steps", 1]
    status, said = script("train_sft.py", *arguments, "--eval-data", corpus)
    assert status == 1 and "is what the run learns from" in said and "Traceback" not in said
    status, said = script("train_sft.py", *arguments, "--eval-data", tmp_path / "nothing.parquet")
    assert status == 1 and "nothing.parquet" in said and "Traceback" not in said
    (tmp_path / "bad.jsonl").write_text('{"id": "a", "language": "svg", "code": "<svg", "image": "missing.png"}\n')
    status, said = script("train_sft.py", *arguments, "--eval-data", tmp_path / "bad.jsonl")
    assert status == 1 and "bad.jsonl" in said and "Traceback" not in said, said


def test_a_best_model_that_cannot_be_written_ends_nothing(qwen3_folder, corpus, tmp_path, capsys):  # noqa: F811
    config = Config(model=str(qwen3_folder), data="x", eval_data=str(corpus), out=str(tmp_path))
    watch = HeldOut(config, Run(config))
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    assert not watch.keep(Policy.load(qwen3_folder), 7, 0.5)
    assert "of step 7, could not be written" in capsys.readouterr().err
