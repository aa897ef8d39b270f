"""One round of an evaluation: a chunk of targets is answered, drawn and scored, or asked to be improved."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from tqdm import tqdm

import data
import rollout
from answers.folder import Folder
from answers.server import Answer as Answer
from answers.server import Server
from data import Sample
from metrics.pixels import ssim
from records import NO_CODE, Record
from render import Rendering
from rollout import half_the_threads


def answers_of(source, samples: Sequence[Sample], G: int, **options) -> Iterator:
    """Completions of a policy of ours, or answers of a server or a folder, as they come."""
    if isinstance(source, Server | Folder):
        return source.answer(samples, G, **options)
    return rollout.generate(source, [source.encode(sample) for sample in samples], G, **options)


def ask(source, samples: Sequence[Sample], scorer, bar, G, temperature, max_new_tokens, seed) -> list[tuple]:
    """G answers per sample, each with the scorer's job, which draws it while others still decode -> list of N*G."""
    by_id = {sample.id: sample for sample in samples}
    answers = []
    options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    with half_the_threads():
        for completion in answers_of(source, samples, G, **options):
            sample = by_id[completion.sample_id]
            code, given = data.extract_code(completion.text, sample.language), completion.finish != "missing"
            answers.append((completion, scorer.submit(sample, code, given)))
            bar.update()
    order = {id: i for i, id in enumerate(by_id)}
    return sorted(answers, key=lambda answer: (order[answer[0].sample_id], answer[0].index))


def records_of(answers: Sequence[tuple], scorer, rewards, temperature: float) -> list[Record]:
    """Records of what `ask` returned, in its order."""
    nothing = Rendering(None, NO_CODE, 0.0)
    renderings, metrics = [], []
    for _, job in answers:  # the first ones are measured while the last are being drawn
        renderings.append(nothing if job.rendering is None else job.rendering.result())
        metrics.append(scorer.measure(job, renderings[-1]))
    scores = rewards.score([job.sample for _, job in answers], [c.text for c, _ in answers], renderings)
    decoding = "greedy" if temperature == 0 else f"sampled T={temperature:g}"
    records = []
    for (c, job), shown, score, measured in zip(answers, renderings, scores, metrics, strict=True):
        more = {"tokens": len(c.ids), "finish": c.finish, "decoding": decoding, "metrics": measured}
        more["reference_problem"] = scorer.reference_problem(job)
        image = ssim(job.sample.image, shown.image)
        records.append(Record(job.sample, c.index, c.text, job.code, shown, score, image, **more))
    return records


def refine(policy, records: Sequence[Record], scorer, rewards, bar, **options) -> list[Record]:
    """One more round: the policy sees the target with its last code. An answer without code is kept as it is."""
    drafts = {f"{r.sample.id}#{r.index}": data.as_refinement(r.sample, r.code) for r in records if r.code is not None}
    samples = [replace(sample, id=key) for key, sample in drafts.items()]
    answers = ask(policy, samples, scorer, bar, G=1, **options) if samples else []
    latest = {record.sample.id: record for record in records_of(answers, scorer, rewards, options["temperature"])}
    bar.update(len(records) - len(samples))
    refined = []
    for old in records:
        new = latest.get(f"{old.sample.id}#{old.index}", old)
        attempts = [*old.attempts, replace(old, attempts=[])]
        refined.append(replace(new, sample=old.sample, index=old.index, attempts=attempts))
    return refined


def a_step_ahead(items: Iterable) -> Iterator:
    """The items, each once the next is there as well: that one's work goes on while this one's result is used. An
    error on the way to the next comes after this one, so nothing that was done is lost."""
    items, error = iter(items), None
    this = next(items, None)
    while this is not None:
        try:
            following = next(items, None)
        except BaseException as raised:
            error, following = raised, None
        yield this
        this = following
    if error is not None:
        raise error


def batches(samples: Iterable[Sample], size: int, renderer) -> Iterator[list[Sample]]:
    """So many samples at a time; the next ones' targets are drawn while these are being answered.

    Raises ValueError for an id that comes twice."""
    source, seen = iter(samples), set()
    batch = list(islice(source, size))
    while batch:
        for sample in batch:
            if sample.id in seen:
                raise ValueError(f"Two targets have the id {sample.id!r}; give every target its own id.")
            seen.add(sample.id)
        following = list(islice(source, size))
        for sample in following:
            if sample.image is None and sample.code:
                renderer.submit(sample.code, sample.language)  # kept by the renderer until it is asked for
        yield batch
        batch = following


def with_pictures(samples: Sequence[Sample], renderer, left_out: dict[str, str] | None = None) -> list[Sample]:
    """Targets without a picture get the one their code draws; those whose code fails are left out, with a line, and
    go to `left_out`: id -> why."""
    if any(sample.image is None and not sample.code for sample in samples):
        raise ValueError("A sample has no target picture; load the data with a renderer.")
    drawn = {s.id: renderer.submit(s.code, s.language) for s in samples if s.image is None}
    for id in [id for id, future in drawn.items() if future.result().image is None]:
        why = f"its target does not render: {drawn[id].result().error}"
        tqdm.write(f"left out {id}: {why}", file=sys.stderr)
        if left_out is not None:
            left_out[id] = " ".join(why.split())[:200]
    ready = [replace(s, image=drawn[s.id].result().image) if s.id in drawn else s for s in samples]
    return [sample for sample in ready if sample.image is not None]
