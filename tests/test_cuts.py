"Cuts between characters"
import random

import numpy as np
import pytest

from captcha_fastai.train.cuts import char_cuts

rng = random.Random(0)


def bars(text, W=90, gap=3):
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


TEXTS = [[rng.randint(1, 5) for _ in range(4)] for _ in range(40)]
IMAGES, ENDS = zip(*map(bars, TEXTS))


@pytest.mark.parametrize('prepare', [lambda x: x, lambda x: np.stack([x]*3, -1)])
def test_cuts_are_in_the_gaps_behind_the_bars(prepare):
    found = char_cuts([prepare(x) for x in IMAGES], sees(IMAGES), TEXTS)
    off = np.concatenate([np.array(c[:-1])-e[:-1] for c, e in zip(found, ENDS)])
    assert ((off >= 0) & (off <= 3)).all()


def test_a_text_that_does_not_fit_its_steps_is_not_cut():
    assert char_cuts(IMAGES[:1], sees(IMAGES[:1])[:, :3], TEXTS[:1]) == [None]
    assert char_cuts(IMAGES[:2], sees(IMAGES[:2]), [[], TEXTS[1]])[0] is None


def test_texts_of_one_character_tell_nothing_of_reaches():
    assert [len(c) for c in char_cuts(IMAGES[:2], sees(IMAGES[:2]), [[1], [2]])] == [1, 1]
