"""Settings as frozen dataclasses; only `launch/flags` fills them."""

import dataclasses

from trainer.plan.call_syntax import Value
from trainer.plan.curve_settings import CurveSettings
from trainer.plan.durations import Duration
from trainer.plan.span import NO_STEPS, Span


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run as a whole: where it writes, how long it trains, how often the host acts."""

    run_dir: str
    seed: int
    train_for: Duration
    eval_every: Duration
    checkpoint_every: Duration  # or minutes
    log_every: Duration
    steps_per_loop: int  # 0: as many as take about half a second
    resume: str  # auto, exact or never
    check_replicas_every: Duration
    audit_every: Duration
    histograms_every: Duration
    deterministic: bool = False  # the same bits again, at the cost of speed
    on_nonfinite: str = "stop"  # stop or skip
    locate_nonfinite: bool = False
    pictures: str = "auto"  # for TensorBoard: where they are cheap; or always or never
    profile: Span = NO_STEPS  # those that are profiled
    tracker: str = "none"  # that the log is sent to, too: mlflow or wandb


@dataclasses.dataclass(frozen=True)
class Communication:
    """How the replicas' gradients are summed; see `trainer.replicas.all_reduce`."""

    all_reduce: str = "auto"  # nccl, ring, hierarchical_copy or reduce_to_one
    pack_bytes: int = 0  # 0: everything in one piece
    gradient_dtype: str = "float32"  # or bfloat16
    exact_sums: str = "auto"  # on or off: in one order on any number of replicas


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """The devices and how a global batch is cut up for them."""

    device: str  # auto, gpu or cpu
    replicas: int | None  # None: every GPU, or one CPU
    global_batch: int
    micro_batch: int = 0  # examples that a replica takes at a time; 0: its share of the batch
    threads: int = 0  # of an operation on the processor; 0: as many as it has cores
    precision: str = "float32"  # or bfloat16, float16, or auto: what the devices are fast in
    tf32: bool = True
    xla: str = "off"  # on or auto, which measures
    gpus: tuple[int, ...] = ()  # those to choose from, as nvidia-smi numbers them; empty: all
    gpu_memory_gb: float = 0.0  # that a run may have of each; 0: as much as it comes to need
    gpu_allocator: str = "auto"  # or async: CUDA's own
    communication: Communication = Communication()


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """Settings of a model's layers, whichever model it is."""

    batch_norm: str = "local"  # or synchronized
    dropout: float = 0.0  # before the logits
    l2: float = 0.0  # the penalty on kernels, added to the loss


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """What a model begins with, and which of its variables train when."""

    init_from: str = ""  # a file of weights or a run's folder; empty: random weights
    freeze: tuple[str, ...] = ()  # patterns of variables' paths
    unfreeze_at: Duration | None = None  # from when on these train, too; None: never


@dataclasses.dataclass(frozen=True)
class PlateauSettings:
    """Lower the rate when a metric has stopped improving."""

    metric: str  # eval/loss, or the task's headline
    factor: float
    patience: int  # evaluations without improvement before a cut
    threshold: float  # relative improvement that counts as one
    cooldown: int  # evaluations after a cut that do not count
    minimum: float  # the smallest scale


@dataclasses.dataclass(frozen=True)
class LearningRateSettings:
    """The learning rate at the reference batch and what happens to it."""

    learning_rate: float
    scaling: str  # linear, sqrt, none or adascale
    reference_batch: int
    warmup: CurveSettings
    decay: CurveSettings
    end_learning_rate: float  # at the reference batch, scaled like learning_rate
    scale_betas: bool = False  # with sqrt and Adam: betas and epsilon too
    multipliers: tuple[tuple[str, float], ...] = ()  # a factor by pattern of variables' paths
    layer_decay: float = 1.0  # the factor from a layer to the one before it
    plateau: PlateauSettings | None = None


@dataclasses.dataclass(frozen=True)
class Clipping:
    """Clipping of the summed gradient: one kind at most; 0 is off."""

    norm: float = 0.0  # the largest global norm
    value: float = 0.0  # the largest absolute value
    adaptive: float = 0.0  # the largest norm of a unit over that of its weights


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and what is done to the gradients before it."""

    optimizer: str  # a name of trainer.plan.optimizers.OPTIMIZERS
    arguments: dict[str, Value]  # all of its arguments there
    weight_decay: float  # of all but biases and normalization
    weight_decays: tuple[tuple[str, float], ...]  # others by pattern of variables' paths
    clipping: Clipping
    label_smoothing: float
    ema: float = 0.0  # the decay of the averaged weights; 0: none


@dataclasses.dataclass(frozen=True)
class RecoverySettings:
    """Recovery from faults: kills, full disks, stalls, divergence."""

    keep: int  # the newest checkpoints
    keep_best: int  # and as many of the best evaluations
    keep_every: Duration  # and one every so often, for ever
    fallback_dir: str  # where to save what the run's folder cannot take; empty: nowhere
    stop_after: float | None  # seconds; None: never
    stop_at: Duration | None  # None: at the end of the run
    grace: float  # seconds from a request to stop to the exit
    stall_after: float | None  # seconds without a step; 0: never; None: from the median step
    restart_on_stall: bool
    on_divergence: str  # stop or rollback
    skip_window: bool  # whether what it diverged on is left out after a rollback
    backoff: float  # the learning rate's factor after a rollback
    backoff_for: Duration  # until the rate is back
    rollbacks: int  # at most


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the trainer is asked for; the data's settings live in `input_pipeline`."""

    run: RunSettings
    devices: DeviceSettings
    model: str
    learning_rate: LearningRateSettings
    optimizer: OptimizerSettings
    recovery: RecoverySettings
    layers: LayerSettings = LayerSettings()
    task: str = "auto"  # one of trainer.plan.tasks.TASKS, or python:module:function
    fine_tuning: FineTuning = FineTuning()


# Steps in a row that stand out before it is a divergence, see `trainer.actions.divergence`.
STEPS_TO_TELL = 8

# Of an operation on the processor: each takes memory.
MOST_THREADS = 1024
