"Captchas of a thousand kinds"
import pickle
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw import finish, inks, stamps, world as module
from captcha_fastai.draw.fonts import bold, package_fonts, sans
from captcha_fastai.draw.styles import styles
from captcha_fastai.draw.world import choose_hand, draw_world, invert_part, some_clutter, world

fonts = *sans, *bold, *package_fonts


def test_it_is_a_style_with_the_font_of_the_package():
    assert styles['world'] is world and world.__defaults__[-1] == package_fonts


@pytest.mark.parametrize('text', ['7', 'AB 12', '7kR4m', '3+4=?', 'W'*14, ' 7'])
@pytest.mark.parametrize('size', [(60, 20), (24, 24), (160, 60), (400, 100)], ids=str)
def test_any_text_and_any_size_works(text, size):
    for seed in range(15):
        im, middles = draw_world(text, Random(seed), *size, sans)
        assert im.size == size and im.mode == 'L' and len(middles) == len(text)
        assert all(a < b for a,b in zip(middles, middles[1:]))


@pytest.mark.parametrize('seed', range(20))
def test_the_same_state_of_rng_gives_the_same_picture(seed):
    a, b = Random(seed), Random(seed)
    assert world('7kR4m', a, fonts=fonts) == world('7kR4m', b, fonts=fonts) and a.getstate() == b.getstate()


def test_a_picture_does_not_depend_on_those_before():
    late = Random(7)
    state = late.getstate()
    first = world('7kR4m', late, fonts=fonts)
    for seed in range(10): world('abc', Random(seed), fonts=fonts)
    late.setstate(state)
    assert world('7kR4m', late, fonts=fonts) == first


def test_the_style_and_draw_world_give_one_picture():
    assert world('7kR4m', Random(3), 120, 40, sans) == draw_world('7kR4m', Random(3), 120, 40, sans)[0]


def test_letters_stay_within_their_picture_mostly():
    middles = np.array([draw_world('7kR4m', Random(seed), 120, 40, fonts)[1] for seed in range(200)])
    assert ((middles > 0) & (middles < 120)).mean() > .99


def test_letters_are_high_enough_to_read_and_fit_in_width():
    for seed in range(200):
        hand = choose_hand('7kR4m', Random(seed), 120, 40, fonts)
        assert 7 <= hand.em <= 1.25*40
        assert -.2*hand.em < hand.base < 40 + .5*hand.em


def test_pictures_are_of_many_kinds():
    pictures = [np.asarray(world('7kR4m', Random(seed), 120, 40, fonts), float) for seed in range(200)]
    light = np.mean([np.median(o) > 127 for o in pictures])
    noisy = np.mean([np.abs(np.diff(o)).mean() > 12 for o in pictures])
    assert .4 < light < .9 and .1 < noisy < .9
    assert len({o.tobytes() for o in pictures}) == 200


def test_there_are_none_to_three_clutters_each_behind_or_before():
    for seed in range(200):
        behind, before = some_clutter(Random(seed))
        assert len(behind) + len(before) <= 3 and not {*behind} & {*before}


def test_swapped_tones_are_a_part_of_the_picture():
    for seed in range(20):
        canvas = np.zeros((40, 120), np.float32)
        invert_part(canvas, Random(seed))
        assert set(np.unique(canvas)) == {0, 1}


def test_without_numba_the_pictures_are_the_same(monkeypatch):
    fast = [draw_world('7g', Random(seed), 60, 20, sans) for seed in range(12)]
    for o in (stamps, inks, finish): monkeypatch.setattr(o, 'compiled', lambda f: f)
    with np.errstate(over='ignore'): slow = [draw_world('7g', Random(seed), 60, 20, sans) for seed in range(12)]
    assert fast == slow


def test_signs_take_fonts_that_have_them():
    assert world('3+4=?', Random(1), fonts=bold).size == (160, 60)


def test_the_style_can_be_pickled(): assert pickle.loads(pickle.dumps(world)) is world
def test_nothing_is_public(): assert not module.__all__
