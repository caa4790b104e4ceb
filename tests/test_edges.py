"What users do that is nearly right"
import base64
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import DataLoaders
from PIL import Image

from captcha_fastai import cli
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.core import CaptchaError, LabelError, ModelError, Spec, Vocab, atomic_path
from captcha_fastai.read.images import open_image
from captcha_fastai.data.labels import CaptchaBlock, EncodeText, check_labels, read_labels
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.modelfile import load_model, save_model
from captcha_fastai.draw.fit import fit_style, font_choice, show_fit
from captcha_fastai.draw.ground import images_of_one_size
from captcha_fastai.judge.calibrate import calibrate
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import captcha_learner, spec_from_dls
from captcha_fastai.train.models import build_model, make_model
from captcha_fastai.train.checkpoint import load_checkpoint
from captcha_fastai.train.fewlabels import check_same_task
from captcha_fastai.train.selection import aligned
from captcha_fastai.train.simgan import refiner_dls
from captcha_fastai.draw.fonts import fonts, known_fonts, sans
from captcha_fastai.draw.synth import Synth, write_numbers, write_synth


@pytest.fixture
def reader():
    "Reads `abc` whatever it is shown"
    spec = Spec('abc123', 3, 8, 24, arch='heads_small', decoder='heads')
    def logp(x):
        y = np.full((len(x), 3, 7), -8., np.float32)
        y[:, range(3), [1, 2, 3]] = -.01
        return y - np.logaddexp.reduce(y, -1, keepdims=True)
    return Reader(logp, spec)


def test_cases_and_look_alikes_that_the_model_lacks_count_as_what_it_has(reader):
    image = np.zeros((8, 24, 1), np.uint8)
    with pytest.warns(UserWarning, match="labels have 'A'"): assert evaluate(reader, [image], ['Abc']).right == 0
    assert evaluate(reader, [image]*2, ['Abc', 'aBC'], fold=True).right == 2
    assert evaluate(reader, [image], ['@bc'], alike=['a@']).right == 1
    assert evaluate(reader, [image], ['Äbc'], fold=True, alike=['aä']).right == 1
    assert calibrate(reader, [image]*4, ['Abc']*4, fold=True)[1].right == 4
    c = Constraint(Vocab('123'), alike='1l')
    assert [c.same(o) for o in ('l23', '123', '?23')] == ['123', '123', '?23']
    c = Constraint(Vocab('0123456789abcdefghijklmnopqrstuvwxyz'), fold=True, alike='0O,1lI')      # the alphabet has no O
    assert [c.same(o) for o in ('0oO', 'i1L')] == ['000', '111']


def test_rules_that_contradict_or_are_no_text_are_refused(reader):
    c = Constraint(reader.vocab, alphabet='b')
    with pytest.raises(CaptchaError, match='constraint and length are given'): reader(np.zeros((8, 24, 1), np.uint8), constraint=c, length=2)
    for rules, why in [(dict(lexicon=['007', 7]), '7 is int, not text'), (dict(alphabet=['a', 'b']), 'give a text'), (dict(alike=5), 'give groups'), (dict(length=4.7), 'length is 4.7')]:
        with pytest.raises(CaptchaError, match=why): Constraint(reader.vocab, **rules)
    e = Constraint(Vocab('eé'), pattern='[e\u0301]')                       # decomposed, as macOS has it
    assert e.accepts(e.to[[2]]) and not e.accepts(e.to[[1]])
    for fold in (False, True): assert EncodeText(Vocab('é'), 1, fold).encodes('e\u0301').tolist() == [1]


def test_labels_that_are_numbers_are_refused_by_reports_too(reader):
    for f in (evaluate, calibrate):
        with pytest.raises(LabelError, match='12 is int, not text'): f(reader, [np.zeros((8, 24, 1), np.uint8)], [12])


def test_a_reader_that_reads_nothing_moves_no_prior():
    assert aligned(np.zeros(4), [SimpleNamespace(text='')]*5, Vocab('abc')).tolist() == [0]*4


def test_data_urls_can_be_trained_on(tmp_path):
    images, labels = [], []
    for text, im in map(Synth('OX7', 2, size=(24, 48)), range(12)):
        im.save(tmp_path/'o.png')
        images.append('data:image/png;base64,' + base64.b64encode((tmp_path/'o.png').read_bytes()).decode())
        labels.append(text)
    assert CaptchaDataLoaders.from_lists(images, labels, bs=4).one_batch()[0].shape[2:] == (24, 48)


def test_folding_lowers_the_alphabet_everywhere():
    kwargs = dict(length=2, n=8, n_valid=4, synth_size=(24, 48), fold=True, bs=4)
    for online in (False, True): assert CaptchaDataLoaders.from_synth('ABCb', online=online, **kwargs).spec.chars == 'abc'
    assert CaptchaBlock('ABCb', fold=True).type_tfms[0].vocab.chars == 'abc'


def test_what_is_not_for_captchas_is_said_so(tmp_path):
    plain = DataLoaders.from_dsets([(torch.zeros(1, 8, 8), 0)]*4, [(torch.zeros(1, 8, 8), 0)]*4, bs=2, num_workers=0)
    with pytest.raises(CaptchaError, match='whose second block is CaptchaBlock'): spec_from_dls(plain)
    with pytest.raises(LabelError, match="no column 'text': it has name, label"): CaptchaDataLoaders.from_df(pd.DataFrame(dict(name=['a'], label=['b'])), label_col='text')
    for content in (b'', b'nonsense'):
        (tmp_path/'last.ckpt').write_bytes(content)
        with pytest.raises(ModelError, match='not a checkpoint'): load_checkpoint(tmp_path)
    torch.save({'other': 1}, tmp_path/'last.ckpt')
    with pytest.raises(ModelError, match='not a checkpoint of this version'): load_checkpoint(tmp_path)


def test_captchas_that_are_scaled_otherwise_are_refused():
    dls = CaptchaDataLoaders.from_synth('OX', length=2, n=4, n_valid=2, synth_size=(24, 48), bs=2)
    learn = SimpleNamespace(spec=Spec(**{**vars(dls.spec), 'mean': 0., 'std': 1.}))
    with pytest.raises(CaptchaError, match='have mean 0.5'): check_same_task(learn, dls)


def test_fitting_a_style_checks_labels_and_shows_few():
    texts, images = zip(*map(Synth('OX7', 2, size=(24, 48)), range(12)))
    with pytest.raises(LabelError, match='12 images but 3 labels'): fit_style(images, texts[:3], 'OX7', 2)
    assert show_fit(images, 'simple', 'OX7', 2, n=2).size == (4*52, 2*28+8)
    kept = list(fonts)
    fonts[:] = [known_fonts()['DejaVuSerif.ttf']]
    try: assert font_choice('OX7') == fonts
    finally: fonts[:] = kept


def test_pictures_never_go_where_the_images_are(tmp_path, monkeypatch):
    write_synth(tmp_path/'mine', 24, Synth('OX', 2, size=(24, 48)))
    monkeypatch.chdir(tmp_path)
    before = sorted((tmp_path/'mine').iterdir())
    for f in (lambda: cli.captcha_train('mine', out='mine.safetensors', curve=True), lambda: cli.captcha_refine('mine', out='mine.safetensors')):
        with pytest.raises(CaptchaError, match='where the images are: give --out another name'): f()
    with pytest.raises(CaptchaError, match='seed is -1'): cli.captcha_train('mine', seed=-1)
    with pytest.raises(CaptchaError, match='leave --epochs'): cli.captcha_train('mine', curve=True, epochs=3)
    assert sorted((tmp_path/'mine').iterdir()) == before


def test_labels_of_somebody_are_not_replaced(tmp_path):
    (tmp_path/'labels.csv').write_text('name,label\nmine.png,XX\n')
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path, 2, Synth('OX', 2))
    assert (tmp_path/'labels.csv').read_text() == 'name,label\nmine.png,XX\n'
    for n in (2, 3): table = write_synth(tmp_path/'ours', n, Synth('OX', 2))
    assert len(table.read_text().splitlines()) == 4
    with table.open('a') as f: f.write('mine.png,XX\n')                      # nothing is left to draw, but the table is somebody's now
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path/'ours', 3, Synth('OX', 2))
    (tmp_path/'labels.csv').write_text('mine.png,XX\n')                       # no header
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path, 2, Synth('OX', 2))


def test_a_refiner_that_could_not_take_a_step_is_refused():
    images = [im for _, im in map(Synth('OX7', 2, size=(24, 48)), range(12))]
    with pytest.raises(CaptchaError, match='n is 20: an epoch needs at least bs = 32'): refiner_dls(Synth('OX7', 2, size=(24, 48)), images, n=20, bs=32)


def test_pictures_of_floats_are_not_black(tmp_path):
    for most in (1, 255):
        Image.fromarray(np.linspace(0, most, 240, dtype=np.float32).reshape(10, 24)).save(tmp_path/'o.tiff')
        assert np.asarray(open_image(tmp_path/'o.tiff')).max() == 255
    Image.fromarray(np.full((10, 24), np.nan, np.float32)).save(tmp_path/'o.tiff')
    assert np.asarray(open_image(tmp_path/'o.tiff')).max() == 0


@pytest.mark.skipif(os.name == 'nt', reason='links and modes are of POSIX')
def test_a_link_stays_a_link_and_a_private_file_private(tmp_path):
    (tmp_path/'real').write_text('old')
    (tmp_path/'real').chmod(0o600)
    (tmp_path/'link').symlink_to(tmp_path/'real')
    with atomic_path(tmp_path/'link') as tmp: tmp.write_text('new')
    assert (tmp_path/'link').is_symlink() and (tmp_path/'real').read_text() == 'new' and (tmp_path/'real').stat().st_mode & 0o777 == 0o600


def test_export_uses_as_many_images_as_it_is_told(tmp_path, monkeypatch):
    spec = Spec('OX', 2, 24, 48, arch='heads_small', decoder='heads')
    save_model(SimpleNamespace(model=make_model(spec), spec=spec), tmp_path/'m.safetensors')
    write_synth(tmp_path/'images', 21, Synth('OX', 2, size=(24, 48)))
    seen = []
    def export(net, out, int8, paths, labels, *_): seen.append((len(paths), len(set(paths)), len(labels))); out.touch()
    monkeypatch.setattr(cli, 'export_onnx', export)
    for n in (20, 200): cli.captcha_export(str(tmp_path/'m.safetensors'), images=str(tmp_path/'images'), label='stem', n=n)
    assert seen == [(20, 20, 20), (21, 21, 21)]


def test_a_text_outside_the_console_encoding_is_printed(tmp_path):
    spec = Spec('日本', 1, 24, 48, arch='heads_small', decoder='heads')
    model = make_model(spec)
    with torch.no_grad(): model.head[-1].bias[1] += 100
    save_model(SimpleNamespace(model=model, spec=spec), tmp_path/'m.safetensors')
    Image.new('L', (48, 24)).save(tmp_path/'o.png')
    done = subprocess.run([Path(sys.executable).parent/'captcha-read', 'm.safetensors', 'o.png'], cwd=tmp_path,
                          env={**os.environ, 'PYTHONIOENCODING': 'cp1252'}, capture_output=True)
    assert done.returncode == 0 and '日' in done.stdout.decode(), done.stderr


def test_a_style_is_sought_in_images_from_all_over_a_folder():
    images = [Image.new('RGB', (40, 20), (i%256, i//256, 0)) for i in range(600)]
    arrays, used = images_of_one_size(images)
    assert len(used) == 200 and used == sorted(set(used)) and used[:100] != [*range(100)] and sum(i < 300 for i in used) in range(70, 131)
    assert arrays[:, 0, 0, 0].tolist() == [i%256 for i in used]                     # the texts that go with them are found by number
    assert images_of_one_size(images[:150])[1] == [*range(150)]
    with pytest.raises(LabelError, match='fit_style: the label 1234 is int, not text'): fit_style(images[:20], [1234]*20)


def test_tables_as_they_come(tmp_path):
    for f in ('0.png', '1.png'): Image.new('L', (8, 8)).save(tmp_path/f)
    for text, want in (('0.png , ab\n1.png,cd', ['ab', 'cd']), ('0.png,a;b\n1.png,c;d', ['a;b', 'c;d']), ('0.png\t1,234,567\n1.png\t2', ['1,234,567', '2']),
                       ('name;label\n0.png;ab\n1.png;c,d,e', ['ab', 'c,d,e'])):
        (tmp_path/'t.csv').write_text(text)
        paths, labels = read_labels(tmp_path/'t.csv')
        assert (labels, [p.name for p in paths]) == (want, ['0.png', '1.png'])
    (tmp_path/'t.csv').write_text('0.jfif,ab\n1.png,cd')                    # no heading: it names a file, one that is not there
    with pytest.raises(LabelError, match="1 of 2 files .* such as '0.jfif'"): read_labels(tmp_path/'t.csv')


def test_names_that_are_not_utf8(tmp_path):
    with pytest.raises(LabelError, match=r'0.png: the label .caf\\udce9. is not UTF-8'): check_labels(['0.png', '1.png'], ['caf\udce9', 'cafe'])
    cli._write_csv(tmp_path/'t.csv', [('caf\udce9.png', 'ab')])
    assert (tmp_path/'t.csv').read_text() == 'caf\\udce9.png,ab\n'


def test_folded_labels_are_what_is_read():
    for label in ('\u01f0', 'J\u030c', 'ΑΣ', 'Ϊ\u0301'):
        (text, *_), vocab, longest = check_labels(['a', 'b'], [label, 'x'], fold=True)
        assert vocab.decode(vocab.encode(text)) == text == Spec(vocab.chars, longest, fold=True).text(label) and len(text) == longest
    assert check_labels(['a'], ['ΑΣ'], chars='ΑΒΣΤ', fold=True)[0] == ['ασ']


def test_a_model_file_that_asks_for_gigabytes(tmp_path):
    spec = Spec('ab', 2, 1000, 1000, arch_args=dict(widths=[1000, 1, 1, 1, 1], hidden=1))
    save_model(SimpleNamespace(model=build_model(spec), spec=spec), tmp_path/'m.safetensors')
    assert (tmp_path/'m.safetensors').stat().st_size < 200_000
    with pytest.raises(ModelError, match='more than 2 GiB of memory'): load_model(tmp_path/'m.safetensors')


def test_fonts_go_to_a_worker_that_is_started_anew(tmp_path):
    own, synth = list(fonts), Synth('mn', style='simple')
    usual = synth(0)[1].tobytes()
    try:
        fonts[:] = [sans[1]]
        worker = multiprocessing.get_context('spawn').Process(target=write_numbers, args=(synth, [(0, tmp_path/'0.png')]))
        worker.start()
        worker.join()
        assert Image.open(tmp_path/'0.png').tobytes() == synth(0)[1].tobytes() != usual
    finally: fonts[:] = own
