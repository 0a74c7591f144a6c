"""The report: what it shows, that nothing of a run's files is believed, and that it works in a real browser."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanogan import images
from nanogan.errors import UserError
from nanogan.report import write_report
from tests import starting

EVIL = """</script></title><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"""
VOID = {"meta", "link", "img", "input", "br"}


@pytest.fixture
def run(tmp_path, rng):
    """The folder of a run of 400 steps, 100 an epoch, with 5 sample grids; each grid is of one shade of grey.

    Its log has the names that version 0.1 gave the columns.
    """
    out = tmp_path / "my run"
    out.mkdir()
    (out / "options.json").write_text(
        json.dumps({"data": "mnist", "epochs": 6, "batch_size": 32, "lr": 5e-4, "dry_run": False, "data_dir": None})
    )
    rows = ["epoch,step,loss_d,loss_g,d_x,d_g_z_before,d_g_z_after,seconds"]
    for step in range(1, 401):
        numbers = rng.uniform(0.1, 0.9, 5).round(6)
        rows.append(f"{(step + 99) // 100},{step},{','.join(map(str, numbers))},{1 + step * 0.02:.3f}")
    (out / "log.csv").write_bytes("".join(f"{row}\r\n" for row in rows).encode())
    images.save_grid(out / "real.png", rng.uniform(-1, 1, (9, 1, 8, 8)))
    for i, step in enumerate((80, 160, 240, 320, 400)):
        sample(out, step, np.full((9, 1, 8, 8), -1 + i / 2), epoch=(step + 99) // 100)
    return out


def sample(out, step, pictures, epoch=1):
    path = out / "samples" / f"epoch_{epoch:03d}_step_{step:06d}.png"
    images.save_grid(path, pictures)
    return path


class Page(HTMLParser):
    """Every element of a page: (tag, attributes), and its visible text. Fails on tags that do not match."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.html = Path(path).read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style", "title"} & set(self._open):
            self.words.append(data)

    def all(self, tag, **attributes):
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]

    def frames(self):
        return [image for image in self.all("img") if "data-where" in image]

    def curves(self, kind):
        """The points, x from 0 to 1000 and y from 0 (top) to 300, of all curves of a kind, "raw" or "line"."""
        paths = [path["d"] for path in self.all("path") if path.get("class", "").split(" ")[0] == kind]
        points = [re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path) for path in paths if len(path) > 15]
        return [np.array(each, float) for each in points]


def pixels(uri):
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format.lower() == kind
        return np.asarray(image)


def rewrite_log(out, change):
    lines = (out / "log.csv").read_text().splitlines()
    (out / "log.csv").write_text("".join(f"{line}\n" for line in [lines[0], *map(change, lines[1:])]))


# ------------------------------------------------------------------------------------------ what it shows


def test_the_headline_is_what_the_log_says(run):
    path = write_report(run)
    assert path == run / "report.html"
    text = Page(path).text
    assert "400 steps" in text.replace("steps 400", "400 steps")
    for words in ("epoch 4 of 6", "training time 9 s", "a step, on average 20 ms", "a second 1,600", "mnist"):
        assert words in text, words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.95, "1.00 s"), (59.0, "59 s"), (116, "1 min 56 s"), (7384, "2 h 3 min"), (86400, "24 h 0")],
)
def test_durations(run, seconds, words):
    rewrite_log(run, lambda line: line.rsplit(",", 1)[0] + f",{int(line.split(',')[1]) / 400 * seconds}")
    assert f"training time {words}".replace("1.00", "0.95") in Page(write_report(run)).text


def test_every_grid_is_there_with_its_time_and_the_last_one_shows(run):
    page = Page(write_report(run))
    frames = page.frames()
    assert [frame["data-where"] for frame in frames] == [
        f"epoch {epoch}, step {step}" for epoch, step in ((1, 80), (2, 160), (3, 240), (4, 320), (4, 400))
    ]
    assert ["hidden" in frame for frame in frames] == [True] * 4 + [False]
    assert [float(frame["data-at"]) for frame in frames] == pytest.approx([20, 40, 60, 80, 100])
    for i, frame in enumerate(frames):
        assert pixels(frame["src"])[5, 5] == round(i * 63.75)
        assert frame["alt"] == f"images generated after {frame['data-where']}"
    (real,) = [image for image in page.all("img") if "data-where" not in image]
    np.testing.assert_array_equal(pixels(real["src"]), np.asarray(Image.open(run / "real.png")))


def test_small_pictures_are_enlarged_by_a_whole_number_and_stay_sharp(run):
    page = Page(write_report(run))
    assert {(frame["width"], frame["height"]) for frame in page.frames()} == {("512", "512")}, "32 pixels, 16 times"
    assert page.all("div", **{"class": "pictures pixelated"})


@pytest.mark.parametrize("max_frames", [1, 2, 3, 7])
def test_of_many_grids_evenly_spaced_ones_are_taken(run, max_frames):
    for step in range(401, 440):
        sample(run, step, np.zeros((1, 1, 8, 8)), epoch=5)
    steps = [int(frame["data-where"].split()[-1]) for frame in Page(write_report(run, max_frames=max_frames)).frames()]
    assert len(steps) == max_frames
    assert steps == sorted(steps)
    assert steps[-1] == 439
    if max_frames > 1:
        assert steps[0] == 80


def test_grids_are_in_the_order_of_steps_not_of_names(run):
    for step in (999_999, 1_000_000, 20_000_000):
        sample(run, step, np.zeros((1, 1, 8, 8)), epoch=1000)
    steps = [frame["data-where"].split()[-1] for frame in Page(write_report(run)).frames()]
    assert steps[-3:] == ["999,999", "1,000,000", "20,000,000"]
    assert ["data-at" in frame for frame in Page(run / "report.html").frames()][-4:] == [True, False, False, False]


def test_curves_pass_through_the_logged_values(run):
    rewrite_log(run, lambda line: ",".join([*line.split(",")[:4], "0.25", "0.75", *line.split(",")[6:]]))
    page = Page(write_report(run))
    raw, lines = page.curves("raw"), page.curves("line")
    assert [len(curve) for curve in raw] == [400] * 4
    for curve in (*raw[2:], *lines[2:4]):
        np.testing.assert_allclose(curve[:, 0], np.arange(1, 401) * 2.5, atol=0.06)
    for d_x, d_g_z in (raw[2:], lines[2:4]):
        np.testing.assert_allclose(d_x[:, 1], 225, atol=0.06)
        np.testing.assert_allclose(d_g_z[:, 1], 75, atol=0.06)
    np.testing.assert_allclose(np.diff(lines[4][:, 1]), 0, atol=0.06, err_msg="every step took 20 ms")
    labels = [span["aria-label"] for span in page.all("div", role="img")]
    assert labels[1] == (
        "How real D finds images: D(x), real from 0.25 to 0.25, D(G(z)), generated from 0.75 to 0.75, in 400 steps"
    )


def test_a_long_curve_keeps_its_spikes_in_few_points(run, rng):
    loss = rng.uniform(1, 2, 30_000).round(4)
    loss[[7, 12_345, 20_001]] = 0.001, 0.002, 50
    rows = [f"1,{i + 1},{value},1.5,0.5,0.5,0.5,{i * 0.01:.2f}\n" for i, value in enumerate(loss)]
    header = (run / "log.csv").read_text().splitlines()[0]
    (run / "log.csv").write_text(f"{header}\n{''.join(rows)}")
    page = Page(write_report(run))
    for curve in (*page.curves("raw"), *page.curves("line")):
        assert 90 < len(curve) <= 1000
        assert curve[:, 0].min() >= 0
        assert curve[:, 0].max() <= 1000
        assert (np.diff(curve[:, 0]) >= 0).all()
        assert curve[:, 1].min() >= 0, "what is beyond the usual range stays inside the chart"
        assert curve[:, 1].max() <= 300
    x, y = page.curves("raw")[0].T
    np.testing.assert_allclose(x[y > 290], [8 / 30, 12_346 / 30], atol=0.06)
    np.testing.assert_allclose(x[y == 0], [20_002 / 30], atol=0.06)
    smooth = page.curves("line")[0][:, 1]
    assert np.ptp(smooth) < np.ptp(page.curves("raw")[0][:, 1]) / 4


def test_options_and_machine_are_tables(run):
    (run / "machine.json").write_text(json.dumps({"processor": "abacus", "cores": 2}))
    text = Page(write_report(run)).text
    assert "Options data mnist epochs 6 batch_size 32 lr 0.0005 dry_run no data_dir not given" in text
    assert "Machine processor abacus cores 2" in text


def test_warnings_lead_to_the_picture_drawn_next(run):
    (run / "warnings.csv").write_text(
        'step,message\n10,"first, with a comma"\n160,"second ""quoted"""\n300,third\n900,after the last\n31,cut'
    )
    page = Page(write_report(run))
    for words in (
        "step 10 first, with a comma",
        'step 160 second "quoted"',
        "step 300 third",
        "step 900 after the last",
    ):
        assert words in page.text, words
    assert [link["href"] for link in page.all("a")] == [f"#frame={i}" for i in (1, 2, 4, 5, 1)]
    (run / "warnings.csv").write_text("step,message\n")
    assert "Warnings No warnings." in Page(write_report(run)).text
    (run / "warnings.csv").unlink()
    assert "Warnings" not in Page(write_report(run)).text, "nobody watched"


def test_many_warnings_are_cut_short(run):
    (run / "warnings.csv").write_text("".join(f"{step},text\n" for step in range(1, 301)))
    page = Page(write_report(run))
    assert page.text.count("text") == 200
    assert "and 100 more" in page.text


def test_warnings_before_one_that_no_csv_holds_are_told(run):
    (run / "warnings.csv").write_text(f"10,first\n20,{'x' * 200_000}\n30,third\n")
    page = Page(write_report(run))
    assert [link["href"] for link in page.all("a")] == ["#frame=1"]
    assert "step 10 first" in page.text


# ------------------------------------------------------------------------------------------ columns and panels


def charts(page):
    """[(title, [names of its curves], range of its axis)] of a page, without the speed's."""
    found = re.findall(
        r'<h3>([^<]*)</h3>\n<ul class="legend">(.*?)</ul>.*?</figcaption>\n<div class="plot".*?</svg>\n(.*?)<i',
        page.html,
        re.S,
    )
    return [
        (
            title,
            re.findall(r"</svg>(.*?) <b>", legend),
            [float(y) for y in re.findall(r'class="y"[^>]*>([^<]*)', spans)],
        )
        for title, legend, spans in found
        if title != "Time of a step"
    ]


def write_log(out, columns, steps=400):
    """A log of ``columns``, {name: a value or a function of the step}."""
    rows = [",".join(["epoch", "step", *columns, "seconds"])]
    for step in range(1, steps + 1):
        values = [value(step) if callable(value) else value for value in columns.values()]
        rows.append(",".join(map(str, [(step + 99) // 100, step, *values, step / 50])))
    (out / "log.csv").write_text("".join(f"{row}\n" for row in rows))


CYCLE = {"loss_da": 3.0, "loss_db": 4.0, "loss_gan": 1.0, "loss_cycle": 2.0, "sharp": 0.9, "blunt": 0.1}


def test_panels_are_those_of_curves_json(run):
    write_log(run, CYCLE)
    curves = {"critics": ["loss_db", "loss_da"], "shares": ["blunt"], "round trip": ["loss_cycle"], "no such": ["gone"]}
    labels = {"loss_da": "D of horses", "blunt": "blunt & dull"}
    (run / "curves.json").write_text(json.dumps({"curves": curves, "labels": labels}))
    page = Page(write_report(run))
    assert [(title, names) for title, names, _ in charts(page)] == [
        ("Critics", ["loss_db", "D of horses"]),
        ("Shares", ["blunt &amp; dull"]),
        ("Round trip", ["loss_cycle"]),
    ]
    assert [curve[0, 1] for curve in page.curves("line")[:2]] == [
        pytest.approx(300 * (1 - y / 4.2), abs=0.1) for y in (4, 3)
    ]
    assert "generator" not in page.text.lower()
    assert "discriminator" not in page.text.lower()


@pytest.mark.parametrize(
    "damage",
    [
        None, "", "[]", "{", '{"curves": 3}', '{"curves": {"losses": "loss_da"}}',
        '{"curves": {"losses": [3, null, {}]}}', "[" * 100_000,
        '{"curves": {"losses": ["unknown"]}, "labels": {"loss_da": ["text"]}}', '{"curves": {}, "labels": null}',
    ],
)  # fmt: skip
def test_without_usable_curves_the_losses_stand_in_one_panel_and_all_else_in_a_second(run, damage):
    write_log(run, CYCLE)
    if damage is not None:
        (run / "curves.json").write_text(damage)
    assert [(title, names) for title, names, _ in charts(Page(write_report(run)))] == [
        ("Losses", ["loss_da", "loss_db", "loss_gan", "loss_cycle"]),
        ("Other columns", ["sharp", "blunt"]),
    ]


def test_an_old_log_looks_as_it_did_and_a_new_one_is_drawn_as_its_run_says(run):
    old = charts(Page(write_report(run)))
    assert [(title, names) for title, names, _ in old] == [
        ("Losses", ["Loss_D", "Loss_G"]),
        ("How real D finds images", ["D(x), real", "D(G(z)), generated"]),
    ]
    assert (old[1][2][0], old[1][2][-1]) == (0, 1)
    (run / "curves.json").write_text(json.dumps({"curves": {"mine": ["d_fake_after"]}, "labels": {}}))
    assert [names for _, names, _ in charts(Page(write_report(run)))] == [["d_fake_after"]], "a resumed run's own"


@pytest.mark.parametrize(
    ("values", "top"), [((0.9, 0.1), 1), ((1.0, 0.6), 1), ((0.03, 0.01), 0.03), ((1.5, 0.5), 1.5), ((-0.5, 0.9), None)]
)
def test_shares_have_an_axis_from_0_to_1_and_small_numbers_their_own(run, values, top):
    write_log(run, dict(zip(("loss_a", "loss_b"), values, strict=True)))
    ((_, _, scale),) = charts(Page(write_report(run)))
    if top is None:
        assert scale[0] < 0
    else:
        assert (scale[0], scale[-1]) == (0, top)


def test_more_curves_than_colours_go_into_another_chart(run):
    write_log(run, {f"loss_{i}": i for i in range(12)})
    page = Page(write_report(run))
    assert [(title, len(names)) for title, names, _ in charts(page)] == [
        ("Losses", 5), ("Losses, continued", 5), ("Losses, continued", 2),
    ]  # fmt: skip
    kinds = [path["class"].split()[1] for path in page.all("path") if path["class"].startswith("raw ")]
    for first in (0, 5, 10):
        assert len(set(kinds[first : first + 5])) == len(kinds[first : first + 5]), "each in its own colour"
    css = re.search(r"<style>(.*?)</style>", page.html, re.S)[1]
    for kind in kinds:
        assert f".{kind} {{ stroke: var(--{kind}); }}" in css
        assert css.count(f"--{kind}: #") == 2, "by day and by night"


def test_any_loss_that_is_not_finite_is_reported_with_its_step(run):
    write_log(run, {"sharp": "nan", "loss_q": lambda step: "nan" if step > 300 else 0.5})
    assert "step 301 a loss was not finite from here on" in Page(write_report(run)).text
    write_log(run, {"sharp": "nan", "loss_q": 0.5})
    assert "not finite" not in Page(write_report(run)).text


def test_strangers_curves_are_bounded_and_escaped(run):
    names = [f"{EVIL.replace(',', '')}{i}" for i in range(300)]
    write_log(run, dict.fromkeys(names, 0.5) | {"loss": 1.0}, steps=20)
    everything = {f"{EVIL}{i}": [*names, EVIL, "loss", "step"] for i in range(100)}
    (run / "curves.json").write_text(json.dumps({"curves": everything, "labels": {"loss": EVIL, "step": "L" * 5000}}))
    page = Page(write_report(run))
    assert len(page.all("script")) == 1
    assert not [tag for tag, attributes in page.elements if {"onerror", "onclick"} & set(attributes)]
    assert len(charts(page)) <= 21 * 13, "20 panels, each cut into charts of 5 curves"
    assert "L" * 60 not in page.html
    (run / "curves.json").unlink()
    page = Page(write_report(run))
    assert sum(len(names) for _, names, _ in charts(page)) <= 64
    assert len(page.all("script")) == 1


# ------------------------------------------------------------------------------------------ one safe file


def test_the_page_needs_nothing_else_and_allows_nothing_else(run):
    page = Page(write_report(run))
    for tag, attributes in page.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), attributes[name]
    assert not re.search(r"url\(|@import|https?:", page.html.replace("http-equiv", ""))
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"), (
        "the browser runs this script alone"
    )
    assert "$" not in page.html.replace(script, ""), "a place of the template was forgotten"


def test_words_of_files_are_shown_and_never_obeyed(run, tmp_path):
    usual = [tag for tag, _ in Page(write_report(run)).elements]
    out = run.rename(tmp_path / "<b onclick=x>'\"&lt;")
    options = json.loads((out / "options.json").read_text())
    (out / "options.json").write_text(json.dumps({**options, "data": EVIL, "lr": [EVIL], "dry_run": {EVIL: "$title"}}))
    (out / "machine.json").write_text(json.dumps({EVIL: EVIL}))
    (out / "warnings.csv").write_text('12,"' + EVIL.replace('"', '""') + '"\n')
    page = Page(write_report(out))
    assert len(page.all("script")) == 1
    assert not [attributes for _, attributes in page.elements if {"onerror", "onclick"} & set(attributes)]
    new = [tag for tag, _ in page.elements]
    assert set(new) <= {*usual, "a", "li"}
    assert len(page.all("img")) == 6
    assert page.text.count(EVIL) == 6, "title, caption, options, and machine's label and value, and the warning"
    assert json.dumps([EVIL]) in page.text
    assert out.name in page.text
    assert re.search(r"<title>(.*?) · nanogan</title>", page.html)[1].startswith("&lt;/script&gt;&lt;/title&gt;")


def test_long_and_odd_values_are_bounded(run):
    deep = '{"a": ' * 100_000 + "1" + "}" * 100_000
    (run / "machine.json").write_text(deep)
    (run / "options.json").write_text(
        '{"data": "' + "x" * 3000 + '", "nan": NaN, "big": 1e999, "half": "\\ud800", "epochs": "6", "batch_size": -1}'
    )
    page = Page(write_report(run))
    assert "x" * 499 + "…" in page.text
    assert "x" * 500 not in page.text
    assert "nan NaN big Infinity half ? epochs 6" in page.text
    assert "Machine" not in page.text
    assert "a second" not in page.text, "no batch size, no pictures a second"


@pytest.mark.parametrize("text", ["[1, 2]", '"text"', "3", "", "{", "null", "\x00"])
def test_options_that_are_no_object_are_left_out(run, text):
    (run / "options.json").write_text(text)
    page = Page(write_report(run))
    assert "Options" not in page.text
    assert "my run" in page.text, "named after the folder then"
    assert "400" in page.text


# ------------------------------------------------------------------------------------------ what is missing or damaged


@pytest.mark.parametrize("missing", ["log.csv", "options.json", "real.png", "samples"])
def test_what_is_missing_is_left_out(run, missing):
    page = Page(write_report(run))
    whole = (
        len(page.frames()),
        len(page.all("svg", viewbox="0 0 1000 300")),
        "Options" in page.text,
        len(page.all("img")),
    )
    assert whole == (5, 3, True, 6)
    shutil.rmtree(run / missing) if missing == "samples" else (run / missing).unlink()
    page = Page(write_report(run))
    found = (
        len(page.frames()),
        len(page.all("svg", viewbox="0 0 1000 300")),
        "Options" in page.text,
        len(page.all("img")),
    )
    assert (
        found
        == {
            "log.csv": (5, 0, True, 6),
            "options.json": (5, 3, False, 6),
            "real.png": (5, 3, True, 5),
            "samples": (0, 3, True, 1),
        }[missing]
    )


@pytest.mark.parametrize("only", ["log.csv", "options.json", "real.png", "samples"])
def test_a_folder_with_any_part_of_a_run_has_a_report(run, only):
    for path in run.iterdir():
        if path.name != only:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    Page(write_report(run))
    assert sorted(path.name for path in run.iterdir()) == sorted([only, "report.html"])


def test_a_folder_without_a_run_is_told_in_one_sentence(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "holiday.png").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"there is no run in {re.escape(str(folder))}: expected log.csv"):
            write_report(folder)
    assert not (tmp_path / "missing").exists()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("steps", [0, 1, 2, 12])
def test_short_runs(run, steps):
    lines = (run / "log.csv").read_text().splitlines()[: 1 + steps]
    (run / "log.csv").write_text("".join(f"{line}\n" for line in lines))
    page = Page(write_report(run))
    assert ("No step has been logged" in page.text) is (steps == 0)
    charts = len(page.all("svg", viewbox="0 0 1000 300"))
    assert charts == (0 if steps == 0 else 2 if steps < 12 else 3)


def test_a_last_line_that_was_cut_is_no_step(run):
    whole = (run / "log.csv").read_text()
    for cut in range(len(whole.splitlines()[-1]) + 1):
        (run / "log.csv").write_text(whole[: len(whole) - 1 - cut])
        assert "399 steps" in Page(write_report(run)).text.replace("steps 399", "399 steps"), cut


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "", "word", "1e300"])
def test_numbers_that_are_none_leave_a_gap_and_a_word(run, bad):
    def change(line):
        fields = line.split(",")
        return ",".join([*fields[:2], bad if int(fields[1]) > 390 else "0.5", *fields[3:]])

    rewrite_log(run, change)
    page = Page(write_report(run))
    loss_d, loss_g = page.curves("raw")[:2]
    assert (len(loss_d), len(loss_g)) == (390, 400)
    assert loss_d[-1, 0] == 975
    assert "step 391 a loss was not finite from here on" in page.text
    assert "nan" not in page.text.lower().replace("nanogan", "")


def test_a_log_without_any_usable_number(run):
    rewrite_log(run, lambda line: ",".join([*line.split(",")[:2], *["nan"] * 6]))
    page = Page(write_report(run))
    assert page.curves("line") == []
    assert "training time" not in page.text
    (run / "log.csv").write_text("a,b\n1,2\n\n,,,\n")
    assert "No step has been logged" in Page(write_report(run)).text


def test_rows_that_go_back_are_left_out(run):
    rewrite_log(run, lambda line: line.replace(",200,", ",100,", 1) if line.startswith("2,200,") else line)
    assert len(Page(write_report(run)).curves("raw")[0]) == 399


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("damage", [b"", b"not a picture", "cut", "gif", "huge", "long"])
def test_a_damaged_grid_is_left_out(run, which, damage):
    path = sorted((run / "samples").iterdir())[which]
    if damage == "cut":
        damage = path.read_bytes()[: path.stat().st_size // 2]
    elif damage == "gif":
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "GIF")
        damage = buffer.getvalue()
    elif damage in ("huge", "long"):
        buffer = io.BytesIO()
        Image.new("1", (8193, 3)).save(buffer, "PNG")
        damage = buffer.getvalue().replace(
            (3).to_bytes(4, "big"), (90_000 if damage == "huge" else 3).to_bytes(4, "big")
        )
    path.write_bytes(damage)
    frames = Page(write_report(run)).frames()
    assert len(frames) == 4
    assert ["hidden" in frame for frame in frames] == [True] * 3 + [False]
    assert path.stem.split("_")[-1].lstrip("0") not in [frame["data-where"].split()[-1] for frame in frames]


def test_the_last_grid_shown_is_the_last_whole_one(run):
    for path in sorted((run / "samples").iterdir())[3:]:
        path.write_bytes(b"")
    for max_frames, steps in ((1, [240]), (2, [80, 240]), (3, [80, 160, 240])):
        frames = Page(write_report(run, max_frames=max_frames)).frames()
        assert [int(frame["data-where"].split()[-1]) for frame in frames] == steps


def test_files_damaged_at_random_never_break_the_report(run, rng):
    (run / "warnings.csv").write_text("step,message\n10,text\n20,text\n")
    (run / "machine.json").write_text('{"cores": "2"}')
    paths = [path for path in run.rglob("*.*") if path.is_file()]
    whole = {path: path.read_bytes() for path in paths}
    for _ in range(60):
        for path in paths:
            data = bytearray(whole[path])
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        page = Page(write_report(run))
        assert len(page.all("script")) == 1


def test_large_pictures_become_small_jpegs(run, rng):
    slope = np.linspace(-0.9, 0.9, 600)
    path = sample(run, 401, rng.normal(slope[:, None] * slope, 0.02, (4, 3, 600, 600)), epoch=5)
    frame = Page(write_report(run)).frames()[-1]
    assert frame["src"].startswith("data:image/jpeg")
    assert (frame["width"], frame["height"]) == ("1080", "1080")
    assert len(frame["src"]) < path.stat().st_size / 3
    small = np.asarray(Image.open(path).resize((1080, 1080), Image.Resampling.BICUBIC), float)
    assert abs(pixels(frame["src"]) - small).mean() < 4


def test_the_report_replaces_the_earlier_one_whole(run, monkeypatch):
    write_report(run)
    before = (run / "report.html").read_bytes()
    names = sorted(path.name for path in run.iterdir())

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_report(run)
    monkeypatch.undo()
    assert (run / "report.html").read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == names


def test_the_command_prints_the_path_and_tells_mistakes(run, tmp_path):
    def command(folder):
        return starting.run("nanogan.report", folder)

    done = command(run)
    assert (done.returncode, done.stdout) == (0, f"{run / 'report.html'}\n"), done.stderr
    wrong = command(tmp_path / "missing")
    assert wrong.returncode == 2
    assert "error: there is no run in" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


def test_the_parts_of_the_page_are_installed_with_the_package():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    (names,) = re.findall(
        r"\[tool\.setuptools\.package-data\][^[]*\[?[^\n]*\n\"nanogan.report\" = \[(.*?)\]", text, re.S
    )
    assert {"report.html", "report.css", "report.js"} <= set(re.findall(r'"(.*?)"', names))


# ------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def chromium(tmp_path):
    """Open a file in headless Chromium; return the HTML as it stands after its scripts, and what it complained of."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium here: install chromium to test the report in a browser")

    def chromium(path, fragment="", *, milliseconds=2000):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        flags += [f"--virtual-time-budget={milliseconds}", f"--user-data-dir={tmp_path / 'browser'}"]
        done = subprocess.run([program, *flags, path.as_uri() + fragment], capture_output=True, timeout=100)
        log = done.stderr.decode(errors="replace")
        assert done.stdout, log
        return done.stdout.decode(), [line for line in log.splitlines() if ":CONSOLE" in line]

    return chromium


@pytest.fixture
def browse(chromium, tmp_path):
    """Open a report as :func:`chromium` does and return the Page; fails if the page or the browser finds a fault.

    ``drive``: JavaScript that acts as a reader does, for which the policy is relaxed. ``scripts=False``: none may run.
    """

    def browse(path, fragment="", *, drive=None, scripts=True, **options):
        html = path.read_text(encoding="utf-8")
        if drive is not None:
            html = driven(html, drive)
        if not scripts:
            html = re.sub("script-src '[^']*'", "script-src 'none'", html)
        shown, dumped = tmp_path / "shown.html", tmp_path / "dumped.html"
        shown.write_text(html, encoding="utf-8")
        html, complaints = chromium(shown, fragment, **options)
        dumped.write_text(html, encoding="utf-8")
        page = Page(dumped)
        (page.root,) = page.all("html")
        if scripts:
            assert complaints == []
            assert "data-error" not in page.root
        page.shown = [i + 1 for i, frame in enumerate(page.frames()) if "hidden" not in frame]
        return page

    return browse


def driven(html, script):
    html = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", html)
    return html.replace("</body>", f"<script>{script}</script></body>")


def test_browser_shows_the_last_grid_and_follows_the_address(run, browse):
    path = write_report(run)
    for fragment, frame, step in (
        ("", 5, 400),
        ("#frame=3", 3, 240),
        ("#frame=1", 1, 80),
        ("#frame=0", 1, 80),
        ("#frame=99", 5, 400),
        ("#frame=x", 5, 400),
    ):
        page = browse(path, fragment)
        assert page.shown == [frame], fragment
        (slider,) = page.all("input")
        assert slider["aria-valuetext"].endswith(f"step {step}"), fragment
        assert f"After epoch {(step + 99) // 100}, step {step} ," in page.text
        assert all("hidden" not in player for player in page.all("div", **{"class": "player"}))
        cursors = page.all("i")
        assert len(cursors) == 3
        for cursor in cursors:
            assert "hidden" not in cursor
            assert float(re.search(r"left: ([\d.]+)%", cursor["style"])[1]) == step / 4


def test_browser_slider_keys_and_play(run, browse):
    path = write_report(run)
    drive = """
        const note = (name) => {
          const shown = [...document.querySelectorAll("#frames img")].findIndex((image) => !image.hidden) + 1;
          document.documentElement.dataset[name] = [shown, slider.value, button.textContent].join(" ");
        };
        const slider = document.querySelector("#frame"), button = document.querySelector("#play");
        const press = (key, more) => document.body.dispatchEvent(
          new KeyboardEvent("keydown", {key, bubbles: true, ...more}));
        press("ArrowLeft"); press("ArrowLeft"); note("keys");
        press("ArrowRight", {ctrlKey: true}); press("a"); note("others");
        for (let i = 0; i < 9; i++) press("ArrowLeft"); note("first");
        slider.value = 4; slider.dispatchEvent(new Event("input")); note("slider");
        button.click(); note("play");
        setTimeout(() => note("playing"), 400);
        setTimeout(() => note("end"), 900);
        setTimeout(() => button.click(), 1000);
        setTimeout(() => note("again"), 1700);
        setTimeout(() => { button.click(); note("paused"); }, 2200);
        setTimeout(() => { note("still"); document.documentElement.dataset.hash = location.hash; }, 3900);
        setTimeout(() => button.click(), 4000);
        setTimeout(() => press("ArrowLeft"), 4250);
        setTimeout(() => { note("taken"); document.documentElement.dataset.later = location.hash; }, 5500);
    """
    root = browse(path, drive=drive, milliseconds=7000).root
    assert root["data-keys"] == "3 3 Play"
    assert root["data-others"] == "3 3 Play"
    assert root["data-first"] == "1 1 Play"
    assert root["data-slider"] == "4 4 Play"
    assert root["data-play"] == root["data-playing"] == "4 4 Pause"
    assert root["data-end"] == "5 5 Play", "it stops at the last one"
    assert root["data-again"] == "2 2 Pause", "and starts anew from the first"
    assert root["data-paused"] == root["data-still"] == "3 3 Play"
    assert root["data-hash"] == "#frame=3", "a link to what is seen"
    assert root["data-taken"] == "2 2 Play", "a key stops it"
    assert root["data-later"] == "#frame=2"


@pytest.mark.parametrize("width", [360, 1200])
def test_browser_has_nothing_wider_than_the_window(run, chromium, tmp_path, width):
    """In a frame of that width: a headless window may be no narrower than 500 pixels."""
    (run / "options.json").write_text(json.dumps({"data": "w" * 400, "W" * 300: "W" * 300, "batch_size": 32}))
    (run / "warnings.csv").write_text(f"12,{'w' * 300}\n")
    (run / "machine.json").write_text(json.dumps({"cores": "W" * 200}))
    sample(run, 401, np.zeros((4, 3, 300, 900)))
    tell = "const e = document.documentElement; parent.postMessage([innerWidth, e.clientWidth, e.scrollWidth], '*');"
    (tmp_path / "inner.html").write_text(driven(write_report(run).read_text("utf-8"), tell), encoding="utf-8")
    (tmp_path / "outer.html").write_text(
        "<script>onmessage = (event) => { document.documentElement.dataset.widths = event.data.join(); }</script>"
        f"<iframe src=inner.html style='width: {width}px; height: 900px; border: 0'></iframe>"
    )
    html, complaints = chromium(tmp_path / "outer.html")
    inner, client, scrolled = map(int, re.search(r'data-widths="(\d+),(\d+),(\d+)"', html).groups())
    assert inner == width
    assert scrolled == client
    assert complaints == []


def test_browser_without_scripts_shows_the_last_grid_and_the_curves(run, browse):
    page = browse(write_report(run), scripts=False)
    assert page.shown == [5]
    assert all("hidden" in player for player in page.all("div", **{"class": "player"})), "no dead buttons"
    assert len(page.curves("line")) == 5


def test_browser_finds_no_fault_with_hostile_files_or_few_pictures(run, browse):
    (run / "options.json").write_text(json.dumps({"data": EVIL, EVIL: EVIL}))
    (run / "warnings.csv").write_text('12,"' + EVIL.replace('"', '""') + '"\n')
    page = browse(write_report(run))
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == 6
    for path in sorted((run / "samples").iterdir())[:4]:
        path.unlink()
    assert browse(write_report(run)).shown == [1]


@pytest.mark.parametrize(
    ("options", "title"),
    [({"data": "mnist"}, "mnist"), ({"path": "/home/me/holiday pictures/"}, "holiday pictures"), ({}, "my run")],
)
def test_its_title_is_what_was_trained_on(run, options, title):
    (run / "options.json").write_text(json.dumps(options))
    page = Page(write_report(run))
    assert f"<h1>{title}</h1>" in page.html
