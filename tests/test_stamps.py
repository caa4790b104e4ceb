"Letters that go to their places"
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from captcha_fastai.draw import stamps
from captcha_fastai.draw.fonts import load_font, sans
from captcha_fastai.draw.stamps import (
    Place, area_of, enlarged, ink_at, ink_box, letter_sheet, stamp, stamp_all, stamped, to_picture)
from captcha_fastai.read.compiled import compiled

fonts = [load_font(sans[0], 28)]*3


@pytest.fixture(scope='module')
def sheet(): return letter_sheet('gR7', fonts, 28)


def one(sheet, place, i=1, size=(60, 80)):
    cover, tones = np.zeros(size, np.float32), np.ones(size, np.float32)
    compiled(stamp)(cover, tones, sheet, i, tuple(map(float, place)), .5)
    return cover, tones


@pytest.mark.parametrize('stroke', [0, 2])
def test_each_letter_is_in_its_cell(stroke):
    x = letter_sheet('gR7', fonts, 28, stroke)
    cell = len(x)
    assert cell == 2*(28 + stroke) and x.shape == (cell, 3*cell)
    for i in range(3): assert x[:, i*cell:(i+1)*cell].max() == 255
    assert x[:, ::cell].max() == 0


def test_a_sheet_that_is_not_smooth_is_black_and_white():
    assert {*np.unique(letter_sheet('gR7', fonts, 28, smooth=False))} == {0, 255}
    assert len(np.unique(letter_sheet('gR7', fonts, 28))) > 50


@pytest.mark.parametrize('grain', [1, 2, 5])
@pytest.mark.parametrize('dots', [False, True])
def test_large_pixels_keep_the_letters(grain, dots):
    x = letter_sheet('R', fonts, 10, smooth=False)
    y = enlarged(x, grain, dots)
    assert y.shape == (grain*len(x), grain*len(x)) and y.dtype == np.uint8
    middle = grain//2
    assert ((y[middle::grain, middle::grain] > 127) == (x > 127)).all()


def test_ink_is_mixed_from_four_pixels():
    x = np.array([[0, 255, 0], [0, 255, 0], [0, 0, 0]], np.uint8)
    assert [ink_at(x, 0, o, 0) for o in (0, .5, 1, 1.5)] == [0, .5, 1, .5]
    assert [ink_at(x, 0, *o) for o in ((-1, 0), (0, -1), (2, 0), (0, 2))] == [0]*4


def test_the_box_of_a_letter_is_where_its_ink_is(sheet):
    cell = len(sheet)
    for i in range(3):
        rows, cols = np.nonzero(sheet[:, i*cell:(i+1)*cell])
        assert compiled(ink_box)(sheet, i) == (cols.min(), cols.max(), rows.min(), rows.max())
    assert ink_box(np.zeros((4, 4), np.uint8), 0) == (0, 0, 0, 0)


@pytest.mark.parametrize('place', [
    Place(40, 40), Place(40.3, 39.6, .7), Place(40, 40, -2.), Place(40, 40, .3, 1.4, .6), Place(40, 40, 0., 1., 1., .5),
    Place(3, 40), Place(40, 5), Place(79, 59, 1.)], ids=str)
def test_nothing_is_lost_outside_the_area_that_is_looked_at(sheet, place, monkeypatch):
    everything = lambda *_: (-1e9, 1e9, -1e9, 1e9)
    cover = one(sheet, place)[0]
    monkeypatch.setattr(stamps, 'area_of', everything)
    whole, tones = np.zeros_like(cover), np.ones_like(cover)
    stamp(whole, tones, sheet, 1, place, .5)
    np.testing.assert_array_equal(cover, whole)
    assert cover.max() > .5


def test_a_letter_at_whole_pixels_is_the_letter_itself(sheet):
    cell = len(sheet)
    cover, _ = one(sheet, Place(cell//2, 2*cell//3), size=(cell, cell))
    np.testing.assert_allclose(cover, sheet[:, cell:2*cell]/255, atol=1e-6)


def test_a_rotated_letter_is_as_pillow_rotates_it(sheet):
    cell = len(sheet)
    middle, base = cell//2, 2*cell//3
    cover, _ = one(sheet, Place(middle, base, math.radians(20)), size=(cell, cell))
    letter = Image.fromarray(sheet[:, cell:2*cell].copy())
    theirs = letter.rotate(20, Image.Resampling.BILINEAR, center=(middle + .5, base + .5))
    assert np.abs(cover - np.asarray(theirs)/255).max() < .05


@pytest.mark.parametrize('place, moved', [
    (Place(30, 50), (30, 40)), (Place(30, 50, slant=.3), (33, 40)), (Place(30, 50, down=2), (30, 30)),
    (Place(30, 50, angle=math.pi/2), (20, 50))])
def test_a_point_above_the_baseline_goes_to_its_place(place, moved): assert to_picture(place, 0, -10) == pytest.approx(moved)


def test_tones_are_those_of_the_letters(sheet):
    places = [Place(20, 40), Place(60, 40), Place(100, 40)]
    cover, tones = stamped(sheet, places, [1., .6, .3], 130, 60)
    for x,tone in ((20, 1), (60, .6), (100, .3)):
        part = slice(x - 15, x + 15)
        assert np.allclose(tones[:, part][cover[:, part] > .9], tone)
    assert (tones[cover == 0] == 1).all()


def test_where_letters_overlap_the_darker_counts(sheet):
    places = [Place(40, 40), Place(48, 40), Place(56, 40)]
    together = stamped(sheet, places, [1.]*3, 100, 60)[0]
    alone = [one(sheet, o, i, (60, 100))[0] for i,o in enumerate(places)]
    np.testing.assert_array_equal(together, np.max(alone, 0))


def test_python_and_machine_code_stamp_alike(sheet):
    pytest.importorskip('numba')
    places = np.array([Place(20, 40), Place(50, 40, .4), Place(70, 45, 0., 1.3, .8, .3)])
    outs = []
    for f in (stamp_all, compiled(stamp_all)):
        cover, tones = np.zeros((60, 90), np.float32), np.ones((60, 90), np.float32)
        f(cover, tones, sheet, places, np.array([1., .5, .7]))
        outs.append((cover, tones))
    np.testing.assert_array_equal(*[o[0] for o in outs])
    np.testing.assert_array_equal(*[o[1] for o in outs])


def test_no_letter_goes_far_beyond_its_cell(sheet):
    wide = np.full_like(sheet, 255)
    left, right, top, bottom = area_of(wide, 0, Place(100., 100.))
    assert right - left == pytest.approx(.92*len(sheet)) and bottom - top == pytest.approx(.92*len(sheet))
