"Each command as a user types it: what it writes, what it says, and one line for each wrong input"
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from captcha_fastai import cli, light
from captcha_fastai.core import CaptchaError, Spec
from captcha_fastai.draw.look import Look, save_looks
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.read.images import image_files, open_image
from captcha_fastai.read.reader import Reading
from captcha_fastai.recipes import tools, unlabelled
from captcha_fastai.recipes.reading import growing_table, reading_line, table_heading, table_row
from captcha_fastai.ship.modelfile import load_reader, save_model
from captcha_fastai.train.models import make_model

scripts = Path(sys.executable).parent
commands = [f for name, f in (vars(cli) | vars(light)).items() if name.startswith('captcha_') and callable(f)]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "60 captchas in `data`, one of them torn, 40 with one more character in `more`, 60 without labels in `pool`, and a model of `data`"
    d = tmp_path_factory.mktemp('home')
    write_synth(d/'data', 60, Synth('OX', 2, size=(32, 64)))
    write_synth(d/'more', 40, Synth('OX7', 2, size=(32, 64), seed=5))
    write_synth(d/'pool', 60, Synth('7OX', 2, size=(32, 64), seed=6)).unlink()
    cwd = os.getcwd()
    os.chdir(d)
    try: cli.captcha_train('data', out='m.safetensors', epochs=20)
    finally: os.chdir(cwd)
    (d/'data'/'torn.png').write_bytes(b'\x89PNG')
    with zipfile.ZipFile(d/'two.zip', 'w') as z:
        z.write(image_files(d/'data')[0], 'in/a.png')
        z.writestr('in/b.png', b'torn')
    save_looks(Look(), d/'looks.json')
    return d


@pytest.fixture
def few_rounds(monkeypatch):
    "Self-training of one short round"
    short = dict(round_steps=(10,), round_shares=(.9,), synthetic_epoch=64, synthetic_valid=8)
    monkeypatch.setattr(cli, 'Recipe', lambda **kwargs: cli_recipe(**{**short, **kwargs}))
    real = unlabelled.self_train
    monkeypatch.setattr(unlabelled, 'self_train', lambda *args, recipe, **kwargs: real(*args, recipe=cli_recipe(**{**vars(recipe), **short}), **kwargs))


cli_recipe = cli.Recipe


# What every command owes

@pytest.mark.parametrize('f', commands, ids=lambda f: f.__name__)
def test_a_command_has_at_most_twelve_options(f):
    options = [p for p in inspect.signature(f).parameters.values() if p.default is not p.empty]
    assert len(options) <= 12


@pytest.mark.parametrize('f', commands, ids=lambda f: f.__name__)
def test_every_option_is_explained(f):
    out = subprocess.run([scripts/f.__name__.replace('_', '-'), '--help'], capture_output=True, text=True, check=True).stdout
    assert out.startswith('usage:')
    for line in re.split(r'\n  (?=--|-h)', out.split('options:')[1])[1:]:
        name, *words = line.split()
        assert len(words) > 1, f'{name}: no help'


# What they write and say

def test_captchas_are_generated_in_a_style_that_was_found(sh, home):
    sh('captcha-generate', 'found', '--n', 4, '--chars', 'OX', '--length', 2, '--style', 'looks.json', '--height', 32, '--width', 64, '--workers', 2, cwd=home)
    assert len(image_files(home/'found')) == 4
    assert open_image(image_files(home/'found')[0]).size == (64, 32)


def test_a_font_is_given_with_the_style(sh, home):
    sh('captcha-generate', 'serif', '--n', 2, '--chars', 'OX', '--length', 2, '--style', 'simple:DejaVuSerif.ttf', cwd=home)
    sh('captcha-generate', 'plain', '--n', 2, '--chars', 'OX', '--length', 2, '--style', 'simple', cwd=home)
    serif, plain = (image_files(home/o)[0].read_bytes() for o in ('serif', 'plain'))
    assert serif != plain


def test_train_evaluate_read(sh, data, tmp_path):
    out, _ = sh('captcha-train', data/'names', '--label', 'prefix', '--epochs', 2, cwd=tmp_path)
    assert re.search(r'captchas +[\d.]+% \(\d+/10, 95 % interval', out) and 'captcha-read model.safetensors' in out
    report = json.loads(sh('captcha-evaluate', 'model.safetensors', data/'table', '--json', cwd=tmp_path)[0])
    assert report['n'] == 48 and 0 <= report['accuracy'] <= 1 and len(report['by_position']) == 3
    images = sorted((data/'names').iterdir())[:3]
    lines = sh('captcha-read', 'model.safetensors', *images, cwd=tmp_path)[0].splitlines()
    assert [l.split('\t')[0] for l in lines] == [str(p) for p in images]


def test_a_run_that_went_badly_says_what_would_help(sh, data, tmp_path):
    out, _ = sh('captcha-train', data/'table', '--epochs', 1, cwd=tmp_path)
    assert 'This reader is not good yet.' in out and '--style fit' in out and 'captcha-curve' in out


def test_a_broken_image_is_a_line_and_the_others_are_read(sh, home, tmp_path):
    out, err = sh('captcha-read', 'm.safetensors', 'data', '--csv', tmp_path/'read.csv', cwd=home, rc=1)
    why, summary = err.strip().splitlines()
    assert (out, why) == ('', f'captcha-read: {Path("data")/"torn.png"}: not an image of a known format (PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM)')
    assert '60 readings accepted' in summary and '1 could not be opened' in summary and 'read.csv' in summary
    assert len((tmp_path/'read.csv').read_text().splitlines()) == 62


def test_an_evaluation_ends_with_what_to_type_next(sh, home):
    out, _ = sh('captcha-evaluate', 'm.safetensors', 'data', '--length', 2, cwd=home)
    assert out.startswith('Read 60 images of data with m.safetensors.\n\ncaptchas ')
    assert 'captcha-read m.safetensors IMAGE... --length 2' in out


def test_generating_says_where_captchas_lie_and_what_to_type_next(sh, tmp_path):
    out, _ = sh('captcha-generate', 'two words', '--n', 2, cwd=tmp_path)
    assert 'Generated 2 captchas in the style simple.' in out and 'labels.csv' in out and "captcha-train 'two words'" in out


def test_reading_ends_with_a_line_on_standard_error(sh, home):
    out, err = sh('captcha-read', 'm.safetensors', image_files(home/'more')[0], '--min-confidence', 1, cwd=home)
    assert len(out.splitlines()) == 1 and len(err.splitlines()) == 1
    assert err.startswith('captcha-read: 0 of 1 readings accepted (confidence of 1.0000 or more); most are unsure: --length')
    assert 'captcha-evaluate m.safetensors FOLDER' in err


def test_evaluation_as_json(sh, home):
    assert json.loads(sh('captcha-evaluate', 'm.safetensors', 'data', '--json', cwd=home)[0])['n'] == 60


def test_training_chooses_a_threshold(home): assert load_reader(home/'m.safetensors').spec.threshold > 0


def test_fine_tuning_adds_characters(sh, home, tmp_path):
    sh('captcha-finetune', 'm.safetensors', 'more', '--out', tmp_path/'bigger.safetensors', '--epochs', 1, cwd=home)
    assert load_reader(tmp_path/'bigger.safetensors').spec.chars == 'ABCDEFGHIJKLMNOPQRSTUVWXYZ7'


def test_a_constraint_holds_in_every_line_and_what_is_less_sure_is_marked(sh, home):
    image = image_files(home/'data')[0]
    out, _ = sh('captcha-read', 'm.safetensors', image, '--length', 2, '--nbest', 3, '--min-confidence', 1, cwd=home)       # which none reaches
    name, *fields = out.strip().split('\t')
    assert (len(fields), fields[2]) == (7, 'unsure')
    assert all(len(t) == 2 for t in [fields[0], *fields[3::2]])


def test_an_exported_model_is_read_with_the_same_command_and_zip_files_too(sh, home):
    sh('captcha-export', 'm.safetensors', cwd=home)
    image = image_files(home/'data')[0]
    out, err = sh('captcha-read', 'm.onnx', image, 'two.zip', cwd=home, rc=1)
    assert err.splitlines()[0] == 'captcha-read: two.zip/in/b.png: not an image of a known format (PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM)'
    own, zipped = [l.split('\t')[1:] for l in out.splitlines()]
    assert own == zipped == sh('captcha-read', 'm.safetensors', image, cwd=home)[0].strip().split('\t')[1:]


def test_a_refiner_and_a_reader_from_refined_captchas(sh, home, tmp_path, few_rounds):
    refiner = tmp_path/'refiner.safetensors'
    sh('captcha-refine', 'pool', '--style', 'simple', '--chars', '7OX', '--length', 2, '--epochs', 2, '--width', 8, '--bs', 8, '--out', refiner, cwd=home)
    assert (tmp_path/'refiner'/'refined.png').read_bytes()[:4] == b'\x89PNG'
    sh('captcha-train-unlabelled', 'pool', '--style', refiner, '--arch', 'crnn_tiny', '--out', tmp_path/'blind.safetensors', '--epochs', 1,
       '--chars', '7OX', '--length', 2, cwd=home)
    assert load_reader(tmp_path/'blind.safetensors').spec.chars == '7OX'


@pytest.mark.parametrize('arch', ['crnn_small', 'digits_cnn'])
def test_self_training_after_a_few_labels(sh, home, tmp_path, few_rounds, arch):
    sh('captcha-train', 'more', '--arch', arch, '--epochs', 1, '--out', tmp_path/'few.safetensors', cwd=home)
    _, err = sh('captcha-selftrain', tmp_path/'few.safetensors', 'pool', '--data', 'more', '--out', tmp_path/'half.safetensors', cwd=home)
    assert 'round 1' in err and 'no batch norm' not in err
    spec = load_reader(tmp_path/'half.safetensors').spec
    assert spec.mean > .6 or arch == 'crnn_small'        # images are measured for a net without batch norm, and it keeps their scale


def test_a_curve_tries_synthetic_captchas_too(sh, home, tmp_path, monkeypatch):
    monkeypatch.setattr('captcha_fastai.judge.curve.default_epochs', lambda *_, **__: 1)
    out, _ = sh('captcha-curve', 'more', '--out', tmp_path/'curve', '--style', 'simple', cwd=home)
    assert [o.split(':')[0] for o in out.splitlines() if ' labels: ' in o] == ['synthetic first, 0 labels', 'synthetic first, 25 labels', 'labels alone, 25 labels']
    assert (tmp_path/'curve'/'curve.png').read_bytes()[:4] == b'\x89PNG'


def test_a_text_outside_the_console_encoding_is_printed(tmp_path):
    spec = Spec('日本', 1, 24, 48, arch='heads_small', decoder='heads')
    model = make_model(spec)
    with torch.no_grad(): model.head[-1].bias[1] += 100
    save_model(SimpleNamespace(model=model, spec=spec), tmp_path/'m.safetensors')
    Image.new('L', (48, 24)).save(tmp_path/'o.png')
    done = subprocess.run([scripts/'captcha-read', 'm.safetensors', 'o.png'], cwd=tmp_path, env={**os.environ, 'PYTHONIOENCODING': 'cp1252'}, capture_output=True)
    assert done.returncode == 0 and '日' in done.stdout.decode(), done.stderr


def test_names_that_are_not_utf8_are_written_all_the_same(tmp_path):
    with growing_table(tmp_path/'t.csv', ['name', 'text']) as write: write(['caf\udce9.png', 'ab'])
    assert (tmp_path/'t.csv').read_text() == 'name,text\ncaf\\udce9.png,ab\n'


def test_the_next_best_come_behind_the_first():
    r = Reading('k7m2', .93, name='a.png', accepted=False, nbest=(('k7m2', .93), ('k1m2', .05)))
    assert reading_line(r) == 'a.png\tk7m2\t93.0%\tunsure\tk1m2\t5.0%'
    assert table_row(r, 3) == ['a.png', 'k7m2', '0.9300', 0, '', 'k1m2', '0.0500', '', '']
    assert len(table_heading(3)) == len(table_row(r, 3))


def test_export_uses_as_many_images_as_it_is_told(tmp_path, monkeypatch):
    spec = Spec('OX', 2, 24, 48, arch='heads_small', decoder='heads')
    save_model(SimpleNamespace(model=make_model(spec), spec=spec), tmp_path/'m.safetensors')
    write_synth(tmp_path/'images', 21, Synth('OX', 2, size=(24, 48)))
    seen = []
    def export(net, out, int8, paths, labels, *_):
        seen.append((len(paths), len(set(paths)), len(labels)))
        out.touch()
    monkeypatch.setattr(tools, 'export_onnx', export)
    for n in (20, 200): cli.captcha_export(str(tmp_path/'m.safetensors'), images=str(tmp_path/'images'), label='stem', n=n)
    assert seen == [(20, 20, 20), (21, 21, 21)]


# Interrupted

def test_killed_training_resumes_to_the_same_weights(sh, data, tmp_path):
    args = ['captcha-train', data/'table', '--epochs', '6']
    sh(*args, '--out', 'whole.safetensors', cwd=tmp_path)
    p = subprocess.Popen([scripts/args[0], *map(str, args[1:]), '--out', 'killed.safetensors'], cwd=tmp_path, stdout=subprocess.DEVNULL)
    log, until = tmp_path/'killed'/'log.csv', time.time() + 120
    while time.time() < until and p.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2): time.sleep(.02)
    p.send_signal(signal.SIGKILL)
    p.wait()
    done = len(log.read_text().splitlines()) - 1
    assert done >= 2
    err = sh(*args, '--out', 'killed.safetensors', '--resume', '--seed', '7', cwd=tmp_path, rc=2)[1]
    assert 'data and split' in err, 'another split would measure on images that were trained on'
    sh(*args, '--out', 'killed.safetensors', '--resume', cwd=tmp_path)
    assert pd.read_csv(log).epoch.tolist() == list(range(6))
    whole, resumed = (load_file(tmp_path/f'{o}.safetensors') for o in ('whole', 'killed'))
    assert all((whole[k] == resumed[k]).all() for k in whole)


def test_with_nothing_to_resume_a_run_begins_anew_and_says_so(sh, data, tmp_path):
    args = ['captcha-train', data/'table', '--arch', 'crnn_tiny', '--epochs', '1', '--resume']
    assert 'm: nothing to resume: it begins anew' in sh(*args, '--out', 'm.safetensors', cwd=tmp_path)[1]
    assert (tmp_path/'m.safetensors').exists()


def started(*args, cwd, **kwargs):
    "A training in another process, once its first epoch is over"
    p = subprocess.Popen([scripts/'captcha-train', *map(str, args)], cwd=cwd, **kwargs)
    until = time.time() + 120
    while time.time() < until and p.poll() is None and not (cwd/'model'/'last.ckpt').exists(): time.sleep(.05)
    return p


def test_a_second_training_with_the_same_output_is_refused(sh, data, tmp_path):
    p = started(data/'table', '--arch', 'crnn_tiny', '--epochs', 100, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: err = sh('captcha-train', data/'table', cwd=tmp_path, rc=2)[1]
    finally:
        p.kill()
        p.wait()
    assert f'captcha-train: model: process {p.pid} on ' in err and 'writes to it' in err
    (tmp_path/'model'/'.last-abcd1234.ckpt').touch()
    sh('captcha-train', data/'table', '--arch', 'crnn_tiny', '--epochs', '1', cwd=tmp_path)
    assert sorted(o.name for o in (tmp_path/'model').iterdir()) == ['last.ckpt', 'log.csv']


def test_a_training_goes_on_when_nobody_listens_any_more(data, tmp_path):
    p = started(data/'table', '--arch', 'crnn_tiny', '--epochs', 30, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    p.stdout.close()
    assert p.wait(120) == 0 and (tmp_path/'model.safetensors').exists()


def test_interrupt_says_so(data, tmp_path):
    p = subprocess.Popen([scripts/'captcha-train', data/'table', '--epochs', '100'], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))           # tests started in the background ignore it
    until = time.time() + 120
    while time.time() < until and p.poll() is None and not (tmp_path/'model'/'last.ckpt').exists(): time.sleep(.05)
    p.send_signal(signal.SIGINT)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == 130 and 'captcha-train: interrupted' in err and 'Traceback' not in err
    assert not (tmp_path/'model.safetensors').exists()


# Wrong input: what is typed, what is said

WRONG = [
    # images and labels
    ('captcha-train nowhere', 'nowhere: no such folder'),
    ('captcha-train empty', 'no images in it'),
    ('captcha-train none.csv', 'no labels in it'),
    ('captcha-train broken', 'none of the first 3 images can be read'),
    ('captcha-train two.zip', 'two.zip: labels are read from a folder or a table: unpack it'),
    ('captcha-train data --chars O', "has 'X', which is not in the alphabet 'O'"),
    ('captcha-train names --label (', 'no regular expression'),
    ('captcha-train-unlabelled nowhere --chars OX --length 2', 'nowhere: no such file or folder'),
    ('captcha-train-unlabelled two.zip --chars OX --length 2', 'two.zip: 2 images: at least 20'),
    ('captcha-generate data --n 2', "data: holds 'torn.png', which was not generated here: give another folder"),
    # numbers
    ('captcha-train data --valid-pct 1.5', 'valid_pct is 1.5'),
    ('captcha-train data --epochs 0', 'must be above 0'),
    ('captcha-train data --lr 0', 'must be above 0'),
    ('captcha-train data --seed -1', 'seed is -1'),
    ('captcha-read m.safetensors data --length four', "length is 'four': give a number such as 4, or two such as 4-6"),
    ('captcha-read m.safetensors data --length 99', 'no text that the constraint allows fits into the 32 steps of the model'),
    ('captcha-selftrain m.safetensors pool --data more --length 2-6', '--length is 2-6: the model can learn 2 characters at most'),
    # names
    ('captcha-train data --arch gpt', 'choose from crnn_small'),
    ('captcha-train data --style gan', "style 'gan' is unknown: choose from fit, simple"),
    ('captcha-generate x --style baroque', "style 'baroque' is unknown: choose from fit, simple"),
    ('captcha-generate x --chars 天地', "cannot draw '天地'"),
    # files to write
    ('captcha-train data --out m.pkl', '--out is m.pkl: give a name that ends in .safetensors'),
    ('captcha-export m.safetensors --out m.pt', '--out is m.pt: give a name that ends in .onnx'),
    ('captcha-train more --out more.safetensors', 'where the images are: give --out another name'),
    ('captcha-refine more --out more.safetensors', 'where the images are: give --out another name'),
    ('captcha-curve more --out more', 'where the images are: give --out another name'),
    ('captcha-finetune m.safetensors data --out m.safetensors', 'give --out another name'),
    ('captcha-selftrain m.safetensors pool --out m.safetensors', 'give --out another name'),
    ('captcha-train data --out none.csv/m.safetensors', 'none.csv cannot be written to (it is a file): give --out another name'),
    ('captcha-export m.safetensors --out none.csv/m.onnx', 'none.csv cannot be written to (it is a file): give --out another name'),
    # model files
    ('captcha-read gone.safetensors a.png', 'gone.safetensors: no such file'),
    ('captcha-read gone.onnx a.png', 'gone.onnx: no such file'),
    ('captcha-export gone.safetensors', 'gone.safetensors: no such file'),
    ('captcha-read data a.png', 'data: not a readable safetensors file'),
    ('captcha-evaluate none.csv data', 'not a readable safetensors file'),
    ('captcha-finetune m.safetensors data --fold', 'tells upper from lower case'),
    # what is missing
    ('captcha-read m.safetensors', 'no images: give a model, then files or folders'),
    ('captcha-train-unlabelled pool', 'give the alphabet (--chars)'),
    ('captcha-selftrain m.safetensors pool', 'say how long texts are (--length 4, or 4-6)'),
    ('captcha-export m.safetensors --images two.zip --label stem', 'labels are read from a folder: unpack it'),
]


@pytest.fixture(scope='module')
def wrong(home):
    (home/'empty').mkdir()
    (home/'none.csv').write_text('name,label\n')
    for folder in ('broken', 'names'): (home/folder).mkdir()
    for i in range(3): (home/'broken'/f'ab{i}.png').write_bytes(b'\x89PNG\r\n')
    for i in range(4): Image.new('L', (64, 32)).save(home/'names'/f'ab{i}.png')
    return home


@pytest.mark.parametrize('line, why', WRONG, ids=[line.replace('captcha-', '') for line,_ in WRONG])
def test_wrong_input_is_one_line(sh, wrong, line, why):
    out, err = sh(*line.split(), cwd=wrong, rc=2)
    said = [l for l in err.splitlines() if l.strip() and ': warning: ' not in l and not l.startswith('  ')]
    assert out == '' and len(said) == 1 and why in said[0], err
    assert said[0].startswith(line.split()[0] + ': ')


@pytest.mark.parametrize('name', ['captcha-train', 'captcha-refine', 'captcha-finetune', 'captcha-curve'])
def test_a_command_without_its_images_says_what_is_missing(name):
    done = subprocess.run([scripts/name], capture_output=True, text=True)
    assert done.returncode == 2 and 'the following arguments are required' in done.stderr


def test_pictures_never_go_where_the_images_are(home):
    before = sorted((home/'more').iterdir())
    for call in (lambda: cli.captcha_curve(str(home/'more'), out=str(home/'more')), lambda: cli.captcha_refine(str(home/'more'), out=f"{home/'more'}.safetensors")):
        with pytest.raises(CaptchaError, match='where the images are: give --out another name'): call()
    assert sorted((home/'more').iterdir()) == before
