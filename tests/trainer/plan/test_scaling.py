"""The model of a training on many workers: what moves, what a step takes, what failures leave."""

import dataclasses
import math

import numpy as np
import pytest

from trainer.plan.failures import Failures, best_interval, goodput, simulate
from trainer.plan.scaling import Site, efficiency, scaled
from trainer.plan.traffic import Link, link_of, moved_bytes, parts_gathered, rounds

DAY = 86_400.0
# A second of computing, 8 GB around the ring of 8 GB/s, at most.
SITE = Site(
    step_seconds=1.0,
    examples=100,
    replicas=1,
    gradients=4e9,
    exact=False,
    micro_batches=2,
    link=Link(0.001, 8e9),
    piece=math.inf,
    tree=False,
    reads=math.inf,
)
FAILURES = Failures(
    machine_mtbf=100 * DAY,
    rack=8,
    rack_mtbf=math.inf,
    spares=10_000,
    repair=DAY,
    restart=600.0,
    checkpoint_every=1_000.0,
    checkpoint_pause=20.0,
)


def ring(replicas: int, gathered: int) -> tuple[float, int]:
    """The bytes that one replica takes in, and the rounds, by sending parts of 1 byte around."""
    taken, turns = 0.0, 0
    if gathered:
        for _ in range(replicas - 1):  # each hands on what it was given
            taken, turns = taken + gathered, turns + 1
        return taken, turns
    for _ in range(2):  # to add up a part each, and to give out the sums
        for _ in range(replicas - 1):
            taken, turns = taken + 1 / replicas, turns + 1
    return taken, turns


@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
@pytest.mark.parametrize("gathered", [0, 1, 4])
def test_what_moves_is_what_goes_around_a_ring(replicas: int, gathered: int) -> None:
    taken, turns = ring(replicas, gathered)
    assert moved_bytes(1.0, replicas, gathered) == pytest.approx(taken)
    assert rounds(replicas, gathered) == turns


def test_parts_are_gathered_for_one_order_only() -> None:
    assert parts_gathered(False, 8, 4) == parts_gathered(True, 1, 4) == 0
    assert parts_gathered(True, 8, 4) == 1
    assert parts_gathered(True, 6, 4) == 4  # whose micro-batches are no subtrees


def test_a_link_is_found_by_two_exchanges() -> None:
    link = Link(0.002, 5e8)
    found = link_of((100.0, 0.002), (1e6, 0.002 + (1e6 - 100) / 5e8))
    assert found.latency == link.latency and found.bandwidth == pytest.approx(5e8)
    assert found.seconds(1e6) == pytest.approx(0.004)
    # The large one was no slower, by chance: it does not come out as endless.
    assert link_of((0.0, 0.002), (1e6, 0.001)).bandwidth == pytest.approx(1e6 / 0.0001)


def test_a_step_on_many_workers() -> None:
    one, four = scaled(SITE, 1), scaled(SITE, 4)
    assert one.seconds == 1.0 and one.moved == 0 and one.limit == ""
    assert four.moved == pytest.approx(2 * 3 / 4 * 4e9)
    assert four.exchange == pytest.approx(6 * 0.001 + 0.75)
    assert four.examples_per_second == pytest.approx(400 / 1.756)
    assert efficiency(SITE, 4) == pytest.approx(1 / 1.756)
    assert four.limit == "the exchange"
    exact = scaled(dataclasses.replace(SITE, exact=True), 4)
    assert exact.moved == 3 * 4e9 and exact.exchange == pytest.approx(3 * 0.001 + 1.5)
    assert scaled(dataclasses.replace(SITE, exact=True), 3).moved == 2 * 2 * 4e9
    # Those of a machine are in the ring, too, but not on the network between.
    both = scaled(dataclasses.replace(SITE, replicas=8), 4)
    assert both.moved == pytest.approx(2 * 31 / 32 * 4e9)
    assert both.exchange == pytest.approx(6 * 0.001 + both.moved / 8e9)
    assert both.examples == 400  # a worker's share is that of all its replicas
    alone = scaled(dataclasses.replace(SITE, replicas=8), 1)
    assert alone.moved == alone.exchange == 0
    assert scaled(dataclasses.replace(SITE, link=Link(0.0, 120e9)), 4).limit == ""  # a twentieth


def test_what_hides_behind_the_backward_pass_and_what_cannot() -> None:
    pieces = dataclasses.replace(SITE, piece=4e8)
    assert scaled(pieces, 4).exchange == pytest.approx(0.756 - 2 / 3)
    short = dataclasses.replace(pieces, link=Link(0.0, 80e9))
    assert scaled(short, 4).exchange == pytest.approx(0.075 / 10)  # the first layers' piece


def test_few_rounds_along_a_tree() -> None:
    far = dataclasses.replace(SITE, link=Link(0.001, 1e15))
    assert scaled(far, 1024).exchange == pytest.approx(2 * 1023 * 0.001, rel=1e-3)
    tree = dataclasses.replace(far, tree=True)
    assert scaled(tree, 1024).exchange == pytest.approx(2 * 10 * 0.001, rel=1e-2)
    assert scaled(tree, 2).exchange == pytest.approx(2 * 0.001, rel=1e-2)
    assert scaled(tree, 1000).exchange == pytest.approx(2 * 10 * 0.001, rel=1e-2)
    # What is gathered goes around the ring all the same.
    gathered = scaled(dataclasses.replace(tree, exact=True), 1024).exchange
    assert gathered == pytest.approx(1023 * 0.001, rel=1e-2)


def test_a_host_that_reads_too_little() -> None:
    slow = dataclasses.replace(SITE, reads=50.0)
    four = scaled(slow, 4)
    assert four.exchange == scaled(SITE, 4).exchange  # which goes on meanwhile
    assert four.seconds == 2.0 and four.limit == "reading"
    assert efficiency(slow, 4) == 1.0  # one worker waits as long
    assert scaled(dataclasses.replace(SITE, reads=101.0), 1).waits == 0


@pytest.mark.parametrize("workers", [1, 100, 1_000])
@pytest.mark.parametrize("rack_days", [math.inf, 50])
def test_the_simulation_comes_to_what_is_expected(workers: int, rack_days: float) -> None:
    failures = dataclasses.replace(FAILURES, rack_mtbf=rack_days * DAY)
    months = simulate(failures, workers, 30 * DAY, times=400)
    error = months.std() / math.sqrt(len(months))
    # A month begins without a restart and ends without a loss: half an interruption's, at most.
    edge = (failures.restart + failures.checkpoint_every) / (30 * DAY)
    assert abs(months.mean() - goodput(failures, workers)) < 4 * error + edge
    # It would not pass with another restart, or another rate of failures.
    if workers == 1_000:
        for other in ({"restart": 900.0}, {"machine_mtbf": 80 * DAY}, {"checkpoint_every": 1_500}):
            wrong = goodput(dataclasses.replace(failures, **other), workers)
            assert abs(months.mean() - wrong) > 4 * error + edge


def test_racks_that_fail_as_a_whole_need_more_spares() -> None:
    # As many interruptions a day, of one machine each or of eight at once.
    alone = dataclasses.replace(FAILURES, machine_mtbf=50 * DAY, spares=40)
    racks = dataclasses.replace(alone, machine_mtbf=1e6 * DAY, rack_mtbf=6.25 * DAY)
    assert racks.per_second(1_000) == pytest.approx(alone.per_second(1_000), rel=0.01)
    single, together = (simulate(f, 1_000, 30 * DAY, 50).mean() for f in (alone, racks))
    assert single > 0.7 and together < single / 2
    # Of a rack of which two machines take part, no more are lost.
    assert simulate(dataclasses.replace(racks, spares=2), 2, 30 * DAY, 20).mean() > 0.9


def test_where_no_spare_is_left_all_wait_for_the_repair() -> None:
    bare = dataclasses.replace(FAILURES, spares=0, repair=2 * DAY)
    months = simulate(bare, 100, 300 * DAY, 50)
    # A day of training, and two of repair, in turn.
    assert months.mean() == pytest.approx(1 / 3, rel=0.05)


def test_no_failures_lose_nothing_but_the_pauses() -> None:
    never = dataclasses.replace(FAILURES, machine_mtbf=math.inf)
    assert goodput(never, 100) == pytest.approx(1_000 / 1_020)
    assert simulate(never, 100, 30 * DAY, 2) == pytest.approx(1_000 / 1_020, rel=1e-3)


def test_what_is_not_saved_at_the_end_counts_but_no_pause_does() -> None:
    never = dataclasses.replace(FAILURES, machine_mtbf=math.inf)
    assert simulate(never, 100, 500.0, 1) == 1
    assert simulate(never, 100, 1_010.0, 1) == 1_000 / 1_010


def test_failures_without_end_leave_nothing() -> None:
    assert goodput(dataclasses.replace(FAILURES, machine_mtbf=DAY), 1_000_000) < 1e-9


def test_the_best_interval_is_better_than_its_neighbours() -> None:
    best = best_interval(FAILURES, 1_000)
    at = {
        factor: goodput(dataclasses.replace(FAILURES, checkpoint_every=factor * best), 1_000)
        for factor in (0.8, 1.0, 1.25)
    }
    assert at[1.0] > at[0.8] and at[1.0] > at[1.25]


def test_a_simulation_can_be_repeated() -> None:
    first, again = (simulate(FAILURES, 1_000, 30 * DAY, 5, seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, simulate(FAILURES, 1_000, 30 * DAY, 5, seed=4))
