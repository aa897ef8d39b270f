"""How good is a policy: answers decoded, rendered, scored, counted with honest intervals, and shown on one page.

    python eval.py run --model runs/demo/checkpoints/step-100 --data held_out.parquet --out runs/demo/eval/sft
    python eval.py run --model M --data D --G 4 --temperature 1 --refine 2 --out runs/x/eval/sampled
    python eval.py report --runs SFT=runs/demo/eval/sft ViRL=runs/demo/eval/virl --out report.html

Three numbers per answer: does the program execute, the visual score of reward.py, and SSIM (Wang et al. 2004, through
scikit-image). A failed answer counts as 0 in each. Samples of one target are not independent, so the G answers of a
target are averaged first and every interval is a bootstrap over targets. Two runs are compared target by target.
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image
from skimage.metrics import structural_similarity
from tqdm import tqdm

import data
import model
import rollout
from data import Sample
from render import Renderer, Rendering
from report.answers import without_pictures, write_report
from report.curves import plot_curves  # noqa: F401 (training asks for both pages here)
from report.records import NO_CODE, Record, RecordWriter, read_records
from report.statistics import comparisons, refinement_lines, summarize, table
from reward import Reward, alignment


# ------------------------------------------------------------------------------------------------------- evaluation
def ssim(target: Image.Image, rendering: Image.Image | None) -> float:
    """Structural similarity of two RGB pictures in [-1, 1]; the rendering is resized to the target's size."""
    if rendering is None:
        return 0.0
    width, height = (max(7, side) for side in target.size)  # the usual 7 x 7 window has to fit
    a, b = (np.asarray(picture.convert("RGB").resize((width, height))) for picture in (target, rendering))
    return float(structural_similarity(a, b, win_size=7, channel_axis=2, data_range=255))


def _decode(policy, samples: Sequence[Sample], renderer, reward, bar, G, temperature, max_new_tokens, seed):
    """One round: G answers per sample, rendered while others still decode, then scored together -> list of N*G."""
    by_id = {sample.id: sample for sample in samples}
    answers = []
    prompts = [policy.encode(sample) for sample in samples]
    options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    for completion in rollout.generate(policy, prompts, G, **options):
        sample = by_id[completion.sample_id]
        code = data.extract_code(completion.text, sample.language)
        answers.append((completion, code, None if code is None else renderer.submit(code, sample.language)))
        bar.update()
    order = {id: i for i, id in enumerate(by_id)}
    answers.sort(key=lambda answer: (order[answer[0].sample_id], answer[0].index))

    targets = [by_id[completion.sample_id] for completion, _, _ in answers]
    renderings = [Rendering(None, NO_CODE, 0.0) if future is None else future.result() for _, _, future in answers]
    alignments = [alignment(c.text, by_id[c.sample_id].language) for c, _, _ in answers]
    scores = reward.score([sample.image for sample in targets], renderings, alignments)
    decoding = "greedy" if temperature == 0 else f"sampled T={temperature:g}"
    records = []
    for sample, (c, code, _), shown, score in zip(targets, answers, renderings, scores, strict=True):
        more = {"tokens": len(c.ids), "finish": c.finish, "decoding": decoding}
        records.append(Record(sample, c.index, c.text, code, shown, score, ssim(sample.image, shown.image), **more))
    return records


def _refine(policy, records: Sequence[Record], renderer, reward, bar, **options) -> list[Record]:
    """One more round: the policy sees the target with its last code. An answer without code is kept as it is."""
    drafts = {f"{r.sample.id}#{r.index}": data.as_refinement(r.sample, r.code) for r in records if r.code is not None}
    samples = [replace(sample, id=key) for key, sample in drafts.items()]
    answers = _decode(policy, samples, renderer, reward, bar, G=1, **options) if samples else []
    latest = {answer.sample.id: answer for answer in answers}
    bar.update(len(records) - len(samples))
    refined = []
    for old in records:
        new = latest.get(f"{old.sample.id}#{old.index}", old)
        attempts = [*old.attempts, replace(old, attempts=[])]
        refined.append(replace(new, sample=old.sample, index=old.index, attempts=attempts))
    return refined


def evaluate(
    policy,
    samples: Iterable[Sample],
    renderer: Renderer,
    reward: Reward,
    G: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    seed: int = 0,
    refine: int = 0,
    chunk: int = 32,
    total: int | None = None,
) -> Iterator[Record]:
    """Records in the order of `samples`, a chunk of targets at a time, so memory does not grow with their number."""
    if G < 1 or chunk < 1 or refine < 0:
        raise ValueError("G and chunk have to be at least 1, refine at least 0.")
    executed, visual, count, seen = 0, 0.0, 0, set()
    source = iter(samples)
    with tqdm(total=total and total * G * (1 + refine), desc="evaluate", unit="answer", smoothing=0.05) as bar:
        for number in itertools.count():
            batch = list(itertools.islice(source, chunk))
            if not batch:
                return
            if any(sample.image is None for sample in batch):
                raise ValueError("A sample has no target picture; load the data with a renderer.")
            for sample in batch:
                if sample.id in seen:
                    raise ValueError(f"Two targets have the id {sample.id!r}; give every target its own id.")
                seen.add(sample.id)
            options = {"temperature": temperature, "max_new_tokens": max_new_tokens}
            seeds = [int(s) for s in np.random.SeedSequence((seed, number)).generate_state(1 + refine) >> 1]
            records = _decode(policy, batch, renderer, reward, bar, G, seed=seeds[0], **options)
            for k in range(refine):
                records = _refine(policy, records, renderer, reward, bar, seed=seeds[1 + k], **options)
            executed += sum(record.score.executed for record in records)
            visual += sum(record.score.visual for record in records)
            count += len(records)
            bar.set_postfix(executes=f"{executed / count:.0%}", visual=f"{visual / count:.3f}")
            yield from records


# ------------------------------------------------------------------------------------------------------ command line
DECODING = ("G", "temperature", "max_new_tokens", "seed", "refine", "chunk")


@dataclass
class Run:
    """Evaluate one policy on one data set; records are written as they come."""

    model: str
    """Hugging Face folder or hub name of a Qwen2.5-VL or Qwen3-VL."""
    data: str
    """What data.load reads: a parquet file, a jsonl file, a manifest folder."""
    out: str
    """New folder for records, summary.json and report.html."""
    max_samples: Annotated[int | None, tyro.conf.arg(aliases=["--limit"])] = None
    """Evaluate the first so many targets only."""
    G: int = 1
    """Answers per target."""
    temperature: float = 0.0
    """0 is greedy."""
    max_new_tokens: int = 1024
    """Longest answer."""
    refine: int = 0
    """Rounds in which the policy sees the target together with its own last code."""
    seed: int = 0
    """Seed of the sampling noise."""
    device: str = "cpu"
    """cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""
    chunk: int = 32
    """Targets decoded together."""
    reward_mode: Literal["calibrated", "vincicoder"] = "calibrated"
    """calibrated, or the numbers of the released code."""
    encoder: str = "pyramid"
    """pyramid (no weights), or a DINOv2 folder or hub name."""
    workers: int | None = None
    """Rendering workers per language; one per core if not given."""
    timeout: float = 10.0
    """Seconds a program may take to render."""
    svg_side: int = 448
    """Longer side of a rendered svg, px; as for the targets."""
    allow_unsafe_rendering: bool = False
    """Render even where this machine offers no sandbox."""

    def __call__(self) -> None:
        import torch

        with Renderer(
            self.workers, self.timeout, svg_side=self.svg_side, allow_unsafe=self.allow_unsafe_rendering
        ) as renderer:
            samples, dropped = data.load_usable(self.data, renderer, limit=self.max_samples)
            with RecordWriter(self.out) as writer:
                policy = model.Policy.load(self.model, self.device, getattr(torch, self.dtype))
                reward = Reward(self.reward_mode, self.encoder, device=self.device)
                records = []
                options = {name: getattr(self, name) for name in DECODING}
                for record in evaluate(policy, samples, renderer, reward, total=len(samples), **options):
                    writer.append(record)
                    records.append(without_pictures(record))
        name = Path(self.out).name
        _print_summary({name: records}, dropped.total())
        result = {"config": vars(self), "dropped": dropped, "summary": summarize(records)}
        (Path(self.out) / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
        write_report(Path(self.out) / "report.html", {name: read_records(self.out)}, title=name)


def _print_summary(runs: dict[str, Sequence[Record]], dropped: int = 0) -> None:
    print(table(runs))
    for name, records in runs.items():
        kinds = Counter(record.failure for record in records if record.failure).most_common()
        kinds = ", ".join(f"{kind} {n}" for kind, n in kinds) or "none"
        worst = Counter(record.detail for record in records if record.failure == "render error").most_common(1)
        often = f" (most often: {worst[0][0]})" if worst else ""
        lost = f"; targets dropped: {dropped}" if dropped else ""
        print(f"{name}, failures of {len(records)} answers: {kinds}{often}{lost}")
    for line in [*refinement_lines(runs), *comparisons(runs), *comparisons(runs, "execute")]:
        print(line)


@dataclass
class Report:
    """Compare evaluated runs: the table, paired differences, and one page with every picture."""

    runs: tuple[str, ...]
    """name=folder of each run, in the order of the columns; a later run is compared with the earlier ones."""
    out: str = "report.html"
    """The page."""
    curves: tuple[str, ...] = ()
    """PNG files of training curves to show."""
    title: str = "nanovinci: pictures into code"
    """Headline of the page."""

    def __call__(self) -> None:
        pairs = [run.split("=", 1) for run in self.runs]
        if not pairs or any(len(pair) != 2 for pair in pairs) or len(dict(pairs)) < len(pairs):
            raise ValueError("Give every run as name=folder, each name once: --runs SFT=runs/a/eval ViRL=runs/b/eval")
        folders = dict(pairs)
        _print_summary({name: [without_pictures(r) for r in read_records(f)] for name, f in folders.items()})
        write_report(self.out, {name: read_records(f) for name, f in folders.items()}, self.curves, self.title)
        print(f"wrote {self.out}")


def main() -> None:
    command = tyro.cli(Run | Report, description=__doc__)
    try:
        command()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"eval.py: {error}")


if __name__ == "__main__":
    main()
