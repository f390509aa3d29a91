"""`classes.txt`: one name a line, whatever the names hold."""

import random

import pytest

from input_pipeline.class_names import names_text, read_names

ODD = [
    "",
    " ",
    " cat ",
    "a\nb",
    "a\r\nb",
    "\\",
    "\\n",
    "C:\\new",
    "\\x41",
    "\u2028",
    "\x85",
    "\x0b",
]
ODD += ["caf\udce9", "\ufeffcat", "猫", "\u3000猫", "dog\u00a0", "cat", "100%"]


def test_odd_names_are_a_line_each_and_read_back() -> None:
    text = names_text(ODD)
    assert read_names(text) == tuple(ODD)
    assert len(text.splitlines()) == text.count("\n") == len(ODD)
    assert read_names(text.encode().decode()) == tuple(ODD)


def test_random_names_read_back() -> None:
    draw = random.Random(0)
    characters = [*map(chr, range(0x180)), *"\\\\\\nxu01af", "\u2028", "\u3000", "\udc80", "😀"]
    for _ in range(5000):
        names = tuple("".join(draw.choices(characters, k=draw.randrange(7))) for _ in range(3))
        text = names_text(names)
        assert read_names(text) == names
        assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    "text", ["cat\ndog\n", "cat\ndog", "cat\r\ndog\r\n", "\ufeffcat\n dog \n\n", "\ncat\n\ndog"]
)
def test_a_file_written_by_hand(text: str) -> None:
    assert read_names(text) == ("cat", "dog")


def test_plain_names_are_written_as_they_are() -> None:
    assert names_text(["cat", "Épagneul breton", "猫"]) == "cat\nÉpagneul breton\n猫\n"
