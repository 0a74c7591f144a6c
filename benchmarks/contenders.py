"""Who takes part in a comparison: a DCGAN's training step of nanogan or torch, in each form."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import torch_dcgan
from benchmarks.networks import BETAS, LATENT, LR, pair_of
from nanogan import backend, dispatch
from nanogan.errors import UserError
from nanogan.games.dcgan import StepResult
from nanogan.games.game import Game
from nanogan.optim import Adam
from nanogan.training import adversarial_step
from nanogan.training.graph import Graphed


@dataclass(frozen=True)
class Form:
    """How a contender does its step."""

    precision: str = "float32"  # of products: "float32", "tf32" (stored in 32 bits), "bf16", "fp16"
    how: str = "eager"  # "compiled", or "CUDA graph"
    channels_last: bool = True
    freeze_d: bool = True  # torch computes no weight gradients of D in G's step
    fast: bool = True  # nanogan's fast paths

    @property
    def numbers(self):
        """What it is compared with."""
        return "16 bit" if self.precision in ("bf16", "fp16") else self.precision


CPU_FORMS = {
    "nanogan": Form(),
    "torch eager": Form(channels_last=False, freeze_d=False),
    "torch channels_last": Form(freeze_d=False),
    "torch channels_last, D frozen": Form(),
    "torch compiled": Form(how="compiled", freeze_d=False),
}


GPU_FORMS = {  # the most telling first: time there is scarce
    "torch CUDA graph, float32": Form(how="CUDA graph"),  # the others' losses are held to the first one's
    "nanogan CUDA graph, float32": Form(how="CUDA graph"),
    "torch CUDA graph, TF32": Form("tf32", "CUDA graph"),
    "nanogan CUDA graph, tf32": Form("tf32", "CUDA graph"),
    "torch CUDA graph, bf16 autocast": Form("bf16", "CUDA graph"),
    "nanogan CUDA graph, bf16": Form("bf16", "CUDA graph"),
    "nanogan, float32": Form(),
    "torch channels_last, float32": Form(),
    "nanogan, tf32": Form("tf32"),
    "torch channels_last, TF32": Form("tf32"),
    "nanogan, bf16": Form("bf16"),
    "torch channels_last, bf16 autocast": Form("bf16"),
    "nanogan CUDA graph, fp16": Form("fp16", "CUDA graph"),
    "torch eager, float32": Form(channels_last=False, freeze_d=False),
    "torch eager, TF32": Form("tf32", channels_last=False, freeze_d=False),
    "nanogan, fp16": Form("fp16"),
    "nanogan, float32, NANOGAN_FAST=0": Form(fast=False),
    "torch compiled, TF32": Form("tf32", "compiled"),
    "torch compiled, bf16 autocast": Form("bf16", "compiled"),
}


def contender(name, form, network, target):
    """Return ``prepare``, which sets the libraries' switches, and ``step``, which queues a step.

    ``step`` returns its five numbers without waiting for them. ``network`` is one of NETWORKS' values; images and
    noise are on the device.
    """
    rng = np.random.default_rng(0)
    g, d = pair_of(network, rng)
    N, C, size = network["batch_size"], network["channels"], network["image_size"]
    real = rng.uniform(-1, 1, (N, size, size, C)).astype(np.float32).transpose(0, 3, 1, 2)  # channels-last
    z = rng.standard_normal((N, LATENT), dtype=np.float32)
    return (of_nanogan if name.startswith("nanogan") else of_torch)(form, g, d, real, z, target)


def of_nanogan(form, g, d, real, z, target):
    """:func:`contender` of nanogan."""
    game = game_of(form, g, d, target)
    real, z = backend.to_device(real, target.device), backend.to_device(z, target.device)
    for optimizer in (game.opt_g, game.opt_d) if form.precision == "fp16" else ():
        optimizer.dloss[...] = 1024  # the initial scale may be too large, and a first step then changes nothing

    def prepare():
        dispatch.FAST = form.fast
        backend.set_matmul_precision(form.precision)

    if form.how == "CUDA graph":
        if not target.is_gpu:
            raise UserError("only a GPU has CUDA graphs")
        play = recorded(game)
        return prepare, lambda: play({"real": real, "z": z})
    return prepare, lambda: adversarial_step(game.g, game.d, game.opt_g, game.opt_d, real, z)


def game_of(form, g, d, target):
    """Return nanogan's game of two networks and their optimisers on the device, as ``form`` wants it."""
    g, d = g.to(target.device), d.to(target.device)
    opt_g, opt_d = (Adam(n, lr=LR, betas=BETAS, loss_scaling=form.precision == "fp16") for n in (g, d))
    return PlainDCGAN(g, d, opt_g, opt_d, target.device)


class PlainDCGAN(Game):
    """The game of two given networks, whose step is the one that all contenders take."""

    def __init__(self, g, d, opt_g, opt_d, device):
        self.g, self.d, self.opt_g, self.opt_d, self.device, self.dtype = g, d, opt_g, opt_d, device, np.float32

    def step(self, real, z) -> StepResult:
        return adversarial_step(self.g, self.d, self.opt_g, self.opt_d, real, z)


def recorded(game):
    """Return a function of a step's inputs that plays the game's step, as one CUDA graph from its fourth call on.

    Raises UserError where it cannot be recorded.
    """
    notes = []
    play = Graphed(game, notes.append)

    def step(inputs):
        result = play(inputs)
        if notes and play.recorder is None:
            raise UserError(notes[-1])
        return result

    return step


def of_torch(form, g, d, real, z, target):
    """:func:`contender` of torch."""
    if form.how == "CUDA graph" and not target.is_gpu:
        raise UserError("only a GPU has CUDA graphs")
    g, d, opt_g, opt_d = torch_pair(form, g, d, target)
    memory_format = torch.channels_last if form.channels_last else torch.contiguous_format
    real, z = torch.tensor(real).to(target.torch, memory_format=memory_format), torch.tensor(z).to(target.torch)

    def step():
        if form.how == "compiled":
            torch.compiler.cudagraph_mark_step_begin()  # what the last step returned may be overwritten
        return torch_dcgan.queued_step(g, d, opt_g, opt_d, *inputs, freeze_d=form.freeze_d)

    def prepare():
        torch_dcgan.set_products(form.precision)

    inputs = real, z
    if form.how != "CUDA graph":
        return prepare, step
    inputs = torch.empty_like(real), torch.empty_like(z)
    return prepare, captured(step, (real, z), inputs)


def torch_pair(form, g, d, target):
    """Return (g, d, opt_g, opt_d): torch's copies of two networks, and their optimisers, as ``form`` wants them.

    Raises UserError where torch cannot use the device.
    """
    if not target.has_torch:
        raise UserError(f"torch {torch.__version__} has no CUDA here")
    memory_format = torch.channels_last if form.channels_last else torch.contiguous_format
    g, d = (torch_dcgan.copy_of(n).to(target.torch, memory_format=memory_format) for n in (g, d))
    options = {"fused": True, "capturable": form.how == "CUDA graph"} if target.is_gpu else {}
    opt_g, opt_d = (torch.optim.Adam(n.parameters(), lr=LR, betas=BETAS, **options) for n in (g, d))
    if form.how == "compiled":
        torch.compiler.reset()  # else what was compiled for the network before counts towards its limit
        g, d = (torch.compile(n, mode="reduce-overhead" if target.is_gpu else None) for n in (g, d))
    if form.numbers == "16 bit":
        dtype = torch.bfloat16 if form.precision == "bf16" else torch.float16
        g, d = torch_dcgan.Autocast(g, dtype), torch_dcgan.Autocast(d, dtype)
    return g, d, opt_g, opt_d


def captured(step, sources, inputs):
    """Return a function that runs ``step`` twice and from the third call on replays it as one CUDA graph.

    Each time ``sources`` are copied into ``inputs`` first, which ``step`` reads, as training has to.
    """
    side, calls = torch.cuda.Stream(), []

    def run():
        calls.append(None)
        for target, source in zip(inputs, sources, strict=True):
            target.copy_(source)
        if len(calls) <= 2:  # on another stream, as capturing demands: choices by trial, Adam's state
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                result = step()
            torch.cuda.current_stream().wait_stream(side)
            return result
        if len(calls) == 3:
            run.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(run.graph):
                run.result = step()
        run.graph.replay()
        return run.result

    return run
