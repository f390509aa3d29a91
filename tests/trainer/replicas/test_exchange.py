"""What the replicas exchange and how they compute: compiled or not, by any all-reduce, the same."""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import call, in_parallel, relative_difference

from trainer.layers.xla import choose_xla, why_not
from trainer.replicas.all_reduce import cross_device_ops, sparse_text
from trainer.replicas.sums import Pieces, Sums, choose_pieces, join, take_apart

Variables = dict[str, np.ndarray]
MLP = "--replicas=2 --model=mlp --micro_batch=16 --learning_rate=0.1 --clip_norm=0.5"
COMMANDS = {
    "plain": MLP,
    "xla": f"{MLP} --xla=on",
    "hierarchical_copy": f"{MLP} --all_reduce=hierarchical_copy",
    "ring": f"{MLP} --all_reduce=ring --pack_mb=0.02",
    "bfloat16": f"{MLP} --gradient_dtype=bfloat16 --pack_mb=0.02",
    "bfloat16-alone": f"{MLP} --gradient_dtype=bfloat16".replace("replicas=2", "replicas=1"),
    "cnn": "--model=cnn --learning_rate=0.05",
    "cnn-xla": "--model=cnn --learning_rate=0.05 --xla=on",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variables]:
    folder = tmp_path_factory.mktemp("exchange")

    def train(name: str) -> Variables:
        out = folder / f"{name}.npz"
        ended = call(f"{out} {COMMANDS[name]}", folder, module="tests.trainer.layers.train_random")
        assert ended.code == 0, f"{name}: {ended.err}"
        return dict(np.load(out))

    return in_parallel({name: functools.partial(train, name) for name in COMMANDS})


def worst(a: Variables, b: Variables) -> tuple[float, str]:
    assert a.keys() == b.keys()
    names = [name for name in a if name not in ("traces", "notes")]
    return max((relative_difference(a[name], b[name]), name) for name in names)


@pytest.mark.parametrize("name", ["xla", "hierarchical_copy", "ring"])
def test_two_replicas_come_to_the_same_weights(trained: dict[str, Variables], name: str) -> None:
    """Each on examples of its own: a compiled pass that read another replica's weights would not.

    The tolerance is that between replica counts: the order of summation.
    """
    difference, variable = worst(trained["plain"], trained[name])
    assert difference <= 1e-5, variable


def test_cpus_sum_in_one_place_unless_told_otherwise() -> None:
    assert isinstance(cross_device_ops("auto", "CPU"), tf.distribute.ReductionToOneDevice)
    assert cross_device_ops("auto", "GPU") is cross_device_ops("ring", "CPU") is None


def test_tracing_a_gradient_does_not_walk_through_the_sums_of_other_replicas() -> None:
    """With ResNet-20 on four replicas that took 40 of 50 seconds."""
    part = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        total = cross_device_ops("auto", "CPU").accumulation_fn([part.read_value(), part])
    assert total.numpy().tolist() == [2.0, 4.0]
    assert tape.gradient(total, part) is None


def test_a_compiled_network_with_batch_normalization_comes_to_the_same_weights(
    trained: dict[str, Variables],
) -> None:
    difference, variable = worst(trained["cnn"], trained["cnn-xla"])
    assert difference <= 1e-5, variable


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16-alone"])
def test_gradients_that_travel_in_bfloat16_are_rounded_and_no_worse(
    trained: dict[str, Variables], name: str
) -> None:
    """8 bits: a relative 2^-8 a gradient at most, of which 20 updates of the weights show less."""
    plain, rounded = trained["plain"], trained[name]
    names = [name for name in plain if name.startswith("model/") and name.endswith("kernel")]
    differences = [relative_difference(plain[name], rounded[name]) for name in names]
    assert min(differences) > 1e-6 and max(differences) < 2**-8


def test_a_run_traces_its_step_exactly_once(trained: dict[str, Variables]) -> None:
    """Whatever the lengths of its blocks are, and with the trace before the first step."""
    assert {name: int(run["traces"]) for name, run in trained.items()} == dict.fromkeys(COMMANDS, 1)


def test_pieces_are_cut_from_the_end_and_join_to_the_whole_that_comes_apart_again() -> None:
    shapes = ([4], [1], [2, 1], [1, 3], [5], [])
    tensors = [tf.fill(shape, float(n)) for n, shape in enumerate(shapes)]
    whole = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0).numpy()
    assert [len(piece) for piece in join(tensors, 20)] == [5, 5, 6]
    for pieces, count in {"one": 1, "per_variable": 6, 1: 6, 20: 3, 1000: 1}.items():
        joined = join(tensors, pieces)
        flat = [tf.reshape(piece, [-1]) for piece in joined]
        assert np.array_equal(tf.concat(flat, axis=0), whole)
        assert len(joined) == count
        apart = take_apart(joined, [tensor.shape for tensor in tensors])
        assert all(np.array_equal(a, b) for a, b in zip(apart, tensors, strict=True))


@pytest.mark.parametrize(
    ("pieces", "sizes"), [("one", [10, 12]), ("per_variable", [10, 3, 4, 5]), (20, [10, 7, 5])]
)
def test_sums_come_out_of_their_packs_as_they_went_in(pieces: Pieces, sizes: list[int]) -> None:
    gradient = [tf.range(3.0), tf.ones([2, 2]), tf.range(5.0)]
    state = {3: tf.eye(2), 5: tf.constant(7.0)}
    loss, weight, square, stop, accuracy = map(tf.constant, (0.0, 1.0, 2.0, 4.0, 3.0))
    sums = Sums(loss, weight, square, stop, {"accuracy": accuracy}, state, join(gradient, pieces))
    packs = sums.pack()
    assert [pack.shape.num_elements() for pack in packs] == sizes
    again = sums.unpack(packs)
    assert again.state.keys() == state.keys()
    assert all(np.array_equal(again.state[place], state[place]) for place in state)
    assert [float(number) for number in again[:4]] == [0.0, 1.0, 2.0, 4.0]
    assert again.scores == {"accuracy": 3.0}
    apart = take_apart(again.gradient, [part.shape for part in gradient])
    assert all(np.array_equal(a, b) for a, b in zip(apart, gradient, strict=True))


def test_a_single_micro_batch_on_a_cpu_has_a_piece_for_each_variable() -> None:
    assert choose_pieces(0, "CPU", 1, True) == choose_pieces(4000, "CPU", 1, False)
    assert choose_pieces(0, "CPU", 1, True) == "per_variable"
    assert choose_pieces(0, "CPU", 2, True) == choose_pieces(0, "GPU", 1, False) == "one"
    assert choose_pieces(4000, "CPU", 2, True) == choose_pieces(4000, "GPU", 1, True) == 4000
    # Gathered in one piece, all replicas' gradients would be in a GPU's memory at once.
    assert choose_pieces(0, "GPU", 2, True) == 32_000_000


def words_model() -> keras.Model:
    """A model with a layer that XLA has no kernels for, behind one that takes two arguments."""

    class Words(keras.layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return x + tf.strings.to_number(tf.strings.as_string(tf.stop_gradient(x)))

    images = keras.Input((4, 4, 1), dtype="uint8")
    x = keras.layers.Reshape((4, 4))(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.MultiHeadAttention(2, 4, dropout=0.5)(query=x, value=x)
    x = keras.layers.Flatten()(x)
    x = Words(name="words")(keras.layers.Dense(3, name="before")(x))
    return keras.Model(images, keras.layers.Dense(2, name="after")(x), name="speller")


IMAGES = tf.TensorSpec([4, 4, 4, 1], tf.uint8)
PIXELS = tf.TensorSpec([4, 4, 4, 1])


def test_the_layer_that_cannot_be_compiled_is_named() -> None:
    model = words_model()
    before = [variable.numpy() for variable in model.variables]
    reason = why_not(model, IMAGES, replicas=2)
    assert reason.startswith("XLA cannot compile the layer words (Words) of speller: ")
    assert all(np.array_equal(a, v) for a, v in zip(before, model.variables, strict=True))
    with pytest.raises(ValueError, match=r"^--xla=on, but XLA .* words .*; use --xla=auto, which"):
        choose_xla("on", "on", model, IMAGES, 2)
    compile_it, note = choose_xla("on", "auto", model, IMAGES, 2)
    assert not compile_it and note.startswith(
        "xla: not compiled, XLA cannot compile the layer words"
    )
    for planned in ("off", "auto"):  # which is measured later
        assert choose_xla(planned, "auto", model, IMAGES, 2) == (False, None)


def test_a_collective_within_the_forward_pass_is_named() -> None:
    images = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(synchronized=True, name="norm")(images)
    model = keras.Model(images, keras.layers.Flatten()(x), name="net")
    assert "the synchronized BatchNormalization norm of net sums over 2 replicas" in why_not(
        model, PIXELS, replicas=2
    )
    moving = [variable.numpy() for variable in model.non_trainable_variables]
    assert why_not(model, PIXELS, replicas=1) is None
    assert all(
        np.array_equal(a, v) for a, v in zip(moving, model.non_trainable_variables, strict=True)
    )
    assert model.get_layer("norm").synchronized


def test_sparse_gradients_are_named_with_what_they_cost() -> None:
    pixels = keras.Input((4,), dtype="uint8")
    table = keras.layers.Embedding(1000, 250, name="table")
    model = keras.Model(pixels, keras.layers.Flatten()(table(pixels)))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(np.zeros([2, 4], "uint8")))
    assert isinstance(tape.gradient(total, table.embeddings.value), tf.IndexedSlices)
    text = sparse_text(model)
    assert text == "sparse gradients of table/embeddings are made dense: 1 MB an update"
    table.trainable = False
    assert sparse_text(model) is None


def test_nccl_on_cpus_is_an_error(tmp_path: pathlib.Path) -> None:
    ended = call("--device=cpu --dataset=digits --all_reduce=nccl", tmp_path, module="launch.plan")
    assert ended.code == 2
    assert ended.err == (
        "error: --all_reduce=nccl sums over GPUs and this run takes CPUs; use auto, or ring.\n"
    )
