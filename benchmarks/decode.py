"""Decoding against its peers: right texts, exact probabilities, speed. One thread, CPU time, interleaved.

    pip install -e '.[bench]' && pip install --no-deps pyctcdecode pygtrie
    python benchmarks/decode.py [--n 400] [--rounds 5]

pyctcdecode asks for numpy below 2, which pandas does not; it runs with a newer one, hence `--no-deps`."""
import csv
import itertools
import logging
import os
import time
from functools import partial
from pathlib import Path

os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1')
import numpy as np
from common import machine
from fastcore.script import call_parse
from scipy.special import logsumexp

from captcha_fastai.read.ctc import best_path, text_logp
from captcha_fastai.read.search import search

results = Path(__file__).resolve().parent/'results'
alphabet = ''.join(map(chr, range(0x4e00, 0x4e00+100)))  # One character per symbol, for peers that want texts


def path_beam(lp, beam=10, least=np.log(.01)):
    "The 2022 post's search, the baseline: every path looks at every symbol, those under 1 % are passed over, paths of one text are merged only at the end"
    paths = [([], 0.)]
    for row in lp:
        longer = []
        for path, score in paths:
            for k in range(len(row)):
                if row[k] >= least: longer.append((path + [k], score + row[k]))
        paths = sorted(longer, key=lambda o: -o[1])[:beam]
    texts = {}
    for path, score in paths:
        ids = tuple(k for k, _ in itertools.groupby(path) if k)
        texts[ids] = logsumexp([score, texts.get(ids, -np.inf)])
    return sorted(texts.items(), key=lambda o: -o[1])


def normal(z): return (z - np.logaddexp.reduce(z, -1, keepdims=True)).astype(np.float32)


def trained_like(n, T, V, rng, length=5, hesitant=.1):
    """Log-probabilities as of a trained model: blanks, and for each character a peak with shoulders, where it is at odds with the blank;
    one character in ten wavers between two"""
    z = rng.normal(size=(n, T, V))
    z[..., 0] += 12
    for item in z:
        for at in (np.arange(length)+.5)*T/length:
            t, k = int(at), rng.integers(1, V)
            item[t, k] += 24
            if rng.random() < hesitant: item[t, rng.integers(0, V)] += rng.uniform(20, 25)
            for o in {max(t-1, 0), min(t+1, T-1)} - {t}: item[o, k] += rng.uniform(6, 13)
    return normal(z)


def flat(n, T, V, rng): return normal(rng.normal(size=(n, T, V)))


def peers(V, beam):
    "{name: function of one item's (log-probabilities, probabilities) -> (text, its log-probability or None)}"
    out = {'path beam (2022 post)': lambda lp, p: path_beam(lp, beam)[0]}
    try:
        from fast_ctc_decode import beam_search
        out['fast-ctc-decode'] = lambda lp, p: (tuple(alphabet.index(c) for c in beam_search(p, alphabet[:V], beam, .01)[0]), None)
    except ImportError: print('fast-ctc-decode is not installed')
    try:
        logging.disable(logging.WARNING)
        from pyctcdecode import build_ctcdecoder
        d = build_ctcdecoder(['', *alphabet[1:V]])
        out['pyctcdecode'] = lambda lp, p: _pyctc(d.decode_beams(lp, beam_width=beam)[0])
    except ImportError: print('pyctcdecode is not installed')
    try:
        from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM
        fl = LexiconFreeDecoder(LexiconFreeDecoderOptions(beam_size=beam, beam_size_token=V, beam_threshold=50., lm_weight=0., sil_score=0.,
                                                          log_add=True, criterion_type=CriterionType.CTC), ZeroLM(), V+1, 0, [])
        out['flashlight-text'] = lambda lp, p: _flashlight(fl.decode(lp.ctypes.data, *lp.shape)[0], V)
    except ImportError: print('flashlight-text is not installed')
    return out


def _pyctc(o): return tuple(alphabet.index(c) for c in o[0] if c != ' '), o[3]
def _flashlight(o, V): return tuple(k for k, _ in itertools.groupby(o.tokens) if 0 < k < V), o.score


def enumerate_texts(lp):
    "Probability of every text, by all paths"
    out = {}
    for path in itertools.product(range(lp.shape[1]), repeat=len(lp)):
        ids = tuple(k for k, _ in itertools.groupby(path) if k)
        out[ids] = out.get(ids, 0.) + np.exp(sum(float(lp[t, k]) for t, k in enumerate(path)))
    return out


def correctness(n, rng):
    "Share of cases whose most probable text is found, and of texts whose own probability is exact"
    rows, hits = [], {}
    for _ in range(n):
        T, V = rng.integers(2, 6), rng.integers(2, 5)
        lp = normal(rng.normal(size=(T, V))*2)
        truth = enumerate_texts(lp)
        best = max(truth.values())
        found = {'greedy': (tuple(best_path(lp[None])[0]), None)}
        for beam in (10, 100):
            o = search(lp, beam=beam, fast=True)[0]
            found[f'search, beam {beam}'] = tuple(o.ids), o.logp
        found |= {k: f(lp, np.exp(lp)) for k, f in peers(V, 10).items()}
        for k, (ids, score) in found.items():
            h = hits.setdefault(k, [0, 0, score is not None])
            h[0] += truth.get(ids, 0) >= best*(1-1e-9)
            h[1] += score is not None and abs(score - np.log(truth.get(ids, 1e-300))) < 1e-6
    for k, (right, exact, scored) in hits.items(): rows.append((k, f'{right/n:.1%}', f'{exact/n:.1%}' if scored else 'none'))
    return rows


def cpu(f):
    t = time.thread_time()
    f()
    return time.thread_time()-t


@call_parse
def main(n: int = 400,  # Sequences of each kind
         cases: int = 2000,  # Cases to enumerate
         rounds: int = 5,  # Interleaved rounds, of which the median counts
         logps: str = None):  # Folder that `folds.py --keep` wrote, to decode a real model's output as well
    rng = np.random.default_rng(0)
    table = correctness(cases, rng)
    print(f'{cases} cases that can be enumerated, beam 10: most probable text found, own log-probability exact')
    for row in table: print(*row, sep='\t')
    rows = []
    inputs = [(f.__name__, f(n, T, V, rng)) for f, T, V in [(trained_like, 13, 20), (trained_like, 25, 37), (trained_like, 50, 63), (flat, 25, 37)]]
    if logps: inputs.append(('crnn_small on its held-out images', np.concatenate([np.load(f)['logp'] for f in sorted(Path(logps).glob('*.npz'))]).astype(np.float32)))
    for kind, lps in inputs:
        T, V = lps.shape[1:]
        for beam in (10, 100):
            few = lps[:max(4, n//20)] if beam == 100 or kind == 'flat' else lps   # For the slow ones
            ps, fs = np.exp(lps), {'ours': None, **peers(V, beam)}
            search(lps, beam=beam, threads=1, fast=True)
            rates = {k: [] for k in fs}
            for _ in range(rounds):
                for k, f in fs.items():
                    if f is None: rates[k].append(len(lps)/cpu(partial(search, lps, beam=beam, threads=1, fast=True)))
                    else:
                        own = lps if k.startswith('fast') else few
                        rates[k].append(len(own)/cpu(lambda: [f(lp, p) for lp, p in zip(own, ps)]))  # noqa: B023
            ours = np.median(rates['ours'])
            confident = np.mean([np.exp(text_logp(lps, best_path(lps))) > .5])
            for k, v in rates.items():
                ratio = np.median(np.array(rates['ours'])/np.array(v))
                rows.append((kind, f'{T}x{V}', beam, k, round(np.median(v)), round(ratio, 2)))
            print(f'{kind} {T}x{V}, beam {beam} (greedy proven best in {confident:.0%}): {ours:.0f}/s; times faster than ' +
                  ', '.join(f'{k} {r:.3g}' for *_, k, _, r in rows[-len(fs)+1:]), flush=True)
    print(machine())
    results.mkdir(exist_ok=True)
    with (results/'decode.csv').open('w', newline='') as o: csv.writer(o).writerows([('inputs', 'steps x symbols', 'beam', 'decoder', 'per second', 'times ours is faster'), *rows])
    with (results/'decode_right.csv').open('w', newline='') as o: csv.writer(o).writerows([('decoder', 'most probable text', 'own log-probability exact'), *table])
