"""Changes run folders at random, and sees that each is a sentence or a correct run.

    python -m tests.fuzz.run_folder --mutations=10000 --seed=0

Every change is of a fresh copy of a folder as a run leaves it (`tests.fuzz.folder`), which is then
taken up as launch.train, launch.control and launch.supervise do, but for TensorFlow's variables.
What may come of it:

    refused    a sentence, exit code 2
    the same   what is trained is what the untouched folder trains
    told       another training, and a person is told why: a damaged checkpoint set aside, a request
               refused, a flag that differs
    less       a file or lines of a list are gone as a whole, which is an earlier state of the run
    forged     checksums were made anew over another number that could be, as in another run's
               folder; it never moves the step, the place in the data, the plan or the end

Anything else fails: an error that is no sentence, another training without a word, a hang. The exit
code is 1 then, and `--only=NUMBER` repeats one change.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence

import tqdm

from tests.fuzz import folder
from tests.fuzz.mutate import mutate

KINDS = ("rolled back", "rollback", "ended")
_SECONDS = 60


class _HangsError(BaseException):
    """Raised wherever it hangs; nothing catches it on the way."""


GOOD = {"refused", "the same", "told", "less", "forged"}
# What a forged checksum cannot move.
FIXED = ("step", "plan", "finished", "to_evaluate")


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a change."""

    number: int
    change: str
    outcome: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether that may not be."""
        return self.outcome not in GOOD


def fuzz(numbers: Sequence[int], seed: int) -> Iterator[Result]:
    """Makes the changes with these numbers, one after the other."""
    loader = folder.Loader()
    with tempfile.TemporaryDirectory() as place:
        # Long as any other, so that a path never decides.
        templates = {kind: pathlib.Path(place) / f"t{n}" / "run" for n, kind in enumerate(KINDS)}
        run_dir, expected = pathlib.Path(place) / "copy" / "run", {}
        for kind, template in templates.items():
            template.parent.mkdir()
            folder.make(template, kind)
            run_dir.parent.mkdir(exist_ok=True)
            shutil.copytree(template, run_dir)
            expected[kind] = loader.load(run_dir)
            shutil.rmtree(run_dir)
        for number in numbers:
            random_ = random.Random(f"{seed} {number}")
            kind = random_.choice(KINDS)
            shutil.copytree(templates[kind], run_dir)
            change, sort = mutate(random_, run_dir)
            outcome, detail = _outcome(loader, run_dir, expected[kind], sort)
            yield Result(number, f"{kind}: {change}", outcome, detail)
            shutil.rmtree(run_dir, ignore_errors=True)


def _outcome(
    loader: folder.Loader, run_dir: pathlib.Path, expected: folder.Outcome, kind: str
) -> tuple[str, str]:
    def too_long(*_: object) -> None:
        raise _HangsError

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = loader.load(run_dir)
    except _HangsError:
        return "hangs", traceback.format_exc()
    except (ValueError, OSError) as error:
        text = str(error)
        whole = text.endswith(".") or isinstance(error, OSError) or "\n" in text
        # Nothing of another library, whose sentences name no file and no remedy.
        return ("refused" if whole and str(run_dir) in text else "no sentence"), text
    except Exception:
        return "a traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
    decides = folder.differing(expected.decides, found.decides)
    recalls = folder.differing(expected.recalls, found.recalls)
    if not decides and not recalls:
        return "the same", ""
    told = [line for line in found.told if line not in expected.told]
    if told:
        return "told", "; ".join(told)
    moved = [name for name in decides if name in FIXED]
    allowed = kind == "less" or (kind == "forged" and not moved)
    return kind if allowed else "another training, without a word", ", ".join([*decides, *recalls])


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args(argv)
    numbers = range(options.mutations) if options.only is None else [options.only]
    counts: collections.Counter[str] = collections.Counter()
    for result in tqdm.tqdm(fuzz(numbers, options.seed), total=len(numbers), mininterval=10):
        counts[result.outcome] += 1
        if result.failed or options.only is not None:
            print(f"{result.number}  {result.change}\n  {result.outcome}: {result.detail}\n")
    print("  ".join(f"{outcome}: {count:,}" for outcome, count in counts.most_common()))
    return int(not counts.keys() <= GOOD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
