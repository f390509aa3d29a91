"""The index of TFRecord files, kept and checked, and reading by it."""

import gzip
import os
import struct
import subprocess
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.records.open_files import kept_paths
from input_pipeline.records.tf_example import describe_features, read_example, write_example
from input_pipeline.records.tfrecord_index import masked_crc, open_index
from input_pipeline.records.tfrecord_reader import TFRecordReader
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_sources

CONTENTS = [[b"", b"one", b"x" * 50_000], [], [b"two"], []]
INDEX = ".lockstep-index-*.npy"


def write(path: str | Path, records: Sequence[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_all(folder: str | Path) -> list[str]:
    return [write(f"{folder}/{n}.tfrecord", records) for n, records in enumerate(CONTENTS)]


def read(paths: Sequence[str], records: Sequence[int]) -> list[bytes]:
    return list(TFRecordReader(open_index(paths)).records(np.array(records)))


def test_any_record_of_any_file_as_tensorflow_wrote_it(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    index = open_index(paths)
    assert len(index) == 4
    assert read(paths, [3, 0, 2, 1, 3]) == [b"two", b"", b"x" * 50_000, b"one", b"two"]
    assert index.describe(1) == f"{paths[0]}, record at byte 16"
    assert index.describe(3) == f"{paths[2]}, record at byte 0"


def test_many_small_records_in_chunks_that_cut_their_headers(tmp_path: Path) -> None:
    records = [bytes([n % 256]) * (n % 97) for n in range(5000)]
    path = write(tmp_path / "many.tfrecord", records)
    assert read([path], range(5000)) == records


def test_the_kept_index_is_mapped_and_taken_again(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    built = open_index(paths)
    (file,) = tmp_path.glob(INDEX)
    (tmp_path / "plain").touch()  # others may read the index as they may any file
    assert built.kept == file and file.stat().st_mode == (tmp_path / "plain").stat().st_mode
    before = file.stat()
    taken = open_index(paths)
    assert isinstance(taken.starts.base.base, np.memmap)
    assert np.array_equal(taken.starts, built.starts)
    assert np.array_equal(taken.bounds, built.bounds)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list(tmp_path.glob(".writing-*"))


def test_the_kept_index_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write_all(tmp_path / "here")
    open_index(sorted(map(str, (tmp_path / "here").glob("*.tfrecord"))))
    (tmp_path / "here").rename(tmp_path / "there")
    (file,) = (tmp_path / "there").glob(INDEX)
    before = file.stat().st_ino
    moved = open_index(sorted(map(str, (tmp_path / "there").glob("*.tfrecord"))))
    assert moved.kept == file and file.stat().st_ino == before


def test_the_index_is_built_anew_when_a_file_changed(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    open_index(paths)
    write(paths[1], [b"new"])
    assert read(paths, [3, 4]) == [b"new", b"two"]
    # Of the same size, with other records in it: only the time tells, on any file system.
    size, time = os.path.getsize(paths[0]), os.stat(paths[0]).st_mtime_ns
    write(paths[0], [b"x" * 50_000, b"one", b""])
    os.utime(paths[0], ns=(time + 2 * 10**9, time + 2 * 10**9))
    assert os.path.getsize(paths[0]) == size
    assert read(paths, [1, 2]) == [b"one", b""]
    (file,) = tmp_path.glob(INDEX)
    stamp = open_index(paths).stamp
    os.utime(paths[0], ns=(1, 1))
    assert open_index(paths).stamp != stamp
    assert list(tmp_path.glob(INDEX)) == [file]


def test_a_damaged_kept_index_is_built_anew(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    open_index(paths)
    (file,) = tmp_path.glob(INDEX)
    for content in (b"", b"\x93NUMPY rubbish", file.read_bytes()[:140]):
        file.write_bytes(content)
        assert read(paths, [1, 3]) == [b"one", b"two"]
        assert len(open_index(paths)) == 4


def test_where_the_folder_cannot_be_written_the_cache_keeps_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    paths = write_all(tmp_path / "data")
    # A folder in the file's place stands for one that is read-only: root may write anywhere.
    kept_paths(paths, ".lockstep-index-{}.npy")[0].mkdir()
    kept = open_index(paths).kept
    assert kept is not None and kept.parent == tmp_path / "cache" / "lockstep"
    assert open_index(paths).kept == kept
    assert read(paths, [1]) == [b"one"]
    # Another folder with files of the same names has an index of its own there.
    (tmp_path / "other").mkdir()
    others = write_all(tmp_path / "other")
    kept_paths(others, ".lockstep-index-{}.npy")[0].mkdir()
    assert open_index(others).kept != kept


def test_several_may_build_the_same_index_at_once(tmp_path: Path) -> None:
    records = [bytes(7)] * 20_000
    path = write(tmp_path / "many.tfrecord", records)
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(open_index, [[path]] * 4))
    assert all(np.array_equal(index.starts, built[0].starts) for index in built)
    assert len(list(tmp_path.iterdir())) == 2


def two_records(path: Path) -> bytes:
    write(path, [b"a" * 100, b"b" * 100])
    return path.read_bytes()


@pytest.mark.parametrize("kept", [231, 120, 117])  # inside the checksum, the length, its start
def test_a_truncated_file_is_named_with_the_offset(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(two_records(path)[:kept])
    with pytest.raises(ValueError, match=r"cut\.tfrecord is truncated.* offset 116 "):
        open_index([str(path)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("byte", [116, 123, 124])  # of the second record's length, its checksum
def test_a_wrong_length_is_named_with_the_offset(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "bad.tfrecord"
    content = bytearray(two_records(path))
    content[byte] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.tfrecord is corrupt.* offset 116 "):
        open_index([str(path)])


@pytest.mark.parametrize("byte", [128, 227, 228])  # of the second record's data, its checksum
def test_a_wrong_record_is_named_with_the_offset_and_the_others_are_read(
    tmp_path: Path, byte: int
) -> None:
    path = tmp_path / "bad.tfrecord"
    content = bytearray(two_records(path))
    content[byte] ^= 1
    path.write_bytes(content)
    reader = TFRecordReader(open_index([str(path)]))
    assert list(reader.records(np.array([0]))) == [b"a" * 100]
    with pytest.raises(ValueError, match=r"bad\.tfrecord, record at byte 116: .*--verify"):
        list(reader.records(np.array([0, 1])))


def test_a_compressed_file_is_told_from_a_corrupt_one(tmp_path: Path) -> None:
    path = tmp_path / "small.tfrecord"
    path.write_bytes(gzip.compress(two_records(path)))
    with pytest.raises(ValueError, match=r"compressed as a whole.* write it again"):
        open_index([str(path)])


def test_a_file_cut_after_it_was_indexed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.tfrecord"
    content = two_records(path)
    reader = TFRecordReader(open_index([str(path)]))
    path.write_bytes(content[:150])
    assert list(reader.records(np.array([0]))) == [b"a" * 100]
    with pytest.raises(ValueError, match=r"cut\.tfrecord, record at byte 116: it is cut short"):
        list(reader.records(np.array([1])))


def test_a_file_that_vanishes_is_read_to_the_end_and_missed_at_the_next_start(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "gone.tfrecord", [b"a", b"b"])
    reader = TFRecordReader(open_index([path]))
    os.unlink(path)
    assert list(reader.records(np.array([1]))) == [b"b"]
    with pytest.raises(ValueError, match=r"gone\.tfrecord cannot be read \(No such file"):
        open_index([path])


def test_the_checksum_is_that_of_tensorflow(tmp_path: Path) -> None:
    content = Path(write(tmp_path / "x.tfrecord", [b"abc"])).read_bytes()
    assert struct.unpack("<I", content[8:12])[0] == masked_crc(content[:8])
    assert struct.unpack("<I", content[-4:])[0] == masked_crc(b"abc")


def test_remote_files_are_read_through_tensorflow_by_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = f"ram://{uuid.uuid4().hex}"
    tf.io.gfile.makedirs(folder)
    paths = write_all(folder)
    index = open_index(paths)
    assert index.kept is not None and index.kept.parent == tmp_path / "lockstep"
    assert index.describe(3) == f"{paths[2]}, record at byte 0"
    reader, expected = TFRecordReader(index), [record for file in CONTENTS for record in file]

    def in_some_order(seed: int) -> bool:
        records = np.random.RandomState(seed).permutation(4)
        return list(reader.records(records)) == [expected[record] for record in records]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(in_some_order, range(50)))


def test_a_remote_dataset_with_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = f"ram://{uuid.uuid4().hex}/pets"
    tf.io.gfile.makedirs(folder)
    png = tf.io.encode_png(np.zeros((3, 4, 1), np.uint8)).numpy()
    write(f"{folder}/train-0", [write_example({"image": png, "label": 1})] * 3)
    write(f"{folder}/val-0", [write_example({"image": png, "label": 1})])
    with tf.io.gfile.GFile(f"{folder}/classes.txt", "w") as file:
        file.write("cat\ndog\n")
    sources = open_sources(DataSettings(f"tfrecord:{folder}/train-*,{folder}/val-*"))
    assert [source.length for source in sources.values()] == [3, 1]
    assert sources["train"].name == "pets/train"
    assert sources["eval"].class_names == ("cat", "dog")
    assert sources["train"].image_shape == (3, 4, 1)
    with pytest.raises(ValueError, match=r"no file matches 'ram://.*/none-"):
        open_sources(DataSettings(f"tfrecord:{folder}/none-*"))


def test_more_files_than_a_process_may_open_at_first(tmp_path: Path) -> None:
    for number in range(80):
        write(tmp_path / f"{number:03}.tfrecord", [b"%d" % number])
    program = f"""
import glob, resource, numpy as np
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
from input_pipeline.records.tfrecord_index import open_index
from input_pipeline.records.tfrecord_reader import TFRecordReader
reader = TFRecordReader(open_index(sorted(glob.glob({str(tmp_path)!r} + "/*.tfrecord"))))
assert list(reader.records(np.arange(80))) == [b"%d" % n for n in range(80)]
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_examples_are_read_and_written_as_tensorflow_does() -> None:
    example = tf.train.Example()
    example.features.feature["image"].bytes_list.value.append(b"\x00png")
    example.features.feature["label"].int64_list.value.append(-7)
    data = example.SerializeToString(deterministic=True)
    assert read_example(data) == {"image": [b"\x00png"], "label": [-7]}
    assert write_example({"label": -7, "image": b"\x00png"}) == data
    example.features.feature["box"].float_list.value.extend([0.5, 2])
    example.features.feature["none"].SetInParent()
    data = example.SerializeToString()
    assert read_example(data)["box"] == [0.5, 2] and read_example(data)["none"] == []
    assert describe_features(data) == (
        "box (float × 2), image (bytes), label (int64), none (empty × 0)"
    )
    with pytest.raises(ValueError, match=r"not a serialized tf\.train\.Example"):
        read_example(b"\xff\xff")
