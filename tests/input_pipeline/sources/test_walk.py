"""Which files of folders are images: each real folder once, nothing left out without a word."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_sources, walk
from tests.input_pipeline.sources.test_files_of_images import image, write


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three images to train on of each of cat and dog, and one to evaluate on."""
    for number, label in enumerate(["cat", "dog"]):
        for split, count in (("train", 3), ("test", 1)):
            for k in range(count):
                write(tmp_path / f"pets/{split}/{label}/{k}.png", image(10 * number + k))
    return tmp_path / "pets"


def opened(root: Path, **settings: str) -> dict[str, Source]:
    return open_sources(DataSettings(f"folder:{root}", **settings))


def paths_and_labels(root: Path, source: Source) -> list[tuple[str, int]]:
    paths = map(source.describe, range(source.length))
    labels = source.read(np.arange(source.length))[1].tolist()
    return [(os.path.relpath(p, root), label) for p, label in zip(paths, labels, strict=True)]


@pytest.mark.parametrize(
    "link, target",
    [
        ("train/cat/again", "."),
        ("train/cat/up", ".."),
        ("train/cat/root", "../.."),
        ("train/cat/everything", "/"),
        ("train/cat/deep/er/back", "../.."),
        ("train/dog/deep/sibling", "."),
    ],
)
def test_a_link_back_is_left_out_and_told(pets: Path, link: str, target: str) -> None:
    before = paths_and_labels(pets, opened(pets)["train"])
    (pets / link).parent.mkdir(parents=True, exist_ok=True)
    (pets / link).symlink_to(target)
    train = opened(pets)["train"]
    assert paths_and_labels(pets, train) == before and train.length == 6
    assert train.notes == (f"train: 1 link left out, to what is counted already: {pets / link}",)


def test_a_link_to_a_folder_elsewhere_counts_once(pets: Path) -> None:
    pool = pets.parent / "pool"
    write(pool / "deep/a.png", image(1))
    (pool / "back").symlink_to(pool)
    for name in ("one", "two"):
        (pets / "train/cat" / name).symlink_to(pool)
    (pets / "train/dog").rename(pets.parent / "dogs")
    (pets / "train/dog").symlink_to(pets.parent / "dogs")  # a class may lie elsewhere
    train = opened(pets)["train"]
    found = [path for path, _ in paths_and_labels(pets / "train", train)]
    assert found == [f"cat/{name}.png" for name in (0, 1, 2, "one/deep/a")] + [
        f"dog/{number}.png" for number in range(3)
    ]
    (note,) = train.notes
    assert note.startswith("train: 2 links left out") and f"{pets}/train/cat/two" in note


@pytest.mark.parametrize(
    "link, target",
    [("train/dog/x", "../cat"), ("train/emu", "cat"), ("train/dog/x", "../cat/deep")],
)
def test_a_folder_of_two_classes_is_refused(pets: Path, link: str, target: str) -> None:
    write(pets / "train/cat/deep/1.png", image(1))
    (pets / link).symlink_to(target)
    with pytest.raises(
        ValueError, match=r"are the same folder by way of a link, which would be of two"
    ):
        opened(pets)


def test_a_file_that_is_linked_counts_once(pets: Path) -> None:
    before = paths_and_labels(pets, opened(pets)["train"])
    write(pets.parent / "pool.png", image(9))
    (pets / "train/cat/0-again.png").symlink_to("0.png")
    (pets / "train/dog/x.png").symlink_to("../../../pool.png")
    (pets / "train/dog/y.png").symlink_to(pets.parent / "pool.png")
    train = opened(pets)["train"]
    found = {path.replace("0-again", "0") for path, _ in paths_and_labels(pets, train)}
    assert found == {path for path, _ in before} | {"train/dog/x.png"} and train.length == 7
    assert train.notes[0].startswith("train: 2 links left out, to what is counted already: ")
    (pets / "train/dog/z.png").symlink_to("../cat/1.png")
    with pytest.raises(ValueError, match=r"dog/z\.png and .*cat/1\.png are the same file by way"):
        opened(pets)


@pytest.mark.parametrize("link", ["train/cat/9.png", "test/cat/9.png", "both"])
def test_a_file_that_is_trained_and_evaluated_on_by_a_link_is_refused(
    pets: Path, link: str
) -> None:
    write(pets.parent / "pool.png", image(9))
    target = pets.parent / "pool.png"
    for place in ["train/cat/9.png", "test/cat/8.png"] if link == "both" else [link]:
        other = "test" if place.startswith("train") else "train"
        (pets / place).symlink_to(target if link == "both" else pets / other / "cat/0.png")
    with pytest.raises(
        ValueError, match=r"/test/cat/.*png is .*/train/cat/.* would be trained and"
    ):
        opened(pets)


@pytest.mark.parametrize(
    "link, target",
    [("val/cat", "../train/cat"), ("val/cat/deep", "../../train/cat"), ("val", "train")],
)
def test_a_folder_that_is_trained_and_evaluated_on_is_refused(
    pets: Path, link: str, target: str
) -> None:
    (pets / link).parent.mkdir(parents=True, exist_ok=True)
    (pets / link).symlink_to(target)
    if link == "val/cat/deep":
        write(pets / "val/cat/1.png", image(1))
    with pytest.raises(
        ValueError, match=r"/val.* is .*/train/.*and would be trained and evaluated"
    ):
        opened(pets, eval_split="val")
    with pytest.raises(ValueError, match=r"train/cat would be trained and evaluated on"):
        opened(pets, eval_split="train")


def test_what_is_left_out_is_counted(pets: Path) -> None:
    cat = pets / "train/cat"
    for number in range(3):
        write(cat / f"{number}.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    write(cat / "notes.TXT", b"words")
    write(cat / "list", b"words")
    write(cat / "text.jpg", b"version https://git-lfs.github.com/spec/v1")
    write(cat / "none.png", b"")
    write(cat / ".hidden.png", image(1))
    write(cat / ".thumbnails/1.png", image(1))
    write(cat / "name.with a long end", b"words")
    write(pets / "train/loose.png", image(1))
    write(pets / "train/.DS_Store", b"")
    (cat / "gone.png").symlink_to("nowhere")
    (cat / "loop.png").symlink_to("loop.png")
    os.mkfifo(cat / "pipe.png")
    write(pets / "test/dog/notes.txt", b"words")
    sources = opened(pets)
    assert [source.length for source in sources.values()] == [6, 2]
    assert sources["train"].notes == (
        "train: 15 files left out: .heic 3, hidden 3, broken links 2, .jpg without an image 1, "
        ".txt 1, beside the folders of the classes 1, devices and pipes 1, empty 1, and 2 more",
    )
    assert sources["eval"].notes == ("test: 1 file left out: .txt 1",)


def test_folders_beside_those_of_the_splits_are_named(pets: Path) -> None:
    for name in ("val", "cat", ".git"):
        write(pets / name / "cat/1.png", image(1))
    assert opened(pets)["train"].notes == ("2 folders are not used: cat, val",)
    assert opened(pets, eval_split="val")["train"].notes == ("2 folders are not used: cat, test",)
    assert opened(pets, holdout="30%")["train"].notes == ("3 folders are not used: cat, test, val",)


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a", "A.JPG", "a.PNG", "a.txt", "a.b.c"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_the_content_decides_what_is_an_image(pets: Path, name: str, form: str) -> None:
    write(pets / "train/dog" / name, image(5, form=form))
    train = opened(pets)["train"]
    assert (f"train/dog/{name}", 1) in paths_and_labels(pets, train)
    assert train.notes == ()


def test_what_is_no_image_is_kept_where_it_took_its_time(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pets / "train/cat/notes.txt", b"words")
    opened(pets)
    assert not list(pets.rglob(".lockstep-images-*"))  # these few files took no time
    monkeypatch.setattr(walk, "_WORTH_KEEPING", -1.0)
    before = opened(pets)["train"]
    (kept,) = (pets / "train").glob(".lockstep-images-*.json")
    monkeypatch.setattr(walk, "_why_not", lambda *file: pytest.fail("read again"))
    again = opened(pets)["train"]
    assert again.notes == before.notes == ("train: 1 file left out: .txt 1",)
    assert paths_and_labels(pets, again) == paths_and_labels(pets, before)
    monkeypatch.undo()
    # Whatever changes, and whatever is damaged, it is read anew.
    kept.write_text('{"stamp": 7, "oth')
    assert opened(pets)["train"].notes == before.notes
    monkeypatch.setattr(walk, "_WORTH_KEEPING", -1.0)
    opened(pets)
    for change in (
        lambda: write(pets / "train/cat/more.txt", b"words"),
        lambda: [(pets / x / "cat").rename(pets / x / "bat") for x in ("train", "test")],
        lambda: (pets / "train/bat/more.txt").rename(pets / "train/bat/less.txt"),
    ):
        change()
        assert opened(pets)["train"].notes == ("train: 2 files left out: .txt 2",)
        assert opened(pets)["train"].length == 6


def test_an_unreadable_file_is_counted_and_an_unreadable_folder_is_named() -> None:
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in "012":
            write(root / f"train/cat/{name}.png", image(1))
            write(root / f"train/dog/{name}.png", image(2))
        (root / "train/cat/0.png").chmod(0)
        program = f"""
import os
from pathlib import Path
from input_pipeline.sources.walk import find_files, keep_images
if not os.getuid():
    os.setuid(65534)
folder = Path({folder!r}) / "train"
found = find_files(folder, ["cat", "dog"])
keep_images(found)
print(found.notes(), [len(files) for files in found.files.values()])
"""
        assert run(program) == "('1 file left out: unreadable 1',) [2, 3]\n"
        (root / "train/dog").chmod(0)
        program += "# the same once more"
        with pytest.raises(subprocess.CalledProcessError) as error:
            run(program)
        (root / "train/dog").chmod(0o755)
        assert "/train/dog cannot be read (Permission denied); make it readable" in (
            error.value.stderr
        )


def run(program: str) -> str:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True
    ).stdout
