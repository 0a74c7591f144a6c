"""Forgetting as a user starts it: on untrained generators whose pictures differ, in seconds."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from nanogan import checkpoint
from nanogan.analysis.inside import forgetting
from nanogan.analysis.judges.classifier import Classifier
from nanogan.models import dcgan
from nanogan.training import sample
from tests.examples import starting
from tests.examples.starting import EXAMPLES, run, size_of

OPTIONS = ("forgetting.py", "--dry-run")
MEASURES = ("after", "lost", "gained", "kept", "kept_with")


def succeed(*arguments, folder):
    printed = starting.succeed(*OPTIONS, *arguments, folder=folder)
    out = folder / "runs/forgetting"
    return printed, json.loads((out / "numbers.json").read_text()), size_of(out / "forgetting.png")


def generator(path, **shape):
    """An untrained generator of contrasts: each z has another picture."""
    g = dcgan.generator(**shape, width=4, latent=6, rng=np.random.default_rng(1))
    for _, parameter, _ in g.named_parameters():
        if parameter.ndim == 4:
            parameter *= 20
    checkpoint.save(path, g)
    return g


def grey(folder):
    return generator(folder / "g.safetensors", image_size=16, channels=1)


def test_faces_forget_an_attribute(tmp_path):
    generator(tmp_path / "runs/faces_dcgan/generator.safetensors", image_size=32, channels=3)
    out, numbers, size = succeed(folder=tmp_path)
    assert "property: glasses" in out
    assert (numbers["layer"], numbers["channels"], numbers["map_size"]) == (5, 8, 8)
    assert 0.4 < numbers["classifier_accuracy"] <= 1
    assert size == (2 + 10 * 66 + 8 + 2 + 6 * 66, 2 + 5 * 66)
    for count in ("by_rule", "1_maps", "2_maps", "4_maps"):
        for name in (*MEASURES, "inside", "outside"):
            chosen, mean, low, high = numbers[f"{name}_{count}"]
            assert low <= mean <= high
            assert chosen >= 0
    assert "8_maps" not in str(numbers)  # the layer has no more


def test_a_class_is_forgotten(tmp_path):
    g = grey(tmp_path)
    network = Classifier(image_size=16, channels=1, width=2, classes=3, rng=np.random.default_rng(1))
    pictures = sample(g, np.random.default_rng(2).standard_normal((200, 6), dtype=np.float32))
    logits, _ = network.forward(pictures, train=False)
    network[-1].params["bias"][1] -= np.median(logits[:, 1] - np.delete(logits, 1, axis=1).max(axis=1))
    checkpoint.save(tmp_path / "c.safetensors", network)  # class 1 is now seen in half of the pictures
    options = ("--checkpoint", "g.safetensors", "--classifier", "c.safetensors")
    _, numbers, _ = succeed(*options, "--property", 1, "--maps", 3, folder=tmp_path)
    assert numbers["samples_with_it"] == pytest.approx(0.5, abs=0.25)
    assert {f"{name}_3_maps" for name in MEASURES} <= numbers.keys()
    assert "outside_3_maps" not in numbers  # the box is the picture
    code, out, err = run(*OPTIONS, *options, "--property", 1, "--negatives", "elsewhere", folder=tmp_path)
    assert code == 2
    assert "positions that show the property and positions that do not" in err


def test_what_is_measured_was_not_learned_from(tmp_path, monkeypatch):
    """The regression sees 60 samples and what was judged of them, the rates are of 50 others."""
    generator(tmp_path / "g.safetensors", image_size=32, channels=3)
    spec = importlib.util.spec_from_file_location("forgetting_example", EXAMPLES / "forgetting.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    learned, measured, whole = [], [], {name: getattr(forgetting, name) for name in ("examples", "draw", "rates")}

    def examples(y, positive, negative, **options):
        learned.append((y, positive.any(axis=(1, 2))))
        return whole["examples"](y, positive, negative, **options)

    def draw(g, y, layer, *, without=(), **options):
        if len(without):
            measured.append(y)
        return whole["draw"](g, y, layer, without=without, **options)

    def rates(before, after, k):
        judged.append(before[:, k])
        return whole["rates"](before, after, k)

    judged = []
    for name, watched in (("examples", examples), ("draw", draw), ("rates", rates)):
        monkeypatch.setattr(forgetting, name, watched)
    monkeypatch.chdir(tmp_path)
    options = ("--checkpoint", "g.safetensors", "--property", "glasses", "--samples", "60", "--new", "50")
    monkeypatch.setattr(sys, "argv", ["forgetting.py", "--dry-run", *options])
    assert not example.main()
    ((y, has),) = learned
    assert (len(y), len(has)) == (60, 60)
    assert {len(before) for before in judged} == {50}
    assert 0 < judged[0].sum() < 50
    assert max(map(len, measured)) == 50
    known = {each.tobytes() for each in y}
    assert len(known) == 60
    assert not any(each.tobytes() in known for some in measured for each in some)


def test_boxes_drawn_by_hand(tmp_path):
    grey(tmp_path)
    code, out, err = run(*OPTIONS, "--checkpoint", "g.safetensors", folder=tmp_path)
    assert code == 0, err
    assert "write boxes round what is to be forgotten" in out
    assert size_of(tmp_path / "runs/forgetting/samples.png") == (2 + 10 * 34, 2 + 10 * 47)
    assert not (tmp_path / "runs/forgetting/numbers.json").exists()
    (tmp_path / "boxes.json").write_text('{"3": [0, 0, 8, 8], "99": [[4, 4, 9, 9], [10, 0, 16, 3]]}')
    options = ("--checkpoint", "g.safetensors", "--boxes", "boxes.json", "--convolution", 2, "--maps", 2)
    _, numbers, size = succeed(*options, folder=tmp_path)
    # a map of 8 x 8: 4 x 4 positions in sample 3; 2 x 2 (middles 5, 7) and 3 x 1 (11, 13, 15; 1) in sample 99
    assert numbers["positions"] == 2 * (16 + 4 + 3)
    assert (numbers["layer"], numbers["channels"], numbers["map_size"]) == (5, 4, 8)
    assert {"inside_2_maps", "outside_by_rule"} <= numbers.keys()
    assert "lost_2_maps" not in numbers
    assert size == (2 + 2 * 66 + 8 + 2 + 6 * 66, 2 + 5 * 66)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "there is no generator runs/faces_dcgan/generator.safetensors: train one first (python examples/faces_d",
        ),
        (
            ("g", "--property", "hat"),
            "--property expected one of smile, glasses, long_hair, looks_right, round, or a cl",
        ),
        (
            ("g", "--property", "smile"),
            "built-in faces have 3 channels and 32 or 64 pixels, g.safetensors draws 1 and 16",
        ),
        (("g", "--classifier", "c"), "say with --property which one is to be forgotten"),
        (
            ("g", "--classifier", "c", "--property", "3"),
            "there is no classifier c: train one first (python examples/tra",
        ),
        (("g", "--boxes", "bad.json", "--negatives", "without"), "leave out --negatives without"),
        (("g", "--boxes", "bad.json"), "bad.json: a box of sample 3 expected [left, top, right, bottom]"),
        (("g", "--convolution", "3"), "--convolution expected a hidden one of G, from 1 to 2, got 3"),
        (("g", "--maps", "9"), "--maps expected at most the layer's 8, got 9"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, arguments, message):
    grey(tmp_path)
    (tmp_path / "bad.json").write_text('{"3": [0, 0, 17, 8]}')
    if arguments:
        arguments = ("--checkpoint", "g.safetensors", *arguments[1:])
    code, out, err = run(*OPTIONS, *arguments, folder=tmp_path)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
