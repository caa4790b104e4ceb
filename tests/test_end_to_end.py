"What a user does, as a user does it"
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from captcha_fastai.core import ImageError, LabelError
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders, untar_captchas
from captcha_fastai.draw.synth import Synth, write_synth

root = Path(__file__).resolve().parent.parent
scripts = Path(sys.executable).parent
real = Path(os.environ.get('CAPTCHA_DATA') or root.parent/'shared'/'data'/'captcha_images_v2')


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    "48 small captchas, labels in their names and in a table"
    d = tmp_path_factory.mktemp('data')
    table = write_synth(d/'table', 48, Synth('OX7', length=(2, 3), size=(24, 48), seed=1))
    (d/'names').mkdir()
    for p, l in zip(*labelled(table)): shutil.copy(p, d/'names'/f'{l}_{p.name}')
    return d


@pytest.fixture
def sh(monkeypatch, capfd):
    "Run an installed command in this process: (standard output, standard error)"
    def run(*args, cwd, rc=0):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, 'argv', list(map(str, args)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as e: runpy.run_path(str(scripts/args[0]), run_name='__main__')
        out, err = capfd.readouterr()
        assert (e.value.code or 0) == rc, out + err
        assert 'Traceback' not in err, err
        return out, err
    return run


def test_train_evaluate_read(sh, data, tmp_path):
    out, _ = sh('captcha-train', data/'names', '--label', 'prefix', '--epochs', 2, cwd=tmp_path)
    assert re.search(r'captchas +[\d.]+% \(\d+/10, 95 % interval', out) and 'captcha-read model.safetensors' in out
    report = json.loads(sh('captcha-evaluate', 'model.safetensors', data/'table', '--json', cwd=tmp_path)[0])
    assert report['n'] == 48 and 0 <= report['accuracy'] <= 1 and len(report['by_position']) == 3
    images = sorted((data/'names').iterdir())[:3]
    lines = sh('captcha-read', 'model.safetensors', *images, cwd=tmp_path)[0].splitlines()
    assert [l.split('\t')[0] for l in lines] == [str(p) for p in images]


def test_killed_training_resumes_to_the_same_weights(sh, data, tmp_path):
    args = ['captcha-train', data/'table', '--epochs', '6', '--bs', '12']
    sh(*args, '--out', 'whole.safetensors', cwd=tmp_path)
    p = subprocess.Popen([scripts/args[0], *map(str, args[1:]), '--out', 'killed.safetensors'], cwd=tmp_path, stdout=subprocess.DEVNULL)
    log, until = tmp_path/'killed'/'log.csv', time.time() + 120
    while time.time() < until and p.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2): time.sleep(.02)
    p.send_signal(signal.SIGKILL); p.wait()
    done = len(log.read_text().splitlines()) - 1
    assert done >= 2
    err = sh(*args, '--out', 'killed.safetensors', '--resume', '--seed', '7', cwd=tmp_path, rc=2)[1]
    assert 'data and split' in err, 'another split would measure on images that were trained on'
    sh(*args, '--out', 'killed.safetensors', '--resume', cwd=tmp_path)
    assert pd.read_csv(log).epoch.tolist() == list(range(6))
    whole, resumed = (load_file(tmp_path/f'{o}.safetensors') for o in ('whole', 'killed'))
    assert all((whole[k] == resumed[k]).all() for k in whole)


def test_interrupt_says_so(data, tmp_path):
    p = subprocess.Popen([scripts/'captcha-train', data/'table', '--epochs', '100'], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))           # tests started in the background ignore it
    until = time.time() + 120
    while time.time() < until and p.poll() is None and not (tmp_path/'model'/'last.ckpt').exists(): time.sleep(.05)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 130 and 'captcha-train: interrupted' in err and 'Traceback' not in err
    assert not (tmp_path/'model.safetensors').exists()


def test_wrong_input_is_one_line(sh, data, tmp_path):
    (tmp_path/'empty').mkdir()
    (tmp_path/'labels.csv').write_text('name,label\n')
    (tmp_path/'broken').mkdir()
    for i in range(3): (tmp_path/'broken'/f'ab{i}.png').write_bytes(b'\x89PNG\r\n')
    (tmp_path/'notamodel.safetensors').write_bytes(b'nothing')
    for args, why in [(('captcha-train', 'empty'), 'no images in it'), (('captcha-train', 'labels.csv'), 'no labels in it'),
                      (('captcha-train', 'broken'), 'none of the first 3 images can be read'),
                      (('captcha-train', data/'table', '--chars', 'OX'), "has '7', which is not in the alphabet 'OX'"),
                      (('captcha-train', data/'table', '--arch', 'gpt'), 'choose from multi_head'),
                      (('captcha-train', data/'table', '--valid-pct', '1.5'), 'valid_pct is 1.5'),
                      (('captcha-train', data/'table', '--resume'), 'nothing to resume'),
                      (('captcha-train', data/'names', '--label', '('), 'no regular expression'), (('captcha-train', data/'table', '--epochs', '0'), 'must be above 0'),
                      (('captcha-generate', 'x', '--chars', '天地'), "cannot draw '天地'"),
                      (('captcha-evaluate', 'notamodel.safetensors', data/'table'), 'not a readable safetensors file')]:
        err = sh(*args, cwd=tmp_path, rc=2)[1]
        assert why in err and len(err.strip().splitlines()) == 1, err


def test_mixed_folder_of_modes_and_sizes(tmp_path):
    "One set of L, RGB, RGBA, P, CMYK and 16-bit files of two sizes, and a label in Chinese"
    for i, (mode, ext) in enumerate([('L', 'png'), ('RGB', 'jpg'), ('RGBA', 'png'), ('P', 'gif'), ('CMYK', 'jpg'), ('I;16', 'png'), ('1', 'bmp'), ('RGB', 'webp')]):
        Image.new('L', (60+20*(i == 3), 30), 40*(i % 5)).convert(mode if mode != 'I;16' else 'I').convert(mode).save(tmp_path/f'{"天地玄黄aBc0"[i:]}.{ext}')
    dls = CaptchaDataLoaders.from_folder(tmp_path, fold=True, bs=4)
    assert dls.spec.chars == ''.join(sorted('天地玄黄abc0')) and dls.spec.max_len == 8 and dls.spec.width == 60
    assert dls.one_batch()[0].shape == (4, dls.spec.channels, 30, 60)


def test_label_too_long_and_numbers_are_refused(data):
    images, labels = labelled(data/'table')
    with pytest.raises(LabelError, match='at most 2 fit'): CaptchaDataLoaders.from_lists(images, labels, max_len=2)
    with pytest.raises(LabelError, match='leading zeros are lost'): CaptchaDataLoaders.from_lists(images, [7]*len(images))
    with pytest.raises(ImageError, match='at least two'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        CaptchaDataLoaders.from_lists([images[0], 'gone.png'], ['OX', 'OO'])


@pytest.mark.skipif(not real.is_dir(), reason='the public images are not here')
def test_the_public_set(monkeypatch):
    monkeypatch.setenv('CAPTCHA_DATA', str(real))
    dls = CaptchaDataLoaders.from_folder(untar_captchas())
    assert (dls.spec.chars, dls.spec.max_len, dls.spec.height, dls.spec.width, dls.spec.channels) == ('2345678bcdefgmnpwxy', 5, 50, 200, 1)


def test_public_set_without_a_network(tmp_path):
    code = "from captcha_fastai.all import *\ntry: untar_captchas()\nexcept CaptchaError as e: print(e)"
    env = {**os.environ, 'FASTAI_HOME': str(tmp_path), 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9'}
    env.pop('CAPTCHA_DATA', None)
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True).stdout
    out = out.replace('█', '').strip()  # fastprogress announces a bar
    assert 'set CAPTCHA_DATA to a folder' in out and len(out.splitlines()) == 1


def test_six_lines_of_the_readme(data, tmp_path, monkeypatch):
    code = re.search(r'```python\n(.*?load_reader.*?)```', (root/'README.md').read_text(encoding='utf-8'), re.S)[1]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data/'table', 'my_captchas')
    shutil.copy(next(Path('my_captchas').glob('*.png')), 'new.png')
    code = code.replace('fit_one_cycle(default_epochs(len(dls.train_ds))', 'fit_one_cycle(1')
    assert 'fit_one_cycle(1' in code
    scope = {}
    exec(code, scope)
    assert Path('captcha.safetensors').exists()
