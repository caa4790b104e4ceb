"Kaptcha's captchas: filters that move pixels, two lines, letters"
import shutil
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw.fonts import fonts_that_draw, sans
from captcha_fastai.draw.kaptcha import (
    FontShape, _bar, flatten, kaptcha, kaptcha_lines, kaptcha_shapes, kaptcha_warp, letter_scale, random_letter,
    warp_matrix)
from captcha_fastai.draw.styles import styles

CURVE = [20+5j, 50+45j, 100+45j, 180+10j]


@pytest.fixture
def places(): return np.mgrid[:2, :3]


def test_each_pixel_from_its_own_place_changes_nothing(places):
    assert np.array_equal(warp_matrix(*places).toarray(), np.eye(6))


@pytest.mark.parametrize('border, want', [(True, [.5, 1.5, 2, 0, 0, 0]), (False, [.5, 1.5, 1, 0, 0, 0])])
def test_half_a_pixel_is_the_mean_of_two(places, border, want):
    y, x = places
    assert (warp_matrix(y, x+.5, border) @ [0, 1, 2, 0, 0, 0]).tolist() == want


def test_the_filter_of_a_size_is_made_once(): assert kaptcha_warp(40, 20) is kaptcha_warp(40, 20)


def test_a_straight_curve_stays_one_piece(): assert flatten([0, 1+1j, 2+2j, 3+3j]) == [0, 3+3j]


def test_a_broken_line_is_as_near_to_its_curve_as_asked():
    t, (a, b, c, d) = np.linspace(0, 1, 99), CURVE
    on = a*(1-t)**3 + 3*b*t*(1-t)**2 + 3*c*t**2*(1-t) + d*t**3
    def off(tol):
        p = np.array(flatten(CURVE, tol))
        return abs(np.interp(on.real, p.real, p.imag) - on.imag).max()
    assert off(.1) < .1 < off(2) < 2 < off(100)


@pytest.mark.parametrize('tol', [.1, 2, 100])
def test_a_broken_line_has_the_ends_of_its_curve(tol):
    points = flatten(CURVE, tol)
    assert (points[0], points[-1]) == (20+5j, 180+10j)


def test_a_bar_of_no_length_has_no_area(): assert set(_bar(3+3j, 3+3j, 1.)) == {3+3j}


def test_lines_begin_and_end_where_those_of_real_captchas_do():
    lines = np.stack([kaptcha_lines(Random(i), 200, 50) for i in range(50)]) > .5
    assert {18, 19} >= {*lines.any(1).argmax(1).tolist()}
    assert {181, 182} >= {*(200-lines.any(1)[:, ::-1].argmax(1)).tolist()}


def test_our_fonts_are_changed_and_others_are_not():
    assert {*kaptcha_shapes} == {*sans} and FontShape() == (0, 1, 1)
    theirs = random_letter('g', Random(1), sans, False)
    assert (theirs.size, theirs.stroke, theirs.squeeze) == (40, 0, 1)
    ours = [random_letter('g', Random(i), sans, True) for i in range(50)]
    for o in ours:
        shape = kaptcha_shapes[o.file]
        assert 38 <= o.size <= 41 and shape.narrowest <= o.squeeze <= shape.widest


def test_letters_shrink_only_if_they_must():
    letters = [random_letter('m', Random(i), sans, True) for i in range(12)]
    assert letter_scale(letters[:2], 200, 50) == 1 > letter_scale(letters, 200, 50)


def test_a_dozen_wide_letters_stay_inside():
    dark = np.stack([np.asarray(kaptcha('mwmwmwmwmwmw', Random(i)).convert('L')) for i in range(9)]) < 60
    assert not dark[:, :, 195:].any()


def test_the_same_seed_gives_the_same_captcha():
    draw = lambda seed: kaptcha('2cg58', Random(seed)).tobytes()
    assert draw(0) == draw(0) != draw(1)


@pytest.mark.parametrize('text', ['', '2c g58 and more', 'é'])
def test_any_text_has_the_size_that_was_asked_for(text): assert kaptcha(text, Random(0), 60, 20).size == (60, 20)


def test_your_own_font_is_used_by_whatever_name(tmp_path):
    own = shutil.copy(sans[0], tmp_path/'cmfont.ttf')
    assert fonts_that_draw('7-A', [str(own)]) == (str(own),)
    both = str(own), 'cmb10.ttf'                             # matplotlib's, by its name, has other signs at some places
    assert fonts_that_draw('7-A', both) == both[:1] and fonts_that_draw('7A', both) == both
    assert styles['kaptcha']('7-A', Random(1), fonts=both).size == (200, 50)
