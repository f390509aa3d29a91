"""The optimizers one by one: the table against Keras, LARS and the corrections against NumPy."""

import inspect
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from launch.flags.command import flagfile_text, read_command
from trainer.learning_rate.learning_rate import LearningRate
from trainer.optimizer.lars import Lars
from trainer.optimizer.optimizers import _KERAS, make_optimizer
from trainer.plan.call_syntax import Value
from trainer.plan.curves import LearningRatePlan
from trainer.plan.learning_rate import scaled_betas
from trainer.plan.optimizers import FLAGS, MOVING, OPTIMIZERS, parse_optimizer

# Wrappers of optimizers: --precision is what the first does, --lr_multiplier nearly the others.
WRAPPERS = {"LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"}
# By optimizer the arguments whose default or form differs from Keras's on purpose.
OUR_OWN = {"sgd": {"momentum": None, "nesterov": True}}
RATE = 0.1


def test_the_table_has_all_optimizers_of_keras() -> None:
    here = {name for name, _ in inspect.getmembers(keras.optimizers, inspect.isclass)}
    assert {c.__name__ for c in _KERAS.values()} == here - WRAPPERS - {"Optimizer"}
    assert set(_KERAS) | {"lars"} == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_table_has_all_arguments_of_keras_with_their_defaults(name: str) -> None:
    own = Lars if name == "lars" else _KERAS[name]
    signature = inspect.signature(own.__init__).parameters
    theirs = {
        key: parameter.default
        for key, parameter in signature.items()
        if key not in {"self", "kwargs", "name", *FLAGS}
    }
    ours = {parameter.name: parameter.default for parameter in OPTIMIZERS[name]}
    if name == "lars":
        theirs["momentum"] = None
    assert ours == theirs | OUR_OWN.get(name, {})


def settings(*arguments: str) -> dict[str, Value]:
    return read_command(["--device=cpu", *arguments]).settings.optimizer.arguments


def test_momentum_is_a_short_form_for_those_that_ask_for_it(tmp_path: pathlib.Path) -> None:
    assert settings() == {"momentum": 0.9, "nesterov": True}
    assert settings("--momentum=0.8") == {"momentum": 0.8, "nesterov": True}
    assert settings("--optimizer=sgd(0.7,nesterov=false)") == {"momentum": 0.7, "nesterov": False}
    assert settings("--optimizer=lars", "--momentum=0.5")["momentum"] == 0.5
    assert settings("--optimizer=rmsprop")["momentum"] == 0.0
    # What a run writes for repeating it holds both.
    command = read_command(["--device=cpu", "--optimizer=sgd(momentum=0.7)"])
    path = tmp_path / "flags.txt"
    path.write_text(flagfile_text(command))
    assert settings(f"--flagfile={path}") == {"momentum": 0.7, "nesterov": True}


def test_betas_given_are_the_ones_that_are_scaled() -> None:
    command = read_command(["--optimizer=lamb(beta_2=0.99)", "--lr_scaling=sqrt", "--scale_betas"])
    scaled, because = scaled_betas(
        command.settings.learning_rate, command.settings.optimizer, global_batch=1024
    )
    assert scaled == pytest.approx({"beta_1": 0.6, "beta_2": 0.96, "epsilon": 0.5e-7})
    assert because == "1 − β times 4, ε over its root"


def built(
    name: str,
    variables: list[keras.Variable],
    *,
    text: str = "",
    momentum: float | None = None,
    decays: list[float] | None = None,
) -> keras.optimizers.Optimizer:
    """An optimizer as a run has it, at a rate of `RATE`; with a momentum that a schedule moves."""
    plan = LearningRatePlan(RATE, 0.0, 10, "none", 0, 0.0, "constant")
    rate = LearningRate(plan, tf.distribute.get_strategy())
    rate.applied.assign(RATE)
    if momentum is not None:
        rate.momentum = tf.Variable(momentum)
    _, arguments = parse_optimizer(text or name)
    if arguments.get("momentum", 0) is None:
        arguments["momentum"] = 0.9
    ones = [1.0] * len(variables)
    return make_optimizer(name, arguments, rate, variables, ones, decays or [0.0] * len(variables))


def weights() -> list[keras.Variable]:
    random = np.random.default_rng(0)
    return [keras.Variable(random.normal(size=s).astype("float32")) for s in ((3, 4), (4,))]


def gradients(step: int) -> list[np.ndarray]:
    random = np.random.default_rng(1 + step)
    return [random.normal(size=s).astype("float32") for s in ((3, 4), (4,))]


def trained(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]) -> None:
    for step in range(4):
        optimizer.apply([tf.constant(g) for g in gradients(step)], variables)


@pytest.mark.parametrize("name", MOVING)
def test_a_momentum_that_a_schedule_holds_still_is_the_constant(name: str) -> None:
    moved, constant = weights(), weights()
    trained(built(name, moved, momentum=0.7), moved)
    trained(built(name, constant, text=f"{name}({MOVING[name]}=0.7)"), constant)
    for a, b in zip(moved, constant, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_kernel_of_sgd_gives_what_keras_gives(nesterov: bool) -> None:
    ours, theirs = weights(), weights()
    trained(built("sgd", ours, text=f"sgd(0.9,nesterov={str(nesterov).lower()})"), ours)
    keras_own = keras.optimizers.SGD(RATE, momentum=0.9, nesterov=nesterov)
    keras_own.build(theirs)
    trained(keras_own, theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_kernel_of_adam_is_the_formula_of_its_paper(amsgrad: bool) -> None:
    variables = weights()
    text = f"adam(0.8,0.99,epsilon=0.01,amsgrad={str(amsgrad).lower()})"
    trained(built("adam", variables, text=text), variables)
    for i, w in enumerate(np.float64(w.numpy()) for w in weights()):
        m, v, highest = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
        for step in range(4):
            g = np.float64(gradients(step)[i])
            m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g**2
            highest = np.maximum(highest, v) if amsgrad else v
            rate = RATE * np.sqrt(1 - 0.99 ** (step + 1)) / (1 - 0.8 ** (step + 1))
            w = w - rate * m / (np.sqrt(highest) + 0.01)
        # A float32 of 0.99 is off by 1e-8, and 1 minus it by 1e-6 of itself.
        np.testing.assert_allclose(variables[i].numpy(), w, rtol=1e-5, atol=1e-6)


def lars(nesterov: bool, decays: list[float]) -> list[np.ndarray]:
    """You et al. 2017, algorithm 1, of the weights above; the second is no matrix: λ = 1."""
    found = [np.float64(w.numpy()) for w in weights()]
    velocities = [np.zeros_like(w) for w in found]
    for step in range(4):
        for i, gradient in enumerate(gradients(step)):
            w, g, decay = found[i], np.float64(gradient), decays[i]
            norm = np.linalg.norm(w)
            trust = 0.01 * norm / (np.linalg.norm(g) + decay * norm) if w.ndim == 2 else 1.0
            change = RATE * trust * (g + decay * w)
            velocities[i] = 0.8 * velocities[i] - change
            found[i] = w + (0.8 * velocities[i] - change if nesterov else velocities[i])
    return found


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decays", [[0.0, 0.0], [0.3, 0.0], [0.3, 0.2]])
def test_lars_is_algorithm_1_of_its_paper(nesterov: bool, decays: list[float]) -> None:
    variables = weights()
    text = f"lars(momentum=0.8,trust_coefficient=0.01,nesterov={str(nesterov).lower()})"
    trained(built("lars", variables, text=text, decays=decays), variables)
    for variable, expected in zip(variables, lars(nesterov, decays), strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_lars_leaves_the_rate_alone_where_a_norm_is_0() -> None:
    zero, still = keras.Variable(np.zeros((2, 2), "float32")), keras.Variable(np.ones((2, 2)))
    optimizer = built("lars", [zero, still], text="lars(momentum=0)")
    optimizer.apply([tf.ones((2, 2)), tf.zeros((2, 2))], [zero, still])
    np.testing.assert_allclose(zero.numpy(), -RATE)
    np.testing.assert_array_equal(still.numpy(), 1.0)


def test_lars_alone_is_saved_with_a_model_and_loaded(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    optimizer = Lars(0.2, momentum=0.7, nesterov=True, trust_coefficient=0.02, weight_decay=0.1)
    model.compile(optimizer, "mse")
    x, y = np.ones((8, 3), "float32"), np.zeros((8, 4), "float32")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert json.dumps(loaded.optimizer.get_config()) == json.dumps(optimizer.get_config())
    for either in (model, loaded):
        either.fit(x, y, verbose=0)
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# Rates of the updates: as they are, after a warmup of four, with a cosine, with a person's changes
# and a start and end at 0, and so small that their squares are no float32 numbers.
RATES = {
    "constant": [RATE] * 8,
    "warmup": [RATE * min(1.0, t / 4) for t in range(1, 9)],
    "cosine": [RATE * (1 + np.cos(np.pi * t / 8)) / 2 for t in range(8)],
    "control": [0.0, RATE, RATE * 10, RATE * 10, RATE / 100, 0.0, RATE, 0.0],
    "tiny": [1e-25, 2e-25, 1e-25, 4e-25],
}


def schedule_free(rates: list[float], i: int, decay: float, factor: float) -> np.ndarray:
    """Algorithm 1 of Defazio et al. 2024, of one of the weights above."""
    x = y = z = np.float64(weights()[i].numpy())
    velocity, squares = np.zeros_like(z), 0.0
    for step, rate in enumerate(rates):
        g, own = np.float64(gradients(step)[i]), rate * factor
        velocity = 0.999 * velocity + 0.001 * g**2
        corrected = velocity / (1 - 0.999 ** (step + 1))
        z = z - own * g / (np.sqrt(corrected) + 1e-8) - own * decay * y
        squares += rate**2
        share = rate**2 / squares if squares else 0.0
        x = (1 - share) * x + share * z
        y = 0.1 * z + 0.9 * x
    return y


@pytest.mark.parametrize("cut", [0, 3])
@pytest.mark.parametrize("name", RATES)
def test_schedule_free_averages_by_the_squares_of_the_rates(name: str, cut: int) -> None:
    """Also where another process goes on with what a checkpoint has after `cut` updates."""
    variables, decays, factors = weights(), [0.3, 0.0], [1.0, 0.5]
    optimizer = built("schedule_free_adamw", variables, decays=decays)
    optimizer.multipliers = tuple(factors)
    for step, rate in enumerate(RATES[name]):
        if step == cut:
            state = [v.numpy() for v in (*variables, *optimizer.variables)]
            variables = weights()
            optimizer = built("schedule_free_adamw", variables, decays=decays)
            optimizer.multipliers = tuple(factors)
            for variable, value in zip((*variables, *optimizer.variables), state, strict=True):
                variable.assign(value)
        optimizer._learning_rate.applied.assign(rate)
        optimizer.apply([tf.constant(g) for g in gradients(step)], variables)
    for i, variable in enumerate(variables):
        expected = schedule_free(RATES[name], i, decays[i], factors[i])
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_lambs_weight_decay_is_decoupled_and_outside_its_trust_ratio() -> None:
    variables = weights()
    optimizer = built("lamb", variables, decays=[0.3, 0.0])
    optimizer.apply([tf.constant(g) for g in gradients(0)], variables)
    for before, after, g, decay in zip(weights(), variables, gradients(0), (0.3, 0.0), strict=True):
        w = np.float64(before.numpy()) * (1 - RATE * decay)
        update = g / (np.abs(g) + 1e-7)  # of the first step
        w -= RATE * np.linalg.norm(w) / np.linalg.norm(update) * update
        np.testing.assert_allclose(after.numpy(), w, rtol=1e-5)
