"""The memory table against what small models really take, and known releases against their published sizes."""

import numpy as np
import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

import model
import packing
from report import __main__ as command
from report import memory
from tiny import tiny_config


@pytest.mark.parametrize(("layers", "vocabulary"), [(8, 320), (2, 20_000)])  # the layers decide the peak, or the head
def test_the_peak_of_training_is_the_tables(qwen3_folder, samples, monkeypatch, layers, vocabulary):
    """A step's second packed row, activations checkpointed, by torch's own count of live memory."""
    policy = model.Policy.load(qwen3_folder)
    config = tiny_config("qwen3_vl", policy.tokenizer, 160, layers)
    config.text_config.vocab_size, config._attn_implementation = vocabulary, "packed_rows"
    policy.hf = type(policy.hf)(config).train()
    policy.hf.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(policy.parameters())
    group = (policy.encode(samples[0]), [np.arange(i, i + 128) for i in range(20, 28)])
    row = packing.pack([group] * 3)
    monkeypatch.setattr(memory, "P", len(group[0].ids))
    monkeypatch.setattr(memory, "R", 128)

    policy(row).sum().backward()
    optimizer.step()  # Adam's moments exist from here on, and the gradients of a first row
    tracker = MemTracker()
    tracker.track_external(policy, optimizer, *(p.grad for p in policy.parameters()))
    with tracker:
        policy(row).sum().backward()
        optimizer.step()
    (measured,) = (kinds["Total"] for kinds in tracker.get_tracker_snapshot("peak").values())
    parts = memory.lives(config, gpus=1, row_tokens=len(row.ids), one=4, pictures=16 / (len(group[0].ids) + 8 * 128))
    computed = sum(training for _, training in parts.values())
    print(f"computed {computed / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB")
    assert computed == pytest.approx(measured, rel=0.15)


SIZES = {"Qwen3-VL-8B": 8.767, "Qwen/Qwen3-VL-2B-Instruct": 2.128, "Qwen/Qwen2.5-VL-7B-Instruct": 8.292}


@pytest.mark.parametrize("name", SIZES)
def test_releases_have_their_size(name):
    assert memory.count_weights(memory.config_of(name)).total / 1e9 == pytest.approx(SIZES[name], abs=1e-3)


def test_a_token_of_the_8b_model_has_144_kib_of_keys_and_values():
    assert memory.key_value_bytes(memory.config_of("Qwen/Qwen3-VL-8B-Instruct")) == 144 * 1024


def test_the_table_is_printed(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", "memory", "Qwen3-VL-2B", "--gpus", "2"])
    command.main()
    assert "80 GB: training fits" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["report", "memory", "Qwen9"])
    with pytest.raises(SystemExit, match="releases whose shape is known"):
        command.main()
