"""Sampling: greedy tokens equal Hugging Face's `generate`, log-probs its forward pass; slots, pages, preemption change
nothing."""

import runpy
from pathlib import Path

import c_functions
import numpy as np
import pytest
import torch
from conftest import ROOT, needs_a_compiler, sharpened
from test_model import hugging_face, reference_logps

import kernels
import model
import native
import packing
import rollout
from reference import reference_generate
from rollout import Engine, bucket, generate


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
            suppress_tokens=rollout.banned_ids(policy),
        )[0, len(prompt.ids) :]
        assert ours[prompt.sample_id, 0].ids.tolist() == theirs.tolist()


@pytest.mark.quick
def test_the_engine_samples_what_the_plain_sampler_does(policy, samples):
    policy.eos_ids = [2, *range(100, 140)]  # so that answers end at different times
    prompts = [policy.encode(sample) for sample in samples]
    options = {"G": 2, "max_new_tokens": 12, "seed": 7}
    for temperature in (0.9, 0.0):
        plain = by_key(reference_generate(policy, prompts, temperature=temperature, **options))
        assert same(generate(policy, prompts, temperature=temperature, **options), plain)


@pytest.mark.quick
def test_sampled_logps_equal_the_trainers(policy, samples):
    prompts = [policy.encode(sample) for sample in samples]
    sampled = by_key(generate(policy, prompts, G=4, max_new_tokens=70, temperature=0.8, seed=5))
    groups = [(prompt, [sampled[prompt.sample_id, i].ids for i in range(4)]) for prompt in prompts]
    with torch.no_grad():
        trainer = policy(packing.pack(groups), temperature=0.8).numpy()
    sampler = np.concatenate([sampled[prompt.sample_id, i].logps for prompt in prompts for i in range(4)])
    assert np.abs(trainer - sampler).max() < 1e-4


def test_sampled_logps_equal_hugging_faces_forward_pass(policy, samples, tiny_folder):
    reference = hugging_face(policy, tiny_folder)
    prompts = {sample.id: policy.encode(sample) for sample in samples}
    worst = 0.0
    with torch.no_grad():
        for c in generate(policy, list(prompts.values()), G=2, max_new_tokens=40, seed=2):
            theirs = reference_logps(reference, policy, prompts[c.sample_id], c.ids.tolist())
            worst = max(worst, np.abs(theirs.numpy() - c.logps).max())
    assert worst < 1e-4


@needs_a_compiler
def test_without_a_compiler_the_same_is_drawn(policy, samples, monkeypatch):
    prompts = [policy.encode(sample) for sample in samples]
    ours = by_key(generate(policy, prompts, **OPTIONS))
    assert native.ready(policy.engine)
    monkeypatch.setattr(native, "ready", lambda engine: False)
    assert same(generate(policy, prompts, **OPTIONS), ours)


OPTIONS = dict(G=5, max_new_tokens=80, temperature=1.0, seed=3)


@pytest.fixture
def reference(policy, samples):
    """The policy, prompts, and their completions decoded all together; rows end at different times."""
    policy.eos_ids = [2, *range(100, 140)]
    prompts = [policy.encode(sample) for sample in samples]
    completions = by_key(generate(policy, prompts, **OPTIONS))
    assert completions.keys() == {(s.id, i) for s in samples for i in range(5)}
    assert len({len(c.ids) for c in completions.values()}) > 3
    return policy, prompts, completions


def same(completions, expected) -> bool:
    """The same tokens, and log-probs but for rounding."""
    completions = by_key(completions)
    assert all(np.abs(c.logps - expected[key].logps).max() < 1e-4 for key, c in completions.items())
    return {key: c.ids.tolist() for key, c in completions.items()} == {k: expected[k].ids.tolist() for k in completions}


def test_completions_do_not_depend_on_slots_or_compaction(reference):
    """Few slots, refilled in another order as others end; other neighbours: the same tokens."""
    policy, prompts, expected = reference
    for slots in (5, 3, 1):
        assert same(generate(policy, prompts, slots=slots, **OPTIONS), expected)
    other = by_key(generate(policy, prompts, **OPTIONS | {"seed": 4}))
    assert any(other[key].ids.tolist() != expected[key].ids.tolist() for key in other)


def test_a_share_of_the_batch_draws_what_the_batch_draws(reference):
    policy, prompts, expected = reference
    assert same(generate(policy, prompts[1:], numbers=range(1, len(prompts)), **OPTIONS), expected)
    assert same(generate(policy, prompts[:1], **OPTIONS), expected)


def test_completions_do_not_depend_on_pages_or_blocks(reference):
    policy, prompts, expected = reference
    for page, steps in ((4, 1), (64, 7), (8, 3)):
        policy.engine = Engine(policy, page=page, steps=steps)
        assert same(generate(policy, prompts, **OPTIONS), expected)


def test_preemption_changes_nothing(reference):
    """A pool far too small for all: samples give their pages back and are computed again."""
    policy, prompts, _ = reference
    policy.eos_ids = policy.eos_ids[:8]  # longer answers
    expected = by_key(generate(policy, prompts, **OPTIONS))
    longest = max(len(prompt.ids) for prompt in prompts)
    for spare in (1, 30):
        policy.engine = Engine(policy, page=4, steps=2, pages=-(-(longest + 80) // 4) + spare)
        assert same(generate(policy, prompts, **OPTIONS), expected)
        assert policy.engine.counters["preempted"] > 0
        assert len(policy.engine.pool.free) == policy.engine.pool.count - 1


def test_a_prompt_that_comes_back_to_other_pages_is_read_there(qwen3_folder, samples):
    """The only sample preempts itself; meanwhile the prompts give their pages back."""
    policy = sharpened(qwen3_folder)
    policy.eos_ids = [2, *range(100, 108)]
    prompts = [policy.encode(sample) for sample in samples]
    for G in (1, 2):
        options = dict(G=G, slots=3, max_new_tokens=60, seed=4)
        policy.engine = Engine(policy, page=4, steps=2)
        expected = by_key(generate(policy, prompts, **options))
        policy.engine = Engine(policy, page=4, steps=2, pages=35)
        assert same(generate(policy, prompts, **options), expected)


def test_preempted_answers_are_computed_again_a_few_at_a_time(policy, samples, monkeypatch):
    """Five of 40 tokens wait for the slots; a row has its prompt, and ends with the answer that goes over the limit."""
    prompt = policy.encode(samples[0])
    policy.engine = Engine(policy, page=4)
    policy.engine.reserve([prompt], 5, 80, 8)
    batch = rollout.Scheduler(policy.engine, [], 5, 80, 0, 8, None)
    group = rollout.PromptGroup(prompt, 0, unfinished=5)
    ids, logps = np.full(80, 7, np.int32), np.zeros(80, np.float32)
    batch.waiting.extend(rollout.Request(group, i, i, ids, logps, length=40) for i in range(5))
    monkeypatch.setattr(rollout, "MOST_TOKENS", len(prompt.ids) + 50)
    assert [[len(answers) for _, answers in batch.schedule()] for _ in range(4)] == [[2], [2], [1], []]


def test_a_pool_may_take_what_the_machine_calls_available(policy, samples):
    words = Path("/proc/meminfo").read_text().split()
    available = 1024 * int(words[words.index("MemAvailable:") + 1])
    policy.engine = Engine(policy, memory=1e-3)
    policy.engine.reserve([policy.encode(samples[0])], 1000, 1000, 1000)
    taken = sum(layer.nbytes for layer in policy.engine.pool.kv)
    page = taken // policy.engine.pool.count
    assert abs(taken - 1e-3 * available) < page + 2e-4 * available  # others use memory, too


def test_a_prompt_is_computed_once_for_its_group(reference):
    policy, prompts, _ = reference
    policy.engine.counters.clear()
    list(generate(policy, prompts, slots=3, **OPTIONS))
    assert policy.engine.counters["vision_calls"] == len(prompts)
    assert policy.engine.counters["prefill_tokens"] == sum(len(prompt.ids) for prompt in prompts)


def test_sampling_sees_an_optimizer_step_and_saving_still_works(policy, samples, tmp_path):
    """The policy's parameters are views of the engine's buffer, an in-place change of one is a change of the other."""
    prompts = [policy.encode(samples[0])]
    before = next(generate(policy, prompts, G=1, max_new_tokens=1, temperature=0)).logps
    address = policy.engine.weights.buffer.data_ptr()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
    after = next(generate(policy, prompts, G=1, max_new_tokens=1, temperature=0)).logps
    assert before != after and policy.engine.weights.buffer.data_ptr() == address
    policy.save(tmp_path)
    again = model.Policy.load(tmp_path)
    assert next(generate(again, prompts, G=1, max_new_tokens=1, temperature=0)).logps == pytest.approx(after, abs=1e-5)


def test_bucket_wastes_less_than_half():
    sizes = [bucket(n, 100) for n in range(1, 101)]
    assert sizes == sorted(sizes) and len(set(sizes)) < 15
    assert all(n <= size < 2 * n or n == size == 1 for n, size in enumerate(sizes, 1))


def test_samples_of_a_group_differ_from_their_first_token(policy, samples):
    completions = list(generate(policy, [policy.encode(samples[0])], G=32, max_new_tokens=1, seed=1))
    assert len({c.ids[0] for c in completions}) > 4


@pytest.mark.quick
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
    assert policy.image_id in rollout.banned_ids(policy)
    with torch.no_grad():  # a model that wants nothing else
        policy.hf.model.language_model.norm.weight.copy_(policy.hf.lm_head.weight[policy.image_id] * 50)
    for temperature in (0.0, 1.0):
        for completion in generate(policy, [policy.encode(samples[0])], G=8, max_new_tokens=8, temperature=temperature):
            assert not set(completion.ids.tolist()) & set(rollout.banned_ids(policy))


@pytest.mark.parametrize("of", [kernels, pytest.param(c_functions, marks=needs_a_compiler)], ids=["torch", "C"])
def test_sampler_draws_from_the_softmax(of):
    """Chi-square of 40,000 draws over 16 tokens stays below its 99.9 % quantile (37.7 at 15 degrees of freedom)."""
    logits = torch.randn(16, generator=torch.Generator().manual_seed(0)) * 1.5
    draws = 40_000
    index = torch.arange(draws)
    tokens, logps = of.sample_tokens(logits.expand(draws, -1), index // 200, index % 200, temperature=1.0)
    expected = logits.softmax(-1) * draws
    chi_square = ((tokens.bincount(minlength=16) - expected) ** 2 / expected).sum()
    assert chi_square < 37.7
    assert torch.allclose(logps, logits.log_softmax(-1)[tokens])


def test_bad_arguments_are_refused(qwen3_folder):
    with pytest.raises(ValueError, match="at least 1"):
        list(generate(model.Policy.load(qwen3_folder), [], G=0))


def test_a_pool_too_small_for_one_answer_gets_one_sentence(policy, samples):
    policy.engine = Engine(policy, page=8, pages=5)
    with pytest.raises(ValueError, match="memory holds 4"):
        list(generate(policy, [policy.encode(samples[0])], G=1, max_new_tokens=80))


def test_two_iterators_of_one_policy_do_not_mix(policy, samples):
    prompts = [policy.encode(samples[0])]
    started = generate(policy, prompts, G=4, max_new_tokens=30)
    next(iter(started))
    with pytest.raises(RuntimeError, match="already generating"):
        list(generate(policy, prompts, G=1))
    started.close()
    assert len(list(generate(policy, prompts, G=2, max_new_tokens=3))) == 2


@pytest.mark.parametrize("lengths", [[4, 4, 4, 4], [3, 5, 2, 4]])
def test_the_benchmark_gives_the_same_work_to_all_three(monkeypatch, lengths):
    """Also under the oldest transformers, whose `generate` counts pictures in another way than the newest's."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "rollout.py"))
    policy = benchmark["make_policy"]("tiny", "cpu", torch.float32)
    policy.engine = rollout.Engine(policy)
    prompts, lengths = benchmark["make_prompts"](policy, 2, 40, 16), np.array(lengths)
    by_engine, by_hugging_face = benchmark["by_engine"], benchmark["by_hugging_face"]
    runs = [by_engine(policy, prompts, 2, lengths)]
    runs += [by_hugging_face(policy, prompts, 2, lengths, duplicated) for duplicated in (True, False)]
    assert [run.tokens for run in runs] == [lengths.sum()] * 3
    assert [run.prefill_tokens for run in runs] == [80, 160, 80]
    assert [run.vision_pictures for run in runs] == [2, 4, 2]
    assert all(0 < run.prefill_seconds < run.seconds for run in runs)
