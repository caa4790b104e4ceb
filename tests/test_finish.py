"Waves, grey levels, and what files and cameras do"
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw import finish as module
from captcha_fastai.draw.finish import between, fineness, finish, finishes, levels, ripple, rippled
from captcha_fastai.draw.fonts import sans
from captcha_fastai.draw.glyphs import Hand, write_text
from captcha_fastai.read.compiled import compiled

every_finish = pytest.mark.parametrize('name', finishes)
still = 0., 1., 0.


@pytest.fixture(scope='module')
def canvas(): return write_text('Rk7g', Hand(sans[:1], em=32, base=36), Random(1), 128, 48).fill


@pytest.fixture(scope='module')
def grey(canvas): return .9 - .7*canvas


def test_all_finishes_have_a_share_and_happen_in_their_order():
    assert list(finishes) == 'blurred rescaled noisy salted dithered two_levels sharpened jpeg'.split()
    assert all(0 < share < 1 for _,share in finishes.values())


@every_finish
@pytest.mark.parametrize('fine', [0., .3, 1.])
def test_a_finish_keeps_shape_and_range(name, fine, grey):
    f, _ = finishes[name]
    for seed in range(5):
        x = f(grey, Random(seed), fine)
        assert x.shape == grey.shape and x.dtype == np.float32 and np.isfinite(x).all()
        if name == 'noisy': assert -.6 < x.min() and x.max() < 1.6
        else: assert 0 <= x.min() and x.max() <= 1


@every_finish
def test_a_finish_changes_large_letters_and_not_what_it_was_given(name, grey):
    before = grey.copy()
    f, _ = finishes[name]
    assert any(np.abs(f(grey, Random(seed), 1.) - grey).max() > .02 for seed in range(5))
    np.testing.assert_array_equal(grey, before)


@every_finish
def test_letters_can_still_be_told_from_paper(name, grey, canvas):
    f, _ = finishes[name]
    for seed in range(5):
        x = f(grey, Random(seed), 1.)
        assert x[canvas == 0].mean() - x[canvas > .9].mean() > .15


@every_finish
def test_the_same_random_numbers_finish_alike(name, grey):
    f, _ = finishes[name]
    np.testing.assert_array_equal(f(grey, Random(5), 1.), f(grey, Random(5), 1.))


@pytest.mark.parametrize('name', ['blurred', 'noisy', 'salted', 'dithered', 'rescaled'])
def test_the_smallest_letters_are_spared(name, grey):
    assert np.abs(finishes[name][0](grey, Random(1), 0.) - grey).max() < .01


def test_fineness_grows_with_the_letters():
    assert [fineness(o) for o in (0, 6, 17, 28, 99)] == [0, 0, .5, 1, 1]


def test_levels_keep_a_contrast_and_stay_within_white_and_black():
    ends = np.array([levels(np.float32([0, 1]), Random(seed)) for seed in range(500)])
    assert 0 <= ends.min() and ends.max() <= 1 and np.abs(np.diff(ends)).min() > .4
    assert .2 < (ends[:, 0] < ends[:, 1]).mean() < .4


def test_no_wave_changes_nothing(canvas):
    np.testing.assert_allclose(compiled(rippled)(canvas, still, still), canvas, atol=.002)


def test_a_constant_wave_moves_all_pixels(canvas):
    right = compiled(rippled)(canvas, (3., 0., np.pi/2), still)
    np.testing.assert_allclose(right[:-1, :-4], canvas[:-1, 3:-1], atol=.002)


@pytest.mark.parametrize('em', [8, 32])
def test_ripples_move_little_and_the_same_for_the_same_random_numbers(em, canvas):
    for seed in range(10):
        x = ripple(canvas, Random(seed), em)
        assert x.shape == canvas.shape and x.dtype == np.float32 and 0 <= x.min() and x.max() <= 1
        assert abs(x.sum()/canvas.sum() - 1) < .15
        np.testing.assert_array_equal(x, ripple(canvas, Random(seed), em))


def test_between_is_bilinear_and_repeats_the_border():
    x = np.float32([[0, 1], [2, 3]])
    assert between(x, .5, .5) == pytest.approx(1.5)
    assert between(x, -5, -5) == 0 and between(x, 5, 5) == pytest.approx(3, abs=.01)


def test_python_and_machine_code_make_the_same_waves(canvas, monkeypatch):
    fast = ripple(canvas, Random(4), 32)
    monkeypatch.setattr(module, 'compiled', lambda f: f)
    np.testing.assert_array_equal(fast, ripple(canvas, Random(4), 32))


@pytest.mark.parametrize('em', [7, 14, 32])
def test_a_third_of_the_pictures_only_gets_grey_levels(em, canvas):
    clean = [len(np.unique(finish(canvas, Random(seed), em).round(5))) <= len(np.unique(canvas.round(5))) + 1 for seed in range(60)]
    assert .2 < np.mean(clean) < .9
