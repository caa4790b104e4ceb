"Pillow's arithmetic, compared with Pillow"
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from captcha_fastai.draw.raster import (
    bicubic, div255, premultiplied, resize_rows, rotated, round_trip, smooth, transpose, uniforms)
from captcha_fastai.read.compiled import compiled


@pytest.fixture
def colours(): return compiled(premultiplied)((200, 100, 40, 230))


def is_close(ours, theirs):
    off = np.abs(ours - theirs.astype(int))
    return off.max() <= 1 and (off > 0).mean() < .01


@pytest.mark.parametrize('seed', [0, 1, 2**63 - 1])
def test_random_numbers_are_uniform(seed):
    u = compiled(uniforms)(seed, 100_000)
    assert 0 <= u.min() and u.max() < 1
    assert abs(u.mean() - .5) < .005
    np.testing.assert_allclose(np.bincount((u*10).astype(int))/1e5, np.full(10, .1), atol=.005)


def test_machine_code_and_python_give_the_same_random_numbers():
    with np.errstate(over='ignore'): plain = uniforms(7, 20)
    assert (plain == compiled(uniforms)(7, 20)).all()


def test_division_by_255_is_rounded():
    x = np.arange(255*255 + 1)
    assert (div255(x) == np.rint(x/255)).all()


def test_a_round_trip_loses_one_at_most():
    for opacity in (1, 7, 100, 200, 255): assert all(p - 1 <= round_trip(p, opacity) <= p for p in range(opacity + 1))
    assert round_trip(9, 0) == 0


def test_colours_are_multiplied_by_opacity(colours):
    once, twice = colours
    assert once[[0, 255]].tolist() == [[0, 0, 0, 0], [180, 90, 36, 230]]
    assert np.abs(once - twice).max() <= 1 and (once[:, 3] == twice[:, 3]).all()


@pytest.mark.parametrize('angle', [-30, 0, 17, 30])
def test_a_letter_is_rotated_as_pillow_does(angle, colours):
    k = Image.new('L', (24, 36))
    ImageDraw.Draw(k).text((0, 0), 'k', fill=255, font_size=32)
    channels = [k.point(lambda o, c=c: c if o else 0) for c in (200, 100, 40)]
    rgba = Image.merge('RGBA', [*channels, k.point(lambda o: div255(230*o))])
    theirs = np.asarray(rgba.rotate(angle, Image.Resampling.BILINEAR, expand=True))
    ours = compiled(rotated)(np.asarray(k), angle, *colours).transpose(1, 0, 2)
    assert ours.shape == theirs.shape
    assert is_close(ours[..., 3], theirs[..., 3]) and (ours[..., 3] > 200).any()


@pytest.mark.parametrize('n, m', [(40, 61), (40, 13), (1, 5), (7, 7)])
def test_weights_of_a_new_pixel_add_up_to_one(n, m):
    first, weights = compiled(bicubic)(n, m)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert (0 <= first).all() and (first < n).all()


# Pillow takes columns before rows for these sizes
@pytest.mark.parametrize('width, height', [(23, 61), (61, 61), (30, 40), (5, 5)])
def test_a_picture_is_resized_as_pillow_does(width, height):
    x = np.random.default_rng(0).integers(0, 255, (40, 30, 1), np.uint8)
    theirs = np.asarray(Image.fromarray(x[..., 0]).resize((width, height), Image.Resampling.BICUBIC))
    wide = compiled(resize_rows)(compiled(transpose)(x.astype(np.float32)), width)
    assert is_close(compiled(resize_rows)(compiled(transpose)(wide), height)[..., 0], theirs)


def test_transpose_swaps_rows_and_columns():
    x = np.arange(24.).reshape(2, 4, 3)
    assert (transpose(x) == x.transpose(1, 0, 2)).all()


def test_a_picture_is_blurred_as_pillow_does():
    x = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)          # 30 wide, 20 high
    theirs = np.asarray(Image.fromarray(x).filter(ImageFilter.SMOOTH)).astype(int)
    ours = transpose(compiled(smooth)(transpose(x).reshape(30, -1).astype(np.float32)).reshape(30, 20, 3))
    assert np.abs(ours - theirs).max() <= 1
