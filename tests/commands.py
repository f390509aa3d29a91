"""Commands of launch.train that several tests look at the runs of."""

# Clipping that clips, weight decay, augmentation, BatchNormalization.
CNN = (
    "--device=cpu --dataset=digits --augment=shift(1)|flip --model=cnn --global_batch=64 "
    "--train_for=50st --clip_norm=0.1 --weight_decay=0.01"
)
SGD = (
    f"{CNN} --optimizer=sgd --momentum=0.9 --micro_batch=8 --learning_rate=0.8 --warmup=10st "
    "--decay=cosine --log_every=1st --eval_every=0 --checkpoint_every=10st"
)
# The periods do not divide each other, so that a checkpoint falls between two rows of the log.
ADAMW = (
    f"{CNN} --micro_batch=16 --optimizer=adamw --learning_rate=0.02 --warmup=20% --decay=cosine "
    "--log_every=3st --eval_every=1ep --checkpoint_every=20st --steps_per_loop=3"
)
# Without BatchNormalization, so that the division into micro-batches must not matter.
MLP = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 "
    "--train_for=50st --optimizer=sgd --momentum=0.9 --clip_norm=0.5 --weight_decay=0.02 "
    "--learning_rate=0.1 --lr_scaling=none --warmup=5st --decay=cosine --end_learning_rate=0.01 "
    "--log_every=4st --eval_every=15st --checkpoint_every=20st"
)
# Plain SGD, so that an update is the learning rate times the gradient.
PLAIN = (
    "--device=cpu --dataset=digits --augment=shift(1) --model=mlp --global_batch=64 "
    "--train_for=15st --optimizer=sgd --momentum=0 --log_every=1st --eval_every=0 "
    "--checkpoint_every=7st --steps_per_loop=10"
)
