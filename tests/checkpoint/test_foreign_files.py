"""Files that are no network of nanogan's, or not in its formats: read exactly, or one true sentence for each cause."""

import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks import torch_dcgan
from nanogan import checkpoint, convert
from nanogan.analysis.judges.classifier import Classifier, load_classifier
from nanogan.checkpoint import safetensors_files
from nanogan.checkpoint.recognition import known
from nanogan.errors import UserError
from nanogan.models import conditional, dcgan, discogan, vanilla
from nanogan.training import sample


def generator():
    g = dcgan.generator(image_size=16, channels=3, latent=5, width=4, rng=np.random.default_rng(1))
    g.forward(np.random.default_rng(2).standard_normal((8, 5), dtype=np.float32))
    return g


# ----------------------------------------------------------------------------------------------------- number formats

FORMATS = [(torch.bfloat16, torch.uint16, 1 << 16), *((kind, torch.uint8, 256) for kind in
           (torch.float8_e4m3fn, torch.float8_e5m2))]  # fmt: skip


@pytest.mark.parametrize(("dtype", "bits", "count"), FORMATS, ids=lambda x: str(x))
def test_every_number_of_a_format_that_numpy_has_not_becomes_float32_exactly(tmp_path, dtype, bits, count):
    values = torch.arange(count).to(bits).view(dtype)
    saved = {
        "w": values.reshape(4, -1),
        "scalar": values[5].clone(),
        "none": values[:0].clone(),
        "half": torch.ones(2).half(),
    }
    safetensors.torch.save_file(saved, tmp_path / "w.safetensors")
    arrays = checkpoint.read(tmp_path / "w.safetensors")
    expected = values.float().numpy().reshape(4, -1)
    assert arrays["w"].dtype == np.float32
    assert np.isnan(expected).sum() == {torch.bfloat16: 254, torch.float8_e4m3fn: 2, torch.float8_e5m2: 6}[dtype]
    np.testing.assert_array_equal(arrays["w"], expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(arrays["w"])[numbers], np.signbit(expected)[numbers])  # of -0 too
    assert (arrays["scalar"].shape, arrays["scalar"]) == ((), expected[0, 5])
    assert (arrays["none"].shape, arrays["half"].dtype) == ((0,), np.float16)
    # both doors
    notes = convert.convert(tmp_path / "w.safetensors", tmp_path / "new.safetensors")
    assert f"3 arrays of {str(dtype).removeprefix('torch.')} became float32, exactly" in notes
    np.testing.assert_array_equal(checkpoint.read(tmp_path / "new.safetensors")["w"], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_another_precision_are_opened(tmp_path, dtype):
    rng = np.random.default_rng(7)
    d = dcgan.discriminator(image_size=16, channels=3, width=4, rng=rng)
    d.forward(rng.standard_normal((4, 3, 16, 16), dtype=np.float32))
    for network, load in ((generator(), checkpoint.load_generator), (d, checkpoint.load_discriminator)):
        theirs = {name: torch.tensor(np.array(array, order="C")) for name, array in network.state_dict().items()}
        theirs = {name: array.to(dtype) if array.is_floating_point() else array for name, array in theirs.items()}
        safetensors.torch.save_file(theirs, tmp_path / "model.bin")
        loaded = load(tmp_path / "model.bin").state_dict()
        assert loaded.keys() == theirs.keys()
        for name, array in loaded.items():
            assert array.dtype == (np.int64 if "num_batches" in name else np.float32)
            np.testing.assert_array_equal(array, theirs[name].float().numpy())


def test_double_weights_that_float32_cannot_hold_are_refused(tmp_path):
    state = {name: np.array(array, np.float64, order="C") for name, array in generator().state_dict().items()}
    state["main.0.weight"] = state["main.0.weight"] + 1e300
    safetensors.numpy.save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="not finite"):
        checkpoint.load_generator(tmp_path / "g.safetensors")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.complex64, "C64"), (torch.float8_e8m0fnu, "F8_E8M0"), (torch.float8_e4m3fnuz, "F8_E4M3FNUZ")],
)
def test_other_formats_are_refused_by_name(tmp_path, dtype, name):
    safetensors.torch.save_file({"a.w": torch.ones(3).to(dtype)}, tmp_path / "w.safetensors")
    for read in (checkpoint.read, lambda path: convert.convert(path, tmp_path / "new.safetensors")):
        with pytest.raises(UserError, match=rf"has the array a\.w of format {name}, .* array\.float\(\)") as caught:
            read(tmp_path / "w.safetensors")
        assert "nanogan.convert" not in str(caught.value)
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 62, 4], [3], [1, 0]])
def test_no_size_of_a_bfloat16_array_is_believed(tmp_path, shape):
    header = json.dumps({"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match="was cut short or damaged"):
        checkpoint.read(tmp_path / "w.safetensors")


# -------------------------------------------------------------------------------------------------------------- causes


def cut(path):
    checkpoint.save(path, generator())
    path.write_bytes(path.read_bytes()[:6000])


def written(path, function, **arrays):
    with path.open("wb") as file:
        function(file, **arrays)


CAUSES = {
    "missing": (lambda path: None, ["there is no"]),
    "folder": (lambda path: path.mkdir(), ["is a folder, and a file was expected"]),
    "empty": (lambda path: path.touch(), ["it is empty"]),
    "cut": (cut, ["it was cut short or damaged (", "take an older one"]),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>"), ["it is a web page; download the file itself"]),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 1"), ["git lfs pull"]),
    "index": (lambda path: path.write_text('{"metadata": {}, "weight_map": {"a": "1.bin"}}'), ["JSON text", "index"]),
    "json": (lambda path: path.write_text('{"abcde":{}}'), ["JSON text"]),
    "npz": (lambda path: written(path, np.savez, w=np.ones(3)), ["NumPy's (.npz)"]),
    "npy": (lambda path: written(path, np.save, arr=np.ones(3)), ["NumPy's (.npy)"]),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), ["HDF5"]),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_gets_its_own_sentence_at_every_door(tmp_path, cause, suffix):
    path = tmp_path / f"g{suffix}"
    make, texts = CAUSES[cause]
    make(path)
    doors = checkpoint.load_generator, checkpoint.read_training, checkpoint.load_translator, load_classifier
    for door in (*doors, lambda path: convert.convert(path, tmp_path / "new.safetensors")):
        with pytest.raises(UserError) as caught:
            door(path)
        text = str(caught.value)
        assert str(path) in text
        assert all(part in text for part in texts), text
        assert "nanogan.convert" not in text, "which would not help"
        assert "\n" not in text
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
def test_a_file_of_torch_is_one_whatever_its_name(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"my weights{suffix}"
    torch.save({"w": torch.ones(3)}, path)
    with pytest.raises(UserError) as caught:
        checkpoint.load_generator(path)
    assert str(caught.value).endswith(f"convert it with python -m nanogan.convert '{path}' NEW.safetensors")
    convert.convert(path, tmp_path / "NEW.safetensors")
    np.testing.assert_array_equal(checkpoint.read(tmp_path / "NEW.safetensors")["w"], np.ones(3))


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    checkpoint.save(tmp_path / "g.safetensors", generator())
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_files.safetensors, "safe_open", denied)
        with pytest.raises(UserError, match=r"g\.safetensors cannot be read \(Permission denied\)") as caught:
            checkpoint.load_generator(tmp_path / "g.safetensors")
    assert "convert" not in str(caught.value)
    monkeypatch.setattr(safetensors_files.os, "stat", denied)
    with pytest.raises(UserError, match=r"g\.safetensors cannot be opened \(Permission denied\)"):
        checkpoint.load_generator(tmp_path / "g.safetensors")


def test_the_files_of_a_folder_are_named(tmp_path):
    checkpoint.save(tmp_path / "run" / "generator.safetensors", generator())
    checkpoint.save(tmp_path / "run" / "checkpoints" / "last.safetensors", generator())
    with pytest.raises(UserError, match=r"name one in it, as .*run/generator\.safetensors, .*checkpoints/last\.safet"):
        checkpoint.load_generator(tmp_path / "run")


# ------------------------------------------------------------------------------------- what no output depends on


def changed(change):
    state = {name: np.array(array, order="C") for name, array in generator().state_dict().items()}
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(counters) == 2
    change(state, counters)
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda state, counters: [state.pop(name) for name in counters],
        lambda state, counters: state.update({name: np.array(3, np.float32) for name in counters}),
        lambda state, counters: state.update({name: np.array([3], np.int32) for name in counters}),
        lambda state, counters: state.update({"main.0.num_batches_tracked": np.array(2)}),
        lambda state, counters: state.update({"total_ops": np.zeros(1), "main.0.total_params": np.zeros(1)}),
    ],
    ids=["missing", "float32", "of one element", "too many", "of the profiler thop"],
)
def test_counters_may_be_missing_too_many_and_of_other_dtypes(tmp_path, change):
    safetensors.numpy.save_file(changed(change), tmp_path / "g.safetensors")
    z = np.random.default_rng(3).standard_normal((4, 5), dtype=np.float32)
    expected = sample(generator(), z)
    np.testing.assert_array_equal(sample(checkpoint.load_generator(tmp_path / "g.safetensors"), z), expected)
    network = dcgan.generator(image_size=16, channels=3, latent=5, width=4)
    np.testing.assert_array_equal(sample(checkpoint.load(tmp_path / "g.safetensors", network), z), expected)
    notes = convert.convert(tmp_path / "g.safetensors", tmp_path / "new.safetensors")
    assert notes[0] == "it holds a DCGAN generator of 16 x 16 pixels with 3 channels, latent 5, width 4"


def test_an_array_on_which_the_output_may_depend_is_not_left_out_silently(tmp_path, monkeypatch):
    state = changed(lambda state, counters: state.update({"embed.weight": np.ones((10, 5), np.float32)}))
    safetensors.numpy.save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(UserError) as caught:
        checkpoint.load_generator(tmp_path / "g.safetensors")
    command = f"python -m nanogan.convert {tmp_path / 'g.safetensors'} NEW.safetensors --drop embed.weight"
    assert str(caught.value).endswith(f"if its output does not depend on them: mend that with {command}")
    convert.convert(tmp_path / "g.safetensors", tmp_path / "new.safetensors", drop=["embed.weight"])
    assert checkpoint.load_generator(tmp_path / "new.safetensors").latent == 5
    for drop, match in ((["embed.wei"], "no array is named so"), (["main", "embed"], "leaves nothing")):
        with pytest.raises(UserError, match=match):
            convert.convert(tmp_path / "g.safetensors", tmp_path / "newer.safetensors", drop=drop)


# ------------------------------------------------------------------------------------------- one network for another

RNG = np.random.default_rng(0)
SMALL = {"image_size": 8, "channels": 1, "width": 2, "rng": RNG}
NETWORKS = {
    "discriminator": (lambda: dcgan.discriminator(**SMALL), "a DCGAN discriminator of 8 x 8 pixels"),
    "conditional": (lambda: conditional.generator(latent=4, classes=3, **SMALL), "a conditional DCGAN generator, as "),
    "vanilla": (lambda: vanilla.generator(image_size=8, channels=1, latent=4, hidden=6, rng=RNG), "a vanilla GAN gen"),
    "translator": (
        lambda: discogan.generator(image_size=16, in_channels=1, out_channels=1, width=2, rng=RNG),
        "a DiscoGAN's translator, as discogan.py trains",
    ),
    "classifier": (lambda: Classifier(image_size=8, width=2, rng=RNG), "a classifier, as train_classifier.py trains"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_given_for_another_is_called_by_its_name(tmp_path, name):
    make, words = NETWORKS[name]
    checkpoint.save(tmp_path / f"{name}.safetensors", make())
    checkpoint.save(tmp_path / "generator.safetensors", generator())
    with pytest.raises(UserError) as caught:
        checkpoint.load_generator(tmp_path / f"{name}.safetensors")
    text = str(caught.value)
    assert f"is not a DCGAN generator of nanogan's: it holds {words}" in text
    assert text.endswith(f"; name the file of a DCGAN generator, as {tmp_path / 'generator.safetensors'}")
    assert "load_" not in text, "which is no word of the command line's"
    assert "()" not in text
    if name != "classifier":
        with pytest.raises(UserError, match=f"train one with python examples/train_classifier.py; .* holds {words}"):
            load_classifier(tmp_path / f"{name}.safetensors")


def test_a_dcgan_is_taken_for_no_other_network_of_nanogans():
    for size in (8, 16, 28, 32, 64):
        sizes = {"image_size": size, "channels": 3, "width": 2}
        networks = dcgan.discriminator(**sizes), dcgan.generator(latent=5, **sizes)
        assert [known(network.state_dict()) for network in networks] == [None, None]


@pytest.mark.parametrize("name", ["a\nb.main.", "\x1b[31m.", "main.0.x\ny."])
def test_no_name_out_of_a_file_breaks_a_message_in_two(tmp_path, name):
    state = {name + key: np.array(array, order="C") for key, array in generator().state_dict().items()}
    for more in ({}, {"other.weight": np.ones(3)}):
        safetensors.numpy.save_file(state | more, tmp_path / "g.safetensors")
        for load in (checkpoint.load_generator, checkpoint.load_discriminator):
            with pytest.raises(UserError) as caught:
                load(tmp_path / "g.safetensors")
            assert str(caught.value).isprintable()


def test_a_run_without_a_generator_is_told_by_its_networks(tmp_path):
    class Run:
        def state_dict(self):
            return {"ab": generator().state_dict(), "d_a": {"w": np.ones(2)}, "opt_d": {"steps": 1, "w": np.ones(2)}}

    checkpoint.save_training(tmp_path / "last.safetensors", Run(), checkpoint.Progress(1, 1, 1, 1, 0.0))
    with pytest.raises(UserError, match=r"run without a DCGAN generator: its networks are ab; d_a$"):
        checkpoint.load_generator(tmp_path / "last.safetensors")


def test_a_judge_of_other_images_names_its_file_and_the_way_out(tmp_path):
    checkpoint.save(tmp_path / "judge.safetensors", Classifier(image_size=8, width=2))
    network = load_classifier(tmp_path / "judge.safetensors")
    with pytest.raises(UserError) as caught:
        network.check(np.empty((0, 3, 16, 16)))
    text = str(caught.value)
    assert "expected pictures (N, 1, 8, 8), got (0, 3, 16, 16)" in text
    assert f"{tmp_path / 'judge.safetensors'} was trained on the former" in text
    assert text.endswith("python examples/train_classifier.py --image-size 16 --channels 3 trains one on the latter")
    with pytest.raises(UserError, match="was trained on the former$"):  # a size that it cannot have
        network.check(np.empty((0, 1, 18, 18)))


def test_torchs_own_networks_go_through_both_doors_alike(tmp_path):
    """The same bfloat16 state dict as .pth and as .safetensors."""
    g = torch_dcgan.copy_of(generator()).bfloat16()
    torch.save(g.state_dict(), tmp_path / "g.pth")
    safetensors.torch.save_file(g.state_dict(), tmp_path / "g.safetensors")
    notes = [
        convert.convert(tmp_path / f"g.{kind}", tmp_path / f"{kind}.safetensors") for kind in ("pth", "safetensors")
    ]
    assert notes[0][:-1] == notes[1][:-1]
    one, other = (checkpoint.read(tmp_path / f"{kind}.safetensors") for kind in ("pth", "safetensors"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
