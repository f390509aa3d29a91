"""Workers meet: who is missing, cannot be reached or means something else is named to all."""

import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from launch.cluster import free_ports
from launch.process import rendezvous
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
        nested = b"[" * 100_000
        of_nobody = (b'{"index": 1}', b'{"index": [1], "facts": {}}')
        for said in (b"GET / HTTP/1.1", b"[1]", nested, *of_nobody):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(said + b"\n")

    found = gathered(meeting(first), stranger, meeting(second, after=0.6))
    assert found == [{"step": 40}, None, {"step": 40}]


def test_one_that_sends_without_end_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_MOST_BYTES", 1_000)
    first, second = cluster_of(2)
    port = int(first.addresses[0].rpartition(":")[2])
    done = threading.Event()

    def endless() -> None:
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"x" * 2_000)
            done.wait(30)

    def worker() -> Any:
        try:
            return meeting(second, after=0.4)()
        finally:
            done.set()

    began = time.monotonic()
    assert gathered(meeting(first), endless, worker)[::2] == [{"step": 40}] * 2
    assert time.monotonic() - began < 4  # as long as another one would be waited for: 5 s


def test_one_that_another_cannot_reach_is_named_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = cluster_of(3)
    nowhere = dataclasses.replace(second, addresses=(*second.addresses[:2], "127.0.0.1:1"))
    for error in gathered(meeting(first), meeting(nowhere), meeting(third)):
        assert isinstance(error, TryAgainError)
        assert f"{first.name(1)} cannot reach {first.name(2)}; see" in str(error)
    # The chief's last word is waited for while another one still tries.
    first, second, third = cluster_of(3)
    reached = rendezvous._reached

    def slowly(address: str) -> bool:
        time.sleep(0.5 * (address == first.addresses[1]))
        return reached(address)

    monkeypatch.setattr(rendezvous, "_reached", slowly)
    assert gathered(*map(meeting, (first, second, third))) == [{"step": 40}] * 3


def test_one_that_goes_after_it_has_heard_is_named() -> None:
    first, second = cluster_of(2)
    port = int(first.addresses[0].rpartition(":")[2])

    def goes() -> None:
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(json.dumps({"index": 1, "facts": FACTS}).encode() + b"\n")
            connection.recv(1_000)

    error, _ = gathered(meeting(first), goes)
    assert isinstance(error, TryAgainError) and f"{second.name(1)} has gone" in str(error)


def test_who_is_waited_for_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_QUIET_SECONDS", 0.1)
    first, second = cluster_of(2)
    said: list[str] = []
    told = gathered(
        lambda: meet(first, FACTS, {"step": 40}, 20.0, said.append), meeting(second, after=1.2)
    )
    assert told == [{"step": 40}] * 2 and said == [f"waiting for {first.name(1)}"]


def test_a_name_may_come_to_be_known_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cluster_of(2)
    known, asked = socket.getaddrinfo, []

    def later(*arguments: Any, **more: Any) -> Any:
        asked.append(arguments)
        if len(asked) < 3:
            raise socket.gaierror(-2, "Name or service not known")
        return known(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", later)
    assert gathered(meeting(first), meeting(second, after=1.0)) == [{"step": 40}] * 2
    asked.clear()
    (error,) = gathered(meeting(first, seconds=0.0))
    assert isinstance(error, TryAgainError) and "the name 127.0.0.1 is not known" in str(error)


def test_addresses_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    addresses = tuple(f"[::1]:{port}" for port in free_ports(2))
    workers = [Cluster(addresses, index, "the test") for index in range(2)]
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert gathered(*map(meeting, workers)) == [{"step": 40}] * 2


def test_a_long_fact_is_shortened() -> None:
    (first, _) = cluster_of(2)
    with pytest.raises(ValueError, match=f"--a is {'x' * 77}… on .* and null on"):
        check_same(first, 1, {}, {"--a": "x" * 81})
    with pytest.raises(ValueError, match=f"--a is {'x' * 80} on"):
        check_same(first, 1, {}, {"--a": "x" * 80})
