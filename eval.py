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
import re
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
from report.curves import plot_curves  # noqa: F401 (training asks for both pages here)
from report.page import data_uri, thumbnail, write_page
from report.records import NO_CODE, Record, RecordWriter, read_records
from reward import Reward, alignment

METRICS = ("execute", "visual", "ssim")


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


# ------------------------------------------------------------------------------------------------------- statistics
def per_target(records: Iterable[Record], metric: str, round: int = -1) -> dict[str, float]:
    """{sample id: mean of `metric` over the target's answers}; `round` picks a refinement round, -1 the last."""
    values: dict[str, list[float]] = {}
    for record in records:
        answer = [*record.attempts, record][round]
        value = {"execute": answer.score.executed, "visual": answer.score.visual, "ssim": answer.ssim}[metric]
        values.setdefault(record.sample.id, []).append(float(value))
    return {id: float(np.mean(v)) for id, v in values.items()}


def bootstrap(values: Sequence[float], resamples: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): percentile bootstrap, 95 %, of the mean of (n,) per-target values (Efron 1979)."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("There is nothing to average: no target was evaluated.")
    rng = np.random.default_rng(seed)
    block = max(1, 2**20 // len(values))  # bounds the memory of one draw
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = [values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def paired_bootstrap(a: Sequence[float], b: Sequence[float], **options) -> tuple[float, float, float]:
    """(mean of a - b, low, high) for per-target values of two runs on the same targets, both (n,)."""
    if len(a) != len(b):
        raise ValueError(f"A paired comparison needs the same targets in both runs, not {len(a)} and {len(b)}.")
    return bootstrap(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), **options)


def summarize(records: Sequence[Record]) -> dict[str, dict]:
    """{"overall" and each domain: targets, samples, (mean, low, high) of each metric, failures, visual per round}."""
    if not records:
        raise ValueError("There are no records to summarize; evaluate at least one target.")
    domains = sorted({record.sample.domain for record in records})
    groups = {"overall": records} | {d: [r for r in records if r.sample.domain == d] for d in domains}
    summary = {}
    for name, group in groups.items():
        rows = {metric: bootstrap(list(per_target(group, metric).values())) for metric in METRICS}
        rounds = range(1 + min(len(record.attempts) for record in group))
        summary[name] = {
            "targets": len({record.sample.id for record in group}),
            "samples": len(group),
            **rows,
            "failures": dict(Counter(record.failure for record in group if record.failure).most_common()),
            "rounds": [bootstrap(list(per_target(group, "visual", k).values())) for k in rounds],
        }
    return summary


def _shown_domains(summary: dict[str, dict]) -> list[str]:
    """A single domain would only repeat the overall row."""
    return list(summary) if len(summary) > 2 else ["overall"]


def table(runs: dict[str, Sequence[Record]]) -> str:
    """Aligned text, a row per run and domain: targets, execute rate, visual score and SSIM with 95 % intervals."""
    rows = [("run", "domain", "n", "executes %", "visual score", "SSIM")]
    for name, records in runs.items():
        summary = summarize(records)
        for domain in _shown_domains(summary):
            part = summary[domain]
            n = f"{part['targets']}" + (
                f" x {part['samples'] / part['targets']:g}" if len(records) > part["targets"] else ""
            )
            rate = [100 * x for x in part["execute"]]
            cells = [f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in (part["visual"], part["ssim"])]
            rows.append((name, domain, n, "{:.1f} [{:.1f}, {:.1f}]".format(*rate), *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def compare(name_a: str, a: Sequence[Record], name_b: str, b: Sequence[Record], metric: str = "visual") -> str:
    """One sentence: a minus b on the targets both runs have, with its 95 % paired bootstrap interval."""
    left, right = per_target(a, metric), per_target(b, metric)
    common = [id for id in left if id in right]
    what = f"{name_a} - {name_b}"
    if not common:
        return f"{what}: no targets in common"
    mean, low, high = paired_bootstrap([left[id] for id in common], [right[id] for id in common])
    verdict = ", no significant change" if low <= 0 <= high else ""
    label = "" if metric == "visual" else f"{metric} "
    method = f"95 % paired bootstrap over {len(common)} targets"
    return f"{what}: {label}{mean:+.3f} [{low:+.3f}, {high:+.3f}] ({method}{verdict})"


def comparisons(runs: dict[str, Sequence[Record]], metric: str = "visual") -> list[str]:
    """`compare` for every two runs decoded the same way, later minus earlier."""
    pairs = [(a, b) for b, a in itertools.combinations(runs, 2) if runs[a][0].decoding == runs[b][0].decoding]
    return [compare(a, runs[a], b, runs[b], metric) for a, b in pairs]


def refinement_lines(runs: dict[str, Sequence[Record]]) -> list[str]:
    """The visual score after 0, 1, .. K refinement rounds, for the runs that have any."""
    rounds = {name: summarize(records)["overall"]["rounds"] for name, records in runs.items()}
    show = " -> ".join
    return [
        f"{name}, visual score by refinement round: "
        + show(f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in values)
        for name, values in rounds.items()
        if len(values) > 1
    ]


# ----------------------------------------------------------------------------------------------------------- report
def write_report(path, runs: dict[str, Iterable[Record]], curves: Sequence = (), title: str = "nanovinci") -> None:
    """One self-contained offline page: summary, curves (PNG files), and every target with what each run made of it.

    Records are read once and one by one, so that `read_records` can feed thousands without holding their pictures."""
    names, slim, targets, details = list(runs), {}, {}, []
    for r, name in enumerate(names):
        slim[name] = []
        for record in runs[name]:
            s = record.sample
            if s.id not in targets:
                index = {"key": len(details), "id": s.id, "domain": s.domain, "language": s.language}
                targets[s.id] = index | {"runs": [[] for _ in names]}
                texts = {"prompt": s.prompt, "reference": s.code, "image": thumbnail(s.image)}
                details.append(texts | {"runs": [[] for _ in names]})
            key, score = targets[s.id]["key"], {"visual": record.score.visual}
            targets[s.id]["runs"][r].append(score | {"failure": record.failure, "detail": record.detail})
            details[key]["runs"][r].append([_round(answer) for answer in [*record.attempts, record]])
            slim[name].append(_without_pictures(record))
    lines = comparisons(slim)
    index = {
        "runs": names,
        "summary": [row for name in names for row in _summary_rows(name, slim[name])],
        "lines": [{"text": line, "sign": _sign(line)} for line in lines + refinement_lines(slim)],
        "targets": list(targets.values()),
        "curves": [(Path(c).parent.name, data_uri("png", Path(c).read_bytes())) for c in curves],
    }
    write_page(path, title, index, details)


def _summary_rows(name: str, records: list[Record]) -> list[dict]:
    summary = summarize(records)
    return [{"run": name, "domain": domain} | summary[domain] for domain in _shown_domains(summary)]


def _sign(line: str) -> str:
    if "bootstrap" not in line or "no significant" in line:
        return ""
    return "up" if re.search(r": (\w+ )?\+", line) else "down"


def _round(record: Record) -> dict:
    """What the page shows of one answer."""
    score, shown = record.score, record.rendering
    mean = float(np.average(score.fine, weights=score.weights or None)) if score.fine else 0.0
    scores = {name: getattr(score, name) for name in ("visual", "coarse", "alignment", "total", "fine", "grid")}
    texts = {"code": record.code, "text": record.text, "error": shown.error, "failure": record.failure}
    rest = {"ssim": record.ssim, "tokens": record.tokens, "finish": record.finish, "seconds": shown.seconds}
    image = shown.image and thumbnail(shown.image)
    return scores | texts | rest | {"mean": mean, "detail": record.detail, "image": image}


def _without_pictures(record: Record) -> Record:
    slim = replace(record, sample=replace(record.sample, image=None), rendering=replace(record.rendering, image=None))
    return replace(slim, attempts=[_without_pictures(answer) for answer in record.attempts])


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
                    records.append(_without_pictures(record))
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
        _print_summary({name: [_without_pictures(r) for r in read_records(f)] for name, f in folders.items()})
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
