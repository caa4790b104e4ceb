"""System S4: four digits from 100,000 files; four characters of 36 drawn while training, with early stopping and a second round; logs for the tutorial.

    python benchmarks/digits_and_gru.py [--parts "digits gru"] [--save DIR]"""
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from common import keep_rows, machine
from fastai.data.transforms import Normalize
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.augment import CaptchaAugment
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.ship.modelfile import save_model
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.schedule import Recipe, train_average, train_captcha
from captcha_fastai.draw.synth import Synth, digits, upper, write_synth

root = Path(__file__).resolve().parent.parent
logs = root/'nbs'/'tutorials'/'digits_and_gru'


def train(learn, name, runs, epochs, lr, how=train_captcha, **kwargs):
    "Train, or go on where it was interrupted, and keep the log; the seconds of its epochs"
    folder = Path(runs)/name
    with learn.no_bar(): how(learn, epochs, lr, folder, (folder/'last.ckpt').exists(), **kwargs)
    log = pd.read_csv(folder/'log.csv')
    logs.mkdir(parents=True, exist_ok=True)
    log.drop(columns='time').to_csv(logs/f'{name}.csv', index=False, float_format='%.6g')
    took = sum(60**i*int(o) for t in log.time for i,o in enumerate(reversed(t.split(':'))))
    print(f'{name}: {took/60:.1f} minutes, {machine()}', flush=True)
    return took


def keep(name, learn, images, labels, took):
    "Print a report and note its figures"
    reader = model_reader(learn.model, learn.spec)
    report, alike = evaluate(reader, images, labels), evaluate(reader, images, labels, alike=['0O'])
    print(f'{report}\n0 and O alike: {alike.right}', flush=True)
    keep_rows(root/'benchmarks'/'results'/'digits_and_gru.csv', ('part', 'right', 'alike', 'n', 'seconds'), [(name, report.right, alike.right, report.n, round(took))])


def drawn(seed, n):
    "Captchas that nothing has seen: (images, labels)"
    synth = Synth(digits+upper, 4, 'fast_captcha', (64, 128), seed=seed)
    labels, images = zip(*(synth(i) for i in range(n)))
    return images, labels


@call_parse
def main(parts: str = 'digits gru',
         n: int = 100_000,  # Files of digits
         digit_epochs: int = 8,
         steps: int = 1000,  # Of an epoch of the GRU
         bs: int = 128,  # ... and their size
         epochs: int = 13,  # Of the first round, at most: every second character is 0 or O; its last weights are kept
         patience: int = 5,  # Epochs without a better one that end it
         lr: float = 1e-3,
         again: int = 0,  # Epochs of one more cycle like the first, from its weights and with other captchas; no patience ends it
         second: int = 11,  # Of the second round, at a tenth of the rate, characters come equally often
         average: int = 0,  # Epochs after it at a constant rate, every second character 0 or O, with other captchas: the mean of all their steps is kept
         average_lr: float = Recipe.average_lr,
         fresh: int = 2560,  # Captchas that nothing has seen, to measure the end with; then three sets of four times as many others
         runs: str = 'models/digits_and_gru',  # Folder for files and checkpoints: a run that was interrupted goes on
         save: str = None):  # Folder for the models, if wanted
    if 'digits' in parts:
        set_seed(42, reproducible=True)
        t = time.time()
        table = write_synth(Path(runs)/'files', n, Synth(digits, 4, 'fast_captcha', (100, 120), seed=42), workers=2, ext='jpg', table='labels.txt')
        print(f'{n} files drawn in {time.time()-t:.0f} s', flush=True)
        augment = CaptchaAugment(rotate=3, scale=.05, shear=.05, shift=.05, elastic=.5, light=0, contrast=0)
        dls = CaptchaDataLoaders.from_csv(table, channels=1, bs=64, batch_tfms=[augment, Normalize()])
        learn = captcha_learner(dls, 'digits_cnn')
        took = train(learn, 'digits', runs, digit_epochs, 3e-3)
        keep('digits', learn, *zip(*((o.image, o.text) for o in dls.valid_captchas)), took)
        if save: save_model(learn, Path(save)/'digits.safetensors')
    if 'gru' in parts:
        set_seed(42, reproducible=True)
        endless = partial(CaptchaDataLoaders.from_synth, digits+upper, 4, 'fast_captcha', n=steps*bs, n_valid=fresh//2, online=True, synth_size=(64, 128), seed=42, bs=bs, batch_tfms=[])
        learn = captcha_learner(endless(oversample='0O'), 'vgg_gru')
        images, labels = drawn(43, fresh)
        keep('gru', learn, images, labels, train(learn, 'gru', runs, epochs, lr, patience=patience))
        if save: save_model(learn, Path(save)/'gru_first.safetensors')
        if again:
            learn.dls, learn.opt = endless(oversample='0O', seed=45), None
            keep('gru_again', learn, images, labels, train(learn, 'gru_again', runs, again, lr))
            if save: save_model(learn, Path(save)/'gru_again.safetensors')
        learn.dls, learn.opt, learn.origin = endless(), None, f'{again} epochs again' if again else ''   # not to be resumed from another first round
        keep('gru_second', learn, images, labels, train(learn, 'gru_second', runs, second, lr/10, best=True, patience=patience))
        if average:
            if save: save_model(learn, Path(save)/'gru_second.safetensors')
            learn.dls, learn.opt, learn.origin = endless(oversample='0O', seed=48), None, f'{again} and {second} epochs'
            keep('gru_averaged', learn, images, labels, train(learn, 'gru_averaged', runs, average, average_lr, train_average))
        if save: save_model(learn, Path(save)/'gru.safetensors')
        for name,seed in dict(gru_others=44, gru_more=50, gru_last=51).items(): keep(name, learn, *drawn(seed, 4*fresh), 0)        # larger sets; nothing was chosen by the last
        np.savetxt(logs/'gru_steps.csv', model_reader(learn.model, learn.spec).logp(images[:1])[0], '%.7g', ',')                # for a picture of its steps
