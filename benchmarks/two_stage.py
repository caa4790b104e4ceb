"""System S2: four characters of 36 as `captcha` draws them, 170x80. From scratch, offline then online, and with what this library adds; logs for the tutorial.

    python benchmarks/two_stage.py [--runs "scratch normalised long two_stage warmup norm practised"] [--save DIR]"""
import time
from functools import partial
from pathlib import Path

import torch
from common import keep_rows, machine, write_log
from fastai.data.transforms import Normalize
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.ship.modelfile import save_model
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import model_reader
from captcha_fastai.draw.synth import Synth, digits, upper

root = Path(__file__).resolve().parent.parent
logs = root/'nbs'/'tutorials'/'two_stage'
adam = partial(OptimWrapper, opt=torch.optim.Adam)


def endless(n=1280, **kwargs):
    "`n` new captchas in each epoch, and 256 others to measure with"
    return CaptchaDataLoaders.from_synth(digits+upper, 4, 'fast_captcha', n=n, n_valid=256, online=True, synth_size=(80, 170), seed=42, **{'batch_tfms': [], 'bs': 16, **kwargs})


def fixed(n):
    "The first `n` of them over and over, 1,280 in each epoch, and the same 256 to measure with"
    synth = Synth(digits+upper, 4, 'fast_captcha', (80, 170), seed=42)
    texts, images = zip(*[synth(i) for i in range(n)]*(1280//n), *(synth(i) for i in range(-256, 0)))
    splits = range(len(texts)-256), range(len(texts)-256, len(texts))
    return CaptchaDataLoaders.from_lists(images, texts, chars=digits+upper, max_len=4, size=(80, 170), splits=splits, seed=42, batch_tfms=[], bs=16)


@call_parse
def main(runs: str = 'scratch normalised long two_stage warmup norm practised',
         alone: int = 20,  # Epochs of `scratch` and `normalised`, like all of 1,280 captchas
         long: int = 100,  # Of `long`: `normalised`, for longer
         offline: int = 10,  # Epochs on 128 captchas, the first stage of `two_stage` ...
         online: int = 40,  # ... and on endless ones, the second
         epochs: int = 20,  # Of `norm`
         warm: int = 200,  # Of `warmup`
         practice: int = 54,  # Of `practised`, each of 12,800 captchas, every second character 0 or O ...
         even: int = 14,  # ... and as they come
         fresh: int = 2048,  # Captchas that nothing has seen, to measure the end with
         save: str = None):  # Folder for the models, if wanted
    synth = Synth(digits+upper, 4, 'fast_captcha', (80, 170), seed=43)
    labels, images = zip(*(synth(i) for i in range(fresh)))

    def report(name, learn, took):
        reader = model_reader(learn.model, learn.spec)
        result, alike, told = (evaluate(reader, images, labels, **kw) for kw in ({}, dict(alike=['0O']), dict(length=4)))
        print(f'{name}: {took/60:.1f} minutes, {machine()}\n{result}\n0 and O alike: {alike.right}; length told: {told.right}', flush=True)
        keep_rows(root/'benchmarks'/'results'/'two_stage.csv', ('run', 'right', 'alike', 'told', 'n', 'seconds'), [(name, result.right, alike.right, told.right, result.n, round(took))])
    for run in runs.split():
        set_seed(42, reproducible=True)
        t, parts = time.time(), []
        if run in ('scratch', 'two_stage'): learn = captcha_learner(endless(), 'vgg_heads', opt_func=adam)
        elif run in ('normalised', 'long'): learn = captcha_learner(endless(batch_tfms=Normalize(axes=(0, 1, 2, 3))), 'vgg_heads', opt_func=adam)
        elif run == 'practised': learn = captcha_learner(endless(12_800, bs=32, oversample='0O'), 'conv_small', dict(context=True))
        else: learn = captcha_learner(endless(bs=32), *(('crnn_small', {}) if run == 'warmup' else ('vgg_heads', dict(norm=True))))
        with learn.no_bar():
            if run in ('scratch', 'normalised', 'long'): learn.fit_one_cycle(long if run == 'long' else alone, 1e-3)
            elif run == 'two_stage':
                new, learn.dls = learn.dls, fixed(128)
                learn.fit(offline, 1e-3)
                report('offline', learn, time.time()-t)
                parts, learn.dls, learn.opt = [learn.recorder.values], new, None
                learn.fit_one_cycle(online, 1e-3)           # a cycle begins gently: at a constant 1e-3 it fell back to its plateau in two of three runs
            elif run == 'practised':
                learn.fit_one_cycle(practice, 1.5e-3)
                report('practice', learn, time.time()-t)
                if save: save_model(learn, Path(save)/'two_stage_practice.safetensors')
                parts, learn.dls, learn.opt = [learn.recorder.values], endless(12_800, bs=32), None
                learn.fit_one_cycle(even, 1e-3)
            else: learn.fit_one_cycle(warm if run == 'warmup' else epochs, 3e-3)
        logs.mkdir(parents=True, exist_ok=True)
        write_log(learn, logs/f'{run}.csv', parts)
        took = time.time()-t
        if save: save_model(learn, Path(save)/f'two_stage_{run}.safetensors')
        report(run, learn, took)
