"A reader without a training framework, and files that mean harm"
import base64
import io
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from captcha_fastai.core import CaptchaError, Spec
from captcha_fastai.read.images import image_formats, open_image
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.modelfile import load_reader, save_model
from captcha_fastai.ship.onnx import export_onnx
from captcha_fastai.train.models import make_model
from captcha_fastai.read.onnxfile import open_onnx, seal
from captcha_fastai.draw.synth import Synth

root = Path(__file__).resolve().parent.parent
sys.path.append(str(root/'benchmarks'))
from fuzz import mutated, with_crc


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


def test_reads_without_a_framework(files):
    code = f'''import sys, json
for o in ('torch', 'torchvision', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba', 'onnx', 'safetensors', 'captcha'): sys.modules[o] = None
from captcha_fastai.read.reader import Reader
reader = Reader.from_onnx({str(files.onnx)!r})
images = {[str(o) for o in files.images]!r}
read = [reader(images[0]), *reader.read_many(images), *reader.read_many(images, **{rules!r})]
print(json.dumps([[r.text, *[round(o, 4) for o in (r.confidence, *r.chars)], r.accepted, len(r.nbest), [t for t, _ in r.nbest]] for r in read]))'''
    out = subprocess.run([sys.executable, '-c', code], check=True, cwd=root, capture_output=True, text=True).stdout
    reader = load_reader(files.safetensors)
    assert json.loads(out) == [summary(r) for r in [reader(files.images[0]), *reader.read_many(files.images), *reader.read_many(files.images, **rules)]]


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


@pytest.mark.parametrize('content, why', [(b'', 'not a whole ONNX file'), (b'PK\x03\x04'*100, 'not a whole ONNX file'), (seal(b''), 'cannot open it|holds no captcha_fastai model'),
                                          (seal(b'\x08\x09'*50), 'cannot open it|holds no'), (seal(b'\xff'*99), 'safe to open')])
def test_odd_onnx_files_are_refused(content, why, tmp_path):
    (tmp_path/'m.onnx').write_bytes(content)
    with pytest.raises(CaptchaError, match=f'm.onnx: .*({why})'): open_onnx(tmp_path/'m.onnx')


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(image_formats), st.integers(0, 10**9))
def test_mutated_images_are_read_or_refused(fmt, seed):
    b = io.BytesIO()
    Image.effect_noise((40, 20), 50).convert('RGB').save(b, fmt)
    case = mutated(b.getvalue(), random.Random(seed))
    try: open_image(with_crc(case) if fmt == 'PNG' and seed % 2 else case)
    except CaptchaError: pass


def test_a_bomb_is_refused_before_it_is_decoded():
    b = io.BytesIO()
    Image.new('1', (5000, 5000)).save(b, 'PNG')
    with pytest.raises(CaptchaError, match='<bytes>: 5000x5000 pixels: from 1 to'): open_image(b.getvalue())


def test_long_texts_are_no_images_and_said_so_at_once():
    for text in ('A' + '\n'*200_000 + '!', 'A'*500_000, '-_'*1000):
        with pytest.raises(CaptchaError) as e: open_image(text)
        assert len(str(e.value)) < 1000
