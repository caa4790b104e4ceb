"""System S3: real captchas read without a label. A reader of drawn captchas; of refined ones; either of them after it has taught itself. Labels only report.

    python benchmarks/simgan.py ../shared/data/hackmit/unlabelled.zip --labels ../shared/data/hackmit/dev_labels.json
    python benchmarks/simgan.py ../shared/data/captcha_images_v2 --style fit --chars 2345678bcdefgmnpwxy --length 5 --name captcha_images_v2 --parts "plain selftrain"
"""
import json
import resource
import time
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import torch
from common import keep_rows, machine
from fastai.torch_core import TensorImage, set_seed
from fastcore.script import call_parse
from PIL import Image

from captcha_fastai.read.archives import images_in
from captcha_fastai.read.images import to_array
from captcha_fastai.data.augment import CaptchaAugment
from captcha_fastai.data.images import guess_size
from captcha_fastai.data.labels import label_stem
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.ship.modelfile import load_model, load_reader, save_model
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.fewlabels import start_from
from captcha_fastai.train.schedule import Recipe, train_captcha
from captcha_fastai.train.selftrain import self_train
from captcha_fastai.train.refine import Refine, fit_refiner, load_refiner, save_refiner
from captcha_fastai.train.simgan import PatchDiscriminator, Refiner, SimGAN, SimGANLearner, refiner_dls
from captcha_fastai.draw.synth import Synth, digits, lower
from captcha_fastai.recipes.synthetic import find_style

root = Path(__file__).resolve().parent.parent


def labelled_ones(images, labels):
    "Images whose text is known, to report with: `{file name: text}` in a JSON file, or the files' stems"
    known = json.loads(Path(labels).read_text()) if labels else {o.name: label_stem(o) for o in images}
    found = [o for o in images if o.name in known]
    return found, [known[o.name] for o in found]


@call_parse
def main(data: str,  # Folder or zip file of images
         labels: str = None,  # JSON of {file name: text}, to report; the files' stems if not given
         style: str = 'hackmit',  # Of the drawn captchas; fit: found from the images
         chars: str = digits+lower,
         length: int = 4,
         name: str = 'hackmit',  # Of the results
         parts: str = 'plain more refiner survive refined selftrain both',
         steps: int = 2500,  # Of training on drawn captchas, 32 at a time
         then: int = 1000,  # More of it, on refined ones or not
         epochs: int = 30,  # Of the refiner, ten steps each
         width: int = 64,  # Of the refiner
         n: int = 8000,  # Unlabelled images to teach itself with
         seed: int = 42):
    images, work = images_in(data), root/'models'/f'simgan_{name}'
    known = labelled_ones(images, labels)
    h, w, channels = guess_size(images)
    some = Random(seed).sample(images, min(n, len(images)))
    if style == 'fit': style = find_style(some[:200], chars, length, folder=work)
    synth = Synth(chars, length, style, (h, w), seed)

    def learner(tfms=None):
        drawn = CaptchaDataLoaders.from_synth(chars, length, style, n=Recipe.synthetic_epoch, n_valid=Recipe.synthetic_valid, online=True,
                                              synth_size=(h, w), channels=channels, bs=Recipe.synthetic_bs, seed=seed,
                                              batch_tfms=tfms, num_workers=1)
        return captcha_learner(drawn)

    def continue_training(start, tfms=None):
        learn = start_from(learner(tfms), *load_model(work/f'{start}.safetensors'))
        return train_captcha(learn, then//50, Recipe.tune_lr, work/'run')

    def teach(start):
        learn = start_from(learner(), *load_model(work/f'{start}.safetensors'))
        learn = self_train(learn, some, synth, folder=work/'selftrain', seed=seed, length=length)
        pd.DataFrame(learn.rounds).to_csv(logs/f'{name}_rounds_{start}.csv', index=False, float_format='%.4f')
        return learn

    def refine():
        dls = refiner_dls(synth, some, (h, w), channels)
        learn = SimGANLearner(dls, SimGAN(Refiner(channels, width), PatchDiscriminator(channels)))
        with learn.no_bar(): fit_refiner(learn, epochs, folder=work/'refiner')
        save_refiner(learn.model.refiner, work/'refiner.safetensors')
        pd.read_csv(work/'refiner'/'log.csv').to_csv(logs/f'{name}_refiner.csv', index=False)

    def survive():
        "Does the reader of drawn captchas still read refined ones?"
        reader, refined = load_reader(work/'plain.safetensors'), Refine(load_refiner(work/'refiner.safetensors'))
        texts, drawn = zip(*(synth(-i) for i in range(1, 513)))
        x = TensorImage(torch.from_numpy(np.stack([to_array(o, reader.spec) for o in drawn])).permute(0, 3, 1, 2)/255)
        y = list((torch.cat([refined.encodes(o) for o in x.split(64)])*255).round().byte().permute(0, 2, 3, 1).numpy())
        pairs = [np.concatenate([to_array(a, reader.spec), b], 0) for a, b in zip(drawn[:4], y)]
        picture = Image.fromarray(np.concatenate(pairs, 1).squeeze()).convert('RGB')
        picture.resize((12*w, 6*h), Image.Resampling.NEAREST).quantize(64).save(logs/f'{name}_refined.png', optimize=True)
        for what, ims in (('drawn', drawn), ('refined', y)): print(f'{what}, read by the reader of drawn ones\n{evaluate(reader, ims, texts, length=length)}', flush=True)

    logs = root/'nbs'/'tutorials'/'simgan'
    logs.mkdir(parents=True, exist_ok=True)
    jobs = dict(plain=lambda: train_captcha(learner(), steps//50, Recipe.synthetic_lr, work/'run'), more=lambda: continue_training('plain'), refiner=refine,
                refined=lambda: continue_training('plain', [Refine(load_refiner(work/'refiner.safetensors')), CaptchaAugment()]),
                survive=survive, selftrain=lambda: teach('plain'), both=lambda: teach('refined'))
    for part in parts.split():
        set_seed(seed, reproducible=True)
        t = time.time()
        learn = jobs[part]()
        took, right = time.time()-t, ''
        if learn:
            save_model(learn, work/f'{part}.safetensors')
            report = evaluate(model_reader(learn.model, learn.spec), *known, length=length)
            right = report.right
            print(f'{part}: {took:.0f} s\n{report}', flush=True)
        else: print(f'{part}: {took:.0f} s', flush=True)
        memory = sum(resource.getrusage(o).ru_maxrss for o in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))/1e6
        print(machine(), f'{memory:.2f} GB at most', flush=True)
        keep_rows(root/'benchmarks'/'results'/f'simgan_{name}.csv', ('part', 'right', 'n', 'seconds', 'gigabytes'), [(part, right, len(known[0]), round(took), f'{memory:.2f}')])
