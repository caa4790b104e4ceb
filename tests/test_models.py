"Every architecture, its registry, and a model as a reader"
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from captcha_fastai.core import CaptchaError, ModelError, Spec
from captcha_fastai.train.models import BiGRU, BiLSTM, arch, archs, build_model, columns, conv_body, has_bf16, make_model, model_reader, pick_stride, shrunk

FOUR = {'crnn_small': 'ctc', 'crnn_tiny': 'ctc', 'conv_small': 'ctc', 'heads_small': 'heads'}


def made(name, **kwargs): return make_model(Spec(**{**dict(chars='0123456789', max_len=6, arch=name, decoder=FOUR[name]), **kwargs}))


@pytest.mark.parametrize('name', FOUR)
@pytest.mark.parametrize('height, width, channels', [(50, 100, 3), (33, 71, 1), (64, 320, 1), (1, 1, 1)])
def test_any_size_of_image_is_read(name, height, width, channels):
    m = made(name, height=height, width=width, channels=channels).eval()
    assert m(torch.zeros(2, channels, height, width)).shape == (2, m.steps, 11)
    assert m.decoder == FOUR[name] and (m.decoder == 'ctc' or m.steps == 6)


@pytest.mark.parametrize('name, steps', [('crnn_small', 25), ('crnn_tiny', 25), ('conv_small', 25), ('heads_small', 5)])
def test_a_ctc_models_steps_follow_from_the_width(name, steps):
    assert made(name, chars='2345678bcdefgmnpwxy', max_len=5).steps == steps


@pytest.mark.parametrize('width, stride', [(200, 8), (193, 8), (192, 4), (100, 4), (60, 2), (1, 2)])
def test_columns_are_the_coarsest_that_leave_five_per_character(width, stride): assert pick_stride(width, 5) == stride


@pytest.mark.parametrize('stride', [2, 4, 8])
@pytest.mark.parametrize('height, width', [(50, 200), (33, 71)])
def test_a_body_shrinks_its_image_and_rounds_up(stride, height, width):
    out = conv_body(3, (4, 4, 4, 4, 6), stride)(torch.zeros(1, 3, height, width))
    assert out.shape == (1, 6, shrunk(height, 16), shrunk(width, stride))


def test_columns_are_read_from_left_to_right():
    x = torch.arange(24).view(1, 2, 3, 4)
    assert columns(x)[0, 1].tolist() == x[0, :, :, 1].flatten().tolist()


@pytest.mark.parametrize('spec, why', [
    (dict(arch='resnet'), 'resnet. is unknown: choose from crnn_small, crnn_tiny, conv_small, heads_small'),
    (dict(arch='heads_small'), "decoder is 'ctc': it must be 'heads'"),
    (dict(arch_args=dict(stride=3)), 'stride is 3: it must be 2, 4 or 8'),
    (dict(arch_args=dict(depth=3)), "cannot be built with .* unexpected keyword argument 'depth'"),
    (dict(arch_args=dict(spec=3)), "cannot be built with .*'spec'"),
    (dict(arch_args=dict(hidden=-1)), 'cannot be built with'),
    (dict(arch_args=dict(widths=5)), 'cannot be built with'),
    (dict(arch_args=dict(widths=[1]*20_000)), 'its widths has 20000 parts'),
    (dict(arch='conv_small', arch_args=dict(window=4)), 'window is 4: it must be an odd number from 1'),
    (dict(arch='conv_small', arch_args=dict(window=-1)), 'window is -1'),
])
def test_an_architecture_that_cannot_be_is_refused(spec, why):
    with pytest.raises(ModelError, match=why): make_model(Spec(**{**dict(chars='ab', max_len=2), **spec}))


def test_an_image_that_a_net_cannot_read_is_named():
    @arch('heads')
    class narrow(nn.Linear):
        "Reads images of three columns"
        def __init__(self, spec): super().__init__(3, len(spec.vocab))
    try:
        with pytest.raises(ModelError, match="'narrow' cannot read 4x5 images"): make_model(Spec('ab', 2, 4, 5, arch='narrow', decoder='heads'))
    finally: del archs['narrow']


def test_an_error_of_an_architecture_is_passed_on():
    @arch('ctc')
    class picky(nn.Module):
        "Wants what nobody has"
        def __init__(self, spec): raise CaptchaError('give a moon')
    try:
        with pytest.raises(CaptchaError, match='^give a moon$'): build_model(Spec('ab', 2, arch='picky'))
    finally: del archs['picky']


def test_trying_an_image_leaves_the_mode_as_it_was():
    assert made('crnn_tiny').training
    m = made('crnn_tiny')
    assert all(o.running_mean.eq(0).all() for o in m.modules() if isinstance(o, nn.BatchNorm2d))


@pytest.mark.parametrize('layer', [BiLSTM, BiGRU])
def test_recurrences_stay_in_float32(layer):
    with torch.autocast('cpu', torch.bfloat16): y = layer(3, 4)(torch.zeros(2, 5, 3, dtype=torch.bfloat16))
    assert y.dtype == torch.float32 and y.shape == (2, 5, 8)


@pytest.mark.parametrize('name', FOUR)
def test_models_are_built_on_the_meta_device(name):
    with torch.device('meta'): m = build_model(Spec('ab', 2, arch=name, decoder=FOUR[name])).eval()
    assert m(torch.zeros(1, 1, 50, 200, device='meta')).device.type == 'meta'


def test_the_head_of_a_crnn_sees_the_image_past_its_lstms():
    m = made('crnn_small', height=32, width=64).eval()
    for p in m.rnn.parameters(): nn.init.zeros_(p)
    out = m(torch.randn(2, 1, 32, 64))
    assert (out[0] != out[1]).any()


def test_a_net_with_context_goes_on_from_one_without():
    plain, more = (make_model(Spec('abc', 2, 32, 64, arch='conv_small', arch_args=dict(context=o))).eval() for o in (False, True))
    assert not more.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    x = torch.randn(2, 1, 32, 64)
    assert torch.equal(more(x), plain(x))


def test_a_column_of_conv_small_sees_its_window():
    m = make_model(Spec('abc', 2, 32, 256, arch='conv_small')).eval()
    x = torch.randn(64, 1, 32, 256, requires_grad=True)
    m(x)[:, 16].sum().backward()
    touched = x.grad.abs().sum((0, 1, 2)).nonzero()
    assert int(touched.max() - touched.min()) + 1 == 53 + 6*8


def test_meta_multiplies_no_bfloat16():
    assert has_bf16('meta') is False
    assert has_bf16(None) == has_bf16('cpu')


def test_a_reader_gives_log_probabilities():
    spec = Spec('2345678bcdefgmnpwxy', max_len=5)
    reader = model_reader(make_model(spec), spec)
    logp = reader.logp([np.zeros((50, 200), np.uint8)]*3)
    assert logp.shape == (3, 25, 20) and np.allclose(np.exp(logp).sum(-1), 1, atol=1e-5)
    assert repr(reader) == 'Reader(crnn_small, 19 characters, up to 5 long)'


def test_a_reader_computes_in_float32_under_autocast():
    spec = Spec('ab', max_len=2, height=16, width=32)
    reader, image = model_reader(make_model(spec), spec), np.full((16, 32), 99, np.uint8)
    plain = reader.logp([image])
    with torch.autocast('cpu', torch.bfloat16): assert np.array_equal(reader.logp([image]), plain)


def test_a_torch_reader_goes_to_a_spawned_process():
    reader = model_reader(made('crnn_tiny'), Spec('0123456789', 6, arch='crnn_tiny'))
    black = np.zeros((50, 200), np.uint8)
    with get_context('spawn').Pool(1) as pool: there = pool.map_async(reader, [black]).get(120)
    assert there[0].confidence == pytest.approx(reader(black).confidence)


@pytest.mark.parametrize('threads, says', [(2, "torch hangs in a process that was forked: start it with get_context('spawn')"), (1, 'read')])
@pytest.mark.parametrize('given', ['inherited', 'pickled', 'loaded there'])
def test_a_fork_says_what_to_do_instead_of_hanging(threads, says, given):
    code = f"""import sys, multiprocessing, numpy, torch
torch.set_num_threads({threads})
from captcha_fastai.ship.modelfile import load_reader
reader, images = load_reader('base'), [numpy.zeros((64, 200), numpy.uint8)]*20
reader.read_many(images)
def inherited(_): return reader.read_many(images)
def pickled(reader): return reader.read_many(images)
def loaded(_): return load_reader('base').read_many(images)
with multiprocessing.get_context('fork').Pool(1) as pool:
    try: print('read' if pool.map_async({given.split()[0]}, [reader]).get(60) else 'nothing')
    except ValueError as e: print(e)"""
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, capture_output=True, text=True, timeout=120,
                         cwd=Path(__file__).resolve().parent.parent).stdout
    assert out.startswith(says)
