"Refiners: trained resumably, kept in files, and used on synthetic captchas alone"
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from fastai.vision.all import Adam, Callback, Tensor, TensorImage, nn, set_seed
from PIL import ImageFilter
from safetensors.torch import save

import captcha_fastai.data.online  # noqa: F401 (from_synth)
from captcha_fastai.core import CaptchaError, ModelError
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.look import Look
from captcha_fastai.draw.synth import Synth
from captcha_fastai.train.checkpoint import Checkpoint
from captcha_fastai.train.refine import Refine, fit_refiner, load_refiner, read_refiner_style, save_refiner
from captcha_fastai.train.simgan import PatchDiscriminator, Refiner, SimGAN, SimGANLearner, refiner_dls


@pytest.fixture(scope='module')
def world():
    "Sharp synthetic captchas, and blurred ones that count as real"
    sharp = Synth('abc', 2, Look(size=(.6, .8), rotate=10.), (24, 48))
    return SimpleNamespace(sharp=sharp, blurred=[sharp(i)[1].filter(ImageFilter.GaussianBlur(1)) for i in range(1000, 1060)])


@pytest.fixture
def gan(world):
    def make(**kwargs):
        dls = refiner_dls(world.sharp, world.blurred, (24, 48), 1, n=40, n_valid=16, bs=8)
        return SimGANLearner(dls, SimGAN(Refiner(1, 8, 1), PatchDiscriminator(1, (8, 8, 8, 8))), bf16=False, **kwargs)
    return make


@pytest.fixture
def trained(gan, tmp_path):
    "Four epochs, from the same chance"
    def run(folder='run', resume=False, cbs=None, **kwargs):
        if not resume: set_seed(1)
        learn = gan(**{'weight': 2., 'first': (0, 5), 'cbs': cbs, **kwargs})
        if not resume: learn.dls.train.rng.seed(1)
        with learn.no_bar(), learn.no_logging(): return fit_refiner(learn, 4, 1e-3, tmp_path/folder, resume)
    return run


class Stop(Callback):
    def before_epoch(self):
        if self.epoch == 2: raise KeyboardInterrupt


def test_an_interrupted_run_ends_with_the_same_weights(trained, tmp_path):
    whole = trained('whole').model.state_dict()
    with pytest.raises(KeyboardInterrupt): trained('half', cbs=Stop())
    assert len(pd.read_csv(tmp_path/'half'/'log.csv')) == 2
    for k, v in trained('half', resume=True).model.state_dict().items(): assert torch.equal(v, whole[k]), k
    a, b = (pd.read_csv(tmp_path/o/'log.csv').drop(columns=['train_loss', 'time']) for o in ('whole', 'half'))     # a running mean begins anew
    assert a.equals(b) and len(a) == 4


@pytest.mark.parametrize('other, why', [(dict(weight=3.), 'weight is 2.0, not 3.0'), (dict(per_step=1), 'per_step is 2, not 1'),
                                        (dict(history=9), 'history is 512, not 9')])
def test_a_run_is_not_resumed_with_other_arguments(trained, other, why):
    with pytest.raises(KeyboardInterrupt): trained(cbs=Stop())
    with pytest.raises(ModelError, match=why): trained(resume=True, **other)


def test_without_a_checkpoint_it_begins_anew(trained, capsys):
    trained(resume=True)
    assert 'nothing to resume: it begins anew' in capsys.readouterr().out


def test_a_new_run_that_is_killed_at_once_leaves_no_old_checkpoint(trained, monkeypatch, capsys):
    with pytest.raises(KeyboardInterrupt): trained(cbs=Stop())
    with monkeypatch.context() as m:
        m.setattr(Checkpoint, 'save', lambda self: 1/0)
        with pytest.raises(ZeroDivisionError): trained()
    trained(resume=True)
    assert 'nothing to resume: it begins anew' in capsys.readouterr().out


def test_only_optimizers_of_torch_will_do(trained):
    with pytest.raises(CaptchaError, match="opt_func: give partial"): trained(opt_func=Adam)


def test_a_second_fit_goes_on_and_a_search_for_a_rate_leaves_no_trace(gan):
    learn = gan(first=(0, 5))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.fit(1)
        assert learn.dls.train_ds.epoch == 1                                  # other pairs
        kept = len(learn.history)
        learn.lr_find(num_it=12, show_plot=False)
    assert (learn.steps, len(learn.history)) == (10, kept)


def test_a_refiner_comes_back_from_its_file(tmp_path):
    refiner = Refiner(1, 8, 1)
    nn.init.normal_(refiner.head.weight)
    again = load_refiner(save_refiner(refiner, tmp_path/'r.safetensors'))
    x = torch.rand(2, 1, 24, 48)
    assert torch.allclose(again(x), refiner.eval()(x)) and not again.training


def test_a_style_goes_with_a_refiner(tmp_path):
    plain, styled = (save_refiner(Refiner(1, 8, 1), tmp_path/f'{len(o)}.safetensors', o) for o in ('', '[{"size": 1}]'))
    assert (read_refiner_style(plain), read_refiner_style(styled)) == ('', '[{"size": 1}]')
    load_refiner(styled)


def test_a_refiner_of_version_0_1_is_read(request):
    path = request.path.parent/'data'/'version_0_1_refiner.safetensors'
    assert load_refiner(path).args['channels'] in (1, 3) and read_refiner_style(path) == ''


def test_weights_that_are_not_finite_are_not_written_and_not_read(tmp_path):
    broken = Refiner(1, 8, 1)
    nn.init.constant_(broken.head.bias, float('nan'))
    with pytest.raises(ModelError, match='nan.safetensors: not written: weights are not finite'): save_refiner(broken, tmp_path/'nan.safetensors')
    (tmp_path/'nan.safetensors').write_bytes(save(broken.state_dict(), {'refiner': json.dumps(broken.args)}))
    with pytest.raises(ModelError, match='not finite'): load_refiner(tmp_path/'nan.safetensors')


def test_another_file_is_no_refiner(tmp_path):
    (tmp_path/'x.safetensors').write_text('x'*100)
    for f in (load_refiner, read_refiner_style):
        with pytest.raises(ModelError, match='x.safetensors: not a refiner'): f(tmp_path/'x.safetensors')
        with pytest.raises(ModelError, match='y.safetensors: no such file'): f(tmp_path/'y.safetensors')
    (tmp_path/'z.safetensors').write_bytes(save({'w': torch.ones(1)}))
    with pytest.raises(ModelError, match='z.safetensors: not a refiner'): load_refiner(tmp_path/'z.safetensors')


def test_a_refiner_has_a_limit():
    with pytest.raises(ModelError, match='width 4096'): Refiner(1, 4096)


def test_only_synthetic_captchas_are_refined(world):
    refiner = Refiner(1, 8, 1)
    nn.init.constant_(refiner.head.bias, -.5)
    def loaders(*tfms):
        return CaptchaDataLoaders.from_synth('abc', 2, world.sharp.looks, n=32, n_valid=8, online=True, synth_size=(24, 48), channels=1,
                                             bs=8, batch_tfms=list(tfms))
    plain, refined = loaders(), loaders(Refine(refiner))
    real = [dls.test_dl(world.blurred[:2]).one_batch()[0] for dls in (plain, refined)]
    synthetic = [dls.test_dl([0, 1]).one_batch()[0] for dls in (plain, refined)]
    assert torch.equal(*real) and (synthetic[0] - synthetic[1]).abs().max() > .1


def test_images_of_other_channels_are_not_refined():
    with pytest.raises(ModelError, match='images have 3 channels: the refiner is for 1'):
        Refine(Refiner(1, 8, 1)).encodes(TensorImage(torch.zeros(1, 3, 24, 48)))


def test_a_refiner_makes_a_run_what_it_is():
    a, b = Refiner(1, 8, 1), Refiner(1, 8, 1)
    assert Refine(a).fingerprint() == Refine(a).fingerprint() != Refine(b).fingerprint()


def test_refined_pixels_stay_between_0_and_1():
    refiner = Refiner(1, 8, 1)
    nn.init.constant_(refiner.head.bias, 9.)
    x = Refine(refiner, bf16=False).encodes(TensorImage(torch.rand(2, 1, 24, 48)))
    assert isinstance(x, TensorImage) and x.as_subclass(Tensor).max() == 1
