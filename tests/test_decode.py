"Decoding against brute force, against torch, and on input at the edges"
import itertools
import math
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from captcha_fastai.read import ctc as decode
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.core import CaptchaError, ModelError, Spec, Vocab
from captcha_fastai.read.confidence import char_probs
from captcha_fastai.read.ctc import _forward_log, best_path, check_logp, exact, text_logp
from captcha_fastai.read.reader import Reader, readings, soften
from captcha_fastai.read.search import search


def random_logp(rng, *shape, peak=2., never=0.):
    "Log-probabilities of random logits, a share of them -inf (never all of a step)"
    z = rng.normal(size=shape)*peak
    z[..., 1:][rng.random((*shape[:-1], shape[-1]-1)) < never] = -np.inf
    return z - np.logaddexp.reduce(z, -1, keepdims=True)


def enumerate_texts(logp, ctc):
    "Probability of every text, by all paths"
    paths = np.array(list(itertools.product(range(logp.shape[1]), repeat=len(logp))))
    ps, out = np.exp(logp[np.arange(len(logp)), paths].sum(1)), {}
    for path, p in zip(paths.tolist(), ps):
        ids = tuple(k for k, _ in itertools.groupby(path) if k) if ctc else tuple(k for k in path if k)
        out[ids] = out.get(ids, 0.) + p
    return out


options = [{}, {'length': 1}, {'length': '1-2'}, {'length': (2, None)}, {'alphabet': 'ab'}, {'alphabet': 'a', 'length': '0-3'}, {'pattern': '[ab]c'},
           {'pattern': 'a[abc]{1,3}'}, {'pattern': ['ab', 'a', 'abc'], 'length': '0-2'}, {'lexicon': ['ab', 'ba', 'c', 'cab', 'aa']}, {'lexicon': ['b'], 'length': '1-2'}]


@pytest.mark.filterwarnings('ignore:lexicon')
def test_brute_force_on_2000_small_cases():
    "The best texts, their exact log-probabilities and their posteriors, free and under every kind of constraint, for both kinds of model"
    rng, cases = np.random.default_rng(0), 0
    while cases < 2000:
        T, V, kw, kind = rng.integers(1, 6), rng.integers(2, 5), options[rng.integers(len(options))], ('ctc', 'heads')[rng.integers(2)]
        try: c = Constraint(Vocab('abc'[:V-1]), **kw)
        except CaptchaError: continue          # asks for letters that this alphabet does not have
        logp = random_logp(rng, T, V, never=.1*rng.integers(3))
        truth = {k: p for k, p in enumerate_texts(logp, kind == 'ctc').items() if c.accepts(k) and p > 0}
        cases += 1
        if not truth:
            try: assert search(logp, kind, constraint=c) == []
            except CaptchaError: pass          # no text fits into T steps at all
            continue
        found = search(logp, kind, beam=100, nbest=3, constraint=c)
        best, whole = sorted(truth.values(), reverse=True)[:3], sum(truth.values())
        assert np.allclose([math.exp(o.logp) for o in found], best, rtol=1e-9), (kw, kind, logp)
        assert np.allclose([o.p for o in found], np.array(best)/whole, rtol=1e-6)
        assert all(np.isclose(math.exp(o.logp), truth[tuple(o.ids)], rtol=1e-9) for o in found)
        assert math.isclose(search(logp, kind, beam=100, constraint=c)[0].logp, found[0].logp, rel_tol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 12), st.integers(1, 6))
def test_nbest_is_sorted_distinct_and_exact(seed, T, V, nbest):
    logp = random_logp(np.random.default_rng(seed), 2, T, V)
    for lp, found in zip(logp, search(logp, nbest=nbest)):
        assert 1 <= len(found) <= nbest and sum(o.p for o in found) <= 1 + 1e-9
        assert [o.logp for o in found] == sorted((o.logp for o in found), reverse=True)
        assert len({tuple(o.ids) for o in found}) == len(found)
        for o in found:
            theirs = -F.ctc_loss(torch.tensor(lp)[:, None], torch.tensor([o.ids], dtype=torch.long).view(1, -1), [T], [len(o.ids)], reduction='sum').item()
            assert math.isclose(o.logp, theirs, abs_tol=1e-6) and math.isclose(o.p, math.exp(o.logp), rel_tol=1e-9)
        assert found[0].logp >= text_logp(lp[None], best_path(lp[None]))[0]
        chars, = char_probs(lp[None], [found[0].ids])
        assert len(chars) == len(found[0].ids) and all(0 <= p <= 1 for p in chars)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(2, 10), st.sampled_from(options[:6]))
def test_a_wider_beam_is_not_worse(seed, T, V, kw):
    "No theorem for beams as such, but greedy first and exact scores make it hold; these examples are fixed"
    lp = random_logp(np.random.default_rng(seed), T, V)
    try: best = [search(lp, beam=k, constraint=Constraint(Vocab('abcdefghi'[:V-1]), **kw)) for k in (1, 3, 10, 50)]
    except CaptchaError: return
    best = [o[0].logp if o else -np.inf for o in best]
    assert all(a <= b + 1e-9 for a, b in zip(best, best[1:]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(6, 14), st.integers(2, 4))
def test_doubled_letters_at_the_brim(seed, T, n):
    "Exactly n letters out of one letter need 2n-1 steps; the search must not run into dead ends"
    c, lp = Constraint(Vocab('ab'), length=n, alphabet='a'), random_logp(np.random.default_rng(seed), T, 3)
    if T < 2*n-1:
        with pytest.raises(CaptchaError, match='fits into'): search(lp, constraint=c)
    else:
        (found,) = search(lp, beam=2, constraint=c)
        assert found.ids == [1]*n and math.isclose(found.p, 1, rel_tol=1e-9)


def test_input_at_the_edges():
    blank = np.log(np.full((3, 4), [1-3e-9, 1e-9, 1e-9, 1e-9]))
    assert search(blank)[0].ids == [] and search(blank)[0].p > .99
    assert search(blank[:1])[0].ids == [] and len(search(blank[:1], nbest=9)) == 4
    confident = np.full((5, 4), -np.inf); confident[[0, 1, 2, 3, 4], [1, 0, 1, 2, 2]] = 0.
    assert [(o.ids, o.p) for o in search(confident, nbest=5)] == [([1, 1, 2], 1.)]
    assert search(np.zeros((0, 5, 3))) == [] and char_probs(np.zeros((0, 5, 3)), []) == []
    assert search(np.zeros((2, 3, 1))) == [[([], 0., 1.)]]*2, 'no symbol but the blank'
    for bad, why in [(np.full((1, 2, 3), np.nan), 'NaN'), (np.zeros((1, 2, 3)), 'adds up to 3, not 1'), (np.ones((1, 2, 3)), 'above 0'),
                     (np.zeros((2,)), 'shape'), (np.zeros((1, 0, 3)), 'shape'), (-np.ones((1, 2, 9)), 'log_softmax')]:
        with pytest.raises(ModelError, match=why): search(bad)
    with pytest.raises(CaptchaError, match='beam is 0'): search(blank, beam=0)
    with pytest.raises(CaptchaError, match='nbest is 1.5: it must be a whole number'): search(blank, nbest=1.5)
    with pytest.raises(CaptchaError, match="min_confidence is '0.9'"): readings(blank[None], Spec('abc', max_len=2), [''], min_confidence='0.9')
    with pytest.raises(CaptchaError, match='must be'): search(blank, 'CTC')
    assert search(np.log([[[.6, .4], [.6, .4]]]).tolist()) == search(np.log([[[.6, .4], [.6, .4]]]))
    assert search(np.log([[.6, .4], [.6, .4]]).tolist()) == search(np.log([[.6, .4], [.6, .4]]))
    dead = blank.copy(); dead[1] = -np.inf
    with pytest.raises(ModelError, match='nothing is possible'): search(dead)
    for ids in ([7, 10**6], [-1], [0]):
        with pytest.raises(ModelError, match='ids are from 1 to 3'): text_logp(blank[None], [ids])
        with pytest.raises(ModelError, match='ids are from 1 to 3'): char_probs(blank[None], [ids])
    for kw in (dict(length=10**12), dict(length=float('inf')), dict(pattern='a{1000000000000}'), dict(pattern=[1, 2]), dict(lexicon='ab.txt'), dict(length=-1)):
        with pytest.raises(CaptchaError): Constraint(Vocab('ab'), **kw)
    with pytest.raises(ModelError, match='symbols'): search(blank, constraint=Constraint(Vocab('ab'), length=1))


def test_impossible_readings_are_empty():
    "A constraint that fits in principle but has probability 0 in one image"
    lp = np.full((2, 3), -np.inf); lp[:, 1] = 0.
    c = Constraint(Vocab('ab'), alphabet='b', length=1)
    assert search(lp, constraint=c) == []
    r = Reader(lambda x: lp[None].repeat(len(x), 0), Spec('ab', 2, height=4, width=4))(np.zeros((4, 4), np.uint8), alphabet='b', length=1)
    assert (r.text, r.confidence, r.nbest) == ('', 0., ())


@pytest.mark.parametrize('V', [8000, 40])
def test_large_alphabets_and_long_lexicons(V):
    rng, chars = np.random.default_rng(0), ''.join(map(chr, range(0x4e00, 0x4e00+V-1)))
    lp = random_logp(rng, 20, 12, V, peak=4.)
    assert all(math.isclose(o.logp, text_logp(lp[i:i+1], [o.ids])[0], abs_tol=1e-9) for i, f in enumerate(search(lp, nbest=2)) for o in f)
    words = {''.join(rng.choice(list(chars), 4)) for _ in range(3000)}
    c = Constraint(Vocab(chars), lexicon=sorted(words))
    ids = [Vocab(chars).encode(w) for w in sorted(words)]
    logps = text_logp(np.repeat(lp[:1], len(ids), 0), ids)
    (best,) = search(lp[0], constraint=c)
    assert best.ids == ids[logps.argmax()] and math.isclose(best.p, math.exp(logps.max() - np.logaddexp.reduce(logps)), rel_tol=1e-6)


def test_numbers_of_any_size():
    "Hot logits: texts of probability 1e-4000 keep their exact log-probability, under a constraint, too"
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1, 40, 5))*600
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    ids = [[1, 2, 3, 4, 4]]
    ours = text_logp(lp, ids)[0]
    theirs = -F.ctc_loss(torch.tensor(lp[0])[:, None], torch.tensor(ids), [40], [5], reduction='sum').item()
    assert math.isclose(ours, theirs, rel_tol=1e-9) and ours < -2000 and ours == _forward_log(lp[0], ids[0], True)
    found = search(lp[0], nbest=3, constraint=Constraint(Vocab('abcd'), pattern='a[bc]{3}d'))
    words = [''.join(w) for w in itertools.product('a', 'bc', 'bc', 'bc', 'd')]
    exact_all = text_logp(np.repeat(lp, len(words), 0), [Vocab('abcd').encode(w) for w in words])
    assert [o.logp for o in found] == pytest.approx(sorted(exact_all)[:-4:-1], rel=1e-9)


@pytest.mark.parametrize('fast', [False, True])
@pytest.mark.parametrize('T,ahead,length', [(20, 50, 16), (20, 130, 6), (40, 25, 20), (12, 300, 4)])
def test_far_from_what_the_model_believes(T, ahead, length, fast):
    "The blank is ahead by many nats at every step, and still so many characters must be read"
    decode._items[0] = decode._items[1]*fast
    z = np.random.default_rng(0).normal(size=(T, 4))
    z[:, 0] += ahead
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    found = search(lp, beam=200, nbest=3, constraint=Constraint(Vocab('abc'), length=length))
    assert len(found) == 3 and all(len(o.ids) == length for o in found) and 0 < found[-1].p <= found[0].p <= 1
    rng, better = np.random.default_rng(1), 0
    for _ in range(300):                       # change one character or two: next to nothing near is better
        ids = list(found[0].ids)
        for i in rng.integers(0, length, 2): ids[i] = int(rng.integers(1, 4))
        better += text_logp(lp[None], [ids])[0] > found[0].logp + 1e-9
    assert better <= 3, 'a beam is no proof, but this is not one that lost its way'
    words = [''.join('abc'[k] for k in rng.integers(0, 3, min(length, 6))) for _ in range(20)]
    best = max(words, key=lambda w: text_logp(lp[None], [Vocab('abc').encode(w)])[0])
    assert Vocab('abc').decode(search(lp, constraint=Constraint(Vocab('abc'), lexicon=words))[0].ids) == best


def test_posterior_of_what_is_all_but_impossible():
    lp = np.log([[1., 0, 0, 0]]*2 + np.exp([[-1e9, -160., -161., -1e9]]*2))
    found = search(lp, 'heads', nbest=4, constraint=Constraint(Vocab('abc'), length=2, alphabet='ab'))
    assert [o.p for o in found] == pytest.approx([.5344, .1966, .1966, .0723], abs=1e-3)


def test_groups_are_written_as_the_models_own_symbols():
    v, lp = Vocab('0O8'), np.log([[.01, .29, .3, .4]])
    c = Constraint(v, alike='0O', pattern='[A-Z8]')
    best, other = search(lp, nbest=2, constraint=c)
    assert (v.decode(best.ids), v.decode(other.ids)) == ('O', '8') and math.isclose(best.p, .59/.99)
    assert char_probs(lp[None], [best.ids], constraint=c)[0] == pytest.approx((.59/.99,))
    folded = Reader(lambda x: lp[None].repeat(len(x), 0), Spec('abc', 1, height=4, width=4, fold=True))
    assert folded(np.zeros((4, 4), np.uint8), lexicon=['A', 'C']).text == folded(np.zeros((4, 4), np.uint8), pattern='[A-C]').text == 'c'


def test_torch_single_precision_and_threads():
    lp = random_logp(np.random.default_rng(0), 700, 9, 6)
    decode._items[0] = decode._items[1]        # machine code from here on
    want = [[(o.ids, o.p) for o in f] for f in search(lp, nbest=2, threads=1)]
    for other in (lp, torch.tensor(lp), torch.tensor(lp, requires_grad=True)):
        assert [[(o.ids, o.p) for o in f] for f in search(other, nbest=2, threads=3)] == want
    for kind in (torch.float32, torch.bfloat16):
        assert check_logp(torch.tensor(lp[:2]).to(kind)).dtype == np.float32
    assert [o.ids for o in search(lp[0].astype(np.float32), nbest=2)] == [ids for ids, _ in want[0]]


def test_without_numba_the_same_texts():
    code = '''
import sys; sys.modules['numba'] = None
import numpy as np
from captcha_fastai.read.confidence import char_probs
from captcha_fastai.read.search import search
from captcha_fastai.read import ctc as decode
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.core import Vocab
lp = np.load(sys.argv[1])
for c in (None, Constraint(Vocab('abcd'), length=2)):
    found = search(lp, nbest=2, constraint=c)
    print([[(o.ids, round(o.logp, 9)) for o in f] for f in found], [[round(p, 9) for p in ps] for ps in char_probs(lp, [f[0].ids for f in found], 'ctc', c)])
'''
    with tempfile.TemporaryDirectory() as d:
        np.save(f'{d}/lp.npy', lp := random_logp(np.random.default_rng(0), 40, 7, 5))
        out = subprocess.run([sys.executable, '-c', code, f'{d}/lp.npy'], capture_output=True, text=True, check=True).stdout.splitlines()
    decode._items[0] = decode._items[1]
    for line, c in zip(out, (None, Constraint(Vocab('abcd'), length=2))):
        found = search(lp, nbest=2, constraint=c)
        chars = char_probs(lp, [f[0].ids for f in found], 'ctc', c)
        assert line == f'{[[(o.ids, round(o.logp, 9)) for o in f] for f in found]} {[[round(p, 9) for p in ps] for ps in chars]}'


def test_temperature_keeps_probabilities():
    lp = random_logp(np.random.default_rng(0), 3, 5, 4)
    assert soften(lp, 1) is lp
    assert np.allclose(np.exp(soften(lp, 3.)).sum(-1), 1) and np.allclose(soften(soften(lp, 4.), .25), lp)
    assert np.isfinite(exact(lp, np.arange(3), np.ones((3, 1), int), np.ones(3, int), True)).all()
