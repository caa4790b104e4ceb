"The nets that others published"
from unittest import mock

import pytest
import torch
from torch import nn

from captcha_fastai.core import ModelError, Spec
from captcha_fastai.train.models import archs, build_model, make_model
from captcha_fastai.train.published import glorot, vgg_body

SIX = {'multi_head': 'heads', 'pool_free': 'heads', 'crnn': 'ctc', 'vgg_heads': 'heads', 'digits_cnn': 'heads', 'vgg_gru': 'ctc'}


def made(name, **kwargs): return make_model(Spec(**{**dict(chars='0123456789', max_len=6, arch=name, decoder=SIX[name]), **kwargs}))


def test_there_are_eleven(): assert sorted(archs) == sorted(['crnn_small', 'crnn_tiny', 'conv_small', 'heads_small', 'crnn_base', *SIX])


@pytest.mark.parametrize('name', SIX)
@pytest.mark.parametrize('height, width, channels', [(50, 100, 3), (33, 71, 1), (64, 320, 1)])
def test_any_size_of_image_is_read(name, height, width, channels):
    m = made(name, height=height, width=width, channels=channels).eval()
    assert m(torch.zeros(2, channels, height, width)).shape == (2, m.steps, 11)


@pytest.mark.parametrize('name, steps', [('multi_head', 5), ('pool_free', 5), ('crnn', 13), ('vgg_heads', 5), ('digits_cnn', 5), ('vgg_gru', 25)])
def test_steps_are_positions_or_columns(name, steps): assert made(name, chars='2345678bcdefgmnpwxy', max_len=5).steps == steps


@pytest.mark.parametrize('spec, why', [
    (dict(arch='resnet'), 'choose from .*multi_head, pool_free, crnn, vgg_heads, digits_cnn, vgg_gru'),
    (dict(arch='pool_free'), "decoder is 'ctc': it must be 'heads'"),
    (dict(arch='vgg_heads', decoder='heads', arch_args=dict(widths=[1]*20_000)), 'its widths has 20000 parts'),
    (dict(arch='digits_cnn', decoder='heads', arch_args=dict(p=.1)), "unexpected keyword argument 'p'"),
])
def test_what_cannot_be_is_refused(spec, why):
    with pytest.raises(ModelError, match=why): make_model(Spec(**{**dict(chars='ab', max_len=2), **spec}))


def test_weights_that_cannot_be_downloaded_are_said_so():
    with mock.patch('torchvision.models.resnet34', side_effect=OSError('no network')), pytest.raises(ModelError, match='cannot be downloaded .no network.: leave `pretrained` out'):
        build_model(Spec('ab', 2, channels=3, arch='crnn', arch_args=dict(pretrained=True)))


@pytest.mark.parametrize('norm', [False, True])
def test_a_vgg_body_normalises_if_asked_to(norm):
    body = vgg_body(1, [4, 8], [2, (2, 1)], norm)
    assert any(isinstance(m, nn.BatchNorm2d) for m in body) == norm
    assert body(torch.zeros(1, 1, 9, 9)).shape == (1, 8, 3, 5)


def test_glorots_weights_are_larger_than_torchs():
    conv = nn.Conv2d(64, 64, 3)
    usual = conv.weight.std().item()
    glorot(conv)
    assert conv.weight.std().item() > 1.3*usual and not conv.bias.any()
