"What may be known about a text before it is read"
import warnings

import pytest

from captcha_fastai.core import CaptchaError, Vocab
from captcha_fastai.read.constraint import Constraint, make_trie, parse_length, same_groups


@pytest.fixture
def vocab(): return Vocab('abc012O')


def accepted(c, *texts): return [c.accepts(c.to[c.vocab.encode(t)].tolist()) for t in texts]
def spelled(groups, chars): return [''.join(chars[i-1] for i in g) for g in groups]


@pytest.mark.parametrize('length, ends', [(4, (4, 4)), ('4', (4, 4)), ('4-6', (4, 6)), ((2, None), (2, None)), ([4, 6], (4, 6)), (4., (4, 4)), (0, (0, 0))])
def test_a_length_is_a_number_or_a_range(length, ends): assert parse_length(length) == ends


@pytest.mark.parametrize('length, why', [('four', 'such as 4-6'), ('6-4', 'fewest characters come first'), (4.7, 'length is 4.7'), (float('inf'), 'such as 4-6'),
                                         (10**12, 'from 0 to 10000'), (-1, 'length is -1'), ((1, 2, 3), 'such as 4-6'), ((None, 2), 'such as 4-6')])
def test_a_length_that_cannot_be_is_refused(length, why):
    with pytest.raises(CaptchaError, match=why): parse_length(length)


def test_accents_of_a_pattern_are_composed():
    e = Constraint(Vocab('eé'), pattern='[e\u0301]')                       # decomposed, as macOS has it
    assert e.accepts(e.to[[2]]) and not e.accepts(e.to[[1]])


def test_a_length_and_an_alphabet_say_where_a_text_may_end():
    c = Constraint(Vocab('abc1'), length='1-2', alphabet='ab1')
    assert accepted(c, '', 'a', 'b1', 'ab1', 'c', 'ac') == [False, True, True, False, False, False]


def test_without_an_upper_end_a_text_may_go_on():
    c = Constraint(Vocab('ab'), length=(2, None), alphabet='a')
    assert accepted(c, 'a', 'aa', 'aaaaaa', 'ab') == [False, True, True, False]
    c = Constraint(Vocab('ab'), length=(2, None))
    assert accepted(c, 'a', 'ab', 'ababab') == [False, True, True]


def test_a_pattern_and_a_length_must_both_hold():
    c = Constraint(Vocab('ab'), pattern='a+b*', length='2-3')
    assert accepted(c, 'a', 'aa', 'ab', 'abb', 'aabb', 'ba') == [False, True, True, True, False, False]


def test_a_group_is_written_so_that_the_rest_fits():
    "The first `0` or `O` decides what the second one must be"
    c = Constraint(Vocab('0O'), pattern='0O|O0|OO0', alike='0O')
    assert accepted(c, '00', 'O0O', '0', '0000') == [True, True, False, False]
    assert [c.vocab.decode(c.write([1]*n)) for n in (2, 3)] == ['0O', 'OO0']


@pytest.mark.parametrize('chars, options, groups', [('0Oo1lab', dict(alike=True), ['0Oo', '1l', 'a', 'b']), ('aBAb', dict(fold=True), ['aA', 'bB']),
                                                    ('0OQ', dict(alike=['0O', 'OQ']), ['0OQ']), ('abc', {}, ['a', 'b', 'c']), ('0OoQ', dict(fold=True, alike='0O'), ['0Oo', 'Q'])])
def test_characters_that_count_as_one_are_a_group(chars, options, groups): assert spelled(same_groups(chars, **options), chars) == groups


def test_groups_are_lists_of_ids(): assert same_groups('abc') == [[1], [2], [3]]


def test_same_gives_the_first_of_each_group():
    c = Constraint(Vocab('123'), alike='1l')
    assert [c.same(o) for o in ('l23', '123', '?23')] == ['123', '123', '?23']
    c = Constraint(Vocab('0123456789abcdefghijklmnopqrstuvwxyz'), fold=True, alike='0O,1lI')      # the alphabet has no O
    assert [c.same(o) for o in ('0oO', 'i1L')] == ['000', '111']


def test_a_trie_shares_prefixes():
    assert [o.tolist() for o in make_trie([(1, 2), (1, 3), (2,)])] == [[0, 0, 1, 1, 0], [0, 1, 2, 3, 2], [2, 3, 4]]


def test_a_pattern_decides_what_a_group_is_written_as(vocab):
    c = Constraint(vocab, pattern=r'[a-c]{2}\d{1,2}', alike=['0O'])
    assert accepted(c, 'ab01', 'abO', 'ab', 'a001', 'ab012') == [True, True, False, False, False]
    assert vocab.decode(c.write(c.to[vocab.encode('abO1')])) == 'ab01'
    assert c.grouped and c.members == [[0], [1], [2], [3], [4, 7], [5], [6]]


def test_a_lexicon_allows_its_words_only(vocab):
    c = Constraint(vocab, lexicon=['ab1', 'ab2', 'b'], length='1-3')
    assert accepted(c, 'ab1', 'ab', 'b') == [True, False, True] and not c.free


def test_a_lexicon_decides_what_a_word_is_written_as():
    c = Constraint(Vocab('0O1'), lexicon=['O1'], alike='0O')
    assert c.vocab.decode(c.write(c.to[[1, 3]])) == 'O1'
    c = Constraint(Vocab('0O1'), lexicon=['O1'], alike='0O', pattern=r'\d\d')          # the pattern wants a digit
    assert c.vocab.decode(c.write(c.to[[1, 3]])) == '01'


def test_a_word_may_have_look_alikes_that_the_model_lacks():
    assert [*Constraint(Vocab('0123'), lexicon=['O12', '123'], alike='0O').words] == [(1, 2, 3), (2, 3, 4)]


def test_only_a_constraint_without_rules_is_free(vocab):
    assert Constraint(vocab).free and Constraint(vocab, alike='0O').free
    for rules in (dict(length=3), dict(alphabet='ab'), dict(pattern='ab'), dict(lexicon=['ab'])): assert not Constraint(vocab, **rules).free


@pytest.mark.parametrize('rules, why', [
    (dict(alphabet='xyz'), 'knows none of it'), (dict(length=0), 'no text but the empty one'), (dict(pattern=''), 'no text but the empty one'),
    (dict(pattern=[]), 'no text but the empty one'), (dict(pattern=r'\d{3}', length=4), 'contradict each other'), (dict(pattern='(ab)*', length=3), 'contradict each other'),
    (dict(pattern='a?', length=0), 'no text but the empty one'),
    (dict(pattern=r'a\d', alphabet='abc'), "place 2 allows '012', none of 'abc'"), (dict(lexicon='words.txt'), 'give a list of words'),
    (dict(lexicon=['ab', 'ba'], length=3), 'none of its 2 words')])
def test_an_impossible_constraint_is_an_error_at_once(vocab, rules, why):
    with pytest.raises(CaptchaError, match=why): Constraint(vocab, **rules)


@pytest.mark.parametrize('rules, why', [(dict(lexicon=['007', 7]), '7 is int, not text'), (dict(alphabet=['a', 'b']), 'give a text'), (dict(alike=5), 'give groups'),
                                        (dict(length=4.7), 'length is 4.7')])
def test_rules_that_are_no_text_are_refused(rules, why):
    with pytest.raises(CaptchaError, match=why): Constraint(Vocab('abc0127'), **rules)


def test_words_that_cannot_be_read_are_a_warning(vocab):
    with pytest.warns(UserWarning, match="1 words, such as 'xy', are left out"): Constraint(vocab, lexicon=['ab', 'xy'])


def test_words_in_another_case_count_if_case_is_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        c = Constraint(Vocab('abc'), lexicon=['AB', 'C'], fold=True)
    assert accepted(c, 'ab', 'c', 'ac') == [True, True, False]
