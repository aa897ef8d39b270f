"""What pictures without programs say: read off them once, for the reward `text`.

    python -m corpus words DATA --ocr tesseract        # go on after an interruption: the same command

Writes DATA.words beside the data set, a line of JSON for each picture: {"picture": digest, "words": [[word, left, top,
right, bottom], ..]} in px. Training finds it there. Pictures are told apart by their pixels; rows with a program are
left out, as what that writes is known. tesseract is a program (apt install tesseract-ocr), rapidocr a Python package.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

import data
from corpus.drawn import AHEAD
from languages.protocol import Word
from reward import digest
from rewards.text import is_number, normal, read_before, words_file

# of 100: how sure an engine has to be of a word for it to count, and of a number, which engines see in lines and dots;
# how many letters a word has to have, as shorter ones are mostly parts of formulas; of how many of all that an engine
# saw that has to be so, for a picture to say anything
SURE, SURE_OF_NUMBER, SHORTEST, SHARE = 70, 93, 3, 0.35
ENOUGH = 1600  # px: smaller pictures are read in twice their size, as small letters are not read at all


@dataclass
class Words:
    """Read the words off pictures that have no program."""

    data: tyro.conf.Positional[str]
    """What data.load reads."""
    ocr: Literal["tesseract", "rapidocr"] = "tesseract"
    """The engine."""
    limit: int | None = None
    """The first so many rows only."""
    all: bool = False
    """Also pictures whose rows have a program."""

    def __call__(self) -> None:
        samples, read, file = data.load(self.data, self.limit), reader(self.ocr), words_file(self.data)
        known, new, dropped = set(read_before(self.data)), 0, 0
        with open(file, "a+", encoding="utf-8") as out, ThreadPoolExecutor(os.cpu_count()) as threads:
            out.write("\n" if file.stat().st_size else "")  # a line may have been broken off

            def jobs() -> Iterator:
                nonlocal dropped
                for _, sample, problem in tqdm(data.check(samples), "reading", len(samples), unit=" rows", delay=2):
                    dropped += bool(problem)
                    if problem or sample.image is None or sample.code and not self.all:
                        continue
                    key = digest(sample.image).hex()
                    if key not in known:
                        known.add(key)
                        yield key, threads.submit(read, sample.image)

            waiting = []
            for job in jobs():
                waiting.append(job)
                if len(waiting) > AHEAD:
                    new += write(out, *waiting.pop(0))
            for job in waiting:
                new += write(out, *job)
        print(f"{file}: {len(known)} pictures, {new} of them read now; {dropped} rows cannot be used")


def write(out, key: str, job) -> int:
    out.write(json.dumps({"picture": key, "words": [list(word[:5]) for word in job.result()]}) + "\n")
    out.flush()
    return 1


def reader(name: str) -> Callable[[Image.Image], list[Word]]:
    """An engine. Raises RuntimeError, which says what to install, where it is not here."""
    if name == "tesseract":
        if shutil.which("tesseract") is None:
            raise RuntimeError("tesseract is not here: apt install tesseract-ocr, or --ocr rapidocr")
        return by_tesseract
    try:
        from rapidocr import OCRVersion, RapidOCR

        versions = {"Det.ocr_version": OCRVersion.PPOCRV6, "Rec.ocr_version": OCRVersion.PPOCRV6}
    except (ImportError, AttributeError):  # before 3.9 the wheel has PP-OCRv4, which reads much worse
        raise RuntimeError(
            "rapidocr is not here: pip install 'rapidocr>=3.9' onnxruntime, or --ocr tesseract"
        ) from None
    one_thread = {"EngineConfig.onnxruntime.intra_op_num_threads": 1}  # as pictures are read side by side
    options = versions | one_thread | {"Global.log_level": "error"}
    engine = RapidOCR(params=options)
    direction = RapidOCR(params=options | {"Global.use_det": False, "Global.use_rec": False})
    return lambda image: by_rapidocr(engine, direction, image)


def enlarged(image: Image.Image) -> tuple[Image.Image, int]:
    factor = 2 if max(image.size) < ENOUGH else 1
    return image.convert("RGB").resize((factor * image.width, factor * image.height), Image.Resampling.LANCZOS), factor


def by_tesseract(image: Image.Image, longest: float | None = None) -> list[Word]:
    """Sparse text (mode 11): a chart's labels are no page. Raises RuntimeError with what tesseract says, and where it
    takes more than `longest` seconds."""
    large, factor = enlarged(image)
    picture = BytesIO()
    large.save(picture, "PNG", compress_level=1)
    try:
        ended = subprocess.run(
            ["tesseract", "stdin", "stdout", "--psm", "11", "--dpi", "200", "tsv"],
            input=picture.getvalue(),
            capture_output=True,
            env=os.environ | {"OMP_THREAD_LIMIT": "1"},
            timeout=longest,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"tesseract took more than {longest} s for a picture") from None
    if ended.returncode:
        raise RuntimeError(f"tesseract failed: {ended.stderr.decode(errors='replace').strip()[:300]}")
    words = []
    for line in ended.stdout.decode(errors="replace").splitlines()[1:]:
        *_, left, top, width, height, sure, text = line.split("\t")
        if text.strip():
            box = (int(left), int(top), int(left) + int(width), int(top) + int(height))
            words.append((Word(text.strip(), *(side // factor for side in box)), float(sure)))
    return sure_ones(words)


def sure_ones(words: list[tuple[Word, float]]) -> list[Word]:
    """Plain words and numbers that the engine is sure of; none where they are few among what it saw. Of formulas,
    addresses and the like it gets one letter wrong, and a right answer would pay for it."""
    names = [(normal(word.text), word, sure) for word, sure in words]
    names = [(name, word, sure) for name, word, sure in names if name]
    kept = [word for name, word, sure in names if sure >= (SURE_OF_NUMBER if is_number(name) else SURE) and plain(name)]
    return kept if len(kept) >= SHARE * len(names) else []


def plain(name: str) -> bool:
    return is_number(name) or len(name) >= SHORTEST and re.sub("['\u2019-]", "", name).isalpha()


def by_rapidocr(engine: Callable, direction: Callable, image: Image.Image) -> list[Word]:
    """Each word as sure as its line: the number that comes with a word is that of some letter of the line. The engine
    reads a line that runs upwards from its other end, and its words' boxes are then those of the mirrored line; the
    second one, which tells only whether a line is upside down, is asked again."""
    large, factor = enlarged(image)
    pixels = np.asarray(large)[..., ::-1]
    found = engine(pixels, return_word_box=True)
    if found.txts is None:
        return []
    words = []
    for text, sure, around, line in zip(found.txts, found.scores, found.boxes, found.word_results, strict=True):
        if [word for word, _, _ in line] != text.split():  # Chinese comes letter by letter: no words of a program
            continue
        left, top, right, bottom = bounds(around)
        upwards = False
        if len(line) > 1 and bottom - top >= 1.5 * (right - left):
            ((label, how_sure),) = direction(np.rot90(pixels[max(0, top) : bottom, max(0, left) : right])).cls_res
            upwards = label == "180" and how_sure > 0.9  # as the engine has it
        for word, _, corners in line:
            x0, y0, x1, y1 = bounds(corners)
            box = (x0, top + bottom - y1, x1, top + bottom - y0) if upwards else (x0, y0, x1, y1)
            words.append((Word(word, *(side // factor for side in box)), 100 * sure))
    return sure_ones(words)


def bounds(corners) -> tuple[int, int, int, int]:
    """(4, 2) -> left, top, right, bottom"""
    xs, ys = zip(*corners, strict=True)
    return int(min(xs)), int(min(ys)), int(max(xs)), int(max(ys))
