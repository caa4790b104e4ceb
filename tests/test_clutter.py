"What hides a text, and what lies behind it"
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw.clutter import clutter_cover, clutters, decoys, grounds, small_print
from captcha_fastai.draw.fonts import sans

with_fonts = {'small_print': small_print, 'decoys': decoys}
sizes = pytest.mark.parametrize('size', [(60, 20), (160, 60), (400, 100)], ids=str)


def covers(name, n=20, size=(160, 60)):
    f, args = (with_fonts[name], (sans,)) if name in with_fonts else (clutters[name], ())
    return [clutter_cover(f, Random(seed), *size, *args) for seed in range(n)]


every_clutter = pytest.mark.parametrize('name', [*clutters, *with_fonts])


def test_all_are_registered():
    assert list(clutters) == 'lines curves grid boxes arcs specks strokes border'.split()
    assert list(grounds) == 'plain ramp clouds tiles bands stripes speckled'.split()


@every_clutter
def test_a_clutter_covers_something_but_not_everything(name):
    shares = [x.mean() for x in covers(name)]
    assert np.mean([o > 0 for o in shares]) >= .9 and max(shares) < .7


@every_clutter
@sizes
def test_cover_is_a_share_and_has_the_size(name, size):
    for x in covers(name, 5, size):
        assert x.shape == size[::-1] and x.dtype == np.float32 and 0 <= x.min() and x.max() <= 1


@every_clutter
def test_the_same_random_numbers_draw_the_same(name):
    for a,b in zip(covers(name, 5), covers(name, 5)): np.testing.assert_array_equal(a, b)


@every_clutter
def test_clutter_differs_with_the_random_numbers(name):
    assert len({x.tobytes() for x in covers(name)}) > (3 if name == 'border' else 15)


def test_half_of_the_small_pictures_are_smooth_and_no_large_one():
    def smooth(size): return np.mean([len(np.unique(x)) > 2 for x in covers('lines', 60, size)])
    assert .25 < smooth((160, 60)) < .75
    assert smooth((400, 100)) == 0


def test_there_are_at_most_400_specks():
    for x in covers('specks', 40, (400, 100)): assert (x > 0).sum() <= 400*5**2


@pytest.mark.parametrize('name', grounds)
@sizes
def test_a_ground_is_a_canvas_of_the_size(name, size):
    for seed in range(5):
        x = grounds[name](Random(seed), *size)
        assert x.shape == size[::-1] and x.dtype == np.float32 and np.abs(x).max() < .6
        np.testing.assert_array_equal(x, grounds[name](Random(seed), *size))


@pytest.mark.parametrize('name', [o for o in grounds if o != 'plain'])
def test_grounds_are_not_plain(name):
    assert np.mean([np.ptp(grounds[name](Random(seed), 160, 60)) > .02 for seed in range(20)]) > .8


def test_a_band_goes_through():
    for seed in range(20):
        x = grounds['bands'](Random(seed), 160, 60)
        assert (x == x[:1]).all() or (x == x[:, :1]).all()


def test_plain_paper_is_empty(): assert not grounds['plain'](Random(1), 160, 60).any()
