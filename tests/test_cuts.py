"Cuts between characters"
import numpy as np
import pytest

from captcha_fastai.train.cuts import char_cuts
from helpers import ENDS, IMAGES, TEXTS, sees

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
