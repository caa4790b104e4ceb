"From images to texts, without a training framework"
import base64
import io
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captcha_fastai.core import CaptchaError, ImageError, Spec, accept_none
from captcha_fastai.read import Reader as front_door, reader as module
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.read.ctc import exact, text_logp
from captcha_fastai.read.reader import Reader, Reading, foreign_length, one_by_one, readings, soften

root = Path(__file__).resolve().parent.parent
model_file = root/'tests'/'data'/'version_0_1_crnn_tiny.onnx'


def halves(x):
    "b if a half is bright, a if it is dark"
    bright = x[:, 0].reshape(len(x), x.shape[2], 2, -1).mean((1, 3)) > 0
    return np.log(np.where(bright[..., None], [.02, .08, .9], [.02, .9, .08]))


@pytest.fixture
def reader(): return Reader(halves, Spec('ab', max_len=2, height=4, width=8, decoder='heads'))


@pytest.fixture
def im():
    "Its right half is bright"
    im = Image.new('L', (8, 4))
    im.paste(255, (4, 0, 8, 4))
    return im


def always(logp, spec):
    "A reader that is always told the same"
    return Reader(lambda x: logp[None].repeat(len(x), 0), spec)


black = np.zeros((4, 4), np.uint8)


def test_the_readers_front_door_is_the_package(): assert front_door is Reader


def test_an_image_is_read(reader, im):
    r = reader(im)
    assert (str(r), r.text, r.name, r.error, r.accepted, r.nbest) == ('ab', 'ab', '<Image>', None, True, (('ab', r.confidence),))
    assert [r.confidence, *r.chars] == pytest.approx([.81, .9/.98, .9/.98])
    assert repr(reader) == 'Reader(crnn_small, 2 characters, up to 2 long)'


def test_characters_are_computed_when_they_are_looked_at(reader, im):
    one, (many, _) = reader(im), reader.read_many([im, im])
    assert 'chars' not in vars(one) and 'chars' in vars(many)
    assert one == many and 'chars' in vars(one) and '_later' not in vars(one)


def test_a_pickled_reading_does_not_hold_what_the_model_said(reader, im):
    fresh, r = reader(im), reader(im)
    assert not hasattr(fresh, 'nothing')
    assert len(pickle.dumps(fresh)) < 600
    assert [fresh, pickle.loads(pickle.dumps(fresh))] == [r, r]


def test_an_image_that_cannot_be_opened_is_an_error_or_has_one(reader, im):
    good, bad, last = reader.read_many([im, 'gone.png', im])
    assert (good.text, bad.error, last.text) == ('ab', 'gone.png: no such file', 'ab')
    assert bad == Reading('', 0., (), 'gone.png', 'gone.png: no such file', False)
    assert [r.error for r in reader.read_many(['gone.png']*3, bs=2)] == ['gone.png: no such file']*3
    with pytest.raises(ImageError, match='gone.png'): reader('gone.png')


@pytest.mark.parametrize('one', ['folder', Path('folder'), b'GIF89a', bytearray(b'x'), Image.new('L', (8, 4)), np.zeros((4, 8), np.uint8), np.zeros((4, 8, 3), np.uint8)])
def test_one_image_instead_of_a_list_is_refused(reader, one):
    with pytest.raises(CaptchaError, match='takes a list of images'): reader.read_many(one)


@pytest.mark.parametrize('one', [torch.zeros(4, 8), torch.zeros(1, 4, 8), torch.zeros(3, 4, 8)])
def test_one_tensor_instead_of_a_list_is_refused(reader, one):
    with pytest.raises(CaptchaError, match='takes a list of images'): reader.read_many(one)


def test_a_batch_of_tensors_is_a_list(reader, im):
    batch = torch.from_numpy(np.asarray(im))[None, None].repeat(3, 1, 1, 1)
    assert [r.text for r in reader.read_many(batch)] == ['ab']*3 and reader(batch[0]).text == 'ab'


def test_arrays_of_opencv_are_read_in_their_order():
    reader = Reader(halves, Spec('ab', max_len=2, height=4, width=8, channels=3, decoder='heads'))        # looks at red
    rgb = np.zeros((4, 8, 3), np.uint8)
    rgb[:, 4:, 0] = 255
    bgr = rgb[..., ::-1]
    assert [reader(rgb).text, reader(bgr).text, reader(bgr, channel_order='bgr').text] == ['ab', 'aa', 'ab']
    assert [r.text for r in reader.read_many([bgr, Image.fromarray(rgb), 'gone.png'], channel_order='bgr')] == ['ab', 'ab', '']
    with pytest.raises(CaptchaError, match="channel_order is 'BGR'"): reader(bgr, channel_order='BGR')


def test_a_reader_opens_images_as_its_specification_says(im):
    deep = np.asarray(im).astype(np.uint16)*16
    spec = Spec('ab', max_len=2, height=4, width=8, decoder='heads')
    assert [Reader(halves, replace(spec, bits=o))(deep).text for o in (16, 12)] == ['aa', 'ab']


def test_an_array_of_images_is_a_list():
    assert len([*one_by_one(np.zeros((5, 4, 8), np.uint8))]) == 5 and len([*one_by_one(np.zeros((5, 4, 8, 3), np.uint8))]) == 5


@pytest.mark.parametrize('bs', [1, 2, 5, 64])
def test_any_number_of_images_is_read_in_order(reader, im, bs):
    images = [im, Image.new('L', (8, 4)), Image.new('L', (8, 4), 255)]*2
    assert [r.text for r in reader.read_many(iter(images), bs=bs)] == ['ab', 'aa', 'bb']*2
    assert reader.read_many([]) == []


def test_options_that_make_no_sense_are_refused(reader, im):
    with pytest.raises(CaptchaError, match='bs is 0'): reader.read_many([im], bs=0)
    with pytest.raises(CaptchaError, match='fits into the 2 steps'): reader(im, length=3)
    with pytest.raises(TypeError): reader(im, lenght=2)
    c = Constraint(reader.vocab, alphabet='b')
    with pytest.raises(CaptchaError, match='constraint and length are given'): reader(im, constraint=c, length=2)


@pytest.mark.parametrize('wrong', ['0.9', -1, 1.01, 1.99, 3, float('nan')])
def test_a_confidence_that_is_no_share_is_refused(wrong):
    logp = np.log(np.full((1, 3, 4), .25))
    with pytest.raises(CaptchaError, match='min_confidence is .*: give a share from 0 to 1, or 2 to accept none'): readings(logp, Spec('abc', max_len=2), [''], min_confidence=wrong)


def test_what_is_known_goes_into_the_call(reader, im):
    r = reader(im, nbest=2, pattern='[ab]a')
    assert (r.text, [t for t, _ in r.nbest]) == ('aa', ['aa', 'ba'])
    assert reader(im, constraint=Constraint(reader.vocab, pattern='[ab]a')).text == 'aa'


def test_a_reading_is_accepted_from_a_confidence_on(reader, im):
    assert [reader(im, fold=True, min_confidence=p).accepted for p in (0, .8, .82, .9, accept_none)] == [True, True, False, False, False]
    strict = Reader(halves, Spec('ab', max_len=2, height=4, width=8, decoder='heads', threshold=.9))
    assert not strict(im).accepted and strict(im, min_confidence=.5).accepted


def test_a_reading_that_is_impossible_is_empty():
    "A constraint that fits in principle but has probability 0 in one image"
    lp = np.full((2, 3), -np.inf)
    lp[:, 1] = 0.
    r = always(lp, Spec('ab', 2, height=4, width=4))(black, alphabet='b', length=1)
    assert (r.text, r.confidence, r.chars, r.accepted, r.nbest) == ('', 0., (), False, ())


def test_a_reader_that_ignores_case_takes_rules_in_any_case():
    folded = always(np.log([[.01, .29, .3, .4]]), Spec('abc', 1, height=4, width=4, fold=True))
    assert folded(black, lexicon=['A', 'C']).text == folded(black, pattern='[A-C]').text == 'c'


def test_a_temperature_keeps_probabilities():
    z = np.random.default_rng(0).normal(size=(3, 5, 4))*2
    lp = z - np.logaddexp.reduce(z, -1, keepdims=True)
    assert soften(lp, 1) is lp
    assert np.allclose(np.exp(soften(lp, 3.)).sum(-1), 1) and np.allclose(soften(soften(lp, 4.), .25), lp)
    assert np.isfinite(exact(lp, np.arange(3), np.ones((3, 1), int), np.ones(3, int), True)).all()


def test_the_specifications_temperature_is_used(im):
    cool, hot = (Reader(halves, Spec('ab', max_len=2, height=4, width=8, decoder='heads', temperature=t)) for t in (1., 2.))
    assert hot(im).text == cool(im).text and hot(im).confidence < cool(im).confidence


def test_a_reader_uses_machine_code_from_its_2000th_image_on(reader, im, monkeypatch):
    asked = []
    def spy(*args, fast, decode=module.decode, **kwargs): asked.append(fast); return decode(*args, **kwargs)
    monkeypatch.setattr(module, 'decode', spy)
    for n in (1000, 998): reader.read_many([im]*n, bs=n)
    for _ in range(2): reader(im)
    assert asked == [False, False, False, True] and reader.n_read == 2000
    other = Reader(halves, reader.spec)
    other(im)
    assert asked[-1] is False, 'each reader counts its own'


# With a model file of version 0.1

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    "Images of several sizes and their paths"
    d, rng = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for i, size in enumerate([(24, 64), (40, 90), (60, 160)]): Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(d/f'{i}.png')
    return sorted(d.glob('*.png'))


def summary(r): return [r.text, *np.round([r.confidence, *r.chars], 4).tolist(), r.accepted, len(r.nbest), [t for t, _ in r.nbest]]


rules = dict(nbest=3, length='3-4', pattern=r'[0-5]\d{2,3}', min_confidence=.01)


def test_it_reads_without_a_framework(images):
    code = f'''import sys, json
for o in ('torch', 'torchvision', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba', 'onnx', 'safetensors', 'captcha'): sys.modules[o] = None
from captcha_fastai.read import Reader
reader = Reader.from_onnx({str(model_file)!r})
images = {[str(o) for o in images]!r}
read = [reader(images[0]), *reader.read_many(images), *reader.read_many(images, **{rules!r})]
print(json.dumps([[r.text, *[round(o, 4) for o in (r.confidence, *r.chars)], r.accepted, len(r.nbest), [t for t, _ in r.nbest]] for r in read]))'''
    out = subprocess.run([sys.executable, '-c', code], check=True, cwd=root, capture_output=True, text=True).stdout
    reader = Reader.from_onnx(model_file)
    assert json.loads(out) == [summary(r) for r in [reader(images[0]), *reader.read_many(images), *reader.read_many(images, **rules)]]


def test_every_kind_of_input_is_the_same_image(images):
    reader, path = Reader.from_onnx(model_file), images[0]
    data, im = path.read_bytes(), Image.open(path)
    text = base64.b64encode(data).decode()
    for src in (str(path), data, bytearray(data), io.BytesIO(data), text, f'data:image/png;base64,{text}', im, np.asarray(im)):
        assert summary(reader(src)) == summary(reader(path))


def test_one_session_serves_many_threads(images):
    reader = Reader.from_onnx(model_file)
    alone = [summary(reader(p)) for p in images]
    with ThreadPoolExecutor(8) as ex: together = list(ex.map(lambda p: summary(reader(p)), images*40))
    assert together == alone*40


@pytest.mark.parametrize('seed', range(20))
def test_lengths_that_labels_had_are_a_prior(seed):
    "As computed from all texts there are"
    logp = np.log(np.random.default_rng(seed).dirichlet(np.ones(3)*.3, (1, 4)))
    spec = Spec('ab', max_len=2, min_len=2)
    texts = [''.join(o) for n in range(5) for o in product('ab', repeat=n)]
    ids = [spec.vocab.encode(o) for o in texts]
    weights = np.exp(text_logp(np.repeat(logp, len(ids), 0), ids, 'ctc'))*np.where([len(o) == 2 for o in texts], 1-foreign_length, foreign_length)
    p = weights/weights.sum()
    r, = readings(logp, spec, [''], nbest=3)
    best = np.argsort(-p)[:3]
    assert r.text == texts[best[0]] and np.allclose([o for _, o in r.nbest], p[best][:len(r.nbest)], atol=1e-6)
    assert r.accepted == (len(r.text) == 2)


def test_a_length_that_is_told_is_no_prior():
    logp = np.log([[[.02, .95, .03], [.99, .005, .005]]])
    spec = Spec('ab', max_len=2, min_len=2)
    r, = readings(logp, spec, [''])
    assert (r.text, r.accepted) == ('a', False)
    told, = readings(logp, spec, [''], constraint=Constraint(spec.vocab, length=1))
    assert told.text == 'a' and told.accepted and told.confidence > r.confidence

# In other processes

@pytest.mark.parametrize('method', ['spawn', 'fork'])
@pytest.mark.parametrize('source', [model_file, model_file.read_bytes()], ids=['path', 'bytes'])
def test_a_reader_goes_to_another_process(images, source, method):
    reader = Reader.from_onnx(source)
    reader.spec = replace(reader.spec, threshold=.5)
    with get_context(method).Pool(1) as pool: there = pool.map_async(reader, images).get(60)
    assert [summary(o) for o in there] == [summary(reader(o)) for o in images]


def test_a_pickled_reader_holds_the_path_of_its_file_not_its_weights(images, tmp_path, monkeypatch):
    monkeypatch.chdir(root/'tests')
    reader = Reader.from_onnx(Path('data')/model_file.name)
    data = pickle.dumps(reader)
    monkeypatch.chdir(tmp_path)
    assert len(data) < 5_000 and summary(pickle.loads(data)(images[0])) == summary(reader(images[0]))


def test_a_fork_refuses_to_wait_for_threads_that_it_lacks(images):
    code = f"""import multiprocessing, sys
from captcha_fastai.read import Reader
reader = Reader.from_onnx({str(model_file)!r}, threads=2)
reader({str(images[0])!r})
def read():
    try: print(reader({str(images[0])!r}))
    except ValueError as e: print(e, flush=True)
p = multiprocessing.get_context('fork').Process(target=read)
p.start()
p.join(60)
p.kill()"""
    out = subprocess.run([sys.executable, '-c', code], check=True, cwd=root, capture_output=True, text=True, timeout=120).stdout
    assert 'a fork has not copied its threads: open it here, or with threads=1' in out


@pytest.mark.parametrize('copied', [copy, deepcopy])
def test_a_closed_reader_reads_no_more_and_its_copies_do(images, copied):
    with Reader.from_onnx(model_file) as reader: other = copied(reader)
    for _ in range(2): reader.close()
    with pytest.raises(CaptchaError, match='this reader is closed'): reader(images[0])
    with pytest.raises(CaptchaError, match='this reader is closed'): reader.read_many(images)
    assert other(images[0]).nbest


def test_a_provider_that_this_onnxruntime_lacks_is_named(images):
    for providers in ('NoProvider', ['CPUExecutionProvider', 'NoProvider'], [('NoProvider', {})]):
        with pytest.raises(CaptchaError, match="cannot run on 'NoProvider': choose from .*CPUExecutionProvider"): Reader.from_onnx(model_file, providers)
    assert Reader.from_onnx(model_file, 'CPUExecutionProvider', threads=2)(images[0]).nbest
    with pytest.raises(CaptchaError, match='threads is -1'): Reader.from_onnx(model_file, threads=-1)
