"""Records the loss curves of the monitor's tests, by real runs on digits.

    python -m tests.trainer.actions.record_curves [NAME …]

A curve is one JSON file, `curves/KIND-NAME.json`: the flags that made it, the steps an epoch, the
batch, and the loss and learning rate of every step. The kind is what a person says who looks at it.
Healthy ones are also written to `norms`, the gradient norms beside the losses, for the detector of
spikes.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

CURVES = pathlib.Path(__file__).parent / "curves"
NORMS = pathlib.Path(__file__).parent / "norms"
COMMON = (
    "--device=cpu --dataset=digits --log_every=1st --eval_every=0st --checkpoint_every=0st "
    "--lr_scaling=none"
)
CONSTANT = "--warmup=none --decay=constant"
ADAMW = "--optimizer=adamw --weight_decay=0.0001"
# A rate of its own for the last layer alone: a linear model on random features, which cannot die.
LINEAR = "--lr_multiplier=dense.*=0,.*=1 --augment=shift(1)"
MLP = {
    # Different optimizers, batches and decays; noise, drops and rises that belong there.
    "healthy-sgd": "--learning_rate=0.1 --train_for=600st",
    "healthy-adamw": f"{ADAMW} --learning_rate=0.002 --train_for=500st",
    "healthy-batch-4": "--learning_rate=0.01 --global_batch=4 --train_for=800st",
    "healthy-batch-8": "--learning_rate=0.02 --global_batch=8 --train_for=800st",
    "healthy-batch-8-adamw": f"{ADAMW} --learning_rate=0.001 --global_batch=8 --decay=constant "
    "--train_for=800st",
    "healthy-batch-512": "--learning_rate=0.1 --global_batch=512 --train_for=300st",
    "healthy-step": "--learning_rate=0.15 --global_batch=32 --decay=step(300st:0.1,500st:0.1) "
    "--train_for=600st",
    "healthy-step-shift": "--learning_rate=0.07 --global_batch=32 --augment=shift(1) "
    "--decay=step(300st:0.1,500st:0.1) --train_for=600st",
    "healthy-wsd": "--learning_rate=0.1 --decay=wsd(cooldown=30%) --train_for=500st",
    "healthy-restarts": "--learning_rate=0.2 --global_batch=32 "
    "--decay=cosine_restarts(period=100st) --train_for=700st",
    "healthy-restarts-shift": "--learning_rate=0.08 --global_batch=16 --augment=shift(1) "
    "--decay=cosine_restarts(period=100st) --train_for=700st",
    "healthy-one-cycle": "--learning_rate=0.2 --warmup=none --decay=one_cycle --train_for=500st",
    "healthy-overfit": "--learning_rate=0.1 --decay=constant --train_for=800st",
    "healthy-smoothing": "--learning_rate=0.1 --label_smoothing=0.3 --decay=constant "
    "--train_for=600st",
    "healthy-smoothing-batch-8": "--learning_rate=0.02 --global_batch=8 --label_smoothing=0.2 "
    "--train_for=800st",
    "healthy-exponential": "--learning_rate=0.1 --decay=exponential(period=50st,rate=0.3) "
    "--train_for=600st",
    "healthy-long-warmup": "--learning_rate=0.1 --warmup=400st --train_for=600st",
    "healthy-slow": "--learning_rate=0.002 --decay=constant --train_for=600st",
    "healthy-frozen-features": "--learning_rate=0.05 --lr_multiplier=dense.*=0 --decay=constant "
    "--train_for=600st",
    "healthy-linear-batch-8": f"{LINEAR} --learning_rate=0.005 --global_batch=8 --decay=constant "
    "--train_for=1500st",
    "healthy-shift-batch-8": "--learning_rate=0.01 --global_batch=8 --augment=shift(1) "
    "--decay=constant --train_for=1500st",
    "healthy-smoothing-batch-8-constant": "--learning_rate=0.01 --global_batch=8 "
    "--label_smoothing=0.3 --decay=constant --train_for=1500st",
    "explodes-sgd": f"--learning_rate=3 {CONSTANT} --train_for=300st",
    "explodes-warmup": "--learning_rate=4 --warmup=250st --decay=constant --train_for=400st",
    "explodes-dead-0.5": f"--learning_rate=0.5 {CONSTANT} --train_for=500st",
    "explodes-dead-0.8": f"--learning_rate=0.8 {CONSTANT} --train_for=500st",
    "explodes-dead-1.5": f"--learning_rate=1.5 {CONSTANT} --train_for=500st",
    "explodes-plain": f"--learning_rate=3 --momentum=0 {CONSTANT} --train_for=500st",
    "explodes-adamw": f"{ADAMW} --learning_rate=0.5 {CONSTANT} --train_for=300st",
    "explodes-adamw-warmup": f"{ADAMW} --learning_rate=0.5 --warmup=300st --decay=constant "
    "--train_for=500st",
    "stalls-rate-too-small": "--learning_rate=0.000002 --decay=constant --train_for=500st",
    "stalls-rate-too-small-batch-8": "--learning_rate=0.000001 --global_batch=8 --decay=constant "
    "--train_for=800st",
    "stalls-dead": f"--learning_rate=5 --momentum=0 {CONSTANT} --train_for=500st",
    "stalls-dead-batch-16": "--learning_rate=1 --global_batch=16 --train_for=800st",
    # At its first rate; the steps down then bring it to 0.3.
    "oscillates-step": "--learning_rate=0.2 --global_batch=32 --augment=shift(1) "
    "--decay=step(300st:0.1,500st:0.1) --train_for=600st",
    "oscillates-clip": "--augment=shift(1) --learning_rate=1 --clip_norm=0.5 --global_batch=32 "
    f"{CONSTANT} --train_for=400st",
    "oscillates-linear": f"{LINEAR} --learning_rate=3 {CONSTANT} --train_for=400st",
    "oscillates-linear-adamw": f"{LINEAR} {ADAMW} --learning_rate=0.3 {CONSTANT} --train_for=400st",
}
CNN = {
    "healthy-cnn": "--learning_rate=0.1 --global_batch=64 --train_for=10ep",
    "healthy-cnn-high-rate": "--learning_rate=0.4 --global_batch=32 --augment=shift(1) "
    "--train_for=220st",
    "explodes-cnn": f"--learning_rate=30 {CONSTANT} --train_for=150st",
    "stalls-frozen": f"--learning_rate=0.1 --lr_multiplier=.*=0 {CONSTANT} --train_for=250st",
    "explodes-cnn-recovers": f"--learning_rate=3 --global_batch=32 --augment=shift(1) {CONSTANT} "
    "--train_for=400st",
}
RUNS = {name: f"--model=mlp {flags}" for name, flags in MLP.items()}
RUNS |= {name: f"--model=cnn {flags}" for name, flags in CNN.items()}


def record(name: str, flags: str) -> None:
    """Makes the run and writes its curve.

    Raises:
      subprocess.CalledProcessError: the run failed; one that diverged (76) did not.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, "-m", "launch.train", *COMMON.split(), *flags.split()]
        done = subprocess.run([*command, f"--run_dir={run_dir}"], capture_output=True, text=True)
        if done.returncode not in (0, 76):
            print(done.stdout, done.stderr)
            done.check_returncode()
        lines = (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "train/loss" in row]
        plan = json.loads((pathlib.Path(run_dir) / "plan.json").read_text())
    curve = {
        "flags": flags,
        "steps_per_epoch": plan["steps_per_epoch"],
        "global_batch": plan["global_batch"],
        "loss": [float(f"{row['train/loss']:.4g}") for row in rows],
        "learning_rate": [float(f"{row['learning_rate']:.4g}") for row in rows],
    }
    (CURVES / f"{name}.json").write_text(json.dumps(curve) + "\n")
    if name.startswith("healthy"):
        norms = [float(f"{row['gradient_norm']:.4g}") for row in rows]
        kept = {"flags": flags, "loss": curve["loss"], "gradient_norm": norms}
        (NORMS / f"{name}.json").write_text(json.dumps(kept) + "\n")
    print(f"{name}: {len(rows)} rows, loss {curve['loss'][0]:.3g} to {curve['loss'][-1]:.3g}")


if __name__ == "__main__":
    CURVES.mkdir(exist_ok=True)
    NORMS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or RUNS:
        record(name, RUNS[name])
