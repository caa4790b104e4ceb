"DataLoaders: from files and labels to batches"
import base64
import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import DataLoaders, Datasets, IntToFloatTensor, Normalize
from PIL import Image

from captcha_fastai.core import CaptchaError, ImageError, LabelError
from captcha_fastai.read.images import prep
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.data.augment import CaptchaAugment, SyntheticOnly
from captcha_fastai.data.images import EncodeText, LoadImage, TensorCaptcha
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders, make_spec, random_split, untar_captchas

real = Path(os.environ.get('CAPTCHA_DATA') or Path(__file__).resolve().parent.parent.parent/'shared'/'data'/'captcha_images_v2')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('captchas')
    write_synth(d, 60, Synth('0123456789', length=4, seed=3, size=(40, 100)))
    return d


@pytest.fixture(scope='module')
def captchas(folder): return labelled(folder)


@pytest.fixture
def torn(captchas, tmp_path):
    (tmp_path/'torn.png').write_bytes(captchas[0][0].read_bytes()[:300])
    return tmp_path/'torn.png'


def texts(dls): return [str(o[1]) for o in map(dls.train_ds.decode, dls.train_ds)]


def test_batches_have_the_size_of_the_images(captchas):
    dls = CaptchaDataLoaders.from_lists(*captchas, bs=8)
    x, y = dls.one_batch()
    assert (len(dls.train_ds), len(dls.valid_ds)) == (48, 12)
    assert (x.shape, y.shape, type(y)) == ((8, 3, 40, 100), (8, 4), TensorCaptcha)


def test_an_unreadable_image_is_left_out_with_a_warning_that_names_it(captchas, torn):
    paths, labels = captchas
    with pytest.warns(UserWarning, match='1 of 61 images cannot be read and are left out:\n .*torn.png'):
        dls = CaptchaDataLoaders.from_lists([*paths, torn], [*labels, '1234'], bs=8)
    assert [o for o, _ in dls.left_out] == [torn] and len(dls.train_ds) + len(dls.valid_ds) == 60


def test_images_that_cannot_be_read_are_counted_by_the_reason(captchas, tmp_path):
    paths, labels = captchas
    bad = [tmp_path/f'bad{i}.png' for i in range(9)]
    for i, o in enumerate(bad[:8]): o.write_bytes(b'<svg/>' if i % 2 else paths[0].read_bytes()[:300])
    with pytest.warns(UserWarning) as caught: CaptchaDataLoaders.from_lists([*paths, *bad], [*labels, *['1234']*9], bs=8)
    what, *reasons = str(caught[0].message).replace(f'{tmp_path}/', '').splitlines()
    assert what == '9 of 69 images cannot be read and are left out:'
    assert reasons == ['  4, such as bad0.png: not a readable image (image file is truncated)', '  4, such as bad1.png: SVG, which is not read: save it as PNG',
                       '  bad8.png: no such file']


def test_one_picture_of_many_labels_is_said_as_what_it_is():
    blank = [np.full((20, 60), 255, np.uint8)]*20
    with pytest.warns(UserWarning) as caught: CaptchaDataLoaders.from_lists(blank, [f'{i:02}' for i in range(20)], bs=8)
    assert [str(o.message) for o in caught] == ['there is no telling their labels apart:\n  20 of 20 images are the same empty picture, '
                                                'such as <ndarray>, with 20 different labels']


def test_how_images_are_opened_is_found_once_and_kept(captchas, tmp_path):
    paths, labels = captchas
    files = [tmp_path/f'{i}.gif' for i in range(len(paths))]
    for file, o in zip(files, paths):
        full = Image.open(o).convert('L')
        Image.new('L', full.size, 255).save(file, save_all=True, append_images=[full])
    with pytest.warns(UserWarning) as caught: dls = CaptchaDataLoaders.from_lists(files, labels, bs=8)
    assert [str(o.message) for o in caught] == ['animations whose frames differ: their last frame is read'] and dls.spec.frame == 'last'
    assert len({o.numpy().tobytes() for o in dls.valid.one_batch()[0]}) > 1
    deep = [(np.asarray(Image.open(o).convert('L')).astype(np.uint16)*16) for o in paths]
    with pytest.warns(UserWarning, match='images of 16 bits hold 12'): assert CaptchaDataLoaders.from_lists(deep, labels, bs=8).spec.bits == 12


def test_equal_pictures_with_different_labels_are_named(captchas, tmp_path):
    paths, labels = captchas
    (tmp_path/'twin.png').write_bytes(paths[1].read_bytes())
    with pytest.warns(UserWarning, match='1 images look mislabelled:\n .*twin.png'):
        CaptchaDataLoaders.from_lists([*paths, tmp_path/'twin.png'], [*labels, '9999'])


@pytest.mark.parametrize('splits', [([60, 3, 5], [7, 60]), (np.array([60, 3, 5]), np.array([7, 60]))])
def test_given_splits_go_by_the_images_that_were_given(captchas, torn, splits):
    paths, labels = captchas
    images, texts = [torn, *paths], ['1234', *labels]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = CaptchaDataLoaders.from_lists(images, texts, splits=splits)
    assert [o.image for o in dls.train_ds.items] == [images[i] for i in splits[0]]
    assert [o.image for o in dls.valid_ds.items] == [images[i] for i in splits[1]]


@pytest.mark.parametrize('seed', range(2))
def test_duplicates_are_never_on_both_sides(captchas, seed):
    paths, labels = captchas
    dls = CaptchaDataLoaders.from_lists(paths*2, labels*2, seed=seed)
    assert not {o.image for o in dls.train_ds.items} & {o.image for o in dls.valid_ds.items}


@pytest.mark.parametrize('seed', range(9))
def test_duplicates_go_to_the_same_side_as_their_original(seed):
    assert all((0 in side) == (9 in side) for side in random_split(10, .3, seed, {9: 0}))


def test_a_set_of_duplicates_only_is_split_all_the_same():
    assert random_split(2, .5, 0, {1: 0}) == random_split(2, .5, 0)


def test_images_are_scaled_by_a_half_and_a_quarter_unless_measured(captchas):
    spec = CaptchaDataLoaders.from_lists(*captchas).spec
    assert (spec.mean, spec.std) == (.5, .25)
    assert CaptchaDataLoaders.from_lists(*captchas, channels=3, batch_tfms=Normalize.from_stats([.75], [.5])).spec.std == .5


def test_normalize_measures_images_as_they_are(captchas):
    paths, labels = captchas
    measured = CaptchaDataLoaders.from_lists(paths, labels, channels=1, batch_tfms=Normalize(), bs=48)      # one batch is all of them
    augmented = CaptchaDataLoaders.from_lists(paths, labels, channels=1, batch_tfms=[CaptchaAugment(), Normalize()], bs=8)
    assert augmented.spec == measured.spec
    x = measured.one_batch()[0]
    assert abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3
    first = measured.valid.one_batch()[0][0].cpu().numpy()
    assert np.allclose(first, prep(measured.valid_captchas[0].image, measured.spec), atol=1e-4)


def test_a_mean_for_each_channel_is_refused(captchas):
    with pytest.raises(CaptchaError, match=r'Normalize\(axes=\(0, 1, 2, 3\)\)'):
        CaptchaDataLoaders.from_lists(*captchas, channels=3, batch_tfms=Normalize())


def test_all_ways_in_lead_to_the_same_set(folder, captchas):
    paths, labels = captchas
    df = pd.read_csv(folder/'labels.csv', dtype=str)
    ways = [CaptchaDataLoaders.from_folder(folder), CaptchaDataLoaders.from_csv(folder/'labels.csv'), CaptchaDataLoaders.from_df(df, folder),
            CaptchaDataLoaders.from_df(df, folder, 'name', 'label'), CaptchaDataLoaders.from_name_func(paths, dict(zip(paths, labels)).get)]
    for o in ways[1:]: assert texts(o) == texts(ways[0])
    assert CaptchaDataLoaders.from_name_re(paths, r'^(\d+)_').spec.max_len == 6


def test_labels_that_have_become_numbers_are_refused(folder, captchas):
    with pytest.raises(LabelError, match='is int, not text.*zeros'): CaptchaDataLoaders.from_df(pd.read_csv(folder/'labels.csv'), folder)
    with pytest.raises(LabelError, match='is int, not text.*zeros'): CaptchaDataLoaders.from_lists(captchas[0], [7]*60)


def test_a_column_that_is_not_there_is_named():
    df = pd.DataFrame(dict(name=['a'], label=['b']))
    with pytest.raises(LabelError, match="no column 'text': it has name, label"): CaptchaDataLoaders.from_df(df, label_col='text')


@pytest.mark.parametrize('kwargs, error, why', [
    (dict(valid_pc=.1), CaptchaError, "unknown argument 'valid_pc'"), (dict(valid_pct=1.5), CaptchaError, 'valid_pct is 1.5'),
    (dict(max_len=2), LabelError, 'at most 2 fit'), (dict(chars='1'), LabelError, "which is not in the alphabet '1'"),
    (dict(splits=([0], [1])), CaptchaError, 'batches of 1: batch norm needs at least two')])
def test_arguments_that_will_not_do_are_named(captchas, kwargs, error, why):
    with pytest.raises(error, match=why): CaptchaDataLoaders.from_lists(*captchas, **kwargs)


@pytest.mark.filterwarnings('ignore')
def test_two_readable_images_are_needed(captchas):
    with pytest.raises(ImageError, match='at least two'): CaptchaDataLoaders.from_lists([captchas[0][0], 'gone.png'], ['OX', 'OO'])


@pytest.mark.parametrize('way', ['from_lists', 'from_folder', 'from_csv', 'from_df', 'from_name_func', 'from_name_re'])
def test_the_signature_shows_what_is_passed_on(way):
    shown = inspect.signature(getattr(CaptchaDataLoaders, way)).parameters
    assert set('valid_pct seed splits bs chars max_len size channels fold item_tfms batch_tfms path device'.split()) <= set(shown)


def test_the_mid_level_by_hand(captchas):
    paths, labels = captchas
    spec = CaptchaDataLoaders.from_lists(paths, labels).spec
    pipelines = [LoadImage(spec)], [dict(zip(paths, labels)).get, EncodeText(spec.vocab, spec.max_len)]
    dsets = Datasets(paths, pipelines, splits=random_split(len(paths)))
    dls = DataLoaders.from_dsets(dsets.train, dsets.valid, bs=8, after_batch=[IntToFloatTensor(), CaptchaAugment()], num_workers=0)
    x, y = dls.one_batch()
    assert (x.shape, y.shape, dsets.decode(dsets[0])[1]) == ((8, 3, 40, 100), (8, 4), labels[0])


def test_transforms_for_synthetic_captchas_leave_real_images_alone(captchas):
    class Invert(SyntheticOnly, CaptchaAugment):
        split_idx = None
        def encodes(self, x:torch.Tensor): return 1 - x
    paths, labels = captchas
    dls = CaptchaDataLoaders.from_lists(paths, labels, batch_tfms=[Invert()], bs=8)
    plain = CaptchaDataLoaders.from_lists(paths, labels, batch_tfms=[], bs=8)
    kinds = [type(o) for o in dls.test_dl(paths[:8]).after_batch.fs]
    assert Invert not in kinds and Invert in [type(o) for o in dls.valid.after_batch.fs]
    assert torch.equal(dls.test_dl(paths[:8]).one_batch()[0].cpu(), plain.test_dl(paths[:8]).one_batch()[0].cpu())


def test_data_urls_can_be_trained_on(tmp_path):
    images, labels = [], []
    for text, im in map(Synth('OX7', 2, size=(24, 48)), range(12)):
        im.save(tmp_path/'o.png')
        images.append('data:image/png;base64,' + base64.b64encode((tmp_path/'o.png').read_bytes()).decode())
        labels.append(text)
    assert CaptchaDataLoaders.from_lists(images, labels, bs=4).one_batch()[0].shape[2:] == (24, 48)


def test_a_folder_of_all_modes_and_two_sizes_with_a_label_in_chinese(tmp_path):
    kinds = [('L', 'png'), ('RGB', 'jpg'), ('RGBA', 'png'), ('P', 'gif'), ('CMYK', 'jpg'), ('I;16', 'png'), ('1', 'bmp'), ('RGB', 'webp')]
    for i, (mode, ext) in enumerate(kinds):
        im = Image.new('L', (60+20*(i == 3), 30), 40*(i % 5))
        im.convert(mode if mode != 'I;16' else 'I').convert(mode).save(tmp_path/f'{"天地玄黄aBc0"[i:]}.{ext}')
    dls = CaptchaDataLoaders.from_folder(tmp_path, fold=True, bs=4)
    assert dls.spec.chars == ''.join(sorted('天地玄黄abc0')) and dls.spec.max_len == 8 and dls.spec.width == 60
    assert dls.one_batch()[0].shape == (4, dls.spec.channels, 30, 60)


@pytest.mark.skipif(not real.is_dir(), reason='the public images are not here')
def test_the_public_set(monkeypatch):
    monkeypatch.setenv('CAPTCHA_DATA', str(real))
    spec = CaptchaDataLoaders.from_folder(untar_captchas()).spec
    assert (spec.chars, spec.max_len, spec.height, spec.width, spec.channels) == ('2345678bcdefgmnpwxy', 5, 50, 200, 1)


def test_a_local_copy_of_the_public_set_comes_first(folder, monkeypatch):
    monkeypatch.setenv('CAPTCHA_DATA', str(folder))
    assert untar_captchas() == folder
    monkeypatch.setenv('CAPTCHA_DATA', str(folder/'gone'))
    with pytest.raises(ImageError, match='no such folder'): untar_captchas()


def test_the_public_set_without_a_network(tmp_path):
    code = ("from captcha_fastai.data.loaders import *\nfrom captcha_fastai.core import CaptchaError\n"
            "try: untar_captchas()\nexcept CaptchaError as e: print(e)")
    env = {**os.environ, 'FASTAI_HOME': str(tmp_path), 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9'}
    env.pop('CAPTCHA_DATA', None)
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True).stdout
    out = out.replace('█', '').strip()                      # fastprogress announces a bar
    assert 'set CAPTCHA_DATA to a folder' in out and len(out.splitlines()) == 1


def test_the_specification_knows_the_shortest_label():
    images = [Image.new('L', (40, 20), 10*i) for i in range(3)]
    assert make_spec(images, ['ab', 'abc', 'b'])[1].min_len == 1
