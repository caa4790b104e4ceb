"Captchas drawn as a look says"
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from captcha_fastai.draw import compose
from captcha_fastai.draw.compose import (
    composed, cover, groups_of_columns, hackmit, hackmit_ground, hackmit_look, letter_tile, put_letter, scribble, waved,
    write_text)
from captcha_fastai.draw.fonts import sans
from captcha_fastai.draw.look import Look, load_looks, save_looks

PLAIN = Look(rotate=0, jitter=(0, 0), lines=(0, 0), dots=(0, 0), blur=(0, 0), fonts=sans[:1])


def amount(look): return cover('2cg58', Random(1), 160, 50, look).mean()


@pytest.mark.parametrize('angle', [0, 45, -90])
def test_the_middle_of_a_letter_is_where_it_is_put(angle):
    ink = Image.new('L', (60, 50))
    put_letter(ink, letter_tile(sans[0], 30, '0', 0)[0], 30, 20, 25, angle)
    ys, xs = np.nonzero(np.asarray(ink))
    assert np.allclose([xs.mean(), ys.mean()], [20, 25], atol=1)


def test_thicker_strokes_are_more_ink():
    thin, thick = (letter_tile(sans[0], 30, 'o', stroke)[0] for stroke in (0, 2))
    assert np.asarray(thick).sum() > 1.1*np.asarray(thin).sum()
    assert amount(replace(PLAIN, stroke=(-1, -1))) < amount(PLAIN) < amount(replace(PLAIN, stroke=(1.5, 1.5)))


def test_many_letters_become_smaller_not_a_heap(monkeypatch):
    put = Mock()
    monkeypatch.setattr(compose, 'put_letter', put)
    write_text(Image.new('L', (160, 60)), 'n'*14, Random(1), Look(jitter=(0, 0), spacing=(1, 1)), 1, sans[:1])
    sizes = [o.args[2] for o in put.call_args_list]
    xs = [o.args[3] for o in put.call_args_list]
    width = letter_tile(sans[0], sizes[0], 'n', 0)[1]
    assert np.diff(xs).min() > .6*width and xs[-1] < 160 - width/3


def test_a_text_without_letters_has_no_ink(): assert cover('', Random(1), 160, 50, PLAIN).sum() == 0


def test_there_is_no_ink_beyond_the_text(): assert not cover('i', Random(1), 160, 50, PLAIN)[:, 60:].any()


def test_letters_that_shall_be_apart_are():
    close = replace(PLAIN, size=(.42, .46), slots=True, jitter=(.05, .05))
    count = lambda look: [groups_of_columns(cover('nunu', Random(i), 100, 50, look)*255) for i in range(20)]
    assert count(replace(close, apart=True)) == [4]*20 and min(count(close)) < 4


def test_lines_and_dots_are_as_many_as_the_look_says():
    ink = Image.new('L', (160, 50))
    scribble(ink, Random(0), PLAIN, 1)
    assert ink.getbbox() is None
    scribble(ink, Random(0), replace(PLAIN, lines=(1, 1)), 1)
    assert ink.getbbox()


def test_no_wave_leaves_the_picture_as_it_is():
    x = np.arange(50).reshape(5, 10)
    assert waved(x, Random(0), PLAIN, 1) is x
    assert set(waved(x, Random(0), replace(PLAIN, wave=(3, 3)), 1).ravel()) <= set(x.ravel())


def test_ink_and_background_have_the_colours_of_the_look():
    look = replace(PLAIN, inks=((10, 20, 30),), grounds=((200, 210, 220),))
    colours = [o for _,o in sorted(composed('2', Random(0), 80, 40, [look]).getcolors(3200), reverse=True)]
    assert colours[0] == (200, 210, 220) and (10, 20, 30) in colours


def test_noise_and_jpeg_change_the_picture():
    draw = lambda **kw: composed('2cg58', Random(1), 160, 50, [replace(PLAIN, **kw)]).tobytes()
    assert len({draw(), draw(noise=(8, 8)), draw(jpeg=(15, 15))}) == 3


@pytest.mark.parametrize('look', [
    PLAIN, Look(), Look(noise=(3, 5), jpeg=(20, 80), wave=(1, 3)), replace(hackmit_look, apart=True)], ids=range(4))
def test_the_same_seed_gives_the_same_captcha(look):
    draw = lambda seed: composed('2cg58', Random(seed), 160, 50, [look, Look()]).tobytes()
    assert draw(1) == draw(1) and len({draw(i) for i in range(5)}) > 1


@pytest.mark.parametrize('text', ['', 'a', 'm'*40, 'ab cd'])
@pytest.mark.parametrize('size', [(160, 60), (17, 16)])
def test_any_text_has_the_size_that_was_asked_for(text, size):
    for f in (composed, hackmit): assert f(text, Random(1), *size).size == size


def test_the_background_of_hackmit_is_drawn_once(): assert hackmit_ground(100, 50) is hackmit_ground(100, 50)


def test_looks_of_the_first_version_are_drawn():
    looks = load_looks(Path(__file__).parent/'data'/'version_0_1_looks.json')
    draw = lambda looks: composed('2cg58', Random(1), 160, 50, looks).tobytes()
    assert draw(looks) == draw([Look(size=(.5, .6))])


def test_the_look_of_hackmit_can_be_saved(tmp_path):
    save_looks(hackmit_look, tmp_path/'look.json')
    assert load_looks(tmp_path/'look.json') == (hackmit_look,)
