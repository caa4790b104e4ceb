"A prefix beam search, fast and in plain Python"
from dataclasses import fields

import numpy as np
import pytest

from captcha_fastai.read import beam
from captcha_fastai.read.beam import Candidate, Node, Prefix, _many, add, child_of, possible, prefix_beams, promising, spell, to_beat
from captcha_fastai.read.heap import heapify


def plain_beam(probs, width, ctc):
    "Prefix beam search for reading: the prefixes with their probabilities, the best first"
    kept = {(): (1., 0.)}
    for row in probs.tolist():
        candidates = {}
        def put(prefix, blank, char, candidates=candidates):
            b, c = candidates.get(prefix, (0., 0.))
            candidates[prefix] = b+blank, c+char
        for prefix, (blank, char) in kept.items():
            last = prefix[-1] if prefix else 0
            put(prefix, (blank+char)*row[0], char*row[last] if ctc else 0.)
            for k in range(1, len(row)): put((*prefix, k), 0., (blank if ctc and k == last else blank+char)*row[k])
        kept = dict(sorted(candidates.items(), key=lambda o: -sum(o[1]))[:width])
    return [(prefix, sum(p)) for prefix, p in kept.items() if sum(p) > 0]


def texts(probs, width=10, keep=3, ctc=True, fast=False):
    "What the fast search finds in one item"
    ids, lens = prefix_beams(probs[None], np.empty((1, len(probs), 0, 0)), width, keep, ctc, fast)
    return [tuple(i[:n].tolist()) for i, n in zip(ids[0], lens[0]) if n >= 0]


@pytest.mark.parametrize('fast', [False, True])
@pytest.mark.parametrize('ctc', [True, False])
@pytest.mark.parametrize('width', [1, 2, 3, 10, 50])
def test_it_finds_what_plain_python_finds(width, ctc, fast):
    rng = np.random.default_rng(width)
    for _ in range(40):
        T, V = rng.integers(1, 9), rng.integers(2, 8)
        probs = rng.dirichlet([.4]*V, size=T)
        assert texts(probs, width, min(width, 3), ctc, fast) == [t for t, _ in plain_beam(probs, width, ctc)[:3]]


@pytest.mark.parametrize('probs, best', [
    ([[.6, .4], [.6, .4]], (1,)),                                            # the best path is the empty text
    ([[.1, .8, .1], [.8, .1, .1], [.1, .8, .1]], (1, 1)),                    # a doubled letter
    ([[1., 0.], [1., 0.]], ()),
    ([[0., 1.], [0., 1.]], (1,))])
def test_texts_that_are_easily_missed(probs, best):
    for fast in (False, True): assert texts(np.array(probs), fast=fast)[0] == best


def test_what_there_is_not_has_the_length_minus_1():
    ids, lens = prefix_beams(np.array([[[1., 0.], [1., 0.]]]), np.empty((1, 2, 0, 0)), 10, 3, True)
    assert lens.tolist() == [[0, -1, -1]] and not ids.any()


def test_items_do_not_see_each_other():
    probs = np.random.default_rng(0).dirichlet([.4]*6, size=(30, 8))
    for fast in (False, True):
        ids, lens = prefix_beams(probs, np.empty((30, 8, 0, 0)), 10, 3, True, fast)
        assert [[tuple(i[:n].tolist()) for i, n in zip(*o)] for o in zip(ids, lens)] == [texts(p) for p in probs]


def test_without_numba_it_runs_on_lists(monkeypatch):
    monkeypatch.setattr(beam, 'compiled', lambda f: f)
    assert texts(np.array([[.6, .4], [.6, .4]]), fast=True) == [(1,), ()]


def test_a_heap_keeps_the_best_candidates():
    rng = np.random.default_rng(0)
    for width in (1, 2, 3, 10, 33):
        candidates, n, scores = [Candidate(heap_at=i) for i in range(width)], 0, rng.random(100).tolist()
        for i, score in enumerate(scores):
            if score > to_beat(candidates, n): n = add(candidates, n, 0, 1, 0., score, score)
            best = sorted(scores[:i+1])[-width:]
            assert sorted(o.score for o in candidates[:n]) == best
            assert to_beat(candidates, n) == (best[0] if n == width else 0.)


def test_a_heap_has_no_entry_above_a_lesser_one():
    scores = np.random.default_rng(0).random(20).tolist()
    candidates = [Candidate(score=s, heap_at=i) for i, s in enumerate(scores)]
    heapify(candidates)
    assert sorted(o.heap_score for o in candidates) == sorted(scores) and all(candidates[o.heap_at].score == o.heap_score for o in candidates)
    assert all(candidates[(i-1)//2].heap_score <= candidates[i].heap_score for i in range(1, 20))


def test_two_ways_to_a_prefix_are_one_node():
    tree = _many(Node, 9, records=False)
    a = child_of(tree, 0, 1, 1)
    b = child_of(tree, 0, 2, 2)
    ab = child_of(tree, a, 2, 3)
    assert (a, b, ab) == (1, 2, 3) and child_of(tree, 0, 1, 4) == a and child_of(tree, a, 2, 4) == ab
    ids = [0]*4
    assert spell(tree, ab, ids) == 2 and ids == [1, 2, 0, 0]


def test_records_have_the_fields_of_objects():
    for cls in (Node, Prefix, Candidate):
        assert _many(cls, 1, records=True).dtype.names == tuple(o.name for o in fields(cls))


def test_symbols_come_in_order_of_probability():
    rng = np.random.default_rng(0)
    for _ in range(50):
        row = rng.dirichlet([.5]*12).tolist()
        order = [c for c in np.argsort(-np.array(row)).tolist() if c]
        symbols = [0]*5
        assert symbols[:promising(row, 1., 0., symbols)] == order[:5]
        least = row[order[2]]
        assert symbols[:promising(row, 1., least, symbols)] == order[:2]
        symbols = [0]*12
        assert symbols[:possible(row, symbols)] == [c for c in order if row[c] > 0]
