"""Wrong commands, and the advice in their messages.

A row has a wrong command, how its message words the advice, and what to give then, made of the
message's own words.
"""

FLAG = r"(--\w+=[^\s,;]*[^\s,;.])"

# Wrong command, the advice in its message, and the flags to give: each template by itself.
PLAN: list[tuple[str, str, list[str]]] = [
    # Steps to profile.
    ("--profile=110", r"such as (\d+:\d+) for", ["--profile={0}"]),
    ("--profile=110:100", r"give (\d+:\d+)\.", ["--profile={0}"]),
    ("--profile=5:5", r"give (\d+:\d+)\.", ["--profile={0}"]),
    ("--profile=900:1100", r"for example (\d+:\d+)\.", ["--profile={0}"]),
    # The batch and its parts.
    (
        "--replicas=2 --global_batch=65",
        r"use (\d+) or (\d+), the nearest",
        ["--global_batch={0}", "--global_batch={1}"],
    ),
    ("--replicas=4 --global_batch=1", r"use (\d+), the nearest", ["--global_batch={0}"]),
    ("--replicas=2 --global_batch=1437", r"use (\d+), the nearest", ["--global_batch={0}"]),
    ("--replicas=2000 --global_batch=64", r"use fewer replicas", ["--replicas=2"]),
    ("--replicas=2 --global_batch=2000", r"use at most (\d+)", ["--global_batch={0}"]),
    (
        "--replicas=2000 --global_batch=2000",
        r"use at most (\d+), and fewer replicas",
        ["--global_batch={0} --replicas=3"],
    ),
    (
        "--micro_batch=48 --global_batch=64",
        r"use (\d+) or (\d+), the nearest",
        ["--micro_batch={0}", "--micro_batch={1}"],
    ),
    # 32 divides the batch, too, but would leave four replicas with two of them.
    (
        "--micro_batch=20 --replicas=4 --global_batch=64",
        r"use (\d+), the nearest",
        ["--micro_batch={0}"],
    ),
    (
        "--micro_batch=16 --replicas=4 --global_batch=96",
        r"use (\d+), (\d+), (\d+) or (\d+) of them, or a --micro_batch that divides (\d+)",
        [
            *(f"--replicas={{{number}}}" for number in range(4)),
            "--micro_batch={4}",
            "--micro_batch=8",
        ],
    ),
    (
        "--replicas=5 --micro_batch=16 --global_batch=64",
        r"use (\d+), (\d+) or (\d+) of them\.",
        [f"--replicas={{{number}}}" for number in range(3)],
    ),
    (
        "--micro_batch=16 --replicas=4 --global_batch=2000",
        r"use at most (\d+)",
        ["--global_batch={0}", "--global_batch=64"],
    ),
    (
        "--micro_batch=2000 --global_batch=2000",
        r"use at most (\d+), and fewer replicas and a smaller --micro_batch",
        ["--global_batch={0} --micro_batch=3 --replicas=1"],
    ),
    (
        "--exact_sums=on --all_reduce=ring",
        f"change that, or use {FLAG}",
        ["--all_reduce=auto", "{0}"],
    ),
    (
        "--exact_sums=on --gradient_dtype=bfloat16",
        f"change that, or use {FLAG}",
        ["--gradient_dtype=float32", "{0}"],
    ),
    (
        "--exact_sums=on --batch_norm=synchronized",
        f"change that, or use {FLAG}",
        ["--batch_norm=local", "{0}"],
    ),
    (
        "--mixup=0.2 --global_batch=63",
        r"use an even --micro_batch, with a --global_batch that it divides, or leave them out",
        ["--micro_batch=16 --global_batch=64", "--mixup=0 --cutmix=0"],
    ),
    (
        "--mixup=0.2 --micro_batch=3 --global_batch=6",
        r"use an even --micro_batch, with a --global_batch that it divides, or leave them out",
        ["--micro_batch=2", "--mixup=0 --cutmix=0"],
    ),
    (
        "--image_size=30000",
        r"use a smaller --image_size or --global_batch",
        ["--image_size=8", "--image_size=300 --global_batch=2"],
    ),
    # Devices.
    ("--device=gpu", f"use {FLAG}", ["{0}"]),
    ("--all_reduce=nccl", r"use (auto), or (ring)", ["--all_reduce={0}", "--all_reduce={1}"]),
    # The learning rate.
    (
        "--optimizer=adamw --lr_scaling=adascale --global_batch=256 --micro_batch=128 "
        "--lr_reference_batch=32",
        f"use {FLAG}, or {FLAG}",
        ["{0}", "{1}"],
    ),
    ("--lr_scaling=adascale --micro_batch=32", f"for example {FLAG}", ["{0}"]),
    ("--lr_scaling=adascale --micro_batch=1 --global_batch=2", f"for example {FLAG}", ["{0}"]),
    (
        "--lr_scaling=adascale --lr_reference_batch=32",
        "use a smaller --micro",
        ["--micro_batch=32"],
    ),
    (
        "--optimizer=lion --scale_betas --lr_scaling=sqrt",
        f"leave it out, or use {FLAG}",
        ["--scale_betas=false", "{0}"],
    ),
    ("--optimizer=adamw --scale_betas", f"use {FLAG}", ["{0}"]),
    (
        "--optimizer=adamw --scale_betas --lr_scaling=sqrt --lr_reference_batch=32 "
        "--global_batch=512",
        f"use a --global_batch of at most (\\d+), or {FLAG}",
        ["--global_batch={0}", "{1}"],
    ),
    (
        "'--optimizer=adamw(beta_1=0)' --scale_betas --lr_scaling=sqrt --lr_reference_batch=1",
        f"use {FLAG}",
        ["{0}"],
    ),
    (
        "--optimizer=rmsprop --decay=one_cycle",
        f"use {FLAG}, or one of (.*), lamb, lion",
        ["{0}", "--optimizer=lars", "--optimizer=adam"],
    ),
    ("--momentum=0 --decay=one_cycle", f"for example {FLAG} {FLAG}", ["{0} {1}"]),
    ("'--optimizer=sgd(momentum=0)' --decay=one_cycle", f"{FLAG} {FLAG}", ["{0} {1}"]),
    ("--optimizer=ftrl", f"use {FLAG} {FLAG}, without --plateau", ["{0} {1}"]),
    (
        "--optimizer=ftrl '--plateau=reduce(0.1)'",
        f"use {FLAG} {FLAG}, without --plateau",
        ["{0} {1} --plateau="],
    ),
    ("--warmup=60ep", f"for example {FLAG}", ["{0}"]),
    ("'--warmup=exponential(2ep)'", r"\(start=…\)", ["'--warmup=exponential(2ep,start=0.01)'"]),
    ("'--warmup=exponential(2ep,start=0)'", r"give (\S+),", ["'--warmup=exponential(2ep,{0})'"]),
    ("--warmup=90% --decay=wsd", r"at most (\S+)\.", ["'--decay=wsd(cooldown={0})'"]),
    ("--warmup=100% --decay=one_cycle", r"at most (\S+)\.", ["'--decay=one_cycle(rise={0})'"]),
    (
        "'--decay=step(30ep:0.1)'",
        r"between the end of the warmup, ([\d,]+), and the end of the run, ([\d,]+)",
        ["'--decay=step({0}st:0.1)'"],
    ),
    (
        "'--decay=step(6ep:0.1,3ep:0.1)'",
        r"write them so",
        ["'--decay=step(3ep:0.1,6ep:0.1)'"],
    ),
    (
        "--train_for=100000ep '--decay=cosine_restarts(period=1st,longer=1)'",
        r"use a longer period",
        ["'--decay=cosine_restarts(period=100ep,longer=1)'"],
    ),
    ("--decay=cosin", r"did you mean (\w+)", ["--decay={0}"]),
    ("--train_for=5epochs", r"did you mean (\w+)", ["--train_for={0}"]),
    ("--train_for=50%", r"for example (\w+)", ["--train_for={0}"]),
    ("--train_for=0ep", r"give at least (\w+)", ["--train_for={0}"]),
    ("--train_for=1e14ep", r"give at most ([\d,]+)", ["--train_for={0}st"]),
    ("--train_for=1e30ep", r"to (\S+)ep", ["--train_for=1e4ep"]),
    ("--checkpoint_every=0min", r"example (\w+)", ["--checkpoint_every={0}"]),
    (
        "--learning_rate=1e37 --global_batch=1024 --lr_reference_batch=1",
        r"give --learning_rate, --lr_scaling, --warmup and --decay that keep it",
        ["--learning_rate=0.1", "--lr_scaling=none"],
    ),
    # The optimizer.
    ("--clip_norm=1 --clip_value=2", r"give one of them", ["--clip_norm=0", "--clip_value=0"]),
    ("--optimizer=adamw --momentum=0.8", r"leave it out", ["--momentum=0.9"]),
    (
        "'--optimizer=sgd(momentum=0.5)' --momentum=0.8",
        r"write (\S+), and leave out --momentum",
        ["'{0}' --momentum=0.9"],
    ),
    ("'--optimizer=lamb(beta2=0.9)'", r"mean (\w+)", ["'--optimizer=lamb({0}=0.9)'"]),
    ("'--optimizer=adamw(weight_decay=1)'", r"use (--\w+)\.", ["--optimizer=adamw {0}=1"]),
    ("'--optimizer=sgd(clipvalue=1)'", r"use (--\w+)\.", ["--optimizer=sgd {0}=1"]),
    ("'--optimizer=adafactor(warmup_steps=9)'", r"(--\w+)\.", ["--optimizer=adafactor {0}=9st"]),
    ("'--optimizer=adafactor(relative_step=1)'", r"(--\w+)\.", ["--optimizer=lion {0}=linear"]),
    ("'--optimizer=adam(loss_scale_factor=2)'", r"(--\w+)\.", ["--optimizer=adam {0}=float16"]),
    ("'--optimizer=adam(use_ema=true)'", r"(--\w+)\.", ["--optimizer=adam {0}=0.99"]),
    (
        "'--optimizer=adam(gradient_accumulation_steps=2)'",
        r"(--\w+)\.",
        ["--optimizer=adam {0}=32"],
    ),
    ("--class_weights=zero=2", r"from (\d+) to (\d+)", ["--class_weights={0}=2,{1}=3"]),
    ("--weight_decay=head=1e-3", r"for example (\S+)\.$", ["--weight_decay={0}"]),
    ("--lr_multiplier=head", r"for example (\S+)\.$", ["--lr_multiplier={0}"]),
    # Recovery and times.
    (
        "--on_divergence=rollback --checkpoint_every=1st",
        r"save every (\S+), or keep more",
        ["--checkpoint_every={0}", "--keep=100"],
    ),
    ("--backoff=0", r"for example (\S+)\.", ["--backoff={0}"]),
    ("--grace=0", r"for example (\S+)\.", ["--grace={0}"]),
    ("--stop_after=soon", r"for example (\S+)\.", ["--stop_after={0}"]),
    ("--stop_after=20000d", r"give at most (\w+)", ["--stop_after={0}"]),
    # Models.
    (
        "--unfreeze_at=1ep",
        "give --freeze, too, or leave it out",
        ["--freeze=a.*", "--unfreeze_at="],
    ),
    ("--model=ResNet50", f"give {FLAG}", ["{0} --image_size=32"]),
    ("--model=net.h5", "the name of its network as --model", ["--model=cnn"]),
    ("--model=vit_ti16 --image_size=30", f"such as {FLAG}", ["{0}"]),
    ("--model=keras:MobileNetV2 --image_size=8", f"use {FLAG} or more", ["{0}"]),
    (
        "--model=keras:MobileNetV2 --dataset=synthetic:32x32x4",
        "use another --model, or convert",
        ["--model=cnn", "--dataset=synthetic:32x32x3"],
    ),
    # Data.
    (
        "--task=regression",
        "give another --task, or such a dataset",
        ["--task=auto", "--task=classification"],
    ),
    ("--dataset=digit", r"valid one is (\w+)", ["--dataset={0}"]),
    ("--dataset=imagenet", r"for example (\S+)\.", ["--dataset={0}"]),
    (
        "--dataset=synthetic:8by8",
        r"for example (\S+) or (\S+)\.",
        ["--dataset={0}", "--dataset={1}"],
    ),
    ("--train_split=train[:5]", r"leave it out", ["--train_split="]),
    ("'--augment=flip|crop'", r"use '([^']*)'", ["'--augment={0}'"]),
    ("--augment=zzz", r"for example '([^']*)'", ["'--augment={0}'"]),
    ("--flagfile=digit", r"did you mean (\w+)", ["--flagfile={0}"]),
]
FIND_LR = [
    (
        "--lr_scaling=adascale --micro_batch=256 --global_batch=512",
        f"{FLAG} {FLAG}",
        ["{0} {1}"],
    ),
    ("--sweep_for=3st", r"at least (\w+)", ["--sweep_for={0}"]),
    ("--from_rate=2 --to_rate=1", r"two rates above 0, the second", ["--to_rate=3"]),
]
