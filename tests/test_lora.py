"""LoRA: sampler and trainer agree, gradients reach the adapter alone, its folder is PEFT's, merged it is the base plus
the products, runs resume bit for bit, two processes take the steps of one; what does not fit is said in a sentence."""

import errno
import importlib.util
import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import several_processes
import torch
from conftest import make_samples, sharpened
from safetensors.torch import load_file
from test_rollout import by_key
from test_train import VIRL, assert_resumed_is_unbroken, corpus, metrics, run, succeed  # noqa: F401

import damage
import train_sft
import train_virl
import training
from answers.held_out import HeldOut
from checkpoint import save_checkpoint
from lora import LoraPolicy, pattern
from model import Policy
from packing import pack
from rollout import generate
from tiny import create_tiny

peft = pytest.importorskip("peft", reason="PEFT is not installed here: pip install peft")


def settings(base, **changed) -> train_virl.Config:
    return train_virl.Config(model=str(base), **{"lora": 4} | changed)


def adapted(base, **changed) -> LoraPolicy:
    """A policy whose adapter, always the same one, adds something that can be seen: PEFT's own begins with 0."""
    torch.manual_seed(1)
    policy = LoraPolicy.of(base, settings(base, **changed))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return policy


@pytest.fixture(scope="module")
def adapter_folder(qwen3_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "saved"
    adapted(qwen3_folder).save(folder)
    return folder


def rows_of(policy):
    """A packed row of three groups of four answers."""
    return pack([(group.prompt, [c.ids for c in group.completions]) for group in groups_of(policy)])


def groups_of(policy):
    return several_processes.made_groups(policy, make_samples())


# --------------------------------------------------------------------------------------------- what computes and learns


@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj"), ("v_proj", "visual.qkv")], ids=str)
def test_sampled_logps_equal_the_trainers_as_the_adapter_learns(tiny_folder, targets):
    """Before and after an optimizer's step, which the sampler sees at its next rollout. Matrices without an adapter
    and all else are shared with the trainer."""
    if tiny_folder.name == "qwen2_5_vl" and "visual.qkv" in targets:
        targets = ("visual.proj", "o_proj")
    policy = adapted(tiny_folder, lora_targets=targets)
    optimizers = training.make_optimizers(policy, settings(tiny_folder))
    prompts = [policy.encode(sample) for sample in make_samples()]
    drawn = []
    for _ in range(2):
        sampled = by_key(generate(policy, prompts, G=4, max_new_tokens=40, temperature=0.8, seed=5))
        row = pack([(prompt, [sampled[prompt.sample_id, i].ids for i in range(4)]) for prompt in prompts])
        trainer = policy(row, temperature=0.8)
        sampler = np.concatenate([sampled[prompt.sample_id, i].logps for prompt in prompts for i in range(4)])
        assert np.abs(trainer.detach().numpy() - sampler).max() < 1e-4
        assert (policy.without_adapter(row, 0.8) - trainer).abs().max() > 0.1, "what is compared is more than the base"
        (-trainer.sum()).backward()
        training.optimizer_step(policy, optimizers, lr=1e-2, grad_clip=1.0)
        drawn.append(sampler)
    assert len(drawn[0]) != len(drawn[1]) or np.abs(drawn[0] - drawn[1]).max() > 1e-3
    buffer = policy.engine.weights.buffer.untyped_storage().data_ptr()
    text = policy.hf.model.language_model.named_parameters()
    shared = [p.untyped_storage().data_ptr() == buffer for name, p in text if "_norm." not in name]
    bases = sum(".language_model." in name for name, p in policy.named_parameters() if "base_layer.weight" in name)
    assert shared.count(False) == 3 * bases, "a base and its adapter"


def test_gradients_and_steps_reach_the_adapter_alone(qwen3_folder):
    policy = adapted(qwen3_folder)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    config = settings(qwen3_folder, freeze="nothing", row_tokens=90)
    optimizers = training.make_optimizers(policy, config)
    several_processes.update(policy, groups_of(policy), config)
    assert all((p.grad is not None) == ("lora_" in name) for name, p in policy.named_parameters())
    training.optimizer_step(policy, optimizers, lr=1e-2, grad_clip=1.0)
    changed = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    state = sum(x.numel() for x in optimizers[0].state_dict()["state"][0].values() if x.ndim)
    assert 0 < state < 2 * 4 * 1000, "moments of the adapter alone"


def test_the_gradient_is_that_of_the_product(qwen3_folder):
    """dL/dB = alpha / r dL/dW A', dL/dA = alpha / r B' dL/dW, where dL/dW is that of the merged weights."""
    policy = adapted(qwen3_folder).double()
    row = rows_of(policy)
    policy(row).sum().backward()
    whole = sharpened(qwen3_folder)
    whole.hf.load_state_dict(merged_weights(policy), strict=True)
    whole = whole.double()
    whole(row).sum().backward()
    gradients = dict(whole.hf.named_parameters())
    for name, layer in policy.hf.named_modules():
        if hasattr(layer, "get_delta_weight"):
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            of_whole = gradients[f"{name}.weight"].grad
            assert torch.allclose(B.grad, 2 * of_whole @ A.T, rtol=1e-4, atol=1e-6 * B.grad.abs().max().item())
            assert torch.allclose(A.grad, 2 * B.T @ of_whole, rtol=1e-4, atol=1e-6 * A.grad.abs().max().item())


def merged_weights(policy) -> dict[str, torch.Tensor]:
    """{Hugging Face's name: W + alpha / r B A}, by the formula alone."""
    state, weights = policy.hf.state_dict(), {}
    for name, value in state.items():
        if "lora_" in name:
            continue
        module = name.removesuffix(".base_layer.weight")
        if module != name:
            A, B = state[f"{module}.lora_A.default.weight"], state[f"{module}.lora_B.default.weight"]
            value = value + 2.0 * B @ A
        weights[name.replace(".base_layer", "")] = value
    return weights


def test_the_kls_reference_is_the_base_and_no_copy(qwen3_folder):
    """The same gradient as with a second policy, and no other parameter than the policy's own."""
    gradients, sums = [], []
    for reference in (None, Policy.load(qwen3_folder)):
        policy = adapted(qwen3_folder)
        config = settings(qwen3_folder, kl=0.5, row_tokens=150)
        sums.append(several_processes.update(policy, groups_of(policy), config, reference or policy.without_adapter))
        gradients.append({name: p.grad for name, p in policy.named_parameters() if p.grad is not None})
    assert sums[0]["kl"] == pytest.approx(sums[1]["kl"], rel=1e-4) and sums[0]["kl"] > 0.1
    for name, gradient in gradients[0].items():
        theirs = gradients[1][name]
        assert (gradient - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-8, name


def test_a_frozen_head_has_no_gradient_to_be_computed(qwen3_folder, monkeypatch):
    """[V, width] in fp32 would be the largest thing of a step."""
    made, zeros_like = [], torch.zeros_like
    monkeypatch.setattr(torch, "zeros_like", lambda x, **how: made.append(x.shape) or zeros_like(x, **how))
    for policy in (adapted(qwen3_folder), Policy.load(qwen3_folder)):
        made.clear()
        policy(rows_of(policy)).sum().backward()
        assert (policy.hf.lm_head.weight.shape in made) == policy.hf.lm_head.weight.requires_grad


# -------------------------------------------------------------------------------------------------------------- folders


def test_the_folder_is_pefts_and_merged_it_is_base_plus_adapter(qwen3_folder, adapter_folder, tmp_path, script):
    import transformers

    policy = adapted(qwen3_folder)
    row, wanted = rows_of(policy), merged_weights(policy)
    with torch.no_grad():
        logps = policy(row)
        for folder in (adapter_folder, tmp_path / "whole"):  # as it is, added in memory; and merged by the command
            if folder.name == "whole":
                status, printed = script("lora.py", adapter_folder, "--merge", folder)
                assert status == 0 and f"{folder} holds {qwen3_folder} with" in printed
            opened = Policy.load(folder)
            assert type(opened) is Policy and (opened(row) - logps).abs().max() < 1e-5
            assert all(p.requires_grad for p in opened.parameters())
    saved = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "whole").state_dict()
    assert saved.keys() == wanted.keys()
    assert all(torch.allclose(saved[name], wanted[name], atol=1e-6) for name in wanted)
    other = {path.name for path in qwen3_folder.iterdir()} - {"model.safetensors"}
    assert all((tmp_path / "whole" / name).read_bytes() == (qwen3_folder / name).read_bytes() for name in other)
    base = transformers.AutoModelForImageTextToText.from_pretrained(qwen3_folder)
    theirs = peft.PeftModel.from_pretrained(base, adapter_folder).merge_and_unload().state_dict()
    assert all(torch.allclose(theirs[name], wanted[name], atol=1e-6) for name in wanted)
    about = json.loads((adapter_folder / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == str(qwen3_folder) and (about["r"], about["lora_alpha"]) == (4, 8)


def test_eval_and_answer_take_an_adapters_folder(adapter_folder, corpus, tmp_path, script):  # noqa: F811
    arguments = ["--data", corpus, "--max-samples", 1, "--max-new-tokens", 8, "--out", tmp_path / "eval"]
    status, printed = script("eval.py", "run", "--model", adapter_folder, *arguments)
    assert status == 0 and len((tmp_path / "eval/records.jsonl").read_text().splitlines()) == 1, printed[-500:]
    make_samples()[0].image.save(tmp_path / "target.png")
    status, printed = script("answer.py", tmp_path / "target.png", "--model", adapter_folder, "--max-new-tokens", 8)
    assert "wrote no program in svg" in printed and "Traceback" not in printed  # random weights say nothing else


# ----------------------------------------------------------------------------------------------------------------- runs

LORA = ["--lora", 4, "--lr", 0.01, "--save-every", 2, "--steps", 4]
STAGES = {
    "train_sft.py": ["--batch-size", 3, "--optimizer", "adamw"],
    VIRL: ["--prompts", 3, "--group", 4, "--max-new-tokens", 16, "--minibatches", 2, "--kl", 0.1],
}


# whole runs beside those of test_train.py, some minutes: `make test-lora`
whole_runs = pytest.mark.skipif(
    os.environ.get("NANOVINCI_LORA") != "all", reason="whole runs with LoRA: make test-lora"
)


@pytest.mark.parametrize("stage", [pytest.param("train_sft.py", marks=whole_runs), VIRL])
def test_a_run_killed_and_resumed_equals_an_unbroken_one_bit_for_bit(stage, qwen3_folder, corpus, tmp_path):  # noqa: F811
    arguments = ["tiny", "--model", qwen3_folder, "--data", corpus, *LORA, *STAGES[stage]]
    out = assert_resumed_is_unbroken(stage, arguments, 2, 4, tmp_path)
    newest = out / "checkpoints/step-000004"
    assert {path.name for path in newest.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "trainer.pt",
    }  # fmt: skip
    assert "weights" not in torch.load(newest / "trainer.pt"), "the folder has all bits"
    assert all(weight.dtype == torch.float32 for weight in load_file(newest / "adapter_model.safetensors").values())


@whole_runs
def test_virl_goes_on_with_sfts_adapter_or_trains_all_weights(qwen3_folder, corpus, tmp_path):  # noqa: F811
    inputs = ["tiny", "--data", corpus, "--steps", 1]
    succeed("train_sft.py", *inputs, "--model", qwen3_folder, "--lora", 4, "--batch-size", 3, "--out", tmp_path / "sft")
    sft = tmp_path / "sft/checkpoints/step-000001"
    for name, flags in (("adapter", ["--lora", 4]), ("whole", [])):
        own = ["--prompts", 3, "--group", 4, "--max-new-tokens", 8, "--out", tmp_path / name]
        succeed(VIRL, *inputs, "--model", sft, *own, *flags)
        assert metrics(tmp_path / name)[0]["mismatch"] < 1e-3
    weights = tmp_path / "adapter/checkpoints/step-000001/adapter_model.safetensors"
    about = json.loads(weights.with_name("adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == str(qwen3_folder), "one adapter of the model that SFT began with"
    apart = {name: (x - load_file(sft / weights.name)[name]).abs().max() for name, x in load_file(weights).items()}
    assert 0 < max(apart.values()) < 1e-2, "which is where ViRL began"
    assert (tmp_path / "whole/checkpoints/step-000001/model.safetensors").exists()


def test_the_best_adapter_is_kept(qwen3_folder, tmp_path):
    keeper, policy = HeldOut.__new__(HeldOut), adapted(qwen3_folder)
    keeper.best, keeper.run = tmp_path / "checkpoints/best", SimpleNamespace(writes=True)
    assert keeper.keep(policy, step=3, visual=0.5)
    kept = load_file(keeper.best / "adapter_model.safetensors")
    named = {name.replace(".default", ""): weight for name, weight in policy.whole_weights().items()}
    assert named and all(torch.equal(kept[f"base_model.model.{name}"], weight) for name, weight in named.items())
    assert json.loads((keeper.best / "held_out.json").read_text()) == {"step": 3, "visual": 0.5}


@whole_runs
def test_two_processes_take_the_steps_of_one(qwen3_folder, corpus, tmp_path):  # noqa: F811
    """Sharded base and adapter, both stages, with a KL and held-out targets, and they resume."""
    shutil.copy(corpus, tmp_path / "held.parquet")
    inputs = ["tiny", "--model", qwen3_folder, "--data", corpus, "--lora", 4, "--lr", 0.01, "--steps", 2]
    stages = {
        "train_sft.py": ["--batch-size", 4, "--optimizer", "adamw", "--refine", 0],
        VIRL: ["--prompts", 4, "--group", 2, "--max-new-tokens", 8, "--kl", 0.1, "--warmup", 0],
    }
    stages["train_sft.py"] += ["--eval-data", tmp_path / "held.parquet", "--eval-tokens", 4, "--eval-every", 2]
    for number, (stage, own) in enumerate(stages.items()):
        for processes in (1, 2):
            succeed(stage, *inputs, *own, "--out", tmp_path / f"{number}-{processes}", processes=processes)
        one, two = (tmp_path / f"{number}-{processes}" for processes in (1, 2))
        for a, b in zip(metrics(one), metrics(two), strict=True):
            names = [name for name in ("loss", "grad_norm", "tokens", "kl", "mismatch", "held_out/visual") if name in a]
            assert names and [a[n] for n in names] == pytest.approx([b[n] for n in names], rel=1e-3, abs=1e-5)
        folders = [out / "checkpoints/step-000002/adapter_model.safetensors" for out in (one, two)]
        ours, theirs = map(load_file, folders)
        assert ours.keys() == theirs.keys() and not all(torch.equal(ours[name], theirs[name] * 0) for name in ours)
        for name, weight in ours.items():
            assert (weight - theirs[name]).abs().max() < 2e-3, name
    succeed(VIRL, "tiny", "--out", tmp_path / "1-2", "--resume", "--steps", 3, processes=2)
    assert [row["step"] for row in metrics(tmp_path / "1-2")] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_settings_that_cannot_work(qwen3_folder, tmp_path):
    for flags, said in (
        (["--lora", "0"], "--lora 0 has to be at least 1"),
        (["--lora", "-3"], "--lora -3 has to be at least 1"),
        (["--lora", "4", "--lora-alpha", "0"], "--lora-alpha 0 has to be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            train_sft.main(["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path / "run"), *flags])
    with pytest.raises(ValueError, match="--lora-targets gate is no matrix of the layers; they have q_proj, k_proj"):
        LoraPolicy.of(qwen3_folder, settings(qwen3_folder, lora_targets=("q_proj", "gate")))
    with pytest.raises(ValueError, match="matrices of the vision tower, which --freeze vision leaves as it is"):
        LoraPolicy.of(qwen3_folder, settings(qwen3_folder, lora_targets=("visual.qkv",), freeze="vision"))


def test_matrices_are_the_layers_alone(tiny_folder):
    """Of names that both towers have (Qwen2.5) those of the tower that was asked for; no merger, no patch embedding."""
    hf = Policy.load(tiny_folder).hf
    names = [name for name, _ in hf.named_modules()]
    found = lambda *targets: [name for name in names if re.fullmatch(pattern(hf, targets), name)]  # noqa: E731
    assert all(".language_model.layers." in name for name in found()) and len(found()) == 7 * 4
    assert len(found("down_proj")) == 4
    tower = found("visual.proj", "visual.qkv")
    assert all(".visual.blocks." in name for name in tower) and len(tower) == 6


def test_what_cannot_change_on_resume(qwen3_folder, corpus, tmp_path, script):  # noqa: F811
    inputs = ["tiny", "--model", qwen3_folder, "--data", corpus, "--batch-size", 2, "--steps", 1, "--lora", 2]
    assert script("train_sft.py", *inputs, "--out", tmp_path)[0] == 0
    for flag, value in (("--lora", 4), ("--lora-alpha", 3), ("--lora-targets", "q_proj")):
        status, printed = script("train_sft.py", "tiny", "--out", tmp_path, "--resume", "--steps", 2, flag, value)
        assert status == 1 and f"{flag} " in printed and "the checkpoint holds what was trained" in printed


def edited(adapter_folder, folder, **changed):
    shutil.copytree(adapter_folder, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    return folder


def test_an_adapter_that_does_not_fit_gets_one_sentence(qwen3_folder, adapter_folder, tmp_path):
    wider = create_tiny(tmp_path / "wider", "qwen3_vl", ["<svg/>"] * 4, vocab_size=320, width=192)
    fewer = create_tiny(tmp_path / "fewer", "qwen3_vl", ["<svg/>"] * 4, vocab_size=320, layers=3)
    for number, (base, said) in enumerate(
        (
            (wider, "does not fit .*wider .its matrices have other shapes.; give the model that it was trained on"),
            (fewer, "does not fit .*fewer .it has other layers.; give the model that it was trained on"),
            (tmp_path / "gone", "is an adapter of .*gone, which is not there; write its base's folder"),
            ("", "is an adapter that names no base; write its base's folder"),
        )
    ):
        folder = edited(adapter_folder, tmp_path / str(number), base_model_name_or_path=str(base))
        with pytest.raises(ValueError, match=said) as raised:
            Policy.load(folder)
        assert "\n" not in str(raised.value)
        if base in (wider, fewer):  # the checkpoint of a run whose model became another
            with pytest.raises(ValueError, match=said):
                LoraPolicy.of(folder, settings(base))


def test_an_adapter_that_cannot_go_on_gets_one_sentence(qwen3_folder, adapter_folder, tmp_path):
    merge = f"or merge it first: python lora.py {adapter_folder} --merge FOLDER"
    for changed, said in (
        ({"lora": 8}, f"has rank 4: give --lora 4, {merge}"),
        ({"kl": 0.1}, f"--kl would be to {qwen3_folder}, not to what the run starts from: leave it out, {merge}"),
    ):
        with pytest.raises(ValueError, match=said):
            LoraPolicy.of(adapter_folder, settings(adapter_folder, **changed))
    base = Policy.load(qwen3_folder).hf
    dora = peft.LoraConfig(r=4, target_modules=["q_proj"], use_dora=True, base_model_name_or_path=str(qwen3_folder))
    peft.get_peft_model(base, dora).save_pretrained(tmp_path / "dora", save_embedding_layers=False)
    with pytest.raises(ValueError, match="is more than products of two matrices: it cannot go on, or merge it first"):
        LoraPolicy.of(tmp_path / "dora", settings(tmp_path / "dora"))
    assert type(Policy.load(tmp_path / "dora")) is Policy, "merged it can"


def test_damage_is_named(qwen3_folder, adapter_folder, tmp_path):
    policy, written = adapted(qwen3_folder), []
    for step in (1, 2):
        written.append(save_checkpoint(tmp_path, step, policy, [], {}))
    assert damage.damage(written[1]) is None
    for file in ("adapter_model.safetensors", "adapter_config.json", "trainer.pt"):
        whole = (written[1] / file).read_bytes()
        (written[1] / file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(OSError, match=f"step-000002 is damaged .{file}: .*step-000001 is whole"):
            damage.checkpoint_to_resume(tmp_path)
        (written[1] / file).write_bytes(whole)
    broken = edited(adapter_folder, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="The adapter in .*broken does not fit .*; give the model") as raised:
        Policy.load(broken)
    assert "\n" not in str(raised.value)
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json cannot be read"):
        Policy.load(broken)


def test_a_full_disk_leaves_nothing_half_written(qwen3_folder, adapter_folder, tmp_path, monkeypatch, script):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "a")

    monkeypatch.setattr(peft.PeftModel, "save_pretrained", full)
    with pytest.raises(OSError, match="could not be written .*Free some disk space; older ones are intact"):
        save_checkpoint(tmp_path / "run", 1, adapted(qwen3_folder), [], {})
    monkeypatch.setattr(Policy, "save", full)
    status, printed = script("lora.py", adapter_folder, "--merge", tmp_path / "whole")
    assert status == 1 and printed.startswith("lora.py: ") and "whole could not be written (" in printed
    assert not list(tmp_path.glob("*whole*"))


def test_what_the_command_refuses(qwen3_folder, adapter_folder, tmp_path, script):
    for folder, out, said in (
        (qwen3_folder, tmp_path / "a", "holds no adapter; a run with --lora makes them"),
        (tmp_path / "none", tmp_path / "a", "holds no adapter"),
        (adapter_folder, qwen3_folder, "is there already; give another folder"),
    ):
        status, printed = script("lora.py", folder, "--merge", out)
        assert status == 1 and said in printed and "Traceback" not in printed
    status, printed = script("lora.py", "--help")
    assert status == 0 and "--merge" in printed


def test_without_peft_a_sentence_says_what_to_install(qwen3_folder, adapter_folder, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest))
    for load in (lambda: LoraPolicy.of(qwen3_folder, settings(qwen3_folder)), lambda: Policy.load(adapter_folder)):
        with pytest.raises(ValueError, match="LoRA needs PEFT, which is not installed here: pip install peft"):
            load()
