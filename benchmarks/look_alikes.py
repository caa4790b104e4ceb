"""How soon does an architecture tell two characters apart that look nearly alike? Texts of four of these two, drawn as `captcha` does, 170x80.

    python benchmarks/look_alikes.py [--pair 0O] [--archs "crnn_small conv_small heads_small"]"""
import time
from pathlib import Path

from common import keep_rows, machine
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import model_reader
from captcha_fastai.draw.synth import Synth


@call_parse
def main(pair: str = '0O',
         archs: str = 'crnn_small conv_small heads_small',
         epochs: int = 25,  # Of 1,280 captchas
         bs: int = 32,
         lr: float = 3e-3,
         fresh: int = 1000):  # Captchas that nothing has seen, to measure the end with
    synth = Synth(pair, 4, 'fast_captcha', (80, 170), seed=43)
    labels, images = zip(*(synth(i) for i in range(fresh)))
    for arch in archs.split():
        set_seed(42)
        dls = CaptchaDataLoaders.from_synth(pair, 4, 'fast_captcha', n=1280, n_valid=32, online=True, synth_size=(80, 170), seed=42, batch_tfms=[], bs=bs)
        learn, t = captcha_learner(dls, arch), time.time()
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr)
        report = evaluate(model_reader(learn.model, learn.spec), images, labels)
        print(f'{arch}: {1280*epochs} captchas, {time.time()-t:.0f} s, {machine()}\n{report}', flush=True)
        keep_rows(Path(__file__).resolve().parent/'results'/'look_alikes.csv', ('run', 'cer', 'right', 'n'), [(f'{arch} {pair} {1280*epochs}', f'{report.cer:.4f}', report.right, report.n)])
