"What a model says, and how probable that makes a text"
import itertools
import math
from itertools import groupby

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from captcha_fastai.core import ModelError
from captcha_fastai.read import ctc
from captcha_fastai.read.ctc import _forward_log, best_path, check_logp, ctc_path, exact, forwards, padded, text_logp


def random_logp(rng, *shape, peak=2.):
    "Log-probabilities of random logits"
    z = rng.normal(size=shape)*peak
    return z - np.logaddexp.reduce(z, -1, keepdims=True)


def read_off(path, kind='ctc'):
    "The text of a path"
    return [k for k, _ in groupby(path) if k] if kind == 'ctc' else [k for k in path if k]


def text_probs(logp, kind):
    "Probability of every text, by all paths"
    out = {}
    for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
        ids = tuple(read_off(path, kind))
        out[ids] = out.get(ids, 0.) + np.exp(sum(logp[t, k] for t, k in enumerate(path)))
    return out


def torch_logp(logp, ids):
    "The log-probability of a text by torch's loss"
    texts = torch.tensor([ids], dtype=torch.long).view(1, -1)
    return -F.ctc_loss(torch.tensor(logp)[:, None], texts, [len(logp)], [len(ids)], reduction='sum').item()


blank = np.log(np.full((1, 3, 4), [1-3e-9, 1e-9, 1e-9, 1e-9]))


@pytest.mark.parametrize('bad, why', [
    (np.full((1, 2, 3), np.nan), 'NaN'),
    (np.ones((1, 2, 3)), 'above 0'),
    (np.zeros((1, 2, 3)), 'adds up to 3, not 1'),
    ([[[-1., -2., -3.9], [-1, -2, -3]]], 'adds up to 0.523, not 1'),
    (-np.ones((1, 2, 9)), 'log_softmax'),
    (np.zeros((2, 3)), r'give \(B, T, V\)'),
    (np.zeros((2,)), 'shape'),
    (np.zeros((1, 0, 3)), 'shape'),
    (np.zeros((1, 3, 0)), 'shape')])
def test_what_is_no_log_probability_is_refused(bad, why):
    with pytest.raises(ModelError, match=why): check_logp(bad)


def test_a_step_at_which_nothing_is_possible_is_refused():
    dead = blank.repeat(2, 0)
    dead[1, 1] = -np.inf
    with pytest.raises(ModelError, match='item 1: a step at which nothing is possible'): check_logp(dead)


def test_no_image_is_no_error():
    assert check_logp(np.zeros((0, 5, 3))).shape == (0, 5, 3)
    assert text_logp(np.zeros((0, 5, 3)), []).shape == (0,)
    assert best_path(np.zeros((0, 5, 3))) == []


@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16, torch.float16])
def test_less_than_double_precision_becomes_single(kind):
    logp = random_logp(np.random.default_rng(0), 2, 9, 6)
    assert check_logp(torch.tensor(logp).to(kind)).dtype == np.float32
    assert check_logp(torch.tensor(logp)).dtype == np.float64
    assert check_logp(logp.tolist()).dtype == np.float64


@pytest.mark.parametrize('ids', [[7, 10**6], [-1], [0]])
def test_ids_that_the_model_does_not_have_are_refused(ids):
    with pytest.raises(ModelError, match='ids are from 1 to 3'): text_logp(blank, [ids])


def test_one_text_for_each_image():
    with pytest.raises(ModelError, match='1 items but 2 texts'): text_logp(blank, [[1], [2]])


@pytest.mark.parametrize('kind', ['ctc', 'heads'])
def test_every_text_has_the_probability_of_all_its_paths(kind):
    rng = np.random.default_rng(1)
    for T, V in ((3, 3), (1, 2), (4, 3), (5, 2)):
        logp = random_logp(rng, T, V, peak=1.)
        probs = text_probs(logp, kind)
        assert math.isclose(sum(probs.values()), 1)
        for ids, p in probs.items(): assert np.isclose(np.exp(text_logp(logp[None], [ids], kind))[0], p)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 6))
def test_the_probability_of_a_text_is_torchs(seed, ids, extra):
    steps = len(ids) + sum(a == b for a, b in zip(ids, ids[1:])) + extra
    logp = random_logp(np.random.default_rng(seed), steps, 6, peak=3.)
    assert np.isclose(text_logp(logp[None], [ids])[0], torch_logp(logp, ids), atol=1e-9)


def test_a_text_that_does_not_fit_has_probability_0():
    assert text_logp(np.log([[[.5, .5]]*3]), [[1, 1, 1]]) == [-np.inf]       # it needs five steps
    assert text_logp(np.log([[[.5, .5]]*3]), [[1]*9]) == [-np.inf]


@pytest.mark.filterwarnings('ignore:divide by zero')
def test_a_text_of_a_symbol_that_is_impossible_has_probability_0():
    assert text_logp(np.log([[[.5, .5, 0.]]*3]), [[2]]) == [-np.inf]
    assert text_logp(np.log([[[0., 1., 0.]]*3]), [[2]]) == [-np.inf]


@pytest.mark.parametrize('fast', [False, True])
def test_numbers_of_any_size_are_exact(fast):
    hot = np.log([[[1-1e-9, 1e-9]]*60])*40                                   # no proper model, but a hard case
    found = exact(hot, np.array([0]), np.array([[1]*20]), np.array([20]), True, fast)[0]
    assert found < -16000 and math.isclose(found, _forward_log(hot[0], [1]*20, True))


def test_a_text_of_probability_1e_1000_is_torchs():
    logp = random_logp(np.random.default_rng(0), 40, 5, peak=600)
    ids = [1, 2, 3, 4, 4]
    ours = text_logp(logp[None], [ids])[0]
    assert ours < -2000 and ours == _forward_log(logp, ids, True)
    assert math.isclose(ours, torch_logp(logp, ids), rel_tol=1e-9)


@pytest.mark.parametrize('ctc', [True, False])
def test_logarithms_give_the_same_sum(ctc):
    rng = np.random.default_rng(0)
    for _ in range(50):
        logp = random_logp(rng, 7, 4)
        ids = rng.integers(1, 4, rng.integers(0, 5)).tolist()
        assert np.isclose(_forward_log(logp, ids, ctc), text_logp(logp[None], [ids], 'ctc' if ctc else 'heads')[0])


@pytest.mark.parametrize('ctc', [True, False])
def test_python_lists_arrays_and_machine_code_agree(ctc):
    rng = np.random.default_rng(0)
    logp = random_logp(rng, 30, 8, 5)
    ids, lens = padded([rng.integers(1, 5, n % 6).tolist() for n in range(30)])
    args = logp, np.arange(30), ids, lens, ctc
    total, log = forwards(*args)
    with np.errstate(divide='ignore'): arrays = np.log(total) + log
    assert np.allclose(exact(*args), arrays, rtol=1e-12, atol=0) and np.allclose(exact(*args, fast=True), arrays, rtol=1e-12, atol=0)


def test_machine_code_is_loaded_from_2000_texts_on(monkeypatch):
    asked = []
    monkeypatch.setattr(ctc, 'compiled', lambda f: asked.append(f) or f)
    for n in (1999, 2000): text_logp(blank.repeat(n, 0), [[]]*n)
    assert asked == [forwards]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.sampled_from(['ctc', 'heads']))
def test_the_best_path_is_read_off(path, kind):
    logp = np.log(np.eye(5)[path]*.9 + .02)
    assert best_path(logp[None], kind) == [read_off(path, kind)]


def test_the_best_path_may_be_another_text_than_the_best():
    two_steps = np.log([[[.6, .4], [.6, .4]]])
    assert best_path(two_steps) == [[]] and text_probs(two_steps[0], 'ctc') == pytest.approx({(): .36, (1,): .64})


@pytest.mark.parametrize('text', [[], [1], [1, 1], [2, 1], [1, 2, 1]])
def test_an_alignment_is_the_best_path_of_its_text(text):
    for seed in range(2, 12):
        logp = random_logp(np.random.default_rng(seed), 5, 3, peak=1.)
        paths = [o for o in itertools.product(range(3), repeat=5) if read_off(o) == text]
        best = max(paths, key=lambda o: sum(logp[range(5), o]))
        assert np.array([0, *text])[ctc_path(logp, text)+1].tolist() == list(best)


def test_an_alignment_has_a_blank_between_doubled_letters():
    doubled = np.log([[.1, .9], [.8, .2], [.1, .9]])
    for logp in (doubled, doubled.tolist(), torch.tensor(doubled)): assert ctc_path(logp, [1, 1]).tolist() == [0, -1, 1]


def test_a_text_that_does_not_fit_has_no_alignment():
    with pytest.raises(ModelError, match='no alignment with 5 steps'): ctc_path(random_logp(np.random.default_rng(2), 5, 3), [1, 1, 1, 1])
    with pytest.raises(ModelError, match='ids are from 1 to 2'): ctc_path(random_logp(np.random.default_rng(2), 5, 3), [3])
