"Losses, their inverses and the warm-up"
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from captcha_fastai.core import Resumable
from captcha_fastai.read.ctc import best_path, text_logp
from captcha_fastai.train.losses import AlignmentWarmup, CTCLoss, HeadsLoss, close_gaps, collapse, inked_part, steps_needed, text_extent, uniform_alignment


def test_gaps_are_closed():
    ids = torch.tensor([[0, 3, 0, 5, 5], [1, 0, 0, 0, 2]])
    assert close_gaps(ids, ids != 0).tolist() == [[3, 5, 5, 0, 0], [1, 2, 0, 0, 0]]


@pytest.mark.parametrize('text, steps', [('2cc88', 7), ('', 0), ('a', 1), ([3, 3, 3], 5)])
def test_doubled_letters_need_a_step_more(text, steps): assert steps_needed(text) == steps


@pytest.mark.parametrize('path, ids', [([0, 3, 3, 0, 3, 5], [3, 3, 5, 0, 0, 0]), ([4, 4, 4, 0, 0, 0], [4, 0, 0, 0, 0, 0]), ([0]*3, [0]*3)])
def test_a_path_is_read_without_repeats_and_blanks(path, ids): assert collapse(torch.tensor([path])).tolist() == [ids]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_torch_and_numpy_read_a_path_alike(path):
    logp = np.log(np.eye(5)[path]*.9 + .02)
    assert [o for o in collapse(torch.tensor([path]))[0].tolist() if o] == best_path(logp[None])[0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 20))
def test_uniform_alignment_is_an_alignment(ids, extra):
    T = len(ids) + extra
    read = [o for o in collapse(uniform_alignment(torch.tensor([ids + [0]*3]), T))[0].tolist() if o]
    assert [k for k, _ in groupby(read)] == [k for k, _ in groupby(ids)]
    if T >= 2*len(ids): assert read == ids, 'room for a blank after each character'


def test_each_character_gets_its_share_of_the_steps():
    path = uniform_alignment(torch.tensor([[7, 8, 8, 0], [5, 0, 0, 0]]), 9)
    assert path.tolist() == [[7, 7, 0, 8, 8, 0, 8, 8, 0], [5]*6 + [0]*3]


@pytest.mark.parametrize('ground, ink', [(1., 0.), (0., 1.), (.4, .5)])
def test_the_inked_part_is_found_whatever_the_light_and_in_spite_of_a_line(ground, ink):
    x = torch.full((3, 1, 32, 128), ground)
    x[0, :, 8:24, 60:90] = ink
    x[0, :, 12, :] = ink                                    # a line through the margins
    x[1, :, 8:24, 4:120:2] = ink
    part = inked_part(x)
    assert (part[0]*128 - torch.tensor([60, 90])).abs().max() <= 4 and part[1][0] < .05 < .9 < part[1][1]
    assert part[2].tolist() == [0, 1], 'nothing in it'


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 20), st.floats(0, 1), st.floats(0, 1))
def test_an_alignment_lies_where_its_text_is(ids, extra, a, b):
    T = 2*len(ids) + extra
    targ, part = torch.tensor([ids + [0]*3]), torch.tensor([sorted((a, b))])
    (start, end), = text_extent(targ, T, part).tolist()
    path = uniform_alignment(targ, T, torch.tensor([[start, end]]))[0]
    assert [o for o in collapse(path[None])[0].tolist() if o] == ids
    assert not path[:start].any() and not path[end:].any() and path[start] == ids[0]
    assert (start, end) == (0, T) or start <= part[0, 0]*T and end >= part[0, 1]*T


def test_heads_read_what_they_say():
    truth = torch.tensor([[2, 1, 1], [3, 0, 0]])
    logits, loss = F.one_hot(truth, 4)*9., HeadsLoss(smoothing=0)
    assert loss.decodes(logits).tolist() == truth.tolist() and loss(logits, truth) < .01


@pytest.mark.parametrize('loss', [HeadsLoss, CTCLoss])
def test_a_loss_can_be_had_per_item(loss):
    logits, targ = torch.randn(2, 4, 4), torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]])
    each = loss(reduction='none')(logits, targ)
    assert each.shape == (2,)
    assert torch.equal(loss()(logits, targ), each.mean()) and torch.equal(loss(reduction='sum')(logits, targ), each.sum())


@pytest.mark.parametrize('loss', [HeadsLoss(), CTCLoss()])
def test_activation_gives_log_probabilities(loss):
    logits = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    assert torch.allclose(loss.activation(logits).exp().sum(-1), torch.ones(2, 3), atol=1e-5)
    assert torch.equal(loss.decodes(loss.activation(logits)), loss.decodes(logits))


def test_three_paths_of_four_read_a():
    assert np.isclose(CTCLoss()(torch.zeros(1, 2, 2), torch.tensor([[1]])).exp().item(), 4/3)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 6))
def test_text_probability_is_torchs(seed, ids, extra):
    T = steps_needed(ids) + extra
    logits = torch.randn(1, T, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)*3
    theirs = -F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), torch.tensor([ids]), [T], [len(ids)], reduction='sum')
    assert np.isclose(text_logp(logits.log_softmax(-1).numpy(), [ids])[0], theirs.item(), atol=1e-9)
    assert np.isclose(CTCLoss(reduction='none')(logits, torch.tensor([ids])).item()*len(ids), -theirs.item(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('align', [0., .3, 1.])
def test_a_mixture_is_of_both(align):
    logits, targ = torch.randn(3, 12, 5), torch.tensor([[1, 2, 2], [3, 0, 0], [4, 1, 0]])
    loss = CTCLoss()
    logp = loss.activation(logits)
    want = align*loss.alignment_loss(logp, targ) + (1-align)*loss.ctc_loss(logp, targ)
    loss.align = align
    assert torch.allclose(loss(logits, targ), want.mean())


def test_chance_is_seen_as_nothing_and_all_as_one():
    targ, loss = torch.tensor([[1, 3, 2]]), CTCLoss()
    perfect = F.one_hot(uniform_alignment(targ, 12), 5)*20.
    loss.alignment_loss(loss.activation(perfect), targ)
    assert loss.seen == 1
    loss.alignment_loss(loss.activation(F.one_hot(torch.ones(1, 12, dtype=torch.long), 5)*20.), targ)     # the same everywhere: one of three characters
    assert loss.seen < .2


class Run(SimpleNamespace):
    "What a warm-up asks of its learner"
    training, pct_train, n_epoch, n_iter = True, .1, 1, 1000
    xb = [torch.zeros(1, 1, 8, 64)]


def watched(seen, steps, warmup=None, **kwargs):
    warmup = warmup or AlignmentWarmup()
    warmup.learn = Run(loss_func=CTCLoss(), **kwargs)
    warmup.before_fit()
    for _ in range(steps):
        warmup.before_batch()
        warmup.ctc.seen = torch.tensor(seen)
        warmup.after_loss()
    return warmup


def test_cross_entropy_stays_until_characters_are_seen():
    warmup = watched(0., 50)
    assert warmup.share == 1 and not warmup.over and warmup.ctc.align == 1


def test_the_handover_takes_as_long_as_seeing_did_but_sixty_steps_at_least():
    warmup = watched(.3, 30)
    since = warmup.state['since']
    assert since and 0 < warmup.share < 1
    watched(.3, since + 60 - 30, warmup)
    assert warmup.over and warmup.share == 0
    late = AlignmentWarmup()
    late.state.update(step=180, since=120)
    assert late.share == .5


def test_it_hands_over_all_the_same_after_a_third_of_a_fit():
    with pytest.warns(UserWarning, match='after 1 steps no characters are seen'): warmup = watched(0., 70, pct_train=.36)
    assert warmup.over and not warmup.state['too_short']


def test_a_fit_too_short_to_tell_does_not_count():
    warmup = watched(0., 70, pct_train=.36, n_iter=70)
    assert warmup.over and warmup.state['too_short']
    warmup.before_fit()
    assert warmup.share == 1 and warmup.state == AlignmentWarmup().state


@pytest.mark.parametrize('more', [dict(training=False), dict(lr_finder=1)])
def test_only_training_counts(more):
    warmup = watched(.5, 20, **more)
    assert warmup.state == AlignmentWarmup().state


def test_validation_is_ctc():
    warmup = watched(0., 3)
    warmup.learn.training = False
    warmup.before_batch()
    assert warmup.ctc.align == 0


@pytest.mark.parametrize('event', ['after_train', 'after_cancel_train', 'after_fit'])
def test_nothing_is_aligned_after_training(event):
    warmup = watched(0., 3)
    getattr(warmup, event)()
    assert warmup.ctc.align == 0


def test_a_warm_up_goes_on_where_it_was():
    warmup, other = watched(.3, 30), AlignmentWarmup()
    assert isinstance(other, Resumable)
    other.load_state_dict(warmup.state_dict())
    assert other.state == warmup.state and other.state is not warmup.state and other.share == warmup.share
    assert AlignmentWarmup().state['step'] == 0
