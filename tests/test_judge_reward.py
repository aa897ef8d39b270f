"""The judge as a reward: lists of errors, replies that cannot be read, a run of ViRL beside a stub of a server."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from test_answers import Stub

import train_virl
from data import Sample
from metrics.judge_reward import MOST, Judge, worth
from render import Rendering
from reward import Rewards

CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="%d"/></svg>'


def picture(grey: int) -> Image.Image:
    return Image.new("RGB", (20, 10), (grey, grey, grey))


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{k}", "svg", "svg", picture(0), "Draw it.") for k in range(count)]


def told(stub, folder) -> Judge:
    judge = Judge()
    judge.prepare([], None, SimpleNamespace(judge_url=stub.url, judge_model="stub", out=folder))
    return judge


@pytest.mark.parametrize(
    ("reply", "severities"),
    [
        ("No errors.", 0),
        ("structure (3): a panel is missing\ntext (1): a letter", 4),
        ("1. **Data** (5): other bars\n2. Style - severity 2: red", 7),
        ("- text: 4, the title is wrong\n\nstyle (1) a thinner line", 5),
        ("data (5): a\n" * 9, MOST),
    ],
)
def test_a_list_of_errors_is_worth_what_is_left(reply, severities):
    assert worth(reply) == pytest.approx((1 + 1 - severities / MOST) / 2)


@pytest.mark.parametrize("reply", ["", "I cannot see pictures.", "colour (3): red", "data (9): much", "data: some"])
def test_what_lists_no_errors_cannot_be_read(reply):
    with pytest.raises(ValueError, match="lists no errors"):
        worth(reply)


def test_who_gets_no_judgement_gets_the_mean(tmp_path, capsys):
    """Of the batch's answers that have one; what draws nothing is worth 0 and not asked about. All are kept."""
    replies = iter(["no errors", "Hm.", "data (5): a\ntext (4): b"])
    with Stub(text=lambda question: next(replies)) as stub:
        judge = told(stub, tmp_path)
        judge.server.threads._max_workers = 1  # so that the replies come in this order
        drawings = [Rendering(picture(k), None, 0.0) for k in (1, 2, 3)] + [Rendering(None, "failed", 0.0)]
        values = judge(samples(4), [""] * 4, drawings)
        assert values == pytest.approx([1.0, 0.85, 0.7, 0.0])
        assert "1 of 4 answers have no judgement" in capsys.readouterr().err and stub.count == 3
        again = told(stub, tmp_path)  # a run that goes on
        assert again(samples(4), [""] * 4, drawings) == pytest.approx(values) and stub.count == 3
    pictures = stub.questions[0]["messages"][0]["content"][1:]
    assert len(pictures) == 2 and pictures[0] != pictures[1]


def test_where_nobody_answers_there_is_no_judgement(tmp_path):
    """Its weight then goes to the first reward; equal pictures are asked about once."""
    with Stub(behave=lambda n, question: 400) as stub:
        judge = told(stub, tmp_path)
        assert judge(samples(2), ["", ""], [Rendering(picture(1), None, 0.0)] * 2) == [None, None]
        assert stub.count == 1


def test_a_judge_has_to_be_named(tmp_path):
    with pytest.raises(ValueError, match="give --judge-url URL --judge-model NAME"):
        Rewards(["judge"]).prepare([], None, SimpleNamespace(judge_url="", judge_model="", out=tmp_path))
    config = train_virl.Config(reward=("visual=0.5", "judge=0.5"))
    assert any("--judge-url" in wrong for wrong in config.conflicts())
    assert not train_virl.Config(reward=("judge.py:f",)).conflicts()


def test_virl_with_a_judge_and_ranks(qwen3_folder, tmp_path, monkeypatch):
    """Two steps; every answer that draws something is asked about, equal ones once, and its mean is logged."""
    rows = [
        {"id": f"s{k}", "domain": "svg", "language": "svg", "image": f"{k}.png", "prompt": "Svg."} for k in range(4)
    ]
    (tmp_path / "MANIFEST.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(4):
        picture(50 * k).resize((64, 64)).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(train_virl, "extract_code", lambda text, language: CIRCLE % (1 + len(text) % 4))
    with Stub(text=lambda question: f"data ({1 + len(str(question)) % 5}): other shapes") as stub:
        arguments = ["tiny", "--model", qwen3_folder, "--data", tmp_path, "--out", tmp_path / "virl", "--steps", 2]
        arguments += ["--prompts", 3, "--group", 4, "--max-new-tokens", 12, "--by-rank", "--judge-url", stub.url]
        arguments += ["--judge-model", "stub", "--reward", "visual=0.6", "judge=0.3", "alignment=0.1"]
        train_virl.main(list(map(str, arguments)))
        rows = [json.loads(line) for line in (tmp_path / "virl/metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [0, 1] and 3 <= stub.count <= 16  # 4 targets, 4 pictures at most
    for row in rows:
        total = 0.6 * row["reward/visual"] + 0.3 * row["reward/judge"] + 0.1 * row["reward/alignment"]
        assert row["reward/mean"] == pytest.approx(total, rel=1e-4, abs=1e-6) and row["reward/judge"] > 0.6


def test_the_judge_is_asked_while_answers_are_written(tmp_path, renderer):
    """As soon as a picture is there, before anybody wants its score."""
    with Stub(text="no errors") as stub:
        judge = told(stub, tmp_path)
        drawing = renderer.submit('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g/></svg>', "svg")
        judge.begin(samples(1)[0], drawing)
        drawing.result()
        job = judge.job(samples(1)[0].image, drawing.result().image)
        assert job.result() == 1.0 and stub.count == 1
        assert judge(samples(1), [""], [drawing.result()]) == [1.0] and stub.count == 1
