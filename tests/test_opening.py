"How a set of images is opened"
import io
import random
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from captcha_fastai.read.opening import opening_of

usual = dict(bits=16, ground='white', frame='first')
font = ImageFont.load_default(25)
rng = random.Random(1)


def written(letters, lines=(), paper=255, ink=0, shake=0):
    "A picture of the letters at these numbers of five"
    im = Image.new('L', (150, 40), paper)
    draw = ImageDraw.Draw(im)
    for i in letters: draw.text((8 + 28*i + rng.uniform(-shake, shake), 4 + rng.uniform(-shake, shake)), '2cg58'[i], ink, font)
    for o in lines: draw.line(o, fill=(paper+ink)//2)
    return im


def as_file(fmt, frames, mode='RGB', **kwargs):
    file = io.BytesIO()
    first, *more = [o.convert(mode) for o in frames]
    if more: kwargs = dict(save_all=True, append_images=more, **kwargs)
    first.save(file, fmt, **kwargs)
    return file


line = [(0, 9, 150, 30)]
blank = written([])
kinds = {
    'appear': ([written(range(k), line) for k in range(6)], 'last'),
    'appear and go': ([*[written(range(k), line) for k in range(6)], blank], 'darkest'),
    'vanish': ([written(range(k), line) for k in (5, 3, 0)], 'first'),
    'blink': ([written([k], line) for k in range(5)], 'darkest'),
    'blink on dark paper': ([written([k], line, 0, 255) for k in range(5)], 'darkest'),
    'hide one': ([written({*range(5)} - {k}, line) for k in range(5)], 'darkest'),
    'after an empty one': ([blank, written(range(5))], 'last'),
    'before an empty one': ([written(range(5)), blank], 'first'),
    'tremble': ([written(range(5), line, shake=3) for _ in range(5)], 'first'),
    'stay': ([written(range(5), line)]*3, 'first')}


@pytest.mark.parametrize('fmt', ['GIF', 'PNG', 'WEBP'])
@pytest.mark.parametrize('kind', kinds)
def test_the_frame_is_one_that_has_all_letters(kind, fmt):
    frames, frame = kinds[kind]
    file = as_file(fmt, frames, **(dict(lossless=True) if fmt == 'WEBP' else {}))
    assert opening_of([file]*4) == usual | dict(frame=frame)


def test_light_letters_of_an_animation_without_paper():
    def ghost(n): return Image.merge('LA', [Image.new('L', (150, 40), 255), written(range(n), (), 0, 255)])
    file = as_file('PNG', [ghost(k) for k in range(6)], 'RGBA')
    assert opening_of([file]*4) == dict(bits=16, ground='black', frame='last')


@pytest.mark.parametrize('most, bits', [(200, 8), (1023, 10), (4095, 12), (4096, 13), (65535, 16)])
def test_the_bits_are_the_fewest_that_hold_all_values(most, bits):
    deep = [np.full((4, 6), o, np.uint16) for o in (0, most, 100)]
    assert opening_of(deep) == usual | dict(bits=bits)
    assert opening_of([as_file('PNG', [Image.fromarray(o)], 'I;16') for o in deep])['bits'] == bits


def test_values_are_looked_for_in_the_whole_set():
    deep = [np.full((4, 6), o, np.uint16) for o in range(4096)]
    assert opening_of(deep, n=10)['bits'] == 12


@pytest.mark.parametrize('ink, ground', [(0, 'white'), (128, 'white'), (200, 'black'), (255, 'black')])
def test_the_ground_shows_the_ink(ink, ground):
    ghost = Image.merge('LA', [Image.new('L', (150, 40), ink), written(range(5), line, 0, 255)])
    assert opening_of([ghost, b'torn']) == usual | dict(ground=ground)


def test_what_is_not_seen_has_no_ground():
    corner = Image.new('RGBA', (150, 40), 'navy')
    corner.putpixel((0, 0), (0, 0, 0, 0))
    ImageDraw.Draw(corner).text((8, 4), '2cg58', 'white', font)
    assert opening_of([corner]) == usual
    assert opening_of([Image.new('RGBA', (9, 9))]) == usual


def test_usual_images_are_opened_as_usual_and_nothing_is_said():
    plain = [written(range(5)), np.zeros((4, 6, 3), np.uint8), as_file('PNG', [blank]), as_file('GIF', [blank]), b'torn', 'gone.png', None]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert opening_of(plain, say=True) == usual
    assert opening_of([]) == usual


def test_what_is_not_usual_is_said_once():
    images = [as_file('GIF', kinds['appear'][0]), np.full((4, 6), 1000, np.uint16)]*9
    with pytest.warns(UserWarning) as caught: opening_of(images, say=True)
    assert [str(o.message) for o in caught] == ['images of 16 bits hold 10: their grey values are read as 10 bits',
                                                'animations whose frames differ: their last frame is read']


def test_the_files_of_a_set_are_closed(tmp_path):
    for i in range(3): (tmp_path/f'{i}.gif').write_bytes(as_file('GIF', kinds['appear'][0]).getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter('error', ResourceWarning)
        assert opening_of(sorted(tmp_path.iterdir()))['frame'] == 'last'
