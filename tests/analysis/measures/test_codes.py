"""Codes, groups and scores on cases worked out by hand; training beside torch's."""

import itertools
import time

import numpy as np
import pytest
import torch

from nanogan.analysis.measures import codes
from nanogan.backend import seeded_rng, to_numpy
from nanogan.data import PictureFolder
from nanogan.errors import UserError
from nanogan.images import save_png


def network_of(weight, bias, **options):
    """An autoencoder whose code layer has the given weight (bits, inputs) and bias."""
    bits, inputs = weight.shape
    network = codes.Autoencoder(inputs=inputs, bits=bits, rng=np.random.default_rng(0), **options)
    network[0].params["weight"][...] = weight
    network[0].params["bias"][...] = bias
    return network


def standardised(pictures):
    """Mean 0 and standard deviation 1 in each picture, channels first, by NumPy's own functions."""
    x = pictures.transpose(0, 3, 1, 2).reshape(len(pictures), -1).astype(float)
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)


# ----------------------------------------------------------------------------------------------------------- codes


def test_a_bit_tells_that_a_unit_is_above_0(device):
    """Units 0 to 7 look at one number each: is it above the picture's mean? Units 8 to 15: is it below?"""
    weight = np.concatenate([np.eye(8, 12), -np.eye(8, 12)])
    network = network_of(weight, 0.0).to(device)
    picture = np.array([[[9, 1, 0], [1, 9, 0]], [[9, 9, 0], [1, 1, 0]]], np.uint8)  # (2, 2, 3); its mean is 3.33
    # channels first: red 9 1 9 1, green 1 9 9 1
    got = codes.codes(network, picture[None])
    assert got.dtype == np.uint8
    assert got.tolist() == [[0b10100110, 0b01011001]]


def test_a_unit_at_0_is_off():
    network = network_of(np.zeros((8, 12)), np.array([0, 1e-30, -1, 1, 0, 0, 0, 2]))
    assert codes.codes(network, np.zeros((1, 2, 2, 3), np.uint8)).tolist() == [[0b01010001]]


def test_codes_are_the_signs_of_the_first_layer_in_batches(device, pictures, rng):
    weight, bias, mean = rng.standard_normal((16, 48)), rng.standard_normal(16), rng.standard_normal(48)
    network = network_of(weight, bias, dropout=0.9).to(device)
    network.load_state_dict(network.state_dict() | {"mean": mean.astype(np.float32)})
    expected = (standardised(pictures) - mean) @ weight.T + bias > 0
    got = codes.codes(network, pictures, batch_size=7)
    assert np.unpackbits(got, axis=1).astype(bool).tolist() == expected.tolist()


def test_brightness_and_contrast_change_no_code(pictures, rng):
    network = codes.Autoencoder(inputs=48, rng=rng)
    dark = (pictures // 4 * 2).astype(np.uint8)
    bright = (dark.astype(int) * 3 // 2 + 20).astype(np.uint8)  # exactly, since dark is even
    assert (codes.codes(network, dark) == codes.codes(network, bright)).all()


def test_a_picture_of_one_colour_has_a_code():
    flat = np.full((2, 4, 4, 3), 7, np.uint8)
    x = flat.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    network = codes.Autoencoder(inputs=48)
    assert np.abs(codes.prepared(network, x)).max() < 1e-4
    assert len(np.unique(codes.codes(network, flat), axis=0)) == 1


# -------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("batch_size", [40, 1000])
def test_training_is_torchs(device, pictures, batch_size):
    """Three steps from the same weights, with the same noise, of which the target has none."""
    network = codes.Autoencoder(inputs=48, bits=16, dropout=0.0, rng=np.random.default_rng(1)).to(device)
    model = torch.nn.Sequential(
        torch.nn.Linear(48, 16), torch.nn.ReLU(), torch.nn.Dropout(0.0), torch.nn.Linear(16, 48)
    )
    state = {
        name: torch.from_numpy(np.array(to_numpy(a))) for name, a in network.state_dict().items() if name != "mean"
    }
    model.load_state_dict(state)
    loss = codes.fit(network, pictures, steps=3, batch_size=batch_size, noise=0.5, lr=0.01, seed=5)

    x = standardised(pictures)
    mean = x.mean(axis=0)
    np.testing.assert_allclose(to_numpy(network.buffers["mean"]), mean, atol=1e-6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    noise, losses = seeded_rng(5, "noise of the autoencoder"), []
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 0.01 * (3 - step) / 3
        order = seeded_rng(5, f"order of epoch {step}").permutation(40)
        target = torch.from_numpy((x - mean)[order].astype(np.float32))
        noisy = target + 0.5 * torch.from_numpy(noise.standard_normal((40, 48), dtype=np.float32))
        value = torch.nn.functional.mse_loss(model(noisy), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert loss == pytest.approx(np.mean(losses), rel=1e-4)
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(to_numpy(network.state_dict()[name]), array.numpy(), rtol=1e-4, atol=2e-5)


def test_dropout_is_for_training_alone(pictures):
    network = codes.Autoencoder(inputs=48, bits=16, dropout=0.9, rng=np.random.default_rng(1))
    before = network[:3].forward(np.ones((5, 48), np.float32), train=True)[0]
    assert (before == 0).mean() > 0.7
    assert (codes.codes(network, pictures) == codes.codes(network, pictures)).all()


def test_training_learns_from_a_folder_what_it_learns_from_its_pictures(pictures, tmp_path):
    for i, picture in enumerate(pictures):
        save_png(tmp_path / f"{i:02d}.png", picture)
    losses, found = [], []
    for source in (pictures, PictureFolder(tmp_path, size=4)):
        network = codes.Autoencoder(inputs=48, bits=64, dropout=0.0, rng=np.random.default_rng(1))
        losses.append(codes.fit(network, source, steps=150, batch_size=16, noise=0.1, lr=0.01))
        found.append(codes.codes(network, source, batch_size=9))
    assert losses[0] == losses[1] < 0.5  # 1 is what knowing nothing costs
    assert (found[0] == found[1]).all()


def test_principal_components_signs():
    """Pictures along two known directions, the first of which varies more."""
    rng = np.random.default_rng(3)
    directions, _ = np.linalg.qr(np.concatenate([np.ones((48, 1)), rng.standard_normal((48, 2))], axis=1))
    amounts = rng.uniform(-1, 1, (200, 2)) * [60, 25]
    numbers = 128 + amounts @ directions[:, 1:].T * np.sqrt(48) / 2
    pictures = np.rint(numbers).clip(0, 255).astype(np.uint8).reshape(200, 3, 4, 4).transpose(0, 2, 3, 1)
    found = np.unpackbits(codes.codes(codes.principal(pictures, bits=8), pictures), axis=1)
    x = standardised(pictures)
    components = (x - x.mean(axis=0)) @ directions[:, 1:]
    agree = [max(np.mean(found[:, i] == (components[:, j] > 0)) for j in (0, 1)) for i in (0, 1)]
    assert all(max(share, 1 - share) > 0.9 for share in agree)


# ----------------------------------------------------------------------------------------------------------- groups


def test_equal_codes_are_groups():
    some = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [1, 2], [2, 1]], np.uint8)
    assert codes.groups(some) == [[0, 2, 5], [1, 4]]
    assert codes.groups(some[3:4]) == []
    assert codes.groups(some[:0]) == []


def test_near_codes_are_joined_and_so_are_their_neighbours():
    some = np.array([[0b0000], [0b0111], [0b0001], [0b10000000], [0b11110011], [0b11111111], [0b0001]], np.uint8)
    assert codes.groups(some) == [[2, 6]]
    assert codes.groups(some, distance=1) == [[0, 2, 3, 6]]
    assert codes.groups(some, distance=2) == [[0, 1, 2, 3, 6], [4, 5]]


@pytest.mark.parametrize("bytes_", [16, 3])
def test_near_groups_are_those_of_all_pairs(rng, bytes_, monkeypatch):
    centres = rng.integers(0, 256, (30, bytes_), dtype=np.uint8)
    some = np.unpackbits(centres[rng.integers(0, 30, 120)], axis=1)
    some ^= rng.random(some.shape) < 0.04
    some = np.packbits(some, axis=1)
    numbers = [int.from_bytes(code.tobytes(), "big") for code in some]
    monkeypatch.setattr(codes, "AT_ONCE", 700)  # several blocks
    for distance in (0, 1, 3, 7):
        parts = [{i} for i in range(120)]
        for i, j in itertools.combinations(range(120), 2):
            if (numbers[i] ^ numbers[j]).bit_count() <= distance and parts[i] is not parts[j]:
                parts[i] |= parts[j]
                for k in parts[j]:
                    parts[k] = parts[i]
        expected = sorted({tuple(sorted(part)) for part in parts if len(part) > 1})
        assert codes.groups(some, distance=distance) == [list(part) for part in expected]
    assert len(expected) > 1


def test_near_groups_take_no_step_for_each_pair():
    """Of 3,000 codes that are all near each other, 4.5 million pairs: 15 s of steps in Python."""
    numbers = np.arange(3000, dtype=">u2")
    some = np.zeros((3000, 16), np.uint8)
    some[:, 3:5] = numbers.view(np.uint8).reshape(3000, 2)
    start = time.process_time()
    assert codes.groups(some, distance=12) == [list(range(3000))]
    assert time.process_time() - start < 2  # 0.1 s


def test_a_chain_of_near_codes_is_one_group(rng):
    """Code i has its first i bits on: only neighbours are near. In any order."""
    some = np.packbits(np.tri(129, 128, -1, dtype=np.uint8), axis=1)
    order = rng.permutation(129)
    assert codes.groups(some[order], distance=1) == [list(range(129))]
    odd = np.flatnonzero(order % 2 == 1)
    assert codes.groups(some[order[odd]], distance=1) == []
    cut = order[order != 64]
    parts = [np.flatnonzero(cut < 64).tolist(), np.flatnonzero(cut > 64).tolist()]
    assert codes.groups(some[cut], distance=1) == sorted(parts)


def test_the_distance_of_two_codes():
    a = np.array([0xFF, 0x0F, 0x80], np.uint8)
    b = np.array([[0xFF, 0x0F, 0x80], [0x00, 0x0F, 0x80], [0xFE, 0xF0, 0x01]], np.uint8)
    assert codes.hamming(b, a).tolist() == [0, 8, 1 + 8 + 2]
    wide = np.zeros((2, 16), np.uint8)
    wide[1] = 255
    assert codes.hamming(wide[:, None], wide[None]).tolist() == [[0, 128], [128, 0]]


# ----------------------------------------------------------------------------------------------------------- scores


def test_how_much_of_a_code_is_used():
    """Bit 0 is always on, bits 4 to 7 never; 1 is on in half, 2 in a quarter, 3 in three quarters of the codes."""
    some = np.array([[0b11110000], [0b11010000], [0b10010000], [0b10000000]], np.uint8)
    used = codes.usage(some)
    quarter = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    assert used["bits_that_vary"] == 3
    assert used["entropy"] == pytest.approx(1 + 2 * quarter)
    assert used["distinct"] == 4
    assert codes.usage(some[[0, 0]]) == {"bits_that_vary": 0, "entropy": 0.0, "distinct": 1}


def test_groups_beside_the_truth():
    origins = [7, 7, 7, 8, 8, 9, 9, 5]
    # 3 pairs of 7, 2 x 3 pairs of 7 and 8 with 1 of 8; 1 of 9
    got = codes.agreement([[0, 1, 2, 3, 4], [5, 6]], origins)
    assert got == {
        "groups": 2,
        "pure_groups": 1,
        "largest": 5,
        "pairs": 11,
        "right_pairs": 5,
        "precision": pytest.approx(5 / 11),
    }
    assert codes.agreement([], origins)["precision"] == 1
    assert codes.recall([[0, 1, 2], [3, 5]], originals=[0, 3, 5, 6], copies=[2, 4, 6, 7]) == 0.25


def test_a_mistake_gets_one_sentence(pictures):
    with pytest.raises(UserError, match="a number of bits that fills bytes, such as 128, got 100"):
        codes.Autoencoder(bits=100)
    with pytest.raises(UserError, match="at least 0 bits, got -1"):
        codes.groups(np.zeros((2, 16), np.uint8), distance=-1)
    with pytest.raises(UserError, match="at least one picture and one step, got 0 and 5"):
        codes.fit(codes.Autoencoder(inputs=48), pictures[:0], steps=5)
