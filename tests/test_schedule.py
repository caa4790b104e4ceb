"The default recipe: how long, with which settings, and resumed with the same"
import math
import os
import pickle
from dataclasses import replace

import pandas as pd
import pytest
import torch
from fastai.vision.all import Callback, L, set_seed
from PIL import Image

import captcha_fastai.data.online  # noqa: F401 (from_synth)
from captcha_fastai.core import Fingerprinted, ModelError
from captcha_fastai.data.augment import Replace
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.train.checkpoint import Checkpoint, load_checkpoint
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.schedule import Recipe, Watch, course_of, data_digest, default_epochs, run_settings, train_average, train_captcha
from helpers import StopAfter, assert_equal_weights, weights


class Steps(Callback):
    "Keep what the weights were after each step"
    def __init__(self): self.seen = []
    def after_batch(self):
        if self.training: self.seen.append(weights(self))


class Worse(Callback):
    "Pretend that every epoch is worse than the one before"
    order = 55
    def after_epoch(self): self.recorder.log[2] = float(self.epoch)


def loaders(style='simple', online=False):
    return CaptchaDataLoaders.from_synth('OX', length=2, style=style, n=32, n_valid=16, online=online, synth_size=(16, 32), channels=1, bs=8)


def tiny_learner(online=False, **kwargs):
    set_seed(5, reproducible=True)
    kwargs = kwargs or dict(arch_args=dict(widths=(4, 4, 8, 8, 8), hidden=8))
    return captcha_learner(loaders(online=online), bf16=False, **kwargs)


def run(f, folder, epochs=4, learn=None, **kwargs):
    learn = learn or tiny_learner()
    with learn.no_bar(), learn.no_logging(): return f(learn, epochs, folder=folder, **kwargs)


def train(*args, **kwargs): return run(train_captcha, *args, **kwargs)
def average(*args, **kwargs): return run(train_average, *args, lr=2e-3, **kwargs)


@pytest.mark.parametrize('n, epochs', [(0, 150), (10, 150), (200, 148), (666, 44), (100_000, 5)])
def test_few_images_want_many_epochs(n, epochs): assert default_epochs(n) == epochs


def test_a_recipe_can_be_changed_but_not_in_place():
    recipe = replace(Recipe(), tune_steps=10)
    assert (recipe.tune_steps, Recipe().tune_steps, Recipe.tune_steps) == (10, 800, 800)
    with pytest.raises(AttributeError): recipe.lr = 1
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_the_numbers_are_those_of_the_benchmarks():
    r = Recipe
    assert (r.steps, r.bs, r.lr, r.average_lr) == (1850, 16, 2e-3, 3e-4)
    assert (r.synthetic_steps, r.tune_steps, r.synthetic_lr, r.tune_lr) == (1500, 800, 3e-3, 1e-3)
    assert (r.rehearse_accuracy, r.rehearse_labels, r.rehearse_steps) == (.95, 50, .75)
    assert (r.round_steps, r.round_shares, r.round_lr) == ((500, 500, 500, 500, 2500), (.7, .8, .9, .9, .9), 1e-3)
    assert (r.refiner_epochs, r.refiner_lr, r.refiner_weight) == (40, 5e-4, 5.)


@pytest.mark.parametrize('online', [False, True])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, online):
    whole = train(tmp_path/'whole', learn=tiny_learner(online))
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'half', learn=tiny_learner(online), cbs=StopAfter(2))
    assert_equal_weights(whole, train(tmp_path/'half', learn=tiny_learner(online), resume=True))
    a, b = (pd.read_csv(tmp_path/o/'log.csv') for o in ('whole', 'half'))
    assert b.epoch.tolist() == [0, 1, 2, 3] and a.valid_loss.tolist() == pytest.approx(b.valid_loss.tolist(), abs=1e-6)


def test_a_seed_repeats_a_run(tmp_path):
    a, b = train(tmp_path/'a'), train(tmp_path/'b')
    assert a.recorder.values[-1][:2] == b.recorder.values[-1][:2]
    assert_equal_weights(a, b)


def test_an_average_is_the_mean_of_all_steps(tmp_path):
    steps = Steps()
    learn = average(tmp_path, cbs=steps)
    assert len(steps.seen) == 16
    for k, v in learn.model.named_parameters(): assert torch.allclose(v, torch.stack([o[k] for o in steps.seen]).mean(0), atol=1e-5)
    assert not torch.equal(learn.model.head.weight, steps.seen[-1]['head.weight'])
    assert float(learn.validate()[0]) == pytest.approx(pd.read_csv(tmp_path/'log.csv').valid_loss.iloc[-1], abs=1e-5)
    best = load_checkpoint(tmp_path)['best']                                # the mean's weights too, those of its epoch
    learn.model.load_state_dict(best['model'])
    assert float(learn.validate()[0]) == pytest.approx(-best['score'][1], abs=1e-5)


def test_an_interrupted_average_is_the_same_mean(tmp_path):
    whole = average(tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): average(tmp_path/'half', cbs=StopAfter(2))
    assert_equal_weights(whole, average(tmp_path/'half', resume=True))


def test_an_average_is_not_resumed_as_a_cycle(tmp_path):
    with pytest.raises(KeyboardInterrupt): average(tmp_path, cbs=StopAfter(2))
    with pytest.raises(ModelError, match='schedule is average, not one cycle'): train(tmp_path, resume=True)


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt): train(tmp_path, cbs=StopAfter(1))
    with pytest.raises(ModelError, match='number of epochs is 4, not 6'): train(tmp_path, 6, resume=True)
    with pytest.raises(ModelError, match='learning rate is 0.002, not 0.001'): train(tmp_path, lr=1e-3, resume=True)
    (tmp_path/'last.ckpt').write_bytes(b'nonsense')
    with pytest.raises(ModelError, match='not a checkpoint'): train(tmp_path, resume=True)


def test_a_new_run_that_is_killed_at_once_leaves_no_old_checkpoint(tmp_path, monkeypatch):
    train(tmp_path, 1)
    monkeypatch.setattr(Checkpoint, 'save', lambda self: 1/0)
    with pytest.raises(ZeroDivisionError): train(tmp_path, 1)
    assert not (tmp_path/'last.ckpt').exists()


def test_the_same_texts_in_another_style_are_other_data():
    for online in (False, True): assert data_digest(loaders(online=online)) != data_digest(loaders('composed', online))


def test_images_are_known_by_their_content_not_their_time(tmp_path):
    for k, t in enumerate(('OX', 'XO', 'XX')): Image.new('L', (32, 16), 99*k).save(tmp_path/f'{t}.png')
    def digest(): return data_digest(CaptchaDataLoaders.from_folder(tmp_path))
    was = digest()
    os.utime(tmp_path/'OX.png', (0, 0))
    assert digest() == was
    Image.new('L', (32, 16), 200).save(tmp_path/'OX.png')
    assert digest() != was


def test_a_callback_that_makes_a_run_what_it_is_must_be_there_again(tmp_path):
    class Second(Fingerprinted, Callback):
        def fingerprint(self): return 'second loss 1.0'
    with pytest.raises(KeyboardInterrupt): train(tmp_path, cbs=[StopAfter(2)], learn=tiny_learner(cbs=Second(), arch='crnn_tiny'))
    with pytest.raises(ModelError, match=r"callbacks is \['second loss 1.0'\], not \[\]"): train(tmp_path, resume=True, learn=tiny_learner(arch='crnn_tiny'))


def test_what_replaces_images_is_part_of_a_run():
    class Black(Replace):
        p = .25
        def fingerprint(self): return 'black'
    learn = tiny_learner()
    before = run_settings(learn, 4, 1)
    learn.dls.train.after_batch.add(Black())
    after = run_settings(learn, 4, 1)
    assert (before['replaced images'], after['replaced images']) == ({}, {'Black': .25})
    assert before['data and split'] != after['data and split']


@pytest.fixture
def stopped_early(tmp_path):
    "A run that stopped early, its weights after epoch 0, and the last epoch at whose end the warm-up was on"
    learn, first = tiny_learner(), {}
    class First(Callback):
        def after_epoch(self):
            if self.epoch == 0: first.update(weights(self))
    learn.warmup.least = 8
    train(tmp_path, 10, learn=learn, patience=2, best=True, cbs=[Worse(), First()])
    since = learn.warmup.state['since']                                       # in steps, of which an epoch has 4
    return learn, first, math.ceil((since + max(since, 8))/4) - 2


def test_early_stopping_waits_for_the_end_of_the_warm_up(tmp_path, stopped_early):
    learn, first, last = stopped_early
    assert len(pd.read_csv(tmp_path/'log.csv')) == last + 3
    assert_equal_weights(learn, first)                                        # the best epoch's weights come back


def test_a_run_that_stopped_early_is_over(tmp_path, stopped_early):
    _, first, last = stopped_early
    again = train(tmp_path, 10, resume=True, patience=2, best=True)
    assert len(pd.read_csv(tmp_path/'log.csv')) == last + 3
    assert_equal_weights(again, first)


@pytest.mark.parametrize('goal, steps', [(.1, 4), (-1., 8)])
def test_a_trial_of_a_few_steps_does_not_use_up_the_warm_up(goal, steps):
    learn = tiny_learner()
    learn.warmup.goal = goal
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1)
        learn.fit_one_cycle(1)                                               # begins it again, unless characters had been seen
    assert learn.warmup.state['step'] == steps


# A run that goes badly

def row(train, valid, acc): return dict(train_loss=str(train), valid_loss=str(valid), captcha_acc=str(acc))


@pytest.mark.parametrize('log, course', [
    ([row(3, 3.1, 0)], 'plateau'), ([row(.14, 5, 0)], 'memorising'), ([row(.1, .2, .9)], 'learning'), ([row(1, 1.2, .3)], 'learning'),
    ([row(2, 4, 0), row(1, 4.2, 0), row(.2, 4.5, .2)], 'memorising'), ([row(2, 4, 0), row(1, 3, 0), row(.2, 2, 0)], 'learning'),
    ([row(3, 3, 0)]*9, 'plateau'), ([row('nan', 'nan', 0)], 'plateau'), ([], 'learning')])
def test_how_a_run_goes(log, course): assert course_of(log) == course


class Pretend(Callback):
    "Pretend that each epoch has such losses and such an accuracy"
    order = 55
    def __init__(self, of): self.of = of
    def after_epoch(self):
        more = self.recorder.values[-1][3:]
        self.recorder.values[-1] = L([*self.of(self.epoch), *more])


def said_while(of, capsys, epochs=12):
    learn = tiny_learner()
    learn.warmup.leave()
    capsys.readouterr()
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-6, cbs=[Pretend(of), Watch()])
    return capsys.readouterr().out.strip().splitlines()


def test_a_run_that_memorises_says_so_once_after_a_third(capsys):
    lines = said_while(lambda i: (3/(i+1), 3. + i/10, 0.), capsys)
    assert len(lines) == 1
    assert lines[0].startswith('this run learns its training images by heart: after 4 of 12 epochs training loss 0.75, validation loss 3.30, 0% of')
    assert 'more labels' in lines[0]


def test_a_plateau_is_called_one_after_a_half(capsys):
    lines = said_while(lambda i: (3., 3.1, 0.), capsys)
    assert len(lines) == 1 and lines[0].startswith('this run learns next to nothing: after 6 of 12 epochs')


@pytest.mark.parametrize('of', [lambda i: (3/(i+1), 3.5/(i+1), 0.), lambda i: (.1, 1., .6), lambda i: (1., 1.2, .3)])
def test_a_run_that_learns_is_not_disturbed(of, capsys): assert not said_while(of, capsys)


def test_a_short_run_is_not_judged(capsys): assert not said_while(lambda i: (3., 3.1, 0.), capsys, epochs=5)


def test_a_warm_up_is_not_memorising(capsys):
    learn = tiny_learner()
    capsys.readouterr()
    with learn.no_bar(), learn.no_logging(): learn.fit(6, 1e-6, cbs=[Pretend(lambda i: (.1, 3., .2)), Watch()])
    assert not learn.warmup.over and not capsys.readouterr().out
