"""The optimizers by name with their arguments, `lamb(beta_2=0.99)`: all of Keras's, and LARS.

A table written out, since deriving it from Keras would load TensorFlow before the plan is shown; a
test holds it to Keras's own signatures.
"""

from collections.abc import Mapping

from trainer.optimizer.variable_groups import check_pattern
from trainer.plan.call_syntax import Call, Parameter, Value, bind, choose, parse_call

_BETAS = (Parameter("beta_1", "share", 0.9), Parameter("beta_2", "share", 0.999))
_ADAM = (*_BETAS, Parameter("epsilon", "number", 1e-7))
_AMSGRAD = Parameter("amsgrad", "bool", False)
_ACCUMULATOR = Parameter("initial_accumulator_value", "number", 0.1)

# With Keras's defaults, but that sgd's momentum is --momentum's, and Nesterov's.
OPTIMIZERS: dict[str, tuple[Parameter, ...]] = {
    "sgd": (Parameter("momentum", "share", None), Parameter("nesterov", "bool", True)),
    "lars": (
        Parameter("momentum", "share", None),
        Parameter("nesterov", "bool", False),
        Parameter("trust_coefficient", "number", 0.001),
        Parameter("epsilon", "number", 0.0),
    ),
    "adam": (*_ADAM, _AMSGRAD),
    "adamw": (*_ADAM, _AMSGRAD),
    "nadam": _ADAM,
    "adamax": _ADAM,
    "lamb": _ADAM,
    "lion": (Parameter("beta_1", "share", 0.9), Parameter("beta_2", "share", 0.99)),
    "schedule_free_adamw": (*_BETAS, Parameter("epsilon", "number", 1e-8)),
    "muon": (
        Parameter("momentum", "share", 0.95),
        Parameter("nesterov", "bool", True),
        Parameter("ns_steps", "count", 5),
        # A regular expression of the paths of variables that take Adam's update instead.
        Parameter("exclude_layers", "text", None),
        Parameter("exclude_embeddings", "bool", True),
        Parameter("rms_rate", "number", 0.2),  # 0: Keras's None
        Parameter("muon_a", "real", 3.4445),
        Parameter("muon_b", "real", -4.775),
        Parameter("muon_c", "real", 2.0315),
        Parameter("adam_beta_1", "share", 0.9),
        Parameter("adam_beta_2", "share", 0.999),
        Parameter("adam_lr_ratio", "number", 1.0),
        Parameter("epsilon", "number", 1e-7),
    ),
    "rmsprop": (
        Parameter("rho", "share", 0.9),
        Parameter("momentum", "share", 0.0),
        Parameter("epsilon", "number", 1e-7),
        Parameter("centered", "bool", False),
    ),
    "adagrad": (_ACCUMULATOR, Parameter("epsilon", "number", 1e-7)),
    "adadelta": (Parameter("rho", "share", 0.95), Parameter("epsilon", "number", 1e-7)),
    "adafactor": (
        Parameter("beta_2_decay", "real", -0.8),
        Parameter("epsilon_1", "number", 1e-30),
        Parameter("epsilon_2", "number", 0.001),
        Parameter("clip_threshold", "number", 1.0),
    ),
    "ftrl": (
        Parameter("learning_rate_power", "real", -0.5),
        _ACCUMULATOR,
        Parameter("l1_regularization_strength", "number", 0.0),
        Parameter("l2_regularization_strength", "number", 0.0),
        Parameter("l2_shrinkage_regularization_strength", "number", 0.0),
        Parameter("beta", "number", 0.0),
    ),
}
# What Keras takes as an argument and a flag does here, for every optimizer alike.
FLAGS = {
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "adam_weight_decay": "weight_decay",
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_norm",
    "clipvalue": "clip_value",
    "use_ema": "ema",
    "ema_momentum": "ema",
    "ema_overwrite_frequency": "ema",
    "loss_scale_factor": "precision",
    "gradient_accumulation_steps": "micro_batch",
    "warmup_steps": "warmup",
    "relative_step": "decay",
}
# The constant that one_cycle moves, by optimizer.
MOVING = {"sgd": "momentum", "lars": "momentum"} | dict.fromkeys(
    ("adam", "adamw", "nadam", "adamax", "lamb", "lion"), "beta_1"
)
_MOST_NS_STEPS = 100
# Whose constants --scale_betas scales.
SCALED_BETAS = ("adam", "adamw", "lamb")


def parse_optimizer(text: str) -> tuple[str, dict[str, Value]]:
    """Reads `sgd` or `lamb(beta_2=0.99)`: a name and all of its arguments, as Keras calls them.

    Raises:
      ValueError: there is no such optimizer or argument, or it takes another value.
    """
    call = parse_call(text)
    choose("optimizer", call.name, tuple(OPTIMIZERS))
    for key, _ in call.arguments:
        if key in FLAGS:
            raise ValueError(f"{key} is no argument of {call.name} here; use --{FLAGS[key]}.")
    arguments = bind(call, OPTIMIZERS[call.name])
    _check(call, arguments)
    return call.name, arguments


def _check(call: Call, arguments: Mapping[str, Value]) -> None:
    if call.name in ("lion", "schedule_free_adamw") and not arguments["beta_1"]:
        raise ValueError(f"the argument beta_1 of {call.name} is 0; give one above 0.")
    for name in ("learning_rate_power", "beta_2_decay"):
        if arguments.get(name, 0.0) > 0:
            raise ValueError(f"the argument {name} of {call.name} is above 0; give one below.")
    if arguments.get("ns_steps") == 0 or arguments.get("clip_threshold") == 0:
        raise ValueError(f"an argument of {call.name} is 0; give one above 0.")
    if arguments.get("ns_steps", 0) > _MOST_NS_STEPS:  # each is a part of the program
        raise ValueError(f"the argument ns_steps is more than {_MOST_NS_STEPS}; give fewer.")
    check_pattern(arguments.get("exclude_layers") or "")
