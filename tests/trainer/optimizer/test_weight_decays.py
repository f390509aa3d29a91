"""Weight decay by pattern: what is read, which variable gets which, and what is refused."""

import pytest

from trainer.models.make_model import make_model
from trainer.optimizer.variable_groups import check_speed, group_decays, parse_weight_decay
from trainer.plan.dataset import DatasetFacts

MODEL = make_model("mlp", DatasetFacts("random", 10, 10, 10, (8, 8, 1)))


def decays(text: str) -> dict[str, float]:
    found, _ = group_decays(MODEL, *parse_weight_decay(text))
    return {v.path: decay for v, decay in zip(MODEL.trainable_variables, found, strict=True)}


def test_biases_are_left_out_unless_a_pattern_takes_them() -> None:
    kernels, biases = (
        {f"{layer}/{part}" for layer in ("dense1", "dense2", "logits")}
        for part in ("kernel", "bias")
    )
    assert decays("1e-4") == dict.fromkeys(kernels, 1e-4) | dict.fromkeys(biases, 0.0)
    expected = (
        decays("1e-4")
        | {"dense1/kernel": 0.0}
        | dict.fromkeys(("logits/kernel", "logits/bias"), 1e-3)
    )
    assert decays("1e-4,.*1/kernel=0,logits=1e-3") == expected


def test_the_groups_say_which_variables_each_pattern_took() -> None:
    _, groups = group_decays(MODEL, *parse_weight_decay("1e-4,dense./kernel=0.5"))
    assert [(g.name, g.factor, g.paths) for g in groups] == [
        ("dense./kernel", 0.5, ("dense1/kernel", "dense2/kernel")),
        ("biases and normalization", 0.0, ("dense1/bias", "dense2/bias", "logits/bias")),
        ("rest", 1e-4, ("logits/kernel",)),
    ]
    # Without a pattern there is nothing to say.
    assert group_decays(MODEL, *parse_weight_decay("1e-4"))[1] == []


def test_a_pattern_that_takes_no_variable_is_refused() -> None:
    sentence = "--weight_decay: the pattern 'head' took no variable; the model has dense1/kernel"
    with pytest.raises(ValueError, match=sentence):
        decays("1e-4,head=0")
    with pytest.raises(ValueError, match="'dense1/kernel' took no variable"):
        decays("1e-4,dense1=0,dense1/kernel=1")


@pytest.mark.parametrize("pattern", ["(.*)*y", r"(\w|\w\w)+-", "(x+x+)+y", "((a|[^/])*)*$x"])
def test_a_pattern_that_would_match_for_ever_is_refused(pattern: str) -> None:
    paths = ["x" * 40, "resnet/stage2_block0_conv1_normalization/moving_variance"]
    with pytest.raises(ValueError, match="takes too long to match"):
        check_speed([pattern], paths)
    check_speed([".*/kernel", "(block[0-9]+/)*conv", "(?!head).*"], paths * 50)
