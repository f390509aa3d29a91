"""Flagfiles: what is written is read again, and an error says the file and the line."""

import pathlib
import random

import pytest

from launch.flags.command import flagfile_text, parse, read_command
from launch.flags.flagfile import RECIPES, recipes
from launch.flags.run import define_training_flags
from launch.training.job import plan_command

# Pieces that a line, a shell, JSON or an editor could take for something else.
PIECES = [
    *(
        "\n",
        "\r",
        "\t",
        " ",
        "  ",
        '"',
        "'",
        "\\",
        "\\n",
        "#",
        "//",
        "--",
        "=",
        ",",
        "$(x)",
        "`",
        "{}",
    ),
    *(
        "\u2028",
        "\u0085",
        "\u00a0",
        "\ufeff",
        "\x1b[0m",
        "é",
        "漢",
        "😀",
        "a",
        "Z",
        "0",
        ".",
        "/",
        "~",
    ),
]


def written_and_read(
    folder: pathlib.Path, values: dict[str, object]
) -> tuple[dict[str, object], str]:
    command = read_command(["--run_dir=here"])
    text = flagfile_text(command, changed=values)
    (folder / "flags.txt").write_text(text, encoding="utf-8")
    again = define_training_flags()
    assert parse(again, [f"--flagfile={folder / 'flags.txt'}"]) == []
    return {name: again[name].value for name in values}, text


def test_every_text_in_every_flag_survives_its_flagfile(tmp_path: pathlib.Path) -> None:
    draw = random.Random(0)
    defined = define_training_flags()
    texts = [name for name in defined if isinstance(defined[name].default, str)]
    assert len(texts) > 30
    for _ in range(200):
        values = {name: "".join(draw.choices(PIECES, k=draw.randint(0, 6))) for name in texts}
        assert written_and_read(tmp_path, values)[0] == values


@pytest.mark.parametrize(
    "text", ["trailing ", " leading", "two\nlines", "", " ", '"quoted"', "# none", "a\u2028b", "\n"]
)
def test_these_do_too(tmp_path: pathlib.Path, text: str) -> None:
    read, written = written_and_read(tmp_path, {"run_dir": text, "lr_multiplier": text})
    assert read == {"run_dir": text, "lr_multiplier": text}
    # A line a flag, whatever program counts the lines.
    assert written.splitlines() == written.split("\n")[:-1]


def test_numbers_and_switches_survive_too(tmp_path: pathlib.Path) -> None:
    values = {"learning_rate": 0.1 + 0.2, "l2": 1e-37, "seed": 2**31 - 1, "tf32": False}
    assert written_and_read(tmp_path, values)[0] == values


def test_what_people_write_reads_as_ever(tmp_path: pathlib.Path) -> None:
    """Old flagfiles: spaces around, both comments, a byte-order mark, Windows' ends of lines."""
    (tmp_path / "base.flags").write_bytes(b"--seed=1\r\n--model=mlp\r\n")
    text = f"\ufeff# first\n// second\n\n  --notf32  \n--flagfile={tmp_path}/base.flags\n--seed=3\n"
    text += "--class_weights=0=1,3=2.5\n--lr_multiplier=a b=1 \n"
    (tmp_path / "mine.flags").write_text(text, encoding="utf-8")
    values = define_training_flags()
    assert parse(values, [f"--flagfile={tmp_path}/mine.flags", "-flagfile", "digits"]) == []
    assert (values.seed, values.model, values.tf32) == (3, "cnn", False)
    assert (values.class_weights, values.lr_multiplier) == ("0=1,3=2.5", "a b=1")


def message(argv: list[str]) -> str:
    with pytest.raises(ValueError) as error:
        plan_command(read_command(["--device=cpu", *argv]))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--warmpu=1ep", "warmup"),  # no such flag
        ("--seed=-1", "--seed=-1"),  # not its value
        ("--tf32=maybe", "--tf32=maybe"),
        ("--model", "--model"),  # the value is not taken from the next line
        ("cnn", "unexpected argument 'cnn'"),
        ("--decay=cosin", "did you mean cosine?"),  # by the settings
        ("--train_for=1e308ep", "1e308ep"),
        ("--global_batch=2000", "at most 1436"),  # by the plan
        ("--dataset=digit", "'digit' is unknown"),  # by the data
        ('--run_dir="half', "JSON string"),
        ("--flagfile=nowhere.flags", "'nowhere.flags' does not exist"),
    ],
)
def test_an_error_names_file_and_line(tmp_path: pathlib.Path, line: str, said: str) -> None:
    file = tmp_path / "mine.flags"
    file.write_text(f"# a comment\n--replicas=2\n{line}\n--log_every=1ep\n")
    told = message([f"--flagfile={file}"])
    assert f"line 3 of {file}" in told and said in told


def test_lines_that_give_no_flag_do_no_harm(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.flags").write_text("--\n--undefok=other\n-\n-seed=3\n\u2028\n")
    with pytest.raises(ValueError, match=r"line 3 of .*unexpected argument '-'"):
        read_command([f"--flagfile={tmp_path}/mine.flags"])
    (tmp_path / "mine.flags").write_text("--\n--undefok=other\n-seed=3\n\u2028\n")
    assert read_command([f"--flagfile={tmp_path}/mine.flags"]).settings.run.seed == 3


def test_an_error_on_the_command_line_names_no_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.flags").write_text("--decay=linear\n--replicas=2\n")
    for argv in (["--decay=cosin"], ["--global_batch=2000"]):
        assert "mine.flags" not in message([f"--flagfile={tmp_path}/mine.flags", *argv])


def test_two_flagfiles_that_disagree_are_both_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.flags").write_text("--seed=1\n--global_batch=64\n")
    (tmp_path / "b.flags").write_text("--global_batch=2000\n")
    files = [f"--flagfile={tmp_path}/{name}.flags" for name in "ab"]
    told = message(files)
    assert told.endswith(
        f"See --global_batch=2000 in line 1 of {tmp_path}/b.flags, "
        f"not --global_batch=64 in line 2 of {tmp_path}/a.flags."
    )
    # The later one wins, and the command line over both: as ever.
    assert read_command(files[::-1]).settings.devices.global_batch == 64
    assert read_command([*files, "--global_batch=32"]).settings.devices.global_batch == 32


def test_contradictory_flags_of_two_flagfiles_are_both_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.flags").write_text("--clip_norm=1\n")
    (tmp_path / "b.flags").write_text("\n--clip_value=2\n")
    told = message([f"--flagfile={tmp_path}/{name}.flags" for name in "ab"])
    assert f"line 1 of {tmp_path}/a.flags" in told and f"line 2 of {tmp_path}/b.flags" in told


def test_what_is_no_flagfile_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"--seed=1\nPK\x03\x04\xff\xfe")
    (tmp_path / "large").write_bytes(b"#" * 2_000_000)
    (tmp_path / "itself").write_text(f"--seed=1\n--flagfile={tmp_path}/itself\n")
    (tmp_path / "locked").write_text("--seed=1")
    for name, said in {
        "model.keras": "line 2 of",
        "large": "more than a million bytes",
        "itself": "takes in itself",
        ".": "is a folder",
        "x" * 5000: "does not exist",
        "": "does not exist",
    }.items():
        assert said in message([f"--flagfile={tmp_path / name if name else ''}"]), name


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_is_called_by_its_name(recipe: str) -> None:
    values = read_command([f"--flagfile={recipe}"]).lines["train_for"][-1]
    assert values.where.endswith(f"of the recipe {recipe}")
    assert (RECIPES / f"{recipe}.flags").is_file()
