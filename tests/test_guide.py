"What a prefix is worth under a constraint, against all paths"
import itertools

import numpy as np
import pytest

from captcha_fastai.core import CaptchaError, Vocab
from captcha_fastai.read import guide
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.read.guide import check_possible, completions, guide_of, relative, to_probs, word_logps


def random_logp(rng, *shape):
    "Log-probabilities of random logits"
    z = rng.normal(size=shape)
    return z - np.logaddexp.reduce(z, -1, keepdims=True)


def text_probs(logp, ctc):
    "Probability of every text, by all paths"
    out = {}
    for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
        ids = tuple(k for k, _ in itertools.groupby(path) if k) if ctc else tuple(k for k in path if k)
        out[ids] = out.get(ids, 0.) + np.exp(sum(logp[t, k] for t, k in enumerate(path)))
    return out


@pytest.mark.parametrize('kw', [dict(length=2), dict(length='1-3'), dict(length=(2, None)), dict(alphabet='b'), dict(pattern='a[ab]{1,2}')])
@pytest.mark.parametrize('ctc', [True, False])
def test_at_the_start_everything_allowed_is_left(ctc, kw):
    c = Constraint(Vocab('ab'), **kw)
    for seed in range(5):
        logp = random_logp(np.random.default_rng(seed), 4, 3)
        rel, log = relative(logp[None])
        whole = completions(rel, c, ctc)[1] + log
        assert np.isclose(np.exp(whole)[0], sum(p for ids, p in text_probs(logp, ctc).items() if c.accepts(ids)))


@pytest.mark.parametrize('ctc', [True, False])
def test_words_have_the_probability_of_all_their_paths(ctc):
    logp, words = random_logp(np.random.default_rng(3), 4, 3), ['a', 'aa', 'abb', 'b']
    p, vocab = text_probs(logp, ctc), Vocab('ab')
    found = word_logps(np.exp(logp)[None], Constraint(vocab, lexicon=words), ctc)
    assert np.allclose(np.exp(found)[0], [p.get(tuple(vocab.encode(w)), 0) for w in words])


def test_a_guide_is_finite_and_its_rows_have_a_largest_entry_of_1():
    logp = random_logp(np.random.default_rng(0), 2, 6, 4)
    g = guide_of(completions(relative(logp)[0], Constraint(Vocab('abc'), length='2-4'), True)[0])
    assert g.shape == (2, 6, 6, 6) and np.isfinite(g).all() and (g[..., :-2] >= 0).all(), "the last two are logarithms of scales"
    assert set(np.unique(g[..., :-2].max(-1).round(12))) <= {0., 1.}


def test_what_is_possible_stays_above_0():
    assert to_probs(np.array([0., -1000., -np.inf])).tolist() == [1., np.exp(-600), 0.]


@pytest.mark.parametrize('kw, steps, ctc', [(dict(length=3), 2, False), (dict(pattern='aa'), 2, True), (dict(lexicon=['aab']), 3, True), (dict(lexicon=['aab']), 2, False)])
def test_what_does_not_fit_is_refused(kw, steps, ctc):
    c = Constraint(Vocab('ab'), **kw)
    with pytest.raises(CaptchaError, match=f'fits into the {steps} steps'): check_possible(c, steps, ctc)
    check_possible(c, steps+1, ctc)


def test_what_fits_is_noted_and_not_computed_again(monkeypatch):
    c = Constraint(Vocab('ab'), length=2)
    check_possible(c, 3, True)
    monkeypatch.setattr(guide, 'completions', None)
    check_possible(c, 3, True)
    with pytest.raises(TypeError): check_possible(c, 4, True)
