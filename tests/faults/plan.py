"""Which stories are told: where their runs are killed, in a random order."""

import dataclasses
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from tests.faults.aim import PLACES, Kill
from tests.faults.recipes import RECIPES, Recipe
from tests.faults.story import Story, Struck, plan_kills, tell, undisturbed
from trainer.files.whole_files import read_json, write_json

REPLICAS = (1, 2, 4)
CLASSES = RECIPES["classes"]
RANDOM = 8  # cards of a deck that say "at any time", beside one for every other place
MOST_ROUNDS = 6  # no place is missed so often


class Told(Protocol):
    """What became of a story that was planned."""

    @property
    def struck(self) -> Sequence[Struck]: ...  # the kills that were carried out

    @property
    def missed(self) -> Sequence[Kill]: ...  # and those that were not


T = TypeVar("T", bound=Told)


@dataclasses.dataclass(frozen=True)
class Planned:
    """A story that is to be told: where the run is killed, in this order if it can be."""

    name: str
    replicas: int  # that it begins with
    places: tuple[str, ...]


def plan_stories(kills: int, seed: int, numbers: Sequence[int] = REPLICAS) -> list[Planned]:
    """Stories of `kills` kills in all, as many for each of these numbers of replicas to begin with.

    Of every 20 each number gets its share: of three six or seven.
    """
    draw, stories = random.Random(seed), []
    for deck in range(-(-kills // (len(PLACES) - 1 + RANDOM))):
        cards = [*PLACES, *["at any time"] * (RANDOM - 1)]
        draw.shuffle(cards)
        for turn, replicas in enumerate(numbers):
            # The place of the first card turns, so that every place meets every number.
            dealt = cards[(turn + deck) % len(numbers) :: len(numbers)]
            stories.append(Planned(f"{deck:03}-{replicas}", replicas, tuple(dealt)))
    return _at_most(stories, kills)


def missed_stories(stories: Sequence[Planned], told: Mapping[str, Told]) -> list[Planned]:
    """Stories of the kills that came to nothing since their runs had finished before."""
    again = []
    for story in stories:
        missed = tuple(kill.place for kill in told[story.name].missed)
        if missed:
            # The first was waited for to the end, and kept the others from their turn.
            missed = (*missed[1:], missed[0])
            again.append(Planned(f"{story.name}+", story.replicas, missed))
    return again


def _at_most(stories: Sequence[Planned], kills: int) -> list[Planned]:
    kept = []
    for story in stories:
        places = story.places[:kills]
        kills -= len(places)
        if places:
            kept.append(dataclasses.replace(story, places=places))
    return kept


def tell_all(
    out: pathlib.Path,
    stories: Sequence[Planned],
    seed: int,
    at_once: int = 1,
    struck: Callable[[int], object] = lambda kills: None,
    recipe: Recipe = CLASSES,
) -> list[Story]:
    """Tells the stories, several at once, and those of the kills that were missed.

    Args:
      out: a folder; stories that it has the results of are not told again.
      struck: is told how many kills a story had.
    """
    undisturbed(out / "undisturbed", recipe)  # before there are several at once
    return tell_rounds(stories, lambda story: _told_once(out, story, seed, recipe), at_once, struck)


def tell_rounds(
    stories: Sequence[Planned],
    tell_once: Callable[[Planned], T],
    at_once: int,
    struck: Callable[[int], object],
) -> list[T]:
    """Tells the stories, and as often as need be those of the kills that were missed.

    Args:
      tell_once: tells one, in a thread of its own.
      at_once: how many are told at the same time.
      struck: is told how many kills a story had.
    """

    def one(story: Planned) -> T:
        told = tell_once(story)
        struck(len(told.struck))
        return told

    all_told: list[T] = []
    for _ in range(MOST_ROUNDS):
        with ThreadPoolExecutor(at_once) as pool:
            told = {
                story.name: result
                for story, result in zip(stories, pool.map(one, stories), strict=True)
            }
        all_told += told.values()
        stories = missed_stories(stories, told)
        if not stories:
            break
    return all_told


def _told_once(out: pathlib.Path, story: Planned, seed: int, recipe: Recipe) -> Story:
    path, reference = out / f"{story.name}.json", out / "undisturbed"
    if not path.exists():
        kills = plan_kills(story.places, f"{seed} {story.name}", undisturbed(reference, recipe))
        told = tell(out / story.name, reference, recipe, story.replicas, kills)
        write_json(path, dataclasses.asdict(told))
    return Story.from_json(read_json(path))
