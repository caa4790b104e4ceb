"Distances, intervals and what is shown while training"
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from captcha_fastai.read.score import align, edit_distance, pooled, rate, wilson
from captcha_fastai.train.losses import HeadsLoss
from captcha_fastai.train.metrics import CER, CaptchaAccuracy, CharAccuracy

short = st.text('abc', max_size=8)


@pytest.mark.parametrize('a, b, d', [('kitten', 'sitting', 3), ('', 'abc', 3), ('abc', '', 3), ('abc', 'abc', 0), ([1, 2], [2], 1)])
def test_the_fewest_changes(a, b, d): assert edit_distance(a, b) == d


@given(short, short, short)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a) >= abs(len(a)-len(b))
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert ''.join(x for x, _ in align(a, b)) == a and ''.join(y for _, y in align(a, b)) == b
    assert sum(x != y for x, y in align(a, b)) == edit_distance(a, b)


@pytest.mark.parametrize('a, b, pairs', [
    ('ab', 'axb', [('a', 'a'), ('', 'x'), ('b', 'b')]),
    ('mm3n', 'm3h', [('m', ''), ('m', 'm'), ('3', '3'), ('n', 'h')]),
    ('', '', [])])
def test_texts_stand_side_by_side(a, b, pairs): assert align(a, b) == pairs


def test_wilson_is_sensible_at_the_ends():
    assert np.allclose(wilson(101, 104), (.9188, .9901), atol=1e-3)
    assert wilson(0, 0) == (0., 1.)
    assert wilson(208, 208)[1] == 1 and wilson(0, 9)[0] == 0


def test_wilson_shrinks_with_more_images():
    widths = [np.diff(wilson(round(.97*n), n)) for n in (100, 1000, 10_000)]
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize('args, want', [((505, 520, 104), (101, 104)), ((9, 10, None), (9, 10)), ((9, 10, 10), (9, 10)), ((9, 10, 99), (9, 10))])
def test_readings_of_one_image_count_once(args, want): assert pooled(*args) == want


def test_a_rate_has_its_interval():
    assert rate(208, 208) == '100.00% (208/208, 95 % interval 98.2% to 100.0%)'
    assert rate(0, 0) == '0.00% (0/0, 95 % interval 0.0% to 100.0%)'
    assert rate(505, 520, 104).startswith('97.12% (505/520, 95 % interval 91.9%')


def measured(metric, *batches):
    metric.reset()
    for read, truth in batches:
        pred = torch.nn.functional.one_hot(torch.tensor(read), 5).float()
        metric.accumulate(SimpleNamespace(loss_func=HeadsLoss(), y=torch.tensor(truth), pred=pred))
    return metric.value


@pytest.mark.parametrize('metric, name, value', [(CaptchaAccuracy(), 'captcha_acc', 1/2), (CharAccuracy(), 'char_acc', 1/4), (CER(), 'cer', 1/4)])
def test_a_lost_character_is_one_error_but_shifts_all_positions(metric, name, value):
    assert metric.name == name and measured(metric) is None
    assert measured(metric, ([[2, 3, 0], [4, 0, 0]], [[1, 2, 3], [4, 0, 0]])) == value


def test_small_batches_weigh_less():
    assert measured(CaptchaAccuracy(), ([[1], [2], [3]], [[1], [2], [3]]), ([[1]], [[2]])) == 3/4
