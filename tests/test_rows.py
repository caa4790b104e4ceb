"Images with several lines of text"
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from captcha_fastai.core import Spec
from captcha_fastai.data.images import find_rows, guess_size
from captcha_fastai.judge.calibrate import log_probabilities
from captcha_fastai.read.images import to_array
from captcha_fastai.read.reader import Reader
from captcha_fastai.read.rows import ink_profile, lines_in, one_line, rows_of


def plate(*lines, size=(100, 72), shift=0):
    im = Image.new('L', size, 255)
    step = size[1]/len(lines)
    for i, o in enumerate(lines):
        ImageDraw.Draw(im).text((size[0]/2, step*(i+.5) + shift), o, fill=0, font=ImageFont.load_default(.6*step), anchor='mm')
    return im


def framed(im):
    ImageDraw.Draw(im).rectangle((1, 1, im.width-2, im.height-2), outline=0)
    return im


def shaded(im):
    x = np.asarray(im)*.6 + np.linspace(0, 100, im.height)[:, None]
    return Image.fromarray(x.astype(np.uint8))


def crossed(im):
    ImageDraw.Draw(im).line((0, 5, im.width, im.height-5), fill=90, width=2)
    return im


@pytest.mark.parametrize('change', [lambda im: im, ImageOps.invert, framed, shaded, crossed, lambda im: im.convert('RGB')])
@pytest.mark.parametrize('lines', [('AB3K',), ('KHR', '7409'), ('AB', '123', 'XYZ')])
def test_lines_are_counted_in_any_light(lines, change): assert lines_in(change(plate(*lines))) == len(lines)


def test_an_image_of_nothing_has_no_line():
    empty = Image.new('L', (60, 40), 200)
    assert lines_in(empty) == 0 and ink_profile(empty).max() == 0 and rows_of([empty], ['ab']) == 1


def test_stripes_across_a_line_are_no_lines():
    im = plate('8372', size=(70, 36))
    for y in (6, 17, 28): ImageDraw.Draw(im).line((0, y, 70, y), fill=255, width=4)
    assert rows_of([im]*10, ['8372']*10) == 1


@pytest.mark.parametrize('texts, rows', [(['KHR7409']*10, 2), (['KHR\n7409']*10, 2), (['A\nB\nC']*10, 3), ([], 1)])
def test_the_rows_of_a_set(texts, rows): assert rows_of([plate('KHR', '7409')]*len(texts), texts) == rows


def test_a_few_images_do_not_make_a_set_of_two_lines():
    two, one = plate('KHR', '7409'), plate('AB3K')
    assert rows_of([two]*8 + [one]*2, ['KHR7409']*10) == 1


def test_images_that_cannot_be_opened_are_left_out():
    with pytest.warns(UserWarning, match='images have 2 lines of text'): assert find_rows([plate('KHR', '7409'), b'torn'], ['KHR7409']*2) == 2
    assert find_rows([b'torn'], ['a']) == 1


@pytest.mark.parametrize('lines', [('KHR', '7409'), ('AB', '123', 'XYZ')])
@pytest.mark.parametrize('shift', [-4, 0, 4])
def test_lines_stand_side_by_side_whole(lines, shift):
    im = plate(*lines, shift=shift)
    line = one_line(im, len(lines))
    assert line.height < im.height*.7 and line.width > im.width*len(lines)*.9 and lines_in(line) == 1


@pytest.mark.parametrize('rows', [1, 2, 3, 10])
@pytest.mark.parametrize('size', [(1, 1), (5, 3), (40, 20), (30, 300)])
def test_any_size_can_be_cut(size, rows):
    spec = Spec('ab', 2, 16, 64, 3, rows=rows)
    assert to_array(Image.new('RGB', size, 'red'), spec).shape == (16, 64, 3)
    assert (to_array(Image.new('RGB', size, 'red'), spec)[..., 0] == 255).all()


def test_a_model_sees_the_upper_line_first():
    im = Image.fromarray(np.repeat(np.uint8([0, 255]), 20)[:, None].repeat(60, 1))
    x = to_array(im, Spec('ab', 2, 20, 120, rows=2))[..., 0]
    assert (x[:, :55] < 10).all() and (x[:, 65:] > 245).all()


@pytest.mark.parametrize('size, rows, height, width', [
    ((640, 32), 1, 32, 640), ((1280, 64), 1, 32, 640), ((100, 72), 2, 36, 200), ((200, 50), 1, 50, 200), ((400, 160), 1, 80, 200), ((40000, 40), 1, 32, 31623)])
def test_long_lines_keep_their_height(size, rows, height, width):
    h, w, _ = guess_size([Image.new('L', size)], rows=rows)
    assert (h, w) == (height, width) or h*w <= 1_000_000 and size[0] > 30_000


def test_calibration_cuts_an_image_once():
    seen = []
    def model(x):
        seen.append(x)
        return np.log(np.full((len(x), 4, 3), 1/3, np.float32))
    reader = Reader(model, Spec('ab', 2, 20, 120, rows=2))
    image = plate('KHR', '7409')
    reader(image)
    log_probabilities(reader, [image])
    assert np.array_equal(*seen)
