"""`--micro_batch`: what a replica takes at a time, and the replicas that can share a batch."""

import re

import pytest

from trainer.plan.dataset import DatasetFacts
from trainer.plan.micro_batches import size_of_micro_batch
from trainer.plan.settings import DeviceSettings

FACTS = DatasetFacts("own", 1437, 360, 10, (8, 8, 1))


def size(batch: int, micro_batch: int, replicas: int) -> int:
    return size_of_micro_batch(DeviceSettings("cpu", None, batch, micro_batch), FACTS, replicas)


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_the_size_that_is_given_holds_on_any_number_of_replicas(replicas: int) -> None:
    assert size(128, 16, replicas) == 16


@pytest.mark.parametrize(("replicas", "share"), [(1, 96), (2, 48), (3, 32), (96, 1)])
def test_left_out_it_is_a_replicas_share(replicas: int, share: int) -> None:
    assert size(96, 0, replicas) == share


@pytest.mark.parametrize(
    ("micro_batch", "nearest"),
    [(7, "6 or 8"), (5, "4 or 6"), (50, "48 or 96"), (95, "48 or 96"), (97, "96"), (5000, "96")],
)
def test_a_size_that_does_not_divide_names_the_nearest_that_do(
    micro_batch: int, nearest: str
) -> None:
    with pytest.raises(
        ValueError, match=f"--micro_batch={micro_batch} .*; use {nearest}, the near"
    ):
        size(96, micro_batch, 1)
    for each in nearest.split(" or "):
        assert size(96, int(each), 1) == int(each)


def test_the_nearest_sizes_are_those_that_the_replicas_can_share() -> None:
    """16 divides 48, too, but four replicas would have three of them."""
    with pytest.raises(ValueError, match="use 6 or 12, the nearest"):
        size(48, 10, 4)
    assert size(48, 12, 4) == 12
    assert size(48, 6, 4) == 6


@pytest.mark.parametrize(
    ("batch", "micro_batch", "replicas", "allowed"),
    [(128, 16, 3, "1, 2, 4 or 8"), (96, 8, 5, "1, 2, 3, 4, 6 or 12"), (64, 64, 2, "1")],
)
def test_replicas_that_cannot_share_are_told_how_many_can(
    batch: int, micro_batch: int, replicas: int, allowed: str
) -> None:
    count = batch // micro_batch
    plural = "es" if count > 1 else ""
    said = f"is {count} micro-batch{plural} of {micro_batch}, .*use {allowed} of them"
    with pytest.raises(ValueError, match=said):
        size(batch, micro_batch, replicas)
    for each in re.findall(r"\d+", allowed):
        assert size(batch, micro_batch, int(each)) == micro_batch


def test_replicas_that_cannot_share_are_told_another_size_where_there_is_one() -> None:
    with pytest.raises(
        ValueError, match="use 1, 2 or 4 of them, or a --micro_batch that divides 6"
    ):
        size(48, 12, 8)
    assert size(48, 6, 8) == size(48, 3, 8) * 2 == 6
    with pytest.raises(ValueError, match=r"of them\.$"):
        size(48, 12, 5)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "replicas", "most"), [(2000, 0, 2, 1436), (2000, 16, 4, 1408)]
)
def test_a_batch_of_more_than_an_epoch_is_told_the_most_that_divides(
    batch: int, micro_batch: int, replicas: int, most: int
) -> None:
    with pytest.raises(ValueError, match=f"--global_batch={batch} .*at most {most}"):
        size(batch, micro_batch, replicas)
    size(most, micro_batch, replicas)


def test_a_batch_that_does_not_divide_by_the_replicas_names_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"--global_batch=65 .* 2 replicas; use 64 or 66, the near"
    ):
        size(65, 0, 2)
