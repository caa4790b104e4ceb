"Images as ink on a background that they share"
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image

from captcha_fastai.core import ImageError
from captcha_fastai.draw.compose import composed, hackmit_ground, hackmit_look
from captcha_fastai.draw.fonts import bold
from captcha_fastai.draw.ground import (
    _working_size, binarise, images_of_one_size, otsu, separate, shared_ground, shared_mask, without_mask)
from captcha_fastai.draw.kaptcha import kaptcha
from captcha_fastai.draw.look import ground_picture
from captcha_fastai.draw.synth import Synth, digits, lower


@pytest.fixture(scope='module')
def images():
    synth = Synth(digits+lower, 4, 'hackmit', (50, 100))
    return np.stack([np.asarray(synth(i)[1]) for i in range(100)])


@pytest.fixture(scope='module')
def lines(): return np.asarray(ground_picture(hackmit_ground(100, 50), 100, 50))[..., 2] > 150


def blank(n, width, height): return [Image.new('L', (width, height), 200)]*n


def test_a_threshold_lies_between_two_groups():
    rng = np.random.default_rng(0)
    assert 30 < otsu(np.r_[rng.normal(20, 3, 500), rng.normal(60, 3, 100)]) < 50


@pytest.mark.parametrize('seed', [0, 4])
def test_stripes_and_lines_are_background_and_letters_are_ink(seed):
    synth = Synth(digits+lower, 4, 'hackmit', (50, 100), seed=seed)
    parts = separate(np.stack([np.asarray(synth(i)[1], np.float32) for i in range(100)]))
    assert np.allclose(parts.ground[2, 10], [181, 3, 42], atol=12) and parts.ground[23, 13].min() > 140
    assert parts.inks.min() > 190 and parts.noise.max() < 8
    assert parts.cover.min() >= 0 and parts.cover.max() <= 1


def test_dark_ink_is_found_as_light_ink_is(images):
    x = images.astype(np.float32)
    a, b = separate(x), separate(255-x)
    assert np.allclose(a.cover, b.cover, atol=.01) and np.allclose(a.inks, 255-b.inks, atol=1)


def test_images_of_one_colour_have_no_ink(): assert separate(np.full((6, 20, 30, 3), 200, np.float32)).cover.max() == 0


def test_a_sample_comes_from_all_over_a_folder():
    images = [Image.new('RGB', (40, 20), (i%256, i//256, 0)) for i in range(600)]
    arrays, used = images_of_one_size(images)
    assert len(used) == 200 and used == sorted(set(used)) and used[:100] != [*range(100)]
    assert sum(i < 300 for i in used) in range(70, 131)
    assert arrays[:, 0, 0, 0].tolist() == [i%256 for i in used]    # the texts that go with them are found by number
    assert images_of_one_size(images[:150])[1] == [*range(150)]


def test_the_commonest_size_is_used_and_what_cannot_be_read_left_out():
    arrays, used = images_of_one_size([*blank(4, 50, 30), *['no file.png']*3, *blank(6, 60, 30)])
    assert arrays.shape == (6, 30, 60, 3) and used == [*range(7, 13)]


@pytest.mark.parametrize('images, why', [
    (blank(2, 60, 30), '2 of 2 images tried can be read and have one size: 5 are needed'),
    ([], '0 of 0 images tried'),
    (['no file.png']*9, r'0 of 9 images tried can be read and have one size \(.*no file.png'),
    (blank(9, 60, 9), 'images of 9x60 pixels are too small: 16 are needed')], ids=['few', 'none', 'unreadable', 'low'])
def test_too_few_or_too_small_images_are_refused(images, why):
    with pytest.raises(ImageError, match=why): images_of_one_size(images)


@pytest.mark.parametrize('size, want', [
    ((200, 50), (200, 50)), ((640, 160), (320, 80)), ((2000, 20), (1600, 16)), ((20, 300), (16, 240))], ids=str)
def test_large_images_are_made_smaller_but_never_below_16_pixels(size, want): assert _working_size(*size) == want


def test_binary_images_are_the_same_from_dark_and_light_and_grey(images):
    ink = binarise(images, 200)
    assert ink.shape == (100, 50, 100) and ink.dtype == bool
    assert (binarise(255-images, 55) == ink).mean() > .99
    grey = images.mean(-1).astype(np.uint8)
    assert np.array_equal(binarise(grey[..., None], 200), binarise(grey, 200))


def test_a_threshold_need_not_be_given():
    x = np.stack([np.asarray(kaptcha('abc', Random(i), 100, 50)) for i in range(20)])
    assert .02 < binarise(x).mean() < .4


@pytest.mark.parametrize('shape', [(100, 50, 100, 4), (50, 100, 3), (5, 5), (1, 2, 3, 4, 5)], ids=str)
def test_arrays_that_are_no_images_are_refused(shape):
    with pytest.raises(ImageError, match=re.escape(f'an array {shape}')): binarise(np.zeros(shape))


def test_the_mask_is_the_lines_that_all_images_share(images, lines):
    ink = binarise(images, 200)
    mask = shared_mask(ink)
    assert mask.shape == (50, 100) and (mask & lines).sum()/(mask | lines).sum() > .9
    assert ink[:, lines].all(0).mean() > .9


def test_without_the_mask_only_letters_have_ink_at_the_lines(images, lines):
    ink = binarise(images, 200)
    assert .01 < without_mask(ink, shared_mask(ink))[:, lines].mean() < .5


def test_a_letter_that_is_crossed_keeps_its_pixels():
    ink, mask = np.zeros((1, 7, 6), bool), np.zeros((7, 6), bool)
    mask[3], ink[:, 3], ink[:, 1:6, 2] = True, True, True
    assert np.array_equal(np.flatnonzero(without_mask(ink, mask)[0, 3]), [2])


def test_the_shared_background_carries_its_lines_into_any_look(images, lines):
    look = replace(hackmit_look, picture=shared_ground(list(images)), fonts=bold)
    again = np.stack([np.asarray(composed('r34d', Random(i), 100, 50, [look])) for i in range(5)])
    assert np.abs(shared_mask(binarise(again, 200), 1)[lines].mean() - 1) < .2
