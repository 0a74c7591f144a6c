"""Small mistakes, put into nanogan one at a time, and the tests that notice each.

    python -m tests.sabotage            every mistake, with the first test that failed
    python -m tests.sabotage adam       those whose title holds "adam"

A test suite is only worth what it would catch. Each :class:`Sabotage` changes a line or two of nanogan's source while
it is imported (the files stay as they are), and the tests of the part it belongs to run until one fails. A mistake that
survives is a missing test; exit code 1. ``tests/test_sabotage.py`` demands that none does.
"""

import argparse
import contextlib
import importlib.machinery
import io
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = ["test_cases.py", "test_conv.py", "test_numerics.py", "test_properties.py"]
TESTS = {  # module -> what checks it, in the order of running
    "nanogan.analysis.codes": ["tests/analysis/test_codes.py"],
    "nanogan.analysis.planted": ["tests/analysis/test_planted.py"],
    "nanogan.analysis.forgetting": ["tests/analysis/test_forgetting.py"],
    "nanogan.analysis.spectrum": ["tests/analysis/test_spectrum.py"],
    "nanogan.fast": ["tests/fast/test_cpu.py"],
    "nanogan.backend": ["tests/test_backend.py", "tests/fast/test_cpu.py"],
    "nanogan.ops": [f"tests/ops/{name}" for name in OPERATIONS],
    "nanogan.layers": ["tests/test_layers.py", "tests/test_optim.py"],
    "nanogan.init": ["tests/test_layers.py", "tests/models/test_dcgan.py"],
    "nanogan.optim": ["tests/test_optim.py"],
    "nanogan.training": ["tests/training/test_options.py", "tests/training/test_adversarial.py"],
    "nanogan.optim.ema": ["tests/test_ema.py"],
    "nanogan.checkpoint": ["tests/test_ema.py", "tests/test_checkpoint.py"],
    "nanogan.models.conditional": ["tests/models/test_conditional.py"],
    "nanogan.models": ["tests/models/test_dcgan.py"],
    "nanogan.analysis.features": ["tests/analysis/test_features.py"],
    "nanogan.data.npz": ["tests/data/test_npz.py"],
    "nanogan.analysis.conditional": ["tests/analysis/test_conditional.py"],
}


@dataclass(frozen=True)
class Sabotage:
    """A mistake: in ``module``, each ``old`` (which must be there exactly once) becomes ``new``."""

    title: str
    module: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...] | None = None  # those of the module if None

    def apply(self, source):
        for old, new in self.edits:
            assert source.count(old) == 1, f"{self.title}: {self.module} holds {old!r} {source.count(old)} times"
            source = source.replace(old, new)
        return source


def sabotage(module, title, *texts):
    """texts: old, new, old, new, ..."""
    return Sabotage(title, f"nanogan.{module}", tuple(zip(texts[::2], texts[1::2], strict=True)))


def on_gpu(module, title, *texts):
    """A mistake that only a GPU would show, or its strict double."""
    tests = "tests/fast/test_gpu.py", "tests/test_gpu_path.py", "tests/test_precision.py"
    edits = tuple(zip(texts[::2], texts[1::2], strict=True))
    return Sabotage(f"gpu: {title}", f"nanogan.{module}", edits, tests[module[:8] != "fast.gpu" :])


SABOTAGES = [
    # ------------------------------------------------------------------------------------------------- convolution
    sabotage("ops.conv", "conv: dw has the wrong sign", "product(dy_rows.T, cols)", "product(-dy_rows.T, cols)"),
    sabotage("ops.conv", "conv: db is a mean, not a sum",
             "db = None if b is None else column_sum(dy_rows)", "db = None if b is None else dy_rows.mean(axis=0)"),
    sabotage("ops.conv", "conv: db is one long sum in float32",
             "db = None if b is None else column_sum(dy_rows)", "db = None if b is None else dy_rows.sum(axis=0)"),
    sabotage("ops.conv", "conv: dx uses the kernel flipped",
             "dcols = product(dy_rows, weight_rows(w))", "dcols = product(dy_rows, weight_rows(w[:, :, ::-1, ::-1]))"),
    sabotage("ops.conv", "conv: the kernel is transposed in dw, height for width",
             "return rows.reshape(len(rows), *kernel_size, -1).transpose(0, 3, 1, 2)",
             "return rows.reshape(len(rows), *kernel_size[::-1], -1).transpose(0, 3, 2, 1)"),
    sabotage("ops.conv", "conv: the weight's rows are channels-first, the windows' channels-last",
             "w.transpose(0, 2, 3, 1).reshape(len(w), -1)", "w.reshape(len(w), -1)"),
    sabotage("ops.conv", "conv: the two strides are mixed up", "(n, SH * h, SW * w, h, w, c)",
             "(n, min(SH, SW) * h, SW * w, h, w, c)"),
    sabotage("ops.conv", "conv: the two paddings are mixed up", "padded[:, PH : PH + H, PW : PW + W] = x",
             "padded[:, PH : PH + H, (s := min(PH, PW)) : s + W] = x"),
    sabotage("ops.conv", "conv: a cache on the function instead of in the cache",
             "    F, C, KH, KW = w.shape\n", "    F, C, KH, KW = w.shape\n    conv2d_forward.x = x\n",
             "x, w, b, stride, padding, y_shape = cache\n    check_dy(\"Conv2d\"",
             "_, w, b, stride, padding, y_shape = cache\n    x = conv2d_forward.x\n    check_dy(\"Conv2d\""),
    sabotage("ops.conv", "conv: need_dw=False loses dx too",
             "    if need_dx:\n        # y = cols @ w_rows.T  and", "    if need_dx and need_dw:\n        # y ="),
    sabotage("ops.conv", "conv: rows that do not fill a stride are rounded up",
             "return tuple(room // s + 1", "return tuple(-(-room // s) + 1"),
    sabotage("ops.conv", "col2im: overlapping windows overwrite each other",
             "] += windows[:, :, :, kh, kw]", "] = windows[:, :, :, kh, kw]"),
    sabotage("ops.conv", "col2im: the padding is cut off at the wrong side",
             "return padded[:, PH : PH + H, PW : PW + W]", "return padded[:, :H, PW : PW + W]"),
    sabotage("ops.conv", "im2col: the padding is always 0, also before a maximum", "W + 2 * PW, C), fill,",
             "W + 2 * PW, C), 0,"),
    sabotage("ops.conv", "conv_transpose: the wrong crop, one pixel off in both",
             "y = col2im(cols, (N, F, OH, OW), (KH, KW), stride, padding, (H, W))  # (N, F, OH, OW)",
             "y = xp_roll(col2im(cols, (N, F, OH, OW), (KH, KW), stride, padding, (H, W)))",
             "def conv2d_output_size(",
             "def xp_roll(y):\n    return array_module(y).roll(y, 1, axis=2)\n\n\ndef conv2d_output_size("),
    sabotage("ops.conv", "conv_transpose: output_padding is forgotten", "- 2 * p + k + op for", "- 2 * p + k for"),
    sabotage("ops.conv", "conv_transpose: dx uses the kernel upside down",
             "product(dcols, weight_rows(w).T)", "product(dcols, weight_rows(w[:, :, ::-1]).T)"),
    sabotage("ops.conv", "conv_transpose: dw is twice as large", "product(to_rows(x).T, dcols)",
             "product(2 * to_rows(x).T, dcols)"),
    sabotage("ops.conv", "conv_transpose: db sums x instead of dy", "column_sum(to_rows(dy))  # (F,)",
             "column_sum(to_rows(dy)) * (x.mean() > 0)"),
    sabotage("ops.conv", "conv_transpose: the bias is added in place to a view of x's memory order",
             "y += b[:, None, None]", "y = y + b[:, None, None] * 0.999"),
    sabotage("ops.conv", "conv_transpose: dy of another shape is not refused",
             "    check_dy(\"ConvTranspose2d\", dy, y_shape, x.dtype)\n", ""),
    sabotage("ops.linear", "linear: half precision on the way",
             "y = product(x, w.T)  #", "y = (x.astype(\"f2\") @ w.T.astype(\"f2\")).astype(x.dtype)  #"),
    sabotage("ops._layout", "column sums: added up one after the other in float32",
             "    sums = ones @", "    return xp.add.accumulate(rows)[-1]\n    sums = ones @"),
    sabotage("ops._layout", "column sums: the rows left over are dropped",
             "return sums.sum(axis=0) + rows[whole:].sum(axis=0)", "return sums.sum(axis=0)"),
    # ----------------------------------------------------------------------------------------------- normalisation
    sabotage("ops.batchnorm", "batchnorm: dx forgets the mean of dy", "            dx -= dbeta / M\n", ""),
    sabotage("ops.batchnorm", "batchnorm: dx forgets the part along xhat",
             "dx = xhat * (-dgamma / M)", "dx = xhat * 0"),
    sabotage("ops.batchnorm", "batchnorm: dx forgets gamma", "dx *= gamma * inv_std", "dx *= inv_std"),
    sabotage("ops.batchnorm", "batchnorm: dx forgets the standard deviation", "dx *= gamma * inv_std", "dx *= gamma"),
    sabotage("ops.batchnorm", "batchnorm: dx in eval mode is train mode's",
             "        if train:\n            # dx", "        if dgamma is not None:\n            # dx"),
    sabotage("ops.batchnorm", "batchnorm: dgamma and dbeta change places",
             "return dx, dgamma, dbeta", "return dx, dbeta, dgamma"),
    sabotage("ops.batchnorm", "batchnorm: dgamma sums dy * y", "dgamma = column_sum(dy_rows * xhat)",
             "dgamma = column_sum(dy_rows * xhat) * gamma"),
    sabotage("ops.batchnorm", "batchnorm: eps outside the root", "inv_std = 1 / xp.sqrt(var + eps)",
             "inv_std = 1 / (xp.sqrt(var) + eps)"),
    sabotage("ops.batchnorm", "batchnorm: normalises with the unbiased variance",
             "var = column_sum(centred * centred) / M", "var = column_sum(centred * centred) / (M - 1)"),
    sabotage("ops.batchnorm", "batchnorm: keeps the biased variance", "momentum * M / (M - 1) * var", "momentum * var"),
    sabotage("ops.batchnorm", "batchnorm: momentum means the opposite",
             "running_mean *= 1 - momentum\n        running_mean += momentum * mean",
             "running_mean *= momentum\n        running_mean += (1 - momentum) * mean"),
    sabotage("ops.batchnorm", "batchnorm: running statistics move in eval mode too",
             "        centred = rows - running_mean\n",
             "        centred = rows - running_mean\n        running_mean += momentum * centred.mean(axis=0)\n"),
    sabotage("ops.batchnorm", "batchnorm: variance as E[x^2] - E[x]^2, without digits for a large mean",
             "var = column_sum(centred * centred) / M",
             "var = abs(column_sum(rows * rows) / M - mean * mean)"),
    sabotage("ops.batchnorm", "batchnorm: the mean keeps its rounding error",
             "        mean += rest\n        centred -= rest\n", ""),
    sabotage("ops.batchnorm", "batchnorm: xhat is changed by the backward",
             "            dx = xhat * (-dgamma / M)\n", "            dx = xhat\n            dx *= -dgamma / M\n"),
    # ------------------------------------------------------------------------------------------------- elementwise
    sabotage("ops.activations", "relu: the slope at 0 is 1", "return dy * (y > 0)", "return dy * (y >= 0)"),
    sabotage("ops.activations", "leaky_relu: no slope below 0", "(y > 0).astype(dy.dtype), negative_slope)",
             "(y > 0).astype(dy.dtype), 0)"),
    sabotage("ops.activations", "leaky_relu: dy is changed in place", "    slope *= dy\n    return slope",
             "    dy *= slope\n    return dy"),
    sabotage("ops.activations", "tanh: 1 - y for 1 - y^2", "return dy * (1 - y * y)", "return dy * (1 - y)"),
    sabotage("ops.activations", "sigmoid: the factor y is missing",
             "return dy * (y * (1 - y))", "return dy * (1 - y)"),
    sabotage("ops.activations", "sigmoid: overflows", "return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))",
             "return 1 / (1 + xp.exp(-x))"),
    sabotage("ops.activations", "dropout: what is kept is not scaled up", "    scale /= 1 - float(p)\n", ""),
    sabotage("ops.activations", "dropout: dx is not scaled up", "return dy if scale is None else dy * scale",
             "return dy if scale is None else dy * (scale > 0)"),
    sabotage("ops.activations", "dropout: a float64 scalar makes float32 float64", "return x * scale, scale",
             "return x * (scale * np.float64(1)), scale"),
    # ------------------------------------------------------------------------------------------- linear, resizing
    sabotage("ops.linear", "linear: dw is averaged over the batch", "dw = product(dy.T, x) if",
             "dw = product(dy.T, x) / len(x) if"),
    sabotage("ops.linear", "linear: db takes the first row", "db = dy.sum(axis=0)", "db = dy[0]"),
    sabotage("ops.linear", "linear: db comes without being asked for", "dy.sum(axis=0) if need_dw and b is not None",
             "dy.sum(axis=0) if b is not None"),
    sabotage("ops.linear", "embedding: rows that share an index keep one", "array_module(w).add.at(dw, indices, dy)",
             "dw[indices] += dy"),
    sabotage("ops.resize", "upsample: dx is the mean", "blocks.sum(axis=(2, 4))", "blocks.mean(axis=(2, 4))"),
    sabotage("ops.resize", "upsample: dx sums the wrong axes",
             "reshape(N, H, s, W, s, C)", "reshape(N, s, H, s, W, C).transpose(0, 2, 1, 4, 3, 5)"),
    sabotage("ops.resize", "max_pool2d: ties go to the last", "winner = windows.argmax(axis=1)",
             "winner = windows.shape[1] - 1 - windows[:, ::-1].argmax(axis=1)"),
    sabotage("ops.resize", "max_pool2d: every pixel of the window is paid", "(position == winner[:, None, :])",
             "(position >= winner[:, None, :])"),
    sabotage("ops.resize", "max_pool2d: too much padding is accepted",
             "if any(2 * p > k for", "if any(2 * p > k + 1 for"),
    sabotage("ops.resize", "reshape: pictures may be cut in pieces", "if size * len(x) != x.size:",
             "if x.size % max(size, 1):"),
    sabotage("ops.resize", "reshape: dx in memory order",
             "return dy.reshape(shape)", "return dy.reshape(shape, order=\"F\")"),
    # ------------------------------------------------------------------------------------------------------ losses
    sabotage("ops.losses", "losses: the mean's 1/M is missing from the gradient",
             "return slope * (dy / slope.size if", "return slope * (dy if"),
    sabotage("ops.losses", "losses: dy is taken for 1", "    dy = _as_scalar(dy, slope)\n", "    dy = 1.0\n"),
    sabotage("ops.losses", "losses: the weight is missing from the gradient",
             "    if weight is not None:\n        slope = slope * weight\n", ""),
    sabotage("ops.losses", "losses: a mean divides by the weights", "losses.mean() if",
             "losses.sum() / (losses.size if weight is None or weight.size > 1 else losses.size * weight.sum()) if"),
    sabotage("ops.losses", "l1: a slope of 1 where it is 0", "array_module(difference).sign(difference)",
             "array_module(difference).copysign(1, difference)"),
    sabotage("ops.losses", "bce_with_logits: loses its digits for logits far below 0",
             "xp.log1p(xp.exp(-abs(x)))", "xp.log(1 + xp.exp(-abs(x)))"),
    sabotage("ops.losses", "mse: the factor 2 is missing", "_expand(dy, 2 * difference", "_expand(dy, difference"),
    sabotage("ops.losses", "l1: the sign is wrong", "array_module(difference).sign(difference)",
             "array_module(difference).sign(-difference)"),
    sabotage("ops.losses", "bce: the slope's denominator is not kept from 0",
             "xp.maximum(p * (1 - p), 1e-12)", "(p * (1 - p))"),
    sabotage("ops.losses", "bce: logarithms are not clamped", "xp.maximum(xp.log(p), -100)", "xp.log(p)"),
    sabotage("ops.losses", "bce_with_logits: pos_weight is missing from the gradient",
             "- for_real * stable_sigmoid(-logits)", "- target * stable_sigmoid(-logits)"),
    sabotage("ops.losses", "bce_with_logits: overflows", "return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))",
             "return xp.log(1 + xp.exp(x))"),
    sabotage("ops.losses", "cross_entropy: the weights' sum is taken for 1",
             "(p * wq.sum(axis=1, keepdims=True) - wq)", "(p / len(p) - wq)"),
    sabotage("ops.losses", "cross_entropy: smoothing is not spread over the classes",
             "onehot.astype(logits.dtype) + label_smoothing / K", "onehot.astype(logits.dtype) + label_smoothing"),
    # ------------------------------------------------------------------------------------------------------ layers
    sabotage("layers", "layer: a gradient replaces the one before", "    gradient += more\n",
             "    gradient[...] = more\n"),
    sabotage("layers", "layer: zero_grad does nothing", "gradient[...] = 0\n", "pass\n"),
    sabotage("layers", "layer: the bias's gradient is dropped", "self.add_grads(weight=dw, bias=db)",
             "self.add_grads(weight=dw)"),
    sabotage("layers", "layer: activations are kept on the layer",
             "        return dispatch(*self.operation, x, **self.options)\n",
             "        y, self.last = dispatch(*self.operation, x, **self.options)\n        return y, self.last\n",
             "        backward, cache = cache\n        return backward(dy, cache)\n",
             "        backward, cache = self.last\n        return backward(dy, cache)\n"),
    sabotage("layers", "batchnorm: always in train mode", "            train=train,\n            momentum",
             "            train=True,\n            momentum"),
    sabotage("layers", "dropout: always in train mode", "rng=self.rng, train=train,", "rng=self.rng, train=True,"),
    sabotage("layers", "sequential: the backward walks forwards", "for i in reversed(range(len(self.layers))):",
             "for i in range(len(self.layers)):"),
    sabotage("layers", "sequential: need_dw is not passed on", "need_dx=need_dx or i > 0, need_dw=need_dw)",
             "need_dx=need_dx or i > 0)"),
    sabotage("layers", "sequential: all layers in train mode", "len(caches) :], x, train)", "len(caches) :], x, True)"),
    sabotage("layers", "sequential: need_dx is not passed on", "need_dx=need_dx or i > 0, ", "",
             "return dy if need_dx else None", "return dy"),
    sabotage("layers", "batchnorm: eps is not passed on", "            eps=self.eps,", "            eps=1e-5,"),
    sabotage("layers", "batchnorm: momentum is not passed on",
             "momentum=self.momentum,\n            eps", "momentum=0.1,\n            eps"),
    sabotage("layers", "max_pool2d: padding is not passed on",
             "stride=stride, padding=padding)\n\n\nclass Flatten", "stride=stride, padding=0)\n\n\nclass Flatten"),
    sabotage("layers", "max_pool2d: stride is not passed on",
             "stride=stride, padding=padding)\n\n\nclass Flatten", "stride=None, padding=padding)\n\n\nclass Flatten"),
    sabotage("layers", "sequential: a slice is reversed",
             "Sequential(*self.layers[i])", "Sequential(*self.layers[i][::-1])"),
    sabotage("layers", "sequential: the first layer's dx is always computed",
             "need_dx=need_dx or i > 0", "need_dx=True"),
    sabotage("layers", "dropout: another default",
             "p=0.5, rng=None):\n        super", "p=0.1, rng=None):\n        super"),
    sabotage("layers", "embedding: starts too small", "rng.standard_normal((num_embeddings, embedding_dim))",
             "0.02 * rng.standard_normal((num_embeddings, embedding_dim))"),
    sabotage("layers", "layer: layers that are attributes are not found", "if isinstance(value, Layer):", "if False:"),
    sabotage("init", "init: a bound that is twice as wide", "bound = fan_in**-0.5", "bound = 2 * fan_in**-0.5"),
    sabotage("init", "init: BatchNorm's gain starts at 0", "mean = 1.0 if \"running_mean\" in layer.buffers else 0.0",
             "mean = 0.0"),
    # -------------------------------------------------------------------------------------------------- optimisers
    sabotage("optim", "adam: no bias correction of m", "m_scale = 1 / (1 - beta1**self.steps)", "m_scale = 1.0"),
    sabotage("optim", "adam: no bias correction of v", "v_scale = 1 / (1 - beta2**self.steps)", "v_scale = 1.0"),
    sabotage("optim", "adam: the correction counts from 0", "        self.steps += 1\n",
             "        self.steps += 1 + (self.steps == 0)\n"),
    sabotage("optim", "adam: the betas change places", "beta1, beta2 = self.betas", "beta2, beta1 = self.betas"),
    sabotage("optim", "adam: the root of v is not corrected", "root *= v_scale**0.5", "root *= v_scale"),
    sabotage("optim", "adam: eps inside the correction", "root *= v_scale**0.5  #", "self.eps and None  #",
             "root += self.eps", "root += self.eps\n        root *= v_scale**0.5"),
    sabotage("optim", "adam: v averages g, not g^2", "v += (1 - beta2) * gradient * gradient",
             "v += (1 - beta2) * abs(gradient)"),
    sabotage("optim", "sgd: momentum damps the gradient too", "v += self._decayed(parameter, gradient)",
             "v += (1 - self.momentum) * self._decayed(parameter, gradient)"),
    sabotage("optim", "optimiser: weight decay with the wrong sign", "gradient + self.weight_decay * parameter",
             "gradient - self.weight_decay * parameter"),
    sabotage("optim", "optimiser: weight decay changes the gradients",
             "gradient = self._decayed(parameter, gradient)", "gradient += self.weight_decay * parameter"),
    sabotage("optim", "adam: another default of betas", "lr=1e-3, betas=(0.9,", "lr=1e-3, betas=(0.5,"),
    sabotage("optim", "adam: another default of lr", "lr=1e-3, betas", "lr=2e-4, betas"),
    sabotage("optim", "optimiser: zero_grad does nothing", "self.network.zero_grad()", "pass"),
    sabotage("optim", "optimiser: a loaded state is shared", "copy_into(array, saved[\"state\"][name])",
             "self.state[name] = saved[\"state\"][name]"),
    sabotage("optim", "optimiser: a saved state starts its steps anew",
             "self.steps, self.lr = int(saved[\"steps\"])", "self.steps, self.lr = int(0 * saved[\"steps\"])"),
    # ------------------------------------------------------------------------------------------- options of the game
    sabotage("ops.losses", "hinge: the sign of the gradient", "return _expand(dy, -s * (losses > 0)",
             "return _expand(dy, s * (losses > 0)"),
    sabotage("ops.losses", "hinge: what is far enough on its side still pays",
             "losses = array_module(x).maximum(1 - s * x, 0)", "losses = 1 - s * x + array_module(x).zeros_like(x)"),
    sabotage("ops.losses", "score: falls for real", "slope += 1 - 2 * _check_target", "slope += 2 * _check_target",
             "(\"score\", x, target)\n", "(\"score\", x, target) - 1\n"),
    sabotage("ops.losses", "saturating_bce: the other label",
             "logits, 1 - _check_target(\"saturating_bce\", logits, target)",
             "logits, _check_target(\"saturating_bce\", logits, target)"),
    sabotage("ops.losses", "saturating_bce: the gradient's sign", "return -bce_with_logits_backward(dy, cache)",
             "return bce_with_logits_backward(dy, cache)"),
    sabotage("training.adversarial", "step: D's labels change places",
             "d_loss_forward(real_logits, REAL - label_smoothing)",
             "d_loss_forward(real_logits, FAKE + label_smoothing)",
             "d_loss_forward(fake_logits, FAKE)", "d_loss_forward(fake_logits, REAL)"),
    sabotage("training.adversarial", "step: drawn pictures get smoothed labels too",
             "d_loss_forward(fake_logits, FAKE)", "d_loss_forward(fake_logits, FAKE + label_smoothing)"),
    sabotage("training.adversarial", "step: G's label is smoothed too",
             "g_loss_forward(new_logits, REAL)", "g_loss_forward(new_logits, REAL - label_smoothing)"),
    sabotage("training.adversarial", "step: G minimises D's loss", "(g_loss_forward, g_loss_backward) =",
             "(_, _) =", "    noise_real, noise_fake = noise\n",
             "    noise_real, noise_fake = noise\n    g_loss_forward, g_loss_backward = LOSSES[loss][0]\n"),
    sabotage("training.adversarial", "step: G is judged without noise", "new_logits, cache = d.forward(seen",
             "new_logits, cache = d.forward(fake"),
    sabotage("training.adversarial", "step: noise on real pictures alone", "seen = with_noise(fake, noise_fake)",
             "seen = fake"),
    sabotage("training.adversarial", "step of D: the labels change places",
             "((real, noise[0], REAL - label_smoothing), (fake, noise[1], FAKE))",
             "((real, noise[0], FAKE), (fake, noise[1], REAL - label_smoothing))"),
    sabotage("training.adversarial", "noise: the variance for the standard deviation", "noise *= sigma",
             "noise *= sigma**2"),
    sabotage("training.adversarial", "z: uniform from 0 to 1",
             "z = 2 * rng.random((count, latent), dtype=np.float32) - 1",
             "z = rng.random((count, latent), dtype=np.float32)"),
    sabotage("training.loop", "loop: noise does not fall", "* max(0.0, 1 - progress.step / planned)", "* 1.0"),
    sabotage("training.loop", "loop: the learning rates do not fall", "if lr_decay == \"linear\"]", "if False]"),
    sabotage("training.loop", "loop: D's learning rate falls with G's steps", "(opt_d, epochs * len(loader))",
             "(opt_d, planned)"),
    sabotage("training.loop", "loop: D's extra batches are left out", "                    for batch in earlier:\n",
             "                    for batch in earlier[:0]:\n"),
    sabotage("training.loop", "loop: the raw generator is saved", "artist = g if ema is None else ema.average",
             "artist = g"),
    sabotage("ema", "ema: beta and 1 - beta change places",
             "average *= beta\n            average += (1 - beta) * newest",
             "average *= 1 - beta\n            average += beta * newest"),
    sabotage("ema", "ema: the first updates count as little as the last",
             "beta = min(self.beta, (1 + self.steps) / (10 + self.steps))",
             "beta = self.beta"),
    sabotage("ema", "ema: BatchNorm's statistics are forgotten", "elementwise(approach, groups)",
             "elementwise(approach, [pair for pair in groups if pair[0].ndim == 4])"),
    sabotage("ema", "ema: the average is the network itself", "copy.deepcopy(network)", "network"),
    sabotage("checkpoint", "checkpoint: the average starts its steps anew", "ema.steps = rest[\"ema_steps\"]",
             "ema.steps = 0"),
    sabotage("checkpoint", "checkpoint: the raw generator draws", "state = average or _below(", "state = _below("),
    sabotage("models.dcgan", "resize: the convolution is without padding's pixel", "kernel_size=3, stride=1, padding=1",
             "kernel_size=1, stride=1, padding=0"),
    sabotage("models.dcgan", "resize: a file's channels and width change places", "shapes[-1][1::-1]",
             "shapes[-1][:2]"),
    # ------------------------------------------------------------------------------------------- the CPU's fast paths
    sabotage("fast.cpu.winograd", "winograd: d2 - d1 with the wrong sign",
             "np.subtract(rows[:, :, 1:], V[1], out=V[2])", "np.subtract(V[1], rows[:, :, 1:], out=V[2])"),
    sabotage("fast.cpu.winograd", "winograd: g1 for g0 + g1", "_TERMS = (0,), (0, 1), (1,)",
             "_TERMS = (0,), (1,), (1,)"),
    sabotage("fast.cpu.winograd", "winograd: the last block of a row of tiles is left dirty",
             "    even[:, :, -1] = 0\n", ""),
    sabotage("fast.cpu.winograd", "winograd: odd sizes are not padded with 0",
             "            tiles[a, b, :, rows:] = tiles[a, b, :, :, columns:] = 0\n", ""),
    sabotage("fast.cpu.winograd", "winograd: chunks overwrite each other's kernel gradient", "dU[p] += np.matmul",
             "dU[p] = np.matmul"),
    sabotage("fast.cpu.winograd", "winograd: only the first group of images counts in dw", "own[0] += other", "pass"),
    sabotage("fast.cpu.winograd", "winograd: need_dw=False loses dx too",
             "    if need_dx or need_dw:\n        _run(", "    if need_dw:\n        _run("),
    sabotage("fast.cpu.winograd", "winograd: serves output_padding, and forgets it",
             "pair(output_padding, \"output_padding\") == (0, 0) and",
             "True and"),
    sabotage("fast.cpu.thin", "thin: a phase keeps the numbers of the one before", "            phase[...] = 0\n", ""),
    sabotage("fast.cpu.chunked", "chunked: only the last chunk counts in dw",
             "dw = dw_part if dw is None else dw + dw_part",
             "dw = dw_part if dw is None else dw_part"),
    sabotage("fast.cpu.batchnorm", "fast batchnorm: var about K, not about the mean", "second - first * first",
             "second"),
    sabotage("fast.cpu.batchnorm", "fast batchnorm: K is 0, always",
             "    if bool((abs(near) <= NEAR / 2 * sample.std(axis=0)).all()):\n        near = None",
             "    near = None"),
    sabotage("fast.cpu.fused", "fused: the activation is missing from the backward",
             "activation = elementwise.relu_backward, y", "activation = (lambda dy, cache: dy), None"),
    sabotage("fast.cpu.threads", "threads: Ctrl-C does not wait for the others",
             "        while len(finished) < threads:\n", "        while not errors and len(finished) < threads:\n"),
    sabotage("layers", "optimiser: a layer in two places is stepped twice", "if id(parameter) not in seen:",
             "if True:"),
    sabotage("fast.cpu.batchnorm", "fast batchnorm: dx forgets the constant", "out += constant", "out += 0"),
    sabotage("fast.cpu.batchnorm", "fast batchnorm: no mean is large", "middle = None if bool(",
             "middle = None if True or bool("),
    sabotage("fast.cpu.elementwise", "fast leaky_relu: the slope at 0 is 1",
             "np.greater(y, 0, out=dx)\n        np.maximum", "np.greater_equal(y, 0, out=dx)\n        np.maximum"),
    sabotage("fast.cpu.elementwise", "fast elementwise: another memory order is taken as it is",
             "_in_memory(other) if other.strides == x.strides else _in_order_of(x, other)", "_in_memory(other.copy())"),
    sabotage("fast.cpu.fused",
             "fused: subclasses are fused too", "if type(second) is layers.ReLU:\n        negative_slope",
             "if isinstance(second, layers.ReLU):\n        negative_slope"),
    sabotage("fast.cpu.fused", "fused: eval mode is fused too", "or not train or", "or"),
    sabotage("fast.cpu.fused", "fused: batches are not counted",
             "    first.buffers[\"num_batches_tracked\"] += 1\n", ""),
    sabotage("fast.cpu.threads", "threads: an error on another thread is swallowed", "        raise errors[0]",
             "        pass"),
    sabotage("fast.cpu.threads", "threads: BLAS keeps one thread", "library.set_num_threads(number)", "pass"),
    sabotage("fast.cpu.threads", "threads: two threads share one workspace",
             "_local.__dict__.setdefault(\"arrays\", {})",
             "_lock.__class__ and globals().setdefault(\"_arrays\", {})"),
    sabotage("backend", "dispatch: the cache goes to the other backward",
             "forward, backward = fast_forward, fast_backward",
             "forward = fast_forward"),
    sabotage("backend", "dispatch: NANOGAN_FAST=0 is ignored", "    if FAST and (kind",
             "    if True and (kind"),
    # -------------------------------------------------------------------------------------------------- the GAN
    sabotage("training.adversarial", "step: G's loss uses D's logits from before its update",
             "new_logits, cache = d.forward(seen, train=True)", "new_logits = fake_logits"),
    sabotage("training.adversarial", "step: the fake batch's gradient replaces the real one's",
             "    fake, g_cache = g.forward(z, train=True)\n",
             "    fake, g_cache = g.forward(z, train=True)\n    d.zero_grad()\n"),
    sabotage("training.adversarial", "step: G minimises log(1 - D(G(z))) with the wrong label",
             "g_loss_forward(new_logits, REAL)", "g_loss_forward(new_logits, FAKE)"),
    sabotage("training.adversarial", "step: D's gradients are never set to zero",
             "D's gradients\n    d.zero_grad()\n", "D's gradients\n"),
    sabotage("training.adversarial", "step: G's gradients are never set to zero", "    g.zero_grad()\n", ""),
    sabotage("training.adversarial", "step: G draws its batch in eval mode", "fake, g_cache = g.forward(z, train=True)",
             "fake, g_cache = g.forward(z, train=False)"),
    sabotage("models.dcgan", "dcgan: the slope is torch's default, not the paper's",
             "padding=1, **options), LeakyReLU(negative_slope=0.2)]", "padding=1, **options), LeakyReLU()]"),
    sabotage("models.dcgan", "dcgan: G ends without its tanh",
             "Generator(*layers, Tanh(), upsample", "Generator(*layers, upsample"),
    sabotage("models.dcgan", "dcgan: D normalises its first layer too", "LeakyReLU(negative_slope=0.2)]\n    for",
             "BatchNorm2d(width, dtype=dtype), LeakyReLU(negative_slope=0.2)]\n    for"),
    # ------------------------------------------------------------------------------- features of a discriminator
    sabotage("analysis.features", "features: pooling's cells leave pixels out", "-(-(i + 1) * H // side))",
             "(i + 1) * H // side)"),
    sabotage("analysis.features", "features: frozen statistics are the last batch's", "layer.momentum = 1 / (i + 1)",
             "layer.momentum = 1"),
    sabotage("analysis.features", "features: coordinates of the span are not turned alone, but scaled",
             "/ np.sqrt(squares[kept])", "/ squares[kept]"),
    sabotage("analysis.features", "features: what is tested chose C too", "(validation if i < choosing else test)[0]",
             "test[0]", "validation[1]) for C", "test[1]) for C"),
    sabotage("data.npz", "npz: the checksum is not compared", "if len(data) < count or file.read(1):",
             "if len(data) < count:"),
    # --------------------------------------------------------------------------------------------- near-duplicates
    sabotage("analysis.codes", "codes: the noise is in the target too", "mse_forward(y, x)", "mse_forward(y, noisy)"),
    sabotage("analysis.codes", "codes: pictures are not standardised",
             "    x /= xp.maximum(xp.sqrt((x * x).mean(axis=1, keepdims=True)), FLAT)\n", ""),
    sabotage("analysis.codes", "codes: dropout is on when codes are made", "network[:2].forward(x, train=False)",
             "network[:3].forward(x, train=True)"),
    sabotage("analysis.codes", "codes: near codes of different blocks are not compared",
             "codes[distinct[start:]][None]", "codes[distinct[start : start + some]][None]"),
    sabotage("analysis.codes", "codes: precision counts pictures, not pairs", "right += int((counts * (counts - 1)",
             "right += int((counts * (counts > 1)"),
    sabotage("analysis.planted", "planted: a picture is chosen for two kinds",
             "rng.permutation(len(files))[: each * len(KINDS)]", "rng.integers(0, len(files), each * len(KINDS))"),
    # ------------------------------------------------------------------------------------------------ forgetting
    sabotage("analysis.forgetting", "forgetting: the penalty is of w, not of its square's half",
             "linear.add_grads(weight=l2 * linear.params[\"weight\"])",
             "linear.add_grads(weight=2 * l2 * linear.params[\"weight\"])"),
    sabotage("analysis.forgetting", "forgetting: maps keep their scale",
             "x = (x - x.mean(axis=0)) / xp.where(spread > 0, spread, 1)", "x = x - x.mean(axis=0)"),
    sabotage("analysis.forgetting", "forgetting: the other maps are left out",
             "keep = np.ones((y.shape[1], 1, 1))\n    keep[np.asarray(without, int)] = 0",
             "keep = np.zeros((y.shape[1], 1, 1))\n    keep[np.asarray(without, int)] = 1"),
    sabotage("analysis.forgetting", "forgetting: rows and columns of a position change places",
             "[:, None] & ((columns >= left) & (columns < right))",
             " & ((columns >= left) & (columns < right))[:, None]"),
    sabotage("analysis.forgetting", "forgetting: what was lost is a share of all pictures",
             "\"lost\": _share(~after[had, k])", "\"lost\": float((had & ~after[:, k]).mean())"),
    # ------------------------------------------------------------------------------------------ conditional generators
    sabotage("models.conditional", "conditional: a label's gradient lacks its map's part",
             " + dy[:, C:].sum(axis=(2, 3))", ""),
    sabotage("models.conditional", "conditional: G's weights get the gradient of other channels",
             "self.network.backward(dy[:, :C]", "self.network.backward(dy[:, -C:]"),
    sabotage("models.conditional", "conditional: the maps are of z's first numbers", "z[:, self.latent :]), cache",
             "z[:, : self.classes]), cache"),
    sabotage("models.conditional", "conditional: D is given the maps alone",
             "y[..., :C] = pictures.transpose(0, 2, 3, 1)", "y[..., :C] = 0"),
    sabotage("models.conditional", "conditional: a file's classes are taken for z's numbers",
             "{\"classes\": int(classes), ", "{\"classes\": found[\"latent\"] - int(classes), "),
    sabotage("analysis.conditional", "conditional: all pictures are drawn of one z",
             "draw(g, draw_z(rng, len(labels), g.latent)", "draw(g, 0 * draw_z(rng, len(labels), g.latent)"),
    sabotage("analysis.conditional", "conditional: pictures come with other labels", "labels, shape), labels\n",
             "labels, shape), labels[::-1]\n"),
    # ------------------------------------------------------------------------------------------------ checkerboards
    sabotage("analysis.spectrum", "spectrum: the mean is not the one under the window",
             "mean = (x * weights).mean(axis=(2, 3), keepdims=True) / weights.mean()",
             "mean = x.mean(axis=(2, 3), keepdims=True)"),
    sabotage("analysis.spectrum", "spectrum: the window takes power away", "window / np.sqrt((window**2).mean())",
             "window"),
    sabotage("analysis.spectrum", "spectrum: down and across change places", "found.setdefault(min((a, b),",
             "found.setdefault(min((b, a),"),
    sabotage("analysis.spectrum", "spectrum: a period's bins are those of half of it too",
             "if (a % 2, b % 2) != (0, 0):", "if (a, b) != (0, 0):"),
    sabotage("analysis.spectrum", "spectrum: a peak's neighbours are its own wave's", "RING = 2", "RING = 1"),
    sabotage("analysis.spectrum", "spectrum: D's gradient is that of its own loss", "(logits, REAL)",
             "(logits, 1 - REAL)"),
    sabotage("analysis.spectrum", "spectrum: D learns from being looked at", "d = copy.deepcopy(d)", "pass"),
    # --------------------------------------------------------------- what crosses between the host and the device
    on_gpu("ops.batchnorm", "a NumPy function meets an array on the device", "inv_std = 1 / xp.sqrt(",
           "inv_std = 1 / __import__(\"numpy\").sqrt("),
    on_gpu("ops.conv", "col2im adds into memory of the host", "    xp = array_module(cols)\n    N, C, H, W = shape",
           "    import numpy as xp\n    N, C, H, W = shape"),
    on_gpu("ops.losses", "a name that only NumPy has", "if xp.__name__ == \"numpy\" else", "if xp else"),
    on_gpu("training.adversarial", "a step waits for its loss", "    g.zero_grad()\n",
           "    g.zero_grad()\n    float(loss_real)\n"),
    on_gpu("training.adversarial", "a step fetches a whole batch", "    g.zero_grad()\n",
           "    g.zero_grad()\n    array_module(z) is np or fake.get()\n"),
    on_gpu("models.dcgan", "z is taken through the host", "z.reshape(-1, self.latent, 1, 1)",
           "(z if type(z) is np.ndarray else __import__(\"cupy\").asarray(z.get())).reshape(-1, self.latent, 1, 1)"),
    on_gpu("optim", "the optimiser's state stays on the host", "    return array_module(array).zeros_like(array)",
           "    return np.zeros(array.shape, array.dtype)"),
    on_gpu("optim", "the scale of losses is decided on the host", "factor = xp.where(finite, xp",
           "factor = xp.where(bool(finite), xp"),
    on_gpu("optim", "a step of infinite gradients is taken", "array[...] = xp.where(finite, array, kept)", "pass"),
    on_gpu("flat", "copies of a network share the flat array's name", "return type(None), ()",
           "return object.__reduce_ex__(self, 2)"),
    on_gpu("flat", "convolution kernels are laid out channels-first", "reshape(F, KH, KW, C).transpose(0, 3, 1, 2)",
           "reshape(F, C, KH, KW).transpose(0, 1, 3, 2)"),
    on_gpu("backend", "nothing waits for a batch that travels",
           "            xp.cuda.get_current_stream().wait_event(copied)\n", "            pass\n"),
    on_gpu("backend", "a batch travels into memory that may be in use",
           "                copies.wait_event(xp.cuda.get_current_stream().record())\n", ""),
    on_gpu("backend", "a loop that is left leaves copies behind",
           "            copies.synchronize()", "            pass"),
    on_gpu("backend", "a batch travels to whatever device is current",
           "            with here:\n                there", "            if here:\n                there"),
    on_gpu("flat", "parameters are not aligned", "return -(-size // ALIGNMENT) * ALIGNMENT", "return size"),
    on_gpu("layers", "copies of kernels lose their layout", "arrays[name] = memo.setdefault(", "memo.setdefault("),
    on_gpu("backend", "pinned memory is overwritten while it is read", "                read[slot].synchronize()\n",
           "                pass\n"),
    on_gpu("backend", "the last batches do not arrive", "    while travelling:", "    while False:"),
    on_gpu("backend", "TF32 is on by default", "if _precision == \"tf32\" else", "if _precision != \"fp16\" else"),
    on_gpu("backend", "bf16 is cut, not rounded", "(np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))",
           "np.uint32(0)"),
    on_gpu("backend", "the CPU's fast paths ignore 16 bits", "(kind == \"gpu\" or _precision == \"float32\")", "kind"),
    on_gpu("fast.gpu.elementwise", "relu: slope and 1 change places", "y = x > 0 ? x : (", "y = x > 0 ? slope * x : ("),
    on_gpu("fast.gpu.elementwise", "relu: dx by the sign of dy", "dx = y > 0 ? dy", "dx = dy > 0 ? dy"),
    on_gpu("fast.gpu.elementwise", "tanh: the wrong slope", "dx = dy * (1 - y * y)", "dx = dy * (1 - y)"),
    on_gpu("fast.gpu.elementwise", "results in CuPy's order", "y = from_memory(cupy.tanh(in_memory(x)))",
           "y = cupy.tanh(x)"),
    on_gpu("fast.gpu.elementwise", "adam: v of the gradient, not its square", "rest2 * slope * slope", "rest2 * slope"),
    on_gpu("fast.gpu.elementwise", "adam: the root is not corrected", "1 / (1 - beta2**adam.steps)) ** 0.5",
           "1 / (1 - beta2**adam.steps))"),
    on_gpu("fast.gpu.batchnorm", "dx without its mean", "(dy - mean_dy - (x", "(dy - (x"),
    on_gpu("fast.gpu.batchnorm", "the mean is rounded to float32", "shift = rows[0].copy()", "shift = 0 * rows[0]"),
    on_gpu("fast.gpu.batchnorm", "the variance is the biased one for good",
           "momentum * M / (M - 1) * var", "momentum * var"),
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ running them


class _Importer(importlib.machinery.PathFinder):
    """Imports ``sabotage.module`` with its source changed; neither files nor their compiled copies are touched."""

    def __init__(self, sabotage):
        self.sabotage = sabotage
        self.applied = False

    def find_spec(self, name, path=None, target=None):
        if name != self.sabotage.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        importer = self

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, fullname):
                importer.applied = True
                source = Path(self.path).read_text(encoding="utf-8")
                return compile(importer.sabotage.apply(source), self.path, "exec")

        spec.loader = Loader(name, spec.origin)
        return spec


class _Recorder:
    """Remembers the first test that failed."""

    def __init__(self):
        self.failed = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def first_failure(sabotage):
    """Return the name of the first test that fails under ``sabotage``, or None if it survives."""
    sys.path.insert(0, str(ROOT))
    _forget()
    importer, recorder = _Importer(sabotage), _Recorder()
    sys.meta_path.insert(0, importer)
    tests = sabotage.tests or next(paths for prefix, paths in TESTS.items() if sabotage.module.startswith(prefix))
    try:
        arguments = [str(ROOT / path) for path in tests]
        arguments += ["-x", "-q", "--tb=no", "--rootdir", str(ROOT), "-p", "no:cacheprovider", "-m", "not gpu"]
        if sabotage.tests is None:  # what crosses to a device has mistakes of its own
            arguments += ["-k", "not double"]
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", pytest.PytestAssertRewriteWarning)
            code = pytest.main(arguments, plugins=[recorder])
    finally:
        sys.meta_path.remove(importer)
        sys.path.remove(str(ROOT))
        _forget()
    # a mistake that cannot even be imported would prove nothing about the tests
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), f"{sabotage.title}: the tests could not run"
    assert importer.applied, f"{sabotage.title}: {sabotage.module} was not imported"
    return recorder.failed


def _forget():
    """Have nanogan and its tests imported anew."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("nanogan", "benchmarks", "examples") or name.startswith("tests."):
            del sys.modules[name]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__.split("\n")[0])
    parser.add_argument("text", nargs="*", help="only mistakes whose title holds one of these")
    parser.add_argument("--part", metavar="I/N", default="0/1", help="every N-th, from number I on")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of those, every N-th")
    parser.add_argument("--json", action="store_true", help="print {title: test}")
    args = parser.parse_args()
    start, step = map(int, args.part.split("/"))
    chosen = [s for s in SABOTAGES if not args.text or any(text in s.title for text in args.text)]
    chosen = chosen[:: args.every][start::step]
    found = {}
    for item in chosen:
        found[item.title] = first_failure(item)
        if not args.json:
            print(f"{item.title:80} {found[item.title] or 'SURVIVES'}", flush=True)
    survivors = [title for title, test in found.items() if test is None]
    print(json.dumps(found) if args.json else f"{len(found)} mistakes, {len(survivors)} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
