"""Kills real training processes and compares what comes out with the undisturbed run.

    python -m tests.faults --kills=300 --out=DIR

Prints a table by number of replicas and place of the kill; the exit code is 1 if anything differs.
Every story that has ended is a file in DIR, and the same command goes on from there. A story that
fails leaves its run in DIR, and `--only=NAME` repeats it with the same kills.
"""

import argparse
import os
import pathlib
import sys
from collections import defaultdict
from collections.abc import Sequence

from tqdm import tqdm

from tests.faults.aim import PLACES
from tests.faults.plan import REPLICAS, plan_stories, tell_all
from tests.faults.recipes import RECIPES
from tests.faults.story import Story

COLUMNS = ("differing bits", "ids lost", "ids repeated", "rows missing", "rows repeated", "other")


def table(stories: Sequence[Story]) -> str:
    """By number of replicas and place: kills, and what differs in the stories that have such."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 9)
    for story in stories:
        differences = story.differences
        found = [0] * 6 if differences is None else differences.counts()
        tallies: dict[tuple[str, str], int] = defaultdict(int)
        for struck in story.struck:
            tallies[str(struck.replicas), struck.kill.place] += 1
        for key, kills in [
            *tallies.items(),
            (("all", "anywhere"), len(story.struck)),
        ]:
            # Every kill is followed by a start; the last of them ends the story.
            added = [kills, kills, *found, bool(story.error)]
            rows[key] = [a + b for a, b in zip(rows[key], added, strict=True)]
    order = list(PLACES)
    lines = ["| replicas | killed | kills | restarts | " + " | ".join((*COLUMNS, "failed")) + " |"]
    lines.append("|---" * 11 + "|")
    keyed = sorted(rows, key=lambda k: (k[0], order.index(k[1]) if k[1] in order else -1))
    lines += [f"| {k[0]} | {k[1]} | " + " | ".join(map(str, rows[k])) + " |" for k in keyed]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Tells the stories and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results")
    parser.add_argument("--seed", type=int, default=0, help="of places and moments")
    parser.add_argument("--only", default="", help="the name of a story")
    parser.add_argument("--at_once", type=int, default=os.cpu_count(), help="stories")
    parser.add_argument("--recipe", choices=RECIPES, default="classes", help="what is trained")
    given = parser.parse_args(argv)
    out, recipe = given.out.resolve(), RECIPES[given.recipe]
    first = [n for n in REPLICAS if n in recipe.replicas]
    stories = plan_stories(given.kills, given.seed, first)
    wanted = [story for story in stories if given.only in ("", story.name)]
    with tqdm(total=given.kills, unit="kill", disable=None) as progress:
        told = tell_all(out, wanted, given.seed, given.at_once, progress.update, recipe)
    print(table(told))
    bad = [story for story in told if story.failed()]
    for story in bad:
        print(f"\n{story.name}, kept in {out / story.name}:\n{story.error or story.differences}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
