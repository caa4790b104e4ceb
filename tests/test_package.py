"Our captchas and those of the captcha package, from the same random numbers"
import secrets
import string
from concurrent.futures import ThreadPoolExecutor
from random import Random
from types import SimpleNamespace

import captcha.image
import numpy as np
import pytest

from captcha_fastai.core import CaptchaError
from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.package import captcha_sizes, draw_captcha, fast_captcha, image_captcha
from captcha_fastai.draw.raster import uniforms
from captcha_fastai.draw.styles import styles
from captcha_fastai.read.compiled import compiled


def theirs(text, u, width, height):
    "What the package draws from these random numbers"
    numbers = iter(u)
    def below(n): return int(next(numbers)*n)
    def choice(items): return items[below(len(items))]
    captcha.image.secrets = SimpleNamespace(randbelow=below, choice=choice, randbits=lambda k: below(2**k))
    try: return captcha.image.ImageCaptcha(width, height).generate_image(text)
    finally: captcha.image.secrets = secrets


def pair(seed, width, height):
    rng = Random(seed)
    text = ''.join(rng.choice(string.ascii_letters + string.digits) for _ in range(rng.randint(1, 7)))
    u = compiled(uniforms)(seed, 500)
    ours = draw_captcha(text, 0, package_fonts, width=width, height=height, u=u)
    return [np.asarray(o).astype(int) for o in (theirs(text, u, width, height), ours)]


sizes = [(160, 60, 100), (170, 80, 20), (128, 64, 20), (120, 100, 20), (200, 50, 20)]


@pytest.mark.parametrize('width, height, n', sizes)
def test_the_same_randomness_gives_the_same_picture(width, height, n):
    off = np.abs([a - b for a, b in (pair(i, width, height) for i in range(n))])
    assert (off > 2).any(-1).mean() < 1e-3


@pytest.mark.parametrize('f', [image_captcha, fast_captcha])
def test_a_seed_decides_about_the_picture(f):
    assert f('k7m2', Random(1)) == f('k7m2', Random(1)) != f('k7m2', Random(2))


def test_the_same_seed_gives_the_same_captcha():
    assert draw_captcha('k7m2', 5, package_fonts) == draw_captcha('k7m2', 5, package_fonts)


def test_numbers_of_a_seed_may_be_given_instead():
    u = compiled(uniforms)(5, 272)
    assert draw_captcha('k7m2', 5, package_fonts) == draw_captcha('k7m2', 0, package_fonts, u=u)


def test_no_text_is_refused():
    with pytest.raises(CaptchaError, match='at least one character'): draw_captcha('', 5, package_fonts)


@pytest.mark.parametrize('u', [np.zeros(10), np.ones(186), np.full(186, -.1)])
def test_too_few_random_numbers_or_others_are_refused(u):
    with pytest.raises(CaptchaError, match='186 numbers'): draw_captcha('ab', 5, package_fonts, u=u)


def test_both_styles_are_registered():
    assert styles['image_captcha'] is image_captcha and styles['fast_captcha'] is fast_captcha


def test_the_packages_source_of_randomness_is_given_back():
    image_captcha('k7m2', Random(1))
    assert captcha.image.secrets is secrets


def test_fonts_get_smaller_for_long_texts_and_low_pictures():
    assert captcha_sizes('k7m2', 160, 60) == (42, 50, 56)
    assert captcha_sizes('k7m2'*2, 160, 60) == (21, 25, 28)
    assert captcha_sizes('k7m2', 160, 30) == (21, 25, 28)
    assert captcha_sizes('k'*99, 160, 60) == (8, 8, 8)


def test_threads_draw_the_same_captchas():
    def draw(i): return draw_captcha(chr(97 + i%26)*3, i, sans, (30, 34)).tobytes()
    with ThreadPoolExecutor(4) as pool: together = list(pool.map(draw, range(40)))
    assert together == [draw(i) for i in range(40)]
