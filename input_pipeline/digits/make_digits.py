"""Makes the embedded digits: python make_digits.py [FOLDER], with scikit-learn installed.

The test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin & C. Kaynak, 1998, UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0), as scikit-learn's
`load_digits` holds it: 1,797 images of 8 × 8 with values from 0 to 16. They are written as 8-bit
grey PNGs (values scaled to 0..255) in TFRecords of tf.train.Example with the features `image`
(bytes) and `label` (int64): 1,437 for training in two files, 360 for evaluation in one, each class
in the same proportion. The same versions of the libraries give the same bytes every time.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

EVAL_LENGTH = 360


def main(folder: pathlib.Path) -> None:
    """Writes the three TFRecord files into `folder`."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    train, evaluation = train_test_split(
        np.arange(len(labels)), test_size=EVAL_LENGTH, stratify=labels, random_state=0
    )
    shards = {"train": np.array_split(np.sort(train), 2), "eval": [np.sort(evaluation)]}
    for split, parts in shards.items():
        for number, rows in enumerate(parts):
            path = folder / f"{split}-{number:05d}-of-{len(parts):05d}.tfrecord"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for row in rows:
                    writer.write(serialize(images[row], int(labels[row])))
            print(f"{path}: {len(rows)} records, {path.stat().st_size} bytes")


def serialize(image: np.ndarray, label: int) -> bytes:
    """A tf.train.Example of a uint8 [8, 8, 1] image, as PNG, and its label."""
    png = tf.io.encode_png(image, compression=9).numpy()
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # A protocol buffer's map has no order of its own; without this the bytes vary.
    return example.SerializeToString(deterministic=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
