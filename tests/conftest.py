"""Shared by the tests: two tiny Qwen-VL folders with random weights, and prompts for them. Nothing is downloaded."""

import environment  # noqa: F401

import os
import runpy
import signal
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# a shell has Ctrl-C ignored by what it starts in the background, and so by all that starts: by what tests send it to
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch
from PIL import Image

import model
import native
import releases
from data import Sample
from render import Renderer
from tiny import create_tiny

ROOT = Path(__file__).parent.parent
needs_a_compiler = pytest.mark.skipif(not native.find_compiler(), reason="There is no C compiler here: install gcc")
TEXTS = ["Write SVG code that draws this picture. <svg viewBox='0 0 64 64'><circle cx='1' r='20'/></svg>"] * 4


def picture(seed: int, size=(64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def renderer():
    """For tests whose limits are nothing special."""
    try:
        with Renderer(workers=2, timeout=20) as made:
            yield made
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=releases.FAMILIES)
def tiny_folder(request, tmp_path_factory):
    """A Hugging Face folder of each family."""
    return create_tiny(tmp_path_factory.mktemp("tiny") / request.param, request.param, TEXTS, vocab_size=320)


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory):
    return create_tiny(tmp_path_factory.mktemp("tiny3") / "model", "qwen3_vl", TEXTS, vocab_size=320)


def sharpened(folder) -> model.Policy:
    """Random weights of the usual size give nearly uniform outputs; larger ones make differences visible."""
    policy = model.Policy.load(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def assert_same_gradient(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    """Within 1e-5 of the tensor's own largest number. In float64, which the policies of such tests are turned to, only
    gradients that are 0 by symmetry (of biases of keys) need a floor, far below all others."""
    assert ours.dtype == torch.float64
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max() + 1e-13, what


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script of the root in this process, which has imported what a new one would need seconds for -> its exit
    status, and what it printed or left to the interpreter to print."""

    def run(name: str, *arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        status = None
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as end:
            status = end.code
        printed = "".join(capsys.readouterr())
        return (1, printed + status) if isinstance(status, str) else (status or 0, printed)

    return run


@pytest.fixture
def policy(tiny_folder):
    return sharpened(tiny_folder)


def make_samples() -> list[Sample]:
    """Pictures of different shapes, prompts of different lengths."""
    return [
        Sample("square", "svg", "svg", picture(0), "Write SVG code."),
        Sample("wide", "svg", "svg", picture(1, (96, 48)), "Write SVG code that draws this picture, please."),
        Sample("tall", "svg", "svg", picture(2, (40, 100)), "SVG"),
    ]


@pytest.fixture
def samples():
    return make_samples()
