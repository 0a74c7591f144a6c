"""Batches that travel to a GPU while it computes."""

from collections import deque

from nanogan.backend.devices import get_device


def copied_ahead(batches, device, *, ahead=1):
    """Yield each NumPy array of ``batches`` on ``device``; up to ``ahead`` more travel while the caller computes.

    A GPU's copy engine works beside its processors, but only from memory that the system may not move ("pinned"), and
    on a stream of its own. So each batch goes through one of ``ahead + 1`` pinned buffers, and two waits keep order:
    the copy waits for what is queued so far, which may still use the memory that it writes to; and what the caller
    queues next waits for the copy. The host waits only for a buffer that is still being read.
    """
    device = get_device(device)
    if device.kind == "cpu":
        yield from batches
        return
    import cupyx

    xp, here = device.array_module, device.array_module.cuda.Device(device.index)
    copies = xp.cuda.Stream(non_blocking=True)
    buffers, read = [None] * (ahead + 1), [None] * (ahead + 1)  # pinned memory, and the event after its last copy
    travelling = deque()

    def arrived(array, copied):
        with here:  # what is queued from now on waits until the array is there
            xp.cuda.get_current_stream().wait_event(copied)
        return array

    try:
        for i, batch in enumerate(batches):
            slot = i % len(buffers)
            if read[slot] is not None:
                read[slot].synchronize()
            if buffers[slot] is None or buffers[slot].size < batch.size or buffers[slot].dtype != batch.dtype:
                buffers[slot] = cupyx.empty_pinned(batch.size, batch.dtype)
            pinned = buffers[slot][: batch.size].reshape(batch.shape)
            pinned[...] = batch
            with here:
                there = xp.empty(batch.shape, batch.dtype)
                copies.wait_event(xp.cuda.get_current_stream().record())
                there.set(pinned, stream=copies)
                read[slot] = copies.record()
            travelling.append((there, read[slot]))
            if len(travelling) > ahead:
                yield arrived(*travelling.popleft())
        while travelling:
            yield arrived(*travelling.popleft())
    finally:
        with here:
            copies.synchronize()  # memory that a copy still writes to may not go back to the pool
