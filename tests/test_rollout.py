"""Sampling: greedy tokens equal Hugging Face's `generate`, log-probs equal the trainer's, slots change nothing."""

import numpy as np
import pytest
import torch
from conftest import sharpened
from test_model import hugging_face

import model
from kernels import sample_tokens
from rollout import generate


def by_key(completions):
    return {(c.sample_id, c.index): c for c in completions}


def test_greedy_tokens_equal_hugging_face_generate(policy, samples, tiny_folder):
    reference = hugging_face(policy, tiny_folder)
    prompts = [policy.encode(sample) for sample in samples]
    ours = by_key(generate(policy, prompts, G=1, max_new_tokens=24, temperature=0))
    for prompt in prompts:
        ids = prompt.ids[None]
        theirs = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == policy.image_id).int(),
            pixel_values=prompt.patches,
            image_grid_thw=prompt.grid,
            do_sample=False,
            max_new_tokens=24,
            suppress_tokens=policy.banned_ids,
        )[0, len(prompt.ids) :]
        assert ours[prompt.sample_id, 0].ids.tolist() == theirs.tolist()


def test_sampled_logps_equal_the_trainers(policy, samples):
    prompts = [policy.encode(sample) for sample in samples]
    sampled = by_key(generate(policy, prompts, G=4, max_new_tokens=70, temperature=0.8, seed=5))
    groups = [(prompt, [sampled[prompt.sample_id, i].ids for i in range(4)]) for prompt in prompts]
    with torch.no_grad():
        trainer = policy(model.pack(groups), temperature=0.8).numpy()
    sampler = np.concatenate([sampled[prompt.sample_id, i].logps for prompt in prompts for i in range(4)])
    assert np.abs(trainer - sampler).max() < 1e-4


def test_completions_do_not_depend_on_slots_or_compaction(policy, samples):
    """Small batches, other neighbours, other compaction: the same tokens."""
    prompts = [policy.encode(sample) for sample in samples]
    policy.eos_ids = [2, *range(100, 140)]  # many ways to end: rows finish at different times
    options = dict(G=5, max_new_tokens=80, temperature=1.0, seed=3)
    together, apart = (by_key(generate(policy, prompts, slots=slots, **options)) for slots in (256, 5))
    assert together.keys() == apart.keys() == {(s.id, i) for s in samples for i in range(5)}
    assert {key: c.ids.tolist() for key, c in together.items()} == {key: c.ids.tolist() for key, c in apart.items()}
    assert len({len(c.ids) for c in together.values()}) > 3
    other_seed = by_key(generate(policy, prompts, **options | {"seed": 4}))
    assert any(other_seed[key].ids.tolist() != together[key].ids.tolist() for key in together)


def test_samples_of_a_group_differ_from_their_first_token(policy, samples):
    completions = list(generate(policy, [policy.encode(samples[0])], G=32, max_new_tokens=1, seed=1))
    assert len({c.ids[0] for c in completions}) > 4


def test_endings(qwen3_folder, samples):
    """The end-of-turn token is kept and its log-prob with it: without it, stopping is never trained."""
    policy = sharpened(qwen3_folder)
    prompts = [policy.encode(sample) for sample in samples]
    stop = by_key(generate(policy, prompts, G=1, max_new_tokens=9, temperature=0))["square", 0]
    assert stop.finish == "length" and len(stop.ids) == 9
    policy.eos_ids = [int(stop.ids[3])]
    first = stop.ids.tolist().index(policy.eos_ids[0])
    again = by_key(generate(policy, prompts, G=1, max_new_tokens=9, temperature=0))["square", 0]
    assert again.finish == "eos" and again.ids.tolist() == stop.ids[: first + 1].tolist()
    assert len(again.logps) == first + 1 and policy.tokenizer.decode(policy.eos_ids) not in again.text


def test_image_tokens_are_never_sampled(qwen3_folder, samples):
    policy = sharpened(qwen3_folder)
    assert policy.image_id in policy.banned_ids
    with torch.no_grad():  # a model that wants nothing else
        policy.hf.model.language_model.norm.weight.copy_(policy.hf.lm_head.weight[policy.image_id] * 50)
    for temperature in (0.0, 1.0):
        for completion in generate(policy, [policy.encode(samples[0])], G=8, max_new_tokens=8, temperature=temperature):
            assert not set(completion.ids.tolist()) & set(policy.banned_ids)


def test_sampler_draws_from_the_softmax():
    """Chi-square of 40,000 draws over 16 tokens stays below its 99.9 % quantile (37.7 at 15 degrees of freedom)."""
    logits = torch.randn(16, generator=torch.Generator().manual_seed(0)) * 1.5
    draws = 40_000
    index = torch.arange(draws)
    tokens, logps = sample_tokens(logits.expand(draws, -1), index // 200, index % 200, temperature=1.0)
    expected = logits.softmax(-1) * draws
    chi_square = ((tokens.bincount(minlength=16) - expected) ** 2 / expected).sum()
    assert chi_square < 37.7
    assert torch.allclose(logps, logits.log_softmax(-1)[tokens])


def test_bad_arguments_are_refused(qwen3_folder):
    with pytest.raises(ValueError, match="at least 1"):
        list(generate(model.Policy.load(qwen3_folder), [], G=0))
