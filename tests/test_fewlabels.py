"Few labels: two stages that can be interrupted, rehearsal, and a start from another model"
import pickle
from types import SimpleNamespace

import pytest
import torch
from fastai.vision.all import TensorImage, nn, set_seed

import captcha_fastai.data.online  # noqa: F401 (from_synth)
import captcha_fastai.train.fewlabels as fewlabels
from captcha_fastai.core import CaptchaError, ModelError, Spec
from captcha_fastai.data.images import TensorCaptcha
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.train.checkpoint import Checkpoint, load_checkpoint
from captcha_fastai.train.fewlabels import (Rehearse, check_same_task, fit_two_stage, rehearsal, second_epochs, share_read, start_from,
                                            synth_of)
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.schedule import Recipe, train_captcha
from helpers import StopAfter, assert_equal_weights


def captchas(chars='OX', length=2, n=8, n_valid=4, size=(32, 64), bs=4, **kwargs):
    return CaptchaDataLoaders.from_synth(chars, length, n=n, n_valid=n_valid, synth_size=size, channels=1, bs=bs, **kwargs)


def endless(): return captchas(length=(1, 2), n=100, n_valid=20, bs=20, online=True)


def tiny_learner():
    set_seed(5, reproducible=True)
    return captcha_learner(captchas(n=32, n_valid=16, size=(16, 32), bs=8), arch_args=dict(widths=(4, 4, 8, 8, 8), hidden=8), bf16=False)


def small_learner(chars='OX', **kwargs):
    return captcha_learner(captchas(chars, n=16, n_valid=60, bs=16, batch_tfms=[]), arch_args=dict(widths=(8, 16, 24, 24, 32), hidden=32),
                           bf16=False, **kwargs)


# Two stages

@pytest.fixture
def staged(tmp_path):
    "Two short stages in one folder"
    def run(learn=None, **kwargs):
        learn, synthetic = learn or tiny_learner(), captchas(n=16, n_valid=8, size=(16, 32), bs=8, online=True)
        recipe = Recipe(synthetic_steps=10, tune_steps=0)
        with learn.no_bar(), learn.no_logging():
            return fit_two_stage(learn, synthetic, epochs=2, folder=tmp_path, recipe=recipe, **kwargs)
    return run


def interrupted(staged, **kwargs):
    "A learner whose second stage was interrupted"
    learn = tiny_learner()
    with pytest.raises(KeyboardInterrupt): staged(learn, cbs=StopAfter(1), **kwargs)
    return learn


def test_a_run_killed_between_the_stages_goes_on(staged, tmp_path):
    whole = staged()
    (tmp_path/'last.ckpt').unlink()
    assert_equal_weights(whole, staged(resume=True))


def test_the_same_learner_goes_on_in_the_second_stage(staged):
    whole, same = staged(), interrupted(staged)
    assert_equal_weights(whole, staged(same, resume=True))


def test_a_new_learner_goes_on_in_the_second_stage(staged):
    whole = staged()
    interrupted(staged)
    assert_equal_weights(whole, staged(resume=True))


def test_what_an_earlier_run_left_is_not_resumed(staged, monkeypatch, capsys):
    staged()
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'save', lambda self: 1/0)
        with pytest.raises(ZeroDivisionError): staged()
    staged(resume=True)
    assert 'nothing to resume: it begins anew' in capsys.readouterr().out


def test_rehearsal_goes_on_as_it_was_begun(staged, tmp_path):
    whole, same = staged(rehearse=.5), interrupted(staged, rehearse=.5)
    assert_equal_weights(whole, staged(same, resume=True))
    assert load_checkpoint(tmp_path)['settings']['replaced images'] == {'Rehearse': .5}
    with pytest.raises(ModelError, match=r"replaced images is {'Rehearse': 0.5}, not {}"): staged(resume=True, rehearse=0)
    assert not [t for t in same.dls.train.after_batch.fs if isinstance(t, Rehearse)]


def test_a_learner_gets_its_own_data_back(staged):
    learn = tiny_learner()
    dls = learn.dls
    with pytest.raises(KeyboardInterrupt): staged(learn, cbs=StopAfter(1))
    assert learn.dls is dls and learn.origin == ''


def test_a_wrong_share_is_refused_before_anything_is_trained(staged, tmp_path):
    with pytest.raises(CaptchaError, match='p is 1'): staged(rehearse=1)
    assert not list(tmp_path.iterdir())


# The same task

def test_captchas_of_another_alphabet_are_refused(tmp_path):
    with pytest.raises(CaptchaError, match="chars is 'OXY', the learner's is 'OX'"): fit_two_stage(tiny_learner(), captchas('OXY'), tmp_path)


def test_captchas_that_are_scaled_otherwise_are_refused():
    dls = captchas()
    learn = SimpleNamespace(spec=Spec(**{**vars(dls.spec), 'mean': 0., 'std': 1.}))
    with pytest.raises(CaptchaError, match='mean is 0.5'): check_same_task(learn, dls)


def test_longer_captchas_are_refused():
    with pytest.raises(CaptchaError, match="max_len is 3, the learner's is 2"):
        check_same_task(SimpleNamespace(spec=captchas().spec), captchas(length=(2, 3)))


# Rehearsal

def test_rehearsal_puts_captchas_and_their_labels_into_a_batch():
    synthetic = endless()
    rehearse = Rehearse(synthetic, n=3)
    x, y = rehearse((TensorImage(torch.zeros(60, 1, 32, 64)), TensorCaptcha(torch.zeros(60, 3, dtype=torch.long))), split_idx=0)
    texts = {synthetic.vocab.decode(rehearse.prepare(i)[1].tolist()) for i in range(3)}
    assert {synthetic.vocab.decode(o) for o in y.tolist()} - {''} == texts
    assert (y.sum(1) > 0).tolist() == (x.amax((1, 2, 3)) > 0).tolist()


def test_an_exported_learner_holds_no_rehearsed_images():
    rehearse = Rehearse(endless(), n=3)
    rehearse.draw()
    copy = pickle.loads(pickle.dumps(rehearse))
    assert (len(rehearse.kept), len(copy.kept), copy.p) == (1, 0, 0)
    assert copy.fingerprint() == rehearse.fingerprint()


def test_only_endless_captchas_are_rehearsed():
    fixed = captchas()
    for f in (Rehearse, synth_of):
        with pytest.raises(CaptchaError, match='synthetic: give endless captchas'): f(fixed)
    assert rehearsal(tiny_learner(), fixed) is None


@pytest.mark.parametrize('p', [-.1, 0, 1, 1.5])
def test_a_share_is_between_0_and_1(p):
    with pytest.raises(CaptchaError, match=f'p is {p}: it must be from 0.001 to 0.999'): Rehearse(endless(), p)


@pytest.mark.parametrize('share, labels, p', [(.94, 50, None), (.95, 10, .5), (.95, 50, .5), (.95, 200, .2)])
def test_good_captchas_are_rehearsed_as_50_labels(monkeypatch, share, labels, p):
    monkeypatch.setattr(fewlabels, 'share_read', lambda _: share)
    learn = SimpleNamespace(dls=SimpleNamespace(train_ds=range(labels)))
    assert getattr(rehearsal(learn, endless()), 'p', None) == p


def test_a_share_that_is_given_is_taken():
    learn, synthetic = tiny_learner(), endless()
    assert rehearsal(learn, synthetic, 0) is None and rehearsal(learn, synthetic, .2).p == .2


def test_a_new_net_reads_nothing(): assert share_read(tiny_learner()) == 0


@pytest.mark.parametrize('rehearse, epochs', [(None, 64), (True, 48)])
def test_rehearsal_takes_three_quarters_of_the_steps(rehearse, epochs): assert second_epochs(200, 16, 800, rehearse) == epochs


# Start from another model

def test_what_was_learned_stays_with_its_characters():
    learn, more = small_learner(), small_learner('XYO')
    start_from(more, learn.model, learn.spec)
    x = learn.dls.valid.one_batch()[0].cpu()
    new, old = (o.model.cpu().eval()(x) for o in (more, learn))
    assert torch.allclose(new[..., [0, 3, 1]], old, atol=1e-5)               # blank, O, X as before; Y is new
    assert more.warmup is None


def test_all_last_layers_are_matched_by_character():
    two, three = (captcha_learner(captchas(o), 'conv_small', dict(context=True), bf16=False) for o in ('OX', 'XYO'))
    nn.init.normal_(two.model.context[1].weight)
    start_from(three, two.model, two.spec)
    x = two.dls.valid.one_batch()[0].cpu()
    new, old = (o.model.cpu().eval()(x) for o in (three, two))
    assert torch.allclose(new[..., [0, 3, 1]], old, atol=1e-4)


def test_another_net_is_refused():
    learn, other = small_learner(), captcha_learner(captchas(), 'crnn_tiny')
    with pytest.raises(ModelError, match="arch is 'crnn_small', the learner's is 'crnn_tiny'"): start_from(other, learn.model, learn.spec)
    wider = captcha_learner(captchas(), arch_args=dict(widths=(8, 16, 24, 24, 40), hidden=32))
    with pytest.raises(ModelError, match='has another shape: give the same arch_args'): start_from(wider, learn.model, learn.spec)


def test_a_run_from_another_model_is_not_resumed(tmp_path):
    begun, other, source = tiny_learner(), tiny_learner(), tiny_learner()
    def train(learn, **kwargs):
        with learn.no_bar(), learn.no_logging(): train_captcha(learn, 4, folder=tmp_path, **kwargs)
    start_from(begun, source.model, source.spec)
    with pytest.raises(KeyboardInterrupt): train(begun, cbs=StopAfter(2))
    with pytest.raises(ModelError, match="checkpoint's origin is"): train(other, resume=True)
