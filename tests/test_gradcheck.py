"""The gradient checks: right gradients pass, wrong ones are found and named, kinks are stepped around."""

import copy
import re
import sys

import numpy as np
import pytest

from nanogan import ops
from nanogan.errors import UserError
from nanogan.gradcheck import cases, check_layer, check_operation
from nanogan.layers import BatchNorm2d, Conv2d, Layer, LeakyReLU, ReLU, Sequential
from nanogan.models import dcgan
from nanogan.ops import activations
from tests import starting


@pytest.fixture
def conv(rng):
    return {"x": rng.standard_normal((2, 3, 6, 6)), "w": rng.standard_normal((4, 3, 4, 4)), "b": rng.standard_normal(4)}


OPTIONS = {"stride": 2, "padding": 1}


def test_a_right_backward_passes(conv):
    report = check_operation(ops.conv2d_forward, ops.conv2d_backward, conv, OPTIONS)
    assert report.passed
    assert 0 < report.error < 1e-8
    assert set(report.worst) == {"x", "w", "b"}
    assert report.raise_if_wrong() is report


@pytest.mark.parametrize(
    ("index", "change", "hint"),
    [
        ((3, 0, 1, 2), lambda value: -value, "sign?"),
        ((0, 2, 3, 3), lambda value: 0, "a term is missing?"),
        ((1, 1, 0, 0), lambda value: 2 * value, "a factor of 2 too much?"),
        ((2, 0, 0, 1), lambda value: value / 2, "a factor of 0.5 too much?"),
    ],
)
def test_one_wrong_element_is_found_and_explained(conv, index, change, hint):
    def wrong(dy, cache):
        dx, dw, db = ops.conv2d_backward(dy, cache)
        dw = dw.copy()
        dw[index] = change(dw[index])
        return dx, dw, db

    report = check_operation(ops.conv2d_forward, wrong, conv, OPTIONS)
    assert report.worst["w"].index == index
    name = "dw[" + ",".join(map(str, index)) + "]"
    with pytest.raises(AssertionError) as caught:
        report.raise_if_wrong()
    (line,) = [line for line in str(caught.value).splitlines() if name in line]
    assert "backward says" in line
    assert "finite differences say" in line
    assert line.endswith(hint)
    assert report.worst["x"].error < 1e-8, "what is right is said to be right"


def test_nan_is_wrong(conv):
    def wrong(dy, cache):
        dx, dw, db = ops.conv2d_backward(dy, cache)
        return dx, dw * np.nan, db

    report = check_operation(ops.conv2d_forward, wrong, conv, OPTIONS)
    assert not report.passed
    assert "dw[0,0,0,0]: backward says nan" in str(report)
    assert report.worst["x"].error < 1e-8


def test_a_gradient_of_another_shape_is_refused(conv):
    with pytest.raises(AssertionError, match=r"dw has shape \(4,\), but w has shape \(4, 3, 4, 4\)"):
        check_operation(
            ops.conv2d_forward, lambda dy, cache: (np.zeros((2, 3, 6, 6)), np.zeros(4), np.zeros(4)), conv, OPTIONS
        )


def test_a_forgotten_gradient_is_not_passed_over(conv):
    def without_dw(dy, cache):
        return ops.conv2d_backward(dy, cache, need_dw=False)

    with pytest.raises(AssertionError, match=r"returns no dw \(None\); it is zeros where the result"):
        check_operation(ops.conv2d_forward, without_dw, conv, OPTIONS)

    class Forgetful(ReLU):
        def backward(self, dy, cache, need_dx=True, need_dw=True):
            return None

    with pytest.raises(AssertionError, match="Forgetful: backward returns no dx"):
        check_layer(Forgetful(), conv["x"])


KINKS = {
    "relu": (ops.relu_forward, ops.relu_backward, np.array([[0.0, 1e-7, -1e-6, 1.0, 2.0]]), {}),
    "leaky_relu": (ops.leaky_relu_forward, ops.leaky_relu_backward, np.zeros((2, 3)), {"negative_slope": 0.2}),
    "max_pool2d": (ops.max_pool2d_forward, ops.max_pool2d_backward, np.ones((1, 1, 4, 4)), {"kernel_size": 2}),
    "l1": (ops.l1_forward, ops.l1_backward, np.zeros((2, 3)), {"target": 0.0}),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_stepped_around(name):
    forward, backward, x, options = KINKS[name]
    report = check_operation(forward, backward, {"x": x}, options)
    assert report.passed
    assert report.kinks > 0, "the inputs stand on a kink, and had to be moved"
    wrong = check_operation(forward, lambda dy, cache: 0.5 * backward(dy, cache), {"x": x}, options)
    assert not wrong.passed, "a mistake is not taken for a kink"


def test_what_jumps_everywhere_is_told():
    def forward(x):  # a staircase of tiny steps
        return np.round(x * 1e9) * 1e-9 + abs(np.sin(1e9 * x)), None

    with pytest.raises(UserError, match="its slope jumps wherever it was tried"):
        check_operation(forward, lambda dy, cache: dy, {"x": np.ones(3)})


class Squared(Layer):
    """y = scale * x^2, with a gradient of ``scale`` that can be made wrong."""

    def __init__(self, mistake=1.0):
        super().__init__()
        self.mistake = mistake
        self.add_param("scale", np.full((), 1.5, np.float32))

    def forward(self, x, train=True):
        return self.params["scale"] * x * x, x

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        x = cache
        if need_dw:
            self.add_grads(scale=self.mistake * (dy * x * x).sum())
        return 2 * self.params["scale"] * x * dy if need_dx else None


def test_a_layer_of_ones_own_in_one_call(rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    check_layer(Squared(), x).raise_if_wrong()
    with pytest.raises(AssertionError, match="Squared: wrong gradient\n.*\n.*dscale.*sign?"):
        check_layer(Squared(mistake=-1.0), x).raise_if_wrong()


@pytest.mark.parametrize("train", [True, False])
def test_whole_networks_pass_and_stay_as_they_were(train):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        g = dcgan.generator(image_size=8, channels=1, latent=4, width=3, rng=rng)
        before = copy.deepcopy(g.state_dict())
        check_layer(g, rng.standard_normal((4, 4)), train=train, rng=rng).raise_if_wrong()
        for name, array in g.state_dict().items():
            np.testing.assert_array_equal(array, before[name])
            assert array.dtype == before[name].dtype
        assert all((gradient == 0).all() for _, _, gradient in g.named_parameters())


def test_batchnorms_mean_is_missed_by_dy_of_ones_and_found_by_a_random_one(monkeypatch, rng):
    """The classic: dx without its last term is right whenever dy * xhat adds up to nothing."""
    original = ops.batchnorm_backward

    def without_the_last_term(dy, cache, **needs):
        xhat, inv_std, gamma, _, _ = cache
        _, dgamma, dbeta = original(dy, cache, **needs)
        rows = dy.transpose(0, 2, 3, 1).reshape(-1, dy.shape[1])
        dx = gamma * inv_std * (rows - rows.mean(axis=0))
        N, C, H, W = dy.shape
        return dx.reshape(N, H, W, C).transpose(0, 3, 1, 2), dgamma, dbeta

    x = rng.standard_normal((4, 3, 5, 5))
    layer = BatchNorm2d(3, dtype=np.float64)
    y, (_, cache) = layer.forward(x)
    right, wrong = (backward(np.ones_like(y), cache)[0] for backward in (original, without_the_last_term))
    np.testing.assert_allclose(right, wrong, atol=1e-12)
    monkeypatch.setattr(ops, "batchnorm_backward", without_the_last_term)
    assert not check_layer(layer, x).passed


def command(*arguments):
    return starting.run("nanogan.gradcheck", *arguments)


def test_the_command_prints_a_row_for_everything_and_all_pass(monkeypatch, capsys):
    from nanogan.gradcheck import __main__ as program

    monkeypatch.setattr(program, "DRAWS", 1)
    monkeypatch.setattr(sys, "argv", ["gradcheck"])
    status, out = program.main(), capsys.readouterr().out
    assert status == 0, out
    rows = {re.split(" {2,}", line)[0]: line.split() for line in out.splitlines()[1:-1]}
    assert set(rows) == {
        *(case.op for case in cases.OPERATIONS),
        *cases.LAYERS,
        *cases.NETWORKS,
        *cases.GAMES,
    }
    assert all(row[-1] == "ok" for row in rows.values())


def test_one_operation_with_its_cases():
    result = command("--op", "conv2d", "--verbose")
    assert result.returncode == 0, result.stderr
    assert "conv2d x(2,3,8,8) w(5,3,4,4) b(5) stride=2 padding=1" in result.stdout
    assert "dw: right to" in result.stdout
    assert "linear" not in result.stdout


def test_an_unknown_operation_gets_one_sentence():
    result = command("--op", "conv3d")
    assert result.returncode == 2
    assert "there is no operation, layer or game 'conv3d': use one of" in result.stderr


def test_an_operation_without_examples_is_named(monkeypatch, capsys):
    """The table would otherwise seem to vouch for it."""
    from nanogan.gradcheck import __main__ as program

    monkeypatch.setattr(ops, "__all__", [*ops.__all__, "cube_backward", "cube_forward"])
    monkeypatch.setattr(sys, "argv", ["gradcheck", "--op", "cube"])
    with pytest.raises(UserError, match="cube has no EXAMPLES: write some at the end of its file"):
        program.main()
    monkeypatch.setattr(program, "OPERATIONS", [case for case in program.OPERATIONS if case.op != "l1"])
    monkeypatch.setattr(program, "operations", lambda *_: [])
    monkeypatch.setattr(program, "networks", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["gradcheck"])
    assert program.main() == 0
    assert "not checked, as their files have no EXAMPLES of them: cube, l1\n" in capsys.readouterr().out


def test_the_command_fails_where_a_gradient_is_wrong(monkeypatch, capsys):
    from nanogan.gradcheck import __main__ as program

    right = activations.tanh_backward
    monkeypatch.setattr(activations, "tanh_backward", lambda dy, cache: -right(dy, cache))
    monkeypatch.setattr(sys, "argv", ["gradcheck", "--op", "tanh", "--op", "sigmoid"])
    assert program.main() == 1
    out = capsys.readouterr().out
    assert "WRONG: tanh" in out
    assert "sign?" in out


def test_what_raises_costs_one_row_and_not_the_table(monkeypatch, capsys):
    from nanogan.gradcheck import __main__ as program

    monkeypatch.setattr(activations, "tanh_backward", lambda dy, cache: None)
    monkeypatch.setattr(activations, "relu_backward", lambda dy, cache: dy @ cache.nothing)
    monkeypatch.setattr(sys, "argv", ["gradcheck", *(f"--op={op}" for op in ("relu", "tanh", "sigmoid"))])
    assert program.main() == 1
    out = capsys.readouterr().out
    verdicts = {line.split()[0]: line.split()[-1] for line in out.splitlines()[1:4]}
    assert verdicts == {"relu": "WRONG", "tanh": "WRONG", "sigmoid": "ok"}
    assert "backward returns no dx (None)" in out
    assert "AttributeError: 'numpy.ndarray' object has no attribute 'nothing'" in out
    assert "test_gradcheck.py, line" in out


def test_a_sequential_names_the_layer_that_is_wrong(rng):
    network = Sequential(Conv2d(3, 2, kernel_size=3, rng=rng), Squared(mistake=3.0), ReLU())
    report = check_layer(network, rng.standard_normal((2, 3, 4, 4)))
    assert [name for name, mismatch in report.worst.items() if mismatch.error > report.tolerance] == ["1.scale"]


class KeepsShape(Squared):
    """Wrong where the last batch of an epoch is smaller."""

    def forward(self, x, train=True):
        self.size = x.size
        return super().forward(x)

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx, need_dw)
        return dx if dx is None else dx * (dx.size / self.size)


class KeepsMode(Squared):
    def forward(self, x, train=True):
        self.train = train
        y, cache = super().forward(x)
        return (y if train else 2 * y), cache

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy if self.train else 2 * dy, cache, need_dx, need_dw)


class SpoilsDyWithoutDx(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx, need_dw)
        dy *= 1 if need_dx else 0
        return dx


class SpoilsXInEval(Squared):
    def forward(self, x, train=True):
        y, cache = super().forward(x.copy())
        x *= 1 if train else 0
        return y, cache


class GradientsBecomeDouble(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx, need_dw)
        if need_dw:
            self.grads["scale"] = np.asarray(self.grads["scale"], np.float64)
        return dx


class KeepsX(Squared):
    """The bug of from-scratch libraries: one slot for activations, on the layer."""

    def forward(self, x, train=True):
        self.x = x
        return self.params["scale"] * x * x, None

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy, self.x, need_dx, need_dw)


class SpoilsDy(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx, need_dw)
        dy *= 0
        return dx


class SpoilsCache(Squared):
    def forward(self, x, train=True):
        return self.params["scale"] * x * x, x.copy()

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = super().backward(dy, cache, need_dx, need_dw)
        cache *= 2
        return dx


class SpoilsX(Squared):
    def forward(self, x, train=True):
        y, _ = super().forward(x.copy())
        cache = x.copy()
        x *= 2
        return y, cache


class Overwrites(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        if need_dw:
            self.zero_grad()
        return super().backward(dy, cache, need_dx, need_dw)


class AlwaysDw(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy, cache, need_dx)


class AlwaysDx(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy, cache, need_dw=need_dw)


class NoDxWithoutDw(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy if need_dw else 0 * dy, cache, need_dx, need_dw)


class NoDwWithoutDx(Squared):
    def backward(self, dy, cache, need_dx=True, need_dw=True):
        return super().backward(dy, cache, need_dx, need_dw and need_dx)


class BecomesDouble(Squared):
    def forward(self, x, train=True):
        y, cache = super().forward(x)
        return y * np.float64(1.0), cache


class Counts(Squared):
    def __init__(self):
        super().__init__()
        self.buffers["calls"] = np.zeros((), np.int64)

    def forward(self, x, train=True):
        self.buffers["calls"] += 1
        return super().forward(x)


PROMISES = {
    KeepsX: "a second forward changes what the first one's backward computes: keep activations, shapes and modes",
    KeepsShape: "a second forward changes what the first one's backward computes",
    KeepsMode: "a second forward changes what the first one's backward computes",
    SpoilsDyWithoutDx: "dy is changed by backward with need_dx=False",
    SpoilsXInEval: "x is changed by a forward with train=False",
    GradientsBecomeDouble: "the gradient of scale is float64",
    SpoilsDy: "dy is changed by backward",
    SpoilsCache: "backward changes the cache",
    SpoilsX: "x is changed by forward or backward",
    Overwrites: "gradients do not add up over two backwards",
    AlwaysDw: "need_dw=False still adds into grads",
    AlwaysDx: "need_dx=False still returns dx",
    NoDxWithoutDw: "need_dw=False gives another dx",
    NoDwWithoutDx: "need_dx=False gives other parameter gradients",
    BecomesDouble: "y is float64 where everything that goes in is float32",
    Counts: "calls is changed by a forward with train=False",
}


@pytest.mark.parametrize("layer", PROMISES, ids=lambda layer: layer.__name__)
def test_a_layer_that_breaks_the_contract_is_told_so(layer, rng):
    report = check_layer(layer(), rng.standard_normal((2, 3)))
    assert any(PROMISES[layer] in sentence for sentence in report.broken), report.broken
    with pytest.raises(AssertionError, match=f"{layer.__name__}: broken contract\n.*\n.*\n  contract: "):
        report.raise_if_wrong()
    assert check_layer(layer(), rng.standard_normal((2, 3)), contract=False).passed, "its slopes are right"


def spoils_dy(dy, cache):
    dx = 2 * cache * dy
    dy *= 0
    return dx


def spoils_cache(dy, cache):
    dx = 2 * cache * dy
    cache *= 2
    return dx


def keeps_x(x):
    keeps_x.x = x
    return x * x, None


@pytest.mark.parametrize(
    ("forward", "backward", "sentence"),
    [
        (keeps_x, lambda dy, cache: 2 * keeps_x.x * dy, "a second forward changes what the first one's backward"),
        (lambda x: (x * x, x), lambda dy, cache: 2 * cache * dy, None),
        (lambda x: (x * x, x), spoils_dy, "dy is changed"),
        (lambda x: (x * x, x), spoils_cache, "x is changed"),
        (lambda x: (x * x, x.copy()), spoils_cache, "backward changes the cache"),
        (lambda x: (x * x, x), lambda dy, cache: np.float64(2) * cache * dy, "dx is float64"),
    ],
)
def test_an_operation_that_breaks_the_contract_is_told_so(forward, backward, sentence, rng):
    report = check_operation(forward, backward, {"x": rng.standard_normal((2, 3))})
    assert report.passed == (sentence is None)
    assert sentence is None or sentence in report.broken[0]


@pytest.mark.parametrize("case", [c for c in cases.OPERATIONS if c.op in ("conv2d", "batchnorm", "relu")], ids=str)
def test_float32_code_can_be_checked_in_float32(case, rng):
    inputs, named = case.split(case.draw(rng))
    forward, backward = case.pair

    def wrong(dy, cache):
        gradients = backward(dy, cache)
        return tuple(1.1 * g for g in gradients if g is not None) if isinstance(gradients, tuple) else 1.1 * gradients

    which = {"differentiable": case.differentiable, "dtype": np.float32}
    report = check_operation(forward, backward, inputs, named, **which)
    assert report.passed
    assert report.error > 1e-6, "float32 cannot be as exact as float64"
    assert not check_operation(forward, wrong, inputs, named, **which).passed


@pytest.mark.parametrize("place", [0.01, 0.05, 0.12, 0.15, 0.18, 0.2, 0.22, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("side", [1, -1])
def test_a_kink_anywhere_within_the_step_is_stepped_around(place, side):
    step = np.finfo(float).eps ** (1 / 3)
    assert check_layer(ReLU(), np.array([[side * place * step]])).passed


@pytest.mark.parametrize("scale", [1e-7, 1e-6, 3e-6, 1e-5, 1e-4])
def test_inputs_near_a_kink_give_no_false_alarm(scale):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert check_layer(ReLU(), scale * rng.standard_normal((2, 3)), rng=rng).passed


def test_networks_with_thousands_of_kinks_give_no_false_alarm():
    for seed in (1012, 1033, 1046, 1049, 1065, 1070):  # of 217 seeds tried, 13 had failed
        rng = np.random.default_rng(seed)
        network = Sequential(
            Conv2d(3, 32, kernel_size=4, stride=2, padding=1, rng=rng),
            LeakyReLU(negative_slope=0.2),
            Conv2d(32, 16, kernel_size=4, stride=2, padding=1, rng=rng),
            ReLU(),
        )
        check_layer(network, rng.standard_normal((8, 3, 16, 16)), rng=rng, contract=False).raise_if_wrong()


def test_a_step_too_long_for_the_curve_is_shortened():
    x = np.array([1e-3, 1e-4])
    assert check_operation(lambda x: (np.log(x), x), lambda dy, cache: dy / cache, {"x": x}).passed
    assert not check_operation(lambda x: (np.log(x), x), lambda dy, cache: -dy / cache, {"x": x}).passed


@pytest.mark.parametrize("k", [1e-12, 1e-6, 1.0, 1e6])
def test_a_wrong_sign_shows_whatever_the_size_of_the_result(k, rng):
    x = {"x": rng.standard_normal((2, 3))}
    assert check_operation(lambda x: (k * x, None), lambda dy, cache: k * dy, x).passed
    assert not check_operation(lambda x: (k * x, None), lambda dy, cache: -k * dy, x).passed


class Residual(Layer):
    """A layer that holds another: its parameters belong to it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, train=True):
        y, cache = self.inner.forward(x, train=train)
        return x + y, cache

    def backward(self, dy, cache, need_dx=True, need_dw=True):
        dx = self.inner.backward(dy, cache, need_dx=need_dx, need_dw=need_dw)
        return dx + dy if need_dx else None


def test_layers_inside_a_layer_are_checked_too(rng):
    x = rng.standard_normal((2, 3))
    assert set(check_layer(Residual(Squared()), x).raise_if_wrong().worst) == {"x", "inner.scale"}
    assert not check_layer(Residual(Squared(mistake=2.0)), x).passed


def test_an_empty_batch_is_right(rng):
    assert check_layer(ReLU(), np.zeros((0, 3))).passed


def test_the_report_of_a_gradient_that_is_nan_has_not_passed():
    from nanogan.gradcheck import Mismatch, Report

    assert not Report("", {"x": Mismatch("x", 1e-9), "w": Mismatch("w", float("nan"))}).passed


class Unseeded(ReLU):
    def forward(self, x, train=True):
        return super().forward(x * np.random.default_rng().random(x.shape))


class OnlyY(ReLU):
    def forward(self, x, train=True):
        return super().forward(x)[0]


class NoTrain(ReLU):
    def forward(self, x):
        return super().forward(x)


class NoNeeds(ReLU):
    def backward(self, dy, cache):
        return super().backward(dy, cache)


class NoInit(Layer):
    def __init__(self):
        pass


class Logarithm(ReLU):
    def forward(self, x, train=True):
        with np.errstate(invalid="ignore"):
            return np.log(x), x


class Single(ReLU):
    def forward(self, x, train=True):
        y, cache = super().forward(x)
        return y.astype(np.float32), cache


NORMAL = np.random.default_rng(0).standard_normal((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_layer(Unseeded(), NORMAL), "gives another result each time: draw random numbers from"),
        (lambda: check_layer(OnlyY(), NORMAL), "forward returns ndarray, expected a pair: return y, cache"),
        (lambda: check_layer(NoTrain(), NORMAL), r"forward lacks train: write forward\(self, x, train=True\)"),
        (
            lambda: check_layer(NoNeeds(), NORMAL),
            r"backward lacks need_dx and need_dw: write backward\(self, dy, cache,",
        ),
        (lambda: check_layer(NoInit(), NORMAL), r"has no params: call super\(\).__init__\(\) first"),
        (lambda: check_layer(Logarithm(), NORMAL), "returns NaN or infinity for this input"),
        (lambda: check_layer(Single(), NORMAL), "forward makes float32 of float64"),
        (lambda: check_layer(ReLU(), [[1.0]]), "x: expected a NumPy or CuPy array, got list"),
        (lambda: check_layer(Squared(), np.arange(6).reshape(2, 3)), "returns a dx for an x of int64, which has none"),
        (
            lambda: check_operation(lambda x: (x * 1.0, None), lambda dy, cache: None, {"x": np.arange(3)}),
            "nothing to be checked: no input and no parameter",
        ),
    ],
)
def test_what_cannot_be_checked_gets_one_sentence(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda dy, cache: (dy * cache[1],), r"returns 1 gradients, expected 2 \(x, w\)"),
        (lambda dy, cache: (dy * cache[1], dy * cache[0], dy), r"returns 3 gradients, expected 2 \(x, w\)"),
        (lambda dy, cache: (1.0, dy * cache[0]), r"dx has type float, but x has shape \(2, 3\)"),
    ],
)
def test_gradients_that_are_missing_or_too_many_are_refused(backward, message):
    with pytest.raises(AssertionError, match=message):
        check_operation(lambda x, w: (x * w, (x, w)), backward, {"x": NORMAL, "w": NORMAL + 1})


def test_another_dtype_is_refused(rng):
    with pytest.raises(UserError, match="checked in float64 or float32, got dtype float16"):
        check_layer(ReLU(), rng.standard_normal((2, 3)), dtype=np.float16)
