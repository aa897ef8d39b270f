"""What is there to teach with: the notebook runs, cell by cell, and TRL can use our reward."""

import ast
import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

NOTEBOOK = Path(__file__).parent.parent / "teach" / "one_step.ipynb"
COLOURS = ("red", "blue")


def ran(source: str, names: dict):
    """What a cell prints, and the value of its last line, as a notebook shows it."""
    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(tree, "<cell>", "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return said.getvalue(), value


def test_the_notebook_runs(monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent.parent))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 25
    names, pictures, said = {"__name__": "__main__"}, [], ""
    try:
        for cell in cells:
            if cell["cell_type"] == "code":
                text, value = ran("".join(cell["source"]), names)
                said += text
                pictures += [value] if isinstance(value, Image.Image) else []
    finally:
        if "renderer" in names:
            names["renderer"].close()
    assert Path(os.getcwd()) == NOTEBOOK.parent.parent
    assert len(pictures) == 3 and all(np.asarray(picture).std() > 5 for picture in pictures)
    scores = names["scores"]
    assert scores[0].total > 0.999 and scores[-1].total < 0.2  # the target's own program, and what is no program
    assert names["advantages"].argmax() == 0 and "log-probability of a token" in said


def test_trl_can_use_our_reward(monkeypatch):
    """As TRL calls it: completions as texts or as messages, a column of the data set for each other argument."""
    monkeypatch.syspath_prepend(str(NOTEBOOK.parent))
    from trl_reward import PictureReward

    red, blue = (
        f'<svg viewBox="0 0 64 64"><rect x="8" y="8" width="40" height="30" fill="{c}"/></svg>' for c in COLOURS
    )
    reward = PictureReward(workers=1)
    try:
        target = reward.renderer.render(red, "svg").image
        answers = [f"```svg\n{red}\n```", f"```svg\n{blue}\n```", "I cannot draw.", "```svg\n<svg\n```"]
        columns = {"image": [target] * 4, "language": ["svg"] * 4, "prompts": ["Draw it as svg."] * 4}
        values = reward(completions=answers, **columns)
        assert values == reward([[{"role": "assistant", "content": text}] for text in answers], **columns)
    finally:
        reward.renderer.close()
    assert values[0] > 0.999 and 0.1 < values[1] < 0.9 and values[2] == 0 and values[3] < 0.11
