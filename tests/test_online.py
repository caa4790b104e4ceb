"Synthetic captchas, fixed or endless"
import inspect

import pytest

from captcha_fastai.core import CaptchaError, Resumable
from captcha_fastai.draw.synth import Synth, digits
from captcha_fastai.data.labels import Captcha
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.data.online import GenerateCaptcha, OnlineDL


def endless(**kwargs):
    return CaptchaDataLoaders.from_synth(digits, length=(4, 6), n=16, n_valid=8, online=True, synth_size=(24, 64), bs=8, **kwargs)


def epoch(dl): return sorted(o for _, y in dl for o in y.tolist())


def test_no_epoch_repeats_captchas_of_the_one_before():
    dls = endless()
    first, second = epoch(dls.train), epoch(dls.train)
    assert not {*map(tuple, first)} & {*map(tuple, second)}
    assert epoch(endless().train) == first                  # but a run with the same seed does
    assert epoch(endless(seed=7).train) != first


def test_validation_captchas_stay():
    dls = endless()
    before = epoch(dls.valid)
    epoch(dls.train)
    assert epoch(dls.valid) == before
    assert [o.text for o in dls.valid_captchas] == [Synth(digits, (4, 6)).text(i) for i in range(-8, 0)]


def test_a_new_loader_goes_on_where_another_was():
    dls = endless()
    epoch(dls.train)
    state = dls.train.state_dict()
    assert isinstance(dls.train, Resumable) and state == dict(epoch=1)
    resumed = endless()
    resumed.train.load_state_dict(state)
    assert epoch(resumed.train) == epoch(dls.train)
    assert resumed.train.state_dict() == dict(epoch=2)


def test_both_generators_are_in_the_same_epoch():
    dls = endless()
    dls.train.load_state_dict(dict(epoch=5))
    assert type(dls.train) is OnlineDL and [o.epoch for o in dls.train.generators] == [5, 5]


@pytest.mark.parametrize('part', [0, 1])
def test_number_i_of_an_epoch_is_captcha_i_plus_all_before(part):
    synth = Synth('OX7', 3, size=(24, 48))
    generate = GenerateCaptcha(synth, 10, part)
    generate.epoch = 2
    o = generate(3)
    assert type(o) is Captcha and o.text == synth.text(23) and (o.image is None) == (not part)
    assert generate(-3).text == synth.text(-3)


@pytest.mark.parametrize('online', [False, True])
def test_ignoring_case_lowers_the_alphabet(online):
    dls = CaptchaDataLoaders.from_synth('ABCb', length=2, n=8, n_valid=4, synth_size=(24, 48), fold=True, bs=4, online=online)
    assert dls.spec.chars == 'abc'


@pytest.mark.parametrize('online', [False, True])
def test_the_model_may_see_another_size_and_allow_longer_texts(online):
    dls = CaptchaDataLoaders.from_synth('OX', 2, n=8, n_valid=4, synth_size=(24, 48), size=(12, 24), max_len=5, channels=1, bs=4, online=online)
    x, y = dls.one_batch()
    assert x.shape == (4, 1, 12, 24) and y.shape == (4, 5)


def test_a_fixed_set_is_the_same_captchas_as_the_first_epoch_of_numbers():
    dls = CaptchaDataLoaders.from_synth('OX', 2, n=8, n_valid=4, synth_size=(24, 48), bs=4)
    synth = Synth('OX', 2, size=(24, 48))
    assert [o.text for o in dls.train_ds.items] == [synth.text(i) for i in range(8)]
    assert [o.text for o in dls.valid_captchas] == [synth.text(i) for i in range(-4, 0)]


def test_unknown_arguments_are_refused():
    with pytest.raises(CaptchaError, match="unknown argument 'valid_pct'"): endless(valid_pct=.2)
    with pytest.raises(CaptchaError, match="'7' is not in the alphabet"): CaptchaDataLoaders.from_synth('OX', 2, n=4, n_valid=2, oversample='7')


def test_the_signature_shows_what_is_passed_on():
    shown = inspect.signature(CaptchaDataLoaders.from_synth).parameters
    wanted = 'chars length style n n_valid online synth_size seed oversample fonts bs max_len size channels fold item_tfms batch_tfms path device'
    assert set(wanted.split()) <= set(shown)
