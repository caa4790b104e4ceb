"Patterns and their automata, against Python's regular expressions"
import itertools
import re

import numpy as np
import pytest

from captcha_fastai.core import CaptchaError
from captcha_fastai.read import automaton
from captcha_fastai.read.automaton import EMPTY, NOTHING, Automaton, Chars, both, either, parse_pattern, repeat, seq
from helpers import random_pattern


def machine(pattern, chars='abc', **kw): return Automaton(parse_pattern(pattern, chars, **kw), ['', *chars])
def texts_of(o, chars, most):
    "All texts of up to so many characters that an automaton accepts"
    all_ids = (ids for n in range(most+1) for ids in itertools.product(range(1, len(chars)+1), repeat=n))
    return {''.join(chars[i-1] for i in ids) for ids in all_ids if o.accepts(ids)}


def test_a_pattern_allows_what_regular_expressions_allow():
    rng = np.random.default_rng(0)
    words = [''.join(o) for n in range(5) for o in itertools.product('abc', repeat=n)]
    for _ in range(200):
        pattern = random_pattern(rng)
        assert texts_of(machine(pattern), 'abc', 4) == {w for w in words if re.fullmatch(pattern, w)}, pattern


@pytest.mark.parametrize('pattern, chars, texts', [
    (r'\d{1,2}[+\-x]\d=\?', '1+-x=?', {f'{a}{s}1=?' for a in ('1', '11') for s in '+-x'}),
    (r'a\.b\?', 'ab.?', {'a.b?'}), ('(a|bc)?c', 'abc', {'c', 'ac', 'bcc'}), ('', 'ab', {''}), ('a|', 'ab', {'', 'a'}), ('()', 'ab', {''}), ('(a?){2,3}', 'ab', {'', 'a', 'aa', 'aaa'}),
    ('[^a-b]', 'abc', {'c'}), (['ab', 'c'], 'abc', {'ac', 'bc'}), ([], 'ab', {''}), (r'[\]a]', 'a]', {'a', ']'}), ('a{0}b', 'ab', {'b'})])
def test_every_part_of_a_pattern(pattern, chars, texts): assert texts_of(machine(pattern, chars), chars, 6) == texts


@pytest.mark.parametrize('pattern', ['[ab]', ['ab']])
def test_a_pattern_may_ignore_case(pattern): assert parse_pattern(pattern, 'abAB', fold=True) == Chars(frozenset('abAB'))


@pytest.mark.parametrize('pattern, chars, why', [
    ('a^b', 'ab', r"'\^b' is not understood \(from place 2\): give characters"), ('[b-a]', 'ab', 'is not understood'), ('*a', 'ab', 'from place 1'), ('a**', 'ab', 'from place 3'),
    ('a+?', 'ab', 'from place 3'), ('(?:a)', 'ab', 'from place 2'), ('a)b', 'ab', 'from place 2'), ('a(b', 'ab', 'the bracket at place 2 is not closed'), ('a\\', 'ab', 'from place 2'),
    (r'\d', 'abc', "no character of the alphabet 'abc' fits"), ('a{3,1}', 'ab', r"the range '\{3,1\}' must go up"), ('a{1000000000000}', 'ab', 'is not understood'), ('a{2,}', 'ab', 'is not understood'),
    ('('*200 + 'a' + ')'*200, 'ab', 'more than 100 groups'), (5, 'ab', 'give a text, or a list'), ([1, 2], 'ab', '1 is int, not text'), ('[ab', 'ab', 'from place 1')])
def test_a_pattern_that_cannot_be_is_refused(pattern, chars, why):
    with pytest.raises(CaptchaError, match=why): parse_pattern(pattern, chars)


def test_only_what_the_alphabet_leaves_is_allowed():
    assert parse_pattern('[a-c]', 'abc', allowed={'b'}) == Chars(frozenset('b'))
    with pytest.raises(CaptchaError, match="place 1 allows 'a', none of 'bc'"): parse_pattern('a', 'abc', allowed=set('bc'))


def test_expressions_have_one_form():
    a, b = (Chars(frozenset(o)) for o in 'ab')
    assert seq(a, EMPTY) == a and seq(a, NOTHING) == NOTHING and seq(seq(a, b), a) == seq(a, b, a)
    assert either([a, NOTHING]) == a and either([a, a]) == a and either([either([a, b]), a]) == either([a, b]) and either([]) == NOTHING
    assert repeat(a, 0, 0) == EMPTY and repeat(a, 1, 1) == a
    assert both(a, NOTHING) == NOTHING and both(repeat(a, 0, 2), EMPTY) == EMPTY and both(a, EMPTY) == NOTHING


def test_a_length_makes_as_many_states_as_there_are_characters():
    o = Automaton(repeat(Chars(frozenset('ab')), 2, 4), ['', 'a', 'b'])
    assert o.ends.tolist() == [False, False, True, True, True, False] and o.step[:, 1].tolist() == [1, 2, 3, 4, 5, 5]
    assert o.depth.tolist() == [0, 1, 2, 3, 4, 5] and o.step[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_symbol_may_stand_for_several_characters():
    o = Automaton(parse_pattern('ab|Bb', 'abAB'), ['', 'aA', 'bB'])
    assert [o.accepts(ids) for ids in ([1, 2], [2, 2], [2, 1], [1])] == [True, True, False, False]


def test_too_many_states_are_refused(monkeypatch):
    monkeypatch.setattr(automaton, 'most_states', 100)
    with pytest.raises(CaptchaError, match='more than 100 states'): machine('.*a.{15}')
