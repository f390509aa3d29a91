"""What launch.evaluate has left in a run's folder: numbers, and the picture of the mistakes."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from trainer.files.from_json import AnyFloat, Count, Within, from_json
from trainer.files.whole_files import parse_json, read_file

# All numbers of an evaluation, beside its pictures.
NUMBERS = "numbers.json"
_MOST_BYTES = 1 << 26
_ANSWER = Annotated[int, Within(-1, 2**31)]  # a class, or -1: the answer is no number


@dataclasses.dataclass(frozen=True)
class Class:
    """How well a class is told: shares, None where there is nothing to divide by."""

    name: str
    support: AnyFloat  # the weight of its examples, or its pixels
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    iou: float | None = None


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example with a wrong answer; of masks the share of its pixels that is right."""

    example: str
    probability: float | None = None
    answer: str | None = None
    of_class: str = ""
    pixel_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class Numbers:
    """An evaluation.

    Attributes:
      metrics: by the names of metrics.jsonl, None where they are not finite.
      classes: by label.
      confusion: label, answer and how often, of what is not 0.
      picture: of the mistakes, a PNG file's path; None where there is none.
    """

    step: Count
    data: str
    examples: Count
    metrics: Mapping[str, float | None]
    classes: Sequence[Class]
    confusion: Sequence[tuple[Count, _ANSWER, AnyFloat]]
    worst: Sequence[Mistake]
    picture: pathlib.Path | None

    @property
    def unit(self) -> str:
        """What the classes are of."""
        return "pixels" if any(one.iou is not None for one in self.classes) else "examples"


def read_evaluation(run_dir: pathlib.Path) -> tuple[Numbers | None, str]:
    """The newest evaluation with numbers, None where there is none; and what cannot be read."""
    try:
        files = list(run_dir.glob(f"evaluation/*/{NUMBERS}"))
        newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
        return (None if newest is None else _read(newest)), ""
    except (ValueError, OSError) as error:
        return None, str(error)


def _read(path: pathlib.Path) -> Numbers:
    """Reads the file; raises ValueError where it is not what launch.evaluate writes."""
    where = str(path)
    raw = parse_json(read_file(path, _MOST_BYTES))
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is not what launch.evaluate writes; evaluate again.")
    worst = [_renamed(one, where) for one in _list(raw.get("worst"))]
    found = Numbers(
        step=from_json(Count, raw.get("step"), where),
        data=from_json(str, raw.get("data"), where),
        examples=from_json(Count, raw.get("examples"), where),
        metrics=from_json(
            dict[str, float | None], {k: v for k, v in raw.items() if k.startswith("eval/")}, where
        ),
        classes=from_json(list[Class], _list(raw.get("per_class")), where),
        confusion=from_json(
            list[tuple[Count, _ANSWER, AnyFloat]], _list(raw.get("confusion")), where
        ),
        worst=from_json(list[Mistake], worst, where),
        picture=path.with_name("mistakes.png") if path.with_name("mistakes.png").exists() else None,
    )
    if any(max(label, answer) >= len(found.classes) for label, answer, _ in found.confusion):
        raise ValueError(f"{where} confuses classes that it does not have; evaluate again.")
    return found


def _list(value: Any) -> Any:
    return [] if value is None else value


def _renamed(one: Any, where: str) -> Any:
    """With a name for the class that Python takes."""
    if not isinstance(one, dict):
        raise ValueError(f"{where} is not what launch.evaluate writes; evaluate again.")
    return {("of_class" if name == "class" else name): value for name, value in one.items()}


def picture_url(path: pathlib.Path, most_bytes: int) -> str:
    """A picture as a data URL of at most so many bytes, made smaller where it has to be; or ""."""
    try:
        content, kind = read_file(path, _MOST_BYTES), "png"
        if len(content) > most_bytes * 3 // 4:
            content, kind = _smaller(content, most_bytes * 3 // 4), "webp"
    except (ValueError, OSError):
        return ""
    if not content:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(content: bytes, most_bytes: int) -> bytes:
    """The picture in a size that fits; empty where none does."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        picture = opened.convert("RGB")
    for side in (1600, 1100, 800, 500):
        picture.thumbnail((side, 4 * side))
        with io.BytesIO() as file:
            picture.save(file, "WEBP", quality=75)
            if file.tell() <= most_bytes:
                return file.getvalue()
    return b""
