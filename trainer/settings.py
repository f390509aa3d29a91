"""What the user asked for, as frozen dataclasses; only `launch/flags.py` fills them."""

import dataclasses

from trainer.durations import Duration


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run as a whole: where it writes, how long it trains, how often the host acts."""

    run_dir: str
    seed: int
    train_for: Duration
    eval_every: Duration
    checkpoint_every: Duration
    log_every: Duration
    steps_per_loop: int  # 0: as many as take about half a second
    resume: str  # auto or never


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """The devices and how a global batch is cut up for them."""

    device: str  # auto, gpu or cpu
    replicas: int | None  # None: every GPU, or one CPU
    global_batch: int
    accumulate: int


@dataclasses.dataclass(frozen=True)
class LearningRateSettings:
    """The learning rate at the reference batch and what happens to it."""

    learning_rate: float
    scaling: str  # linear, sqrt or none
    reference_batch: int
    warmup: Duration
    decay: str  # constant or cosine
    end_learning_rate: float  # at the reference batch, scaled like learning_rate


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and what is done to the gradients before it."""

    optimizer: str  # sgd or adamw
    momentum: float
    weight_decay: float
    clip_norm: float  # 0: no clipping
    label_smoothing: float


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the trainer is asked for; the data's settings live in `input_pipeline`."""

    run: RunSettings
    devices: DeviceSettings
    model: str
    learning_rate: LearningRateSettings
    optimizer: OptimizerSettings
