"Ways to paint letters"
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw.fonts import sans
from captcha_fastai.draw.glyphs import Hand, write_text
from captcha_fastai.draw.inks import inks, lay, moved, noise, outlined

every_ink = pytest.mark.parametrize('name', inks)
fills_paper = {'grainy'}


@pytest.fixture(scope='module')
def letters(): return write_text('Rk7g', Hand(sans[:1], em=36, base=42), Random(1), 140, 56, outline=True)


def paint(name, letters, seed=0, level=0.):
    canvas = np.full(letters.fill.shape, level, np.float32)
    inks[name](canvas, letters, Random(seed))
    return canvas


def near(letters, pixels=5):
    steps = range(-pixels, pixels + 1)
    return np.max([moved(letters.thick, dx, dy) for dx in steps for dy in steps], 0) > 0


def test_all_inks_are_registered():
    assert list(inks) == 'filled hollow tinted shadow embossed striped dotted stencil eaten shaded grainy'.split()
    assert outlined == {'hollow', 'tinted'}


@pytest.mark.parametrize('name', [o for o in inks if o not in fills_paper])
@pytest.mark.parametrize('level', [0., .4])
def test_an_ink_leaves_the_paper_alone_where_there_is_no_cover_nearby(name, level, letters):
    for seed in range(5):
        assert (paint(name, letters, seed, level)[~near(letters)] == np.float32(level)).all()


@every_ink
@pytest.mark.parametrize('seed', range(5))
def test_an_ink_marks_the_letters(name, seed, letters):
    before = np.full(letters.fill.shape, .3, np.float32)
    change = np.abs(paint(name, letters, seed, .3) - before)
    assert change[letters.thick > .5].mean() > .05


@every_ink
def test_every_letter_is_marked(name, letters):
    change = np.abs(paint(name, letters, 1, .3) - .3)*(letters.thick > .5)
    for x in letters.middles: assert change[:, round(x)-12:round(x)+12].max() > .2


@every_ink
@pytest.mark.parametrize('seed', range(5))
def test_an_ink_stays_within_what_can_be_shown(name, seed, letters):
    x = paint(name, letters, seed)
    assert np.isfinite(x).all() and -.61 <= x.min() and x.max() <= 1.3 and x.dtype == np.float32


@every_ink
def test_the_same_random_numbers_paint_the_same(name, letters):
    np.testing.assert_array_equal(paint(name, letters, 3), paint(name, letters, 3))


@every_ink
def test_an_ink_keeps_the_letters_for_others(name, letters):
    before = letters.fill.copy(), letters.thick.copy(), letters.tones.copy()
    paint(name, letters)
    for a,b in zip(before, (letters.fill, letters.thick, letters.tones)): np.testing.assert_array_equal(a, b)


def test_paint_is_mixed_by_its_cover():
    canvas = np.float32([0, 0, 0, .5])
    lay(canvas, np.float32([0, .5, 1, .5]), 1)
    assert canvas.tolist() == [0, .5, 1, .75]


@pytest.mark.parametrize('dx, dy', [(0, 0), (2, 0), (-1, 3), (0, -2), (3, 3)])
def test_moved_is_as_numpy_rolls_but_empty_at_the_edge(dx, dy):
    x = np.zeros((9, 11), np.float32)
    x[3:6, 3:8] = np.arange(15).reshape(3, 5)
    np.testing.assert_array_equal(moved(x, dx, dy), np.roll(x, (dy, dx), (0, 1)))
    assert moved(np.ones((3, 3)), 1, 0)[:, 0].max() == 0


def test_what_moves_out_is_lost(): assert moved(np.ones((3, 4)), 4, 0).max() == 0


def test_noise_is_uniform_and_comes_from_the_state_of_rng():
    x = noise(Random(1), 100, 200)
    assert x.shape == (100, 200) and x.dtype == np.float32 and abs(x.mean() - .5) < .01
    assert 0 <= x.min() and x.max() <= 1
    assert (noise(Random(1), 3, 4) == noise(Random(1), 3, 4)).all() and (noise(Random(1), 3) != noise(Random(2), 3)).any()
