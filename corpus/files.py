"""What a parquet data set says of itself before its rows are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData


def parquet_footers(path: str | Path, files: Sequence[Path]) -> tuple[set[str], list["FileMetaData"]]:
    """(columns, footer of each file) of the data set `path`, of which nothing else is read.

    Raises ValueError for a file that is no parquet, for files of different columns, and for a set without rows."""
    import pyarrow
    import pyarrow.parquet

    footers, columns = [], None
    for file in files:
        try:
            footers.append(pyarrow.parquet.read_metadata(file))
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{file} is no readable parquet file ({error}); write or download it again") from None
        names = set(footers[-1].schema.to_arrow_schema().names)
        if columns not in (None, names):
            raise ValueError(f"{file} has other columns than {files[0].name}; load the two kinds separately")
        columns = names
    if not sum(footer.num_rows for footer in footers):
        raise ValueError(f"{path} has no rows; write it again")
    return columns, footers
