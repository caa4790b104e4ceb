"Model files: complete, harmless, and readable for ever"
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from captcha_fastai.core import ModelError, Spec
from captcha_fastai.draw.synth import Synth, digits
from captcha_fastai.read.onnxfile import file_meta
from captcha_fastai.ship.modelfile import load_model, load_reader, save_calibrated, save_model
from captcha_fastai.train.models import archs, build_model, make_model, model_reader

data = Path(__file__).parent/'data'


def untrained(arch, **changes):
    spec = Spec(digits, max_len=4, height=32, width=96, arch=arch, decoder=archs[arch].decoder, **changes)
    return SimpleNamespace(model=make_model(spec).eval(), spec=spec)


@pytest.fixture(scope='module')
def captcha(): return Synth(digits, 4, size=(32, 96))(1)[1]


@pytest.fixture
def small(tmp_path):
    "A saved model: its path, metadata and arrays"
    learn, path = untrained('heads_small'), tmp_path/'m.safetensors'
    save_model(learn, path)
    return SimpleNamespace(path=path, spec=learn.spec, meta=file_meta(learn.spec), weights=load_file(path))


def test_architectures_that_others_published_are_known(): assert {'multi_head', 'pool_free', 'crnn', 'vgg_heads', 'digits_cnn', 'vgg_gru'} < set(archs)


@pytest.mark.parametrize('arch', ['crnn_small', 'crnn_tiny', 'conv_small', 'heads_small', 'multi_head', 'pool_free', 'crnn', 'vgg_heads', 'digits_cnn', 'vgg_gru'])
def test_what_is_loaded_answers_as_what_was_saved(arch, captcha, tmp_path):
    learn = untrained(arch)
    assert save_model(learn, tmp_path/'m.safetensors') == str(tmp_path/'m.safetensors')
    back = load_reader(tmp_path/'m.safetensors')
    assert back.spec == learn.spec
    assert (back.logp([captcha]) == model_reader(learn.model, learn.spec).logp([captcha])).all()


# log-probabilities of the first step of image 0, then texts and confidences of images 0 and 1, as the version before said
published = dict(
    crnn_tiny=([-2.57147, -2.27577, -2.44361, -2.55734, -2.53726, -2.24852, -2.52223, -2.49448, -2.27276, -2.3226, -2.22564], '94949494949490', 9.74e-21),
    heads_small=([-2.5719, -2.63076, -2.46131, -2.10503, -2.61237, -2.03438, -2.66423, -2.09219, -2.36537, -2.47733, -2.66861], '433', 4.232e-4))


@pytest.mark.parametrize('arch', published)
def test_files_of_version_0_1_read_as_they_did(arch):
    first, text, confidence = published[arch]
    reader = load_reader(data/f'version_0_1_{arch}.safetensors')
    images = [Synth('0123456789', 4, 'simple', (24, 64))(i)[1] for i in range(2)]
    assert np.allclose(reader.logp(images)[0, 0], first, atol=2e-5)
    for o in reader.read_many(images): assert o.text == text and np.isclose(o.confidence, confidence, rtol=1e-3)
    assert (reader.spec.temperature, reader.spec.threshold) == (1.3, .5)


def test_an_onnx_file_of_version_0_1_reads_as_it_did():
    first, text, _ = published['crnn_tiny']
    reader = load_reader(data/'version_0_1_crnn_tiny.onnx')
    image = Synth('0123456789', 4, 'simple', (24, 64))(0)[1]
    assert np.allclose(reader.logp([image])[0, 0], first, atol=2e-4) and reader(image).text == text


def test_an_interrupted_auxiliary_head_is_not_saved(captcha, tmp_path):
    learn = untrained('heads_small')
    learn.model.auxiliary_ctc = torch.nn.Linear(2, 3)
    save_model(learn, tmp_path/'m.safetensors')
    assert not any('auxiliary' in k for k in load_file(tmp_path/'m.safetensors'))
    assert (load_reader(tmp_path/'m.safetensors').logp([captcha]) == model_reader(learn.model, learn.spec).logp([captcha])).all()


def test_pretrained_weights_are_not_fetched_for_a_file(tmp_path):
    learn = untrained('crnn')
    learn.spec = replace(learn.spec, arch_args=dict(pretrained=True))
    save_model(learn, tmp_path/'m.safetensors')
    assert load_model(tmp_path/'m.safetensors')[1].arch_args == {}


def test_a_model_is_loaded_ready_to_read(small):
    model, spec = load_model(small.path)
    assert not model.training and model.steps == spec.max_len == 4


def first_weight(weights): return next(k for k in weights if k.endswith('weight'))


@pytest.mark.parametrize('changes, why', [
    (dict(format=None), 'holds no captcha_fastai model'), (dict(version='2'), 'version 2 of the format'), (dict(spec='{'), 'not JSON'),
    (dict(sha256='0'*64), 'damaged: it has changed since save_model wrote it')])
def test_a_file_that_says_something_else_of_itself_is_refused(small, changes, why):
    meta = {k: v for k, v in {**small.meta, **changes}.items() if v is not None}
    save_file(small.weights, small.path, metadata=meta)
    with pytest.raises(ModelError, match=f'm.safetensors: .*{why}'): load_model(small.path)


@pytest.mark.parametrize('changes, why', [
    (dict(arch_args=dict(hidden=10**9)), 'do not fit architecture'),            # 100 TB, were it built
    (dict(arch_args=dict(hidden=-1)), 'cannot be built'),
    (dict(arch_args=dict(p=float('nan'))), 'cannot read 32x96 images')])
def test_a_file_whose_specification_is_not_of_its_arrays_is_refused(small, changes, why):
    save_file(small.weights, small.path, metadata={**small.meta, 'spec': replace(small.spec, **changes).to_json()})
    with pytest.raises(ModelError, match=f'm.safetensors: .*{why}'): load_model(small.path)


def test_a_file_of_an_unknown_architecture_is_refused(small):
    save_file(small.weights, small.path, metadata={**small.meta, 'spec': small.spec.to_json().replace('heads_small', 'gpt')})
    with pytest.raises(ModelError, match="m.safetensors: architecture 'gpt' is unknown"): load_model(small.path)


def test_a_file_that_lacks_an_array_is_refused(small):
    first = first_weight(small.weights)
    save_file({k: v for k, v in small.weights.items() if k != first}, small.path, metadata=small.meta)
    with pytest.raises(ModelError, match='m.safetensors: its arrays do not fit architecture'): load_model(small.path)


def test_an_array_of_another_type_is_refused(small):
    first = first_weight(small.weights)
    save_file({**small.weights, first: small.weights[first].double()}, small.path, metadata=small.meta)
    with pytest.raises(ModelError, match='m.safetensors: its arrays do not fit .* is torch.float64, not torch.float32'): load_model(small.path)


def test_one_changed_bit_is_noticed(small):
    content = bytearray(small.path.read_bytes())
    content[-1] ^= 1
    small.path.write_bytes(content)
    with pytest.raises(ModelError, match='m.safetensors: damaged'): load_model(small.path)


def test_a_file_without_a_digest_is_read(small):
    save_file(small.weights, small.path, metadata=small.meta)
    assert load_model(small.path)[1] == small.spec


@pytest.mark.parametrize('content', [b'', b'\x80\x04nonsense', b'x'*100])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path/'m.safetensors').write_bytes(content)
    with pytest.raises(ModelError, match='m.safetensors: not a readable safetensors file'): load_model(tmp_path/'m.safetensors')


def test_a_file_that_is_not_there_is_said_so():
    with pytest.raises(ModelError, match='gone.safetensors: no such file'): load_model('gone.safetensors')


def test_a_model_file_that_asks_for_gigabytes_is_refused(tmp_path):
    spec = Spec('ab', 2, 1000, 1000, arch_args=dict(widths=[1000, 1, 1, 1, 1], hidden=1))
    save_model(SimpleNamespace(model=build_model(spec), spec=spec), tmp_path/'m.safetensors')
    assert (tmp_path/'m.safetensors').stat().st_size < 200_000
    with pytest.raises(ModelError, match='more than 2 GiB of memory'): load_model(tmp_path/'m.safetensors')


def learner_with_images(n=40):
    "A model with opinions and images that are labelled with what it reads, but for every fifth"
    torch.manual_seed(0)
    learn = untrained('heads_small')
    with torch.no_grad():
        learn.model.head[-1].weight *= 20
        learn.model.head[-1].bias.view(4, -1)[:, 0] -= 100                   # no text is shorter than four
    images = [Synth(digits, 4, size=(32, 96))(i)[1] for i in range(n)]
    texts = [o.text for o in model_reader(learn.model, learn.spec).read_many(images)]
    captchas = [SimpleNamespace(image=im, text=t if i % 5 else '0123') for i, (im, t) in enumerate(zip(images, texts))]
    learn.dls = SimpleNamespace(valid_captchas=captchas)
    return learn


def test_a_calibrated_file_has_temperature_and_threshold(tmp_path):
    learn = learner_with_images()
    report = save_calibrated(learn, tmp_path/'m.safetensors')
    spec = load_reader(tmp_path/'m.safetensors').spec
    assert report.n == 40 and report.right == 32
    assert spec == learn.spec and spec.temperature != 1 and spec.threshold == report.threshold


def test_a_lower_precision_accepts_more(tmp_path):
    thresholds = []
    for precision in (.995, .7):
        save_calibrated(learner_with_images(), tmp_path/'m.safetensors', precision)
        thresholds.append(load_reader(tmp_path/'m.safetensors').spec.threshold)
    assert thresholds[0] > thresholds[1]


def test_a_model_is_there_even_if_its_calibration_fails(tmp_path):
    learn = learner_with_images(1)
    learn.dls.valid_captchas[0].image = 'gone.png'
    with pytest.warns(UserWarning), pytest.raises(ValueError): save_calibrated(learn, tmp_path/'m.safetensors')
    assert load_reader(tmp_path/'m.safetensors').spec == learn.spec
