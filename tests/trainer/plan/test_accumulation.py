"""`--accumulate=auto`: the fewest micro-batches that fit, whatever the number of devices."""

import pytest

from trainer.plan.micro_batches import count_micro_batches
from trainer.plan.settings import DeviceSettings


def settings(batch: int, accumulate: int | None, most: int) -> DeviceSettings:
    return DeviceSettings("cpu", None, batch, accumulate, max_replica_batch=most)


@pytest.mark.parametrize(
    ("batch", "replicas", "most", "expected"),
    [
        (256, 1, 64, 4),
        (256, 2, 64, 2),
        (256, 4, 64, 1),
        (256, 8, 64, 1),
        (96, 2, 20, 3),  # 48 in 3 × 16; 2 × 24 is too many
        (96, 2, 5, 12),  # 48 in 12 × 4; 10 does not divide
        (14, 2, 4, 7),  # 7 is prime
        (64, 1, 1, 64),
    ],
)
def test_auto_takes_the_fewest_that_divide_and_fit(
    batch: int, replicas: int, most: int, expected: int
) -> None:
    count, because = count_micro_batches(settings(batch, None, most), replicas)
    assert count == expected
    assert because == f"{expected} micro-batches, the fewest of at most {most} examples (auto)"


def test_a_given_number_is_kept_and_checked() -> None:
    assert count_micro_batches(settings(64, 4, 0), 2) == (4, "")
    assert count_micro_batches(settings(64, 4, 8), 2) == (4, "")
    with pytest.raises(ValueError, match=r"--max_replica_batch=7, .* 8 examples .*=auto"):
        count_micro_batches(settings(64, 4, 7), 2)


def test_a_batch_that_does_not_divide_by_the_replicas_is_left_to_be_told_so() -> None:
    assert count_micro_batches(settings(65, None, 8), 2)[0] == 1
