"""Detects GAN failures that leave the losses finite, and suggests remedies.

A loss that is NaN stops the run (TrainingDiverged). What is watched here does not: a discriminator that has won, a
generator that returns the same few images for every z, a tanh that is stuck at its ends.
"""

import numpy as np

from nanogan.backend import squared_distances, to_numpy

# D has won where both hold for the median of the window: healthy DCGANs keep D(G(z)) above 0.05
REAL_FOUND, FAKE_FOUND = 0.8, 0.01
# G has collapsed where its images are this much closer to each other than the data's: healthy ones reach 0.8 to 1.1
# within a thousand steps, an untrained DCGAN has 0.26, a collapsed one nearly 0
CLOSENESS = 0.25
SATURATED = 0.999
FEWEST = 8  # images; fewer say little about how much they differ


class Health:
    """Watches a run and reports each illness once, and again only if it comes back after a long recovery.

    columns: those of the run's log (Log.columns). "D is winning" is looked for where d_real and d_fake_after, means of
    D's probabilities, are among them. window: the steps that it looks back on. warm_up: before this step nothing is
    reported; a generator starts with grey, and a discriminator may win for some hundred steps before the two find their
    balance. recovery: an illness unseen for so many steps is reported again when it returns.
    """

    def __init__(self, columns, *, window=300, warm_up=1000, recovery=1000):
        self.window, self.warm_up, self.recovery = window, warm_up, recovery
        self._place = {name: i for i, name in enumerate(columns)}
        self._seen = {}  # illness: at how many checks in a row it was seen
        self._well_since = {}  # illness that was told: the step since which it has not been seen, or None

    def check(self, rows, samples=None, data=None):
        """Return the new warnings, sentences, after the last step of ``rows``; usually none.

        rows: a run's rows so far, in the order of its columns (Log.rows); only the last ``window`` are read. samples
        (N, C, H, W): what G generates now, and data (M, C, H, W): real images, both from -1 to 1, on either device.
        Without both, or with fewer than 8 images in one, G is not looked at. What is seen in samples is reported when
        two checks in a row have seen it. Costs under a millisecond, and a few with 64 samples of 64 x 64 pixels.
        """
        if not rows:
            return []
        step = rows[-1][self._place["step"]]
        if step < self.warm_up:
            return []
        found = []
        if len(rows) >= self.window and {"d_real", "d_fake_after"} <= self._place.keys():
            d_real, d_fake = (self._recent(rows, name) for name in ("d_real", "d_fake_after"))
            found.append(("winning", 1, winning(d_real, d_fake)))
        if samples is not None and data is not None and min(len(samples), len(data)) >= FEWEST:
            samples, data = to_numpy(samples), to_numpy(data)
            found += [("collapse", 2, collapse(samples, data)), ("saturation", 2, saturation(samples, data))]
        return [sentence for illness, needed, sentence in found if self._is_new(illness, needed, sentence, step)]

    def _recent(self, rows, name):
        return np.array([row[self._place[name]] for row in rows[-self.window :]], float)

    def _is_new(self, illness, needed, sentence, step):
        """Note whether ``illness`` is seen at ``step``; return whether to report it now."""
        if sentence is None:
            self._seen[illness] = 0
            if illness in self._well_since:
                since = self._well_since[illness]
                if since is None:
                    self._well_since[illness] = step
                elif step - since >= self.recovery:
                    del self._well_since[illness]
            return False
        self._seen[illness] = self._seen.get(illness, 0) + 1
        if illness in self._well_since:
            self._well_since[illness] = None  # it has not recovered, or not for long enough
            return False
        if self._seen[illness] < needed:
            return False
        self._well_since[illness] = None
        return True


def winning(d_real, d_fake):
    """Return a sentence if D tells real from generated images without effort, else None.

    d_real, d_fake: D(x), and D(G(z)) after D's update, of the latest steps.
    """
    real, fake = np.median(d_real), np.median(d_fake)
    if not (real > REAL_FOUND and fake < FAKE_FOUND):  # also where one is NaN
        return None
    return (
        f"the discriminator is winning outright: over the last {len(d_real)} steps it found real images {real:.3f} "
        f"real and generated ones {fake:.4f} (medians of D(x) and D(G(z))), which leaves the generator little to learn "
        "from; people usually lower the discriminator's learning rate, smooth its labels (0.9 for real), add noise to "
        "the images it sees, make it narrower, or train on more data"
    )


def collapse(samples, data):
    """Return a sentence if the images (N, C, H, W) ``samples`` are much more alike than those of ``data``, else None.

    Compares the median distance from an image to the one nearest to it, among as many samples as real images. This
    finds a generator that returns one image, and also one that returns a few over and over, whose standard deviation
    over the batch is still the data's.
    """
    N = min(len(samples), len(data))
    distance, usual = nearest_distance(samples[:N]), nearest_distance(data[:N])
    if not distance < CLOSENESS * usual:  # also where one is NaN, or the data repeats itself
        return None
    return (
        f"the generator has collapsed: among {N} generated images, the distance to the most similar one is "
        f"{distance / usual:.0%} of that among real images (medians); people usually go back to an earlier "
        "checkpoint and lower the learning rate, use larger batches, smooth the discriminator's labels (0.9 for "
        "real), or add noise to the images it sees"
    )


def saturation(samples, data):
    """Return a sentence if far more pixels of ``samples`` than of ``data`` are at the ends of tanh, else None.

    Far more: the share is 0.3 higher or, in data such as MNIST that is mostly at -1 itself, three quarters of the way
    up from the data's share to 1.
    """
    share, usual = (float((np.abs(images) > SATURATED).mean()) for images in (samples, data))
    if not share - usual > max(0.1, min(0.3, 0.75 * (1 - usual))):
        return None
    return (
        f"the generator's tanh is saturated: {share:.0%} of the generated pixels are beyond +-{SATURATED}, of real "
        f"ones {usual:.0%}, and there its slope, so its gradient, is next to nothing; people "
        "usually lower the generator's learning rate, start from smaller weights, or check that the real images go "
        "from -1 to 1"
    )


def nearest_distance(images):
    """Return the median over images (N, ...) of the Euclidean distance to the nearest other; NaN if not finite."""
    x = np.asarray(images, np.float64).reshape(len(images), -1)
    distances = squared_distances(x, x)
    np.fill_diagonal(distances, np.inf)
    return float(np.sqrt(np.median(distances.min(axis=1))))
