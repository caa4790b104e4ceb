"""Train the base model on generated pictures of the style `world`; nothing real is seen. It goes on where it was interrupted.

    apt-get install -y --no-install-recommends $(cat benchmarks/base_fonts.txt)     # Debian's fonts, free licences
    python benchmarks/base.py                       # some 85 minutes on two cores; checkpoint in models/base
    python benchmarks/base.py --write-to captcha_fastai/base.safetensors
    python benchmarks/base.py --begin-from base --steps 2500 --lr 1.5e-3 --decay .5 --seed 2    # goes on from the package's model

One core trains, a process beside it generates. Another number of `--steps` moves the end, also of a run that was interrupted."""
import math
import os
import random
import string
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastcore.script import call_parse
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from captcha_fastai.core import Spec, accept_none, atomic_path
from captcha_fastai.draw.fonts import known_fonts
from captcha_fastai.draw.world import draw_world
from captcha_fastai.ship.modelfile import load_model, save_model
from captcha_fastai.train.models import has_bf16, make_model

digits, lower, upper = string.digits, string.ascii_lowercase, string.ascii_uppercase
chars = digits + lower + upper + string.punctuation + ' '           # printable ASCII
spec = Spec(chars, 24, 48, 160, arch='crnn_base', threshold=accept_none)
strange = 'lastresort', 'ellebol', 'slender', 'elegital', 'symbol', 'dingbat', 'emoji', 'math', 'icons', 'braille', 'barcode'
results = Path(__file__).resolve().parent/'results'


def letter_picture(font, c):
    "One character, 96 pixels square"
    im = Image.new('L', (96, 96))
    ImageDraw.Draw(im).text((48, 64), c, fill=255, font=font, anchor='ms')
    return np.asarray(im).astype(int)


def one_case_letters(path):
    "How many small letters look like capitals in a font; None if it lacks letters or digits"
    try:
        font = ImageFont.truetype(path, 32)
        has = TTFont(path, fontNumber=0, lazy=True).getBestCmap() or {}
    except Exception: return None                                      # a font that cannot be opened is left out
    if any(ord(c) not in has for c in digits + lower + upper): return None
    pictures = {c: letter_picture(font, c) for c in digits + lower + upper}
    box = letter_picture(font, '\uffff')
    if any(p.max() < 128 or (p == box).all() for p in pictures.values()): return None
    return sum(np.abs(pictures[c] - pictures[c.upper()]).sum() < .2*pictures[c].sum() for c in lower)


@dataclass
class Fonts:
    "Fonts of this system, a few of each folder: `any` for texts of one case, `cased` for those of both"
    any: tuple
    cased: tuple

    def of(self, text): return self.any if text in (text.lower(), text.upper()) else self.cased


def find_fonts():
    "The fonts that Latin texts can be written in"
    folders = defaultdict(dict)
    for path in sorted(known_fonts().values()):
        if any(o in path.lower() for o in strange): continue
        n = one_case_letters(path)
        if n is not None: folders[Path(path).parent][path] = n
    rng = random.Random(0)
    chosen = {}
    for folder, files in sorted(folders.items()):
        most = 110 if 'aenigma' in str(folder) else 12
        chosen.update({f: files[f] for f in rng.sample(sorted(files), min(len(files), most))})
    return Fonts(tuple(chosen), tuple(f for f, n in chosen.items() if n <= 3))


def number(rng): return str(rng.randint(0, rng.choice((9, 99))))


def formula(rng):
    "A sum, a date, a time, a price or a number plate"
    kind = rng.random()
    if kind < .5: return number(rng) + rng.choice('+-x*/') + number(rng) + rng.choice(('=', '=', '=?', ''))
    if kind < .65:
        year = rng.choice(('', f'.{rng.randint(1990, 2030)}', f'/{rng.randint(10, 30)}'))
        return f'{rng.randint(1, 31):02}{rng.choice("./-")}{rng.randint(1, 12):02}{year}'
    if kind < .75: return f'{rng.randint(0, 23):02}:{rng.randint(0, 59):02}'
    if kind < .85: return f'{rng.choice(("$", "", ""))}{rng.randint(0, 999)}.{rng.randint(0, 99):02}'
    letters = ''.join(rng.choices(upper, k=rng.randint(1, 3)))
    return letters + rng.choice(' -') + ''.join(rng.choices(digits, k=rng.randint(2, 4))) + rng.choice(('', rng.choice(upper)))


alphabets = {digits: 27, digits+upper: 22, digits+lower: 20, digits+lower+upper: 11, upper: 6, lower: 6, lower+upper: 2, chars[:-1]: 2, '': 4}


def sample_text(rng, proportion):
    "A text for a picture that is so many times as wide as high"
    most = max(2, min(12, int(proportion*2.3)))
    n = rng.randint(min(most, max(1, int(proportion*.8))), most)
    alphabet = rng.choices(list(alphabets), alphabets.values())[0]
    return ''.join(rng.choices(alphabet, k=n)) if alphabet else formula(rng)


widths = {64: 3, 80: 4, 96: 8, 112: 10, 128: 16, 144: 14, 160: 14, 176: 10, 192: 8, 224: 6, 256: 4, 320: 3}
heights = {48: 76, 64: 12, 96: 12}


def make_batch(seed, i, bs, fonts):
    "Batch number `i`: pictures `(bs, 1, H, W)` of one size, their texts, the middle of each letter as a share of the width"
    rng = random.Random(f'{seed}-{i}')
    height = rng.choices(list(heights), heights.values())[0]
    width = min(480, 16*round(rng.choices(list(widths), widths.values())[0]*height/48/16))
    largest = (48/height)**.7                                          # larger pictures are for smaller letters
    x = np.empty((bs, 1, height, width), np.uint8)
    texts, middles = [], []
    for k in range(bs):
        h = int(20*5**rng.random()) if height == 48 else int(height/3*3**rng.uniform(0, 1.2))
        w = max(24, int(h*width/height/math.exp(rng.gauss(0, .22))))
        text = sample_text(rng, w/h/largest)
        picture, at = draw_world(text, rng, w, h, fonts.of(text), largest)
        x[k, 0] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        texts.append(text)
        middles.append([o/w for o in at])
    return x, texts, middles


class Batches(torch.utils.data.IterableDataset):
    "Batches from number `start` to `stop`"
    def __init__(self, *args): self.args = args
    def __iter__(self):
        seed, start, stop, bs, fonts = self.args
        for i in range(start, stop): yield make_batch(seed, i, bs, fonts)


def losses(logits, texts, middles, share):
    "CTC, and the cross entropy of the columns in the middle of each letter, of which `share` is added"
    logp = logits.float().log_softmax(-1)
    n, T = logp.shape[:2]
    ids = [spec.vocab.encode(o) for o in texts]
    lengths = torch.tensor([len(o) for o in ids])
    ctc = nn.functional.ctc_loss(logp.transpose(0, 1), torch.tensor(sum(ids, [])), torch.full((n,), T), lengths, zero_infinity=True)
    if not share: return ctc, ctc
    at = torch.tensor([(b, min(T-1, max(0, int(m*T))), c) for b, row in enumerate(zip(middles, ids)) for m, c in zip(*row)])
    return ctc, ctc + share*nn.functional.nll_loss(logp[at[:, 0], at[:, 1]], at[:, 2])


def share_read(model, x, texts):
    "Share of a batch that greedy decoding reads"
    with torch.inference_mode(): paths = model.eval()(x).argmax(-1)
    read = [spec.vocab.decode(p.unique_consecutive().tolist()) for p in paths]
    return np.mean([r == t for r, t in zip(read, texts)])


def rate(step, steps, lr, decay):
    "Learning rate: it rises for 200 steps, stays, and falls to nothing over the last share `decay`"
    return lr*min(1, (step+1)/200)*min(1, max(.01, (steps-step)/(decay*steps)))


def write(model, path):
    "The model file of the package, in 8 bits"
    model.spec = spec
    holder = type('Trained', (), dict(model=model, spec=spec))
    save_model(holder, path, in_8_bits=True)
    print(f'{path}: {Path(path).stat().st_size/1e6:.2f} MB')


@call_parse
def main(folder: str = 'models/base',  # Checkpoint and log
         steps: int = 9_500,  # Batches until the end
         bs: int = 64,  # Pictures in a batch
         lr: float = 2e-3,  # Peak learning rate
         decay: float = .25,  # Share of the steps in which the learning rate falls
         seed: int = 1,
         begin_from: str = None,  # Model file whose weights to begin with, where there is no checkpoint; `base` is the package's
         write_to: str = None):  # Write the model as it is to this file, and stop
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder/'last.pt'
    model = make_model(spec).to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), lr, weight_decay=.01, fused=True)
    start = 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state['model'])
        opt.load_state_dict(state['opt'])
        start = state['step']
    elif begin_from: model.load_state_dict(load_model(begin_from)[0].state_dict())
    if write_to: return write(model, write_to)
    fonts = find_fonts()
    (results/'base_fonts.csv').write_text('\n'.join(['font', *(Path(o).name for o in fonts.any)]) + '\n')
    print(f'from step {start}, {len(fonts.any)} fonts')
    dl = torch.utils.data.DataLoader(Batches(seed, start, steps, bs, fonts), batch_size=None, num_workers=1, prefetch_factor=12)
    begin = time.time()
    for step, (x, texts, middles) in enumerate(dl, start):
        for g in opt.param_groups: g['lr'] = rate(step, steps, lr, decay)
        x = ((torch.as_tensor(x).float()/255 - spec.mean)/spec.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast('cpu', torch.bfloat16, enabled=has_bf16('cpu')): out = model.train()(x)
        ctc, loss = losses(out, texts, middles, 0 if begin_from else max(0, 1 - step/1500))
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.)
        opt.step()
        if step % 50 == 0:
            line = f'{step},{ctc.item():.3f},{share_read(model, x, texts):.3f},{(step-start+1)*bs/(time.time()-begin):.0f}'
            print(line, flush=True)
            with (folder/'log.csv').open('a') as f: print(line, file=f)
        if (step+1) % 250 == 0 or step+1 == steps:
            with atomic_path(last) as tmp: torch.save(dict(model=model.state_dict(), opt=opt.state_dict(), step=step+1), tmp)
