"""The memory table against what small models really take, and known releases against their published sizes."""

import dataclasses
import re
import weakref

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lora
import packing
import train_sft
import train_virl
from model import Policy
from report import __main__ as command
from report import memory
from report.memory import Plan, lives
from rollout import Engine, generate
from tiny import tiny_config
from training import load_policy, make_optimizers


class LiveMemory(TorchDispatchMode):
    """Bytes of all tensors that are alive, each storage once, whatever operations made them: now, and at most."""

    def __init__(self, *tensors: torch.Tensor):
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0
        self.watch(tensors)

    def watch(self, tensors) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) not in self.sizes:
                self.sizes[id(storage)] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, id(storage))
        self.peak = max(self.peak, self.now)

    def forget(self, number: int) -> None:
        self.now -= self.sizes.pop(number)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.watch(leaf for leaf in tree_leaves(out) if torch.is_tensor(leaf))
        return out


SETTINGS = [  # layers, width, vocabulary, rank, each layer twice: the layers decide the peak, or the head
    (8, 160, 320, None, True),
    (8, 160, 320, 16, True),
    (2, 160, 20_000, None, True),
    (2, 160, 20_000, 16, True),
    (4, 320, 320, None, False),
    (4, 320, 320, 16, False),
]


@pytest.mark.parametrize(("layers", "width", "vocabulary", "rank", "checkpointing"), SETTINGS)
def test_the_peak_of_training_is_the_tables(qwen3_folder, samples, layers, width, vocabulary, rank, checkpointing):
    """A step's second packed row and the optimizer's step, all live tensors counted: the sum within a tenth; weights,
    gradients and moments exactly."""
    settings, policy = train_virl.Config(), Policy.load(qwen3_folder)
    shape = tiny_config("qwen3_vl", policy.tokenizer, width, layers)
    shape.text_config.vocab_size, shape._attn_implementation = vocabulary, "packed_rows"
    policy.hf = type(policy.hf)(shape).train()
    if rank:
        peft = pytest.importorskip("peft")
        peft.get_peft_model(policy.hf, peft.LoraConfig(r=rank, target_modules=lora.pattern(policy.hf)))
    if checkpointing:
        policy.hf.gradient_checkpointing_enable({"use_reentrant": False})
    (optimizer,) = make_optimizers(policy, settings)
    group = (policy.encode(samples[0]), [np.arange(i, i + 128) for i in range(20, 28)])
    row = packing.pack([group] * 3)

    policy(row).sum().backward()
    optimizer.step()  # Adam's moments exist from here on, and the gradients of a first row
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    moments = [x for state in optimizer.state.values() for x in state.values() if x.ndim]
    with LiveMemory(*policy.parameters(), *policy.buffers(), *gradients, *moments) as measured:
        policy(row).sum().backward()
        optimizer.step()

    P = len(group[0].ids)
    lengths = {"row_tokens": len(row.ids), "prompt": P, "answer": 128, "pictures": 16 / (P + 8 * 128)}
    parts = lives(shape, Plan(lora=rank, checkpointing=checkpointing, samples=False, one=4, **lengths))
    of = {what: training for what, (_, training) in parts.items()}
    bytes_of = lambda tensors: sum(x.nbytes for x in tensors)  # noqa: E731
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert of["weights that are trained, fp32"] == bytes_of(trained)
    assert of["gradients, fp32"] == bytes_of(gradients) and of["Adam's moments, fp32"] == bytes_of(moments)
    assert of.get("base, frozen", 0) == bytes_of(p for p in policy.parameters() if not p.requires_grad) * bool(rank)
    print(f"computed {sum(of.values()) / 1e6:.1f} MB, measured {measured.peak / 1e6:.1f} MB")
    assert sum(of.values()) == pytest.approx(measured.peak, rel=0.1)


@pytest.mark.parametrize("rank", [None, 8])
def test_what_is_sampled_from_is_the_tables(qwen3_folder, samples, rank):
    """Weights, the sampler's buffer and keys and values in pages, on a CPU: without LoRA the buffer is the weights."""
    if rank:
        pytest.importorskip("peft")
    policy = load_policy(qwen3_folder, train_virl.Config(model=str(qwen3_folder), lora=rank))
    policy.engine = Engine(policy, page=16)
    list(generate(policy, [policy.encode(samples[0])], G=4, max_new_tokens=20))
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in policy.parameters()}
    buffer = policy.engine.weights.buffer.untyped_storage()
    storages[buffer.data_ptr()] = buffer.nbytes()
    parts = lives(policy.hf.config, Plan(lora=rank, one=4))
    weights = ("base, frozen", "weights that are trained, fp32", "matrices with products, to sample from")
    computed = sum(parts.get(name, (0, 0))[0] for name in weights)
    assert computed == pytest.approx(sum(storages.values()), rel=0.002)  # but for the alignment of matrices
    pool = policy.engine.pool
    assert sum(x.nbytes for x in pool.kv) == pool.count * 16 * memory.key_value_bytes(policy.hf.config, 4)


SIZES = {"Qwen3-VL-8B": 8.767, "Qwen/Qwen3-VL-2B-Instruct": 2.128, "Qwen/Qwen2.5-VL-7B-Instruct": 8.292}


@pytest.mark.parametrize("name", SIZES)
def test_releases_have_their_size(name):
    assert memory.count_weights(memory.config_of(name)).total / 1e9 == pytest.approx(SIZES[name], abs=1e-3)


def test_a_token_of_the_8b_model_has_144_kib_of_keys_and_values():
    assert memory.key_value_bytes(memory.config_of("Qwen/Qwen3-VL-8B-Instruct")) == 144 * 1024


def test_the_table_is_printed(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", "memory", "Qwen3-VL-2B", "--gpus", "2"])
    command.main()
    assert "80 GB: fits" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["report", "memory", "Qwen3-VL-4B", "--gpus", "1", "--lora", "32"])
    command.main()
    assert "24 GB: does not fit: --row-tokens 8192;" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["report", "memory", "Qwen9"])
    with pytest.raises(SystemExit, match="releases whose shape is known"):
        command.main()


def test_the_documented_tables_are_what_the_command_prints():
    documented = (ROOT / "docs/models.md").read_text()
    assert memory.overview() in documented
    for line in memory.table("Qwen3-VL-8B", Plan(8)).splitlines()[3:13]:
        what, *numbers = [line[:42].strip(), *line[42:].split()]
        assert f"| {' | '.join([what, *numbers])} |" in documented


@pytest.mark.parametrize("stage", [train_sft, train_virl])
def test_the_preset_for_small_cards_fits_them(stage):
    """A 2B model with room to spare, and a 4B model."""
    settings = stage.PRESETS["gpu24"][1]
    for name in ("Qwen3-VL-2B", "Qwen3-VL-4B"):
        assert memory.fits(memory.config_of(name), memory.plan_of(settings), memory.USABLE * 24e9), name
    whole = memory.plan_of(dataclasses.replace(settings, lora=None))
    assert not memory.fits(memory.config_of("Qwen3-VL-2B"), whole, memory.USABLE * 24e9)
    on_80_gb = memory.plan_of(stage.PRESETS["gpu1"][1])
    assert memory.fits(memory.config_of("Qwen3-VL-2B"), on_80_gb, memory.USABLE * 80e9)


@pytest.mark.parametrize(
    ("preset", "GB", "said"),
    [
        ("gpu24", 40, r"of 40\.0 GB here: it fits\.$"),
        ("gpu24", 12, r"of 12\.0 GB here: it fits, with \d+ of the longest answers at a time, not --slots 64\.$"),
        ("gpu24", 10, r"hardly fit; with --row-tokens 1024 --max-prompt-tokens 512 --max-new-tokens 512 it would\.$"),
        ("gpu24", 3, r"hardly fit; it needs more GPUs \(torchrun\), larger ones or a smaller model\.$"),
        ("gpu1", 80, r"of 80\.0 GB here: it fits"),
        ("gpu1", 24, r"hardly fit; with --lora 32 it would\.$"),
    ],
)
def test_a_run_says_whether_it_fits_and_what_to_change(preset, GB, said, capsys, monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: (GB * 1e9, "here"))
    settings = dataclasses.replace(train_virl.PRESETS[preset][1], model="Qwen3-VL-2B")
    memory.say_whether_it_fits(settings)
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("Memory: ") and "\n" not in printed and re.search(said, printed), printed


def test_a_tiny_run_says_so_first(qwen3_folder, capsys):
    """On a CPU, of what is available; of what cannot be read nothing, for loading it says why."""
    memory.say_whether_it_fits(train_sft.Config(model=str(qwen3_folder)))
    assert re.match(
        r"Memory: \d\.\d GB at the peak of training, of \d+\.\d GB available here: it", capsys.readouterr().out
    )
    memory.say_whether_it_fits(train_sft.Config(model="no/such"))
    assert not capsys.readouterr().out
