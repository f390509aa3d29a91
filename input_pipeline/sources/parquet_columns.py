"""Which columns of Parquet files hold image, label and weight, and what the last two hold."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from input_pipeline.records.open_files import reason
from input_pipeline.records.parquet_images import parquet
from input_pipeline.sources.tfrecord import parse_features

_SHOWN = 10
# What columns are called where nothing else tells a label.
_LABELS = ("label", "labels", "class", "target")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of the image, the label and, if there is one, the weight, by their names.

    Attributes:
      image: that of the images' files, `image.bytes` within a column of structures.
      label: whole numbers or texts.
      weight: empty: every example weighs 1.
      names: the classes' names by label, where the files tell them.
    """

    image: str
    label: str
    weight: str
    names: tuple[str, ...]


def find_columns(path: str, features: str) -> Columns:
    """The columns of a file: those asked for, else those that its metadata or types tell.

    Args:
      path: the file.
      features: `image=COLUMN,label=COLUMN,weight=COLUMN`; any may be left out.

    Raises:
      ValueError: the file cannot be read, or does not have one column for each.
    """
    schema, given = parquet(path).schema_arrow, parse_features(features)
    known = _features(schema)
    images = {name: inner for name in schema.names if (inner := _image_column(schema, name))}
    classes = [name for name in schema.names if known.get(name, {}).get("_type") == "ClassLabel"]
    labels = [name for name in schema.names if _is_label(schema.field(name).type)]
    weights = [name for name in schema.names if _is_number(schema.field(name).type)]
    candidates = {
        "image": [x for x in images if known.get(x, {}).get("_type") == "Image"] or list(images),
        "label": classes or [x for x in _LABELS if x in labels][:1] or labels,
    }
    allowed = {"image": list(images), "label": labels, "weight": weights}
    chosen = {}
    for role in (*candidates, *(["weight"] if "weight" in given else [])):
        found = [given[role]] if role in given else candidates[role]
        chosen[role] = found[0] if len(found) == 1 else ""
        if chosen[role] not in allowed[role]:
            listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
            wanted = f" called {given[role]!r}" if role in given else ""
            raise ValueError(
                f"{path} has not one column{wanted} for the {role}, but {listed}; say which it is "
                f"with --features={role}=COLUMN."
            )
    names = known.get(chosen["label"], {}).get("names")
    return Columns(
        image=images[chosen["image"]],
        label=chosen["label"],
        weight=chosen.get("weight", ""),
        names=tuple(map(str, names)) if isinstance(names, list) else (),
    )


def read_labels(
    columns: Columns, train: Sequence[str], paths: Sequence[str]
) -> tuple[tuple[str, ...], int, np.ndarray]:
    """The classes' names, () where there are none; how many; the records' labels, int64 [n].

    Raises:
      ValueError: a label is missing, or is of no class that is trained on.
    """
    texts = _column(columns.label, paths)
    known = texts if paths == train else _column(columns.label, train)
    if pa.types.is_integer(texts.type):
        classes = len(columns.names) or int(_numbers(known).max(initial=0)) + 1
        return columns.names, classes, _numbers(texts)
    names = sorted(filter(None, known.unique().to_pylist()))
    places = {name: label for label, name in enumerate(names)}
    for text in texts.unique().to_pylist():
        if text not in places:
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            what = f"the class {text!r}, which nothing is trained on" if text else "no text"
            raise ValueError(
                f"the column {columns.label} of {paths[0]} holds {what}; the classes are "
                f"{', '.join(names[:_SHOWN])}{more}; give files that have all of them."
            )
    labels = np.array([places[text] for text in texts.to_pylist()], np.int64)
    return tuple(names), len(names), labels


def _numbers(column: pa.Array) -> np.ndarray:
    # A missing label is as wrong as one that is out of range, and told as such.
    return column.cast(pa.int64(), safe=False).fill_null(-1).to_numpy()


def read_weights(columns: Columns, paths: Sequence[str]) -> np.ndarray | None:
    """The examples' weights, float32 [n], NaN where one is missing; None if there are none."""
    if not columns.weight:
        return None
    return _column(columns.weight, paths).cast(pa.float32()).to_numpy(zero_copy_only=False)


def _column(name: str, paths: Sequence[str]) -> pa.Array:
    parts = []
    for path in paths:
        opened = parquet(path)
        try:
            table = opened.read(columns=[name])
        except Exception as error:  # pyarrow raises whatever the damage leads to
            raise ValueError(
                f"{path} cannot be read ({reason(error)}), column {name}; fetch this file again."
            ) from None
        if name not in table.column_names:
            raise ValueError(f"{path} has no column {name}, as {paths[0]} has; fetch it again.")
        parts.append(_plain(table.column(name)))
    chunks = [chunk for part in parts for chunk in part.chunks]
    try:
        return pa.chunked_array(chunks, chunks[0].type if chunks else pa.int64()).combine_chunks()
    except Exception as error:  # pyarrow raises whatever the types lead to
        raise ValueError(
            f"the column {name} has not the same type in all of {paths[0]} and those beside it "
            f"({reason(error)}); give files that belong together."
        ) from None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts that are kept as numbers of a list as texts; true and false as 1 and 0."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column


def _features(schema: pa.Schema) -> dict[str, dict]:
    """The features that the `datasets` library wrote into the metadata; empty without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _image_column(schema: pa.Schema, name: str) -> str:
    """The path to a column's image files: its field `bytes`, or itself; empty if it has none."""
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        inner = [field for field in kind if field.name == "bytes" and _is_binary(field.type)]
        return f"{name}.bytes" if inner else ""
    return name if _is_binary(kind) else ""


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_label(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
