"""Exact and near duplicates: a hash of the normalised program, a perceptual hash and a small copy of the picture.

Two rows are duplicates if their programs are equal after normalisation, or if their pictures are: the 64-bit pHashes
(Zauner 2010: signs of the low frequencies of the discrete cosine transform) differ in b <= 11 bits of 64, the aspect
ratios by at most 3 %, and of what is drawn at most 0.30 - 0.02 b differs in copies of 16 x 16 px. The hash alone is not
enough: pages that are mostly white, and figures of one template, share most of its bits. LOG.md has the figures.

Hashes in reach are found by multi-index hashing (Norouzi et al. 2012): cut into 4 bands of 16 bits, two hashes at most
11 bits apart agree in some band up to 2 bits. So a look-up reads 4 * 137 short lists, whatever the number of rows.
"""

import ast
import hashlib
import io
import itertools
import math
import re
from array import array
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

RADIUS = 11  # bits of 64
SIDE = 16  # px of the small copy
DIFFERENT, PER_BIT = 0.30, 0.02  # share of what is drawn that may differ, less for each bit by which the hashes do
ASPECT = math.log(1.03)
NEWEST = 64  # entries of one list that are looked at: bounds the work among thousands of pictures of one template
BANDS = (0, 16, 32, 48)
FLIPS = [0, *(1 << a for a in range(16)), *(1 << a | 1 << b for a, b in itertools.combinations(range(16), 2))]


def code_key(code: str, language: str) -> bytes:
    """16 bytes, equal for programs that differ in comments and formatting only."""
    if language == "python":
        try:
            code = ast.dump(ast.parse(code))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            code = " ".join(code.split())
    elif language == "latex":
        code = " ".join(re.sub(r"(?<!\\)%.*", "", code).split())
    elif language == "mermaid":
        code = re.sub(r"(?m)\s*(?:%%.*)?$", "", code)
    else:
        code = re.sub(r"(?s)<!--.*?-->", "", code).replace("'", '"')
        code = re.sub(r"\s*(/?[<>])\s*", r"\1", " ".join(code.split()))
    return hashlib.blake2b(f"{language}\n{code}".encode(errors="replace"), digest_size=16).digest()


def phash(image: Image.Image) -> int:
    """64-bit perceptual hash: 32 x 32 px grey, two-dimensional DCT, which of the 8 x 8 low frequencies exceed their
    median. Equal to imagehash.phash of the same picture."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey, type=2)[:8, :8]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


@dataclass
class Fingerprint:
    """key: of the code, b"" if there is none. hash: pHash. aspect: log of width / height. small: SIDE x SIDE RGB."""

    key: bytes
    hash: int
    aspect: float
    small: bytes


def fingerprint(image: Image.Image, code: str | None, language: str) -> Fingerprint:
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    key = code_key(code, language) if code else b""
    return Fingerprint(key, phash(image), math.log(image.width / image.height), small.tobytes())


def difference(a: bytes, b: bytes) -> float:
    """Share of what is drawn that differs between two small copies, in [0, 1]: sum |a - b| / sum max(|a - g|, |b - g|),
    with the commonest colour of `a` as ground g (one minus the Ruzicka similarity)."""
    x, y = (np.frombuffer(copy, np.uint8).reshape(-1, 3).astype(np.int32) for copy in (a, b))
    colours, counts = np.unique(x @ (1 << 16, 1 << 8, 1), return_counts=True)
    ground = int(colours[counts.argmax()])
    ground = np.array([ground >> 16, ground >> 8 & 255, ground & 255])
    drawn = np.maximum(np.abs(x - ground), np.abs(y - ground)).sum()
    return float(np.abs(x - y).sum() / drawn) if drawn else 0.0


class Index:
    """Fingerprints seen so far. `find` gives the number of one that is a duplicate, or None; `add` numbers upwards.

    Small copies (768 bytes a row) live in a file, the rest (some 200 bytes a row) in memory.
    """

    def __init__(self, file: io.BufferedRandom | io.BytesIO):
        self.file = file
        self.keys: dict[bytes, int] = {}
        self.hashes, self.aspects = array("Q"), array("f")
        self.bands: list[dict[int, array]] = [{} for _ in BANDS]

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, print: Fingerprint) -> int:
        number = len(self)
        self.hashes.append(print.hash)
        self.aspects.append(print.aspect)
        if print.key:
            self.keys.setdefault(print.key, number)
        for shift, lists in zip(BANDS, self.bands, strict=True):
            lists.setdefault(print.hash >> shift & 0xFFFF, array("I")).append(number)
        self.file.seek(number * len(print.small))
        self.file.write(print.small)
        return number

    def find(self, print: Fingerprint) -> tuple[int, str] | None:
        """(number, "same code" or "same picture") of an earlier duplicate, the nearest hash first."""
        if print.key in self.keys:
            return self.keys[print.key], "same code"
        lists = [
            found if len(found) <= NEWEST else found[-NEWEST:]
            for shift, band in zip(BANDS, self.bands, strict=True)
            for flip in FLIPS
            if (found := band.get(print.hash >> shift & 0xFFFF ^ flip))
        ]
        if not lists:
            return None
        near = np.frombuffer(b"".join(lists), np.uint32)
        bits = np.bitwise_count(np.frombuffer(self.hashes, np.uint64)[near] ^ np.uint64(print.hash))
        reach = bits <= RADIUS
        for distance, number in sorted(set(zip(bits[reach].tolist(), near[reach].tolist(), strict=True))):
            if abs(self.aspects[number] - print.aspect) <= ASPECT and self._alike(number, print.small, distance):
                return number, "same picture"
        return None

    def _alike(self, number: int, small: bytes, bits: int) -> bool:
        self.file.seek(number * len(small))
        return difference(self.file.read(len(small)), small) <= DIFFERENT - PER_BIT * bits
