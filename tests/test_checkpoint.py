"""Networks in files: back to the bit, across to torch, refused when damaged, never half written."""

import errno
import os
import pickle

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from benchmarks import torch_dcgan
from nanogan import checkpoint
from nanogan.errors import UserError
from nanogan.files import replacing, writable_folder
from nanogan.models import dcgan
from nanogan.training import sample


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
    with pytest.raises(UserError, match="safetensors.torch.save_file"):
        checkpoint.load_generator(path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_checkpoint_and_another_network(tmp_path, g):
    with pytest.raises(UserError, match="there is no checkpoint"):
        checkpoint.load_generator(tmp_path / "nothing.safetensors")
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match="belong to another network: main.2.weight is missing; .* and 15 more"):
        checkpoint.load(tmp_path / "g.safetensors", dcgan.discriminator(image_size=16, width=4))


def fill_the_disk(monkeypatch, room=100):
    """Let every file take ``room`` bytes more, then none."""

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[:room])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "open", lambda *arguments: Full(open(*arguments)), raising=False)


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, g, monkeypatch):
    path = tmp_path / "g.safetensors"
    checkpoint.save(path, g)
    before = path.read_bytes()

    fill_the_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, g)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["g.safetensors"]


def test_weights_that_are_not_numbers_are_refused(tmp_path, g):
    g.layers[0].params["weight"][0, 0, 0, 0] = np.nan
    checkpoint.save(tmp_path / "g.safetensors", g)
    with pytest.raises(UserError, match="not finite"):
        checkpoint.load_generator(tmp_path / "g.safetensors")


def test_number_formats_that_numpy_has_not_are_refused(tmp_path, g):
    state = {name: tensor.bfloat16() for name, tensor in torch_dcgan.copy_of(g).state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(UserError, match="not a whole safetensors file"):
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
