"How different two sets of captchas look"
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw.compare import (
    WEIGHTS, _likeness, _patterns, hellinger, patches, run_lengths, shape_counts, shapes_of, statistics, style_distance)
from captcha_fastai.draw.compose import cover
from captcha_fastai.draw.fonts import sans
from captcha_fastai.draw.look import Look

LOOK = Look(fonts=sans[:1])


def covers_of(look, n, seed):
    return np.stack([cover(f'{i*7919%10**5:05}', Random(f'{seed}-{i}'), 160, 50, look) for i in range(n)])


@pytest.fixture(scope='module')
def covers(): return covers_of(LOOK, 40, 0)


def test_runs_are_counted_by_length():
    ink, background = np.split(run_lengths(np.array([[0, 1, 1, 0], [0, 0, 1, 0]], bool)), 2)
    assert ink.tolist()[:3] == [1, 1, 0] and background.tolist()[:3] == [3, 1, 0]


def test_a_run_ends_with_its_row():
    assert run_lengths(np.ones((5, 30), bool)).tolist() == [0]*10 + [5] + [0]*11


def test_empty_pieces_are_left_out():
    covers = np.zeros((2, 40, 40), np.float32)
    assert [o.shape for o in patches(covers)] == [(0, 64)]*2
    covers[:, 10:20, 10:20] = 1
    assert all(len(o) and (o.mean(-1) > .05).all() for o in patches(covers))


def test_shapes_are_the_same_each_time_and_no_more_than_asked_for(covers):
    a, b = shapes_of(covers, 20), shapes_of(covers, 20)
    assert all(np.array_equal(x, y) and x.shape == (20, 64) for x,y in zip(a, b))


def test_each_piece_is_counted_once(covers):
    counts = shape_counts(covers, shapes_of(covers))
    assert np.allclose([o.sum()*len(covers) for o in counts], [len(o) for o in patches(covers)])


def test_patterns_are_numbered_by_their_pixels():
    one = np.zeros((1, 3, 3), bool)
    one[0, 1, 2] = True
    assert np.flatnonzero(_patterns(one)).tolist() == [2**5 - 1] and _patterns(one).shape == (510,)


@pytest.mark.parametrize('dy, dx', [(0, 2), (2, 0), (3, 3), (3, -3)])
def test_likeness_is_greatest_where_ink_repeats(dy, dx):
    covers = np.zeros((1, 20, 20))
    covers[0, 8, 8] = covers[0, 8+dy, 8+dx] = 1
    assert _likeness(covers, dy, dx) == 1/((20-dy)*(20-abs(dx))) and _likeness(covers, dy+1, dx) == 0


@pytest.mark.parametrize('height, width', [(16, 16), (50, 160), (12, 9)])
def test_images_of_any_size_have_statistics_without_gaps(height, width):
    found = statistics(np.random.default_rng(0).random((3, height, width)).astype(np.float32))
    assert {*found} == {*WEIGHTS} - {'small', 'large'} and all(np.isfinite(o).all() for o in found.values())


def test_the_same_look_is_nearer_than_another(covers):
    shapes = shapes_of(covers)
    other = replace(LOOK, rotate=40., fonts=sans[1:2])
    a, b, c = (statistics(o, shapes) for o in (covers, covers_of(LOOK, 40, 1), covers_of(other, 40, 2)))
    assert style_distance(a, a) == 0
    assert 2*style_distance(a, b) < style_distance(a, c)


def test_the_number_of_images_does_not_matter(covers):
    a, b = statistics(covers), statistics(np.concatenate([covers]*3))
    assert style_distance(b, a, 3) < 1e-6 < style_distance(b, a)


def test_the_hellinger_distance_goes_from_none_to_apart():
    assert hellinger(np.array([1., 0]), np.array([1., 0])) == 0
    assert np.isclose(hellinger(np.array([1., 0]), np.array([0, 1.])), 2**.5)
    assert hellinger(np.zeros(2), np.zeros(2)) == 0
