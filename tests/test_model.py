"""The policy against Hugging Face's own forward pass: positions, packed rows, log-probs, gradients, saving."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_same_gradient, sharpened
from transformers import AutoModelForImageTextToText, AutoTokenizer

import checkpoint
import model
import packing
import rollout

RESPONSES = [  # some begin alike, one is there twice, one is what another begins with
    [[10, 20, 30, 40], [50], [10, 20, 13], [10, 20, 30], [10, 20, 13]],
    [[7, 8, 9, 10, 11]],
    [[90, 91], [92, 93, 94]],
]


def hugging_face(policy, folder):
    """The same weights behind Hugging Face's default code path."""
    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    reference.load_state_dict(policy.hf.state_dict())
    return reference


def reference_logps(reference, policy, prompt, response):
    """One forward pass of one sequence, positions by Hugging Face."""
    ids = torch.cat([prompt.ids, torch.tensor(response)])[None]
    logits = reference(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == policy.image_id).int(),
        pixel_values=prompt.patches,
        image_grid_thw=prompt.grid,
    ).logits
    logps = logits.log_softmax(-1)[0, len(prompt.ids) - 1 : -1]
    return logps.gather(-1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.quick
def test_positions_equal_hugging_face(policy, samples):
    for sample in samples:
        prompt = policy.encode(sample)
        ids = prompt.ids[None]
        theirs, delta = policy.hf.model.get_rope_index(
            ids, mm_token_type_ids=(ids == policy.image_id).int(), image_grid_thw=prompt.grid
        )
        assert torch.equal(theirs[:, 0], prompt.positions)
        assert prompt.next_position == len(prompt.ids) + delta.item()


def test_rope_tables_equal_hugging_face(policy, samples):
    positions = policy.encode(samples[1]).positions
    rotary = policy.hf.model.language_model.rotary_emb
    x = torch.zeros(1, positions.shape[1], 8)
    for mine, theirs in zip(rollout.rope_tables(positions, rotary), rotary(x, positions[:, None]), strict=True):
        if theirs.ndim == 4:  # Qwen2.5-VL hands out the three axes and mixes them in its attention
            section = policy.hf.config.text_config.rope_parameters["mrope_section"] * 2
            theirs = torch.cat([part[i % 3] for i, part in enumerate(theirs.split(section, -1))], -1)
        assert torch.allclose(mine, theirs[0], atol=1e-6)


@pytest.mark.quick
def test_packed_logps_and_gradients_equal_one_forward_per_response(policy, samples, tiny_folder):
    """A packed row with shared prompts is exact: no leak between sequences, no lost gradient of a shared prompt."""
    reference, policy = hugging_face(policy, tiny_folder).double(), policy.double()
    groups = list(zip([policy.encode(sample) for sample in samples], RESPONSES, strict=True))
    ours = policy(packing.pack(groups))
    theirs = torch.cat([reference_logps(reference, policy, prompt, r) for prompt, rs in groups for r in rs])
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    weights = torch.linspace(-1, 1, len(ours))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for (name, mine), other in zip(policy.hf.named_parameters(), reference.parameters(), strict=True):
        assert_same_gradient(mine.grad, other.grad, name)


@pytest.mark.quick
def test_pack_knows_which_response_a_token_belongs_to(policy, samples):
    row = packing.pack(list(zip([policy.encode(sample) for sample in samples], RESPONSES, strict=True)))
    flat = [response for responses in RESPONSES for response in responses]
    assert row.targets[row.responses].tolist() == [token for response in flat for token in response]
    assert row.owner.tolist() == [number for number, response in enumerate(flat) for _ in response]
    assert len(row.targets) == len([10, 20, 13, 30, 40, 50]) + 5 + 5  # what they begin with alike is there once
    whole = packing.pack([(policy.encode(samples[0]), RESPONSES[0])], share=False)
    assert whole.targets.tolist() == sum(RESPONSES[0], [])


def test_token_logprobs_gradients_and_chunks():
    torch.manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(9, (11,))
    plain = ((hidden @ weight.T) / 0.7).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    for chunk in (3, 11, 100):
        ours = model.token_logprobs(hidden, weight, targets, 0.7, chunk)
        assert torch.allclose(ours.double(), plain, atol=1e-5)
        mine = torch.autograd.grad((ours * torch.arange(11.0)).sum(), (hidden, weight), retain_graph=True)
        theirs = torch.autograd.grad((plain * torch.arange(11.0)).sum(), (hidden, weight), retain_graph=True)
        for a, b in zip(mine, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_patch_embedding_is_hugging_faces_convolution(policy):
    embed = policy.hf.model.visual.patch_embed
    patches = torch.randn(8, embed.proj.weight[0].numel())
    assert torch.allclose(embed(patches), type(embed).forward(embed, patches), atol=1e-5)


def test_saved_folder_opens_with_auto_classes(policy, tmp_path, samples):
    policy.save(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    for (name, mine), other in zip(policy.hf.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other), name
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "<|im_end|>"
    prompt = policy.encode(samples[0])
    assert torch.equal(model.Policy.load(tmp_path).encode(samples[0]).ids, prompt.ids)


AUTO_PROCESSOR = """
import sys, torch
if not hasattr(torch.ops.torchvision, "nms"):  # a torchvision of another build has no kernels here, and needs none
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from PIL import Image
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Write SVG code."}]}]
text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
batch = processor(text=[text], images=[Image.open(sys.argv[2])], return_tensors="pt")
print(type(processor).__name__, batch["input_ids"][0].tolist())
"""


def test_saved_folder_opens_with_auto_processor(policy, tmp_path, samples):
    """Hugging Face's processor gives the same tokens as ours. It needs torchvision, which `make setup` lays aside."""
    beside = Path(sys.prefix) / "share" / "torchvision"
    if not beside.exists():
        pytest.skip("AutoProcessor needs torchvision for its video part: `make setup` fetches it")
    policy.save(tmp_path)
    samples[0].image.save(tmp_path / "picture.png")
    command = [sys.executable, "-c", AUTO_PROCESSOR, str(tmp_path), str(tmp_path / "picture.png")]
    environment = os.environ | {"PYTHONPATH": str(beside)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    name, ids = ended.stdout.split(" ", 1)
    assert name in ("Qwen3VLProcessor", "Qwen2_5_VLProcessor")
    assert json.loads(ids) == policy.encode(samples[0]).ids.tolist()


@pytest.mark.parametrize("room", [100, 10_000, 5_000_000, 12_000_000])  # too little for which file
def test_a_full_disk_ends_a_save_with_a_sentence_and_leaves_the_old_checkpoint(qwen3_folder, tmp_path, room):
    policy = sharpened(qwen3_folder)
    optimizers = [torch.optim.AdamW(policy.parameters(), lr=1e-3)]
    sum(p.sum() for p in policy.parameters()).backward()
    optimizers[0].step()
    first = checkpoint.save_checkpoint(tmp_path, 1, policy, optimizers, {"note": 7})
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))  # no file may be larger
    try:
        with pytest.raises(OSError, match="Free some disk space"):
            checkpoint.save_checkpoint(tmp_path, 2, policy, optimizers, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [first.name]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert checkpoint.load_trainer_state(first, policy, optimizers) == {"step": 1, "note": 7}


def test_old_checkpoints_go_and_the_newest_is_found(qwen3_folder, tmp_path):
    policy = sharpened(qwen3_folder)
    optimizers = [torch.optim.AdamW(policy.parameters(), lr=1e-3)]
    for step in (1, 2, 10):
        checkpoint.save_checkpoint(tmp_path, step, policy, optimizers, {}, keep=2)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-000002", "step-000010"]
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-000010"


def test_bad_models_and_pictures_get_one_sentence(tmp_path, qwen3_folder, samples):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        model.Policy.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="nanovinci trains"):
        model.Policy.load(tmp_path)
    samples[0].image = None
    with pytest.raises(ValueError, match="square has no picture"):
        model.Policy.load(qwen3_folder).encode(samples[0])


def test_an_image_token_in_the_prompt_text_is_no_second_picture(qwen3_folder, samples):
    policy = model.Policy.load(qwen3_folder)
    samples[0].prompt = "What is <|image_pad|> here?"
    prompt = policy.encode(samples[0])
    assert (prompt.ids == policy.image_id).sum() == prompt.grid.prod() // policy.merge**2


def test_gradient_checkpointing_changes_no_gradient(policy, samples):
    groups = [(policy.encode(sample), [[7, 8, 9], [10, 11]]) for sample in samples]
    gradients = []
    policy.double().train()
    for enabled in (False, True):
        if enabled:
            policy.hf.gradient_checkpointing_enable({"use_reentrant": False})
        policy.zero_grad()
        policy(packing.pack(groups)).sum().backward()
        gradients.append([p.grad.clone() for p in policy.parameters()])
    assert any(getattr(module, "gradient_checkpointing", False) for module in policy.modules())
    for (name, _), before, after in zip(policy.named_parameters(), *gradients, strict=True):
        assert_same_gradient(after, before, name)
