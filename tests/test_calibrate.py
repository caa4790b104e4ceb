"Confidence that means how often a reading is right"
import numpy as np
import pytest

from captcha_fastai.core import CaptchaError, LabelError, Spec, accept_none
from captcha_fastai.judge.calibrate import calibrate, expected_threshold, fit_temperature, log_probabilities
from captcha_fastai.judge.report import evaluate
from captcha_fastai.read.reader import Reader
from helpers import small, white

@pytest.fixture
def either(): return Reader(lambda x: np.log([[[.1, .2, .7]]]*len(x)), Spec('0O', max_len=1, decoder='heads'))


def test_logits_that_are_twice_too_large_get_a_temperature_of_two():
    def too_sure(x):
        shade = x.mean((1, 2, 3))[:, None, None]
        z = np.concatenate([np.full((len(x), 1, 1), -60.), 0*shade, 3*shade], -1)
        return z - np.logaddexp.reduce(z, -1, keepdims=True)
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 256, 4000).astype(np.uint8)
    images = [np.full((2, 2), b) for b in bright]
    labels = ['w' if rng.random() < 1/(1+np.exp(-1.5*(b/255-.5)/.25)) else 'b' for b in bright]
    reader = Reader(too_sure, Spec('bw', max_len=1, height=2, width=2, decoder='heads'))
    spec, report = calibrate(reader, images[2000:], labels[2000:], precision=.95)
    before, after = (evaluate(r, images[:2000], labels[:2000]) for r in (reader, Reader(too_sure, spec)))
    assert abs(spec.temperature - 2) < .25 and after.ece() < before.ece()
    assert spec.threshold == report.threshold == expected_threshold(report.confidences, report.ok, .95)


def test_a_fifth_of_wrong_labels_does_not_keep_the_temperature_at_one():
    texts = np.random.default_rng(0).integers(1, 11, (60, 4))
    said = texts.copy()
    said[:12, 0] = texts[:12, 0] % 10 + 1
    logits = np.eye(11)[said]*25
    very_sure = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert 3 < fit_temperature(very_sure, texts.tolist(), 'heads') < 6


def test_with_few_labels_or_all_right_the_temperature_stays_near_one():
    logits = np.eye(3)[[[1], [2]]]*9.
    logp = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    assert .9 < fit_temperature(logp, [[1], [2]], 'heads') < 1.1


@pytest.mark.parametrize('rules, right', [(dict(), 0), (dict(alike='O0'), 1)])
def test_rules_decide_what_is_right(either, rules, right): assert calibrate(either, [white], ['0'], **rules)[1].right == right


def test_cases_that_the_model_lacks_count_as_what_it_has(abc_reader):
    assert calibrate(abc_reader, [small]*4, ['Abc']*4, fold=True)[1].right == 4


def test_images_that_cannot_be_opened_are_left_out(either):
    with pytest.warns(UserWarning, match='1 of 3 images cannot be read and are left out of the calibration, such as gone.png'):
        assert calibrate(either, [white, 'gone.png', white], ['O', 'O', '0'])[1].truths == ['O', '0']


def test_batches_say_what_all_at_once_says(abc_reader):
    logp, errors = log_probabilities(abc_reader, [small]*5, bs=2)
    assert (logp == abc_reader.logp([small]*5)).all() and errors == {}


@pytest.mark.parametrize('images, labels, error, why', [
    ([small], [12], LabelError, '12 is int, not text'),
    ([small]*2, ['abc'], LabelError, '2 images but 1 labels'),
    ([small], ['xyz'], LabelError, 'no image to calibrate on'),
    ([], [], LabelError, 'no image to calibrate on'),
    (small, ['abc'], CaptchaError, 'takes a list of images')])
def test_what_cannot_be_calibrated_on_is_refused(abc_reader, images, labels, error, why):
    with pytest.raises(error, match=why): calibrate(abc_reader, images, labels)


def test_a_batch_holds_an_image(abc_reader):
    with pytest.raises(CaptchaError, match='bs is 0'): calibrate(abc_reader, [small], ['abc'], bs=0)


def test_one_wrong_label_hardly_moves_the_threshold():
    "As many of 300 new readings are accepted, or nearly"
    p = 1 - np.geomspace(1e-4, .05, 40)
    right = np.ones(40, bool)
    new = 1 - np.geomspace(1e-4, .05, 300)
    thresholds = []
    for wrong in ([], [0], [7, 30]):
        right[:] = True
        right[wrong] = False
        thresholds.append(expected_threshold(p, right, .98))
    shares = [(new >= t).mean() for t in thresholds]
    assert shares[0] == 1 and min(shares) > .7


@pytest.mark.parametrize('seed', range(5))
def test_what_is_accepted_is_right_as_often_as_was_asked(seed):
    "With as few as 20 readings whose confidence is true"
    rng = np.random.default_rng(seed)
    def readings(n):
        p = 1/(1 + np.exp(-rng.normal(3, 2, n)))
        return p, rng.random(n) < p
    share = []
    for _ in range(50):
        threshold = expected_threshold(*readings(20), .95)
        p, right = readings(4000)
        share.append(right[p >= threshold].mean())
    assert abs(np.mean(share) - .95) < .02


def test_readings_that_are_never_right_are_not_accepted():
    assert expected_threshold(np.full(30, .99), np.zeros(30, bool), .9) == accept_none
