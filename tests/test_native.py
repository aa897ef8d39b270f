"""The decoding step in C: each of its functions equals its torch twin; who has no compiler does without."""

import shutil

import c_functions
import kernels_and_twins
import pytest
import torch
import torch.nn.functional as F
from conftest import needs_a_compiler, sharpened

import native
from rollout import generate


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@needs_a_compiler
def test_functions_in_c_equal_their_twins(three_threads):
    kernels_and_twins.compare(c_functions)
    for D, size in ((32, 16), (64, 7), (128, 16), (80, 100)):  # pages of less than a tile, of more, of no whole one
        kernels_and_twins.attention(c_functions, 6, 2, D=D, size=size, count=60)
    kernels_and_twins.norm_rope_append(c_functions, T=600)  # enough for several threads
    kernels_and_twins.norm_and_mlp(c_functions, T=600)


@needs_a_compiler
@pytest.mark.parametrize("T", [1, 2, 3, 64])
@pytest.mark.parametrize("sizes", [(4, 8), (20, 40), (164, 256)])  # no whole number of blocks
def test_linear_equals_its_twin(three_threads, T, sizes):
    torch.manual_seed(0)
    N, K = sizes
    x, weight, bias, before = torch.randn(T, K), torch.randn(N, K), torch.randn(N), torch.randn(T, N)
    wide = [v.double() for v in (x, weight, bias, before)]
    plain = F.linear(*wide[:2])
    for ours, theirs in (
        (c_functions.linear(x, weight), plain),
        (c_functions.linear(x, weight, bias), plain + wide[2]),
        (c_functions.add_linear(x, weight, before.clone()), plain + wide[3]),
    ):
        kernels_and_twins.check("linear", ours, theirs, 1e-5)


@needs_a_compiler
def test_the_library_leaves_tiny_numbers_alone():
    """Fast mathematics in a library may set the processor to round denormal numbers to 0, for the whole process."""
    assert native.library() and torch.tensor(1e-40) * 1 > 0 and float(torch.tensor([1e-40]).numpy()[0] / 2) > 0


@needs_a_compiler
def test_the_library_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "SOURCE", shutil.copy(native.SOURCE, tmp_path / "kernels.c"))
    made = native.compiled()
    before = made.stat().st_mtime_ns
    assert native.compiled() == made and made.stat().st_mtime_ns == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    native.SOURCE.write_text(native.SOURCE.read_text() + "/* changed */")
    assert native.compiled() != made


@pytest.mark.parametrize("compiler", ["none", "broken", "dumb"])
def test_without_a_compiler_torch_does_it(monkeypatch, tmp_path, capsys, qwen3_folder, samples, compiler):
    policy = sharpened(qwen3_folder)
    cc = tmp_path / "cc"
    if compiler != "none":
        cc.write_text("#!/bin/sh\n" + "echo cc: out of order >&2\n" * (compiler == "broken") + "exit 7\n")
        cc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "SOURCE", shutil.copy(native.SOURCE, tmp_path / "kernels.c"))
    native.library.cache_clear()
    try:
        drawn = list(generate(policy, [policy.encode(samples[0])], G=2, max_new_tokens=9))
        assert not native.ready(policy.engine)
    finally:
        native.library.cache_clear()
    assert len(drawn) == 2 and all(len(completion.ids) for completion in drawn)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "times as long" in said[0]
    assert {"none": "install gcc", "broken": "cc: out of order", "dumb": "status 7"}[compiler] in said[0]
