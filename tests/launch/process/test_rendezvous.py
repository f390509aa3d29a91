"""Workers meet: who is missing, cannot be reached or means something else is named to all."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from launch.cluster import free_ports
from launch.process.cli import TryAgainError
from launch.process.rendezvous import check_same, meet
from trainer.plan.cluster import Cluster

FACTS = {"--seed": 0, "the plan's dataset": {"name": "digits", "image_shape": (8, 8, 1)}}


def cluster_of(workers: int) -> list[Cluster]:
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(workers))
    return [Cluster(addresses, index, "the test") for index in range(workers)]


def gathered(*calls: Callable[[], Any]) -> list[Any]:
    """What each call comes to, an exception too, all at the same time."""
    found: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            found[place] = calls[place]()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def meeting(
    cluster: Cluster, facts: Mapping[str, Any] = FACTS, seconds: float = 20.0, after: float = 0.0
) -> Callable[[], Any]:
    def join() -> Any:
        time.sleep(after)
        return meet(cluster, facts, {"step": 40}, seconds, say=lambda line: None)

    return join


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("late", [0, 1])
def test_all_hear_what_the_chief_tells(workers: int, late: int) -> None:
    workers_calls = [
        meeting(cluster, after=0.5 * (cluster.index == late)) for cluster in cluster_of(workers)
    ]
    assert gathered(*workers_calls) == [{"step": 40}] * workers


@pytest.mark.parametrize("there", [0, 1])
def test_who_is_missing_is_named(there: int) -> None:
    cluster = cluster_of(3)[there]
    (error,) = gathered(meeting(cluster, seconds=0.5))
    assert isinstance(error, TryAgainError)
    missing = [n for n in range(3) if n != there] if there == 0 else [0]
    assert all(cluster.name(n) in str(error) for n in missing)


def test_the_others_hear_who_is_missing() -> None:
    first, second, third = cluster_of(3)
    errors = gathered(meeting(first, seconds=1.0), meeting(second, seconds=5.0))
    assert all(isinstance(error, TryAgainError) for error in errors)
    assert all(third.name(2) in str(error) for error in errors)


def test_what_differs_is_named_to_all() -> None:
    first, second = cluster_of(2)
    other = {**FACTS, "the plan's dataset": {"name": "digits", "image_shape": (9, 9, 1)}}
    errors = gathered(meeting(first), meeting(second, other))
    assert [type(error) for error in errors] == [ValueError, ValueError]
    for error in errors:
        assert "the plan's dataset: image_shape is [9, 9, 1] on worker 1" in str(error)
        assert "and [8, 8, 1] on worker 0" in str(error)


def test_a_fact_that_one_lacks_differs() -> None:
    (first, _) = cluster_of(2)
    for ours, theirs in ((FACTS, {}), ({}, json.loads(json.dumps(FACTS)))):
        with pytest.raises(ValueError, match="--seed is"):
            check_same(first, 1, ours, theirs)


def test_a_port_that_is_taken_is_waited_for() -> None:
    first, second = cluster_of(2)
    port = int(first.addresses[0].rpartition(":")[2])
    taken = socket.create_server(("127.0.0.1", port))
    threading.Timer(0.5, taken.close).start()
    assert gathered(meeting(first), meeting(second)) == [{"step": 40}] * 2
    with socket.create_server(("127.0.0.1", port)):
        (error,) = gathered(meeting(first, seconds=0.3))
        assert isinstance(error, TryAgainError) and "cannot be taken" in str(error)


def test_another_machines_address_is_an_error() -> None:
    elsewhere = Cluster(("192.0.2.1:2222", "192.0.2.2:2222"), 0, "the test")
    (error,) = gathered(meeting(elsewhere, seconds=0.3))
    assert isinstance(error, TryAgainError) and "no such address" in str(error)


def test_one_that_comes_again_takes_its_own_place() -> None:
    first, second, third = cluster_of(3)
    port = int(first.addresses[0].rpartition(":")[2])

    def ended() -> None:
        """The second worker, which is killed while it waits."""
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(json.dumps({"index": 1, "facts": FACTS}).encode() + b"\n")
            time.sleep(0.3)

    found = gathered(meeting(first), ended, meeting(second, after=1.0), meeting(third, after=2.0))
    assert found == [{"step": 40}, None, {"step": 40}, {"step": 40}]


def test_strangers_are_not_taken_for_workers() -> None:
    first, second = cluster_of(2)
    port = int(first.addresses[0].rpartition(":")[2])

    def stranger() -> None:
        time.sleep(0.2)
        for said in (b"GET / HTTP/1.1", b"[1]", b'{"index": 1}', b'{"index": [1], "facts": {}}'):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(said + b"\n")

    found = gathered(meeting(first), stranger, meeting(second, after=0.6))
    assert found == [{"step": 40}, None, {"step": 40}]
