"A refiner trained against a discriminator"
from copy import deepcopy

import numpy as np
import pytest
import torch
from fastai.vision.all import set_seed
from PIL import Image, ImageFilter

from captcha_fastai.core import CaptchaError, ImageError, Resumable, Spec
from captcha_fastai.draw.look import Look
from captcha_fastai.draw.synth import Synth
from captcha_fastai.train.refiner import PatchDiscriminator, Refiner, patch_loss
from captcha_fastai.train.simgan import SimGAN, SimGANLearner, SyntheticAndReal, caught, known, moved, plot_discriminator, real_images, refiner_dls

look = Look(rotate=5., lines=(0, 0), dots=(0, 0), blur=(0., 0.), grounds=((250, 250, 250),))
sharp = Synth('abc', 2, look, (24, 48))


@pytest.fixture(scope='module')
def blurred():
    "The real images of a small world: blurred, on a darker background"
    images = (sharp(i)[1] for i in range(10_000, 10_200))
    return [Image.fromarray((np.asarray(im.filter(ImageFilter.GaussianBlur(1)))*.8).astype(np.uint8)) for im in images]


@pytest.fixture(scope='module')
def dls(blurred): return refiner_dls(sharp, blurred, channels=1, n=160, bs=16)


def gan(dls, seed=42, **kwargs):
    set_seed(seed)
    dls.train.rng.seed(seed)
    return SimGANLearner(dls, SimGAN(Refiner(1, 8, 1), PatchDiscriminator(1, (16, 16, 8, 8))), **{'first': (0, 0), **kwargs})


def fit(learn, epochs):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-3)
    return learn


def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def same(a, b): return all((p == q).all() for p, q in zip(a, b))


def test_batches_are_pairs_of_numbers_from_minus_one_to_one(dls):
    x, real = dls.one_batch()
    assert x.shape == real.shape == (16, 1, 24, 48)
    assert x.min() >= -1 and x.max() <= 1 and real.max() < .7


def test_a_tenth_of_the_real_images_is_not_trained_on(dls):
    assert [len(dls.train_ds), len(dls.valid_ds), len(dls.train_ds.real), len(dls.valid_ds.real)] == [160, 64, 180, 20]


def test_pairs_are_others_in_every_epoch_and_the_same_ones_again(dls):
    pairs = SyntheticAndReal(sharp, dls.train_ds.real, 160, dls.spec)
    a, b = pairs[0][0], pairs[1][0]
    pairs.epoch = 1
    assert (a != b).any() and (a != pairs[0][0]).any()
    pairs.epoch = 0
    assert (pairs[0][0] == a).all()


@pytest.mark.parametrize('change, error, why', [
    (dict(n=20), CaptchaError, 'n is 20: it must be 32 or more'), (dict(n_valid=0), CaptchaError, 'n_valid is 0'),
    (dict(size=(8, 32)), ImageError, 'at least 9x9 pixels'), (dict(few=9), ImageError, '9 of 9 images can be read: 10 or more')])
def test_a_refiner_that_could_not_take_a_step_is_refused(blurred, change, error, why):
    with pytest.raises(error, match=why): refiner_dls(sharp, blurred[:change.pop('few', 20)], **change)


def test_one_image_instead_of_many_is_refused(blurred):
    with pytest.raises(CaptchaError, match='list of images'): refiner_dls(sharp, blurred[0])


def test_real_images_are_taken_from_all_over_the_folder():
    by_name = refiner_dls(sharp, [np.full((24, 48), i, np.uint8) for i in range(250)], most=100)
    assert np.mean(by_name.train_ds.real) > 90 and np.mean(by_name.valid_ds.real) > 60
    assert len(by_name.train_ds.real) + len(by_name.valid_ds.real) == 100


def test_unreadable_real_images_are_left_out_and_named(blurred):
    with pytest.warns(UserWarning, match='1 of 13 images cannot be read and are left out, such as gone.png'):
        assert len(real_images([*blurred[:12], 'gone.png'], Spec('?', 1, 24, 48))) == 12


def test_a_learner_takes_what_fastai_takes_and_has_its_own_metrics(dls):
    assert [m.name for m in gan(dls).metrics] == ['caught', 'known', 'moved']
    assert [m.name for m in gan(dls, metrics=(moved,)).metrics] == ['moved']


def test_an_update_of_one_net_leaves_the_other_as_it_was(dls):
    learn = gan(dls)
    learn.create_opt()
    learn.opt.set_hypers(lr=1e-3)
    x, real = (o.as_subclass(torch.Tensor) for o in dls.one_batch())
    nets = learn.model.refiner, learn.model.discriminator
    state = lambda: [[p.detach().clone() for p in o.parameters()] for o in nets]
    first = state()
    learn.update(learn.refiner_loss(learn.model(x), x), learn.model.refiner)
    second = state()
    assert [same(a, b) for a, b in zip(first, second)] == [False, True]
    learn.update(patch_loss(learn.model.discriminator(real), True), learn.model.discriminator)
    assert [same(a, b) for a, b in zip(second, state())] == [True, False]


@pytest.mark.parametrize('bf16', [False, True])
def test_the_second_update_of_a_step_sees_what_the_first_has_changed(dls, bf16):
    learn = gan(dls, bf16=bf16, per_step=2)
    learn.create_opt()
    learn.opt.set_hypers(lr=.1)
    x, real = (o.as_subclass(torch.Tensor) for o in dls.one_batch())
    seen = []
    learn.model.refiner.register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    for part in (1, 2):                                     # the first update moves the head alone, which is zero
        learn.training, learn.model.training, learn.xb, learn.yb = True, True, (torch.cat([x[:4]]*2),), (real[:8],)
        learn._do_one_batch()
    assert (seen[0] - seen[1]).abs().max() > .01


@pytest.mark.parametrize('first, phases', [((0, 0), ['both']*4), ((1, 2), ['refiner', 'discriminator', 'discriminator', 'both'])])
def test_each_net_is_trained_alone_at_first(dls, first, phases):
    learn = gan(dls, first=first)
    got = []
    for learn.steps in range(4): got.append(learn.phase())
    assert got == phases


def test_the_refiner_alone_fools_nobody_and_fills_no_history(dls):
    learn = fit(gan(dls, first=(10, 0)), 1)
    assert len(learn.history) == 0 and learn.steps == 10
    fresh = gan(dls)
    assert same(learn.model.discriminator.parameters(), fresh.model.discriminator.parameters())


def test_the_same_seed_gives_the_same_weights(dls):
    assert same(*(weights(fit(gan(dls, first=(0, 5)), 2)) for _ in range(2)))


def test_another_fit_goes_on_with_other_pairs(dls):
    learn = fit(fit(gan(dls, first=(0, 5)), 1), 1)
    assert dls.train_ds.epoch == 1 and learn.steps == 20


def test_lr_find_puts_back_steps_history_and_weights(dls):
    learn = fit(gan(dls, first=(0, 5)), 2)
    before, state = weights(learn), deepcopy(learn.state_dict())
    with learn.no_bar(), learn.no_logging(): learn.lr_find(num_it=12, show_plot=False)
    assert learn.steps == state['steps'] == 20 and same(weights(learn), before)
    assert (learn.history.images == state['history']['images']).all() and (learn.history.rng.get_state() == state['history']['rng']).all()


def test_what_changes_while_training_can_be_put_back(dls):
    learn, other = fit(gan(dls), 1), gan(dls, seed=1)
    assert isinstance(learn, Resumable)
    other.load_state_dict(learn.state_dict())
    assert other.steps == 10 and len(other.history) == len(learn.history) == 80


def test_validation_changes_nothing(dls):
    learn = fit(gan(dls), 1)
    before, steps = weights(learn), learn.steps
    with learn.no_bar(), learn.no_logging(): learn.validate()
    assert same(weights(learn), before) and learn.steps == steps


def test_metrics_are_shares_of_patches(dls):
    learn = gan(dls)
    x, real = (o.as_subclass(torch.Tensor) for o in dls.one_batch())
    with torch.no_grad(): learn.validate_step(x, real)
    assert moved(learn.pred, real) == 0 and 0 <= caught(learn.pred, real) <= 1 and 0 <= known(learn.pred, real) <= 1


def test_pictures_are_drawn(dls):
    learn = fit(gan(dls), 1)
    assert learn.show_results(n=2).shape == (2, 3)
    ax = plot_discriminator([['0', '.9', '1.'], ['1', '.5', '.5']], ['epoch', 'caught', 'known'])
    assert [line.get_label() for line in ax.lines[:2]] == ['refined known as such', 'real known as such']
