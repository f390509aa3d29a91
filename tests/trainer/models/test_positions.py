"""First weights of a Vision Transformer for images of another size: its positions resampled."""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

from trainer.models.decoder import decoder
from trainer.models.init_from import take_weights
from trainer.models.positions import fitted
from trainer.models.vit import vit

WIDTH = 8
TABLE = "block0_positions/embeddings"
RANDOM = np.random.default_rng(0)


def small_vit(height: int, width: int) -> keras.Model:
    """Of random weights, other ones in every call."""
    images = keras.Input((height, width, 3), dtype="uint8", name="image")
    features = vit(layers.Rescaling(1 / 127.5, offset=-1.0)(images), WIDTH, heads=2, blocks=1)
    model = keras.Model(images, layers.Dense(4, name="logits")(features), name="small_vit")
    for variable in model.variables:
        variable.assign(RANDOM.normal(size=variable.shape))
    return model


def without_a_token(height: int, width: int, patch: int) -> keras.Model:
    """Its positions are a weight of a layer [1, patches, width]."""

    class Positions(layers.Layer):
        def build(self, shape: tuple[int | None, ...]) -> None:
            self.table = self.add_weight(shape=(1, *shape[1:]), name="pos_embed")

        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x + self.table

    images = keras.Input((height, width, 3))
    x = layers.Reshape((-1, WIDTH))(layers.Conv2D(WIDTH, patch, patch, name="patches")(images))
    return keras.Model(images, layers.Dense(4, name="logits")(Positions(name="places")(x)))


def centres(count: int) -> np.ndarray:
    """Where patches lie in an image of side 1."""
    return (np.arange(count) + 0.5) / count


def plane(rows: int, columns: int) -> np.ndarray:
    """Positions [rows, columns, width] that are a linear function of where a patch lies."""
    y, x = np.meshgrid(centres(rows), centres(columns), indexing="ij")
    slopes = np.linspace(-3, 5, WIDTH)
    return (1 + y[..., None] * slopes + x[..., None] * slopes[::-1]).astype("float32")


def table_of(model: keras.Model, path: str = TABLE) -> keras.Variable:
    return next(variable for variable in model.variables if variable.path.endswith(path))


# Of the file and of the model: height and width of the images, whose patches are of 16.
SIZES = [((64, 64), (96, 96)), ((96, 96), (64, 48)), ((32, 128), (64, 64)), ((64, 96), (96, 160))]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_positions_are_resampled_by_where_they_lie(
    before: tuple[int, int], after: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    first, model = small_vit(*before), small_vit(*after)
    (old_rows, old_columns), (rows, columns) = ([s // 16 for s in size] for size in (before, after))
    token = RANDOM.normal(size=(1, WIDTH)).astype("float32")
    patches = plane(old_rows, old_columns).reshape(-1, WIDTH)
    table_of(first).assign(np.concatenate([token, patches]))
    first.save(tmp_path / "first.keras")
    told = take_weights(model, str(tmp_path / "first.keras"))
    found = table_of(model).numpy()
    assert np.array_equal(found[:1], token)
    # Between the outermost old centres the plane goes on; beyond them it ends.
    y, x = np.meshgrid(
        np.clip(centres(rows), *centres(old_rows)[[0, -1]]),
        np.clip(centres(columns), *centres(old_columns)[[0, -1]]),
        indexing="ij",
    )
    slopes = np.linspace(-3, 5, WIDTH)
    expected = 1 + y[..., None] * slopes + x[..., None] * slopes[::-1]
    assert found[1:].reshape(rows, columns, WIDTH) == pytest.approx(expected, abs=1e-5)
    shape = f"{1 + old_rows * old_columns}×{WIDTH} in the file"
    assert told.resampled == [(TABLE, (1 + rows * columns, WIDTH), shape)]
    assert len(told.taken) == len(model.variables) - 1 and not told.new and not told.skipped
    assert f"  resampled   1  {TABLE}" in "\n".join(told.lines())


def test_of_a_file_of_weights_the_patches_are_square(tmp_path: pathlib.Path) -> None:
    small_vit(64, 64).save_weights(tmp_path / "first.weights.h5")
    model = small_vit(96, 64)
    assert len(take_weights(model, str(tmp_path / "first.weights.h5")).resampled) == 1
    small_vit(64, 32).save_weights(tmp_path / "oblong.weights.h5")
    told = take_weights(model, str(tmp_path / "oblong.weights.h5"))
    assert [name for name, _, _ in told.new] == [TABLE] and not told.resampled


def test_without_a_token_and_with_axes_before(tmp_path: pathlib.Path) -> None:
    first, model = without_a_token(8, 8, 2), without_a_token(12, 16, 2)
    table_of(first, "pos_embed").assign(plane(4, 4).reshape(1, 16, WIDTH))
    first.save(tmp_path / "first.keras")
    told = take_weights(model, str(tmp_path / "first.keras"))
    assert [row[1] for row in told.resampled] == [(1, 48, WIDTH)]
    found = table_of(model, "pos_embed").numpy().reshape(6, 8, WIDTH)
    assert found[2:4, 2:6] == pytest.approx(plane(6, 8)[2:4, 2:6], abs=1e-5)


def test_what_is_of_the_same_size_stays_as_it_is_to_the_bit(tmp_path: pathlib.Path) -> None:
    first, model = small_vit(64, 32), small_vit(64, 32)
    first.save(tmp_path / "first.keras")
    told = take_weights(model, str(tmp_path / "first.keras"))
    assert not told.resampled and len(told.taken) == len(model.variables)
    assert np.array_equal(table_of(first).numpy(), table_of(model).numpy())


def test_only_positions_of_patches_are_resampled(tmp_path: pathlib.Path) -> None:
    sizes = {"width": 8, "heads": 2, "blocks": 1, "dropout": 0.0}
    decoder("first", 16, 10, **sizes).save(tmp_path / "first.keras")
    told = take_weights(decoder("second", 25, 10, **sizes), str(tmp_path / "first.keras"))
    assert [row[0] for row in told.new] == ["positions_table/embeddings"] and not told.resampled
    array = np.zeros((17, 8), "float32")
    assert fitted("dense/kernel", array, (37, 8), (64, 64), (96, 96)) is None
    assert fitted(TABLE, array, (37, 4), (64, 64), (96, 96)) is None
    # A token in the file that the model does not have.
    assert fitted(TABLE, array, (36, 8), (64, 64), (96, 96)) is None
    assert fitted(TABLE, array, (37, 8), (64, 64), (96, 96)).shape == (37, 8)
