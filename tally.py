"""What became of the rows of a training run: how many were of use, which were not, and why."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

import data
from processes import from_all, process_number

NAMED = 20  # bad rows of each reason that are named on the console
COUNTS = ("seen", "used", "too_long", "idle")
ENOUGH = 1000  # rows after which their share is taken for that of all


@dataclass
class Tally:
    """Of all processes, which all count the same. `state` goes into a run's checkpoints."""

    path: str
    rows: int  # of the data set
    data: list  # what tells it from another, or from what it was before somebody mended it
    max_rejects: float
    limit: str  # the flag that makes pairs too long
    seen: int = 0
    used: int = 0
    too_long: int = 0
    idle: int = 0  # good ones of steps that were not taken, as a process had none
    bad: dict[int, str] = field(default_factory=dict)  # row -> what is wrong with it, in few words

    @classmethod
    def of(cls, config, samples: data.Samples, limit: str, state: dict) -> "Tally":
        """state: that of a checkpoint, which may be an older one and know nothing of rows. Other data, or data that was
        mended since, are counted anew."""
        files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in samples.rows.files]
        about = [len(samples), *sorted(files)]
        same = state.get("data", about) == about
        known = {name: state[name] for name in (*COUNTS, "bad") if name in state and same}
        return cls(config.data, len(samples), about, config.max_rejects, limit, **known)

    def state(self) -> dict:
        return {"data": self.data, "bad": dict(self.bad)} | {name: getattr(self, name) for name in COUNTS}

    def add(self, used: int, too_long: int, bad: Sequence[tuple[int, str]]) -> list[int]:
        """Count this process' share of a batch -> how many rows each process can use. Bad rows are named on the
        console. Raises ValueError where too many cannot be used, or none at all."""
        shares = from_all((used, too_long, list(bad)))
        reasons = self.reasons()
        usable = [used for used, _, _ in shares]
        if min(usable):
            self.used += sum(usable)
        else:
            self.idle += sum(usable)
        for used, too_long, problems in shares:
            self.too_long += too_long
            self.seen += used + too_long + len(problems)
            for row, problem in problems:
                if row not in self.bad:
                    self.bad[row] = reason = data.reason_of(problem)
                    reasons[reason] += 1
                    self._name(problem, reasons[reason])
        known = min(self.seen, self.rows)  # after an epoch, all
        if known >= min(self.rows, ENOUGH):
            self._stop_where_hopeless(known)
        return usable

    def reasons(self) -> Counter:
        return Counter(self.bad.values())

    def metrics(self) -> dict[str, int]:
        counts = {f"bad_rows/{reason}": count for reason, count in sorted(self.reasons().items())}
        return {"bad_rows": len(self.bad), **counts}

    def end(self) -> str:
        """What to say of the rows in the end, "" where every one could be used. Raises ValueError where none was."""
        if self.seen:
            self._stop_where_hopeless(self.rows)
        bad = f", {len(self.bad)} of {self.rows} rows could not be used: {self._often(5)}" if self.bad else ""
        idle = f", {self.idle} times a row was left out with a step in which a process had none" if self.idle else ""
        return bad + (f", {self.too_long} pairs were too long" if self.too_long else "") + idle

    def _often(self, count: int) -> str:
        return "; ".join(f"{count} x {reason}" for reason, count in self.reasons().most_common(count))

    def _name(self, problem: str, number: int) -> None:
        if process_number()[0] == 0 and number <= NAMED:
            more = " (others like it are counted, and not named)" if number == NAMED else ""
            tqdm.write(f"left out: {problem}{more}", file=sys.stderr)

    def _stop_where_hopeless(self, known: int) -> None:
        if len(self.bad) > self.max_rejects * known:
            raise ValueError(
                f"{len(self.bad)} of {known} rows of {self.path} cannot be used, more than {self.max_rejects:.0%}: "
                f"{self._often(3)}. `python -m corpus inspect {self.path}` names them; mend "
                "them, or raise --max-rejects."
            )
        if not self.used:
            raise ValueError(
                f"None of {self.seen} rows of {self.path} could be used, {self.too_long} for having too many tokens; "
                f"raise {self.limit}, or make the pictures smaller."
            )
