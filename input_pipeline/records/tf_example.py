"""tf.train.Example, the usual record of TFRecord and ArrayRecord files, without TensorFlow.

Its three messages as TensorFlow's `example.proto` and `feature.proto` define them, under another
package's name, so that TensorFlow can load its own beside them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_FIELD = descriptor_pb2.FieldDescriptorProto
_LISTS = {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}


@dataclasses.dataclass(frozen=True)
class ExampleFeatures:
    """The names under which a tf.train.Example holds its image, label and weight."""

    image: str = "image"
    label: str = "label"
    weight: str = ""  # none: every example weighs 1

    def read(
        self,
        records: Callable[[np.ndarray], Iterable[bytes]],
        describe: Callable[[int], str],
        numbers: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """The images, labels and, if they have a name, weights of records; see `Source.read`.

        Args:
          records: the serialized examples with these numbers in turn, best one at a time: each is
            taken apart while it is in the processor's cache.
          describe: where a record lies.
          numbers: int64 [n].

        Raises:
          ValueError: a record cannot be read, or does not hold one value for each of them.
        """
        rows = []
        for number, data in zip(numbers, records(numbers), strict=True):
            try:
                rows.append(self._values(data))
            except ValueError as error:
                raise ValueError(f"{describe(int(number))}: {error}.") from None
        images = np.array([image for image, _, _ in rows], object)
        labels = np.array([label for _, label, _ in rows], np.int64)
        weights = np.array([weight for _, _, weight in rows], np.float32)
        return (images, labels, weights) if self.weight else (images, labels)

    def _values(self, data: bytes) -> tuple[bytes, int, float]:
        features = _parsed(data).features.feature
        image = _only(features, self.image, "bytes")
        label = _only(features, self.label, "int64")
        return image, label, _only(features, self.weight, "float") if self.weight else 1.0


def read_example(data: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """The features of a serialized tf.train.Example by their names.

    Raises:
      ValueError: it is none.
    """
    features = _parsed(data).features.feature
    return {name: list(_values(features[name])) for name in sorted(features)}


def place_of_bytes(read: Callable[[int, int], bytes], size: int, name: str) -> tuple[int, int]:
    """The bounds of the one value of a bytes feature in a serialized tf.train.Example.

    So that the beginning of a large value can be had without reading all of it.

    Args:
      read: so many bytes of the example from a place on.
      size: of the example.
      name: of the feature.

    Returns:
      The value's first byte, and its length.

    Raises:
      ValueError: it is no example, or has no such value.
    """
    # Example.features, and of each entry of their map the key and Feature.bytes_list.
    for begin, end in _fields(read, 0, size, 1):
        for first, last in _fields(read, begin, end, 1):
            keys = [read(at, to - at) for at, to in _fields(read, first, last, 1)]
            if keys == [name.encode()]:
                for at, to in _fields(read, first, last, 2):
                    for low, high in _fields(read, at, to, 1):
                        for value, stop in _fields(read, low, high, 1):
                            return value, stop - value
    raise ValueError(f"it has no feature {name!r} of bytes")


def _fields(
    read: Callable[[int, int], bytes], at: int, end: int, number: int
) -> Iterator[tuple[int, int]]:
    """The bounds of the fields with this number that hold bytes or messages."""
    while at < end:
        key, at = _varint(read, at)
        if key & 7 != 2:
            raise ValueError("it is not a serialized tf.train.Example")
        length, at = _varint(read, at)
        if at + length > end:
            raise ValueError("it is not a serialized tf.train.Example")
        if key >> 3 == number:
            yield at, at + length
        at += length


def _varint(read: Callable[[int, int], bytes], at: int) -> tuple[int, int]:
    """A number of up to ten bytes of seven bits each, the lowest first; and where it ends."""
    number = 0
    for place, byte in enumerate(read(at, 10)):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise ValueError("it is not a serialized tf.train.Example")


def write_example(features: Mapping[str, bytes | int]) -> bytes:
    """A serialized tf.train.Example of single values; equal ones give equal bytes."""
    example = _Example()
    for name, value in features.items():
        kind = "int64_list" if isinstance(value, int) else "bytes_list"
        getattr(example.features.feature[name], kind).value.append(value)
    # A protocol buffer's map has no order of its own; without this the bytes vary.
    return example.SerializeToString(deterministic=True)


def describe_features(data: bytes) -> str:
    """The names of a serialized tf.train.Example's features with their kinds and lengths.

    Raises:
      ValueError: it is none.
    """
    kinds = {bytes: "bytes", float: "float", int: "int64"}
    said = []
    for name, values in read_example(data).items():
        kind = kinds[type(values[0])] if values else "empty"
        said.append(f"{name} ({kind}{'' if len(values) == 1 else f' × {len(values)}'})")
    return ", ".join(said)


def _parsed(data: bytes) -> Any:
    try:
        return _Example.FromString(data)
    except DecodeError:
        raise ValueError("it is not a serialized tf.train.Example") from None


def _only(features: Any, name: str, kind: str) -> Any:
    values = getattr(features[name], f"{kind}_list").value
    if len(values) != 1:
        raise ValueError(f"its feature {name!r} holds {len(values)} {kind} values, not one")
    return values[0]


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _example_class() -> Any:
    """The class of tf.train.Example."""
    file = descriptor_pb2.FileDescriptorProto(
        name="lockstep/example.proto", package="lockstep", syntax="proto3"
    )

    def field(message: Any, name: str, number: int, kind: Any, **more: Any) -> Any:
        label = more.pop("label", _FIELD.LABEL_OPTIONAL)
        return message.field.add(name=name, number=number, type=kind, label=label, **more)

    types = (_FIELD.TYPE_BYTES, _FIELD.TYPE_FLOAT, _FIELD.TYPE_INT64)
    for name, kind in zip(_LISTS.values(), types, strict=True):
        message = file.message_type.add(name=name)
        field(message, "value", 1, kind, label=_FIELD.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(_LISTS.items(), start=1):
        type_name = f".lockstep.{kind}"
        field(feature, name, number, _FIELD.TYPE_MESSAGE, type_name=type_name, oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options={"map_entry": True})
    field(entry, "key", 1, _FIELD.TYPE_STRING)
    field(entry, "value", 2, _FIELD.TYPE_MESSAGE, type_name=".lockstep.Feature")
    entry_name = ".lockstep.Features.FeatureEntry"
    repeated = _FIELD.LABEL_REPEATED
    field(features, "feature", 1, _FIELD.TYPE_MESSAGE, type_name=entry_name, label=repeated)
    example = file.message_type.add(name="Example")
    field(example, "features", 1, _FIELD.TYPE_MESSAGE, type_name=".lockstep.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("lockstep.Example"))


_Example = _example_class()
