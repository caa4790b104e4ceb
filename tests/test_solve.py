"Sums: their results, and how sure these are"
import random
import re
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from captcha_fastai.light import captcha_read
from captcha_fastai.core import Spec
from captcha_fastai.draw.fonts import sans
from captcha_fastai.read.reader import Reader, Reading
from captcha_fastai.read.solve import read_solved, solve, solved


@pytest.mark.parametrize('text, result', [
    ('3+5=?', '8'), ('3+5', '8'), ('3+5=', '8'), ('3+5?', '8'), (' 3 + 5 = ? ', '8'), ('10-12', '-2'), ('4x2', '8'), ('4X2', '8'), ('4*2', '8'), ('4×2=?', '8'), ('8/2', '4'), ('8÷2', '4'),
    ('8:2=', '4'), ('7−2', '5'), ('2+3x4', '14'), ('2x3+4', '10'), ('20-8/4x2', '16'), ('100/10/5', '2'), ('1-2-3', '-4'), ('-3+5', '2'), ('3--5', '8'), ('3+-5=?', '-2'), ('3x-2', '-6'), ('+3+5', '8'),
    ('007+1', '8'), ('7/2=?', '7/2'), ('6/4', '3/2'), ('1/3+2/3', '1'), ('0-0', '0'), ('9'*30 + '+1', '1' + '0'*30)])
def test_a_sum_has_its_result(text, result): assert solve(text) == result


@pytest.mark.parametrize('text', ['', '8', '8=?', '-5', 'abc', '3+', '+', '=?', '3+5=8', '3+5=??', '3++-5', '3/0', '1+2/0-3', '3+5?=', '(3+5)', '3**2', '3//2', '3,5+1', '٣+٥', '__import__("os")+1', '1+'*600 + '1'])
def test_what_is_no_sum_has_none(text): assert solve(text) is None


def test_multiplication_and_division_come_first():
    "Against Python's own fractions"
    rng = random.Random(0)
    for _ in range(300):
        text = str(rng.randrange(20))
        for _ in range(rng.randrange(1, 5)): text += rng.choice('+-*/') + str(rng.randrange(1, 20))
        exact = eval(''.join(f'Fraction({o})' if o.isdigit() else o for o in re.split(r'([-+*/])', text)), {'Fraction': Fraction})
        assert solve(text) == str(exact), text


def test_readings_that_lead_to_a_result_add_up():
    best = ('1+4=?', .3), ('7+1=?', .25), ('4+1=?', .2), ('5+O=?', .2), ('1x8=?', .05)
    o = solved(Reading('1+4=?', .3, name='0.png', nbest=best, accepted=False), threshold=.5, nbest=2)
    assert o.text == '5' and o.confidence == pytest.approx(.5) and o.accepted and o.name == '0.png'
    assert o.nbest == (('5', pytest.approx(.5)), ('8', pytest.approx(.3)))
    assert not solved(Reading('1+4=?', .3, nbest=best), threshold=.51).accepted


def test_a_reading_without_a_result_is_empty_and_not_accepted():
    o = solved(Reading('abc', .9, nbest=(('abc', .9), ('abd', .1))))
    assert (o.text, o.confidence, o.accepted, o.nbest) == ('', 0., False, ())


def test_a_reading_alone_counts_with_its_confidence(): assert solved(Reading('1+4=?', .3)).nbest == (('5', .3),)
def test_an_error_stays_an_error(): assert solved(o := Reading('', 0., error='0.png: no image', accepted=False)) is o
def test_no_more_than_certain(): assert solved(Reading('1+1', .7, nbest=(('1+1', .7), ('2+0', .3000001)))).confidence == 1.


def test_a_reader_is_asked_for_enough_readings():
    spec = Spec('0123456789+', 3, height=8, width=8, decoder='heads', threshold=.4)
    p = np.full((1, 3, 12), 1e-9)
    p[0, 0, 1:11] = p[0, 2, 1:11] = .1
    p[0, 1, 11] = 1.
    reader = Reader(lambda images: np.log(p/p.sum(-1, keepdims=True)).repeat(len(images), 0), spec)
    image = np.zeros((8, 8), np.uint8)
    one, = read_solved(reader, [image], nbest=3, pattern='[4-6]\\+[4-6]')
    assert one.text == '10' and dict(one.nbest) == pytest.approx({'10': 3/9, '9': 2/9, '11': 2/9}) and not one.accepted
    assert list(read_solved(reader, [image, image], pattern='[4-6]\\+[4-6]', min_confidence=.3))[1].accepted


def test_the_command_prints_results(tmp_path, capsys):
    for n, text in enumerate(('3+5=?', '7x4=?')):
        im = Image.new('L', (130, 40), 'white')
        ImageDraw.Draw(im).text((6, 4), text, font=ImageFont.truetype(sans[1], 26))
        im.save(tmp_path/f'{n}.png')
    found = captcha_read('base', str(tmp_path), solve=True, alphabet='0123456789+-x=?')
    assert [o.text for o in found] == ['8', '28'] and all(o.confidence > .5 for o in found)
    assert [line.split('\t')[1] for line in capsys.readouterr().out.splitlines()] == ['8', '28']
