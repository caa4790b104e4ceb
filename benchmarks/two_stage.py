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
adadelta = partial(OptimWrapper, opt=torch.optim.Adadelta)


def captchas(online, **kwargs):
    "1,280 captchas, the same or new ones in each epoch, and 512 others to measure"
    return CaptchaDataLoaders.from_synth(digits+upper, 4, 'fast_captcha', n=1280, n_valid=512, online=online, synth_size=(80, 170), seed=42, **{'batch_tfms': [], **kwargs})


@call_parse
def main(runs: str = 'scratch two_stage warmup norm',
         epochs: int = 30,  # Of `warmup` and `norm`
         online: int = 15,  # Of the second stage
         fresh: int = 2048,  # Captchas that nothing has seen, to measure the end with
         save: str = None):  # Folder for the models, if wanted
    synth = Synth(digits+upper, 4, 'fast_captcha', (80, 170), seed=43)
    labels, images = zip(*(synth(i) for i in range(fresh)))
    for run in runs.split():
        set_seed(42, reproducible=True)
        t, parts = time.time(), []
        with_bar = {'scratch': ('vgg_heads', {}), 'two_stage': ('vgg_heads', {}), 'norm': ('vgg_heads', dict(norm=True)), 'warmup': ('crnn_small', {})}[run]
        learn = captcha_learner(captchas(True, bs=16 if run in ('scratch', 'two_stage') else 32), *with_bar, **(dict(opt_func=adadelta) if run in ('scratch', 'two_stage') else {}))
        with learn.no_bar():
            if run == 'scratch': learn.fit(5, 1.)
            elif run == 'two_stage':
                endless, learn.dls = learn.dls, captchas(False, bs=16)
                learn.fit(5, 1.)
                parts, learn.dls = [learn.recorder.values], endless
                learn.fit(online, 1.)
            else: learn.fit_one_cycle(epochs, 3e-3)
        write_log(learn, logs/f'{run}.csv', parts)
        took = time.time()-t
        if save: save_model(learn, Path(save)/f'two_stage_{run}.safetensors')
        report = evaluate(model_reader(learn.model, learn.spec), images, labels)
        print(f'{run}: {took/60:.1f} minutes, {machine()}\n{report}', flush=True)
