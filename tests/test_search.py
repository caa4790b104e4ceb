"The most probable texts, against all paths, against torch, and on input at the edges"
import itertools
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from captcha_fastai.core import CaptchaError, ModelError, Vocab
from captcha_fastai.read import search as module
from captcha_fastai.read.beam import prefix_beams
from captcha_fastai.read.confidence import char_probs
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.read.ctc import best_path, exact, padded, text_logp
from captcha_fastai.read.search import search
from helpers import random_pattern


def random_logp(rng, *shape, peak=2., never=0.):
    "Log-probabilities of random logits, a share of them -inf (never all of a step)"
    z = rng.normal(size=shape)*peak
    z[..., 1:][rng.random((*shape[:-1], shape[-1]-1)) < never] = -np.inf
    return z - np.logaddexp.reduce(z, -1, keepdims=True)


def text_probs(logp, kind):
    "Probability of every text, by all paths"
    paths = np.array(list(itertools.product(range(logp.shape[1]), repeat=len(logp))))
    ps, out = np.exp(logp[np.arange(len(logp)), paths].sum(1)), {}
    for path, p in zip(paths.tolist(), ps):
        ids = tuple(k for k, _ in itertools.groupby(path) if k) if kind == 'ctc' else tuple(k for k in path if k)
        out[ids] = out.get(ids, 0.) + p
    return out


def said(found): return [[(o.ids, o.p) for o in f] for f in found]


rules = [{}, {'length': 1}, {'length': 2}, {'length': '1-2'}, {'length': '2-3'}, {'length': (2, None)}, {'alphabet': 'ab'}, {'alphabet': 'ac'},
         {'alphabet': 'a', 'length': '0-3'}, {'pattern': '[ab]c'}, {'pattern': 'a[bc]{1,2}'}, {'pattern': 'a[abc]{1,3}'}, {'pattern': ['ab', 'a', 'abc'], 'length': '0-2'},
         {'lexicon': ['ab', 'ba', 'c', 'cab', 'aa']}, {'lexicon': ['ab', 'cc', 'b']}, {'lexicon': ['b'], 'length': '1-2'}]
blank = np.log(np.full((3, 4), [1-3e-9, 1e-9, 1e-9, 1e-9]))


@pytest.mark.filterwarnings('ignore:lexicon')
@pytest.mark.parametrize('kind', ['ctc', 'heads'])
def test_texts_and_probabilities_are_those_of_all_paths(kind):
    "The best texts, their exact log-probabilities and their posteriors, free and under every kind of constraint: 2,000 small cases"
    rng, cases = np.random.default_rng(0), 0
    while cases < 1000:
        T, V, kw = rng.integers(1, 6), rng.integers(2, 5), rules[rng.integers(len(rules))]
        try: c = Constraint(Vocab('abc'[:V-1]), **kw)
        except CaptchaError: continue          # asks for letters that this alphabet does not have
        logp = random_logp(rng, T, V, never=.1*rng.integers(3))
        truth = {k: p for k, p in text_probs(logp, kind).items() if c.accepts(k) and p > 0}
        cases += 1
        if not truth:
            try: assert search(logp, kind, constraint=c) == []
            except CaptchaError: pass          # no text fits into T steps at all
            continue
        found = search(logp, kind, beam=100, nbest=3, constraint=c)
        best, whole = sorted(truth.values(), reverse=True)[:3], sum(truth.values())
        assert np.allclose([math.exp(o.logp) for o in found], best, rtol=1e-9), (kw, logp)
        assert np.allclose([o.p for o in found], np.array(best)/whole, rtol=1e-6)
        assert all(np.isclose(math.exp(o.logp), truth[tuple(o.ids)], rtol=1e-9) for o in found)
        assert math.isclose(search(logp, kind, beam=100, constraint=c)[0].logp, found[0].logp, rel_tol=1e-9)


def check_against_brute_force(seed):
    "The best texts under a random pattern, and perhaps a length and characters that count as one, by all paths and by Python's `re`"
    rng = np.random.default_rng(seed)
    T, V, kind = rng.integers(1, 6), rng.integers(3, 5), rng.choice(['ctc', 'heads'])
    chars, pattern = 'abc'[:V-1], random_pattern(rng, 'abc'[:V-1])
    rules = {'pattern': pattern} | [{}, {'length': '1-3'}, {'alike': 'ab'}][rng.integers(3)]
    try: c = Constraint(Vocab(chars), **rules)
    except CaptchaError: return 0              # no text at all, or a class that holds none of two letters
    logp = random_logp(rng, T, V, never=.1*rng.integers(3))
    def fits(ids):
        spellings = itertools.product(*['ab' if 'alike' in rules and chars[c.members[g][0]-1] == 'a' else chars[c.members[g][0]-1] for g in ids])
        return ('length' not in rules or 1 <= len(ids) <= 3) and any(re.fullmatch(pattern, ''.join(o)) for o in spellings)
    of_groups = module.grouped(logp[None], c)[0]
    truth = {ids: p for ids, p in text_probs(of_groups, kind).items() if p > 0 and fits(ids)}
    try: found = search(logp, kind, beam=100, nbest=3, constraint=c)
    except CaptchaError as e:
        assert 'fits into' in str(e) and not truth
        return 1
    best, whole = sorted(truth.values(), reverse=True)[:3], sum(truth.values())
    assert np.allclose([math.exp(o.logp) for o in found], best, rtol=1e-9) and np.allclose([o.p for o in found], np.array(best)/whole, rtol=1e-6), (seed, rules)
    for o in found:
        assert math.isclose(math.exp(o.logp), truth[tuple(c.to[o.ids].tolist())], rel_tol=1e-9), (seed, rules)
        assert re.fullmatch(pattern, Vocab(chars).decode(o.ids)), (seed, rules)
    for o in found[:1]:
        ids = tuple(c.to[o.ids].tolist())
        for j, share in enumerate(char_probs(logp[None], [o.ids], kind, c)[0]):
            others = [(*ids[:j], k, *ids[j+1:]) for k in range(1, of_groups.shape[1])]
            assert math.isclose(share, truth[ids]/sum(truth.get(o, 0) for o in others), rel_tol=1e-6), (seed, rules)
    return 1


def test_the_search_follows_every_pattern_exactly():
    "300 random cases here; 2,000 were run once, all equal"
    assert sum(map(check_against_brute_force, range(330))) >= 300


def test_ten_prefixes_are_enough_nearly_always():
    rng, n, hits = np.random.default_rng(0), 1000, dict(greedy=0, beam10=0, beam100=0)
    for _ in range(n):
        logp = random_logp(rng, rng.integers(1, 6), rng.integers(2, 5))
        truth = text_probs(logp, 'ctc')
        found = dict(greedy=best_path(logp[None])[0], beam10=search(logp)[0].ids, beam100=search(logp, beam=100)[0].ids)
        for k, ids in found.items(): hits[k] += truth[tuple(ids)] > max(truth.values())*(1-1e-9)
    assert hits['greedy'] < hits['beam10'] and hits['beam10'] >= .997*n and hits['beam100'] == n


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 12), st.integers(1, 6))
def test_the_best_are_sorted_distinct_and_exact(seed, T, V, nbest):
    logp = random_logp(np.random.default_rng(seed), 2, T, V)
    for lp, found in zip(logp, search(logp, nbest=nbest)):
        assert 1 <= len(found) <= nbest and sum(o.p for o in found) <= 1 + 1e-9
        assert [o.logp for o in found] == sorted((o.logp for o in found), reverse=True)
        assert len({tuple(o.ids) for o in found}) == len(found)
        for o in found:
            texts = torch.tensor([o.ids], dtype=torch.long).view(1, -1)
            theirs = -F.ctc_loss(torch.tensor(lp)[:, None], texts, [T], [len(o.ids)], reduction='sum').item()
            assert math.isclose(o.logp, theirs, abs_tol=1e-6) and math.isclose(o.p, math.exp(o.logp), rel_tol=1e-9)
        assert found[0].logp >= text_logp(lp[None], best_path(lp[None]))[0]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(2, 10), st.sampled_from([o for o in rules if not {'pattern', 'lexicon'} & set(o)]))
def test_a_wider_beam_is_not_worse(seed, T, V, kw):
    "No theorem for beams as such, but greedy first and exact scores make it hold; these examples are fixed"
    lp = random_logp(np.random.default_rng(seed), T, V)
    try: best = [search(lp, beam=k, constraint=Constraint(Vocab('abcdefghi'[:V-1]), **kw)) for k in (1, 3, 10, 50)]
    except CaptchaError: return
    best = [o[0].logp if o else -np.inf for o in best]
    assert all(a <= b + 1e-9 for a, b in zip(best, best[1:]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(6, 14), st.integers(2, 4))
def test_doubled_letters_that_just_fit_are_found(seed, T, n):
    "Exactly n letters out of one letter need 2n-1 steps; the search must not run into dead ends"
    c, lp = Constraint(Vocab('ab'), length=n, alphabet='a'), random_logp(np.random.default_rng(seed), T, 3)
    if T < 2*n-1:
        with pytest.raises(CaptchaError, match='fits into'): search(lp, constraint=c)
    else:
        (found,) = search(lp, beam=2, constraint=c)
        assert found.ids == [1]*n and math.isclose(found.p, 1, rel_tol=1e-9)


def test_a_model_that_is_certain_has_one_text():
    assert search(blank)[0].ids == [] and search(blank)[0].p > .99
    assert search(blank[:1])[0].ids == [] and len(search(blank[:1], nbest=9)) == 4
    confident = np.full((5, 4), -np.inf)
    confident[[0, 1, 2, 3, 4], [1, 0, 1, 2, 2]] = 0.
    assert [(o.ids, o.p) for o in search(confident, nbest=5)] == [([1, 1, 2], 1.)]


def test_there_may_be_fewer_texts_than_wanted():
    found = search(np.log([[.6, .4], [.6, .4]]), nbest=3)
    assert [o.ids for o in found] == [[1], []] and [o.p for o in found] == pytest.approx([.64, .36])


def test_no_image_and_no_character_are_no_error():
    assert search(np.zeros((0, 5, 3))) == []
    assert search(np.zeros((2, 3, 1))) == [[([], 0., 1.)]]*2, 'no symbol but the blank'


def test_lists_are_taken_as_arrays_are():
    two_steps = np.log([[.6, .4], [.6, .4]])
    assert search(two_steps.tolist()) == search(two_steps)
    assert search([two_steps.tolist()]) == search(two_steps[None])


@pytest.mark.parametrize('bad, why', [(np.full((1, 2, 3), np.nan), 'NaN'), (np.zeros((1, 2, 3)), 'adds up to 3, not 1'), (np.ones((1, 2, 3)), 'above 0'),
                                      (np.zeros((2,)), 'shape'), (np.zeros((1, 0, 3)), 'shape'), (-np.ones((1, 2, 9)), 'log_softmax')])
def test_what_is_no_log_probability_is_refused(bad, why):
    with pytest.raises(ModelError, match=why): search(bad)


@pytest.mark.parametrize('options, why', [(dict(beam=0), 'beam is 0'), (dict(nbest=1.5), 'nbest is 1.5: it must be a whole number'), (dict(threads=-1), 'threads is -1'),
                                          (dict(beam=10_001), 'from 1 to 10000'), (dict(kind='CTC'), 'must be')])
def test_options_that_make_no_sense_are_refused(options, why):
    with pytest.raises(CaptchaError, match=why): search(blank, **options)


def test_a_constraint_for_another_alphabet_is_refused():
    with pytest.raises(ModelError, match='the constraint is for 3 symbols'): search(blank, constraint=Constraint(Vocab('ab'), length=1))


@pytest.mark.parametrize('kw', [dict(pattern='aab'), dict(length=4), dict(lexicon=['abca'])])
def test_a_constraint_that_fits_into_no_model_is_refused(kw):
    with pytest.raises(CaptchaError, match='fits into the 3 steps'): search(blank, constraint=Constraint(Vocab('abc'), **kw))


def test_a_constraint_may_leave_nothing_in_one_image():
    lp = np.full((2, 3), -np.inf)
    lp[:, 1] = 0.
    assert search(lp, constraint=Constraint(Vocab('ab'), alphabet='b', length=1)) == []


@pytest.mark.parametrize('V', [8000, 40])
def test_large_alphabets_and_long_lexicons(V):
    rng, chars = np.random.default_rng(0), ''.join(map(chr, range(0x4e00, 0x4e00+V-1)))
    lp = random_logp(rng, 20, 12, V, peak=4.)
    assert all(math.isclose(o.logp, text_logp(lp[i:i+1], [o.ids])[0], abs_tol=1e-9) for i, f in enumerate(search(lp, nbest=2)) for o in f)
    words = {''.join(rng.choice(list(chars), 4)) for _ in range(3000)}
    c = Constraint(Vocab(chars), lexicon=sorted(words))
    ids = [Vocab(chars).encode(w) for w in sorted(words)]
    logps = exact(lp[:1], np.zeros(len(ids), int), *padded(ids), True, fast=True)
    (best,) = search(lp[0], constraint=c)
    assert best.ids == ids[logps.argmax()] and math.isclose(best.p, math.exp(logps.max() - np.logaddexp.reduce(logps)), rel_tol=1e-6)


def test_texts_of_probability_1e_1000_are_found_under_a_constraint():
    lp = random_logp(np.random.default_rng(0), 1, 40, 5, peak=600)
    found = search(lp[0], nbest=3, constraint=Constraint(Vocab('abcd'), pattern='a[bc]{3}d'))
    words = [''.join(w) for w in itertools.product('a', 'bc', 'bc', 'bc', 'd')]
    exact_all = text_logp(np.repeat(lp, len(words), 0), [Vocab('abcd').encode(w) for w in words])
    assert [o.logp for o in found] == pytest.approx(sorted(exact_all)[:-4:-1], rel=1e-9)


@pytest.mark.parametrize('fast', [False, True])
@pytest.mark.parametrize('T,ahead,length', [(20, 50, 16), (20, 130, 6), (40, 25, 20), (12, 300, 4)])
def test_far_from_what_the_model_says(T, ahead, length, fast):
    "The blank is ahead by many nats at every step, and still so many characters must be read"
    z = np.random.default_rng(0).normal(size=(T, 4))
    z[:, 0] += ahead
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    found = search(lp, beam=200, nbest=3, constraint=Constraint(Vocab('abc'), length=length), fast=fast)
    assert len(found) == 3 and all(len(o.ids) == length for o in found) and 0 < found[-1].p <= found[0].p <= 1
    rng, better = np.random.default_rng(1), 0
    for _ in range(300):                       # change one character or two: next to nothing near is better
        ids = list(found[0].ids)
        for i in rng.integers(0, length, 2): ids[i] = int(rng.integers(1, 4))
        better += text_logp(lp[None], [ids])[0] > found[0].logp + 1e-9
    assert better <= 3, 'a beam is no proof, but this is not one that lost its way'
    words = [''.join('abc'[k] for k in rng.integers(0, 3, min(length, 6))) for _ in range(20)]
    best = max(words, key=lambda w: text_logp(lp[None], [Vocab('abc').encode(w)])[0])
    assert Vocab('abc').decode(search(lp, constraint=Constraint(Vocab('abc'), lexicon=words), fast=fast)[0].ids) == best


def test_the_posterior_of_what_is_all_but_impossible():
    lp = np.log([[1., 0, 0, 0]]*2 + np.exp([[-1e9, -160., -161., -1e9]]*2))
    found = search(lp, 'heads', nbest=4, constraint=Constraint(Vocab('abc'), length=2, alphabet='ab'))
    assert [o.p for o in found] == pytest.approx([.5344, .1966, .1966, .0723], abs=1e-3)


def test_groups_are_written_as_the_models_own_symbols():
    v, lp = Vocab('0O8'), np.log([[.01, .29, .3, .4]])
    best, other = search(lp, nbest=2, constraint=Constraint(v, alike='0O', pattern='[A-Z8]'))
    assert (v.decode(best.ids), v.decode(other.ids)) == ('O', '8') and math.isclose(best.p, .59/.99)


@pytest.mark.parametrize('kw, text', [(dict(), '8'), (dict(alike=['0O']), '0'), (dict(alike=['0O'], pattern='[A-Z]'), 'O')])
def test_look_alikes_add_up_and_the_pattern_decides_which_is_written(kw, text):
    v = Vocab('0O8')
    assert v.decode(search(np.log([[.01, .29, .3, .4]]), constraint=Constraint(v, **kw))[0].ids) == text


def test_tensors_and_threads_change_nothing():
    lp = random_logp(np.random.default_rng(0), 700, 9, 6)
    want = said(search(lp, nbest=2, threads=1, fast=True))
    for other in (lp, torch.tensor(lp), torch.tensor(lp, requires_grad=True)):
        assert said(search(other, nbest=2, threads=3, fast=True)) == want
    assert [o.ids for o in search(lp[0].astype(np.float32), nbest=2)] == [ids for ids, _ in want[0]]


@pytest.mark.parametrize('kw', [None, dict(length=2), dict(alike='ab')])
@pytest.mark.parametrize('kind', ['ctc', 'heads'])
def test_machine_code_and_python_say_the_same(kind, kw):
    logps = random_logp(np.random.default_rng(0), 40, 6, 5)
    c = Constraint(Vocab('abcd'), **kw) if kw else None
    fast, slow = (search(logps, kind, nbest=3, constraint=c, fast=fast) for fast in (True, False))
    assert [[o.ids for o in f] for f in fast] == [[o.ids for o in f] for f in slow]
    assert np.allclose([o.logp for f in fast for o in f], [o.logp for f in slow for o in f], rtol=1e-9)


def test_machine_code_is_loaded_from_2000_items_on(monkeypatch):
    asked = []
    def spy(*args): asked.append(args[-1]); return prefix_beams(*args[:-1], False)
    monkeypatch.setattr(module, 'prefix_beams', spy)
    monkeypatch.setattr(module, 'exact', lambda *args, exact=module.exact: exact(*args[:-1], False))
    lp = np.log([[[.6, .4], [.6, .4]]])
    for n, fast in ((1999, None), (2000, None), (1, True), (2000, False)): search(lp.repeat(n, 0), threads=1, fast=fast)
    assert asked[0] is False and asked[-1] is False and asked[-2] is True and True in asked[1:-2]


def test_without_numba_the_same_texts(tmp_path):
    code = '''
import sys; sys.modules['numba'] = None
import numpy as np
from captcha_fastai.read.confidence import char_probs
from captcha_fastai.read.search import search
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.core import Vocab
lp = np.load(sys.argv[1])
for c in (None, Constraint(Vocab('abcd'), length=2)):
    found = search(lp, nbest=2, constraint=c, fast=True)
    print([[(o.ids, round(o.logp, 9)) for o in f] for f in found], [[round(p, 9) for p in ps] for ps in char_probs(lp, [f[0].ids for f in found], 'ctc', c)])
'''
    lp = random_logp(np.random.default_rng(0), 40, 7, 5)
    np.save(tmp_path/'lp.npy', lp)
    out = subprocess.run([sys.executable, '-c', code, tmp_path/'lp.npy'], capture_output=True, text=True, check=True).stdout.splitlines()
    for line, c in zip(out, (None, Constraint(Vocab('abcd'), length=2)), strict=True):
        found = search(lp, nbest=2, constraint=c, fast=True)
        chars = char_probs(lp, [f[0].ids for f in found], 'ctc', c)
        assert line == f'{[[(o.ids, round(o.logp, 9)) for o in f] for f in found]} {[[round(p, 9) for p in ps] for ps in chars]}'
