"""Makes the pictures of README.md and docs/learning_rate.md: python -m tests.pictures

Each keeps what its recipes say, so that a test notices when they say something else.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from launch.flags.command import read_command
from launch.flags.group import decisive
from tests.helpers import REPOSITORY

# By file: the command, which writes a picture of that name into its --out, and the recipes.
PICTURES = {
    "docs/range_test.png": ("launch.find_lr --flagfile=digits", ("digits",)),
    "docs/plan.png": ("launch.plan --compare=digits,digits_wsd", ("digits", "digits_wsd")),
}
_KEY = "made of"


def recipes_digest(recipes: Sequence[str]) -> str:
    """A digest of all flags by which the recipes come to what they do, defaults included."""
    values = [read_command([f"--flagfile={one}"]).values for one in recipes]
    flags = [{name: each[name].value for name in sorted(decisive(each))} for each in values]
    return hashlib.sha256(json.dumps(flags, sort_keys=True, default=str).encode()).hexdigest()


def made_of(picture: pathlib.Path) -> str:
    """The digest of the recipes that a picture was made of; empty where it has none."""
    with Image.open(picture) as image:
        return image.text.get(_KEY, "")


def make(picture: str) -> None:
    """Makes a picture, and notes what of."""
    line, recipes = PICTURES[picture]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *line.split(), f"--out={folder}"]
        subprocess.run(command, cwd=REPOSITORY, check=True)
        note(pathlib.Path(folder) / pathlib.Path(picture).name, REPOSITORY / picture, recipes)


def note(made: pathlib.Path, picture: pathlib.Path, recipes: Sequence[str]) -> None:
    """Writes a picture with what it was made of."""
    about = PngInfo()
    about.add_text(_KEY, recipes_digest(recipes))
    with Image.open(made) as image:
        image.save(picture, pnginfo=about, optimize=True)


if __name__ == "__main__":
    for name in PICTURES:
        make(name)
