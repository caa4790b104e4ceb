"""Time to 97 % of captchas: the published S1 recipe (multi-head) and our default, same split, same machine, one after the other.

    python benchmarks/peers.py --data ../shared/data/captcha_images_v2"""
import csv
import time
from pathlib import Path

from common import machine, published_tfms
from fastai.torch_core import set_seed
from fastai.vision.all import Adam, Callback, CancelFitException
from fastcore.script import call_parse

from captcha_fastai.data.loaders import CaptchaDataLoaders, untar_captchas
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.schedule import Recipe, default_epochs

results = Path(__file__).resolve().parent/'results'


class Until(Callback):
    "Stop at the first epoch whose captcha accuracy is `goal` or more, or that ends after `limit` seconds; keep the seconds and the best"
    order = 90
    def __init__(self, goal, limit): self.goal, self.limit, self.seconds, self.best = goal, limit, None, 0.
    def before_fit(self): self.start = time.time()
    def after_epoch(self):
        acc = dict(zip(self.recorder.metric_names, self.recorder.log))['captcha_acc']
        self.best, self.last, self.total = max(self.best, acc), self.epoch, time.time()-self.start
        if acc >= self.goal: self.seconds = self.total
        if acc >= self.goal or self.total > self.limit: raise CancelFitException


def published(data):
    "The 2022 post: xresnet34 and a pooled head, batch 8, 60 epochs at 3e-3, float32"
    dls = CaptchaDataLoaders.from_folder(data, valid_pct=.2, seed=42, bs=8, channels=3, batch_tfms=published_tfms())
    return captcha_learner(dls, 'multi_head', bf16=False, opt_func=Adam), 60, 3e-3


def ours(data):
    "What `captcha-train` does"
    learn = captcha_learner(CaptchaDataLoaders.from_folder(data, valid_pct=.2, seed=42, bs=Recipe.bs))
    return learn, default_epochs(len(learn.dls.train_ds)), Recipe.lr


@call_parse
def main(data: str = None,  # Folder of the images; `untar_captchas()` if not given
         goal: float = .97,  # Captcha accuracy to reach
         limit: float = 60):  # Minutes after which a recipe is given up
    rows = []
    for f in (ours, published):
        set_seed(42)
        learn, epochs, lr = f(data or untar_captchas())
        until = Until(goal, limit*60)
        with learn.no_bar(): learn.fit_one_cycle(epochs, lr, cbs=until)
        rows.append((f.__name__, until.seconds and round(until.seconds, 1), until.last+1, epochs, round(until.total, 1), round(until.best, 4)))
        print(dict(zip(('recipe', 'seconds to goal', 'epochs run', 'of', 'seconds', 'best'), rows[-1])), flush=True)
    results.mkdir(exist_ok=True)
    with (results/'peers.csv').open('w', newline='') as o: csv.writer(o).writerows([('recipe', 'seconds_to_goal', 'epochs_run', 'of', 'seconds', 'best'), *rows])
    (_, a, *_), (_, b, _, _, total, best) = rows
    theirs = f'{b} s' if b else f'not reached in {total} s (best {best:.1%})'
    print(f'goal {goal:.0%}, {machine()}: ours {a or "not reached"}, published {theirs}' + (f': {"" if b else "more than "}{(b or total)/a:.1f} times longer' if a else ''))
