"Augmentation leaves a text readable, and validation images alone"
import numpy as np
import pytest
import torch
from fastai.vision.all import DataBlock, ImageBlock, Resize, TensorImage, tensor
from torch import Tensor

from captcha_fastai.core import Spec
from captcha_fastai.read.images import image_files, to_array
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.images import CaptchaBlock, CaptchaImageBW, TensorCaptcha
from captcha_fastai.data.augment import CaptchaAugment, Replace, sample_border


@pytest.fixture(scope='module')
def batch():
    pixels = to_array(Synth('0123456789', length=4, seed=3, size=(40, 100))(0)[1], Spec('0', 4, 40, 100, 3))
    return TensorImage(torch.from_numpy(np.stack([pixels]*8)).permute(0, 3, 1, 2)/255)


def test_each_training_image_is_changed_in_another_way(batch):
    y = CaptchaAugment()(batch, split_idx=0)
    assert (y.shape, type(y)) == (batch.shape, TensorImage)
    assert (y[0] != y[1]).any() and 0 <= y.min() and y.max() <= 1


def test_validation_images_stay_as_they_are(batch):
    assert (CaptchaAugment()(batch, split_idx=1) == batch).all()


def test_at_strength_zero_nothing_changes(batch):
    assert torch.allclose(CaptchaAugment(*[0]*7)(batch, split_idx=0), batch, atol=1e-4)


def test_the_way_round_on_older_macs_is_the_same(batch):
    grid = CaptchaAugment().grid(8, *batch.shape[2:], batch.device)*1.3
    ways = [sample_border(batch.as_subclass(Tensor), grid, native) for native in (True, False)]
    assert torch.allclose(*ways, atol=1e-5)


def test_a_data_block_with_augmentation(tmp_path):
    paths, labels = labelled(write_synth(tmp_path, 12, Synth('0123456789', length=4, seed=3, size=(40, 100))))
    block = DataBlock((ImageBlock(CaptchaImageBW), CaptchaBlock('0123456789')), get_items=image_files, get_y=dict(zip(paths, labels)).get,
                      item_tfms=Resize((40, 100), method='squish'), batch_tfms=[CaptchaAugment()])
    x, y = block.dataloaders(tmp_path, bs=8, num_workers=0).one_batch()
    assert (x.shape, y.shape) == ((8, 1, 40, 100), (8, 4))


class Blank(Replace):
    p = .5
    def draw(self): return torch.full((1, 50, 200), 255), tensor([1])


def test_a_new_image_stands_where_there_is_a_new_text_and_nowhere_else():
    b = TensorImage(torch.zeros(64, 1, 50, 200)), TensorCaptcha(torch.full((64, 3), 7))
    x, y = Blank()(b, split_idx=0)
    new = y[:, 1] == 0
    assert 16 < new.sum() < 48
    assert (x.amax((1, 2, 3)) == 1).tolist() == new.tolist()
    assert y[new].unique(dim=0).tolist() == [[1, 0, 0]]


def test_validation_images_are_not_replaced():
    b = TensorImage(torch.zeros(8, 1, 50, 200)), TensorCaptcha(torch.full((8, 3), 7))
    assert not Blank()(b, split_idx=1)[0].any()


def test_what_comes_instead_is_for_a_subclass_to_say():
    with pytest.raises(NotImplementedError): Replace().draw()
