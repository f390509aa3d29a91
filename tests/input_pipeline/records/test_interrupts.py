"""Ctrl-C where threads work: nothing hangs, nothing is left, nothing else happens to it."""

import pathlib
import signal
import threading
from typing import Any

import pytest

from input_pipeline.records import tfrecord_index
from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.records.tfrecord_index import open_index
from input_pipeline.records.tfrecord_writer import framed, write_tfrecords
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.verify import find_bad


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_is_held_until_the_end_and_a_second_one_is_not() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupt_held() as interrupted:
        reached.append(interrupted())
        press()
        reached.append(interrupted())
    assert reached == [False, True]
    with pytest.raises(KeyboardInterrupt), interrupt_held() as interrupted:
        press()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_fails_is_told_before_the_interrupt() -> None:
    with pytest.raises(ValueError, match="why"), interrupt_held():
        press()
        raise ValueError("why")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_someone_elses_handler_stays() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with interrupt_held() as interrupted:
            press()
            assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_another_thread_than_the_main_one_can_enter() -> None:
    seen = []

    def enter() -> None:
        with interrupt_held() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [False]


def test_records_are_no_longer_looked_at() -> None:
    source = open_source(DataSettings("digits"), "train")
    seen = []

    def looked_at(count: int) -> None:
        seen.append(count)
        press()

    with pytest.raises(KeyboardInterrupt):
        find_bad(source, looked_at)
    assert seen == [64]


def test_nothing_is_left_of_shards(tmp_path: pathlib.Path) -> None:
    source = open_source(DataSettings("digits"), "train")
    main, asked, lock = threading.main_thread().ident, [], threading.Lock()

    def written(count: int) -> None:
        with lock:
            asked.append(count)
            if len(asked) == 1:
                signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        write_tfrecords({"train": source, "eval": source}, tmp_path / "out", 2, written)
    assert sum(asked) < source.length
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_not_kept_in_part(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(tmp_path / f"{number}.tfrecord") for number in range(3)]
    for path in paths:
        pathlib.Path(path).write_bytes(framed(b"a record"))
    main, walk = threading.main_thread().ident, tfrecord_index._walk

    def press_and_walk(*arguments: Any) -> Any:
        signal.pthread_kill(main, signal.SIGINT)
        return walk(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tfrecord_index, "_walk", press_and_walk)
        open_index(paths[:1])
    assert sorted(map(str, tmp_path.iterdir())) == paths
    assert len(open_index(paths)) == 3
