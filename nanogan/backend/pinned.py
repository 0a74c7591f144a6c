"""Batches that travel to a GPU while it computes."""

from collections import deque

from nanogan.backend.devices import get_device


def copied_ahead(batches, device, *, ahead=1):
    """Yield each of ``batches`` on ``device``; up to ``ahead`` more travel while the caller computes.

    A batch is a NumPy array, or a dictionary of them, {column: array}; it arrives as what it was.

    A GPU's copy engine works beside its processors, but only from memory that the system may not move ("pinned"), and
    on a stream of its own. So each batch goes through one of ``ahead + 1`` slots of pinned memory, in which each of its
    columns has a buffer, and two waits keep order: the copy waits for what is queued so far, which may still use the
    memory that it writes to; and what the caller queues next waits for the copy. The host waits only for a slot that is
    still being read.
    """
    device = get_device(device)
    if device.kind == "cpu":
        yield from batches
        return
    xp, here = device.array_module, device.array_module.cuda.Device(device.index)
    copies = xp.cuda.Stream(non_blocking=True)
    slots, read = [{} for _ in range(ahead + 1)], [None] * (ahead + 1)  # the event after a slot's last copy
    travelling = deque()

    def arrived(batch, copied):
        with here:  # what is queued from now on waits until the batch is there
            xp.cuda.get_current_stream().wait_event(copied)
        return batch

    try:
        for i, batch in enumerate(batches):
            slot = i % len(slots)
            if read[slot] is not None:
                read[slot].synchronize()
            columns = batch if isinstance(batch, dict) else {"": batch}
            pinned = {name: _pinned(slots[slot], name, array) for name, array in columns.items()}
            with here:
                there = {name: xp.empty(array.shape, array.dtype) for name, array in columns.items()}
                copies.wait_event(xp.cuda.get_current_stream().record())
                for name, array in there.items():
                    array.set(pinned[name], stream=copies)
                read[slot] = copies.record()
            travelling.append((there if isinstance(batch, dict) else there[""], read[slot]))
            if len(travelling) > ahead:
                yield arrived(*travelling.popleft())
        while travelling:
            yield arrived(*travelling.popleft())
    finally:
        with here:
            copies.synchronize()  # memory that a copy still writes to may not go back to the pool


def _pinned(buffers, name, array):
    """Return a copy of ``array`` in the pinned buffer ``name``, which is made anew if it is too small."""
    import cupyx

    buffer = buffers.get(name)
    if buffer is None or buffer.size < array.size or buffer.dtype != array.dtype:
        buffer = buffers[name] = cupyx.empty_pinned(array.size, array.dtype)
    pinned = buffer[: array.size].reshape(array.shape)
    pinned[...] = array
    return pinned
