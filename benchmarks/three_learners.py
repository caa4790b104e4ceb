"""Train the three full-size learners of system S1 on one fixed split; write each one's log for the tutorial.

    python benchmarks/three_learners.py --data ../shared/data/captcha_images_v2 [--archs pool_free] [--epochs 60]"""
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
from common import machine, published_tfms
from fastai.optimizer import Adam
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.augment import CaptchaAugment
from captcha_fastai.data.loaders import CaptchaDataLoaders, untar_captchas
from captcha_fastai.ship.modelfile import save_model
from captcha_fastai.judge.report import evaluate_valid
from captcha_fastai.train.learner import captcha_learner, fused_adamw
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.schedule import train_captcha
from captcha_fastai.train.splice import AuxiliaryCTC, Splice

logs = Path(__file__).resolve().parent.parent/'nbs'/'tutorials'/'three_learners'


def cutter(data, seed):
    "A reader that has learned the same training images by the default recipe, and so knows where characters are"
    set_seed(seed, reproducible=True)
    t, learn = time.time(), captcha_learner(CaptchaDataLoaders.from_folder(data or untar_captchas(), valid_pct=.2, seed=seed, bs=16))
    with tempfile.TemporaryDirectory() as d, learn.no_bar(), learn.no_logging(): train_captcha(learn, folder=d)
    print(f'crnn_small, to cut with: {time.time()-t:.0f} s', flush=True)
    return model_reader(learn.model, learn.spec)


@call_parse
def main(data: str = None,  # Folder of the images; `untar_captchas()` if not given
         archs: str = 'crnn pool_free multi_head',  # Which to train
         epochs: int = 60,  # At most 60, as published
         bs: int = 8,  # Batch size
         lr: float = 3e-3,  # Largest learning rate
         published: bool = False,  # Augment and optimise as the post did
         light: bool = False,  # Turn and light only, about as the post did
         p: float = .5,  # Dropout of the heads
         splice: bool = False,  # Train on splices as well, cut by a `crnn_small` that is trained first on the same split; heads models with `AuxiliaryCTC`
         seed: int = 42,  # Of the split and of all else; another one's log is not kept
         save: str = None):  # Folder for the models, if wanted
    reader = cutter(data, seed) if splice else None
    for arch in archs.split():
        set_seed(seed, reproducible=True)
        tfms = published_tfms() if published else CaptchaAugment(rotate=10, scale=0, shear=0, elastic=0, light=.25, contrast=.5) if light else None
        dls = CaptchaDataLoaders.from_folder(data or untar_captchas(), valid_pct=.2, seed=seed, bs=bs, batch_tfms=tfms)
        kwargs = {} if arch == 'crnn' else dict(arch_args=dict(p=p), opt_func=partial(fused_adamw, betas=(.9, .99), eps=1e-5))  # fastai's settings; its Adam itself grows by gigabytes here
        if published: kwargs['opt_func'] = Adam
        if splice:
            dls.train.after_batch.add(Splice(reader, dls))
            if arch != 'crnn': kwargs['cbs'] = AuxiliaryCTC()
        learn = captcha_learner(dls, arch, **kwargs)
        t = time.time()
        with tempfile.TemporaryDirectory() as d, learn.no_bar():
            train_captcha(learn, epochs, lr, d)
            if seed == 42: pd.read_csv(Path(d)/'log.csv').drop(columns='time').to_csv(logs/f'{arch}{"_splice"*splice}.csv', index=False, float_format='%.6g')
        took = time.time()-t
        if save: save_model(learn, Path(save)/f'{arch}.safetensors')
        report = evaluate_valid(model_reader(learn.model, learn.spec), dls)
        print(f'{arch}: {epochs} epochs, batch {bs}, {took/60:.1f} minutes ({took/epochs:.1f} s an epoch), {machine()}\n{report}', flush=True)
