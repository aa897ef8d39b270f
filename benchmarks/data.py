"""What a corpus costs: rows a second per stage and core, memory, and a projection for 1.6 million rows on 80 cores.

    python benchmarks/data.py stages --count 200                # each domain alone, one process, one worker
    python benchmarks/data.py build --count 20000               # small svg scenes on every core: time and memory
    python benchmarks/data.py end --count 1600000               # what follows the last chunk, on one core
    python benchmarks/data.py duplicates --count 1600000        # the index of near duplicates: time and memory
    python benchmarks/data.py stream --count 1600000            # reading for training: time and memory
    python benchmarks/data.py report                            # results/data.json as the tables of the README

Programs are synth.py's, so they are shorter than collected ones. Memory is the greatest sum of proportional set sizes
(Pss) over the whole process tree, sampled twice a second. `draw` is the time of the programs themselves, in a worker;
all other stages run in the process that builds the chunk.
"""

import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import tyro
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))
import environment  # noqa: E402, F401

import data  # noqa: E402
import files  # noqa: E402
import loading  # noqa: E402
import synth  # noqa: E402
from corpus.build import Build as Corpus  # noqa: E402

RESULTS = Path(__file__).parent.parent / "results" / "data.json"
STAGES = ("read", "check", "draw", "compare", "draft", "decode", "fingerprint", "encode", "write")
ROWS, CORES = 1_600_000, 80


class Memory(threading.Thread):
    """MiB of this process and all its descendants together, while the context is open: `peak`, and `course`, the
    greatest in each tenth of the time."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.done = [], threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            self.measure()

    def measure(self):
        self.seen.append(sum(map(self.pss, self.tree(os.getpid()))))

    @property
    def peak(self) -> float:
        return max(self.seen)

    @property
    def course(self) -> list[int]:
        return [round(max(part)) for part in np.array_split(self.seen, min(10, len(self.seen)))]

    def tree(self, pid: int) -> list[int]:
        found = [pid]
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = task.read_text().split()
            except OSError:  # it has just ended
                continue
            found += [process for child in children for process in self.tree(int(child))]
        return found

    def pss(self, pid: int) -> float:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return 0.0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.measure()
        self.done.set()
        self.join()


def save(name: str, result: dict) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[name] = result
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    print(name, json.dumps(result))


def programs(folder: Path, domain: str, count: int, difficulty: float) -> Path:
    """A manifest folder of made programs."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        sample = synth.make(domain, index, 11, difficulty)
        (folder / f"{index}.txt").write_text(sample.code)
        row = {"id": sample.id, "domain": domain, "language": sample.language, "path": f"{index}.txt"}
        rows.append(json.dumps(row) + "\n")
    (folder / "MANIFEST.jsonl").write_text("".join(rows))
    return folder


@dataclass
class Stages:
    """Seconds of every stage, one domain after the other."""

    count: int = 200
    """Rows per domain."""
    difficulty: float = 0.3
    """Of synth.py."""

    def __call__(self) -> None:
        import torch

        torch.set_num_threads(1)
        result = {"count": self.count, "difficulty": self.difficulty, "refine": 0.15, "domains": {}}
        for domain in synth.DOMAINS:
            with tempfile.TemporaryDirectory() as folder:
                source = programs(Path(folder, "in"), domain, self.count, self.difficulty)
                out = Path(folder, "out")
                Corpus((str(source),), str(out), processes=1, workers=1, max_rejects=1.0, keep_work=True)()
                seconds: Counter = Counter()
                for path in (out / "work").glob("*.json"):
                    seconds.update(json.loads(path.read_text())["seconds"])
            per_row = {stage: 1000 * seconds[stage] / self.count for stage in STAGES}  # ms
            result["domains"][domain] = {stage: round(ms, 2) for stage, ms in per_row.items()}
            result["domains"][domain]["rows_per_second_and_core"] = round(1000 / sum(per_row.values()), 2)
        mean = np.mean([1000 / row["rows_per_second_and_core"] for row in result["domains"].values()])
        result["equal_shares_ms"] = round(float(mean), 1)
        result["projection_hours"] = round(float(mean) * ROWS / 1000 / CORES / 3600, 2)
        save("stages", result)


@dataclass
class Build:
    """A whole build of small svg scenes, all cores."""

    count: int = 20_000
    """Rows."""
    processes: int = 2
    """Processes that build chunks."""

    def __call__(self) -> None:
        from corpus import publish

        with tempfile.TemporaryDirectory() as folder:
            source = programs(Path(folder, "in"), "svg", self.count, 0.5)
            out = Path(folder, "out")
            options = {"processes": self.processes, "max_rejects": 1.0, "svg_side": 64}
            whole, times = publish.publish, []

            def timed(*arguments):
                times.append(time.perf_counter())
                whole(*arguments)
                times.append(time.perf_counter())

            publish.publish = timed
            started = time.perf_counter()
            with Memory() as memory:
                Corpus((str(source),), str(out), **options)()
            publish.publish = whole
            card = (out / "card.md").read_text()
            rows = next(line for line in card.splitlines() if "direct rows" in line)
            size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
        result = {"count": self.count, "processes": self.processes, "seconds": round(times[1] - started, 1)}
        result |= {"chunks_seconds": round(times[0] - started, 1), "publish_seconds": round(times[1] - times[0], 1)}
        result |= {"rows_per_second": round(self.count / (times[1] - started), 1), "peak_mib": round(memory.peak)}
        result |= {"mib_by_tenths_of_the_time": memory.course}
        save(f"build_{self.count}", result | {"came_out": rows, "parquet_mib": round(size / 2**20, 1)})


@dataclass
class Duplicates:
    """The index of near duplicates alone, on hashes drawn at random, a tenth of them a few bits from an earlier one."""

    count: int = ROWS
    """Rows."""

    def __call__(self) -> None:
        from corpus.duplicates import Fingerprint, Index

        rng = np.random.default_rng(0)
        smalls = [rng.integers(0, 256, 768, np.uint8).tobytes() for _ in range(500)]
        found, hashes = 0, rng.integers(0, 1 << 64, self.count, np.uint64, endpoint=False)
        with tempfile.TemporaryFile() as file, Memory() as memory:
            index, started, used = Index(file), time.perf_counter(), time.process_time()
            for row in tqdm(range(self.count), "duplicates", delay=2):
                value, small = int(hashes[row]), row % 500
                if row % 10 == 9:  # of the row before, with three bits flipped
                    value, small = int(hashes[row - 1]) ^ 0x8000_0100_0000_0001, (row - 1) % 500
                print = Fingerprint(row.to_bytes(16), value, 0.0, smalls[small])
                if index.find(print):
                    found += 1
                else:
                    index.add(print)
            seconds, cpu = time.perf_counter() - started, time.process_time() - used
        result = {"count": self.count, "planted": self.count // 10, "found": found, "seconds": round(seconds, 1)}
        result |= {"cpu_seconds": round(cpu, 1)}  # what counts where others work on the same cores
        save(f"duplicates_{self.count}", result | {"peak_mib": round(memory.peak)})


def scenes(count: int = 200) -> list[tuple[str, bytes]]:
    """(svg program, PNG of 64 px) of small scenes."""
    from render import Renderer

    made, images = [synth.make("svg", index, 12, 0.3).code for index in range(count)], []
    with Renderer(svg_side=64) as renderer:
        for future in [renderer.submit(code, "svg") for code in made]:
            file = io.BytesIO()
            future.result().image.save(file, "PNG")
            images.append(file.getvalue())
    return list(zip(made, images, strict=True))


def write_rows(folder: Path, count: int) -> None:
    """SFT files of 100,000 rows: 64 px pictures of svg scenes, of which there are 200, and numbered prompts."""
    made = scenes()
    folder.mkdir(parents=True)
    for start in tqdm(range(0, count, 100_000), "writing", unit=" files"):
        numbers = range(start, min(start + 100_000, count))
        table = {"user_content": [f"<image>\nWrite SVG code for scene {n}." for n in numbers]}
        table["assistant_content"] = [f"```svg\n{made[n % 200][0]}\n```" for n in numbers]
        table["image"] = [made[n % 200][1] for n in numbers]
        path = folder / f"{start // 100_000:03}.parquet"
        pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=256)


def write_chunks(work: Path, count: int) -> None:
    """Finished chunks of a build, 128 rows each: small scenes, keys and hashes at random, 15 % with a draft."""
    from corpus.chunks import SCHEMA

    made, rng = scenes(), np.random.default_rng(0)
    smalls = [rng.integers(0, 256, 768, np.uint8).tobytes() for _ in range(500)]
    work.mkdir(parents=True)
    for start in tqdm(range(0, count, 128), "writing", unit=" chunks", delay=2):
        rows = []
        for n in range(start, min(start + 128, count)):
            code, image = made[n % 200]
            row = {"id": f"p{n}", "place": f"row {n}", "domain": "svg", "language": "svg", "prompt": "Write SVG code."}
            row |= {
                "code": code,
                "image": image,
                "key": rng.bytes(16),
                "hash": int(rng.integers(1 << 63)),
                "aspect": 0.0,
            }
            row |= {"small": smalls[n % 500], "came_with_draft": False}
            if n % 100 < 15:
                row |= {
                    "draft": code,
                    "draft_prompt": "Correct this.",
                    "draft_kinds": "colour",
                    "draft_key": rng.bytes(16),
                }
            rows.append(row)
        path = work / f"00-{start // 128:07}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), path)
        report = {"rows": len(rows), "kept": len(rows), "rejects": [], "drafts": [], "seconds": {}}
        path.with_suffix(".json").write_text(json.dumps(report))


def read_share(folder: Path, batch_size: int, rank: int, ranks: int, read: int, kept_mb: int) -> tuple[int, int, float]:
    """One process of several: (rows, characters, MiB at most) of its share of the batches of one epoch, or of the first
    `read` rows of it."""
    files.KEPT_MB = kept_mb
    samples, rows, characters = data.load(folder), 0, 0
    with Memory() as memory:
        for step in range(min(len(samples), read) // batch_size):
            for index in loading.batch_indices(samples, batch_size, 0, step)[rank::ranks]:
                sample = samples[index]
                rows += 1
                characters += len(sample.code) + sample.image.width
    return rows, characters, memory.peak


@dataclass
class End:
    """What a build does on one core when all chunks are there: duplicates, balance, shards, card."""

    count: int = ROWS
    """Rows in the chunks."""

    def __call__(self) -> None:
        from corpus import publish

        with tempfile.TemporaryDirectory() as folder:
            write_chunks(Path(folder, "work"), self.count)
            with Memory() as memory:
                started, used, before = time.perf_counter(), time.process_time(), memory.pss(os.getpid())
                publish.publish(Corpus(("chunks",), folder, rl=self.count // 40), [])
                seconds, cpu = time.perf_counter() - started, time.process_time() - used
            card = Path(folder, "card.md").read_text()
        result = {"count": self.count, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
        result |= {"peak_mib": round(memory.peak), "of_it_before_mib": round(before)}
        save(
            f"end_{self.count}",
            result | {"came_out": next(line for line in card.splitlines() if "direct rows" in line)},
        )


@dataclass
class Stream:
    """One epoch as training reads it: pictures decoded, prompts parsed, two processes with a share each."""

    count: int = ROWS
    """Rows."""
    processes: int = 2
    """Processes, each with its share of every batch."""
    batch_size: int = 256
    """Rows per step."""
    read: int = 1 << 62
    """Read only so many of the rows."""
    kept_mb: int = files.KEPT_MB
    """MiB of decoded rows that a process keeps: what its memory grows to while the whole set is smaller."""

    def __call__(self) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            write_rows(folder / "rows", self.count)
            size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
            started = time.perf_counter()
            with ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn")) as pool:
                options = (self.processes, self.read, self.kept_mb)
                ranks = range(self.processes)
                jobs = [pool.submit(read_share, folder / "rows", self.batch_size, rank, *options) for rank in ranks]
                shares = [job.result() for job in jobs]
            seconds = time.perf_counter() - started
        finally:
            shutil.rmtree(folder)
        rows = sum(share[0] for share in shares)
        result = {"count": self.count, "rows_read": rows, "processes": self.processes, "seconds": round(seconds, 1)}
        result |= {"rows_per_second_and_core": round(rows / seconds / self.processes), "gib": round(size / 2**30, 2)}
        result |= {"kept_mib": self.kept_mb, "peak_mib_per_process": [round(share[2]) for share in shares]}
        save(f"stream_{self.count}" + (f"_kept_{self.kept_mb}" if self.kept_mb != files.KEPT_MB else ""), result)


def projection(known: dict) -> dict:
    """Hours for 1.6 million rows on 80 cores: the chunks on all of them, then the end on one.

    The look-ups of duplicates grow with the rows: the end's seconds of a row are taken as a + b * rows, from the
    smallest and the largest end measured."""
    ends = [row for name, row in known.items() if name.startswith("end_")]
    small, large = (pick(ends, key=lambda row: row["count"]) for pick in (min, max))
    costs = [row["cpu_seconds"] / row["count"] for row in (small, large)]
    slope = (costs[1] - costs[0]) / (large["count"] - small["count"]) if large is not small else 0.0
    end = (costs[1] + max(0.0, slope) * (ROWS - large["count"])) * ROWS
    chunks = known["stages"]["equal_shares_ms"] * ROWS / 1000 / CORES
    hours = {"chunks": chunks / 3600, "end": end / 3600, "both": (chunks + end) / 3600}
    return {name: round(value, 2) for name, value in hours.items()}


@dataclass
class Report:
    """The tables of the README."""

    def __call__(self) -> None:
        known = json.loads(RESULTS.read_text())
        domains = known["stages"]["domains"]
        print("| ms a row | " + " | ".join(domains) + " |")
        print("|---" * (1 + len(domains)) + "|")
        for stage in (*STAGES, "rows_per_second_and_core"):
            print(f"| {stage} | " + " | ".join(f"{row[stage]:g}" for row in domains.values()) + " |")
        for name, result in known.items():
            if name != "stages":
                print(name, result)
        print("hours for 1.6 M rows on 80 cores:", projection(known))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"stages": Stages, "build": Build, "end": End, "duplicates": Duplicates, "stream": Stream, "report": Report}
    )()
