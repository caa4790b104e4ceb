"The learning curve: what is trained, on what, and where it goes on"
import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import captcha_fastai.data.online
from captcha_fastai.core import CaptchaError, LabelError, cache_folder
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.synth import Synth
from captcha_fastai.read.images import image_fingerprint
from captcha_fastai.judge import curve as module
from captcha_fastai.judge.curve import (LearningCurve, check_task, default_sizes, labels_alone, known_points, learning_curve, planned,
                                        synthetic_first, train_and_test)
from captcha_fastai.read.score import rate, wilson
from captcha_fastai.train.schedule import Recipe

quick = replace(Recipe(), arch='crnn_tiny', steps=10, synthetic_steps=20, tune_steps=5)


@pytest.fixture(scope='module')
def captchas():
    labels, images = zip(*map(Synth('OXH', 2, 'simple', (32, 64), seed=7), range(60)))
    return images, labels


def endless(**kwargs):
    kwargs = dict(n=64, n_valid=8, online=True, synth_size=(32, 64), channels=1, bs=32) | kwargs
    return CaptchaDataLoaders.from_synth('OXH', 2, 'simple', **kwargs)


@pytest.fixture(scope='module')
def trained(captchas, tmp_path_factory):
    "A curve of a few steps, and how to call it again"
    args = dict(sizes=(4, 12), synthetic=endless(), folder=tmp_path_factory.mktemp('curve'), recipe=quick)
    return learning_curve(*captchas, **args), args


def interrupt(folder, n):
    "Leave `n` rows of the table"
    table = next(folder.glob('*/curve.csv'))
    table.write_text('\n'.join(table.read_text().splitlines()[:n+1])+'\n')


# The curve

def test_subsets_of_one_size_are_taken_together_but_measured_on_the_same_images():
    curve = LearningCurve([(labels_alone, 50, 0, 10, 100), (labels_alone, 50, 1, 14, 100), (labels_alone, 100, 0, 60, 100),
                           (synthetic_first, 0, 0, 80, 100), (synthetic_first, 50, 0, 92, 100)])
    assert curve.points()[labels_alone] == [(50, 24, 200), (100, 60, 100)]
    interval = '{:.1%} to {:.1%}'.format
    wanted = rate(24, 200).replace(interval(*wilson(24, 200)), interval(*wilson(12, 100)))
    assert str(curve).splitlines()[0] == 'labels alone, 50 labels: ' + wanted
    assert curve.plot().get_xlabel() == 'labelled images'


def test_a_curve_without_points_is_empty():
    assert LearningCurve([]).points() == {} and str(LearningCurve([])) == ''


def test_half_as_many_images_as_labels_are_left_to_measure_with():
    assert default_sizes(37) == () and default_sizes(38) == (25,) and default_sizes(832) == (25, 50, 100, 200, 400)


def test_what_starts_from_synthetic_captchas_comes_first():
    assert planned((2, 4), 2)[:5] == [(synthetic_first, 0, 0), (synthetic_first, 2, 0), (synthetic_first, 4, 0), (synthetic_first, 2, 1), (synthetic_first, 4, 1)]
    assert planned((2, 4), 2)[5:] == planned((2, 4), 2, synthetic=False) == planned((2, 4), 2, False, False)
    assert planned((2,), scratch=False) == [(synthetic_first, 0, 0), (synthetic_first, 2, 0)]


# What is measured

def test_duplicates_of_what_is_trained_on_are_not_measured():
    pictures = [np.full((8, 16), i, np.uint8) for i in range(40)]
    part, test = train_and_test([*pictures, *pictures[:5]], ['0']*45, 20)      # the last five are the first five again
    learned = {i % 40 for i in part}
    assert sorted(test) == [i for i in range(45) if i % 40 not in learned]
    assert len(part) == 20 and len(test) < 25
    with pytest.raises(CaptchaError, match='20 of 20 images to measure with are duplicates'): train_and_test(pictures[:1]*40, ['0']*40, 20)


# What is refused before anything is trained

@pytest.mark.parametrize('n, sizes, why', [(60, (55,), r'sizes are \(55,\) of 60 images'), (60, (1, 12), 'sizes are'), (37, None, '37 images are too few for a curve: 38')])
def test_sizes_that_leave_too_little_are_refused(captchas, n, sizes, why):
    images, labels = captchas
    with pytest.raises(CaptchaError, match=why): learning_curve(images[:n], labels[:n], sizes)


def test_captchas_that_are_not_endless_are_refused(captchas):
    with pytest.raises(CaptchaError, match='give endless captchas'): learning_curve(*captchas, (20,), endless(online=False))


def test_labels_that_the_synthetic_captchas_do_not_teach_are_refused(captchas):
    images, labels = captchas
    with pytest.raises(LabelError, match='at most 2 fit'): learning_curve(images, ['OXO', *labels[1:]], (20,), endless())
    with pytest.raises(CaptchaError, match='size: that of the synthetic captchas is taken'): learning_curve(images, labels, (20,), endless(), size=(16, 32))


def test_without_synthetic_captchas_the_arguments_say_what_is_read():
    assert check_task(['a', 'b'], ['Ab', 'b'], None, dict(fold=True, channels=1)) == dict(fold=True, channels=1, chars='ab', max_len=2)


def test_the_signature_shows_what_is_passed_on():
    shown = set(inspect.signature(learning_curve).parameters)
    assert {'seed', 'chars', 'fold', 'batch_tfms'} <= shown and not {'bs', 'splits'} & shown


# Interrupted

def test_a_curve_has_a_point_for_each_training(trained):
    assert [r[:3] for r in trained[0].rows] == planned((4, 12))
    assert all(r.n == 48 for r in trained[0].rows)


def test_a_finished_curve_trains_nothing(trained, captchas, monkeypatch):
    curve, args = trained
    monkeypatch.setattr(module, 'captcha_learner', lambda *_: 1/0)
    assert learning_curve(*captchas, **args).rows == curve.rows


def test_an_interrupted_curve_goes_on(trained, captchas, monkeypatch):
    curve, args = trained
    interrupt(args['folder'], 3)
    monkeypatch.setattr(module, 'pretrain', lambda *_: 1/0)             # only what starts from scratch is lost
    assert learning_curve(*captchas, **args).rows == curve.rows


def test_what_is_lost_comes_out_as_it_was(trained, captchas):
    curve, args = trained
    images, labels = captchas
    interrupt(args['folder'], 1)
    column = pd.Series(labels, index=range(60, 0, -1))                  # a column of any table, too
    assert learning_curve(images, column, **args).rows == curve.rows
    assert known_points(next(args['folder'].glob('*/curve.csv'))) == curve.rows


def test_other_images_or_another_recipe_are_another_curve(trained, captchas):
    _, args = trained
    images, labels = captchas
    marks = [image_fingerprint(o) for o in images[:3]]
    assert cache_folder('a', marks[:2], 1) != cache_folder('a', marks[1:], 1)
    learning_curve(images, labels, (4,), None, args['folder'], recipe=quick)
    learning_curve(images, labels, (4,), None, args['folder'], recipe=replace(quick, lr=1e-3))
    assert len([*args['folder'].glob('*/curve.csv')]) == 3
