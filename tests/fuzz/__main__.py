"""Long fuzzing: `python -m tests.fuzz --trials 2000 --seed 0 [--kinds NAME …] [--out FILE]`.

Trial number n of a seed is the same whatever else is run: `--only n` repeats it, with the command's output. Prints how
many trials of each kind had which outcome, and one line per wrong one; `--out` takes all of them as JSON, a line each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tqdm import tqdm

from tests.fuzz.kinds import KINDS
from tests.fuzz.outcomes import RIGHT, WRONG
from tests.fuzz.trials import LIMIT_S, Bench, Report, Trial


def main() -> int:
    """Run the trials; the exit status is 1 where one was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Spoil a finished run and read it.")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of trials to repeat")
    parser.add_argument("--kinds", nargs="*", default=[], help="kinds of artefact; all if not given")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds after which a command hangs")
    parser.add_argument("--out", type=Path, help="file for all reports, a JSON object a line")
    options = parser.parse_args()
    kinds = tuple(kind for kind in KINDS if not options.kinds or kind.name in options.kinds)
    numbers = options.only or range(options.first, options.first + options.trials)
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    wrong: list[tuple[int, Report]] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        bench = Bench(Path(folder) / "bench")
        for number in tqdm(numbers, unit="trial"):
            trial = drawn(number, options.seed)
            if trial.kind not in counts:
                continue
            report = bench.try_out(trial, options.limit_s)
            counts[report.trial.kind][report.verdict.outcome] += 1
            if not report.verdict.is_right:
                wrong.append((number, report))
                tqdm.write(f"{number} {report}")
            if options.only:
                tqdm.write(f"{number} {report}\n{bench.output()}")
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps({"number": number, "seed": options.seed, **report.to_json()}) + "\n")
    n_tried = sum(sum(count.values()) for count in counts.values())
    sys.stdout.write(f"{table(counts)}\n{len(wrong)} of {n_tried} trials were wrong\n")
    return 1 if wrong else 0


def drawn(number: int, seed: int) -> Trial:
    """Trial `number` of a seed."""
    return Trial.draw(Random(f"{seed}/{number}"))


def table(counts: dict[str, Counter[str]]) -> str:
    """Counts per kind and outcome, as far as there are any."""
    shown = [outcome for outcome in (*RIGHT, *WRONG) if any(count[outcome] for count in counts.values())]
    width = max(map(len, counts))
    lines = [f"{'':<{width}}  " + "  ".join(shown)]
    rows = [*counts.items(), ("all", sum(counts.values(), Counter[str]()))]
    lines += [f"{name:<{width}}  " + "  ".join(f"{count[o]:>{len(o)}}" for o in shown) for name, count in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
