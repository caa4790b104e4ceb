"Splices, and columns for heads"
import pickle
import random

import numpy as np
import pytest
import torch
from fastai.callback.training import GradientAccumulation
from fastai.vision.all import Callback, CancelFitException, set_seed

from captcha_fastai.core import CaptchaError, Fingerprinted, ModelError, Resumable, Spec
from captcha_fastai.data.images import TensorImageGrey
from captcha_fastai.data.images import TensorCaptcha
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.read.reader import Reader
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import make_model
from captcha_fastai.train.schedule import train_captcha
from captcha_fastai.train.splice import AuxiliaryCTC, Splice, cut_images
from helpers import IMAGES, TEXTS, assert_equal_weights, bars, sees


def as_words(texts): return [''.join(map(str, t)) for t in texts]


SPEC = Spec('12345', max_len=4, height=16, width=90, arch='bars')
HEADS = dict(arch='heads_small', arch_args=dict(widths=(8, 16, 16, 24, 24), hidden=32), bf16=False)


def loaders(**kwargs): return CaptchaDataLoaders.from_lists(IMAGES, as_words(TEXTS), chars='12345', bs=16, **kwargs)
def reader_of(spec): return Reader(lambda x: sees(((x[:, 0]*SPEC.std+SPEC.mean)*255).round()), spec)
def quietly(learn, method, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return getattr(learn, method)(*args, **kwargs)


@pytest.fixture
def plain(): return loaders(batch_tfms=[])


def test_a_splice_reads_as_it_is_labelled(plain):
    reader = reader_of(SPEC)
    splice = Splice(reader, plain, p=1., parts=4)
    new = [splice.draw() for _ in range(200)]
    read = [r.text for r in reader.read_many([x[0].round().byte().numpy() for x, _ in new])]
    assert read == [plain.vocab.decode(y.tolist()) for _, y in new]
    old = set(as_words(TEXTS))
    assert sum(text not in old for text in read) > 150, 'most are texts that were not there'


def test_texts_of_several_lengths_keep_them_and_batches_their_types():
    rng = random.Random(1)
    mixed = [t[:rng.randint(2, 4)] for t in TEXTS]
    some = CaptchaDataLoaders.from_lists([bars(t, rng)[0] for t in mixed], as_words(mixed), chars='12345', batch_tfms=[], bs=16)
    reader = reader_of(SPEC)
    some.train.after_batch.add(Splice(reader, some))
    x, y = some.one_batch()
    assert (type(x), type(y)) == (TensorImageGrey, TensorCaptcha)
    read = reader.read_many([((o[0]*some.spec.std+some.spec.mean)*255).round().byte().numpy() for o in x.as_subclass(torch.Tensor)])
    assert [r.text for r in read] == [some.vocab.decode(o[o > 0].tolist()) for o in y]
    assert {len(r.text) for r in read} == {2, 3, 4}


@pytest.mark.parametrize('spec, kwargs, error, why', [
    (Spec('12', max_len=4, arch='heads_small', decoder='heads'), {}, ModelError, "'heads_small': decoder is 'heads': it must be 'ctc'"),
    (SPEC, dict(parts=1), CaptchaError, 'parts is 1: it must be 2 or more'),
    (SPEC, dict(p=0), CaptchaError, 'p is 0: it must be from 0.001 to 1'),
    (SPEC, dict(p=1.1), CaptchaError, 'p is 1.1: it must be'),
    (Spec('67890', max_len=4, height=16, width=90, arch='bars'), {}, CaptchaError, 'none of 32 training images can be cut'),
])
def test_what_cannot_be_cut_is_refused(plain, spec, kwargs, error, why):
    with pytest.raises(error, match=why): Splice(reader_of(spec), plain, **kwargs)


def test_too_few_steps_are_said_so(plain):
    short = Reader(lambda x: sees(((x[:, 0]*SPEC.std+SPEC.mean)*255).round())[:, :3], SPEC)
    with pytest.raises(CaptchaError, match='none of 32 texts fits the 3 steps of bars'): cut_images(short, plain, 100)


def test_images_that_the_reader_does_not_know_are_left_out_with_a_warning(plain):
    with pytest.warns(UserWarning, match='of 32 images are not cut'): items = cut_images(reader_of(Spec('1234', max_len=4, height=16, width=90, arch='bars')), plain, 100)
    assert 0 < len(items) < 32 and not any((ids == 5).any() for _, ids, _ in items)


def test_a_splice_has_a_fingerprint_and_is_exported_without_images(plain):
    a, b, c = (Splice(reader_of(SPEC), plain, p=p) for p in (.5, .5, .6))
    assert isinstance(a, Fingerprinted) and a.fingerprint() == b.fingerprint() != c.fingerprint()
    state = a.__getstate__()
    assert state['items'] == [] and state['p'] == 0 and len(a.items) == 32
    assert len(pickle.dumps(state)) < 10_000


def few_epochs(folder, stop=None, resume=False):
    "A run of four epochs, interrupted before the epoch `stop`"
    set_seed(42, reproducible=True)
    learn = captcha_learner(loaders(), cbs=AuxiliaryCTC(), **HEADS)
    class Stop(Callback):
        def before_epoch(self):
            if self.epoch == stop: raise KeyboardInterrupt
    with learn.no_bar(), learn.no_logging():
        try: train_captcha(learn, 4, folder=folder, resume=resume, cbs=Stop())
        except KeyboardInterrupt: pass
    return learn


@pytest.fixture(scope='module')
def whole(tmp_path_factory): return few_epochs(tmp_path_factory.mktemp('whole'))


def test_the_layer_is_gone_after_the_fit(whole):
    assert list(whole.model.state_dict()) == list(make_model(whole.spec).state_dict())
    assert whole.warmup is None


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(whole, tmp_path):
    few_epochs(tmp_path, stop=2)
    assert_equal_weights(whole, few_epochs(tmp_path, resume=True))


def test_a_look_at_an_interrupted_learner_changes_nothing(whole, tmp_path):
    learn = few_epochs(tmp_path, stop=2)
    with learn.no_bar(), learn.no_logging():
        learn.validate(), learn.tta(n=2), learn.lr_find(num_it=4, show_plot=False)
        train_captcha(learn, 4, folder=tmp_path, resume=True)
    assert_equal_weights(whole, learn)


def test_a_finished_run_that_is_resumed_has_no_layer_either(whole, tmp_path):
    few_epochs(tmp_path)
    again = few_epochs(tmp_path, resume=True)
    assert_equal_weights(whole, again)
    assert again.warmup is None and len(again.model.state_dict()) == len(whole.model.state_dict())


def test_validating_does_not_end_it(plain):
    learn = captcha_learner(plain, cbs=AuxiliaryCTC(), **HEADS)
    quietly(learn, 'validate')
    assert isinstance(learn.warmup, AuxiliaryCTC) and 'auxiliary_ctc.weight' in learn.model.state_dict()
    quietly(learn, 'fit', 1)
    assert learn.warmup is None and 'auxiliary_ctc.weight' not in learn.model.state_dict()
    quietly(learn, 'fit', 1)
    with pytest.raises(CaptchaError, match='AuxiliaryCTC: give it to captcha_learner'): quietly(learn, 'fit', 1, cbs=AuxiliaryCTC())


class FirstLoss(Callback):
    "Stop after one loss and remember it"
    order = 67
    def after_loss(self):
        self.learn.its_loss = self.loss_grad.item()
        raise CancelFitException


def first_loss(dls, *cbs):
    set_seed(42, reproducible=True)
    dls.train.rng = random.Random(42)
    learn = captcha_learner(dls, cbs=AuxiliaryCTC(), **HEADS)
    quietly(learn, 'fit', 1, cbs=[FirstLoss(), *cbs])
    return learn.its_loss


def test_both_losses_count_a_third_if_three_batches_are_a_step(plain):
    assert np.isclose(first_loss(plain), 3*first_loss(plain, GradientAccumulation(3*plain.bs)), rtol=1e-4)


def test_a_ctc_model_needs_no_columns(plain):
    with pytest.raises(ModelError, match="decoder is 'ctc': it must be 'heads'"): captcha_learner(plain, cbs=AuxiliaryCTC(), warmup=False)


def test_it_is_part_of_what_a_run_is_and_resumes():
    cb = AuxiliaryCTC(.5, goal=.2)
    assert isinstance(cb, Fingerprinted) and isinstance(cb, Resumable)
    assert cb.fingerprint() != AuxiliaryCTC().fingerprint() == AuxiliaryCTC().fingerprint()
    cb.state.update(step=9)
    other = AuxiliaryCTC()
    other.load_state_dict(cb.state_dict())
    assert other.state['step'] == 9 and cb.name == 'alignment_warmup'
