"""The default recipe, cross-validated: train on four fifths, read the fifth, five times; pool the readings.

The confidences are calibrated out of fold as well: temperature and threshold for each fifth come from the other four.

    python benchmarks/folds.py --data ../shared/data/captcha_images_v2"""
import csv
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import machine
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders, untar_captchas
from captcha_fastai.read.reader import readings
from captcha_fastai.judge.calibrate import fit_temperature
from captcha_fastai.judge.report import Report
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.read.score import rate
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.schedule import Recipe, train_captcha

results = Path(__file__).resolve().parent/'results'


def read_calibrated(held, precision):
    "For `(spec, log-probabilities, truths)` of each fold: the fold's report, its temperature and the threshold, both from the other folds"
    out = []
    for f, (spec, logp, truths) in enumerate(held):
        others = [o for i, o in enumerate(held) if i != f]
        ids = [spec.vocab.encode(t) for _, _, ts in others for t in ts]
        spec = replace(spec, temperature=fit_temperature(np.concatenate([o[1] for o in others]), ids, spec.decoder))
        theirs = [r for _, lp, ts in others for r in readings(lp, spec, ts)]
        threshold = Report([t for _, _, ts in others for t in ts], theirs).accept_threshold(precision).threshold
        out.append((Report(truths, readings(logp, spec, truths)), spec.temperature, threshold))
    return out


def calibration(held, precision=Recipe.precision):
    "Print what confidences are worth before and after, and write the table"
    before = Report([t for _, _, ts in held for t in ts], [r for spec, lp, ts in held for r in readings(lp, spec, ts)])
    folds = read_calibrated(held, precision)
    after = Report([t for r, _, _ in folds for t in r.truths], [x for r, _, _ in folds for x in r.readings])
    accepted = [t == str(x) for r, _, least in folds for t, x in zip(r.truths, r.readings) if x.confidence >= least]
    rows = [('before', round(before.ece(), 5)), ('after', round(after.ece(), 5)),
            ('temperatures', ' '.join(f'{o:.3f}' for _, o, _ in folds)), ('thresholds', ' '.join(f'{o:.4f}' for *_, o in folds)),
            ('precision', rate(sum(accepted), len(accepted))), ('coverage', rate(len(accepted), after.n))]
    for row in rows: print(*row)
    with (results/'calibration.csv').open('w', newline='') as o: csv.writer(o).writerows([('what', 'value'), *rows])


@call_parse
def main(data: str = None,  # Folder of the images; `untar_captchas()` if not given
         arch: str = 'crnn_small',  # Architecture
         bs: int = Recipe.bs,  # Batch size, as `captcha-train`'s
         lr: float = Recipe.lr,  # Peak learning rate, as `captcha-train`'s
         k: int = 5,  # Number of folds
         only: int = None,  # Only this fold, to try something out
         keep: str = None,  # Folder to keep each fold's log-probabilities in
         seed: int = 42):  # Of the folds and of the training
    if keep: Path(keep).mkdir(parents=True, exist_ok=True)
    images, labels = labelled(data or untar_captchas())
    folds = np.array_split(np.random.default_rng(seed).permutation(len(images)), k)
    rows, times, held_out = [], [], []
    for f, held in enumerate(folds):
        if only is not None and f != only: continue
        set_seed(seed, reproducible=True)
        splits = np.concatenate([o for i, o in enumerate(folds) if i != f]).tolist(), held.tolist()
        t = time.time()
        learn = captcha_learner(CaptchaDataLoaders.from_lists(images, labels, splits=splits, bs=bs), arch)
        with tempfile.TemporaryDirectory() as d, learn.no_bar(): train_captcha(learn, lr=lr, folder=d)
        times.append(time.time()-t)
        reader, truths = model_reader(learn.model, learn.spec), [labels[i] for i in held]
        logp = np.concatenate([reader.logp([images[i] for i in held[j:j+64]]) for j in range(0, len(held), 64)])
        if keep: np.savez(Path(keep)/f'fold{f}.npz', logp=logp, truths=truths, spec=learn.spec.to_json())
        report = Report(truths, readings(logp, learn.spec, [str(images[i]) for i in held]))
        print(f'fold {f}, {times[-1]:.0f} s\n{report}', flush=True)
        held_out.append((learn.spec, logp, truths))
        rows.append((f, report.right, report.n, round(report.cer, 5), round(times[-1], 1)))
    whole = Report([t for *_, ts in held_out for t in ts], [r for spec, lp, ts in held_out for r in readings(lp, spec, ts)])
    print(f'\n{len(rows)} folds pooled, median {np.median(times):.0f} s a training run, {machine()}\n{whole}')
    if only is None:
        results.mkdir(exist_ok=True)
        with (results/f'folds_{arch}.csv').open('w', newline='') as o: csv.writer(o).writerows([('fold', 'right', 'n', 'cer', 'seconds'), *rows])
        calibration(held_out)
