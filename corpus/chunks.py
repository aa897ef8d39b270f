"""A chunk of rows from beginning to end: read, check, draw, compare, draft, and write to one file.

A chunk's file is a pure function of its rows and the configuration, and appears when it is complete: this is the unit
in which a build makes progress, in any order and in any process.
"""

import io
import json
import os
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

import data
from corpus.checks import normalise, problems
from corpus.drafts import Draft
from corpus.duplicates import fingerprint
from corpus.options import Options
from corpus.readers import ANSWERS, LICENSED, TOLD, Row, Source
from data import Sample
from pictures import is_blank
from prompts import refine_prompt
from render import Renderer, Rendering
from synth import png_bytes

TEXT, BYTES = pyarrow.string(), pyarrow.binary()
SCHEMA = pyarrow.schema(
    [("id", TEXT), ("place", TEXT), ("domain", TEXT), ("language", TEXT), ("prompt", TEXT), ("code", TEXT)]
    + [("image", BYTES), ("key", BYTES), ("hash", pyarrow.uint64()), ("aspect", pyarrow.float32()), ("small", BYTES)]
    + [("came_with_draft", pyarrow.bool_()), ("draft", TEXT), ("draft_prompt", TEXT), ("draft_kinds", TEXT)]
    + [("draft_key", BYTES), ("draft_image", BYTES), ("license", TEXT), ("source", TEXT)]
)
MIN_SIDE, MAX_ASPECT = 16, 16.0  # px; longer side over shorter
AHEAD = 6  # drawings a worker may be ahead of what is done with them: bounds the pictures in memory


def unfit(rendering: Rendering) -> str:
    """Why a rendering cannot be a target, "" if it can."""
    image = rendering.image
    if image is None:
        return (rendering.error or "no picture").strip().splitlines()[-1][:200]
    if is_blank(image):
        return "the picture has a single colour"
    if min(image.size) < MIN_SIDE or max(image.size) > MAX_ASPECT * min(image.size):
        return f"extreme size: less than {MIN_SIDE} px wide or high, or longer than {MAX_ASPECT:g} times its width"
    return ""


class Chunks:
    """Builds chunks in this process, with a renderer and a reward of its own."""

    def __init__(self, config: Options, workers: int):
        from reward import Visual  # torch, which the process that only hands out rows does not need

        self.config, self.workers = config, workers
        options = {"timeout": config.timeout, "svg_side": config.svg_side, "cache_mb": 0}
        self.renderer = Renderer(workers, allow_unsafe=config.allow_unsafe_rendering, **options)
        self.visual = Visual(cache_mb=16)
        self.seconds: Counter = Counter()

    def close(self) -> None:
        self.renderer.close()

    def write(self, path: Path, source: Source, rows: list[Row]) -> dict:
        """Build the chunk and write it to `path` (.parquet) and a .json of counts and rejects beside it."""
        self.seconds.clear()
        kept, report = self.build(source, rows)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with self._timed("write"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(kept, SCHEMA), partial)
        report |= {"rows": len(rows), "kept": len(kept), "seconds": dict(self.seconds)}
        partial_report = path.with_name(f".{path.stem}.{os.getpid()}.json.partial")
        partial_report.write_text(json.dumps(report))
        os.replace(partial_report, path.with_suffix(".json"))
        os.replace(partial, path)  # the last step: what has this file is done
        return report

    def build(self, source: Source, rows: list[Row]) -> tuple[list[dict], dict]:
        """(rows kept, in order; {"rejects": [...], "drafts": [...]})."""
        rejects, counts = [], Counter()

        def reject(row: Row, stage: str, reason: str) -> None:
            reason = " ".join(reason.split())
            rejects.append({"source": source.path, "row": row.place, "id": row.id, "stage": stage, "reason": reason})

        pairs = list(self._read(source, rows, reject))
        with self._timed("check"):
            found = problems([(sample.code, sample.language) for _, sample in pairs], self.config.max_tokens)
        for (row, _), problem in zip(pairs, found, strict=True):
            if problem:
                reject(row, "check", problem)
        pairs = [pair for pair, problem in zip(pairs, found, strict=True) if not problem]
        drawn = list(self._draw(pairs, reject))
        self._given_drafts(drawn, reject)
        self._make_drafts([entry for _, sample, entry in drawn if not entry["came_with_draft"]], counts)
        kept = [entry for _, _, entry in drawn if not entry.pop("rejected", False)]
        drafts = [[*key, count] for key, count in sorted(counts.items())]
        return kept, {"rejects": rejects, "drafts": drafts}

    def _timed(self, stage: str) -> "Stopwatch":
        return Stopwatch(self.seconds, stage)

    def _read(self, source: Source, rows: list[Row], reject: Callable) -> Iterator[tuple[Row, Sample]]:
        stage = "draft" if source.schema == ANSWERS else "read"  # a model's answer may well hold no program
        for row in rows:
            with self._timed("read"):
                try:
                    sample = source.sample(row)
                except (ValueError, OSError) as error:
                    reject(row, stage, str(error))
                    continue
                if not sample.code:
                    reject(row, stage, "has no code")
                    continue
                sample = replace(sample, code=normalise(sample.code, sample.language))
            told = {column: data._given(row.raw, column) for column in TOLD if source.schema == LICENSED}
            yield replace(row, id=sample.id, raw=told), sample

    def _futures(self, programs: Iterable[tuple]) -> Iterator[tuple[object, Rendering]]:
        """(what, code, language, size of the picture that it is compared with) -> (what, rendering), in order, a few
        ahead."""
        waiting: deque = deque()
        for what, *program in programs:
            waiting.append((what, self.renderer.submit(*program)))
            if len(waiting) >= AHEAD * self.workers:
                yield self._result(*waiting.popleft())
        while waiting:
            yield self._result(*waiting.popleft())

    def _result(self, what, future) -> tuple[object, Rendering]:
        with self._timed("wait"):
            rendering = future.result()
        self.seconds["draw"] += rendering.seconds  # in a worker, while this process does other things
        return what, rendering

    def _visual(self, target: Image.Image, rendering: Rendering) -> float:
        with self._timed("compare"):
            return self.visual.compare([target], [rendering])[0].visual

    def _draw(self, pairs: list[tuple[Row, Sample]], reject: Callable) -> Iterator[tuple[Row, Sample, dict]]:
        came_with = lambda sample: sample.image.size if sample.image else None  # noqa: E731
        programs = ((pair, pair[1].code, pair[1].language, came_with(pair[1])) for pair in pairs)
        for (row, sample), rendering in self._futures(programs):
            if problem := unfit(rendering):
                reject(row, "render", problem)
                continue
            target = rendering.image
            if sample.image is not None:
                if self._visual(sample.image, rendering) < self.config.match:
                    reject(row, "compare", "its program draws something else than its picture")
                    continue
                target = sample.image if self.config.pictures == "given" else target
            with self._timed("fingerprint"):
                print = fingerprint(target, sample.code, sample.language)
            with self._timed("encode"):
                image = png_bytes(target)
            entry = {"id": sample.id, "place": row.place, "domain": sample.domain, "language": sample.language}
            entry |= {"prompt": sample.prompt, "code": sample.code, "image": image, "key": print.key}
            entry |= {"hash": print.hash, "aspect": print.aspect, "small": print.small}
            entry |= {"came_with_draft": sample.draft is not None} | row.raw
            yield row, replace(sample, image=None), entry

    def _given_drafts(self, drawn: list[tuple[Row, Sample, dict]], reject: Callable) -> None:
        """Drafts that the source has, such as a model's own answers: kept if they draw something else."""
        given = [item for item in drawn if item[2]["came_with_draft"]]
        programs = ((item, item[1].draft, item[1].language, self._size(item[2])) for item in given)
        for (row, sample, entry), rendering in self._futures(programs):
            entry["rejected"] = True
            if rendering.image is None:
                reject(row, "draft", "its draft does not render")
                continue
            visual = self._visual(self._target(entry), rendering)
            if not self.config.band[0] <= visual <= self.config.band[1]:
                reject(row, "draft", f"its draft is too {'far from' if visual < self.config.band[0] else 'like'} it")
                continue
            entry["rejected"] = False
            self._set_draft(entry, sample.draft, sample.prompt, "given", rendering.image)

    def _make_drafts(self, entries: list[dict], counts: Counter) -> None:
        """Seeded flaws, in rounds: all that are still open are drawn together."""
        drafts = []
        for entry in entries:
            rng = np.random.default_rng((self.config.seed, zlib.crc32(entry["id"].encode())))
            if rng.random() < self.config.refine:
                drafts.append((entry, Draft(entry["code"], entry["language"], rng)))
        while waiting := [pair for pair in drafts if pair[1].state == "open"]:
            with self._timed("draft"):
                proposed = [((e, draft), draft.propose(), draft.language, self._size(e)) for e, draft in waiting]
            for (entry, draft), rendering in self._futures(item for item in proposed if item[1]):
                visual = self._visual(self._target(entry), rendering) if rendering.image else 0.0
                draft.judge(rendering, visual, self.config.band, counts)
                if draft.state == "kept":
                    prompt = refine_prompt(draft.language, draft.text, draft.rng)
                    self._set_draft(entry, draft.text, prompt, " ".join(sorted(set(draft.kinds))), draft.image)
                    draft.image = None
        for entry, draft in drafts:
            counts[entry["language"], "done", draft.state] += 1

    def _size(self, entry: dict) -> tuple[int, int]:
        return Image.open(io.BytesIO(entry["image"])).size

    def _target(self, entry: dict) -> Image.Image:
        with self._timed("decode"):
            return Image.open(io.BytesIO(entry["image"])).convert("RGB")

    def _set_draft(self, entry: dict, draft: str, prompt: str, kinds: str, image: Image.Image) -> None:
        key = fingerprint(image, draft, entry["language"]).key
        shown = png_bytes(image) if self.config.draft_pictures else None
        entry |= {"draft": draft, "draft_prompt": prompt, "draft_kinds": kinds, "draft_key": key, "draft_image": shown}


class Stopwatch:
    def __init__(self, seconds: Counter, stage: str):
        self.seconds, self.stage = seconds, stage

    def __enter__(self):
        self.started = time.perf_counter()

    def __exit__(self, *_):
        self.seconds[self.stage] += time.perf_counter() - self.started
