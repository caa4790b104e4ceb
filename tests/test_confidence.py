"A probability for each character, against its definition"
import itertools

import numpy as np
import pytest

from captcha_fastai.core import ModelError, Vocab
from captcha_fastai.read.confidence import _batches, char_probs
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.read.search import search


def random_logp(rng, *shape, peak=1.):
    "Log-probabilities of random logits"
    z = rng.normal(size=shape)*peak
    return z - np.logaddexp.reduce(z, -1, keepdims=True)


def text_probs(logp, kind):
    "Probability of every text, by all paths"
    out = {}
    for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
        ids = tuple(k for k, _ in itertools.groupby(path) if k) if kind == 'ctc' else tuple(k for k in path if k)
        out[ids] = out.get(ids, 0.) + np.exp(sum(logp[t, k] for t, k in enumerate(path)))
    return out


def by_definition(probs, ids, V, accepts=lambda ids: True):
    "Probability of each character given the others, from that of all texts"
    out = []
    for j in range(len(ids)):
        others = [(*ids[:j], c, *ids[j+1:]) for c in range(1, V)]
        out.append(probs[tuple(ids)]/sum(probs.get(o, 0) for o in others if accepts(o)))
    return out


@pytest.mark.parametrize('kind', ['ctc', 'heads'])
def test_each_character_has_its_probability_given_the_others(kind):
    rng = np.random.default_rng(3)
    for _ in range(60):
        logp = random_logp(rng, 5, 4)
        ids = rng.integers(1, 4, rng.integers(1, 4)).tolist()
        assert np.allclose(char_probs(logp[None], [ids], kind)[0], by_definition(text_probs(logp, kind), ids, 4), rtol=1e-9)


@pytest.mark.parametrize('kw, text', [(dict(length=2), 'ab'), (dict(alphabet='ab'), 'ab'), (dict(pattern='[ab]c'), 'bc'), (dict(pattern='a[bc]{1,2}'), 'abb'),
                                      (dict(lexicon=['ab', 'ac', 'bb', 'c']), 'ab'), (dict(lexicon=['ab', 'c']), 'c')])
@pytest.mark.parametrize('kind', ['ctc', 'heads'])
def test_what_is_not_allowed_is_no_alternative(kind, kw, text):
    vocab, rng = Vocab('abc'), np.random.default_rng(0)
    c, ids = Constraint(vocab, **kw), vocab.encode(text)
    for _ in range(5):
        logp = random_logp(rng, 5, 4)
        want = by_definition(text_probs(logp, kind), ids, 4, c.accepts)
        assert np.allclose(char_probs(logp[None], [ids], kind, c)[0], want, rtol=1e-9)


def test_texts_of_several_lengths_go_together():
    rng = np.random.default_rng(0)
    logps = random_logp(rng, 20, 8, 5)
    texts = [rng.integers(1, 5, i % 5).tolist() for i in range(20)]
    together = char_probs(logps, texts)
    assert [len(o) for o in together] == [len(t) for t in texts]
    for lp, t, p in zip(logps, texts, together): assert np.allclose(char_probs(lp[None], [t])[0], p, rtol=1e-12)


def test_batches_fit_into_memory_and_leave_nothing_out():
    texts = [[1]*n for n in (0, 1, 2, 1, 0, 2, 1)]
    assert sorted(sum(_batches(texts, 10), [])) == [1, 2, 3, 5, 6]
    assert [len(o) for o in _batches([[1]]*5, 2**19)] == [2, 2, 1]


def test_probabilities_are_from_0_to_1():
    rng = np.random.default_rng(0)
    for seed in range(40):
        logp = random_logp(rng, 1, 1 + seed % 12, 2 + seed % 11, peak=2.)
        ids = search(logp[0])[0].ids
        chars, = char_probs(logp, [ids])
        assert len(chars) == len(ids) and all(0 <= p <= 1 for p in chars)


def test_a_text_that_is_impossible_has_characters_of_probability_0():
    lp = np.log([[.5, .5]]*3)
    assert char_probs(lp[None], [[1, 1, 1]]) == [(0., 0., 0.)]


def test_members_of_a_group_add_up():
    v, lp = Vocab('0O8'), np.log([[.01, .29, .3, .4]])
    c = Constraint(v, alike='0O', pattern='[A-Z8]')
    best = search(lp, constraint=c)[0]
    assert char_probs(lp[None], [best.ids], constraint=c)[0] == pytest.approx((.59/.99,))
    assert char_probs(lp[None], [[]], constraint=c) == [()]


def test_no_image_is_no_error():
    assert char_probs(np.zeros((0, 5, 3)), []) == []


@pytest.mark.parametrize('ids', [[7, 10**6], [-1], [0]])
def test_ids_that_the_model_does_not_have_are_refused(ids):
    with pytest.raises(ModelError, match='ids are from 1 to 3'): char_probs(np.log(np.full((1, 3, 4), .25)), [ids])
