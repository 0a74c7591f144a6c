"""Networks in files: back to the bit, across to torch, refused when damaged, never half written."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from benchmarks import torch_dcgan
from nanogan import checkpoint
from nanogan.backend import to_numpy
from nanogan.disk import clear_temporaries, replacing, writable_folder
from nanogan.errors import UserError
from nanogan.games.game import Game
from nanogan.layers import Dropout
from nanogan.models import dcgan
from nanogan.optim import SGD, Adam, Ema
from nanogan.training import adversarial_step, sample
from tests.failing_files import fill_the_disk


@pytest.fixture
def g():
    """A small generator whose running statistics are not the initial ones."""
    network = dcgan.generator(image_size=16, channels=3, latent=5, width=4, rng=np.random.default_rng(1))
    network.forward(np.random.default_rng(2).standard_normal((8, 5), dtype=np.float32))
    return network


@pytest.fixture
def z():
    return np.random.default_rng(3).standard_normal((4, 5), dtype=np.float32)


def test_a_generator_comes_back_to_the_bit(tmp_path, g, z):
    checkpoint.save(tmp_path / "g.safetensors", g)
    back = checkpoint.load_generator(tmp_path / "g.safetensors")
    np.testing.assert_array_equal(sample(back, z), sample(g, z))
    assert (back.image_size, back.channels, back.latent, back.width) == (16, 3, 5, 4)


def test_torch_opens_ours_and_draws_the_same(tmp_path, g, z):
    checkpoint.save(tmp_path / "g.safetensors", g)
    theirs = torch_dcgan.copy_of(dcgan.generator(image_size=16, channels=3, latent=5, width=4))
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "g.safetensors"))
    theirs.eval()
    with torch.no_grad():
        pictures = theirs(torch.tensor(z)[:, :, None, None]).numpy()
    np.testing.assert_allclose(sample(g, z), pictures, atol=1e-6)


def test_ours_opens_torchs_and_draws_the_same(tmp_path, g, z):
    theirs = torch_dcgan.copy_of(g)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "netG.safetensors")
    theirs.eval()
    with torch.no_grad():
        pictures = theirs(torch.tensor(z)[:, :, None, None]).numpy()
    np.testing.assert_allclose(sample(checkpoint.load_generator(tmp_path / "netG.safetensors"), z), pictures, atol=1e-6)


def test_the_file_is_ordered_as_torch_reads_it(tmp_path, g):
    """Arrays are channels-last in memory and must be written in the order of their logical shape."""
    checkpoint.save(tmp_path / "g.safetensors", g)
    state = safetensors.torch.load_file(tmp_path / "g.safetensors")
    for name, array in g.state_dict().items():
        np.testing.assert_array_equal(state[name].numpy(), array)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "not a whole safetensors file"),
        (lambda data: data[:-1], "not a whole safetensors file"),
        (lambda data: b"", "not a whole safetensors file"),
        (lambda data: b"\xff" * 8 + data[8:], "not a whole safetensors file"),
        (lambda data: data.replace(b"main.0.weight", b"main.1.weight"), "not a"),
        (lambda data: data.replace(b'"shape":[5,8,4,4]', b'"shape":[5,8,4,9]'), "not a whole safetensors file"),
    ],
)
def test_a_damaged_checkpoint_gets_one_sentence(tmp_path, g, spoil, message):
    path = tmp_path / "g.safetensors"
    checkpoint.save(path, g)
    data = path.read_bytes()
    assert spoil(data) != data
    path.write_bytes(spoil(data))
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load_generator(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "netG_epoch_24.pth"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="python -m nanogan.convert"):
        checkpoint.load_generator(path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_checkpoint_and_another_network(tmp_path, g):
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.load_generator(tmp_path / "nothing.safetensors")
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match=r"belong to another network: main.2.weight is missing; .* and \d+ more"):
        checkpoint.load(tmp_path / "g.safetensors", dcgan.discriminator(image_size=16, width=4))


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, g, monkeypatch):
    path = tmp_path / "g.safetensors"
    checkpoint.save(path, g)
    before = path.read_bytes()

    fill_the_disk(monkeypatch, checkpoint.safetensors_files)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, g)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["g.safetensors"]


def test_weights_that_are_not_numbers_are_refused(tmp_path, g):
    g.layers[0].params["weight"][0, 0, 0, 0] = np.nan
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match="not finite"):
        checkpoint.load_generator(tmp_path / "g.safetensors")


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "below" / "file.txt"
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_a_folder_that_cannot_be_written_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="choose another with --out"):
            writable_folder(path)


def test_the_weights_of_a_stranger(real_data):
    """A discriminator that pytorch/examples' script trained on MNIST, converted as the README says."""
    folder = os.path.join(real_data, "weights")
    if not os.path.isdir(folder):
        pytest.skip("no weights in NANOGAN_DATA")
    from nanogan.data import load_mnist
    from nanogan.layers import BatchNorm2d as Norm
    from nanogan.layers import Conv2d, Flatten, LeakyReLU, Sequential, Sigmoid

    def conv(c, f, stride=2, padding=1):
        return Conv2d(c, f, kernel_size=4, stride=stride, padding=padding, bias=False)

    def leaky():
        return LeakyReLU(negative_slope=0.2)

    network = Sequential(
        conv(1, 64), leaky(), conv(64, 128), Norm(128), leaky(), conv(128, 256), Norm(256), leaky(),
        Conv2d(256, 1, kernel_size=4, stride=2, padding=1, bias=False), Sigmoid(), Flatten(), prefix="main",
    )  # fmt: skip
    state = torch.load(os.path.join(folder, "mnist_netD_csinva.pth"), weights_only=True, map_location="cpu")
    network.load_state_dict({name: tensor.numpy() for name, tensor in state.items()})
    pictures, _ = load_mnist(data_dir=real_data, split="test")
    x = pictures[:200].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
    got, _ = network.forward(x, train=False)
    expected = np.load(os.path.join(folder, "expected_outputs.npz"))["csinva_netD_out_t10k_first200"]
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-5)


# ------------------------------------------------------------------------------------------- training checkpoints


class Pair(Game):
    """A generator, a discriminator with Dropout, their optimisers and an average of weights."""

    def __init__(self, g, d, opt_g, opt_d, ema=None):
        self.g, self.d, self.opt_g, self.opt_d, self.ema = g, d, opt_g, opt_d, ema


def trained(seed=0, ema=None, **options):
    """A Pair after a few steps."""
    rng = np.random.default_rng(seed)
    options = {"image_size": 8, "channels": 1, "width": 2} | options
    g = dcgan.generator(latent=3, rng=rng, **options)
    d = dcgan.discriminator(rng=rng, **options)
    d.layers.insert(2, Dropout(p=0.2, rng=np.random.default_rng(seed + 50)))
    opt_g, opt_d = Adam(g, lr=1e-3 * (seed + 1)), Adam(d, lr=2e-3 * (seed + 1))
    average = None if ema is None else Ema(g, beta=ema)
    for _ in range(seed + 2):
        size = options["image_size"]
        real = rng.standard_normal((4, options["channels"], size, size), dtype=np.float32)
        adversarial_step(g, d, opt_g, opt_d, real, rng.standard_normal((4, 3), dtype=np.float32))
        if average is not None:
            average.update()
    return Pair(g, d, opt_g, opt_d, average)


def progress(**changes):
    values = {"step": 7, "epoch": 2, "batch": 3, "steps_per_epoch": 4, "seconds": 1.25, "best": -0.1}
    return checkpoint.Progress(options={"lr": 5e-4, "data": None, "ä": [1]}, **values | changes)


def everything(pair):
    """Copies of all that a step depends on."""
    state = {}
    for name, network in (("g", pair.g), ("d", pair.d)):
        state |= {f"{name}.{key}": np.copy(to_numpy(array)) for key, array in network.state_dict().items()}
    for name, optimizer in (("opt_g", pair.opt_g), ("opt_d", pair.opt_d)):
        state |= {f"{name}.{key}": np.copy(to_numpy(array)) for key, array in optimizer.state.items()}
        state |= {f"{name}.{key}": getattr(optimizer, key) for key in ("steps", "lr", "initial_lr")}
    if pair.ema is not None:
        state |= {f"ema.{key}": np.copy(to_numpy(array)) for key, array in pair.ema.average.state_dict().items()}
        state["ema.steps"] = pair.ema.steps
    return state


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("beta", [None, 0.9])
def test_a_training_comes_back_to_the_bit_on_any_device(tmp_path, device, beta):
    path = tmp_path / "last.safetensors"
    saved, loaded = trained(0, beta), trained(1)
    checkpoint.save_training(path, saved, progress())
    g, d = (network.to(device) for network in (loaded.g, loaded.d))
    loaded = Pair(g, d, Adam(g, lr=9), Adam(d, lr=9), None if beta is None else Ema(g, beta=beta))
    assert not same(everything(saved), everything(loaded))
    back = checkpoint.load_training(path, loaded)
    assert same(everything(loaded), everything(saved))
    assert (back.step, back.epoch, back.batch, back.steps_per_epoch, back.seconds, back.best) == (
        7,
        2,
        3,
        4,
        1.25,
        -0.1,
    )
    assert back.options == {"lr": 5e-4, "data": None, "ä": [1]}
    assert back.path == path
    assert back.numpy == np.__version__
    checkpoint.save_training(path, loaded, progress())
    checkpoint.load_training(path, trained(2, beta))


def test_a_generator_can_be_taken_out_of_a_training(tmp_path):
    z = np.random.default_rng(0).standard_normal((2, 3), dtype=np.float32)
    for beta in (None, 0.9):
        saved = trained(ema=beta)
        checkpoint.save_training(tmp_path / "c.safetensors", saved, progress())
        shown = saved.g if beta is None else saved.ema.average
        g = checkpoint.load_generator(tmp_path / "c.safetensors")
        np.testing.assert_array_equal(sample(g, z), sample(shown, z))


def test_a_run_with_an_average_of_weights_is_not_one_without(tmp_path):
    checkpoint.save_training(tmp_path / "c.safetensors", trained(ema=0.9), progress())
    assert_refused(tmp_path / "c.safetensors", "another network: ema.average.main.0.weight is unknown here")
    checkpoint.save_training(tmp_path / "c.safetensors", trained(), progress())
    assert_refused(tmp_path / "c.safetensors", "ema.average.main.0.weight is missing", into=trained(1, ema=0.9))


def assert_refused(path, match, *, into=None):
    """Loading gets one sentence that names the file, and changes nothing."""
    into = into or trained(1)
    before = everything(into)
    with pytest.raises(UserError, match=match) as caught:
        checkpoint.load_training(path, into)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert same(everything(into), before)


def test_any_flipped_bit_and_any_missing_byte_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    for i in [*range(8), *rng.integers(8, header, 60), *rng.integers(header, len(data), 60)]:
        flipped = bytearray(data)
        flipped[i] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        assert_refused(path, "c.safetensors")
    for length in [0, 7, 8, header - 1, header, *rng.integers(len(data), size=10)]:
        path.write_bytes(data[:length])
        assert_refused(path, "not a whole safetensors file")


def forge(path, change, arrays=None):
    """Rewrite a checkpoint's metadata with a checksum that fits."""
    _, old, _ = checkpoint.read_training(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        fields = json.loads(file.metadata()["nanogan_training"])
    arrays = old if arrays is None else arrays
    change(fields)
    fields.pop("checksum", None)
    fields["checksum"] = checkpoint.runs._checksum(fields, arrays)
    safetensors.numpy.save_file(arrays, path, {"nanogan_training": json.dumps(fields)})


HUGE = 10**400
COUNTS = ("step", "epoch", "batch", "steps_per_epoch")
HOSTILE = [
    *((name, value) for name in COUNTS for value in (0, -1, 1.5, "7", None, True, [], HUGE)),
    *(("seconds", value) for value in (-1, float("nan"), float("inf"), "1", None, {}, False, HUGE)),
    *(("best", value) for value in (float("nan"), float("-inf"), "1", [])),
    ("step", 8), ("batch", 4), ("epoch", 3), ("steps_per_epoch", 5), ("steps_per_epoch", 2),
    ("state", None), ("state", []), ("options", [1]), ("options", None),
    ("format", 2), ("format", 4), ("format", None), ("format", []), ("format", "1"),
]  # fmt: skip
HOSTILE_STATE = [
    *(("opt_d.steps", value) for value in (-1, 0.5, None, HUGE, True)),
    *((f"opt_g.{name}", value) for name in ("lr", "initial_lr")
      for value in (-1e-3, float("nan"), float("inf"), "0.1", None)),
    ("opt_g.lr", HUGE), ("opt_x.steps", 3), ("ema.steps", 1), ("g", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=lambda x: str(x)[:30])
def test_a_number_that_no_run_writes_gets_one_sentence(tmp_path, name, value):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())

    forge(path, lambda fields: fields.update({name: value}))
    assert_refused(path, "cannot be resumed from: ")


@pytest.mark.parametrize(("name", "value"), HOSTILE_STATE, ids=lambda x: str(x)[:30])
def test_a_number_that_no_game_has_gets_one_sentence(tmp_path, name, value):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())
    forge(path, lambda fields: fields["state"].update({name: value}))
    assert_refused(
        path, f"belongs to another network: {name} (is unknown here|expected an integer|expected a finite number)"
    )


@pytest.mark.parametrize("form", [1, 2])
def test_checkpoints_of_older_formats_are_read(tmp_path, form):
    """A run of nanogan 0.1.0's first days, 8 x 8 pixels: 4 steps with an average of g's weights and noise on images."""
    path = tmp_path / "old.safetensors"
    shutil.copyfile(Path(__file__).with_name("format2.safetensors"), path)
    with safetensors.safe_open(path, framework="numpy") as file:
        names = list(file.keys())
        arrays, fields = (
            {name: file.get_tensor(name) for name in names},
            json.loads(file.metadata()["nanogan_training"]),
        )
    assert fields["format"] == 2
    if form == 1:  # knew neither of the two
        arrays = {name: array for name, array in arrays.items() if not name.startswith("ema.")}
        del fields["ema"], fields["instance_rng"], fields["checksum"]
        fields["format"] = 1
        fields["checksum"] = checkpoint.runs._checksum(fields, arrays)
        safetensors.numpy.save_file(arrays, path, {"nanogan_training": json.dumps(fields)})
    sizes = {"image_size": 8, "channels": 1, "width": 2}
    g, d = dcgan.generator(latent=3, **sizes), dcgan.discriminator(**sizes)
    pair = Pair(g, d, Adam(g), Adam(d), Ema(g, beta=0.9) if form == 2 else None)
    back = checkpoint.load_training(path, pair)
    assert (back.step, back.epoch, back.batch, back.options["width"]) == (4, 1, 4, 2)
    assert (pair.opt_g.steps, pair.opt_d.steps, pair.opt_g.lr) == (4, 4, 5e-4)
    for name, array in arrays.items():
        owner, _, rest = name.partition(".")
        state = {"g": g, "d": d, "ema": pair.ema and pair.ema.average, "opt_g": pair.opt_g, "opt_d": pair.opt_d}[owner]
        state = state.state if owner.startswith("opt") else state.state_dict()
        np.testing.assert_array_equal(state[rest], array)
    assert pair.ema is None or pair.ema.steps == 4
    shown = checkpoint.load_generator(path).state_dict()
    for name, array in shown.items():
        np.testing.assert_array_equal(array, arrays[f"{'ema' if form == 2 else 'g'}.{name}"])


def test_metadata_that_is_no_json_of_ours_gets_one_sentence(tmp_path):
    path = tmp_path / "c.safetensors"
    texts = ["", "[1]", "{", '"text"', "1" * 5000, "[" * 200_000, '{"a":' * 100_000, "x" * (1 << 21), "{}"]
    for text in texts:
        safetensors.numpy.save_file({"g.a": np.zeros(1)}, path, {"nanogan_training": text})
        assert_refused(path, "cannot be resumed from: ")


def test_another_network_or_optimiser_gets_one_sentence(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())
    assert_refused(path, "another network: d.main.0.weight is float32 .* and .* more", into=trained(1, channels=3))
    assert_refused(path, "is (missing|unknown here)", into=trained(1, image_size=16))
    pair = trained(1)
    assert_refused(path, "opt_g.state.main.0.weight.exp_avg is unknown here",
            into=Pair(pair.g, pair.d, SGD(pair.g, lr=0.1), pair.opt_d))  # fmt: skip
    pair = trained(1)
    pair.d.astype(np.float64)
    assert_refused(path, "is float32 .* instead of float64", into=pair)


@pytest.mark.parametrize("name", ["g.main.0.weight", "d.main.0.weight", "opt_g.state.main.0.weight.exp_avg_sq"])
def test_arrays_that_are_not_finite_are_refused(tmp_path, name):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())
    arrays = dict(checkpoint.read_training(path)[1])
    arrays[name] = np.full_like(arrays[name], np.inf)
    forge(path, lambda fields: None, arrays)
    assert_refused(path, f"{name} is not finite")


def test_a_file_without_a_training_is_not_one(tmp_path, g):
    checkpoint.save(tmp_path / "generator.safetensors", g)
    assert_refused(tmp_path / "generator.safetensors", "holds no training that could be resumed, only networks")
    (tmp_path / "c.pt").write_bytes(pickle.dumps([1]))
    assert_refused(
        tmp_path / "c.pt", "looks like one of torch.save's, and a run is resumed from nanogan's checkpoints alone"
    )
    assert_refused(tmp_path / "nothing.safetensors", "there is no checkpoint")


def test_what_cannot_be_saved_is_told(tmp_path):
    state = progress()
    state.options = {"a": "x" * (1 << 20)}
    with pytest.raises(UserError, match="options of at most 1048576 characters"):
        checkpoint.save_training(tmp_path / "c.safetensors", trained(), state)
    assert os.listdir(tmp_path) == []


def test_a_failed_checkpoint_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    checkpoint.save_training(path, trained(), progress())
    before = path.read_bytes()
    fill_the_disk(monkeypatch, checkpoint.safetensors_files)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_training(path, trained(1), progress(step=8, batch=4))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_a_durable_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), rename(*paths)))
    with replacing(tmp_path / "file", durable=True) as temporary:
        temporary.write_text("whole")
    assert done == [os.stat(tmp_path / "file").st_ino, "rename", os.stat(tmp_path).st_ino]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    names = ["a.png", ".a-abcdefgh.png", ".a-abcdefgh.gif", ".b-abcdefgh.png", ".a-abc.png", ".hidden"]
    for name in names:
        (tmp_path / name).write_text("")
    clear_temporaries(tmp_path / "a.png")
    assert sorted(os.listdir(tmp_path)) == sorted(set(names) - {".a-abcdefgh.png"})
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.png") as temporary:
        clear_temporaries(tmp_path / "a.png")
        assert not temporary.exists(), "it knows the names that replacing gives"
        1 / 0  # noqa: B018


def test_a_numpy_scalar_in_a_state_is_a_number(tmp_path):
    """np.float32(0.1) has a dtype, as arrays have."""
    path = tmp_path / "c.safetensors"
    saved, loaded = Remembering(np.float32(0.5), np.int64(3), np.True_), Remembering(np.float32(0.25), 0, False)
    checkpoint.save_training(path, saved, progress())
    _, arrays, numbers = checkpoint.read_training(path)
    assert (list(arrays), numbers) == (["inner.array"], {"balance": 0.5, "turns": 3, "active": True})
    checkpoint.load_training(path, loaded)
    assert [type(loaded.state[name]) for name in ("balance", "turns", "active")] == [float, int, bool]
    # until then it was written as an array, which a game with the same scalar took back
    forge(path, lambda fields: fields["state"].pop("turns"), arrays | {"turns": np.array(4)})
    checkpoint.load_training(path, loaded)
    assert loaded.state["turns"] == 4


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("text", "balance expected a finite number, got 'text'"),
        (None, "balance expected a finite number, got None"),
        (np.float64("nan"), "balance expected a finite number, got nan"),
        (1 << 60, "balance expected an integer, got 1152921504606846976"),
        (np.array(["a"]), "in the array balance, got the dtype <U1"),
        (np.array([1j]), "in the array balance, got the dtype complex128"),
    ],
)
def test_a_state_that_could_not_be_loaded_is_not_saved(tmp_path, value, match):
    with pytest.raises(UserError, match=f"a checkpoint (holds|expected) .*{match}"):
        trained = Remembering(0.5, 0, False)
        trained.state["balance"] = value
        checkpoint.save_training(tmp_path / "c.safetensors", trained, progress())
    assert os.listdir(tmp_path) == []


class Remembering:
    """Something with a state of its own: numbers of any sign, and a flag."""

    def __init__(self, balance, turns, active):
        self.state = {"balance": balance, "turns": turns, "active": active, "inner": {"array": np.full(2, balance)}}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_whatever_is_saved_can_be_loaded(tmp_path):
    saved, loaded = Remembering(-1.5, -3, True), Remembering(0.5, 0, False)
    checkpoint.save_training(tmp_path / "c.safetensors", saved, progress())
    checkpoint.load_training(tmp_path / "c.safetensors", loaded)
    assert (loaded.state["balance"], loaded.state["turns"], loaded.state["active"]) == (-1.5, -3, True)
    np.testing.assert_array_equal(loaded.state["inner"]["array"], [-1.5, -1.5])
