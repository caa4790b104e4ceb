"Texts that run from right to left"
import numpy as np
import pytest
from hypothesis import given, strategies as st

from captcha_fastai.core import CaptchaError, Spec, Vocab, nfc
from captcha_fastai.writing import runs_left, turned_positions, visual_order
from captcha_fastai.read.reader import Reader, readings
from captcha_fastai.read.rtl import turned_pattern, turned_rules

hebrew = 'אבגדהו'


@given(st.text('אבגش٣12.,:+-/ abZ()\u05b8', max_size=20))
def test_turning_twice_leads_back(text):
    assert visual_order(visual_order(text)) == text
    assert sorted(turned_positions(text)) == [*range(len(text))]


@pytest.mark.parametrize('typed, seen', [
    ('אבג', 'גבא'), ('א12', '12א'), ('12א34', '34א12'), ('א1.5ב', 'ב1.5א'), ('א.ב', 'ב.א'), ('אab cdב', 'בab cdא'), ('אb2ג', 'גb2א'), ('א1.2b', '2b.1א'), ('אa-b1 cב', 'בa-b1 cא'),
    ('123', '123'), ('', ''), ('ש٣٤', '٣٤ש')])
def test_numbers_and_latin_words_keep_their_order(typed, seen): assert visual_order(typed) == seen


@pytest.mark.parametrize('text, left', [('שלום', True), ('سلام 42', True), ('abc', False), ('123', False), ('', False), ('אבa', True), ('אabc', False)])
def test_most_letters_tell_the_direction(text, left): assert runs_left(text) is left


def test_a_vocab_encodes_in_visual_order():
    v = Vocab(hebrew + '12')
    assert v.rtl and v.encode('אב12') == [7, 8, 2, 1] and v.decode([7, 8, 2, 1, 0]) == 'אב12'
    assert not Vocab('abc').rtl and Vocab('abc').encode('ab') == [1, 2]
    assert Vocab(hebrew, rtl=False) != Vocab(hebrew) == Vocab(hebrew, True)


def test_a_model_of_before_reads_as_it_did():
    old = Spec.from_json(f'{{"chars": "{hebrew}", "max_len": 3}}')
    assert not old.rtl and old.vocab.encode('אב') == [1, 2]


def model_that_sees(ids, chars, p=.9):
    "A reader that meets these ids from left to right; each is a little less certain than the one before"
    V, T = len(chars) + 1, 2*len(ids)
    probs = np.full((1, T, V), 1e-6)
    for n, i in enumerate(ids):
        share = p - .1*n
        probs[0, 2*n, i], probs[0, 2*n, i % len(chars) + 1], probs[0, 2*n+1, 0] = share, 1 - share, 1.
    logp = np.log(probs/probs.sum(-1, keepdims=True)).astype(np.float32)
    return Reader(lambda x: logp, Spec(chars, 8, height=8, width=32, rtl=True))


image = np.full((8, 32), 255, np.uint8)


def test_readings_are_as_typed_in_text_characters_and_nbest():
    read = model_that_sees([7, 8, 2, 1], hebrew + '12')(image, nbest=2)
    assert read.text == 'אב12'
    assert np.allclose(read.chars, [.6, .7, .9, .8], atol=.05)          # seen: 1 2 ב א
    assert read.nbest[0][0] == read.text and read.nbest[1][0] == 'בב12'


@pytest.mark.parametrize('rules', [dict(lexicon=['אגד', 'דאב']), dict(pattern='[אבד][בגה]ד'), dict(pattern=['אד', 'ג', 'ד'])])
def test_rules_are_given_as_typed(rules):
    assert model_that_sees([4, 3, 1], hebrew)(image, **rules).text == 'אגד'
    assert turned_rules(Spec(hebrew, 3), rules) == rules, 'only where texts run to the left'


@pytest.mark.parametrize('pattern, turned', [
    ('אב[גד]{2}', '[גד]{2}בא'), (r'\d{3}', r'\d{3}'), (r'(א|בג)?ד{1,2}', 'ד{1,2}(א|גב)?'), ('א|בג', 'א|גב'), ([hebrew, 'א'], ['א', hebrew]), ('', '')])
def test_patterns_are_turned(pattern, turned): assert turned_pattern(pattern, hebrew + '123') == turned


def test_a_pattern_of_both_directions_is_refused():
    with pytest.raises(CaptchaError, match='mixes characters'): model_that_sees([1], hebrew + '12')(image, pattern=r'[א-ת]\d')
    assert turned_pattern('.{3}', hebrew) == '.{3}'
