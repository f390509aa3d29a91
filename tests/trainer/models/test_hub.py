"""Presets of KerasHub: trained on 1 and 2 replicas, killed and resumed, served; and what is none.

pip install 'lockstep[hub]'
"""

import json
import pathlib
import shutil
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, call, different_variables, in_parallel

from trainer.models.hub import hub_model, take_preset
from trainer.models.positions import fitted
from trainer.optimizer.variable_groups import group_variables
from trainer.plan.dataset import DatasetFacts

keras_hub = pytest.importorskip(
    "keras_hub", reason="keras_hub is not installed: pip install 'lockstep[hub]'"
)
SCALE, OFFSET = [0.02, 0.01, 0.03], [-1.0, 0.5, 0.25]
COMMON = (
    "launch.train --device=cpu --threads=1 --global_batch=16 --micro_batch=4 --train_for=6st "
    "--checkpoint_every=3st --eval_every=6st --log_every=1st --optimizer=adamw --lr_scaling=none "
    "--learning_rate=0.01"
)
# By run, its preset and flags.
RUNS = {
    "resnet": "--dataset=digits --model=hub:resnet --freeze=conv1.*,stack0.* --layer_decay=0.8",
    "vit": (
        "--dataset=synthetic:24x32x3 --model=hub:vit --unfreeze_at=4st --layer_decay=0.8 "
        "--freeze=.*transformer_block_1.*"
    ),
    "gpt2": "--dataset=text:*.txt --model=hub:gpt2 --sequence_length=16",
}
WRONG = {
    "--dataset=digits --model=hub:gpt2": ["GPT2Backbone", "no ImageClassifier", "CausalLM"],
    "--dataset=text:*.txt --model=hub:resnet": ["ResNetBackbone", "no CausalLM"],
    "--dataset=text:*.txt --model=hub:gpt2 --sequence_length=99": ["at most 32 tokens", "=32"],
    "--dataset=text:*.txt --model=hub:words": ["300 tokens", "256", "--tokenizer"],
    "--dataset=synthetic:8x8x4 --model=hub:resnet": ["3 channels", "have 4"],
    "--dataset=synthetic:25x32x3 --model=hub:vit": ["cannot be built", "25", "divisible"],
    "--dataset=digits --model=hub:cut": ["hub:cut", "weights cannot be read"],
    "--dataset=digits --model=hub:unknown": ["hub:unknown", "NoSuchBackbone"],
    "--dataset=digits --model=mlp --init_from=hub:resnet": ["--model=hub:resnet"],
    "--dataset=digits --model=hub:resnet --dropout=0.1": ["--dropout=0.1", "its own"],
}


def write_presets(folder: pathlib.Path) -> None:
    """A classifier with a softmax and its own scaling, a backbone alone; of text; broken ones."""
    keras.utils.set_random_seed(3)
    resnet = keras_hub.models.ResNetBackbone([64], [3], [64, 64], [1, 1], [1, 2], "basic_block")
    converter = keras_hub.layers.ResNetImageConverter((16, 16), SCALE, OFFSET)
    preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
    classifier = keras_hub.models.ResNetImageClassifier(
        resnet, 7, preprocessor, activation="softmax"
    )
    move(classifier)
    classifier.save_to_preset(str(folder / "resnet"))
    vit = keras_hub.models.ViTBackbone((16, 16, 3), 8, 2, 2, 8, 16, dropout_rate=0.1)
    move(vit)
    vit.save_to_preset(str(folder / "vit"))
    for name, tokens in {"gpt2": 256, "words": 300}.items():
        gpt2 = keras_hub.models.GPT2Backbone(tokens, 1, 2, 8, 16, max_sequence_length=32)
        gpt2.save_to_preset(str(folder / name))
    shutil.copytree(folder / "resnet", folder / "cut")
    (folder / "cut/model.weights.h5").write_bytes(b"cut off")
    shutil.copytree(folder / "resnet", folder / "unknown")
    config = (folder / "unknown/config.json").read_text()
    (folder / "unknown/config.json").write_text(config.replace("ResNetB", "NoSuchB"))
    (folder / "unknown/task.json").unlink()
    (folder / "a.txt").write_text("".join(chr(97 + n * n % 26) for n in range(40_000)))


def move(model: keras.Model) -> None:
    """Values that no initializer gives."""
    random = np.random.default_rng(1)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape) * 0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("hub")
    write_presets(folder)

    def carry_out(name: str, lines: dict[str, str]) -> dict[str, Any]:
        (folder / f"{name}.json").write_text(json.dumps(lines))
        ended = call(f"{name}.json", folder, module="tests.launch.in_one_process")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    def on(replicas: int) -> dict[str, str]:
        return {
            name: f"{COMMON} {flags} --replicas={replicas} --run_dir=runs/{name}-{replicas}"
            for name, flags in RUNS.items()
        }

    wrong = {f: f"{COMMON} --replicas=1 {f} --run_dir=wrong{n}" for n, f in enumerate(WRONG)}
    both = in_parallel(
        {"1": lambda: carry_out("1", on(1) | wrong), "2": lambda: carry_out("2", on(2))}
    )
    for name in RUNS:
        killed = folder / f"runs/{name}-2"
        shutil.copytree(killed, folder / f"runs/{name}-whole")
        shutil.rmtree(killed / "checkpoints/step-6")
        (killed / "model.keras").unlink()
    for preset in ("resnet", "vit", "gpt2"):  # which a run that goes on does not read
        (folder / preset / "model.weights.h5").unlink()
    served = {
        "evaluate": "launch.evaluate runs/resnet-2 --replicas=2 --out=none --json=e.json",
        "export": "launch.export runs/vit-2 --format=keras",
    }
    said = both | {"again": carry_out("again", on(2) | served)}
    (folder / "said.json").write_text(json.dumps(said))
    return folder


def said(folder: pathlib.Path, where: str, name: str) -> tuple[int, str]:
    code, out = json.loads((folder / "said.json").read_text())[where][name]
    return code, out


@pytest.mark.parametrize("name", RUNS)
def test_replicas_agree_and_a_run_that_was_killed_goes_on_to_the_same_bits(
    folder: pathlib.Path, name: str
) -> None:
    assert said(folder, "1", name)[0] == said(folder, "2", name)[0] == 0, said(folder, "1", name)
    code, out = said(folder, "again", name)
    assert code == 0 and "going on from step 3" in out and "weights from" not in out, out
    one, two, whole = (Run(folder / f"runs/{name}-{which}") for which in (1, 2, "whole"))
    assert different_variables(one.variables(6), whole.variables(6)) == []
    assert different_variables(two.variables(6), whole.variables(6)) == []
    assert one.rows_without_times() == two.rows_without_times() == whole.rows_without_times()


@pytest.mark.parametrize("flags", WRONG)
def test_what_does_not_fit_is_one_sentence(folder: pathlib.Path, flags: str) -> None:
    code, out = said(folder, "1", flags)
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert code == 2 and out.endswith(f"{line}\n") and line.endswith(".")
    for part in WRONG[flags]:
        assert part in line, line


def test_the_report_says_what_is_of_the_preset(folder: pathlib.Path) -> None:
    told = json.loads((folder / "runs/resnet-1/init_from.json").read_text())
    assert told["file"] == "hub:resnet" and not told["resampled"]
    assert [row[0] for row in told["new"]] == ["predictions/kernel", "predictions/bias"]
    assert [row[1] for row in told["skipped"]] == [[64, 7], [7]]
    told = json.loads((folder / "runs/vit-1/init_from.json").read_text())
    ((path, shape, why),) = told["resampled"]
    assert path.endswith("position_embedding/embeddings") and shape == [1 + 3 * 4, 8]
    assert why == "5×8 in the file"
    _, out = said(folder, "1", "vit")
    assert "first weights  hub:vit" in out and "weights from hub:vit" in out
    assert "hub:vit has no image_converter.json; it gets pixels from -1 to 1" in out
    assert "no image_converter.json" not in said(folder, "1", "resnet")[1]


def test_what_is_frozen_stays_and_is_the_preset_s(folder: pathlib.Path) -> None:
    fresh = folder / "fresh"
    fresh.mkdir(exist_ok=True)
    write_presets(fresh)
    backbone = keras_hub.models.Backbone.from_preset(str(fresh / "resnet"))
    found = Run(folder / "runs/resnet-1").variables(6)
    for variable in backbone.variables:
        frozen = variable.path.startswith(("conv1", "stack0"))
        same = np.array_equal(found[f"model/{variable.path}"], variable.numpy())
        assert same == frozen, variable.path


def test_served_it_is_the_same_model(folder: pathlib.Path) -> None:
    assert said(folder, "again", "evaluate")[0] == 0
    metrics = json.loads((folder / "e.json").read_text())
    (row,) = Run(folder / "runs/resnet-2").rows("eval/")
    assert {n: v for n, v in row.items() if n.startswith("eval/")}.items() <= metrics.items()
    code, out = said(folder, "again", "export")
    assert code == 0 and "64 of 64 answers equal" in out, out
    card = (folder / "runs/resnet-1/MODEL.md").read_text()
    assert "import keras, keras_hub, numpy" in card and "| keras-hub | " in card


def test_the_numbers_are_those_that_keras_hub_computes(tmp_path: pathlib.Path) -> None:
    """With the preset's own preprocessing, on images of the size that it is for."""
    write_presets(tmp_path)
    given = f"hub:{tmp_path / 'resnet'}"
    model = hub_model(given, DatasetFacts("random", 10, 10, 3, (16, 16, 3)))
    take_preset(model, given)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), "uint8")
    classifier = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "resnet"))
    features = classifier.backbone(classifier.preprocessor(tf.constant(images)))
    pooled = tf.reduce_mean(features, axis=[1, 2])
    kernel, bias = model.weights[-2:]
    expected = pooled @ kernel.numpy() + bias.numpy()
    assert model(images).numpy() == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-5)


def test_the_blocks_of_a_vit_have_rates_of_their_own(tmp_path: pathlib.Path) -> None:
    write_presets(tmp_path)
    model = hub_model(f"hub:{tmp_path / 'vit'}", DatasetFacts("random", 10, 10, 3, (16, 16, 3)))
    factors, _ = group_variables(model, (), 0.5)
    found = {}
    for variable, factor in zip(model.trainable_variables, factors, strict=True):
        for part in ("patching_and_embedding", "block_1/", "block_2/", "/ln/", "predictions"):
            if part in variable.path:
                found.setdefault(part, set()).add(factor)
    assert list(found.values()) == [{0.0625}, {0.125}, {0.25}, {0.5}, {1.0}]


def test_positions_of_a_vit_are_those_of_the_preset_resampled(tmp_path: pathlib.Path) -> None:
    write_presets(tmp_path)
    given = f"hub:{tmp_path / 'vit'}"
    model = hub_model(given, DatasetFacts("random", 10, 10, 3, (24, 32, 3)))
    take_preset(model, given)
    first = keras_hub.models.Backbone.from_preset(str(tmp_path / "vit"))
    name = "position_embedding/embeddings"
    (old,), (new,) = ([v for v in m.variables if name in v.path] for m in (first, model))
    wanted = fitted(old.path, old.numpy(), new.shape, (16, 16), (24, 32))
    assert np.array_equal(new.numpy(), wanted) and new.shape == (13, 8)
