"""No label, and 50, 100, 200 of them: train on drawn captchas, read all real ones; then go on with a few real ones, read the rest; then perhaps learn
from that rest, too, without its labels. Three random subsets of each size.

    python benchmarks/few_labels.py --data ../shared/data/captcha_images_v2
    python benchmarks/few_labels.py --data ../shared/data/captcha_images_v2 --style fit
    python benchmarks/few_labels.py --data ../shared/data/captcha_images_v2 --style fit --unlabelled"""
import csv
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from common import machine
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders, untar_captchas
from captcha_fastai.draw.fit import fit_style
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.read.score import rate
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.fewlabels import rehearsal, second_epochs, start_from, synth_of
from captcha_fastai.train.schedule import Recipe, default_epochs, train_captcha
from captcha_fastai.train.selftrain import self_train

results = Path(__file__).resolve().parent/'results'


def train(learn, *args):
    "Seconds that it took"
    t = time.time()
    with tempfile.TemporaryDirectory() as d, learn.no_bar(), learn.no_logging(): train_captcha(learn, *args, folder=d)
    return time.time()-t


def teach(learn, images, synth, own, seed):
    "Seconds that self-training took, and the numbers of the images it never trains on"
    t, unseen = time.time(), np.random.default_rng(seed).permutation(len(images))[:len(images)//10]
    with tempfile.TemporaryDirectory() as d: self_train(learn, images, synth, own, folder=d, seed=seed, length=len(own[1][0]))
    assert not learn.trusted.keys() & {*unseen.tolist()}
    return time.time()-t, unseen


def read(learn, images, labels, **kwargs): return evaluate(model_reader(learn.model, learn.spec), images, labels, **kwargs)


@call_parse
def main(data: str = None,  # Folder of the images; `untar_captchas()` if not given
         style: str = 'kaptcha',  # Of the drawn captchas; fit: found from 200 of the images, without their labels; none: start from scratch
         sizes: str = '50 100 200',  # How many labels
         subsets: int = 3,  # Random subsets of each size
         arch: str = 'crnn_small',
         steps: int = Recipe.synthetic_steps,  # Of the training on drawn captchas, 32 at a time ...
         lr: float = Recipe.synthetic_lr,  # ... and its peak learning rate
         rehearse: float = -1,  # Share of drawn captchas in the second stage; negative: as `fit_two_stage` decides
         unlabelled: bool = False,  # Learn from the rest as well, without its labels
         seed: int = 42):
    images, labels = labelled(data or untar_captchas())
    chars, drawn, base, rows = ''.join(sorted(set(''.join(labels)))), None, None, []
    name = '_'.join(['few_labels', style, *([arch] if arch != 'crnn_small' else []), *([f'{steps}_{lr:g}'] if (steps, lr) != (Recipe.synthetic_steps, Recipe.synthetic_lr) else []), *([f'rehearse_{rehearse:g}'] if rehearse >= 0 else []), *(['unlabelled'] if unlabelled else [])])

    def keep(style, n, subset, right, of, took):
        rows.append((style, n, subset, right, of, round(took)))
        print(*rows[-1], flush=True)
        results.mkdir(exist_ok=True)
        with (results/f'{name}.csv').open('w', newline='') as o: csv.writer(o).writerows([('style', 'labels', 'subset', 'right', 'n', 'seconds'), *rows])

    if style != 'none':
        set_seed(seed)
        looks = fit_style([images[i] for i in np.random.default_rng(seed).permutation(len(images))[:200]], None, chars, len(labels[0])) if style == 'fit' else style
        drawn = CaptchaDataLoaders.from_synth(chars, len(labels[0]), looks, n=Recipe.synthetic_epoch, n_valid=Recipe.synthetic_valid, online=True,
                                              synth_size=(50, 200), channels=1, bs=Recipe.synthetic_bs, seed=seed)
        base = captcha_learner(drawn, arch)
        took = train(base, default_epochs(Recipe.synthetic_epoch, Recipe.synthetic_bs, steps), lr)
        report = read(base, images, labels, length=len(labels[0]))              # alphabet and length are told, nothing else
        print(f'no label, length not told: {read(base, images, labels).right} of {report.n}')
        keep(style, 0, '', report.right, report.n, took)
        print(f'no label, {took:.0f} s\n{report}', flush=True)
        base = SimpleNamespace(model=base.model.cpu(), spec=base.spec)
    for n in map(int, sizes.split()):
        for s in range(subsets):
            order = np.random.default_rng(s).permutation(len(images))
            mine, rest = order[:n], order[n:]
            set_seed(s)
            ids = [*mine, *rest[:10]]                                # ten to watch; nothing is chosen by them
            dls = CaptchaDataLoaders.from_lists([images[i] for i in ids], [labels[i] for i in ids], splits=(range(n), range(n, n+10)), bs=Recipe.bs, chars=chars)
            learn = captcha_learner(dls, arch)
            again = rehearsal(start_from(learn, base.model, base.spec), drawn, rehearse if rehearse >= 0 else None) if base else None
            if again: dls.train.after_batch.add(again)
            took = train(learn, *((second_epochs(n, Recipe.bs, Recipe.tune_steps, again), Recipe.tune_lr) if base else ()))
            others, theirs = [images[i] for i in rest], [labels[i] for i in rest]
            report = read(learn, others, theirs)
            keep(style, n, s, report.right, report.n, took)
            told = read(learn, others, theirs, length=len(labels[0]))       # as all labels have it
            keep(f'{style}, length told', n, s, told.right, told.n, took)
            if unlabelled:
                took, unseen = teach(learn, others, drawn and synth_of(drawn), ([images[i] for i in mine], [labels[i] for i in mine]), s)
                report = read(learn, others, theirs)
                keep(f'{style}, unlabelled', n, s, report.right, report.n, took)
                report = read(learn, [others[i] for i in unseen], [theirs[i] for i in unseen])
                keep(f'{style}, unlabelled, unseen', n, s, report.right, report.n, took)
    for how,n in dict.fromkeys(r[:2] for r in rows):
        same = [r for r in rows if r[:2] == (how, n)]
        print(how, n, 'labels:', rate(*(sum(r[k] for r in same) for k in (3, 4)), same[0][4]))        # the subsets share most images
    print(machine())
