"The base model: its architecture, its file, and what begins from it"
import re
import string
import warnings
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.vision.all import Callback
from PIL import Image, ImageDraw, ImageFont

from captcha_fastai.core import CaptchaError, ModelError, Spec, accept_none, warned
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.fonts import sans
from captcha_fastai.draw.synth import Synth
from captcha_fastai.draw.world import world
from captcha_fastai.recipes.base import (base_epochs, base_learner, base_model, base_options, begin_from_base, keep_the_better, likely_chars, reader_of,
                                         repeated, share_of_valid, train_from_base, train_on_all, untrained_reader, warn_of_results)
from captcha_fastai.ship.modelfile import load_model, model_file, packed, save_model, unpacked
from captcha_fastai.train.base import best_size, candidate_sizes, confidence_of_readings, fit_of_labels, normalised
from captcha_fastai.train.fewlabels import start_from
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import make_model, model_reader
from captcha_fastai.train.schedule import Recipe


def pictures(n=12, length=4): return [(t, world(t, Random(i), 150, 50)) for i in range(n) for t in [f'{i*811 % 10**length:0{length}}']]


def easy(n=12): return [Synth(string.digits, 4, 'simple', (50, 150), seed=1)(i) for i in range(n)]


@pytest.fixture(scope='module')
def small():
    "A learner of easy digits that begins from the base"
    texts, images = zip(*easy(16))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = CaptchaDataLoaders.from_lists(list(images), list(texts), size=(48, 144), channels=1, bs=4, chars=string.digits)
    return begin_from_base(captcha_learner(dls, 'crnn_base'))


@pytest.mark.parametrize('height, channels', [(32, 1), (48, 3)])
def test_an_image_too_low_or_in_colour_is_refused(height, channels):
    with pytest.raises(ModelError, match='grey images from 33 pixels'): make_model(Spec('01', 4, height, 96, channels, arch='crnn_base'))


def test_light_and_contrast_change_nothing():
    x = torch.rand(3, 1, 48, 100)
    paler = normalised(x*.5 + .3)
    assert (normalised(x) - paler).abs().max() < .25                # less contrast counts a little less
    assert torch.allclose(normalised(x + .2), normalised(x), atol=1e-4)
    assert normalised(torch.ones(1, 1, 48, 60)).abs().max() == 0     # a blank picture is no division by zero


@pytest.mark.parametrize('height, width', [(33, 48), (48, 160), (64, 150), (96, 640)])
def test_the_same_weights_read_any_size(height, width):
    model, spec = base_model()
    with torch.inference_mode(): assert model(torch.zeros(2, 1, height, width)).shape == (2, -(-width//4), len(spec.vocab))


def test_the_file_of_the_package_holds_printable_ascii_in_at_most_2_5_megabytes():
    assert sorted(base_model()[1].chars) == sorted(c for c in string.printable if c.isprintable())
    assert model_file('base').stat().st_size <= 2.5e6


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'base').write_text('not a model')
    with pytest.raises(ModelError): load_model('base')


def test_eight_bits_are_off_by_half_a_step_at_most():
    w = {'a': torch.randn(5, 3, 2, 2), 'bias': torch.randn(5), 'n': torch.tensor(3), 'zeros': torch.zeros(2, 4)}
    back = unpacked(packed(w))
    assert list(back) == list(w) and packed(w)['a'].dtype == torch.int8
    half_step = w['a'].flatten(1).abs().amax(1)/127/2
    assert ((back['a'] - w['a']).flatten(1).abs() <= half_step[:, None]*1.001).all()
    for k in ('bias', 'n', 'zeros'): assert torch.equal(back[k], w[k])


def test_a_model_in_eight_bits_reads_as_before(tmp_path):
    model, spec = base_model()
    save_model(SimpleNamespace(model=model, spec=spec), tmp_path/'again.safetensors', in_8_bits=True)
    again = load_model(tmp_path/'again.safetensors')
    images = [im for _, im in pictures()]
    assert [o.text for o in model_reader(*again).read_many(images)] == [o.text for o in model_reader(model, spec).read_many(images)]


def test_sizes_keep_the_proportions_and_hold_the_longest_label():
    sizes = candidate_sizes([Image.new('L', (300, 50))]*3)
    assert sizes[0] == (48, 288) and (96, 576) in sizes
    assert all(w >= 6*40 for _, w in candidate_sizes([Image.new('L', (50, 50))], steps=40))


def test_the_right_labels_fit_better_than_others():
    texts, images = zip(*easy())
    model, spec = base_model()
    spec = Spec(**{**spec.__dict__, 'height': 48, 'width': 144})
    assert fit_of_labels(model, spec, images, texts) > fit_of_labels(model, spec, images, texts[1:] + texts[:1]) + .5
    assert fit_of_labels(model, spec, images, ['日本']*len(images)) == 0
    assert confidence_of_readings(model, spec, images, length=4, alphabet=string.digits) <= 0


def test_images_that_cannot_be_opened_do_not_stop_the_search_for_a_size(tmp_path):
    (tmp_path/'broken.png').write_bytes(b'no image')
    texts, images = zip(*easy(4))
    assert best_size(*base_model(), [tmp_path/'broken.png', *images], ['1', *texts]) in candidate_sizes(images)


@pytest.mark.parametrize('texts, chars', [
    (['7k2', 'b4m'], string.digits + string.ascii_lowercase),
    (['AB1'], string.digits + string.ascii_uppercase),
    (['123', '321']*50, '123'),
    (['1+2=']*2, '+=' + string.digits),
    (['é']*3, 'é'),
    ([''], '')])
def test_few_labels_may_lack_characters_of_their_kinds(texts, chars): assert likely_chars(texts) == ''.join(sorted(chars))


def test_what_is_given_is_kept():
    texts, images = zip(*easy(4))
    options = base_options(images, texts, size=(40, 100), chars='0123456789x', bs=8)
    assert options == dict(size=(40, 100), channels=1, chars='0123456789x', bs=8, rows=1)
    with pytest.raises(CaptchaError, match='channels is 3'): base_options(images, texts, channels=3)


def test_a_learner_begins_with_what_the_base_reads(small):
    model, spec = base_model()
    rows = [spec.vocab.stoi[c] for c in small.spec.chars]
    assert torch.allclose(small.model.head.weight[1:].cpu(), model.head.weight[rows])
    assert small.warmup is None and small.origin


def test_new_characters_begin_fresh_and_case_is_folded():
    texts, images = zip(*easy(4))
    labels = ['日1a', '2Ab', '本3b', '4ba']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = CaptchaDataLoaders.from_lists(list(images), labels, size=(48, 144), channels=1, bs=2, fold=True)
    learn = begin_from_base(captcha_learner(dls, 'crnn_base'))
    model, spec = base_model()
    both = model.head.weight[[spec.vocab.stoi['a'], spec.vocab.stoi['A']]].mean(0)
    assert torch.allclose(learn.model.head.weight[learn.spec.vocab.stoi['a']].cpu(), both)


def test_another_architecture_does_not_begin_from_the_base():
    texts, images = zip(*easy(4))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        dls = CaptchaDataLoaders.from_lists(list(images), list(texts), size=(48, 144), channels=1, bs=2)
    with pytest.raises(ModelError, match='arch'): start_from(captcha_learner(dls, 'crnn_tiny'), *base_model())


@pytest.mark.parametrize('n, bs, want', [(4, 4, (30, 10)), (16, 16, (30, 10)), (40, 16, (30, 4)), (80, 16, (30, 2)), (160, 16, (48, 1)), (1000, 16, (15, 1))])
def test_an_epoch_from_the_base_has_ten_steps(n, bs, want): assert base_epochs(n, bs) == want


def test_few_images_come_several_times_in_an_epoch(small):
    dl = small.dls.train
    n = len(dl)
    with repeated(dl, 3): seen = sum(len(b[0]) for b in dl)
    assert (len(dl), seen) == (n, 3*dl.n//dl.bs*dl.bs)
    assert sum(len(b[0]) for b in dl) == n*dl.bs, 'as before, after the with'


def test_in_the_end_the_images_that_validated_are_trained_on_too(small):
    learn = captcha_learner(small.dls, 'crnn_base')
    seen = set()
    class Look(Callback):
        order = -9
        def before_batch(self): seen.update(map(tuple, self.y.tolist()) if self.training else ())
    learn.add_cb(Look())
    with learn.no_bar(): train_on_all(learn, recipe=Recipe(base_epoch=6, all_steps=6, rehearse_labels=0))
    every = {tuple(o[1].tolist()) for ds in (small.dls.train_ds, small.dls.valid_ds) for o in ds}
    assert seen == every and len(every) == 16
    assert small.dls.train.n == len(small.dls.train_ds)


def test_epochs_that_were_asked_for_are_the_images_once(small, tmp_path):
    learn = captcha_learner(small.dls, 'crnn_base')
    with learn.no_bar(), learn.no_logging(): train_from_base(learn, 2, folder=tmp_path)
    assert learn.n_epoch == 2 and len(learn.recorder.lrs) == 2*len(small.dls.train)


def test_training_that_does_harm_is_undone(small):
    before = {k: v.clone() for k, v in small.model.state_dict().items()}
    read = share_of_valid(small)
    assert read > 0

    def spoil():
        with keep_the_better(small):
            for p in small.model.parameters(): p.data.zero_()
    assert 'training made it worse' in warned(spoil)
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())
    with keep_the_better(small, wanted=False): small.model.head.bias.data.add_(1)
    assert not torch.equal(small.model.head.bias.cpu(), before['head.bias'].cpu())
    small.model.load_state_dict(before)


def test_the_base_reads_easy_digits_untrained_and_accepts_nothing():
    texts, images = zip(*easy(20))
    reader = untrained_reader(images, length=4, alphabet=string.digits)
    readings = reader.read_many(images, length=4, alphabet=string.digits)
    assert np.mean([o.text == t for o, t in zip(readings, texts)]) >= .8
    assert not any(o.accepted for o in readings) and reader.spec.threshold == accept_none


def test_the_base_reads_light_digits_on_nothing_as_well():
    texts, images = zip(*easy(20))
    ghosts = []
    for o in images:
        ink = Image.eval(o.convert('L'), lambda v: 255-v)
        ghosts.append(Image.merge('LA', [Image.new('L', ink.size, 255), ink]))
    with pytest.warns(UserWarning, match='light ink: they are read on black'):
        reader = untrained_reader(ghosts, length=4, alphabet=string.digits)
    readings = reader.read_many(ghosts, length=4, alphabet=string.digits)
    assert np.mean([o.text == t for o, t in zip(readings, texts)]) >= .8
    assert base_options(ghosts, texts)['size'] in candidate_sizes(ghosts)


def test_a_learner_without_labels_reads_as_the_base_does():
    texts, images = zip(*easy(20))
    learn, synthetic = base_learner(images, string.digits, (4, 4))
    read = model_reader(learn.model, learn.spec).read_many(images, length=4)
    assert np.mean([o.text == t for o, t in zip(read, texts)]) >= .8
    assert synthetic.spec.chars == string.digits


def test_base_is_named_where_a_model_is_wanted():
    texts, images = zip(*easy(4))
    assert reader_of('base', images, length=4).spec.arch == 'crnn_base'


def on_white(text):
    im = Image.new('L', (130, 40), 'white')
    ImageDraw.Draw(im).text((6, 4), text, font=ImageFont.truetype(sans[1], 26))
    return im


@pytest.mark.parametrize('texts, labels, why', [
    (['3+5=', '9-2=', '6+6=', '9-8='], ['8', '7', '12', '1'], r"the labels seem to be results: .* shows '3\+5=' and its label is '8'"),
    (['3+5=', '9-2=', '6+6=', '9-8='], ['3+5=', '9-2=', '6+6=', '9-8='], None), (['8', '7', '12', '1'], ['8', '7', '12', '1'], None),
    (['3+5=', '9-2=', '6+6=', '9-8='], ['5', '2', '6', '8'], None)])
def test_labels_that_are_results_are_said(texts, labels, why):
    message = warned(warn_of_results, [on_white(o) for o in texts], labels)
    assert message is None if why is None else re.match(why, message)
