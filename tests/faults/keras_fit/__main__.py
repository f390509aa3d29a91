"""The same kills on Keras `fit` with `BackupAndRestore`: what differs in the end.

    python -m tests.faults.keras_fit --kills=300 --out=DIR

The stories are those of `tests.faults`: the same places (`tests.faults.keras_fit.places` says what
they are in Keras), numbers of replicas and order; model, data and batch are theirs, and the backup
is made as often as a checkpoint there. When a start ends in a traceback the backup is removed, as a
person would, and it goes on. `undisturbed twice` compares two runs that were not killed.

Prints a table by number of replicas and place of the kill. A story with kills at several places is
in the row of each, but for the starts that were refused: those are in that of the last kill before.
A run whose backup is gone, by hand or since `fit` had ended and removed it, trains from scratch:
then its weights are right again, whatever had become of them before, and only the log shows it.
Every story that has ended is a file in DIR, and the same command goes on from there.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
from collections import defaultdict
from collections.abc import Sequence

from tqdm import tqdm

from tests.faults.keras_fit.places import KERAS_PLACES
from tests.faults.keras_fit.story import Differences, KerasStory, tell, undisturbed
from tests.faults.plan import REPLICAS, Planned, plan_stories, tell_rounds
from tests.faults.story import plan_kills
from trainer.files.whole_files import read_json, write_json

COLUMNS = (
    *("kills", "starts refused", "stuck", "runs", "with other weights", "examples lost"),
    *("examples repeated", "updates beyond", "updates below", "epochs missing in the log"),
    *("epochs repeated", "worst relative difference", "failed"),
)
CONTROL, ALL = "undisturbed twice", "anywhere"


def _outcome(story: KerasStory) -> list[float]:
    """The columns from `stuck` on."""
    d = story.differences or Differences(0, 0.0, 0, 0, 0, 0, 0, 0)
    counts = [d.lost, d.repeated, d.beyond, d.below, d.rows_missing, d.rows_repeated]
    return [story.stuck, 1, d.bits > 0, *counts, d.relative, bool(story.error)]


def _added(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The sums, but for the worst relative difference."""
    sums = [x + y for x, y in zip(a, b, strict=True)]
    sums[-2] = max(a[-2], b[-2])
    return sums


def table(stories: Sequence[KerasStory]) -> str:
    """By number of replicas and place: kills, and what differs in the stories that have such."""
    rows: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0] * len(COLUMNS))
    for story in stories:
        places = [struck.kill.place for struck in story.struck]
        refused = [places[number] if number >= 0 else "" for number in story.refused]
        keys = [(str(story.replicas), place) for place in {*places} or {CONTROL}]
        for key in [*keys, ("all", ALL if places else CONTROL)]:
            whole = key[1] in (ALL, CONTROL)
            kills = len(places) if whole else places.count(key[1])
            starts = len(refused) if whole else refused.count(key[1])
            rows[key] = _added(rows[key], [kills, starts, *_outcome(story)])
    order = [*KERAS_PLACES, CONTROL, ALL]
    lines = ["| replicas | killed | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---" * (2 + len(COLUMNS)) + "|")
    keyed = sorted(rows, key=lambda k: (k[0], order.index(k[1])))
    lines += [f"| {' | '.join(k)} | {' | '.join(f'{n:.4g}' for n in rows[k])} |" for k in keyed]
    return "\n".join(lines)


def _told_once(out: pathlib.Path, story: Planned, seed: int) -> KerasStory:
    path, reference = out / f"{story.name}.json", out / f"undisturbed-{story.replicas}"
    if not path.exists():
        seconds = undisturbed(reference, story.replicas)
        kills = plan_kills(story.places, f"{seed} {story.name}", seconds, KERAS_PLACES)
        told = tell(out / story.name, reference, story.replicas, kills)
        write_json(path, dataclasses.asdict(told))
    return KerasStory.from_json(read_json(path))


def main(argv: Sequence[str]) -> int:
    """Tells the stories and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results")
    parser.add_argument("--seed", type=int, default=0, help="of places and moments")
    parser.add_argument("--at_once", type=int, default=os.cpu_count(), help="stories")
    given = parser.parse_args(argv)
    out, seed = given.out.resolve(), given.seed
    # One after the other: several stories have the same.
    for replicas in REPLICAS:
        undisturbed(out / f"undisturbed-{replicas}", replicas)
    controls = [Planned(f"control-{replicas}", replicas, ()) for replicas in REPLICAS]
    stories = [*controls, *plan_stories(given.kills, seed)]
    with tqdm(total=given.kills, unit="kill", disable=None) as progress:
        told = tell_rounds(
            stories, lambda story: _told_once(out, story, seed), given.at_once, progress.update
        )
    print(table(told))
    missed = sum(len(story.missed) for story in told)
    print(f"\n{missed} kills came to nothing, since their runs did not meet their places again.")
    for story in told:
        if story.error:
            print(f"\n{story.name}, kept in {out / story.name}:\n{story.error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
