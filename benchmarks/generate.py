"""How fast captchas are generated, whether training waits for them, and whether a small net can tell the fast ones from the `captcha` package's (or synthetic ones from real ones).

    python benchmarks/generate.py
    python benchmarks/generate.py --what waits --workers 8       # where there is a GPU
    python benchmarks/generate.py --real ../shared/data/captcha_images_v2 --style fit"""
import time
from random import Random

import captcha.image
import numpy as np
import torch
from common import machine
from fastai.callback.core import Callback
from fastcore.script import call_parse
from torch import nn

from captcha_fastai.read.images import open_image
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.fit import fit_style
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.read.score import rate
from captcha_fastai.train.models import conv_body
from captcha_fastai.draw.package import captcha_sizes
from captcha_fastai.draw.styles import styles
from captcha_fastai.draw.synth import Synth, digits, lower, upper


def speeds(size, length, rounds=15, n=60):
    "Images a second of each style and of the package itself, generated in turns"
    w, h = size
    package, rng = captcha.image.ImageCaptcha(w, h, font_sizes=captcha_sizes('x'*length, w, h)), Random(0)
    texts = [''.join(rng.choice(digits+lower) for _ in range(length)) for _ in range(n)]
    generators = {'captcha': package.generate_image, **{k: (lambda t, f=f: f(t, rng, w, h)) for k, f in styles.items()}}
    took = {k: [] for k in generators}
    for f in generators.values(): [f(t) for t in texts]                    # fonts and machine code
    for _ in range(rounds):
        for k, f in generators.items():
            t0 = time.perf_counter()
            for t in texts: f(t)
            took[k].append((time.perf_counter()-t0)/n)
    for k, v in took.items(): print(f'{w}x{h}, {length} characters, {k}: {1/np.median(v):,.0f} images/s, {np.median(np.array(took["captcha"])/v):.1f}x')


def told_apart(a, b, n_test, epochs=8, seed=0):
    "(how many of the last `n_test` images of each a small net assigns right, of how many) after it has been trained on the others"
    torch.manual_seed(seed)
    x = torch.from_numpy(np.concatenate([a, b]))[:, None].float()/127.5-1
    y = torch.arange(2).repeat_interleave(len(a)).float()
    test = torch.zeros(len(x), dtype=torch.bool)
    test[len(a)-n_test:len(a)] = test[-n_test:] = True
    net = nn.Sequential(conv_body(1, (16, 32, 32, 64, 64), 8), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Dropout(.2), nn.Linear(256, 1), nn.Flatten(0))
    opt = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=.05)
    train = (~test).nonzero()[:, 0]
    steps = epochs*(len(train)//32)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, steps)
    for i in range(steps):
        k = train[torch.randint(len(train), (32,))]
        nn.functional.binary_cross_entropy_with_logits(net(x[k]), y[k]).backward()
        opt.step(); opt.zero_grad(); sched.step()
    net.eval()
    with torch.no_grad(): said = torch.cat([net(o) for o in x[test].split(64)]) > 0
    return int((said == y[test].bool()).sum()), int(test.sum())


class Waiting(Callback):
    "How long training waits for its next batch, generation and augmentation included"
    order = -100
    def before_train(self): self.last, self.waited, self.begun = None, 0., None
    def before_batch(self):
        if not self.training: return
        now = time.perf_counter()
        if self.last is None: self.begun = now                      # the first batch is that of a fresh worker
        else: self.waited += now-self.last
    def after_step(self): self.last = self.ended = time.perf_counter()


def waits(style, workers, steps=150):
    "Share of the time that training the default net waits for synthetic captchas"
    dls = CaptchaDataLoaders.from_synth(digits+lower, 5, style, n=32*steps, n_valid=32, online=True, synth_size=(50, 200), channels=1, bs=32, num_workers=workers)
    learn, wait = captcha_learner(dls), Waiting()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3, cbs=wait)
    x, t = dls.train.create_batch([dls.train_ds[i] for i in range(32)])[0], time.perf_counter()
    for _ in range(20): dls.train.after_batch((x,))
    augment, step = (time.perf_counter()-t)/20, (wait.ended-wait.begun)/steps
    print(f'{style}, {workers} workers: {step*1e3:.0f} ms a step, of which {augment/step:.1%} go into augmentation of the batch and {wait.waited/steps/step - augment/step:.1%} into waiting', flush=True)


def grey_captchas(style, n, seed, chars=digits+lower, length=4, size=(60, 160)):
    "`n` captchas as a grey array"
    synth = Synth(chars, length, style, size, seed)
    return np.stack([np.asarray(synth(i)[1].convert('L')) for i in range(n)])


@call_parse
def main(n: int = 6000,  # Captchas of each kind to train the net on
         n_test: int = 3000,  # ... and to test it on
         what: str = 'speed waits apart',  # Which of the three
         workers: str = '0 1',  # How many processes generate, where training may wait
         real: str = None,  # Folder of labelled real captchas to tell a style from instead
         style: str = 'kaptcha'):  # Which; fit: found from 200 of them
    if not real:
        if 'speed' in what: [speeds(*o) for o in (((160, 60), 4), ((200, 50), 5))]
        if 'waits' in what: [waits(o, k) for k in map(int, workers.split()) for o in ('fast_captcha', 'kaptcha')]
        if 'apart' in what:
            package = grey_captchas('image_captcha', n+n_test, 1)
            for name in ('image_captcha', 'fast_captcha'):
                print(f'image_captcha from {name}: {rate(*told_apart(package, grey_captchas(name, n+n_test, 2), n_test))} told apart', flush=True)
    else:
        paths, labels = labelled(real)
        chars, order = ''.join(sorted(set(''.join(labels)))), np.random.default_rng(0).permutation(len(paths))
        ims = [open_image(paths[i]).convert('L') for i in order]
        x, k = np.stack([np.asarray(o) for o in ims]), len(ims)//4
        looks = fit_style(ims[:-k], None, chars, len(labels[0])) if style == 'fit' else style
        ours = grey_captchas(looks, len(x), 3, chars, len(labels[0]), x.shape[1:])
        print(f'real ones from {style}: {rate(*told_apart(x, ours, k, 20))} told apart')
    print(machine())
