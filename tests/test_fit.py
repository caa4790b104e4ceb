"A style from images"
import warnings
from random import Random

import pytest
from PIL import Image

from captcha_fastai.core import CaptchaError, ImageError, LabelError
from captcha_fastai.draw import fit
from captcha_fastai.draw.fit import (
    RANGES, changed, describe, fit_style, font_choice, random_look, recognise_style, same_colours, search_look,
    show_fit, with_ink)
from captcha_fastai.draw.fonts import bold, known_fonts
from captcha_fastai.draw.ground import images_of_one_size
from captcha_fastai.draw.look import Look
from captcha_fastai.draw.styles import styles
from captcha_fastai.draw.synth import Synth, digits

CHARS = '2345678bcdefgmnpwxy'
SECRET = Look(fonts=bold[2:3], size=(.85, .9), rotate=30., spacing=(.75, .8), lines=(3, 4), line_width=(2., 2.),
              blur=(.4, .6), inks=((235, 240, 200),), grounds=((20, 60, 40), (50, 30, 80)))


def images_of(style, n=60, size=(50, 200), chars=CHARS):
    synth = Synth(chars, 5, style, size, seed=3)
    return [synth(i)[1] for i in range(n)]


@pytest.fixture(scope='module')
def real(): return images_of(SECRET, size=(50, 150), chars=digits)


@pytest.fixture(scope='module')
def small():
    texts, images = zip(*map(Synth('OX7', 2, size=(24, 48)), range(12)))
    return images, texts


def test_the_same_seed_finds_the_same_style(real):
    fit = lambda seed: fit_style(real[:20], chars=digits, length=5, steps=4, tries=2, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert fit(0) == fit(0) != fit(1)


def test_labels_are_the_texts_that_are_generated(small):
    images, texts = small
    with pytest.warns(UserWarning, match='no style comes near .*: look at show_fit'):
        looks = fit_style(images, [*texts[:-1], 'éé'], 'OX7', 2, steps=1, tries=1)
    assert looks[0].fonts                                    # of one that has é


@pytest.mark.parametrize('labels, why', [
    (['a']*3, '12 images but 3 labels: one each is needed'), ([1234]*12, 'fit_style: the label 1234 is int, not text')])
def test_labels_that_do_not_fit_are_refused(small, labels, why):
    with pytest.raises(LabelError, match=why): fit_style(small[0], labels, 'OX7', 2)


@pytest.mark.parametrize('values', [dict(steps=0), dict(tries=0)])
def test_a_search_needs_a_step(small, values):
    with pytest.raises(CaptchaError, match='1 or more'): fit_style(small[0], None, 'OX7', 2, **values)


@pytest.mark.parametrize('f', [fit_style, recognise_style])
@pytest.mark.parametrize('images, why', [
    ([Image.new('L', (60, 30), 200)]*2, '2 of 2 images tried can be read'),
    ([Image.new('L', (60, 30), 200)]*9, 'no ink in these images'),
    ([Image.new('L', (60, 9), 200)]*9, 'images of 9x60 pixels are too small')], ids=['few', 'blank', 'low'])
def test_images_that_show_no_style_are_refused(f, images, why):
    with pytest.raises(ImageError, match=why): f(images)


def test_a_font_that_lacks_characters_is_not_chosen(real):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        looks = fit_style(real, chars='აბგდ', length=5, steps=1, tries=1)
    assert 'DejaVu' in looks[0].fonts[0]                     # DroidSansMono has no Georgian letters
    with pytest.raises(CaptchaError, match='no font can draw'): font_choice('\U00012000')


def test_fonts_that_are_given_are_the_only_ones(small):
    own = [known_fonts()['DejaVuSerif.ttf']]
    assert font_choice('OX7', own) == own
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert fit_style(small[0], None, 'OX7', 2, steps=3, tries=1, fonts=own)[0].fonts == tuple(own)


def test_a_change_stays_within_the_ranges():
    look, rng = random_look(Random(0), ['a.ttf', 'b.ttf']), Random(1)
    for _ in range(100):
        before, look = look, changed(look, rng, .5, ['a.ttf', 'b.ttf'])
        assert sum(v != getattr(before, k) for k,v in vars(look).items()) <= 3
    for name,(lo,hi) in RANGES.items():
        v = getattr(look, name)
        assert all(lo <= o <= hi for o in (v if isinstance(v, tuple) else (v,)))


def test_more_steps_come_nearer(real):
    target = describe(with_ink(images_of_one_size(real[:20])[0]).cover, ['12345']*10)
    steps = []
    few, many = (search_look(target, list(bold[:1]), n, 0, lambda: steps.append(n)) for n in (1, 30))
    assert many[0] < few[0] and steps == [1] + [30]*30 and target.distance(many[1]) == many[0]


@pytest.mark.parametrize('n, rows', [(2, 1), (5, 2)])
def test_as_many_captchas_are_shown_as_asked_for(small, n, rows):
    assert show_fit(small[0], 'simple', 'OX7', 2, n=n).size == (4*52, 2*rows*28+8)


def test_every_style_of_ours_is_compared():
    assert {'simple', 'image_captcha', 'fast_captcha', 'kaptcha', 'composed', 'hackmit'} <= {*styles}


def test_the_style_of_all_kinds_is_not_compared(monkeypatch):
    asked = []
    def images(name, *args):
        asked.append(name)
        raise CaptchaError('no images needed')
    monkeypatch.setattr(fit, '_style_images', images)
    assert recognise_style(images_of('kaptcha', 20), CHARS, 5) == ''
    assert asked == ['simple', 'fast_captcha', 'kaptcha', 'composed', 'hackmit']


@pytest.mark.parametrize('name', ['kaptcha', 'simple', 'composed', 'fast_captcha', 'hackmit'])
def test_a_style_of_ours_is_recognised(name):
    size = (50, 100) if name == 'hackmit' else (50, 200)
    n = 40 if name in ('fast_captcha', 'hackmit') else 100
    assert recognise_style(images_of(name, size=size), CHARS, 5, n=n) == name


def test_a_look_like_no_style_is_not_recognised():
    own = Look(fonts=('DejaVuSerif.ttf',), rotate=30., lines=(4, 5), wave=(2., 3.))
    assert recognise_style(images_of(own), CHARS, 5) == ''


def test_a_style_in_another_colour_is_not_recognised():
    bluish = lambda im: Image.merge('RGB', [*im.convert('RGB').split()[:2], Image.new('L', im.size, 250)])
    assert recognise_style([bluish(o) for o in images_of('kaptcha', 40)], CHARS, 5) == ''


def test_a_style_is_not_recognised_from_too_far():
    assert recognise_style(images_of('kaptcha', 40), CHARS, 5, most=.01, n=20) == ''


def test_ink_and_background_must_both_have_the_same_colour(real):
    parts = with_ink(images_of_one_size(real)[0])
    assert same_colours(parts, parts)
    assert not same_colours(parts, parts._replace(ground=parts.ground+20))
    assert not same_colours(parts, parts._replace(inks=parts.inks-50))
