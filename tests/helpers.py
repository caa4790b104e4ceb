"What several test files use"
import random

import numpy as np
import torch
from fastai.vision.all import Callback
from PIL import Image

white = Image.new('L', (200, 50), 'white')
small = np.zeros((8, 24, 1), np.uint8)


class StopAfter(Callback):
    "As if the process had been killed after an epoch"
    order = 99
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch + 1 == self.n: raise KeyboardInterrupt


def weights(learn): return {k: v.detach().clone() for k, v in learn.model.state_dict().items()}


def assert_equal_weights(learn, other):
    "`other` is a learner, or weights"
    other = other if isinstance(other, dict) else weights(other)
    for k, v in weights(learn).items(): assert torch.equal(v, other[k]), k


# Captchas of bars in five greys, and a model that sees them

def bars(text, rng, W=90, gap=3):
    "An image of 16 rows and the columns in which its bars end; the fifth grey has a pale leg"
    while True:
        x, ends, at = np.full((16, W), 250, np.uint8), [], 6
        for i in text:
            wide = rng.randint(8, 14)
            x[4:12, at:at+wide] = 40*i
            if i == 5:
                x[4:12, at+wide+1:at+wide+7] = 230
                wide += 7
            ends.append(at+wide)
            at += wide+gap
        if ends[-1] <= W: return x, ends


def sees(images, late=2):
    "Log-probabilities of the greys in each column; any other grey is none"
    rows = np.roll(np.asarray(images)[:, 8], late, 1).astype(int)
    p = np.eye(6)[np.where((rows > 200) | (rows % 40 > 0), 0, rows//40)]*.95 + .01
    return np.log(p/p.sum(-1, keepdims=True))


_rng = random.Random(0)
TEXTS = [[_rng.randint(1, 5) for _ in range(4)] for _ in range(40)]
IMAGES, ENDS = zip(*[bars(t, _rng) for t in TEXTS])


def random_pattern(rng, chars='abc', depth=2):
    "A pattern of all that there is"
    kind = rng.integers(5 if depth else 2)
    if kind == 0: part = str(rng.choice([*chars]))
    elif kind == 1: part = str(rng.choice(['.', '[ab]', '[^a]', r'\w', '[a-c]']))
    elif kind == 2: part = ''.join(random_pattern(rng, chars, depth-1) for _ in range(2))
    else: part = f"({random_pattern(rng, chars, depth-1)}{'|' if kind == 3 else ''}{random_pattern(rng, chars, depth-1)})"
    counted = kind != 2 and rng.random() < .4
    return part + str(rng.choice(['?', '*', '+', '{2}', '{1,2}', '{0,2}'])) if counted else part
