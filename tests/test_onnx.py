"ONNX files that read as torch does"
import base64
import io
import json
import random
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from fastai.torch_core import set_seed
from PIL import Image

import captcha_fastai.data.online  # CaptchaDataLoaders.from_synth
from captcha_fastai.core import CaptchaError, ImageError, ModelError, Spec
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.synth import Synth, digits
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.modelfile import load_reader, save_model
from captcha_fastai.ship.graph import without_notes
from captcha_fastai.ship.onnx import check_float, check_int8, export_onnx, sample_images
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import archs, make_model, model_reader

root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'benchmarks'))
from fuzz import mutated


def untrained(arch, height=35, width=99, **arch_args):
    spec = Spec(digits, 4, height, width, arch=arch, arch_args=arch_args, decoder=archs[arch].decoder)
    return SimpleNamespace(model=make_model(spec), spec=spec)


@pytest.mark.parametrize('arch, args', [*((o, {}) for o in archs), ('conv_small', dict(context=True))])
def test_every_architecture_answers_as_in_torch_for_any_batch_size(arch, args, tmp_path):
    learn = untrained(arch, **args)
    assert export_onnx(learn, tmp_path/'m.onnx') == str(tmp_path/'m.onnx')
    assert learn.model.training, 'it is left as it was'
    reader, captcha = load_reader(tmp_path/'m.onnx'), sample_images(learn.spec, 1)[0]
    assert reader.spec == learn.spec
    for private in ('File "', str(Path(torch.__file__).parent.parent), str(root)):
        assert private.encode() not in (tmp_path/'m.onnx').read_bytes(), 'it says nothing of this machine'
    for n in (1, 3): assert np.allclose(reader.logp([captcha]*n), model_reader(learn.model, learn.spec).logp([captcha]*n), atol=1e-3 if learn.spec.arch == 'crnn_base' else 1e-4)


def test_notes_are_taken_out_of_functions_and_inner_graphs_too():
    notes = dict(doc_string='File "x.py"')
    node = onnx.helper.make_node('Relu', ['a'], ['b'], **notes)
    node.metadata_props.add(key='trace', value='File "y.py"')
    graph = onnx.helper.make_graph([node], 'inner', [], [], **notes)
    function = onnx.helper.make_function('own', 'f', ['a'], ['b'], [node], [onnx.helper.make_opsetid('', 18)])
    outer = onnx.helper.make_graph([onnx.helper.make_node('If', ['c'], ['d'], then_branch=graph, else_branch=graph)], 'outer', [], [])
    model = onnx.helper.make_model(outer, functions=[function], **notes)
    without_notes(model)
    assert b'File "' not in model.SerializeToString()


@pytest.mark.parametrize('arch', archs)
def test_a_file_declares_the_operations_it_uses_and_no_others(arch, tmp_path):
    export_onnx(untrained(arch), tmp_path/'m.onnx')
    model = onnx.load(tmp_path/'m.onnx')
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)] and model.ir_version == 8
    onnx.checker.check_model(model)


@pytest.mark.parametrize('arch', ['crnn_tiny', 'conv_small'])
def test_the_same_model_gives_the_same_bytes(arch, tmp_path):
    learn = untrained(arch)
    files = [Path(export_onnx(learn, tmp_path/f'{o}.onnx')).read_bytes() for o in 'ab']
    assert files[0] == files[1]


def test_width_is_free_where_columns_are_steps(tmp_path):
    learn = untrained('crnn_tiny')
    export_onnx(learn, tmp_path/'m.onnx')
    steps = learn.model(torch.zeros(2, 1, 35, 64)).shape[1]
    assert load_reader(tmp_path/'m.onnx').model(np.zeros((2, 1, 35, 64), np.float32)).shape == (2, steps, 11)


def test_a_model_with_its_specification_is_exported_too(tmp_path):
    learn = untrained('crnn_tiny')
    export_onnx(learn.model, tmp_path/'m.onnx', spec=learn.spec)
    assert load_reader(tmp_path/'m.onnx').spec == learn.spec
    with pytest.raises(CaptchaError, match='give the spec of the model'): export_onnx(learn.model, tmp_path/'m.onnx')


def test_8_bits_of_an_untrained_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match='m.onnx: not written: 0 images that it reads are too few'): export_onnx(untrained('crnn_tiny'), tmp_path/'m.onnx', int8=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A model that has learned two symbols, validation images, and both kinds of file"
    set_seed(1, reproducible=True)
    dls = CaptchaDataLoaders.from_synth('OX', length=2, n=200, n_valid=60, synth_size=(32, 64), channels=1, batch_tfms=[], bs=20)
    learn = captcha_learner(dls, arch_args=dict(widths=(8, 16, 24, 24, 32), hidden=32))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(20, 6e-3)
    captchas, folder = dls.valid_captchas, tmp_path_factory.mktemp('onnx')
    o = SimpleNamespace(learn=learn, images=[o.image for o in captchas], labels=[o.text for o in captchas], float=folder/'float.onnx', int8=folder/'int8.onnx')
    for path in (o.float, o.int8): export_onnx(learn, path, path == o.int8, o.images, o.labels)
    return o


def test_8_bits_are_smaller_and_read_the_same(trained):
    assert trained.int8.stat().st_size < trained.float.stat().st_size/2
    theirs = [o.text for o in model_reader(trained.learn.model, trained.learn.spec).read_many(trained.images)]
    for path in (trained.float, trained.int8): assert [o.text for o in load_reader(path).read_many(trained.images)] == theirs
    model = onnx.load(trained.int8)
    assert {n.domain for n in model.graph.node} == {o.domain for o in model.opset_import} == {'', 'com.microsoft'}                      # DynamicQuantizeLSTM


def test_the_same_images_give_the_same_bytes_in_8_bits(trained, tmp_path):
    export_onnx(trained.learn, tmp_path/'m.onnx', True, trained.images, trained.labels)
    assert (tmp_path/'m.onnx').read_bytes() == trained.int8.read_bytes()


def test_answers_that_are_much_worse_are_refused(trained):
    spec, reader = trained.learn.spec, load_reader(trained.int8)
    logp = reader.logp(trained.images)
    right = np.mean([r.text == t for r, t in zip(reader.read_many(trained.images), trained.labels)])
    with pytest.raises(ModelError, match=f'accuracy falls by {right:.1%} on 60 images, not 1.0%'): check_int8(np.roll(logp, 1, -1), logp, spec, trained.labels, .01)
    with pytest.raises(ModelError, match='are these their labels'): check_int8(logp, logp, spec, ['OOO']*60, .01)
    with pytest.raises(ModelError, match='differ from torch by'): check_float(logp-.001, logp, spec)
    with pytest.raises(ModelError, match='differ from torch by nan'): check_float(logp*np.nan, logp, spec)


@pytest.mark.parametrize('few, why', [(dict(images=10), 'm.onnx: not written: 10 images that it reads are too few'), (dict(images=30, labels=2), '30 images but 2 labels')])
def test_a_refused_export_leaves_the_file_that_was_there(trained, tmp_path, few, why):
    (tmp_path/'m.onnx').write_text('before')
    labels = trained.labels[:few['labels']] if 'labels' in few else None
    with pytest.raises(CaptchaError, match=why): export_onnx(trained.learn, tmp_path/'m.onnx', True, trained.images[:few['images']], labels)
    assert [(o.name, o.read_text()) for o in tmp_path.iterdir()] == [('m.onnx', 'before')]


@pytest.mark.parametrize('images, why', [([], '0 of 0 images can be read'), (['gone.png'], '0 of 1 images can be read')])
def test_an_export_without_a_readable_image_is_refused(trained, tmp_path, images, why):
    with pytest.raises(ImageError, match=why): export_onnx(trained.learn, tmp_path/'m.onnx', images=images)


def test_unreadable_check_images_are_left_out(trained, tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        export_onnx(trained.learn, tmp_path/'m.onnx', True, [*trained.images, b'torn'], np.array([*trained.labels, 'OX']))
    assert any('1 of 61 images cannot be read' in str(o.message) for o in said)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "One model in both kinds of file, and images of several sizes"
    d = tmp_path_factory.mktemp('reader')
    spec = Spec('0123456789', max_len=4, height=32, width=80, arch='crnn_tiny', temperature=1.3, threshold=.2)
    learn = SimpleNamespace(model=make_model(spec), spec=spec)
    with torch.no_grad(): learn.model.head.weight *= 60               # untrained, but with opinions: images must not be mixed up unnoticed
    save_model(learn, d/'m.safetensors')
    export_onnx(learn, d/'m.onnx')
    for i, size in enumerate([(32, 80), (40, 90), (60, 160)]): Synth('0123456789', 4, size=size)(i)[1].save(d/f'{i}.png')
    files = SimpleNamespace(safetensors=d/'m.safetensors', onnx=d/'m.onnx', images=sorted(d.glob('*.png')))
    a, b, c = (summary(load_reader(files.safetensors)(o)) for o in files.images)
    assert a != b != c != a
    return files


def summary(r): return [r.text, *np.round([r.confidence, *r.chars], 4).tolist(), r.accepted, len(r.nbest), [t for t, _ in r.nbest]]


rules = dict(nbest=3, length='3-4', pattern=r'[0-5]\d{2,3}', min_confidence=.01)


def test_reads_without_a_framework_as_with_one(files):
    code = f'''import sys, json
for o in ('torch', 'torchvision', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba', 'onnx', 'safetensors', 'captcha'): sys.modules[o] = None
from captcha_fastai.read.reader import Reader
reader = Reader.from_onnx({str(files.onnx)!r})
images = {[str(o) for o in files.images]!r}
read = [reader(images[0]), *reader.read_many(images), *reader.read_many(images, **{rules!r})]
print(json.dumps([[r.text, [r.confidence, *r.chars], r.accepted, [t for t, _ in r.nbest]] for r in read]))'''
    out = subprocess.run([sys.executable, '-c', code], check=True, cwd=root, capture_output=True, text=True).stdout
    reader = load_reader(files.safetensors)
    read = [reader(files.images[0]), *reader.read_many(files.images), *reader.read_many(files.images, **rules)]
    want = [[r.text, pytest.approx([r.confidence, *r.chars], abs=1e-4), r.accepted, [t for t, _ in r.nbest]] for r in read]
    assert json.loads(out) == want and len(read) == 2*len(files.images) + 1


def test_every_kind_of_input_is_the_same_image(files):
    reader, path = Reader.from_onnx(files.onnx), files.images[0]
    data, im = path.read_bytes(), Image.open(path)
    text = base64.b64encode(data).decode()
    for src in (str(path), data, bytearray(data), io.BytesIO(data), text, f'data:image/png;base64,{text}', im, np.asarray(im)):
        assert summary(reader(src)) == summary(reader(path))


def test_one_session_serves_many_threads(files):
    reader = Reader.from_onnx(files.onnx)
    alone = [summary(reader(p)) for p in files.images]
    with ThreadPoolExecutor(8) as ex: together = list(ex.map(lambda p: summary(reader(p)), files.images*40))
    assert together == alone*40


@pytest.mark.parametrize('kind', ['safetensors', 'onnx'])
def test_mutated_model_files_are_refused(files, kind, tmp_path):
    whole, bad, refused = getattr(files, kind).read_bytes(), tmp_path/f'bad.{kind}', 0
    for i in range(60):
        case = mutated(whole, random.Random(i))
        bad.write_bytes(case)
        try: load_reader(bad)(files.images[0])
        except CaptchaError as e:
            assert str(bad) in str(e)
            refused += 1
        else: assert case == whole or kind == 'safetensors'
    assert refused > 50


# In a browser

NODE = '''import {decoded, resized, specOf, turned} from './reader.mjs';
import {readFileSync} from 'node:fs';
const given = JSON.parse(readFileSync('given.json'));
const spec = specOf(new Uint8Array(readFileSync('m.onnx')));
const small = turned(resized(turned(resized(given.image, given.width)), given.height)).map(o => Array.from(o));
const texts = given.logp.map(o => decoded(Float32Array.from(o.flat()), {...spec, temperature: 1, decoder: given.decoder}));
console.log(JSON.stringify({spec, small, texts}));'''


@pytest.mark.skipif(not shutil.which('node'), reason='no Node')
@pytest.mark.parametrize('decoder, says', [('ctc', '122'), ('heads', '1122')])
def test_the_browsers_reader_does_what_ours_does(files, tmp_path, decoder, says):
    shutil.copy(root/'nbs'/'tutorials'/'browser'/'reader.js', tmp_path/'reader.mjs')
    shutil.copy(files.onnx, tmp_path/'m.onnx')
    spec = Reader.from_onnx(files.onnx).spec
    image = np.random.default_rng(0).integers(0, 256, (37, 90)).astype(np.uint8)
    ids = [spec.vocab.stoi[c] if c else 0 for c in ('1', '1', '2', '', '2')]
    logp = np.log(np.eye(len(spec.vocab))[ids]*.9 + .1/len(spec.vocab))
    given = dict(image=image.tolist(), width=50, height=60, decoder=decoder, logp=[logp.tolist()])
    (tmp_path/'given.json').write_text(json.dumps(given))
    (tmp_path/'try.mjs').write_text(NODE)
    out = json.loads(subprocess.run(['node', 'try.mjs'], cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
    assert Spec.from_json(json.dumps(out['spec'])) == spec
    ours = np.asarray(Image.fromarray(image).resize((50, 60), Image.Resampling.BILINEAR))
    assert np.abs(np.array(out['small']) - ours).max() <= 1
    assert out['texts'][0]['text'] == says and out['texts'][0]['confidence'] == pytest.approx(np.exp(logp.max(-1)).prod(), rel=1e-4)
