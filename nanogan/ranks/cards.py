"""Sums of arrays on GPUs over all ranks: by NCCL, from card to card, or through the host's memory."""

import socket
import warnings

import numpy as np

from nanogan.backend import Device, get_device
from nanogan.errors import UserError


def device_of_rank(ranks, name):
    """Return the device called ``name`` for this rank: "gpu" is the card of the number that the rank has here.

    Raises UserError if two ranks would share a card.
    """
    if ranks.size == 1:
        return get_device(name)
    device = _own_card(ranks) if name in ("gpu", "cuda") else get_device(name)
    places = ranks.all_told((device.kind, socket.gethostname(), _bus_of(device)))
    if len({kind for kind, *_ in places}) > 1:
        raise UserError("some processes train on a GPU and others on the CPU: give all of them the same --device")
    if device.kind == "gpu" and len(set(places)) < len(places):
        raise UserError(
            f"{ranks.size} processes expected a GPU each, got {len(set(places))}: start as many processes on a machine "
            "as it has GPUs, with --device gpu"
        )
    return device


def _own_card(ranks):
    count = get_device("gpu").array_module.cuda.runtime.getDeviceCount()
    # a launcher may show each process its own card alone
    return get_device(Device("gpu", 0 if count == 1 else ranks.local_rank % count))


def _bus_of(device):
    """What tells a machine's cards apart, whatever their numbers; None of a CPU."""
    if device.kind == "cpu":
        return None
    return device.array_module.cuda.runtime.deviceGetPCIBusId(device.index)


def cards_of(ranks):
    """Return what carries CuPy's arrays between ``ranks``: NCCL, or the host where it is not installed."""
    return ByNccl(ranks) if _nccl().available else ThroughTheHost(ranks)


def _nccl():
    """CuPy's module of NCCL, whose ``available`` says whether the library was found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it was not found
        from cupy.cuda import nccl
    return nccl


def what_carries():
    """Return in a few words what carries arrays between GPUs on this machine, for ``nanogan.info``."""
    nccl = _nccl()
    if not nccl.available:
        return "the host's memory, as NCCL is not installed: pip install nvidia-nccl-cu13 (or -cu12, as CuPy is)"
    version = nccl.get_version()
    return f"NCCL {version // 10_000}.{version // 100 % 100}.{version % 100}"


class ByNccl:
    """NCCL on CuPy's current stream: calls are queued like kernels, and nothing waits for them.

    Arrays are C-contiguous. A communicator is of one card, so make it once the rank's card is the current one.
    """

    recordable = True  # in a CUDA graph

    def __init__(self, ranks):
        self.nccl = nccl = _nccl()
        name = ranks.told(nccl.get_unique_id() if ranks.leads else None)
        self.comm = nccl.NcclCommunicator(ranks.size, name, ranks.rank)  # waits for all

    def all_reduce(self, x):
        """Replace x by the sum over all ranks."""
        self.comm.allReduce(x.data.ptr, x.data.ptr, x.size, self._kind(x), self.nccl.NCCL_SUM, _stream())

    def all_gather(self, x, out):
        """Fill ``out`` with the arrays x of all ranks, one after the other."""
        self.comm.allGather(x.data.ptr, out.data.ptr, x.size, self._kind(x), _stream())

    def broadcast(self, x):
        """Replace x by rank 0's."""
        self.comm.broadcast(x.data.ptr, x.data.ptr, x.size, self._kind(x), 0, _stream())

    def abort(self):
        """Free what waits for a rank that is gone."""
        self.comm.abort()

    def _kind(self, x):
        names = {"float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64", "float16": "NCCL_FLOAT16",
                 "int64": "NCCL_INT64", "int32": "NCCL_INT32", "uint8": "NCCL_UINT8"}  # fmt: skip
        if x.dtype.name == "bool":
            return self.nccl.NCCL_UINT8
        return getattr(self.nccl, names[x.dtype.name])


class ThroughTheHost:
    """MPI between the hosts' memories, from and to pinned copies: each call waits for the GPU."""

    recordable = False

    def __init__(self, ranks):
        self.ranks = ranks

    def all_reduce(self, x):
        """Replace x by the sum over all ranks."""
        x.set(self.ranks.total(_on_host(x)).reshape(x.shape))

    def all_gather(self, x, out):
        """Fill ``out`` with the arrays x of all ranks, one after the other."""
        out.set(self.ranks.gather(_on_host(x)).reshape(out.shape))

    def broadcast(self, x):
        """Replace x by rank 0's."""
        x.set(self.ranks.broadcast(_on_host(x)).reshape(x.shape))

    def abort(self):
        """Nothing to abort: MPI ends all by itself."""


def _on_host(x):
    """A pinned copy of a C-contiguous array, in one dimension."""
    import cupyx

    host = cupyx.empty_pinned(x.shape, x.dtype)
    x.get(out=host)
    return np.asarray(host).reshape(-1)


def _stream():
    import cupy

    return cupy.cuda.get_current_stream().ptr
