"""The host's side of a run: what it does between two blocks of device steps, as a list."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from input_pipeline.class_names import names_text
from launch.process.watchdog import EVALUATING, WRITING, Watchdog, watch
from launch.terminal.progress import Progress
from launch.training.job import Job, decided
from launch.training.model_card import model_card
from launch.training.pictures import Pictures
from launch.training.restore import note_start, open_run
from launch.training.session import Session
from launch.training.streams import evaluation_data
from launch.training.together import shared_requests
from trainer.actions.audited import audited
from trainer.actions.control import Control
from trainer.actions.digests import Digests
from trainer.actions.divergence import Divergence
from trainer.actions.evaluate import Evaluate
from trainer.actions.histograms import Histograms
from trainer.actions.log import Log
from trainer.actions.monitor import Monitor
from trainer.actions.nonfinite import NonFinite
from trainer.actions.profile import Profile
from trainer.actions.replica_check import replica_check
from trainer.actions.save import Save
from trainer.files.storage import Storage
from trainer.plan.span import NO_STEPS
from trainer.run_folder.account import (
    CHECKPOINT,
    EVALUATION,
    LOGGING,
    Account,
    signs_of_life,
)
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal
from trainer.run_folder.requests import waiting

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.loop import Action, Block
    from trainer.run import Run


@dataclasses.dataclass(frozen=True)
class Host:
    """The parts of the host's work between two blocks of steps; `actions` has their order."""

    journal: Journal
    storage: Storage
    watchdog: Watchdog
    checks: "Sequence[Action]"  # of the devices
    divergence: Divergence
    log: Log
    histograms: Histograms
    started: "Action"
    progress: Progress
    evaluate: Evaluate
    pictures: Pictures
    digests: Digests
    save: Save
    control: Control
    account: Account
    profile: Profile

    def actions(self) -> "Sequence[Action]":
        """The actions, each of which is called with every block that has ended, in this order.

        A step that diverged is found before anything of it is logged, evaluated or saved, and a
        faulty device before that, which a divergence may come of. What is logged and evaluated is
        in the checkpoint of its step. Requests come last: they hold for the next block. A profile
        has nothing of what comes before its first step or after its last.
        """
        around = self.account.around
        return [
            self.watchdog.after_block,
            self.profile.end,
            *self.checks,
            self.divergence,
            around(LOGGING, self.log),
            around(LOGGING, self.histograms),
            around(LOGGING, self.started),
            around(LOGGING, self.progress),
            around(EVALUATION, self.watchdog.around(EVALUATING, self.evaluate)),
            around(LOGGING, self.watchdog.around(EVALUATING, self.pictures)),
            around(CHECKPOINT, self.watchdog.around(WRITING, self.save)),
            self.storage.around(str(self.control.folder), self.control),
            self.profile.begin,
            self.watchdog.before_block,
        ]

    def take_up(self, step: int) -> None:
        """Takes up what was asked of the run, where no block has just ended and does."""
        with self.storage.attempt(str(self.control.folder)):
            self.control.take_up(step)

    def evaluate_left_out(self, step: int) -> None:
        """Makes the evaluation that a stop has left out."""
        with self.account.during(EVALUATION), self.watchdog.during(EVALUATING):
            self.evaluate.evaluate(step)

    def save_now(self, step: int, final: bool = False) -> None:
        """Saves a checkpoint, and returns when it is on the disk."""
        with self.account.during(CHECKPOINT):
            self.save.save(step, final)

    def save_stopped(self, block: "Block") -> None:
        """Saves what a stop after this block leaves, and tells `launch.control --status` of it."""
        self.save_now(block.last)
        with self.storage.attempt(str(self.control.folder)):
            self.control.write_status(block)

    def tell_spent(self, step: int) -> dict[str, float]:
        """Writes down where the time went up to now, and returns it."""
        spent = self.account.spent()
        self.journal.spent(step, spent)
        return spent

    def close(self) -> None:
        """Lets a checkpoint that is being written become whole, and closes the files."""
        self.profile.close()
        with self.account.during(CHECKPOINT):
            self.save.close()
        self.progress.close()
        self.journal.metrics.close()


def make_host(job: Job, session: Session) -> Host:
    """Restores the run from what was found, opens its files, and makes the host's actions.

    Raises:
      ValueError: the checkpoint does not match.
    """
    plan, run, settings, first = job.plan, session.run, job.command.settings, job.found.step
    progress = Progress(plan, run.task.headline)
    storage = Storage(progress.say)
    account, seen = session.startup.account, signs_of_life(job.run_dir)
    checkpoints, journal = open_run(job, run, storage, progress.say)
    recovery, history = settings.recovery, journal.history
    go_on(account, job, history, seen)
    watchdog = watch(
        job.run_dir, session.reads, recovery, replicas=plan.replicas, first=first, journal=journal
    )
    digests = Digests(plan, run.variables(), journal, job.watched)
    save = Save(
        plan=plan,
        history=history,
        metrics=journal.metrics,
        checkpoints=checkpoints,
        digests=digests,
        flags=decided(job.command, plan),
        account=account,
        headline=run.task.headline,
        keep_best=recovery.keep_best,
    )
    host = Host(
        journal=journal,
        storage=storage,
        watchdog=watchdog,
        checks=(*audited(plan, run.audit, first), *replica_check(plan, run)),
        divergence=make_divergence(job, run, journal),
        log=make_log(run, journal, progress),
        histograms=Histograms(plan, layers_of(run), first, journal),
        started=session.startup.reporter(journal),
        progress=progress,
        evaluate=make_evaluate(job, session, journal, storage, watchdog, progress),
        pictures=make_pictures(job, session, journal),
        digests=digests,
        save=save,
        control=make_control(job, session, journal),
        account=account,
        profile=Profile(
            settings.run.profile if job.chief else NO_STEPS, job.run_dir, first, journal.say
        ),
    )
    note_start(job, journal)
    if recovery.on_divergence == "rollback" and job.found.state is None:
        host.save_now(0)  # the way back of a training that diverges before its first checkpoint
    return host


def go_on(account: Account, job: Job, history: History, seen: tuple[float, float] | None) -> None:
    """Goes on with the account of the processes before, or of before a rollback.

    A run that had come to its end was not down until somebody gave it more to do, and a checkpoint
    without an account is from before there were any.
    """
    state = job.found.state
    known = state is None or (history.until > 0 and not state.final)
    account.go_on(history.spent, history.until, seen if known else None)


def make_divergence(job: Job, run: "Run", journal: Journal) -> Divergence:
    """The action that ends a training which diverges, as --on_nonfinite and --on_divergence say."""
    settings, history = job.command.settings, journal.history
    nonfinite = NonFinite(
        stop=settings.run.on_nonfinite == "stop",
        history=history,
        places=run.places,
        journal=journal,
    )
    return Divergence(
        nonfinite=nonfinite,
        history=history,
        journal=journal,
        reference=run.task.chance or 1.0,
        rollback=settings.recovery.on_divergence == "rollback",
    )


def make_log(run: "Run", journal: Journal, progress: Progress) -> Log:
    """The log; a person sees each of its rows, and the monitor judges the loss by them."""
    plan, history = journal.plan, journal.history
    monitor = Monitor(
        steps_per_epoch=plan.steps_per_epoch,
        global_batch=plan.global_batch,
        chance=run.task.chance,
        history=history,
        journal=journal,
    )
    return Log(
        plan=plan,
        history=history,
        journal=journal,
        groups=run.groups,
        readers=(progress.row, monitor.row),
    )


def layers_of(run: "Run") -> "dict[str, list[tf.Variable]]":
    """The variables that train, by their layer."""
    layers: dict[str, list[tf.Variable]] = {}
    for variable in run.model.trainable_variables:
        layer = variable.path.rpartition("/")[0] or variable.path
        layers.setdefault(layer, []).append(variable.value)
    return layers


def make_evaluate(
    job: Job,
    session: Session,
    journal: Journal,
    storage: Storage,
    watchdog: Watchdog,
    progress: Progress,
) -> Evaluate:
    """The evaluation; each of its pieces is a sign of life, and a stop leaves the others out."""

    def go_on() -> bool:
        watchdog.sign()
        progress.doing(EVALUATING)
        return not session.stop.requested()

    data = evaluation_data(job.command, job.plan, job.sources["eval"], session.faults["eval"])
    return Evaluate(
        run=session.run,
        plan=job.plan,
        history=journal.history,
        journal=journal,
        stream=session.run.stream(data),
        folder=job.run_dir / "best",
        classes=names_text(job.sources["train"].names()),
        plateau=job.command.settings.learning_rate.plateau,
        storage=storage,
        go_on=go_on,
        agreed=session.agreed,
        keeps=job.chief,
        reading=session.faults["eval"].raised,
        card=functools.partial(model_card, job),
        during=session.startup.account.during,
    )


def make_pictures(job: Job, session: Session, journal: Journal) -> Pictures:
    """The action that draws for TensorBoard; a re-execution has no need of it."""
    when = "never" if job.watched else job.command.settings.run.pictures
    return Pictures(job, session.run, journal, when)


def make_control(job: Job, session: Session, journal: Journal) -> Control:
    """The action that takes up the requests of launch.control."""
    agreement = session.agreement
    return Control(
        folder=job.run_dir / "control",
        plan=job.plan,
        learning_rate=session.run.learning_rate,
        requests=shared_requests(agreement) if agreement else waiting,
        first=job.found.step,
        journal=journal,
        forget_backoff=journal.history.backoff.clear,
    )
