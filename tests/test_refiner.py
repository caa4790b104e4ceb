"The nets of SimGAN, and their memory of earlier images"
import io

import pytest
import torch

from captcha_fastai.core import ModelError
from captcha_fastai.train.refiner import HistoryBuffer, PatchDiscriminator, Refiner, ResidualBlock, patch_loss, share_called_real


def numbered(*numbers): return torch.tensor(numbers).view(-1, 1, 1, 1)
def numbers(images): return images.flatten().tolist()


@pytest.mark.parametrize('channels', [1, 3])
def test_a_new_refiner_changes_nothing(channels):
    x = torch.rand(2, channels, 50, 100)*2 - 1
    assert (Refiner(channels)(x) == x).all()


def test_the_refiner_of_the_paper_begins_with_noise_of_the_same_size():
    x = torch.rand(2, 3, 50, 100)*2 - 1
    y = Refiner(identity=False)(x)
    assert y.shape == x.shape and (y != x).any() and y.abs().max() <= 1


@pytest.mark.parametrize('blocks', [1, 4])
def test_a_pixel_depends_on_two_neighbours_a_block_and_one_more(blocks):
    torch.manual_seed(0)
    x = torch.randn(1, 1, 41, 41, requires_grad=True)
    Refiner(1, 8, blocks, identity=False)(x)[0, 0, 20, 20].backward()
    seen = (x.grad[0, 0].abs() > 0).nonzero()
    assert seen.min() >= 20-1-2*blocks and seen.max() <= 20+1+2*blocks


@pytest.mark.parametrize('args', [(2, 64, 4), (1, 0, 4), (1, 4096, 4), (3, 64, 0), (3, 64, 33)])
def test_a_refiner_of_impossible_size_is_refused(args):
    with pytest.raises(ModelError, match=f'a refiner of {args[0]} channels, width {args[1]}, {args[2]} blocks: give 1 or 3'): Refiner(*args)


def test_a_refiner_knows_what_it_was_made_with(): assert Refiner(**Refiner(1, 8, 2, False).args).args == dict(channels=1, width=8, blocks=2, identity=False)


def test_a_residual_block_keeps_the_shape(): assert ResidualBlock(8)(torch.zeros(2, 8, 5, 7)).shape == (2, 8, 5, 7)


def test_verdicts_are_on_patches(): assert PatchDiscriminator()(torch.zeros(2, 3, 50, 100)).shape == (2, 2, 11, 23)


def test_a_sure_verdict_costs_nothing_if_right_and_much_if_wrong():
    sure = torch.stack([torch.full((1, 4, 4), -9.), torch.full((1, 4, 4), 9.)], 1)
    assert patch_loss(sure, True) < 1e-6 and patch_loss(sure, False) > 17
    assert share_called_real(sure) == 1 and share_called_real(-sure) == 0


def test_the_history_fills_to_its_size_and_then_replaces():
    history = HistoryBuffer(10)
    batches = [torch.arange(8*k, 8*k+8.).view(8, 1, 1, 1) for k in range(5)]
    mixed = [numbers(history.mix(batches[0]))]
    assert len(history) == 4
    mixed += [numbers(history.mix(o)) for o in batches[1:]]
    assert len(history) == 10
    assert mixed[0] == numbers(batches[0])
    assert [sum(v < 8*k for v in mixed[k]) for k in range(1, 5)] == [4]*4
    assert max(numbers(history.images)) >= 32, 'new ones replace old ones once it is full'


def test_a_history_without_room_keeps_nothing():
    history = HistoryBuffer(0)
    for _ in range(2): assert numbers(history.mix(numbered(1, 2, 3, 4))) == [1, 2, 3, 4]
    assert len(history) == 0


def test_a_single_image_is_kept_and_given_back():
    history = HistoryBuffer(2)
    assert numbers(history.mix(numbered(1))) == [1] and numbers(history.images) == [1]


def test_a_history_goes_on_from_its_state():
    a, b = HistoryBuffer(10), HistoryBuffer(10, seed=7)
    for k in range(3): a.mix(torch.arange(8*k, 8*k+8.).view(8, 1, 1, 1))
    whole = io.BytesIO()
    torch.save(a.state_dict(), whole)
    whole.seek(0)
    b.load_state_dict(torch.load(whole, weights_only=True))
    new = torch.arange(24., 32).view(8, 1, 1, 1)
    assert numbers(a.mix(new)) == numbers(b.mix(new)) and numbers(a.images) == numbers(b.images)


def test_a_history_that_became_smaller_goes_on():
    history = HistoryBuffer(2)
    history.images = numbered(1, 2, 3, 4)
    history.keep(numbered(9, 9))
    assert len(history) == 4 and numbers(history.images).count(9) == 2
