"""The watcher: an illness is told, and once; health, a run's start and too few numbers are not."""

import functools

import numpy as np
import pytest

from nanogan.data import Loader, load_mnist
from nanogan.models import dcgan
from nanogan.optim import Adam
from nanogan.training import StepResult, adversarial_step, sample
from nanogan.training.health import Health, collapse, nearest_distance, saturation, winning
from nanogan.training.log import Log

NAMES = ("loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after")
COLUMNS = ("epoch", "step", *NAMES, "seconds")


def history(last, *, d_real=0.8, d_fake=0.15, first=1):
    """Rows of a run, steps ``first`` to ``last``, in the order of log.csv; scattered as real ones are."""
    rng = np.random.default_rng(last)

    def near(value):
        return float(np.clip(value * rng.lognormal(sigma=0.3), 0, 1))

    return [
        (1, step, near(0.5), near(2.0) + 1, min(1, near(d_real)), near(d_fake), near(d_fake), step / 50)
        for step in range(first, last + 1)
    ]


def varied(rng, N=32, channels=1):
    """Pictures that differ from each other, inside -0.9 to 0.9."""
    return rng.uniform(-0.9, 0.9, (N, channels, 8, 8)).astype(np.float32)


def test_the_made_up_rows_are_log_rows():
    row = dict(zip(COLUMNS, history(7)[-1], strict=True))
    assert row["step"] == 7
    assert row["d_fake_after"] < 0.6


# ------------------------------------------------------------------------------------------ D is winning


def test_a_discriminator_that_wins_for_long_is_told_with_its_numbers():
    rows = history(1000, d_real=0.995, d_fake=0.0015)
    (warning,) = Health(COLUMNS).check(rows)
    real = np.median([row[COLUMNS.index("d_real")] for row in rows[-300:]])
    fake = np.median([row[COLUMNS.index("d_fake_after")] for row in rows[-300:]])
    assert "winning" in warning
    assert f"{real:.3f}" in warning
    assert f"{fake:.4f}" in warning
    assert "last 300 steps" in warning
    assert "learning rate" in warning


def test_a_few_steps_won_outright_are_not_told():
    rows = history(900) + history(1000, d_real=0.995, d_fake=0.0015, first=901)
    assert Health(COLUMNS).check(rows) == []
    rows = rows + history(1060, d_real=0.995, d_fake=0.0015, first=1001)
    assert Health(COLUMNS).check(rows), "160 of the last 300 steps are"


def test_a_discriminator_that_finds_everything_drawn_is_not_winning():
    assert Health(COLUMNS).check(history(1000, d_real=0.1, d_fake=0.001)) == []
    assert Health(COLUMNS).check(history(1000, d_real=0.99, d_fake=0.15)) == []


@pytest.mark.parametrize("missing", ["d_real", "d_fake_after"])
def test_a_run_without_these_columns_has_no_winner_and_its_samples_are_looked_at(rng, missing):
    """A critic's log has no probabilities; the places of the columns are those of the log, not of a DCGAN's."""
    columns = ("epoch", "step", *(name for name in ("gap", "d_fake_after", "d_real") if name != missing), "seconds")
    rows = [(1, step, 0.5, 0.99, 1.0) for step in range(1, 1021)]
    health, grey, data = Health(columns), np.zeros((32, 1, 8, 8), np.float32), varied(rng)
    assert health.check(rows[:1000], grey, data) == []
    (warning,) = health.check(rows, grey, data)
    assert "collapsed" in warning


def test_columns_are_found_by_their_names():
    columns = ("epoch", "step", "d_fake_after", "loss_q", "d_real", "seconds")
    rows = [(1, step, 0.001, 7.0, 0.99, 1.0) for step in range(1, 1001)]
    (warning,) = Health(columns).check(rows)
    assert "0.990 real and generated ones 0.0010" in warning
    assert Health(columns).check([(1, step, 0.99, 7.0, 0.001, 1.0) for step in range(1, 1001)]) == []


def test_nothing_is_told_while_warming_up():
    rows = history(1100, d_real=0.995, d_fake=0.0015)
    samples, data = np.zeros((32, 1, 8, 8), np.float32), varied(np.random.default_rng(0))
    health = Health(COLUMNS)
    for step in range(100, 1000, 20):
        assert health.check(rows[:step], samples, data) == [], step
    assert len(health.check(rows[:1000], samples, data)) == 1, "D; what is seen in samples must be seen twice"
    assert len(health.check(rows[:1020], samples, data)) == 1


def test_a_resumed_run_without_a_whole_window_of_rows_is_not_judged():
    rows = history(5299, d_real=0.995, d_fake=0.0015, first=5001)
    health = Health(COLUMNS)
    assert health.check(rows) == []
    assert len(health.check(rows + history(5300, d_real=0.995, d_fake=0.0015, first=5300))) == 1


def test_no_rows_and_rows_that_are_not_numbers_are_no_illness():
    assert Health(COLUMNS).check([]) == []
    nan = float("nan")
    assert Health(COLUMNS).check([(1, step, nan, nan, nan, nan, nan, 1.0) for step in range(1, 1001)]) == []


# ------------------------------------------------------------------------------------------ told once


def test_an_illness_is_told_once_and_again_only_after_a_long_recovery():
    def told(health, start, end, ill):
        numbers = {"d_real": 0.995, "d_fake": 0.0015} if ill else {}
        rows = history(end, first=start - 299, **numbers)
        return [step for step in range(start, end + 1, 50) if health.check(rows[: 300 + step - start])]

    health = Health(COLUMNS, recovery=1000)
    assert told(health, 1000, 4000, ill=True) == [1000]
    assert told(health, 4100, 4900, ill=False) == []
    assert told(health, 5000, 6000, ill=True) == [], "it was well for 800 steps only"
    assert told(health, 6100, 6900, ill=False) == []
    assert told(health, 7000, 7000, ill=True) == [], "the recovery starts anew"
    assert told(health, 7100, 8200, ill=False) == []
    assert told(health, 8300, 9000, ill=True) == [8300]


def test_a_recovery_counts_from_when_it_was_seen(rng):
    data, grey = varied(rng), np.zeros((32, 1, 8, 8), np.float32)
    health = Health(COLUMNS)

    def check(step, samples):
        return len(health.check(history(step, first=step), samples, data))

    assert [check(1000, grey), check(6000, grey), check(11000, grey)] == [0, 1, 0]
    assert check(16000, varied(rng)) == 0
    assert [check(21000, grey), check(26000, grey)] == [0, 0], "one healthy look is no long recovery"
    assert [check(31000, varied(rng)), check(36000, varied(rng))] == [0, 0]
    assert [check(41000, grey), check(46000, grey)] == [0, 1], "twice in a row, after a long recovery"


def test_what_is_seen_in_samples_must_be_seen_twice_in_a_row(rng):
    data, grey = varied(rng), np.zeros((32, 1, 8, 8), np.float32)
    health = Health(COLUMNS)
    looks = [grey, varied(rng), grey, varied(rng), grey, grey]
    told = [len(health.check(history(1000 + i, first=1000 + i), look, data)) for i, look in enumerate(looks)]
    assert told == [0, 0, 0, 0, 0, 1]


def test_checks_without_samples_between_do_not_break_the_row(rng):
    data, grey = varied(rng), np.zeros((32, 1, 8, 8), np.float32)
    health = Health(COLUMNS)
    assert health.check(history(1000), grey, data) == []
    assert health.check(history(1010)) == []
    assert len(health.check(history(1020), grey, data)) == 1


# ------------------------------------------------------------------------------------------ collapse


@pytest.mark.parametrize("kinds", [1, 2, 5])
def test_a_generator_that_draws_few_pictures_over_and_over_has_collapsed(rng, kinds):
    data = varied(rng, channels=3)
    samples = varied(rng, kinds, channels=3)[np.arange(32) % kinds] + rng.normal(0, 0.02, data.shape)
    assert "collapsed" in collapse(samples, data)
    assert "32 generated images" in collapse(samples, data)


def test_its_share_is_the_distance_to_the_nearest_of_as_many_real_ones(rng):
    data, samples = varied(rng, 400), varied(rng, 32) * np.float32(0.2)

    def by_definition(x):
        return np.median([min(np.linalg.norm(a - b) for j, b in enumerate(x) if j != i) for i, a in enumerate(x)])

    np.testing.assert_allclose(nearest_distance(data), by_definition(data), rtol=1e-6)
    share = by_definition(samples) / by_definition(data[:32])
    assert 0.1 < share < 0.25
    assert f"{share:.0%} of that among real" in collapse(samples, data)


@pytest.mark.parametrize(("contrast", "told"), [(1.0, False), (0.3, False), (0.2, True), (0.0, True)])
def test_paler_pictures_collapse_below_a_quarter_of_the_distances(rng, contrast, told):
    data = varied(rng)
    samples = data.mean(axis=0) + np.float32(contrast) * (data - data.mean(axis=0))
    assert (collapse(samples, data) is not None) is told


def test_data_that_repeats_itself_and_numbers_that_are_not_finite_are_no_collapse(rng):
    grey = np.zeros((32, 1, 8, 8), np.float32)
    assert collapse(grey, np.repeat(varied(rng, 16), 2, axis=0)) is None
    assert collapse(np.full_like(grey, np.nan), varied(rng)) is None


@pytest.mark.parametrize("few", [0, 1, 7])
def test_too_few_pictures_are_not_judged(rng, few):
    grey, data = np.zeros((32, 1, 8, 8), np.float32), varied(rng)
    health = Health(COLUMNS)
    for step in range(1000, 1010):
        rows = history(step, first=step)
        assert health.check(rows, grey[:few], data) + health.check(rows, grey, data[:few]) == []
        assert health.check(rows, grey, None) + health.check(rows, None, data) == []


# ------------------------------------------------------------------------------------------ saturation


def pixels(rng, share, N=64):
    """Pictures of which ``share`` of the pixels are at -1 or 1, the others between."""
    shape = (N, 3, 8, 8)
    ends = rng.choice([-1.0, 1.0], shape)
    at_end = rng.permuted(np.linspace(0, 1, ends.size)).reshape(shape) < share
    return np.where(at_end, ends, rng.uniform(-0.9, 0.9, shape))


@pytest.mark.parametrize(
    ("share", "usual", "told"),
    [
        (0.10, 0.02, False),
        (0.30, 0.02, False),
        (0.35, 0.02, True),
        (0.99, 0.02, True),
        (0.82, 0.82, False),  # MNIST: its background is -1
        (0.94, 0.82, False),
        (0.97, 0.82, True),
        (1.00, 0.82, True),
        (1.00, 0.95, False),  # hardly more than the data's
        (0.00, 0.82, False),
    ],
)
def test_saturation_is_judged_beside_the_data(rng, share, usual, told):
    sentence = saturation(pixels(rng, share), pixels(rng, usual))
    assert (sentence is not None) is told
    if told:
        assert f"{share:.0%} of the generated pixels" in sentence
        assert f"of real ones {usual:.0%}" in sentence


def test_a_sigmoid_like_tanh_that_nears_its_end_is_not_saturated(rng):
    assert saturation(np.full((32, 1, 8, 8), 0.998), varied(rng)) is None
    assert saturation(np.full((32, 1, 8, 8), -0.9995), varied(rng)) is not None


def test_each_illness_has_its_own_sentence_and_way_out(rng):
    sentences = [
        winning(np.full(9, 0.99), np.full(9, 0.001)),
        collapse(np.zeros((9, 1, 4, 4)), varied(rng)[:9]),
        saturation(np.ones((9, 1, 4, 4)), varied(rng)),
    ]
    assert len(set(sentences)) == 3
    for sentence in sentences:
        assert "people usually" in sentence
        assert "\n" not in sentence
        assert "." not in sentence[-1], "one sentence, without a full stop, as errors are"


def test_inputs_are_not_changed(rng):
    samples, data = varied(rng), varied(rng)
    before = samples.copy(), data.copy()
    Health(COLUMNS).check(history(1000), samples, data)
    np.testing.assert_array_equal((samples, data), before)


# ------------------------------------------------------------------------------------------ real trainings


@functools.cache
def mnist(folder):
    pictures, _ = load_mnist("mnist", data_dir=folder)
    return pictures[:6400]


@pytest.mark.parametrize("illness", [None, "winning", "collapsed", "saturated"])
def test_real_trainings(real_data, tmp_path, illness):
    """A small DCGAN on MNIST for 400 steps: healthy, or made ill as people do by mistake."""
    pictures = mnist(f"{real_data}/mnist")
    rng = np.random.default_rng(3)
    g = dcgan.generator(image_size=28, channels=1, latent=16, width=8, rng=rng)
    d = dcgan.discriminator(image_size=28, channels=1, width=8, rng=rng)
    lr_g = {"winning": 1e-7, "saturated": 0.3}.get(illness, 2e-3)
    opt_g, opt_d = Adam(g, lr=lr_g, betas=(0.5, 0.999)), Adam(d, lr=2e-3, betas=(0.5, 0.999))
    spread = np.float32(illness != "collapsed")  # of z: without it every picture is the same
    fixed_z = spread * rng.standard_normal((64, 16), dtype=np.float32)
    log, told = Log(tmp_path / "log.csv", StepResult._fields), []
    health = Health(log.columns, window=100, warm_up=200)
    data = next(Loader(pictures, batch_size=64).epoch(1))["images"]
    for step, batch in enumerate(Loader(pictures, batch_size=16).epoch(1), start=1):
        real = batch["images"]
        z = spread * rng.standard_normal((16, 16), dtype=np.float32)
        log.add(1, step, adversarial_step(g, d, opt_g, opt_d, real, z), 0.0)
        if step % 50 == 0:
            log.fetch()
            told += health.check(log.rows, sample(g, fixed_z), data)
    log.close()
    if illness is None:
        assert told == []
    else:
        assert sum(illness in sentence for sentence in told) == 1
