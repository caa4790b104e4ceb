"A letter, written once and then rotated, enlarged, warped and pasted"
import numpy as np
import pytest
from PIL import ImageFont

from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.letters import (
    Glyphs, brightness_mask, corner_shifts, draw_letter, mapped, over, quad_map, write_glyph)
from captcha_fastai.draw.raster import premultiplied, uniforms
from captcha_fastai.read.compiled import compiled


@pytest.fixture
def fonts(): return [ImageFont.truetype(package_fonts[0], size) for size in (42, 50)]


def test_a_character_is_written_once(fonts):
    glyphs = Glyphs(fonts)
    ids, ink, at = glyphs('k7k ')
    assert ids.tolist() == [1, 2, 1, 0]
    assert len(at) == 3*len(fonts)
    again, more_ink, _ = glyphs('7x')
    assert again.tolist() == [2, 3]
    assert (more_ink[:len(ink)] == ink).all() and len(more_ink) > len(ink)


def test_ink_is_cut_out_to_its_edges(fonts):
    ink, (w, h), indent = write_glyph('k', fonts[0])
    assert all(o.any() for o in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    assert indent + ink.shape[1] <= w and ink.shape[0] <= h


def test_a_blank_has_one_pixel_without_ink(fonts):
    ink, _, indent = write_glyph(' ', fonts[0])
    assert ink.shape == (1, 1) and not ink.any() and indent == 0


def test_ink_left_of_its_box_is_kept():
    ink, _, indent = write_glyph('j', ImageFont.truetype(sans[0], 50))
    assert indent < 0 and ink.any()


@pytest.mark.parametrize('shifts', [(0, 0, 0, 0), (2, 3, 4, 3), (-3, -2, 3, 2)])
def test_corners_of_the_box_come_from_where_they_were_moved(shifts):
    x1, y1, x2, y2 = shifts
    across, down = quad_map(30, 50, 40, 60, shifts)
    corners = [(mapped(x1, across, x, y), mapped(y1, down, x, y)) for x, y in ((0, 0), (0, 50), (30, 50), (30, 0))]
    np.testing.assert_allclose(corners, [(x1, y1), (-x1, 60-y2), (40+x2, 60+y2), (40-x2, -y1)], atol=1e-9)


def test_corners_move_by_a_fifth_of_the_width_at_most():
    for seed in range(50):
        x1, y1, x2, y2 = compiled(corner_shifts)(30, 50, compiled(uniforms)(seed, 6))
        assert max(abs(x1), abs(x2)) <= 6 and max(abs(y1), abs(y2)) <= 5


def test_bright_colours_are_pasted_stronger():
    assert brightness_mask(0, 0, 0) == 0 and brightness_mask(20, 20, 20) < brightness_mask(90, 90, 90) < 255
    assert brightness_mask(200, 200, 200) == 255
    assert over(255, 20, 0) == 255 and over(255, 20, 255) == 20


@pytest.mark.parametrize('left', [-500, -10, 0, 35, 500])
def test_a_letter_beyond_the_picture_is_cut_off(left, fonts):
    ink, (w, h), _ = write_glyph('k', fonts[0])
    canvas = np.full((40, 30, 3), 255, np.float32)
    compiled(draw_letter)(canvas, ink, w, h, left, *premultiplied((200, 20, 120, 255)), compiled(uniforms)(1, 7))
    assert (canvas < 255).any() == (abs(left) < 40)
