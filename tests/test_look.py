"Looks: values that can be, and files of them"
import base64
import io
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captcha_fastai.core import CaptchaError
from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.look import LIMITS, Look, ground_picture, load_looks, save_looks

DATA = Path(__file__).parent/'data'


def png(colour=(20, 60, 130)):
    Image.new('RGB', (4, 2), colour).save(out := io.BytesIO(), 'png')
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize('values, why', [
    (dict(size=(.9, .5)), r'size is \(0.9, 0.5\): give 2 numbers from 0.05 to 3, the lesser one first'),
    (dict(lines=(0, 10**9)), r'lines is \(0, 1000000000\): give 2 whole numbers'),
    (dict(lines=(0, 1.5)), r'lines is \(0, 1.5\): give 2 whole numbers'),
    (dict(size=3), 'size is 3: give 2 numbers'),
    (dict(size=(1, 2, 3)), r'size is \(1, 2, 3\)'),
    (dict(size=None), 'size is None'),
    (dict(jpeg=(50, 90.5)), r'jpeg is \(50, 90.5\)'),
    (dict(jpeg=(96, 97)), 'from 1 to 95'),
    (dict(rotate=float('nan')), 'rotate is nan: give a number from 0 to 180'),
    (dict(rotate=-1), 'rotate is -1'),
    (dict(rotate='a'), 'rotate is a'),
    (dict(inks=()), r'inks is \(\): give at least one colour'),
    (dict(inks=((1, 2),)), r'inks is \(1, 2\): give 3 numbers'),
    (dict(grounds=((300, 0, 0),)), r'grounds is \(300, 0, 0\): give 3 numbers from -255 to 255'),
    (dict(fonts='a.ttf'), "fonts is 'a.ttf': give a tuple of file names"),
    (dict(fonts=(1,)), r'fonts is \(1,\)'),
    (dict(picture=3), 'picture is 3: give a PNG'),
], ids=str)
def test_values_that_no_captcha_can_have_are_refused(values, why):
    with pytest.raises(CaptchaError, match=why): Look(**values)


@pytest.mark.parametrize('values', [
    dict(jitter=(.5, .1)), dict(jpeg=()), dict(dots=(3, 3)), dict(rotate=0), dict(inks=((-255, 0, 255),))], ids=str)
def test_values_at_the_border_are_not_refused(values): assert asdict(Look(**values)) == {**asdict(Look()), **values}


def test_lists_become_tuples():
    lists = Look(dots=[3, 5], inks=[[1, 2, 3]], fonts=['a.ttf'])
    assert lists == Look(dots=(3, 5), inks=((1, 2, 3),), fonts=('a.ttf',))


def test_a_look_cannot_be_changed_but_replaced():
    with pytest.raises(AttributeError): Look().rotate = 3
    assert replace(Look(), rotate=3).rotate == 3 and hash(Look()) == hash(Look())


def test_fields_keep_their_order_since_files_and_fingerprints_have_it():
    names = [f.name for f in fields(Look)]
    assert names == [*json.loads((DATA/'version_0_1_looks.json').read_text())['looks'][0]]
    assert {*LIMITS} < {*names}


def test_a_picture_is_stretched_to_the_captcha():
    x = ground_picture(png(), 160, 50)
    assert x.shape == (50, 160, 3) and np.array_equal(x[0, 0], [20, 60, 130])


def test_what_was_saved_is_loaded(tmp_path):
    looks = Look(slots=True, jpeg=(50, 90)), Look(wave=(2, 2), period=(7, 7), fonts=sans[:1], picture=png())
    save_looks(looks, tmp_path/'look.json')
    assert load_looks(tmp_path/'look.json') == looks
    save_looks(looks[1], tmp_path/'look.json')
    assert load_looks(str(tmp_path/'look.json')) == looks[1:]


def test_fonts_of_the_dependencies_are_written_by_name(tmp_path):
    save_looks(Look(fonts=(sans[0], package_fonts[0], '/my/own.ttf')), tmp_path/'look.json')
    fonts = json.loads((tmp_path/'look.json').read_text())['looks'][0]['fonts']
    assert fonts == [Path(sans[0]).name, Path(package_fonts[0]).name, '/my/own.ttf']
    assert load_looks(tmp_path/'look.json')[0].fonts == (sans[0], package_fonts[0], '/my/own.ttf')


def test_looks_of_the_first_version_are_read():
    assert load_looks(DATA/'version_0_1_looks.json') == (Look(size=(.5, .6)),)


@pytest.mark.parametrize('text', [
    '{"looks": [{"size": [1, 0]}]}', '{"looks": [{"weight": 3}]}', '{"looks": []}', '{"looks": [{"picture": "AAAA"}]}',
    '[1]', 'no JSON', '', '{"looks": [{"size": 3}]}', '{"looks": [{"picture": "A"}]}',
    '{"looks": [{"picture": "\\u00e9"}]}', '{"looks": 3}', '{"looks": [3]}',
    '{"look": []}', '{"looks": [{"inks": 5}]}', '{"looks": [{"fonts": null}]}', '['*100_000], ids=lambda t: t[:30])
def test_a_file_that_is_no_style_is_refused_by_name(tmp_path, text):
    (tmp_path/'look.json').write_text(text)
    why = r'look.json: not a style that save_looks wrote \('
    with pytest.raises(CaptchaError, match=why): load_looks(tmp_path/'look.json')


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path):
    with open(tmp_path/'look.json', 'wb') as f: f.truncate(2**24+1)
    with pytest.raises(CaptchaError, match='more than 16 MB'): load_looks(tmp_path/'look.json')
    with pytest.raises(CaptchaError, match='nothing.json: no such file'): load_looks(tmp_path/'nothing.json')
