"""System S2: four characters of 36 as `captcha` draws them, 170x80. From scratch, offline then online, and with what this library adds; logs for the tutorial.

    python benchmarks/two_stage.py [--runs "scratch two_stage warmup norm"] [--save DIR]"""
import time
from functools import partial
from pathlib import Path

import torch
from common import machine, write_log
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data import CaptchaDataLoaders
from captcha_fastai.export import save_model
from captcha_fastai.interpret import evaluate
from captcha_fastai.learner import captcha_learner
from captcha_fastai.models import model_reader
from captcha_fastai.synth import Synth, digits, upper

logs = Path(__file__).resolve().parent.parent/'nbs'/'tutorials'/'two_stage'
adam = partial(OptimWrapper, opt=torch.optim.Adam)


def captchas(online, n=1280, **kwargs):
    "Captchas, the same or new ones in each epoch, and 512 others to measure with"
    return CaptchaDataLoaders.from_synth(digits+upper, 4, 'fast_captcha', n=n, n_valid=512, online=online, synth_size=(80, 170), seed=42, **{'batch_tfms': [], 'bs': 16, **kwargs})


@call_parse
def main(runs: str = 'scratch two_stage warmup norm',
         alone: int = 20,  # Epochs of `scratch`
         offline: int = 40,  # Epochs on 256 captchas, the first stage of `two_stage` ...
         online: int = 20,  # ... and on endless ones, the second
         epochs: int = 30,  # Of `norm`
         warm: int = 100,  # Of `warmup`
         fresh: int = 2048,  # Captchas that nothing has seen, to measure the end with
         save: str = None):  # Folder for the models, if wanted
    synth = Synth(digits+upper, 4, 'fast_captcha', (80, 170), seed=43)
    labels, images = zip(*(synth(i) for i in range(fresh)))
    for run in runs.split():
        set_seed(42, reproducible=True)
        t, parts = time.time(), []
        if run in ('scratch', 'two_stage'): learn = captcha_learner(captchas(True), 'vgg_heads', opt_func=adam)
        else: learn = captcha_learner(captchas(True, bs=32), *(('crnn_small', {}) if run == 'warmup' else ('vgg_heads', dict(norm=True))))
        with learn.no_bar():
            if run == 'scratch': learn.fit(alone, 1e-3)
            elif run == 'two_stage':
                endless, learn.dls = learn.dls, captchas(False, 256)
                learn.fit(offline, 1e-3)
                parts, learn.dls = [learn.recorder.values], endless
                learn.fit(online, 1e-3)
            else: learn.fit_one_cycle(warm if run == 'warmup' else epochs, 3e-3)
        logs.mkdir(parents=True, exist_ok=True)
        write_log(learn, logs/f'{run}.csv', parts)
        took = time.time()-t
        if save: save_model(learn, Path(save)/f'two_stage_{run}.safetensors')
        report = evaluate(model_reader(learn.model, learn.spec), images, labels)
        print(f'{run}: {took/60:.1f} minutes, {machine()}\n{report}', flush=True)
