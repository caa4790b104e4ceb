"Texts: what cannot be seen, what looks alike, what is rare"
import warnings

import pytest

from captcha_fastai.core import LabelError, Spec, visible
from captcha_fastai.data.texts import (alphabet_of, clean_labels, look_alikes, no_labels, normalise, rare_characters, rare_lengths, unify,
                                       warn_of_doubts)

DIGITS = [f'{i*7919 % 10000:04}' for i in range(60)]


def said(f, *args):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        f(*args)
    return '\n'.join(str(o.message) for o in w)


# As one sees it

@pytest.mark.parametrize('written', ['ab12\u200e', 'ab\u200b12', '\ufeffab12', 'ab\xad12', 'ab12\u00a0', ' ab12\t', 'ａｂ１２', 'ab12\u3000', 'a\u2060b12',
                                     '\u202aab12\u202c', 'ab\u200d12', 'ab12\ufe0f', '\u2009ab12\r', 'ab\x0012', 'ab\u034f12', '\u3164ab12', 'ab\u200c12'])
def test_what_cannot_be_seen_is_no_character(written):
    assert visible(written) == normalise(written) == Spec('ab12', 4).text(written) == 'ab12'


@pytest.mark.parametrize('text', ['can\u00e9', 'mi\u200c\u062e', '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645', '\u0915\u094d\u200d\u0937', '你好，世界', 'a b', 'ｱ', 'ס\u05b0'])
def test_what_is_seen_stays(text):
    if text.startswith('mi'): text = text[3:]
    assert visible(text) == text


def test_wide_signs_among_plain_ones_become_plain(): assert visible('３＋５＝？') == '3+5=?'


def test_an_alphabet_keeps_its_space(): assert alphabet_of('a\u200e ') == 'a ' and alphabet_of(' a') == ' a'


def test_no_text_is_named():
    with pytest.raises(LabelError, match='0.png: the label 7 is int'): clean_labels(['0.png'], [7])


# What looks alike

@pytest.mark.parametrize('texts, pairs', [
    (['2bcd', 'fсx3', 'bdgm'], {'с': 'c'}), (['Abde', 'Βfgh', 'Οqrz'], {'Β': 'B', 'Ο': 'O'}),                            # strays
    (['Жаба', 'сок', 'лиc'], {'c': 'с'}), (['λόγοc', 'νους'], {}),                                                       # and the other way round
    (['А123ВС', 'К777МН', 'Е001КХ'], {}), (['А123ВС', 'К777МН', 'E001КХ'], {'E': 'Е'}),                                  # plates: all look alike
    (['шапка', 'сова'], {}), (['λόγος', 'ουρα'], {}), (['שלום', 'אבג'], {}), (['1234', '5678'], {}),
    (['сова', 'жук', 'bed', 'gold'], {}), (['1−2', '3-4', '5-6'], {'−': '-'}), (['1−2', '3−4'], {})])
def test_look_alikes_are_what_the_set_is_written_in(texts, pairs): assert look_alikes(texts) == pairs


def test_one_wrong_letter_makes_no_script():
    texts = [f'b{i}d' for i in range(100)]
    assert look_alikes([*texts, 'bжc', 'сb']) == {'с': 'c'}


def test_letters_that_are_nearly_alike_are_errors_if_they_are_few():
    texts = [f'b{i}x' for i in range(100)]
    assert look_alikes([*texts, 'bχ']) == {'χ': 'x'} and look_alikes([*texts, *['bχ']*9]) == {}


def test_an_alphabet_decides():
    assert unify(['с7'], 'abc7') == ['c7'] and unify(['с7'], 'abcс7') == ['с7']
    assert unify(['сова'], 'abc') == ['сова']


def test_every_odd_character_is_named_with_its_name_count_and_file():
    names = [f'{i}.png' for i in range(8)]
    message = said(clean_labels, names, ['2bcd', 'fсx3', 'bd\u200egm', 'bd\u200bgm', 'ab\u00a0', 'ab ', '\uff12b', 'bd\u200egm'])
    for line in ("'с' (U+0441 CYRILLIC SMALL LETTER ES), in 1 labels: taken for 'c', which it looks like; 1.png",
                 "(U+200E LEFT-TO-RIGHT MARK), in 2 labels: left out, it cannot be seen; 2.png, 7.png",
                 "(U+200B ZERO WIDTH SPACE), in 1 labels: left out, it cannot be seen; 3.png", '(U+00A0 NO-BREAK SPACE), in 1 labels: left out at the ends; 4.png',
                 "' ' (U+0020 SPACE), in 1 labels: left out at the ends; 5.png", "(U+FF12 FULLWIDTH DIGIT TWO), in 1 labels: read as '2'; 6.png"):
        assert line in message
    assert len(message.splitlines()) == 7


def test_letters_that_look_alike_in_a_set_of_both_scripts_are_kept_and_named():
    texts = ['сова', 'жук', 'bed', 'cold']
    message = said(clean_labels, 'abcd', texts)
    assert "'с' (U+0441 CYRILLIC SMALL LETTER ES), in 1 labels: kept, though it looks like 'c' (U+0063 LATIN SMALL LETTER C); a" in message
    assert 'taken for' not in message


@pytest.mark.parametrize('texts', [['2bcd', 'fgx3'], ['Жаба', 'сок'], ['שלום'], ['cafe\u0301'], ['a b', '']])
def test_usual_labels_are_left_alone_without_a_word(texts):
    assert said(clean_labels, texts, texts) == ''
    assert [o.replace('e\u0301', 'é') for o in texts] == clean_labels(texts, texts)


# What is rare

def test_a_letter_among_digits_and_another_length_are_rare():
    assert (rare_characters([*DIGITS, '12O4', '12']), rare_lengths([*DIGITS, '12O4', '12'])) == (['O'], [2])
    message = said(warn_of_doubts, [f'{i}.png' for i in range(62)], [*DIGITS, '12O4', '12'])
    assert "'O' (U+004F LATIN CAPITAL LETTER O) in 1 of 62 labels: 60.png ('12O4')" in message and "length 2 in 1 of 62 labels: 61.png ('12')" in message


def test_a_rare_letter_among_as_many_others_is_named():
    texts = [''.join('abcdefgh'[(i*j + j) % 8] for j in range(5)) for i in range(200)]
    assert rare_characters(texts) == [] and rare_characters([*texts, 'abqde']) == ['q']


@pytest.mark.parametrize('texts', [DIGITS, ['ab', 'cd'], [chr(0x4e00 + i) for i in range(400)], [], [''], [str(10**(i % 6)) for i in range(120)],
                                   [f'{chr(97 + i % 26)}{chr(65 + i*7 % 26)}{i % 10}' for i in range(60)]])
def test_usual_sets_have_nothing_rare(texts): assert said(warn_of_doubts, texts, [o or 'x' for o in texts]) == ''


def test_empty_labels_are_counted_once():
    assert said(warn_of_doubts, ['a', 'b', 'c'], ['12', '', '']) == '2 of 3 labels are empty: they stand for images with nothing on them; b, c'


# What only counts

@pytest.mark.parametrize('texts', [[f'IMG_{i:04}' for i in range(10)], [f'DSC{i:05}' for i in range(400, 420)], [str(i) for i in range(5000, 5040)],
                                   [f'frame{i}' for i in range(20)], [f'20240101{i*37 % 997:06}' for i in range(20)], [f'{i*2**70:032x}' for i in range(99, 120)]])
def test_texts_that_count_or_begin_alike_or_are_random_are_no_labels(texts): assert no_labels(texts)[0]


@pytest.mark.parametrize('texts', [DIGITS, [f'IMG_{i:04}' for i in range(9)], [f'{i:02}' for i in range(100)], ['7']*20, [f'{7**(i+25) % 10**20:020}' for i in range(20)], [f'ab{i}' for i in range(20)]])
def test_other_texts_may_be_labels(texts): assert no_labels(texts) == ('', '')
