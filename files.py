"""The files of a data set, and their rows by position, as they are written there: jsonl, json, parquet.

Nothing is read before it is asked for but the places of lines and the footers of parquet files, and no copy is made.
What a row means is data.py's business.
"""

import gzip
import io
import json
import os
import re
import sys
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow
from pyarrow.parquet import ParquetFile, read_metadata
from tqdm import tqdm

SPLITS = {  # and the words for them in names of files and folders, those that `datasets` knows
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
JSON = (".json", ".json.gz")  # lines, too, or an array of rows, or a single object that is no row
KINDS = ((".parquet",), (".jsonl", ".jsonl.gz"), JSON)  # of files, of which a set has one
SUFFIXES = sum(KINDS, ())
BLANK = b"\xef\xbb\xbf \t\r\n"  # bytes before JSON
GIVE = "give a .parquet, .jsonl or .json, or a folder with such files or a MANIFEST.jsonl"
MOST_UNPACKED = 4 << 30  # bytes of a .gz or .json file, which have to be read at once
KEPT_MB = 256  # MiB of rows of parquet files kept in memory, after they were decoded
PIECE_BYTES = 4 << 20  # of a row group that are decoded together, about
OPEN_GROUPS = 24  # row groups that are being read, from their front to their end


# -------------------------------------------------------------------------------------------------- which files, splits


def data_files(path: str | Path) -> tuple[list[Path], Path]:
    """(the files of the data set `path`, the folder that their names are relative to).

    A file is itself. Of a folder: its manifest, or else its files of rows, without hidden ones. Where their names say
    splits those of train, or of the one asked for: FOLDER:test, FOLDER:validation, FOLDER:all; of these the first of
    KINDS. What is left out is said. Raises FileNotFoundError or ValueError, in one sentence, where there are none.
    """
    path, split = _split_asked_for(path)
    if not path.exists():
        download = "hf download --repo-type dataset OWNER/NAME --local-dir FOLDER"
        raise FileNotFoundError(f"{path} does not exist; {GIVE}. One of the hub is downloaded first: {download}")
    if path.is_file() and path.name.endswith(SUFFIXES):
        return [path], path.parent
    if (path / "MANIFEST.jsonl").is_file():
        return [path / "MANIFEST.jsonl"], path
    files = [file for file in sorted(path.rglob("*")) if file.name.endswith(SUFFIXES) and file.is_file()]
    files = [file for file in files if not re.search(r"(^|/)\.", str(file.relative_to(path))) and _holds_rows(file)]
    if not files:
        raise ValueError(f"{path} holds no data set; {GIVE}")
    return _files_of_one_kind(files_of_split(files, path, split), path), path


def _holds_rows(file: Path) -> bool:
    """No for a single JSON object over several lines, as settings and descriptions of a set are."""
    try:
        with _unpacked(file) as stream:
            line = next(filter(None, (line.strip(BLANK) for line in stream)), b"")
    except (OSError, EOFError, zlib.error):
        return True  # whoever reads it says what is wrong
    return not (file.name.endswith(JSON) and line.startswith(b"{") and not line.endswith(b"}"))


def _split_asked_for(path: str | Path) -> tuple[Path, str | None]:
    folder, _, name = str(path).rpartition(":")
    if not folder or Path(path).exists() or not Path(folder).is_dir():
        return Path(path), None
    split = next((split for split, names in SPLITS.items() if name.lower() in names), name)
    if split not in (*SPLITS, "all"):
        raise ValueError(f"{path}: there is no split {name}; say :train, :validation, :test or :all")
    return Path(folder), split


def split_of(file: Path) -> str | None:
    """What the file's name says, or else the folder nearest to it."""
    name = re.sub(r"(\.(parquet|jsonl|json|gz))+$", "", file.name)
    for part in (name, *reversed(file.parent.parts)):
        words = set(re.findall("[a-z]+", part.lower()))
        for split, names in SPLITS.items():
            if words & names:
                return split
    return None


def files_of_split(files: list[Path], folder: Path, split: str | None) -> list[Path]:
    """Those of the split; of train if None, or of what has no name where nothing is called train."""
    if split == "all":
        return files
    splits = {file: split_of(file.relative_to(folder)) for file in files}
    found = list(dict.fromkeys(splits.values()))
    wanted = split or ("train" if "train" in found else None)
    if wanted not in found:
        named = sorted(name for name in found if name) or ["all"]
        others = f"has only {' and '.join(named)}, where the split {wanted or 'train'} is asked for"
        raise ValueError(f"{folder} {others}; say {folder}:{named[0]} or {folder}:all")
    chosen = [file for file in files if splits[file] == wanted]
    if len(found) > 1:
        what = f"the split {wanted}" if wanted else "what belongs to no split"
        others = ", ".join(name or "without a split" for name in found if name != wanted)
        _say(f"{folder}: {what} is read, {len(chosen)} of {len(files)} files; left out: {others}")
    return chosen


def _files_of_one_kind(files: list[Path], folder: Path) -> list[Path]:
    kinds = [[file for file in files if file.name.endswith(suffixes)] for suffixes in KINDS]
    chosen, *others = [kind for kind in kinds if kind]
    if others:
        named = ", ".join(str(file.relative_to(folder)) for kind in others for file in kind[:3])
        left_out = f"{sum(map(len, others))} of other kinds ({named}); give one of them to read it"
        _say(f"{folder}: the {len(chosen)} {chosen[0].suffix} files are read; left out are {left_out}")
    return chosen


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes the first
        print(text, file=sys.stderr)


def _together(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"each of {len(files)} files, {files[0]} first,"


def open_rows(path: str | Path, columns: set[str]) -> "Lines | Parquet":
    """The rows of the data set `path`; columns: those that are read of parquet files. Raises as data_files does."""
    files, folder = data_files(path)
    return Parquet(files, folder, columns) if files[0].suffix == ".parquet" else Lines(files, folder)


# ---------------------------------------------------------------------------------------------------------- json, jsonl


class Lines(Sequence):
    """The objects of jsonl files, or of the arrays of .json files, by position. Only their places are held, and a
    broken line spoils no other. What is compressed (.gz) is unpacked in memory."""

    def __init__(self, files: Sequence[Path], folder: Path | None = None):
        self.files, self.unpacked = list(files), {}
        self.names = [str(file.relative_to(folder or file.parent)) for file in files]  # what people call them
        places = []
        for number, file in enumerate(self.files):
            if file.suffix == ".gz":
                self.unpacked[number] = _whole(file)
            with self._open(number) as stream:
                places.append(np.fromiter(_places(file, stream), np.dtype((np.int64, 3))))
        self.places = np.concatenate(places)  # (rows, 3): line or item, offset, length in bytes
        self.ends = np.cumsum([len(rows) for rows in places]).tolist()
        if not len(self):
            raise ValueError(f"{_together(self.files)} is empty; write one JSON object a line")

    def _open(self, file: int) -> BinaryIO:
        return io.BytesIO(self.unpacked[file]) if file in self.unpacked else open(self.files[file], "rb")

    def __len__(self):
        return len(self.places)

    def place(self, index: int) -> tuple[str, str, Path]:
        """(place of a row for people, an id for it, the folder that its paths are relative to)."""
        file = bisect_right(self.ends, index)
        first = self.ends[file - 1] if file else 0
        what = "item" if self.names[file].endswith(JSON) else "line"
        stem = self.names[file].removesuffix(".gz").rpartition(".")[0]
        return f"{self.names[file]} {what} {self.places[index, 0]}", f"{stem}-{index - first}", self.files[file].parent

    def __getitem__(self, index) -> dict:
        """Raises ValueError for what is no JSON object."""
        _, offset, length = self.places[index].tolist()
        with self._open(bisect_right(self.ends, index)) as stream:
            stream.seek(offset)
            content = stream.read(length)
        try:
            row = json.loads(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"is not UTF-8 ({error}); convert the file: iconv -f LATIN1 -t UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is no JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise ValueError("is no JSON object; write one {...} a line")
        return row


def _places(path: Path, stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """(line or item, offset, length in bytes) of every object of a file."""
    start = stream.read(64)
    stream.seek(0)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} is UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8")
    if path.name.endswith(JSON) and start.strip(BLANK)[:1] == b"[":
        yield from _items(path, _whole(path))
        return
    offset = 0
    for number, line in enumerate(tqdm(stream, f"reading {path.name}", unit=" lines", delay=2, leave=False), 1):
        if line.strip(BLANK):
            yield number, offset, len(line)
        offset += len(line)


def _items(path: Path, content: bytes) -> Iterator[tuple[int, int, int]]:
    """(number, offset, length in bytes) of the items of a JSON array."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); convert it: iconv -f LATIN1 -t UTF-8") from None
    text = content.decode("latin-1")  # a character for a byte: none of JSON's own signs is within another in UTF-8
    decoder, blank, end = json.JSONDecoder(), re.compile(r"[\s,]*"), text.index("[") + 1
    for number in count():
        start = blank.match(text, end).end()
        if text[start : start + 1] == "]":
            return
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no JSON array ({error}) after {number} items; write it again") from None
        yield number, start, end - start


def _unpacked(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


def _whole(path: Path) -> bytes:
    try:
        with _unpacked(path) as stream:
            content = stream.read(MOST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); write or download it again") from None
    if len(content) > MOST_UNPACKED:
        raise ValueError(f"{path} is too large to be read at once; write it as .jsonl, one object a line")
    return content


# -------------------------------------------------------------------------------------------------------------- parquet


def _bytes_of_text(value) -> int:
    """In a column's value, also in lists and structs; not in the pictures among these."""
    if isinstance(value, dict):
        return sum(_bytes_of_text(part) for name, part in value.items() if not name.startswith("image"))
    if isinstance(value, list):
        return sum(map(_bytes_of_text, value))
    return len(value.encode()) if isinstance(value, str) else 0


class Parquet(Sequence):
    """The rows of parquet files by position.

    A row group is decoded piece by piece, from its front to its end, and up to KEPT_MB of pieces are kept: whoever asks
    for rows that lie near one another, in whatever order, has each decoded once, however large the groups are. A piece
    that cannot be decoded takes the rest of its row group with it, whose rows then raise ValueError.
    """

    def __init__(self, files: Sequence[Path], folder: Path | None = None, columns: set[str] | None = None):
        """columns: those that are read, all if None; a file that lacks one has rows without it. Raises ValueError for a
        file that is no parquet or has one of the columns twice, and for a set without rows."""
        self.files, self.wanted, self.footers, self.columns = list(files), columns, [], []
        self.names = [str(file.relative_to(folder or file.parent)) for file in files]  # what people call them
        for file in self.files:
            try:
                self.footers.append(read_metadata(file))  # of which nothing else is read yet
            except (OSError, pyarrow.ArrowException) as error:
                raise ValueError(f"{file} is no readable parquet file ({error}); write or download it again") from None
            names = self.footers[-1].schema.to_arrow_schema().names
            self.columns.append(set(names))
            for name in self.columns[-1] if columns is None else self.columns[-1] & columns:
                if (times := names.count(name)) > 1:
                    raise ValueError(f"{file} has {times} columns {name}; keep one of them")
        if not sum(footer.num_rows for footer in self.footers):
            raise ValueError(f"{_together(files)} has no rows; write it again")
        self.groups = [(f, g) for f, footer in enumerate(self.footers) for g in range(footer.num_row_groups)]
        metadata = [self.footers[f].row_group(g) for f, g in self.groups]
        self.sizes = np.array([group.num_rows for group in metadata], np.int64)  # (groups,) rows
        self.ends = np.cumsum(self.sizes)
        self.starts = self.ends - self.sizes
        bytes_of = np.array([group.total_byte_size for group in metadata], np.int64)
        self.bytes_per_row = max(1.0, float(bytes_of.sum() / self.ends[-1]))
        self.piece_rows = np.clip(PIECE_BYTES * self.sizes // np.maximum(1, bytes_of), 1, 1024)  # (groups,)
        self.file_starts = [0, *np.cumsum([footer.num_rows for footer in self.footers]).tolist()]
        self.kept: OrderedDict[tuple[int, int], pyarrow.Table] = OrderedDict()  # pieces, least recently used first
        self.kept_bytes = 0
        self.reading: OrderedDict[int, tuple[int, Iterator]] = OrderedDict()  # group -> its next piece's number, pieces

    def __len__(self) -> int:
        return int(self.ends[-1])

    def kind(self, kind_of: Callable[[set[str], Path], object]):
        """What kind_of(columns, file) says of each file. Raises ValueError where they differ."""
        first = kind_of(self.columns[0], self.files[0])
        for columns, file in zip(self.columns, self.files, strict=True):
            if kind_of(columns, file) != first:
                raise ValueError(f"{file} has other columns than {self.files[0].name}; load the two kinds separately")
        return first

    def place(self, index: int) -> tuple[str, str, Path]:
        """(place of a row for people, an id for it, the folder that its paths are relative to)."""
        file = bisect_right(self.file_starts, index) - 1
        name, row = self.names[file], index - self.file_starts[file]
        return f"{name} row {row}", f"{name.removesuffix('.parquet')}-{row}", self.files[file].parent

    def __getitem__(self, index) -> dict:
        """Raises ValueError for a row that cannot be decoded."""
        table, row = self._found(index)
        try:  # one row alone, so that text that is no UTF-8 spoils no other
            return {name: table.column(name)[row].as_py() for name in table.column_names}
        except (UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"holds text that is not UTF-8 ({error}); write it again or remove the row") from None

    def preload(self, rows: np.ndarray, columns: Sequence[str]) -> np.ndarray:
        """Reads rows ahead in the order of the file, as far as KEPT_MB goes -> (rows,) int64: bytes of text of these
        columns; rows that cannot be decoded have 0, and so has a column that holds no text."""
        lengths = np.zeros(len(rows), np.int64)
        for i in np.argsort(rows):
            with suppress(ValueError):
                table, row = self._found(rows[i])
                values = (table.column(name)[row].as_py() for name in columns if name in table.column_names)
                lengths[i] = sum(map(_bytes_of_text, values))
        return lengths

    def _where(self, index: int) -> tuple[int, int, int]:
        """(row group, piece in it, row in that)."""
        group = int(np.searchsorted(self.ends, index, side="right"))
        return group, *divmod(index - int(self.starts[group]), int(self.piece_rows[group]))

    def _found(self, index: int) -> tuple[pyarrow.Table, int]:
        """(a piece, the row in it)."""
        group, piece, row = self._where(index)
        if (group, piece) not in self.kept:
            self.kept[group, piece] = table = self._decoded(group, piece)
            self.kept_bytes += table.nbytes
        self.kept.move_to_end((group, piece))
        while len(self.kept) > 2 and self.kept_bytes > KEPT_MB << 20:
            self.kept_bytes -= self.kept.popitem(last=False)[1].nbytes
        return self.kept[group, piece], row

    def _decoded(self, group: int, piece: int) -> pyarrow.Table:
        """Goes on where the group was left, or through it from its front."""
        at, pieces = self.reading.pop(group, (sys.maxsize, None))
        if at > piece:
            at, pieces = 0, self._pieces(group)
        table = next(islice(pieces, piece - at, None))
        self.reading[group] = piece if isinstance(table, str) else piece + 1, pieces
        if len(self.reading) > OPEN_GROUPS:
            self.reading.popitem(last=False)
        if isinstance(table, str):
            where = f"lies where row group {self.groups[group][1]} cannot be decoded"
            raise ValueError(f"{where} ({table}); write it again")
        return table

    def _pieces(self, group: int) -> Iterator[pyarrow.Table | str]:
        """A row group, piece by piece; from where it cannot be decoded on, again and again why."""
        (file, number), size = self.groups[group], int(self.piece_rows[group])
        columns = sorted(self.columns[file] & (self.wanted or self.columns[file]))
        options = {"metadata": self.footers[file], "buffer_size": 1 << 20, "page_checksum_verification": True}
        why, parts = "the file was changed", []  # parts of a piece: Arrow may cut it where a dictionary changes
        try:
            with ParquetFile(self.files[file], **options) as parquet:
                for batch in parquet.iter_batches(size, row_groups=[number], columns=columns, use_threads=False):
                    parts.append(batch)
                    if sum(part.num_rows for part in parts) == size:
                        yield pyarrow.Table.from_batches(parts)
                        parts = []
                if parts:
                    yield pyarrow.Table.from_batches(parts)
        except (OSError, pyarrow.ArrowException, MemoryError) as error:
            why = " ".join(str(error).split())[:200] or why
        while True:
            yield why
