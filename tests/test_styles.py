"The dict of styles, and the plain style `simple`"
from random import Random

import pytest
from PIL import Image

from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.styles import char_tile, in_a_row, lines_and_dots, simple, style, styles


@pytest.fixture
def places(monkeypatch):
    "(first column, width) of each tile that is pasted"
    found = []
    monkeypatch.setattr(Image.Image, 'paste', lambda self, colour, at, tile: found.append((at[0], tile.width)))
    return found


def test_a_style_is_registered_under_its_name(monkeypatch):
    monkeypatch.delitem(styles, 'mine', raising=False)
    def mine(text, rng, width=160, height=60, fonts=package_fonts): return Image.new('RGB', (width, height))
    assert style(mine) is mine is styles.pop('mine')
    assert styles['simple'] is simple


def test_a_tile_is_a_mask(): assert char_tile('i', Random(1), 40).mode == 'L'
def test_a_space_takes_half_its_size(): assert char_tile(' ', Random(2), 40).size == (20, 40)
def test_the_same_seed_gives_the_same_picture(): assert simple('captcha', Random(3)) == simple('captcha', Random(3))
def test_another_seed_gives_another_picture(): assert simple('captcha', Random(3)) != simple('captcha', Random(4))
def test_other_fonts_give_another_picture():
    assert simple('captcha', Random(3)) != simple('captcha', Random(3), fonts=sans)


@pytest.mark.parametrize('width, height', [(160, 60), (48, 24), (300, 100)])
@pytest.mark.parametrize('text', ['', 'a', ' ', '2cg58mw9ka1x', 'абв'])
def test_any_text_has_the_size_you_ask_for(text, width, height):
    assert simple(text, Random(1), width, height).size == (width, height)


def test_wide_letters_in_too_little_room_overlap_and_all_are_there(places):
    for i in range(20): simple('ШЖMW'*2, Random(i), fonts=('DejaVuSans-Bold.ttf',))
    assert len(places) == 160
    assert all(x + w <= 160 for x, w in places)


def test_a_dozen_letters_stay_inside(places):
    for i in range(100): simple('2cg58mw9ka1x', Random(i))
    assert all(0 <= x and x + w <= 160 for x, w in places)


def test_tiles_with_room_do_not_overlap():
    xs = [x for _, x, _ in in_a_row([Image.new('L', (50, 40))]*4, Random(1), 260, 60)]
    assert all(b - a >= 50 for a, b in zip(xs, xs[1:]))


def test_lines_run_from_border_to_border():
    im = Image.new('L', (200, 50), 255).convert('RGB')
    lines_and_dots(im, Random(1))
    grey = im.convert('L')
    assert all(min(grey.crop((x, 0, x+1, 50)).tobytes()) < 255 for x in range(200))
