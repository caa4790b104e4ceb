"Which readings to trust"
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from captcha_fastai.core import ImageError, Spec, Vocab
from captcha_fastai.draw.synth import Synth
from captcha_fastai.read.reader import Reader, Reading
from captcha_fastai.train.selection import (Round, align_prior, augmented, char_thresholds, confident, less_steady, lost_characters,
                                            occurring, readable_images, with_prior)

readings = [Reading('a', .5+.05*i, (.5+.05*i,)) for i in range(10)] + [Reading('b', .1*i, (.1*i,)) for i in range(4)]
three = [Reading(t, 1.) for t in ('aab', 'aaa', 'abc')]


def test_images_that_cannot_be_read_are_left_out():
    grey = np.full((24, 48), 99, np.uint8)
    with pytest.warns(UserWarning, match='1 of 22 images cannot be read and are left out, such as gone.png'):
        where, arrays = readable_images([grey, 'gone.png', *[grey]*20], Spec('ab', 2, 24, 48), 20)
    assert where == [0, *range(2, 22)] and len(arrays) == 21


def test_too_few_readable_images_are_refused():
    with pytest.raises(ImageError, match='0 of 0 images can be read: 1 or more are needed'): readable_images([], Spec('ab', 2), 1)


@pytest.mark.parametrize('expected, passed', [(None, [5, 6, 7, 8, 9, 12, 13]), (7, [7, 8, 9, 12, 13])])
def test_the_best_half_of_each_character_passes(expected, passed): assert confident(readings, .5, expected) == passed


def test_a_threshold_is_the_lowest_probability_that_passes():
    assert char_thresholds(readings, .5, 7) == pytest.approx({'a': .85, 'b': .2})


def test_at_least_one_reading_of_each_character_passes(): assert confident(readings, .01) == [9, 13]


def test_an_empty_reading_is_never_confident(): assert confident([Reading('', .99, ())], 1.) == []


def test_a_reading_passes_only_with_all_its_characters():
    assert confident([Reading('ab', .1, (.9, .1)), Reading('ab', .2, (.2, .9)), Reading('ab', .5, (.9, .9))], .5) == [2]


def test_characters_that_hardly_come_do_not_occur():
    assert occurring(Counter(a=900, b=700, c=10), 'abcd') == ['a', 'b']
    assert occurring(Counter(), 'ab') == []


def test_a_prior_moves_against_what_is_read_too_often():
    prior = align_prior(np.zeros(4), three, Vocab('abc'))
    assert prior[0] == 0 and prior[1] < 0 < prior[2] < prior[3]


def test_a_character_that_is_never_read_changes_no_prior():
    assert align_prior(np.zeros(5), three, Vocab('abcz'))[:4].tolist() == align_prior(np.zeros(4), three, Vocab('abc')).tolist()
    assert align_prior(np.zeros(5), three, Vocab('abcz'))[4] == 0


def test_a_prior_has_a_limit():
    prior = np.zeros(4)
    for _ in range(20): prior = align_prior(prior, three, Vocab('abc'))
    assert prior.min() == -1.5 and prior.max() == 1.5


def test_a_reader_that_reads_nothing_moves_no_prior():
    assert align_prior(np.zeros(4), [SimpleNamespace(text='')]*5, Vocab('abc')).tolist() == [0]*4


def test_a_prior_keeps_probabilities():
    spec = Spec('abc', 1, 8, 8, arch='heads_small', decoder='heads')
    reader = Reader(lambda x: np.log(np.full((len(x), 1, 4), [.01, .5, .3, .19], np.float32)), spec)
    logp = with_prior(reader, np.array([0, -1, 1, 0])).model(np.zeros((2, 8, 8, 1), np.uint8))
    assert np.exp(logp).sum(-1) == pytest.approx(np.ones((2, 1))) and logp[0, 0].argmax() == 2


def test_copies_are_other_images_of_the_same_kind():
    x = np.asarray(Synth('abc', 3, 'simple')(0)[1])
    a, b = augmented([x, x])
    assert a.shape == x.shape and a.dtype == x.dtype and (a != b).any()


def test_copies_come_again_with_their_seed_and_leave_chance_alone():
    x = np.asarray(Synth('abc', 3, 'simple')(0)[1])
    before = torch.get_rng_state()
    assert (augmented([x])[0] == augmented([x])[0]).all() and (augmented([x], 0)[0] != augmented([x], 1)[0]).any()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize('steady, worse', [(.9, False), (.88, False), (.5, True)])
def test_chance_does_no_harm(steady, worse):
    a, b = (Round(0, 100, 50, 0., s, .9, 'a', .8) for s in (.9, steady))
    assert less_steady(a, b, 400) is worse


def counts(a, others='bcdefghi', **more): return {**dict.fromkeys(others, 1000), 'a': a, **more}


@pytest.mark.parametrize('before, after, lost', [(800, 700, []), (800, 300, ['a']), (20, 80, []), (80, 300, []), (80, 0, []), (3000, 1000, [])],
                         ids=['little changed', 'lost', 'hardly came', 'more frequent', 'hardly came, and is gone', 'was read too often'])
def test_a_lost_character_is_noticed(before, after, lost): assert lost_characters(counts(before), counts(after), 'abcdefghi') == lost


def test_a_lost_character_is_noticed_beside_one_that_hardly_comes():
    assert lost_characters(counts(80, i=900), counts(80, i=0), 'abcdefghi') == ['i']


def test_a_lost_character_is_noticed_beside_letters_that_never_come():
    assert lost_characters(counts(800), counts(300), 'abcdefghijklmnop') == ['a']
