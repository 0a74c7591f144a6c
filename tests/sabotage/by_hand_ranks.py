"""Mistakes that only several ranks show: in what they share, what they add up, what they tell each other."""

from tests.sabotage.mistake import Mistake, mistake


def of_ranks(title, where, *texts):
    """A mistake that the tests of tests/ranks judge."""
    return mistake(f"ranks: {title}", where, *texts)


def of_cards(title, where, *texts):
    """One that they judge on the strict double of a GPU."""
    return mistake(f"ranks: {title}", where, *texts, on_gpu=True)


RANKS: list[Mistake] = [
    of_ranks("batchnorm: the variance without that of the ranks' means", "moments_of_all", "M * (var + away * away)",
             "M * var"),
    of_ranks("batchnorm: the mean without K", "moments_of_all", "near + first", "first"),
    of_ranks("batchnorm: sums around 0, whatever K is", "moments_of_all", "mean.astype('float64') - near",
             "mean.astype('float64')"),
    of_ranks("batchnorm: rows of one rank alone are counted", "moments_of_all", "M = M * ranks.size", "M = M"),
    of_ranks("batchnorm: the backward counts rows of one rank", "slopes_of_all", "M * ranks.size", "M"),
    of_ranks("batchnorm: dgamma is that of all ranks, and counts as often", "ops:batchnorm_backward",
             "dx = _like(dx, dy)", "dx = _like(dx, dy)\ndgamma = Q if train else dgamma"),
    of_ranks("batchnorm: xhat stays around the own mean", "ops:batchnorm_forward",
             "centred += (own - mean).astype(x.dtype)", "pass"),
    of_ranks("fast batchnorm: dgamma is that of all ranks", "cpu:batchnorm_backward",
             "_each(lambda i: write(i, Q[i], P[i]), batches, rows.size)",
             "_each(lambda i: write(i, Q[i], P[i]), batches, rows.size)\ngradients = list(zip(Q, P, strict=True))"),
    of_ranks("fast batchnorm: P and Q change places", "cpu:batchnorm_backward", "write(i, Q[i], P[i])",
             "write(i, P[i], Q[i])"),
    of_ranks("fast batchnorm: what is left of the mean is the own one", "cpu:_write", "mean - near", "0 * mean"),
    of_ranks("fast batchnorm: each rank's own statistics", "BatchNorm2d._call", "self.ranks is None", "True"),
    of_ranks("feature matching: each rank's own means", "feature_matching_forward", "ranks is not None", "False"),
    of_ranks("pool: each rank's own fakes", "Pool.swap", "self.ranks is not None", "False"),
    of_ranks("pool: every rank sees the first ones", "Pool.swap", "seen[own]", "seen[: own.stop - own.start]"),
    of_ranks("optimiser: each rank's own gradient", "Optimizer.step", "self.ranks is not None", "False"),
    of_ranks("optimiser: the sum, not the mean", "Optimizer.step", "self.ranks.mean", "self.ranks.total"),
    of_ranks("optimiser: moved gradients are not noticed", "Optimizer._groups", "(self._flat, self._bucket)",
             "(self._flat,)"),
    of_ranks("bucket: gradients lie over each other", "Bucket.__init__", "start += _aligned(gradient.size)", "pass"),
    of_ranks("bucket: in the order of the shape", "Bucket.__init__",
             "sorted(range(gradient.ndim), key=lambda axis: -gradient.strides[axis])", "list(range(gradient.ndim))"),
    of_ranks("dropout: each rank draws the same", "Game.reseed",
             "rng if self.ranks is None else OfWholeBatch(rng, self.ranks)", "rng"),
    of_ranks("draws: the first rank's for all", "OfWholeBatch._own",
             "draw((N, *rest), **options)[self.ranks.own(N)]", "draw((N, *rest), **options)[:first]"),
    of_ranks("loader: every rank makes all images", "Loader._own", "indices[self.ranks.own(len(indices))]", "indices"),
    of_ranks("loader: a rank's images are not of the batch", "Loader._host_batches",
             "min(self.batch_size, self._N - first) // self.ranks.size * self.ranks.size", "self.batch_size"),
    of_ranks("loader: a last batch of fewer images than ranks", "Loader.shared", "0 < last < ranks.size", "False"),
    of_ranks("loader: batches that cannot be shared", "check_batch", "size % ranks.size", "False"),
    of_ranks("step: lists are not shared out", "shards:own_part", "[own(each, name) for each in value]", "list(value)"),
    of_ranks("step: inputs that cannot be shared are cut", "shards:own_part", "len(value) % ranks.size", "False"),
    of_ranks("step: numbers of the own images", "steps_of_rank",
             "ranks.mean(xp.stack([number.astype(np.float64) for number in seen]))",
             "xp.stack([number.astype(np.float64) for number in seen])"),
    of_ranks("join: each starts from its own weights", "parallel:join", "ranks.broadcast(array)", "pass"),
    of_ranks("join: each counts its own steps", "parallel:join", "_with(state, ranks.told(_numbers(state)))", "state"),
    of_ranks("led: others hear nothing of a failure", "Ranks.led", "self.check(error)", "if error: raise error"),
    of_ranks("led: all ranks do it", "Ranks.led", "self.leads", "True"),
    of_ranks("first: all at once", "Ranks.first_on_each_machine",
             "(self.local_rank == 0, self.local_rank > 0)", "(True,)"),
    of_ranks("run: a failure in a step's note is forgotten", "Led.note", "self.failed = error", "pass"),
    of_ranks("run: a rank that is told to stop stops alone", "Led.is_last", "bool(stopped)", "stop()"),
    of_ranks("run: no rank looks at the others' parameters", "Led.save_checkpoint", "self._compare(at)", "pass"),
    of_ranks("run: files hold rank 0's statistics", "Led._averaged", "self.ranks.mean(array)", "pass"),
    of_ranks("run: training goes on with what files hold", "Led._averaged", "array[...] = before", "pass"),
    of_ranks("run: a checkpoint is due by each rank's own clock", "Led.is_last", "self.due = bool(due)", "pass"),
    of_ranks("resume: nothing is said of other ranks", "parallel:other_ranks", "same if old == new else other", "same"),
    of_ranks("leave: each goes when it likes", "Ranks.leave", "self.comm.Abort(code)", "pass"),
    of_ranks("leave: a rank that fails alone says nothing", "Ranks.leave", "not self.leads", "False"),
    of_ranks("launch: every rank takes all cores", "core_count", "len(cores()) // _sharing", "len(cores())"),
    of_ranks("launch: cores that a rank has for itself are shared", "share_cores",
             "not cores().isdisjoint(others)", "True"),
    of_ranks("launch: the user's number of threads is replaced", "share_cores",
             "any(os.environ.get(name, '').strip() for name in THREADS)", "False"),
    of_ranks("cli: every rank speaks", "cli:run", "if rank:\n"
             "    stderr, sys.stdout, sys.stderr = (sys.stderr, _Nowhere(), _Nowhere())", "pass"),
    of_ranks("cli: a script that does not train runs several times", "cli:parser",
             "not together and ranks.launched().size > 1", "False"),
    of_cards("kernels: a rank's own statistics", "gpu:batchnorm_forward", "ranks is not None", "False"),
    of_cards("kernels: slopes of a rank's own rows", "gpu:batchnorm_backward", "ranks is not None", "False"),
    of_cards("kernels: the variance is the unbiased one", "_statistics_of_all", "unbiased * ((M - 1) / M)", "unbiased"),
    of_cards("kernels: the mean without the shift", "_statistics_of_all", "mean - shift", "mean"),
    of_cards("NCCL: counts bytes", "ByNccl.all_reduce", "x.size", "x.nbytes"),
    of_cards("NCCL: gathers into the wrong array", "ByNccl.all_gather", "out.data.ptr", "x.data.ptr"),
    of_cards("every rank takes the first card", "_own_card", "0 if count == 1 else ranks.local_rank % count", "0"),
    of_cards("two ranks on one card", "device_of_rank", "len(set(places)) < len(places)", "False"),
]  # fmt: skip
