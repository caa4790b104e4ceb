"""The default recipe, cross-validated: train on four fifths, read the fifth, five times; pool the readings.

    python benchmarks/folds.py --data ../shared/data/captcha_images_v2"""
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data import CaptchaDataLoaders, labelled, untar_captchas
from captcha_fastai.interpret import Report, evaluate
from captcha_fastai.learner import captcha_learner
from captcha_fastai.models import model_reader
from captcha_fastai.schedule import train_captcha

results = Path(__file__).resolve().parent/'results'


@call_parse
def main(data: str = None,  # Folder of the images; `untar_captchas()` if not given
         arch: str = 'crnn_small',  # Architecture
         bs: int = 16,  # Batch size, as `captcha-train`'s
         lr: float = 2e-3,  # Largest learning rate, as `captcha-train`'s
         k: int = 5,  # Number of folds
         only: int = None,  # Only this fold, to try something out
         seed: int = 42):  # Of the folds and of the training
    images, labels = labelled(data or untar_captchas())
    folds = np.array_split(np.random.default_rng(seed).permutation(len(images)), k)
    rows, times, pooled = [], [], []
    for f, held in enumerate(folds):
        if only is not None and f != only: continue
        set_seed(seed, reproducible=True)
        splits = np.concatenate([o for i, o in enumerate(folds) if i != f]).tolist(), held.tolist()
        t = time.time()
        learn = captcha_learner(CaptchaDataLoaders.from_lists(images, labels, splits=splits, bs=bs), arch)
        with tempfile.TemporaryDirectory() as d, learn.no_bar(): train_captcha(learn, lr=lr, folder=d)
        times.append(time.time()-t)
        report = evaluate(model_reader(learn.model, learn.spec), [images[i] for i in held], [labels[i] for i in held])
        print(f'fold {f}, {times[-1]:.0f} s\n{report}', flush=True)
        pooled += list(zip(report.truths, report.texts))
        rows.append((f, report.right, report.n, round(report.cer, 5), round(times[-1], 1)))
    whole = Report(*zip(*pooled))
    print(f'\n{k} folds pooled, median {np.median(times):.0f} s a training run, {machine()}\n{whole}')
    if only is None:
        results.mkdir(exist_ok=True)
        with (results/f'folds_{arch}.csv').open('w', newline='') as o: csv.writer(o).writerows([('fold', 'right', 'n', 'cer', 'seconds'), *rows])
