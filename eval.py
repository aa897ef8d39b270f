"""How good is a policy: answers decoded, rendered, scored, counted with honest intervals, and shown on one page.

    python eval.py run --model runs/demo/virl/checkpoints/step-000040 --data held_out.parquet --out runs/demo/eval/sft
    python eval.py run --model M --bench chartmimic=FOLDER unisvg=FOLDER synthetic-5 --G 4 --temperature 1 --out O
    python eval.py run --server http://localhost:8000/v1 --model NAME --bench synthetic-5 --out O    # OpenAI-compatible
    python eval.py run --answers FOLDER --bench design2code=FOLDER --out O                          # made elsewhere
    python eval.py report --runs SFT=runs/demo/eval/sft ViRL=runs/demo/eval/virl --out report.html
    python eval.py compare RUN_A RUN_B                                        # every metric, target by target

Of every answer: does the program execute, the visual score of reward.py, SSIM, and the benchmarks' metrics that apply
(metrics/). A failed answer counts as 0. The G answers of a target are averaged first, for they are not independent, and
every interval is a bootstrap over targets. The same command run again after a break goes on.
"""

import environment  # noqa: F401

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

import data
import model as models
from answers import rounds
from answers.folder import Folder
from answers.recorded import named_folders, read_records, resumed
from answers.server import Server
from corpus import benchmarks
from corpus.drawn import check as check_drawn
from corpus.inspection import load_usable
from data import Sample
from metrics.judge import RUBRICS, Judge, judged_records
from metrics.scoring import Scorer
from metrics.weights import Weights
from records import Record, RecordWriter
from render import Renderer
from report.answers import without_pictures, write_report
from report.statistics import compare_all, print_summary, summarize
from reward import Rewards


# ------------------------------------------------------------------------------------------------------- evaluation
def evaluate(
    policy,
    samples: Iterable[Sample],
    renderer: Renderer,
    rewards: Rewards,
    G: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1024,
    seed: int = 0,
    refine: int = 0,
    chunk: int = 32,
    total: int | None = None,
    scorer: Scorer | None = None,
    done: Iterable[tuple[str, int]] = (),
    left_out: dict[str, str] | None = None,
    settings=None,
) -> Iterator[Record]:
    """Records in the order of `samples`, a chunk of targets at a time, so memory does not grow with their number.

    policy: ours, or a Server, or a Folder. Targets without a picture are drawn from their code. done: (sample id,
    index) of records that are there already: none is made again, and a chunk of nothing else is not decoded. left_out:
    filled with {id: why} of targets that cannot be drawn. settings: as Rewards.prepare takes them."""
    if G < 1 or chunk < 1 or refine < 0:
        raise ValueError("G and chunk have to be at least 1, refine at least 0.")
    scorer, done = scorer or Scorer(renderer), set(done)
    executed, visual, count = 0, 0.0, 0
    options = {"temperature": temperature, "max_new_tokens": max_new_tokens}

    def asked() -> Iterator[tuple[list[int], list]]:
        for number, batch in enumerate(rounds.batches(samples, chunk, renderer)):
            if all((sample.id, g) in done for sample in batch for g in range(G)):
                bar.update(len(batch) * G * (1 + refine))
                continue
            batch = rounds.with_pictures(batch, renderer, left_out)
            rewards.prepare(batch, renderer, settings)
            seeds = [int(s) for s in np.random.SeedSequence((seed, number)).generate_state(1 + refine) >> 1]
            yield seeds, rounds.ask(policy, batch, scorer, bar, G, seed=seeds[0], **options)

    with tqdm(total=total and total * G * (1 + refine), desc="evaluate", unit="answer", smoothing=0.05) as bar:
        for seeds, answers in rounds.a_step_ahead(asked()):  # a chunk is drawn while the one before it is scored
            records = rounds.records_of(answers, scorer, rewards, temperature)
            for k in range(refine):
                records = rounds.refine(policy, records, scorer, rewards, bar, seed=seeds[1 + k], **options)
            executed += sum(record.score.executed for record in records)
            visual += sum(record.score.visual for record in records)
            count += len(records)
            bar.set_postfix(executes=f"{executed / count:.0%}", visual=f"{visual / count:.3f}")
            yield from (record for record in records if (record.sample.id, record.index) not in done)


# ------------------------------------------------------------------------------------------------------ command line
# flags that records do not depend on
MAY_CHANGE = ("device", "workers", "concurrency", "out", "judge", "skip_unmatched")
DECODING = ("G", "temperature", "max_new_tokens", "seed", "refine", "chunk")


@dataclass
class Targets:
    """What a run evaluates."""

    samples: Iterable[Sample]
    ids: list[str]
    others: list[str]
    """Ids of targets that are there as well: beyond --max-samples, or dropped."""
    notes: list[str] = field(default_factory=list)
    """Which part of each benchmark this is, and what is not read."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Why rows were left out -> how many."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Target -> why nothing is asked about it: it cannot be read or drawn."""


@dataclass
class Evaluation:
    """Evaluate one policy on data sets or benchmarks; records are written as they come, and a rerun goes on."""

    model: str = ""
    """Hugging Face folder or hub name of a Qwen2.5-VL or Qwen3-VL; with --server the name it has there."""
    server: str = ""
    """Base address of an OpenAI-compatible server to ask instead, such as http://localhost:8000/v1."""
    answers: str = ""
    """Folder of answers made elsewhere to score instead (answers/folder.py says how its files are named)."""
    skip_unmatched: bool = False
    """Leave out answers that are for no target; without, one of them stops the run."""
    data: str = ""
    """What data.load reads: a parquet file, a jsonl file, a manifest folder."""
    bench: tuple[str, ...] = ()
    """Benchmarks: synthetic-5 (made here), or NAME=PATH, or NAME for the folder NAME under --bench-root;
    NAME/SUBSET for another part of one than the first (chartmimic/customized=PATH)."""
    bench_root: str = "benchmark_data"
    """Where the folders of benchmarks given by name alone are."""
    out: str = "runs/eval"
    """Folder for records, summary.json and report.html."""
    max_samples: Annotated[int | None, tyro.conf.arg(aliases=["--limit"])] = None
    """Evaluate the first so many targets only (of each benchmark)."""
    G: int = 1
    """Answers per target."""
    best_of: int = 0
    """Sample this many answers and show how the score of the best one, by reward, grows with their number."""
    temperature: float = 0.0
    """0 is greedy."""
    max_new_tokens: int = 1024
    """Longest answer."""
    refine: int = 0
    """Rounds in which the policy sees the target together with its own last code."""
    seed: int = 0
    """Seed of the sampling noise."""
    as_published: bool = False
    """The benchmarks' own numbers where their code differs from what their text says."""
    clip: str | None = None
    """Folder of CLIP weights, for the metrics that need them."""
    dino: str | None = None
    """Folder of DINOv2 weights."""
    lpips: str | None = None
    """File or folder of LPIPS weights, AlexNet or VGG16 (metrics/lpips.py says in which form)."""
    judge_url: str = ""
    """Base address of an OpenAI-compatible server whose model judges the pictures (key: JUDGE_API_KEY)."""
    judge_model: str = ""
    """The judge's name there."""
    judge_rubrics: tuple[str, ...] = tuple(RUBRICS)
    """Whose criteria to ask about; one question for each answer and rubric that fits it."""
    device: str = "cpu"
    """cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""
    chunk: int = 32
    """Targets decoded together."""
    concurrency: int = 16
    """Requests to the server at a time."""
    reward: tuple[str, ...] = ()
    """What an answer is worth, by which the best of several is chosen: NAME=WEIGHT of visual, text and alignment, or
    FILE.py:FUNCTION=WEIGHT, as reward.py says. The visual score is shown whatever is chosen."""
    reward_mode: Literal["calibrated", "vincicoder"] = "calibrated"
    """calibrated, or the numbers of the released code."""
    encoder: str = "pyramid"
    """pyramid (no weights), or a DINOv2 folder or hub name, or FILE.py:NAME."""
    workers: int | None = None
    """Rendering workers per language; one per core if not given."""
    timeout: float = 10.0
    """Seconds that one program may have: its CPU time and sleep, not what it waits for a core that others have."""
    render_python: str | None = None
    """The interpreter that Python programs run in, with its packages; .venv/render, which `make` builds, by default."""
    svg_side: int = 448
    """Longer side of a rendered svg, px; as for the targets."""
    allow_unsafe_rendering: bool = False
    """Render even where this machine offers no sandbox."""

    def __call__(self) -> None:
        if bool(self.data) == bool(self.bench) or not (self.model or self.answers):
            raise ValueError("Give --model (or --answers), and either --data or --bench.")
        if self.best_of > 1 and self.temperature == 0:
            raise ValueError("--best-of samples several answers: give a --temperature above 0.")
        if self.answers and self.refine:
            raise ValueError("--refine asks a model once more: leave it out with --answers.")
        self.G = max(self.G, self.best_of)
        judge = Judge.of(self)
        where = {"svg_side": self.svg_side, "python": self.render_python, "allow_unsafe": self.allow_unsafe_rendering}
        files = benchmarks.pictures_beside(benchmarks.pictures(self.bench, self.bench_root))
        with Renderer(self.workers, self.timeout, files=files, **where) as renderer:
            targets = self.targets(renderer)
            same = {k: v for k, v in vars(self).items() if not k.startswith(MAY_CHANGE)}
            done = resumed(self.out, same)
            with RecordWriter(self.out, goes_on=True) as writer:
                options = {"device": self.device, "cache_mb": 64}
                rewards = Rewards(self.reward, self.reward_mode, self.encoder, **options)
                options = {name: getattr(self, name) for name in DECODING}
                options |= {"total": len(targets.ids), "done": done, "left_out": targets.left_out, "settings": self}
                scorer = Scorer(renderer, self.as_published, Weights.of(self))
                source = self.source(targets)
                notes = {"targets": targets.notes, "answers": getattr(source, "notes", [])}
                for note in notes["targets"] + notes["answers"]:
                    print(note)
                for record in evaluate(source, targets.samples, renderer, rewards, scorer=scorer, **options):
                    writer.append(record)
        if judge:
            judge.judge(read_records(self.out))
        name = Path(self.out).name
        records = [without_pictures(record) for record in judged_records(self.out)]
        print_summary({name: records}, targets.left_out)
        lost = {"dropped": targets.dropped, "left_out": targets.left_out}
        result = {"config": vars(self)} | notes | lost | {"summary": summarize(records)}
        (Path(self.out) / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
        write_report(Path(self.out) / "report.html", {name: judged_records(self.out)}, title=name)

    def targets(self, renderer: Renderer) -> Targets:
        return self._benchmarks() if self.bench else self._rows(renderer)

    def _benchmarks(self) -> Targets:
        samples, parts = benchmarks.load(self.bench, self.bench_root, self.max_samples)
        limit = self.max_samples or None
        ids = [id for part in parts for id in part.ids[:limit]]
        others = [id for part in parts for id in part.ids[len(part.ids[:limit]) :]]
        return Targets(samples, ids, others, [part.about for part in parts])

    def _rows(self, renderer: Renderer) -> Targets:
        samples, dropped = load_usable(self.data, renderer, limit=self.max_samples)
        every = replace(samples, indices=range(len(samples.rows)))
        used = set(samples.indices)
        lost = [i for i in every.indices[: self.max_samples] if i not in used]
        ids = {i: one.id for i, one, _ in data.check(every, None if self.answers else lost) if one}
        problems = check_drawn(every, renderer, lost)
        left_out = {ids.get(i, every.place(i)): why.partition(": ")[2] or "no picture" for i, _, why in problems}
        others = [id for i, id in ids.items() if i not in used]
        return Targets(samples, [ids.get(i, "") for i in samples.indices], others, dropped=dropped, left_out=left_out)

    def source(self, targets: Targets):
        """What answers: a folder, a server, or a policy of ours."""
        if self.answers:
            return Folder(self.answers, targets.ids, targets.others, self.G, self.skip_unmatched)
        if self.server:
            return Server(self.server, self.model, Path(self.out) / "answers.jsonl", self.concurrency)
        return models.Policy.load(self.model, self.device, getattr(torch, self.dtype))


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
        folders = named_folders(self.runs)
        print_summary({name: [without_pictures(r) for r in judged_records(f)] for name, f in folders.items()})
        write_report(self.out, {name: judged_records(f) for name, f in folders.items()}, self.curves, self.title)
        print(f"wrote {self.out}")


@dataclass
class Compare:
    """The paired difference A - B of two runs in every metric that both have, on the targets that both have."""

    run_a: tyro.conf.Positional[str]
    """Folder of a run."""
    run_b: tyro.conf.Positional[str]
    """Folder of the run it is compared with."""

    def __call__(self) -> None:
        a, b = ([without_pictures(record) for record in judged_records(f)] for f in (self.run_a, self.run_b))
        print("\n".join(compare_all(Path(self.run_a).name, a, Path(self.run_b).name, b)))


def main() -> None:
    arguments = sys.argv[1:]  # `run` may be left out: python eval.py --model M --bench synthetic-5
    if arguments and arguments[0].startswith("--") and arguments[0] != "--help":
        arguments = ["run", *arguments]
    commands = {"run": Evaluation, "report": Report, "compare": Compare}
    command = tyro.extras.subcommand_cli_from_dict(commands, description=__doc__, args=arguments)
    try:
        command()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"eval.py: {error}")


if __name__ == "__main__":
    main()
