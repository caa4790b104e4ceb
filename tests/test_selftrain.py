"Self-training: rounds that can be interrupted, and undone"
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed

import captcha_fastai.data.online  # noqa: F401 (from_synth)
import captcha_fastai.train.selftrain as selftrain
from captcha_fastai.core import CaptchaError, ImageError, ModelError
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.look import Look
from captcha_fastai.draw.synth import Synth
from captcha_fastai.read.images import to_array
from captcha_fastai.train.fewlabels import start_from
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import model_reader
from captcha_fastai.train.schedule import Recipe
from captcha_fastai.train.selftrain import SelfTraining, mixed_dls, plot_rounds, read_and_select, self_train
from helpers import assert_equal_weights, weights

short = Recipe(round_steps=(60, 60, 120), round_shares=(.5, .8, .9), round_lr=2e-3, round_bs=16)


@pytest.fixture(scope='module')
def world():
    "A reader of easy captchas, hard ones without labels, and what they say"
    easy = Synth('aku7', 2, Look(size=(.6, .7), rotate=3., jitter=(.01, .01), lines=(0, 0), dots=(0, 0), blur=(0., .2)), (24, 48))
    hard = Synth('aku7', 2, Look(size=(.65, .8), rotate=10., stroke=(.2, .6), lines=(0, 1), blur=(.4, .8), noise=(5., 15.),
                                 inks=((30, 60, 110),), grounds=((190, 200, 180),)), (24, 48), seed=1)
    truths, images = zip(*map(hard, range(400)))
    set_seed(42)
    dls = CaptchaDataLoaders.from_synth('aku7', 2, easy.looks, n=480, n_valid=40, synth_size=(24, 48), channels=1, bs=16, seed=2)
    learn = captcha_learner(dls, 'crnn_tiny')
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(12, 4e-3)
    return SimpleNamespace(easy=easy, images=images, truths=truths, learn=learn, start=weights(learn))


@pytest.fixture
def taught(world):
    "Self-training from the same weights"
    def run(folder, **kwargs):
        world.learn.model.load_state_dict(world.start)
        set_seed(42)
        with world.learn.no_bar():
            return self_train(world.learn, world.images, world.easy, folder=folder, recipe=short, length=2, **kwargs)
    return run


@pytest.fixture(scope='module')
def done(world, tmp_path_factory):
    "A whole run: its folder, rounds, weights, and how many captchas are read"
    folder = tmp_path_factory.mktemp('done')
    world.learn.model.load_state_dict(world.start)
    before = right(world)
    set_seed(42)
    with world.learn.no_bar(): self_train(world.learn, world.images, world.easy, folder=folder, recipe=short, length=2)
    return SimpleNamespace(folder=folder, rounds=world.learn.rounds, weights=weights(world.learn), before=before, after=right(world))


def right(world):
    reader = model_reader(world.learn.model, world.learn.spec)
    n = sum(r.text == t for r, t in zip(reader.read_many(world.images), world.truths))
    world.learn.model.to(world.learn.dls.device)
    return n


def test_more_captchas_are_read_afterwards(done): assert done.after > done.before


def test_a_run_that_is_done_is_found(world, taught, done):
    taught(done.folder)
    assert world.learn.rounds == done.rounds
    assert_equal_weights(world.learn, done.weights)


def test_the_learner_says_what_it_trusted_and_what_occurs(world, taught, done):
    learn = taught(done.folder)
    assert len(learn.trusted) == done.rounds[-1].trusted and set(learn.trusted) < set(range(400))
    assert learn.occurring == list(world.learn.spec.chars)


def test_an_interrupted_run_goes_on_to_the_same_weights(world, taught, done, tmp_path, monkeypatch):
    train, n = selftrain.continue_training, []
    def stop(*args):
        n.append(1)
        if len(n) == 2: raise KeyboardInterrupt
        train(*args)
    with monkeypatch.context() as m:
        m.setattr(selftrain, 'continue_training', stop)
        with pytest.raises(KeyboardInterrupt): taught(tmp_path)
    assert_equal_weights(world.learn, world.start)                    # they are as they were: the same call goes on
    taught(tmp_path)
    assert [o[:5] for o in world.learn.rounds] == [o[:5] for o in done.rounds]
    for k, v in weights(world.learn).items(): assert torch.allclose(v, done.weights[k], atol=1e-5), k
    assert right(world) > done.before


def test_a_damaged_file_is_named(taught, done, tmp_path):
    (tmp_path/'rounds.ckpt').write_bytes(next(done.folder.glob('*/rounds.ckpt')).read_bytes()[:99])
    with pytest.raises(ModelError, match='rounds.ckpt: not a checkpoint'): selftrain.load_rounds(None, tmp_path)


def test_other_arguments_are_another_run(world, tmp_path):
    run = SelfTraining(world.learn, [np.zeros((24, 48, 1), np.uint8)], [], None, None, True, 0, short, {})
    others = [replace(run, **o) for o in (dict(seed=1), dict(balanced=False), dict(rules=dict(length=2)), dict(synth=world.easy),
                                          dict(recipe=replace(short, round_lr=1e-3)))]
    assert len({run.folder(tmp_path, ''), run.folder(tmp_path, 'w'), *(o.folder(tmp_path, '') for o in others)}) == 7
    assert replace(run, recipe=replace(short, refiner_lr=1.)).folder(tmp_path, '') == run.folder(tmp_path, '')


def test_rounds_need_steps_and_shares(world):
    with pytest.raises(CaptchaError, match='2 round_steps but 1 round_shares'):
        self_train(world.learn, world.images, recipe=Recipe(round_steps=(1, 2), round_shares=(.5,)))


def test_a_few_images_are_too_few(world):
    with pytest.raises(ImageError, match='19 of 19 images can be read: 20 or more are needed'): self_train(world.learn, world.images[:19])


def test_a_round_that_does_harm_is_undone(world, taught, tmp_path, monkeypatch):
    def spoil(learn, dls, steps, lr):
        with torch.no_grad(): learn.model.head.weight.zero_()
    monkeypatch.setattr(selftrain, 'continue_training', spoil)
    with pytest.warns(UserWarning, match='training after round 0 made it worse'): taught(tmp_path)
    assert_equal_weights(world.learn, world.start)
    assert [o.round for o in world.learn.rounds] == [0]


def test_too_few_trusted_readings_are_refused(world):
    run = SelfTraining(world.learn, [], [], None, None, True, 0, short, {})
    with pytest.raises(CaptchaError, match='only 1 readings can be trusted'): run.train(dict(round=0, trusted={0: 'ak'}))


def test_letters_that_are_never_read_change_nothing(world):
    world.learn.model.load_state_dict(world.start)
    dls = CaptchaDataLoaders.from_synth('aku7bcdefghijl', 2, world.easy.looks, n=32, n_valid=8, synth_size=(24, 48), channels=1, bs=16)
    wide = captcha_learner(dls, 'crnn_tiny')
    start_from(wide, world.learn.model, world.learn.spec)
    with torch.no_grad(): wide.model.head.bias[5:] = -30
    arrays = [to_array(im, world.learn.spec) for im in world.images]
    a, b = (read_and_select(SelfTraining(o, arrays, list(range(40)), None, None, True, 0, short, dict(length=2)), 0, .8) for o in (world.learn, wide))
    assert a['trusted'] == b['trusted'] and a['rows'][0].rarest == b['rows'][0].rarest and {*b['counts']} <= {*'aku7'}


def test_labelled_images_are_one_for_four_trusted_ones(world):
    arrays = [to_array(im, world.learn.spec) for im in world.images[:30]]
    dls = mixed_dls(world.learn.spec, arrays[:20], world.truths[:20], world.easy, (arrays[20:22], world.truths[20:22]), first=10**6)
    assert len(dls.train_ds) == 20 + 2*2 + 100
    assert len(mixed_dls(world.learn.spec, arrays[:20], world.truths[:20], labelled=([], [])).train_ds) == 20


def test_trusted_images_are_scaled_as_the_learners(world):
    spec = replace(world.learn.spec, mean=.9, std=.15)
    arrays = [to_array(im, spec) for im in world.images[:20]]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dls = mixed_dls(spec, arrays, world.truths[:20])
    assert (dls.spec.mean, dls.spec.std) == (.9, .15)


def test_rounds_are_plotted(done):
    ax = plot_rounds(done.rounds)
    assert [o.get_label() for o in ax.lines][0] == 'trusted' and len(ax.lines) == 4
