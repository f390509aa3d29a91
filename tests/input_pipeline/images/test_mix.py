"""mixup and cutmix against the same written down in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.checks import check_mixing
from input_pipeline.images.mix import beta_quantile, cutmix_window, mix_examples
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import evaluation_stream, training_stream

SOURCE = open_source(DataSettings("synthetic:9x7x3"), "train")
Batch = dict[str, np.ndarray]


def steps(count: int = 1, *, first_position: int = 0, **settings: float) -> Batch:
    """The rows of the first steps, 48 examples each."""
    layout = Layout(48, **{k: settings.pop(k) for k in ("replicas", "accumulate") if k in settings})
    stream = training_stream(
        SOURCE,
        layout=layout,
        seed=5,
        augment="none",
        first_position=first_position,
        **settings,
    )
    batches = list(stream.take(count * layout.micro_batches_per_step).as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def partner(rows: np.ndarray) -> np.ndarray:
    return rows[np.arange(len(rows)) ^ 1]


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 2.5])
def test_a_quantile_is_where_the_distribution_reaches_the_draw(alpha: float) -> None:
    uniform = np.linspace(0.001, 0.999, 57, dtype=np.float32)
    quantiles = beta_quantile(tf.constant(uniform), alpha).numpy().astype(np.float64)
    # The density is x^(α−1) (1−x)^(α−1); in t = x^α its pole at 0 is gone. 1 is like 0.
    edges = np.linspace(0, 0.5**alpha, 400_001)
    inner = (1 - ((edges[:-1] + edges[1:]) / 2) ** (1 / alpha)) ** (alpha - 1)
    half = np.concatenate([[0], np.cumsum(inner)]) / (2 * inner.sum())
    low = np.interp(np.minimum(quantiles, 1 - quantiles) ** alpha, edges, half)
    reached = np.where(quantiles < 0.5, low, 1 - low)
    # Where the density has its pole, 2⁻²⁴ of the quantile is (2⁻²⁴)^α of the probability.
    inside = (quantiles > 1e-4) & (quantiles < 1 - 1e-4)
    assert inside.sum() >= 20
    assert np.abs(reached - uniform)[inside].max() < 1e-3
    assert np.abs(quantiles + beta_quantile(tf.constant(1 - uniform), alpha) - 1).max() < 1e-5


def test_shares_are_spread_as_a_beta_distribution_is() -> None:
    mix = steps(60, mixup=0.4)["mix"]
    assert abs(mix.mean() - 0.5) < 0.03
    assert abs(mix.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01


def test_mixup_is_the_papers_formula_rounded() -> None:
    plain, mixed = steps(2), steps(2, mixup=0.7)
    share = mixed["mix"].astype(np.float64)[:, None, None, None]
    exact = share * plain["image"] + (1 - share) * partner(plain["image"])
    assert np.abs(mixed["image"] - exact).max() <= 0.5 + 1e-4
    assert np.array_equal(mixed["label"], plain["label"])
    assert np.array_equal(mixed["label_b"], partner(plain["label"]))
    assert mixed["image"].dtype == np.uint8 and mixed["mix"].dtype == np.float32
    assert mixed["label_b"].dtype == np.int64


def test_cutmix_puts_a_window_of_the_partner_in_and_counts_what_remains() -> None:
    plain, mixed = steps(4), steps(4, cutmix=1.0)
    foreign = (mixed["image"] != plain["image"]).any(axis=3)
    for index, there in enumerate(foreign):
        other = plain["image"][index ^ 1]
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        if not len(rows):
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert np.array_equal(mixed["image"][index][window], other[window])
        # Noise images agree in a pixel now and then, so the window may seem smaller than it is.
        area = (1 - mixed["mix"][index]) * 63
        assert abs(area - round(float(area))) < 1e-4
        assert there[window].size <= round(float(area)) <= there[window].size + 9
    assert (foreign.any(axis=(1, 2))).mean() > 0.7


def test_the_window_is_that_of_the_published_code() -> None:
    random = np.random.RandomState(0)
    own, draws = random.uniform(size=50), random.uniform(size=(50, 2))
    ours = cutmix_window(
        (50, 40, 30, 3), tf.constant(own, tf.float32), tf.constant(draws, "float32")
    )
    for index in range(50):
        expected = np.zeros((40, 30, 1))
        cut = [int(length * np.sqrt(1 - own[index])) for length in (40, 30)]
        middle = [int(length * draw) for length, draw in zip((40, 30), draws[index], strict=True)]
        y, x = (
            slice(max(m - c // 2, 0), min(m + c // 2, length))
            for m, c, length in zip(middle, cut, (40, 30), strict=True)
        )
        expected[y, x] = 1
        assert np.array_equal(ours[index].numpy(), expected)


def test_with_both_a_fair_draw_chooses_one_of_the_two() -> None:
    both, cut = steps(20, mixup=0.8, cutmix=0.8), steps(20, cutmix=0.8)
    up = steps(20, mixup=0.8)
    is_up = (both["image"] == up["image"]).all(axis=(1, 2, 3)) & (both["mix"] == up["mix"])
    is_cut = (both["image"] == cut["image"]).all(axis=(1, 2, 3)) & (both["mix"] == cut["mix"])
    assert (is_up | is_cut).all()
    assert 0.4 < (is_up & ~is_cut).mean() < 0.6 and 0.4 < (is_cut & ~is_up).mean() < 0.6


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_neither_the_layout_nor_a_restart_matters(alphas: dict[str, float]) -> None:
    together = steps(3, **alphas)
    for layout in [{"replicas": 4}, {"accumulate": 3, "replicas": 2}]:
        for name, rows in steps(3, **alphas, **layout).items():
            assert np.array_equal(rows, together[name]), name
    for name, rows in steps(1, first_position=96, **alphas).items():
        assert np.array_equal(rows, together[name][96:]), name


def test_without_mixing_nothing_is_added() -> None:
    assert set(steps()) == {"image", "label", "weight", "position", "record"}
    evaluation = evaluation_stream(open_source(DataSettings("digits"), "eval"), layout=Layout(8))
    assert set(evaluation.element_spec) == set(steps())


def test_a_partner_of_no_weight_gives_nothing() -> None:
    images = tf.constant(np.random.RandomState(0).randint(0, 256, (4, 6, 6, 1)), tf.uint8)
    for alphas in [{"mixup": 1.0, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}]:
        mixed, label_b, mix = mix_examples(
            images,
            tf.constant([1, 0, 2, 3], tf.int64),
            tf.constant([1.0, 0.0, 1.0, 1.0]),
            positions=tf.range(6, 10, dtype=tf.int64),
            seed=1,
            **alphas,
        )
        assert mix[0] == 1 and np.array_equal(mixed[0], images[0])
        assert mix[2] < 1 and not np.array_equal(mixed[2], images[2])
        assert label_b.numpy().tolist() == [0, 1, 3, 2]


def test_an_odd_micro_batch_is_refused() -> None:
    check_mixing(0.0, 0.0, 3)
    check_mixing(0.2, 1.0, 4)
    with pytest.raises(ValueError, match=r"a micro-batch has 3; use an even --micro_batch"):
        check_mixing(0.2, 0.0, 3)
    with pytest.raises(ValueError, match="a micro-batch has 1;"):
        steps(cutmix=1.0, replicas=48)
