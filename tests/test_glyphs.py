"Texts that are written in a hand"
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from captcha_fastai.draw import stamps
from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.glyphs import Hand, advance, font_size, font_sizes, plain_font, write_text

plain = Hand(sans[:1], em=30, base=38)
hands = {
    'plain': plain, 'rotated': replace(plain, angle=30), 'slanted': replace(plain, slant=-.4),
    'wobbling': replace(plain, wobble=.2), 'jittering': replace(plain, jitter=.35), 'of sizes': replace(plain, sizes=.2), 'of tones': replace(plain, tones=.6),
    'thick': replace(plain, stroke=2), 'close': replace(plain, track=.75), 'wide': replace(plain, stretch=1.3),
    'falling': replace(plain, slope=.15), 'hanging': replace(plain, bow=8.), 'large pixels': replace(plain, grain=3),
    'dots': replace(plain, grain=3, dots=True), 'small pixels': replace(plain, grain=1, em=14), 'of fonts': replace(plain, fonts=sans)}
every_hand = pytest.mark.parametrize('hand', hands.values(), ids=hands)


def write(hand, text='Rk7g3', seed=1, width=160, height=60, **kwargs):
    return write_text(text, hand, Random(seed), width, height, **kwargs)


@every_hand
def test_cover_and_tones_are_shares(hand):
    o = write(hand, outline=True)
    for x in (o.fill, o.thick, o.tones): assert x.shape == (60, 160) and x.dtype == np.float32 and 0 <= x.min() and x.max() <= 1
    assert o.fill.max() > .8 and o.em == hand.em


@every_hand
def test_middles_increase_and_lie_where_the_ink_is(hand):
    o = write(hand)
    assert len(o.middles) == 5 and o.middles == sorted(o.middles)
    half = .4*hand.em
    for x in o.middles: assert o.fill[:, max(0, round(x-half)):round(x+half)].max() > .5


@every_hand
def test_the_same_random_numbers_write_the_same_text(hand):
    a, b = write(hand, outline=True), write(hand, outline=True)
    assert a.middles == b.middles
    for x,y in zip((a.fill, a.thick, a.tones), (b.fill, b.thick, b.tones)): np.testing.assert_array_equal(x, y)


@every_hand
def test_without_numba_a_text_is_the_same(hand, monkeypatch):
    fast = write(hand, '7g', width=60, height=50)
    monkeypatch.setattr(stamps, 'compiled', lambda f: f)
    slow = write(hand, '7g', width=60, height=50)
    np.testing.assert_array_equal(fast.fill, slow.fill)
    np.testing.assert_array_equal(fast.tones, slow.tones)


@pytest.mark.parametrize('text', ['7', 'AB 12', ' ', '3+4=?', 'WWWWWWWWWWWW', 'é'])
@pytest.mark.parametrize('size', [(60, 20), (400, 100)])
def test_any_text_can_be_written(text, size):
    o = write(plain, text, width=size[0], height=size[1])
    assert o.fill.shape == size[::-1] and len(o.middles) == len(text)


def test_a_space_takes_room_but_leaves_no_ink():
    o = write(plain, 'R R')
    assert o.fill[:, round(o.middles[1])-3:round(o.middles[1])+3].max() == 0
    assert write(plain, ' ').fill.max() == 0


def test_an_outline_is_thicker_and_without_it_thick_is_the_same():
    o = write(plain, outline=True)
    assert (o.thick >= o.fill - 1e-6).all() and o.thick.sum() > 1.3*o.fill.sum()
    bare = write(plain)
    assert bare.thick is bare.fill


@pytest.mark.parametrize('left, edge', [(0., 0), (.5, 80), (1., 160)])
def test_the_spare_room_is_shared(left, edge):
    middles = write(replace(plain, left=left)).middles
    length = sum(advance(sans[0], c) for c in 'Rk7g3')*30
    begin = left*(160 - length)
    assert middles[0] == pytest.approx(begin + advance(sans[0], 'R')*15)


def test_the_baseline_is_where_it_was_wanted():
    rows = np.nonzero(write(replace(plain, base=44), 'RR7').fill.max(1) > .5)[0]
    assert rows.max() in (43, 44)


def test_a_falling_line_falls_and_a_hanging_line_hangs():
    def lowest(hand):
        o = write(hand, 'HHHHH')
        return [np.nonzero(o.fill[:, round(x)-9:round(x)+9].max(1) > .5)[0].max() for x in o.middles]
    assert lowest(hands['falling']) == sorted(lowest(hands['falling'])) and np.ptp(lowest(hands['falling'])) > 5
    ends = lowest(hands['hanging'])
    assert ends[2] > max(ends[0], ends[-1]) + 3


@pytest.mark.parametrize('em', [5, 8, 8.1, 33, 64, 200])
def test_letters_are_written_in_the_next_larger_size(em):
    size = font_size(em)
    assert size in font_sizes and (size >= em or size == max(font_sizes))


def test_advances_are_those_of_the_font_and_never_nothing():
    assert advance(sans[0], 'W') > advance(sans[0], 'i') >= .25
    assert advance(package_fonts[0], '\u200b') >= .25


def test_fonts_are_opened_once(): assert plain_font(sans[0], 20) is plain_font(sans[0], 20)
def test_a_font_is_found_by_its_name(): assert plain_font('DejaVuSerif.ttf', 20).getname()[0] == 'DejaVu Serif'
