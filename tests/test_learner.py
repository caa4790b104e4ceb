"A learner, what it refuses and warns of, and what fastai does with it"
import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.vision.all import (Callback, DataBlock, DataLoaders, ImageBlock, Interpretation, L, Normalize, Resize, TensorImage, load_learner, set_seed,
                               show_results)

from captcha_fastai.core import CaptchaError, LabelError, ModelError, Spec, Vocab
from captcha_fastai.data.images import CaptchaBlock, CaptchaImageBW, TensorCaptcha
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.judge.report import evaluate
from captcha_fastai.train.learner import (Autocast, CaptchaLearner, TrimMemory, captcha_learner, captcha_splitter, check_fit, check_scale, fused_adamw, has_norm, losses,
                                          spec_from_dls, task_of, training_dls, trim_memory, usual_tfms)
from captcha_fastai.train.losses import AlignmentWarmup, CTCLoss, HeadsLoss
from captcha_fastai.train.metrics import CaptchaAccuracy
from captcha_fastai.train.models import archs, make_model, model_reader

SMALL = dict(widths=(8, 8, 8, 16, 16), hidden=16)
rng = random.Random(0)


def blocks(text, width=64):
    "A picture of 16 rows: an O is a dark block, an X a striped one"
    x = np.full((16, width), 250, np.uint8)
    for i, c in enumerate(text): x[4:12:2 if c == 'X' else 1, 8+16*i:18+16*i] = 40
    return x


TEXTS = [''.join(rng.choice('OX') for _ in range(rng.choice((2, 3)))) for _ in range(40)]
IMAGES = [blocks(t) for t in TEXTS]


def loaders(**kwargs): return CaptchaDataLoaders.from_lists(IMAGES, TEXTS, **{**dict(bs=8, batch_tfms=[]), **kwargs})


def quietly(learn, method, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return getattr(learn, method)(*args, **kwargs)


@pytest.fixture(scope='module')
def trained():
    set_seed(1, reproducible=True)
    learn = captcha_learner(loaders(), arch_args=dict(widths=(8, 16, 24, 24, 32), hidden=32), bf16=False)
    quietly(learn, 'fit_one_cycle', 40, 6e-3)
    return learn


def test_captcha_loaders_bring_their_spec():
    spec = spec_from_dls(loaders())
    assert (spec.chars, spec.max_len, spec.height, spec.width, spec.channels) == ('OX', 3, 16, 64, 1)


def test_the_spec_of_a_data_block_is_read_off_a_batch(tmp_path):
    from PIL import Image
    for i, im in enumerate(IMAGES): Image.fromarray(im).save(tmp_path/f'{i}.png')
    block = DataBlock((ImageBlock(CaptchaImageBW), CaptchaBlock(fold=True)), get_y=lambda p: TEXTS[int(p.stem)], batch_tfms=[Normalize.from_stats([.4], [.2])])
    dls = block.dataloaders(sorted(tmp_path.glob('*.png')), bs=8)
    assert spec_from_dls(dls) == Spec('ox', 3, 16, 64, mean=.4, std=.2, fold=True)
    block.item_tfms = L(Resize((16, 32)))
    cropped = block.new(item_tfms=Resize((16, 32))).dataloaders(sorted(tmp_path.glob('*.png')), bs=8)
    with pytest.warns(UserWarning, match="squeeze images.*method='squish'"): spec_from_dls(cropped)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        spec_from_dls(block.new(item_tfms=Resize((16, 32), method='squish')).dataloaders(sorted(tmp_path.glob('*.png')), bs=8))


def test_all_images_can_be_trained_on_as_another_spec_has_them():
    spec = spec_from_dls(loaders())
    dls = training_dls(list(IMAGES), list(TEXTS), bs=8, **task_of(spec))
    assert len(dls.train_ds) == len(IMAGES) and len(dls.valid_ds) == 2
    assert task_of(dls.spec) == task_of(spec) == dict(chars='OX', max_len=3, fold=False, size=(16, 64), channels=1)


def test_what_is_not_for_captchas_is_said_so():
    plain = DataLoaders.from_dsets([(torch.zeros(1, 8, 8), 0)]*4, [(torch.zeros(1, 8, 8), 0)]*4, bs=2, num_workers=0)
    with pytest.raises(CaptchaError, match='whose second block is CaptchaBlock'): spec_from_dls(plain)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(CaptchaError, match='choose from (?=.*crnn_base)crnn_small, crnn_tiny, conv_small, heads_small, .*multi_head, pool_free, crnn'): captcha_learner(loaders(), 'resnet')


def one_label(ids, items): return SimpleNamespace(train_ds=SimpleNamespace(items=items, tls=[[torch.tensor(ids)]]), valid_ds=SimpleNamespace(items=[], tls=[[]]), vocab=Vocab('xy'))


@pytest.mark.parametrize('decoder, steps, ids, need', [('ctc', 2, [1, 1], 3), ('ctc', 1, [1, 2], 2), ('heads', 1, [1, 1, 0], 2)])
@pytest.mark.parametrize('items', [['a.png'], pd.Series(['a.png'], index=[7])])
def test_a_label_that_does_not_fit_is_named(decoder, steps, ids, need, items):
    model = SimpleNamespace(decoder=decoder, steps=steps)
    with pytest.raises(LabelError, match=f'a.png: label .* needs {need} steps, but the model has T = {steps}'): check_fit(one_label(ids, items), model)
    model.steps = need
    check_fit(one_label(ids, items), model)


def test_a_learner_refuses_labels_that_do_not_fit():
    narrow = CaptchaDataLoaders.from_lists([blocks('', 16)]*8, ['OXXXOXX', 'OXXXOOOO']*4, bs=4)
    with pytest.raises(LabelError, match='the model has T = 8: give wider images or a smaller stride'): captcha_learner(narrow)


def test_two_nets_have_no_norm():
    plain = [name for name, cls in archs.items() if not has_norm(make_model(Spec('ab', 2, arch=name, decoder=cls.decoder)))]
    assert plain == ['vgg_heads', 'digits_cnn']


@pytest.mark.parametrize('arch, kwargs, n', [('digits_cnn', {}, 1), ('digits_cnn', dict(mean=.9, std=.1), 0), ('crnn_small', {}, 0), ('vgg_heads', {}, 1),
                                             ('vgg_heads', dict(arch_args=dict(norm=True)), 0)])
def test_a_net_without_norm_warns_of_images_that_were_not_measured(arch, kwargs, n):
    spec = Spec('ab', 2, arch=arch, decoder=archs[arch].decoder, **kwargs)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        check_scale(make_model(spec), spec)
    assert len(told) == n and all(f'{arch} has no batch norm' in str(o.message) for o in told)


@pytest.mark.parametrize('arch, n', [('digits_cnn', 2), ('vgg_heads', 2), ('vgg_gru', 1), ('crnn_small', 1), ('no such', 1)])
def test_images_are_measured_for_nets_without_norm(arch, n):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert len(usual_tfms(arch)) == n
    assert torch.equal(torch.get_rng_state(), before), 'a model made for a look took random numbers'


def test_memory_is_trimmed_every_fifty_batches():
    cb = TrimMemory()
    with mock.patch('sys.platform', 'linux'), mock.patch('ctypes.CDLL') as libc:
        for i in range(120):
            cb.learn = SimpleNamespace(iter=i)
            cb.after_batch()
    assert libc().malloc_trim.call_args_list == [mock.call(0)]*3


@pytest.mark.parametrize('platform', ['linux', 'darwin', 'win32'])
def test_memory_is_trimmed_where_the_c_library_can(platform):
    with mock.patch('sys.platform', platform), mock.patch('ctypes.CDLL', return_value=object()): trim_memory()


class Interrupt(Callback):
    "Ctrl-C in the middle of a batch"
    def after_pred(self): raise KeyboardInterrupt


def test_an_interrupt_leaves_no_autocast_open():
    learn = captcha_learner(loaders(), arch_args=SMALL, bf16=True, cbs=Interrupt())
    with pytest.raises(KeyboardInterrupt): quietly(learn, 'fit', 1)
    assert [torch.is_autocast_enabled(o) for o in ('cpu', 'cuda')] == [False, False]


def test_autocast_steps_aside_for_mixed_precision_on_a_gpu():
    cb = Autocast()
    cb.learn = SimpleNamespace(cbs=[MixedPrecision()])
    for cuda in (False, True):
        with mock.patch('torch.cuda.is_available', return_value=cuda): cb.before_fit()
        assert cb.run != cuda


@pytest.mark.parametrize('arch, loss', [('crnn_tiny', CTCLoss), ('heads_small', HeadsLoss)])
def test_the_loss_follows_from_the_decoder(arch, loss):
    learn = captcha_learner(loaders(), arch)
    assert type(learn.loss_func) is loss is losses[learn.spec.decoder]
    assert (learn.warmup is None) == (loss is HeadsLoss) and learn.spec.arch == arch and learn.origin == ''


def test_what_is_given_is_taken():
    mine = CTCLoss()
    learn = captcha_learner(loaders(), 'crnn_tiny', loss_func=mine, metrics=[CaptchaAccuracy()], warmup=False, bf16=False, cbs=Interrupt, lr=.5, path='here')
    assert learn.loss_func is mine and len(learn.metrics) == 1 and learn.warmup is None and learn.lr == .5 and learn.path == Path('here')
    assert any(isinstance(cb, Interrupt) for cb in learn.cbs) and not any(isinstance(cb, Autocast) for cb in learn.cbs)


def test_a_learner_knows_its_warm_up():
    learn = captcha_learner(loaders(), 'crnn_tiny')
    assert isinstance(learn, CaptchaLearner) and isinstance(learn.warmup, AlignmentWarmup)
    learn.warmup.leave()
    assert learn.warmup is None


def test_parameters_come_in_two_groups():
    m = make_model(Spec('ab', 2))
    body, after = captcha_splitter(m)
    assert len(body) + len(after) == len(list(m.parameters())) and len(fused_adamw([body, after], lr=1).param_lists) == 2


def test_it_learns(trained):
    assert quietly(trained, 'validate')[1] > .8


def test_predict_takes_an_image(trained):
    text, ids, logp = quietly(trained, 'predict', IMAGES[0])
    assert logp.shape == (trained.model.steps, 3) and torch.allclose(logp.exp().sum(-1), torch.ones(trained.model.steps), atol=1e-4)
    assert text == ''.join(trained.dls.vocab.decode(ids))


def test_get_preds_reads_a_whole_set(trained):
    acc = quietly(trained, 'validate')[1]
    logps, targs, decoded = quietly(trained, 'get_preds', with_decoded=True)
    decode = trained.dls.vocab.decode
    assert np.isclose(np.mean([decode(a) == decode(b) for a, b in zip(decoded, targs)]), acc)


def test_fine_tuning_goes_on_with_ctc(trained):
    learn = captcha_learner(loaders(), arch_args=trained.spec.arch_args, bf16=False)
    learn.model.load_state_dict(trained.model.state_dict())
    learn.warmup.state.update(over=True)
    learn.dls = CaptchaDataLoaders.from_lists([255-o for o in IMAGES], TEXTS, bs=8, batch_tfms=[])
    before = quietly(learn, 'validate')[0]
    quietly(learn, 'fine_tune', 4, 6e-3)
    assert learn.warmup.over and quietly(learn, 'validate')[0] < before/2


def test_an_exported_learner_reads_the_same(trained, tmp_path):
    trained.export(tmp_path/'learn.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        back = load_learner(tmp_path/'learn.pkl')
    assert quietly(back, 'predict', IMAGES[0])[0] == quietly(trained, 'predict', IMAGES[0])[0]


def test_lr_find_looks_at_the_warm_up_and_changes_nothing():
    learn = captcha_learner(loaders(), arch_args=SMALL, bf16=False)
    found = quietly(learn, 'lr_find', num_it=20, show_plot=False)
    assert 1e-6 < found.valley < 10 and (learn.loss_func.align, learn.warmup.share) == (0, 1)


@pytest.mark.parametrize('read, title, colour', [('OX', 'OX', 'green'), ('OO', 'OO (OX)', 'red'), ('', 'nothing (OX)', 'red')])
def test_results_are_green_if_right(read, title, colour):
    image = mock.Mock()
    x, y = TensorImage(torch.zeros(1, 1, 8, 8)), TensorCaptcha(torch.zeros(1, 2))
    ax, = show_results(x, y, [(image, 'OX')], [(read,)], figsize=(2, 2), nrows=1)
    assert ax.get_title() == title and ax.title.get_color() == colour and 'figsize' not in image.show.call_args.kwargs


def test_the_hardest_are_shown(trained):
    import matplotlib.pyplot as plt
    plt.close('all')
    with trained.no_bar(): Interpretation.from_learner(trained).plot_top_losses(3, figsize=(7, 2), nrows=1)
    assert [a.get_title().count(' / ') for a in plt.gcf().axes] == [2, 2, 2]


def test_an_architecture_with_wrong_arguments_is_refused():
    with pytest.raises(ModelError, match='cannot be built'): captcha_learner(loaders(), arch_args=dict(depth=3))


@pytest.mark.parametrize('arch, sizes, lr', [('crnn_small', dict(widths=(8, 16, 24, 24, 32), hidden=32), 6e-3), ('heads_small', {}, 6e-3)])
def test_empty_labels_are_learned_as_any_other(arch, sizes, lr):
    set_seed(1, reproducible=True)
    texts = [t if i % 4 else '' for i, t in enumerate(TEXTS*3)]
    images = [blocks(t) - (i % 40) for i, t in enumerate(texts)]
    learn = captcha_learner(CaptchaDataLoaders.from_lists(images, texts, bs=16, batch_tfms=[]), arch, sizes, bf16=False)
    quietly(learn, 'fit_one_cycle', 20, lr)
    valid = learn.dls.valid_captchas
    report = evaluate(model_reader(learn.model, learn.spec), [o.image for o in valid], [o.text for o in valid])
    assert np.isfinite(learn.recorder.losses).all() and '' in report.truths and report.accuracy > .9
    assert all(read == '' for truth, read in zip(report.truths, report.texts) if not truth)
