"Checkpoints: everything that changes while training is kept, and no other file is taken for one"
import random

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load
from fastai.vision.all import Callback, DataLoaders, L, Learner, nn, set_seed

from captcha_fastai.core import CaptchaError, ModelError, Resumable
from captcha_fastai.train.checkpoint import (AverageWeights, Checkpoint, as_plain, check_same_settings, load_checkpoint, random_state,
                                             read_checkpoint, resumable_parts, run_checkpoint, save_checkpoint, set_random_state,
                                             naming, safetensors_bytes, weights_digest)
from helpers import StopAfter, assert_equal_weights


class Counter(Resumable, Callback):
    "Counts steps"
    n = 0
    def after_batch(self): self.n += self.training
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): self.n = state['n']


def line_learner(cbs=None):
    "A line to learn"
    set_seed(3, reproducible=True)
    x = torch.randn(48, 1)
    pairs = list(zip(x, 2*x + .1*torch.randn(48, 1)))
    dls = DataLoaders.from_dsets(pairs[:32], pairs[32:], bs=8, num_workers=0)
    return Learner(dls, nn.Sequential(nn.Linear(1, 4), nn.Dropout(.5), nn.Linear(4, 1)), nn.MSELoss(), cbs=cbs)


def fit(folder, epochs=4, resume=False, cbs=None, learn=None, **kwargs):
    learn, checkpoint = learn or line_learner(), run_checkpoint(folder, {}, resume, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 1e-2, start_epoch=checkpoint.start, cbs=[checkpoint, *L(cbs)])
    return learn


def test_what_was_saved_is_read(tmp_path):
    save_checkpoint(dict(epoch=3), tmp_path/'last.ckpt')
    assert read_checkpoint(tmp_path/'last.ckpt', 'epoch') == {'epoch': 3}


@pytest.mark.parametrize('error, why', [
    (CaptchaError('its width is 0'), 'm.pt: its width is 0$'), (FileNotFoundError('x'), 'm.pt: no such file$'),
    (KeyError('refiner'), r"m.pt: not a refiner \('refiner'\)$"), (EOFError(), r'm.pt: not a refiner \(EOFError\)$'),
    (RuntimeError('first\nsecond'), r'm.pt: not a refiner \(first\)$')])
def test_whatever_is_wrong_with_a_file_the_error_names_it(error, why):
    with pytest.raises(ModelError, match=why):
        with naming('m.pt', 'a refiner'): raise error


def test_an_interrupt_is_no_error_of_a_file():
    with pytest.raises(KeyboardInterrupt):
        with naming('m.pt', 'a refiner'): raise KeyboardInterrupt


@pytest.mark.parametrize('content', [b'', b'nonsense'])
def test_another_file_is_no_checkpoint(tmp_path, content):
    (tmp_path/'last.ckpt').write_bytes(content)
    with pytest.raises(ModelError, match=r'last.ckpt: not a checkpoint \('): read_checkpoint(tmp_path/'last.ckpt', 'epoch')
    with pytest.raises(ModelError, match='not a checkpoint'): load_checkpoint(tmp_path)


def test_without_a_file_there_is_nothing_to_resume(tmp_path, capsys):
    with pytest.raises(ModelError, match='nothing to resume'): read_checkpoint(tmp_path/'last.ckpt', 'epoch')
    assert run_checkpoint(tmp_path, {}, resume=True).start == 0
    assert capsys.readouterr().out == f'{tmp_path}: nothing to resume: it begins anew\n'


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({'other': 1}, tmp_path/'last.ckpt')
    with pytest.raises(ModelError, match='not a checkpoint of this version'): load_checkpoint(tmp_path)
    with pytest.raises(ModelError, match='not a checkpoint of this version'): read_checkpoint(tmp_path/'last.ckpt', 'settings')


def test_other_settings_are_named():
    check_same_settings('run', dict(epochs=4, lr=1), dict(epochs=4))
    with pytest.raises(ModelError, match="run: the checkpoint's epochs is 4, not 6"): check_same_settings('run', dict(epochs=4), dict(epochs=6))
    with pytest.raises(ModelError, match="epochs is None, not 6"): check_same_settings('run', {}, dict(epochs=6))


def test_a_digest_is_of_weights_names_and_spec():
    w = {'a': torch.arange(6.).view(2, 3)}
    same = weights_digest({'a': torch.arange(6.).view(2, 3)}, 'spec')
    assert same == weights_digest(w, 'spec')
    others = [({'b': w['a']}, 'spec'), ({'a': w['a'].view(3, 2)}, 'spec'), ({'a': w['a'].double()}, 'spec'), ({'a': w['a']+1}, 'spec'), (w, 'other')]
    assert same not in [weights_digest(*o) for o in others]


def test_the_same_weights_and_texts_give_the_same_bytes():
    w = {'b': torch.arange(6.).view(2, 3), 'a': torch.ones(3, dtype=torch.int8)}
    meta = {k: f'{k} "天"' for k in 'hgfedcba'}
    file = safetensors_bytes(w, meta)
    assert all(safetensors_bytes(w, dict(reversed(meta.items()))) == file for _ in range(5))
    back = load(file)
    assert all(torch.equal(back[k], w[k]) for k in w) and file.index(b'"a"') < file.index(b'"h"')
    assert (8 + int.from_bytes(file[:8], 'little')) % 8 == 0


def test_plain_values_can_be_read_safely(tmp_path):
    state = as_plain(dict(a=np.float32(.5), b=L(1, np.int64(2)), c={'y', 'x'}, d=(np.bool_(True),), e=torch.ones(2)))
    assert state['a'] == .5 and state['b'] == [1, 2] and state['c'] == ['x', 'y'] and state['d'] == (True,)
    save_checkpoint(state, tmp_path/'o')
    assert read_checkpoint(tmp_path/'o', 'a')['b'] == [1, 2]


def test_chance_comes_again():
    learn = line_learner()
    numbers = lambda: (random.random(), np.random.randn(), torch.rand(1).item(), learn.dls.train.rng.random())
    np.random.randn()                                        # numpy keeps the second number of a pair
    state = random_state(learn)
    first = numbers()
    set_random_state(learn, state)
    assert numbers() == first


@pytest.mark.parametrize('stop', [1, 2, 3])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, stop):
    whole = fit(tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): fit(tmp_path/'half', cbs=StopAfter(stop))
    resumed = fit(tmp_path/'half', resume=True)
    assert_equal_weights(whole, resumed)
    logs = [pd.read_csv(tmp_path/o/'log.csv') for o in ('whole', 'half')]
    assert [o.epoch.tolist() for o in logs] == [[0, 1, 2, 3]]*2 and logs[0].valid_loss.tolist() == logs[1].valid_loss.tolist()
    assert len(resumed.recorder.values) == 4


def test_every_resumable_part_goes_on(tmp_path):
    with pytest.raises(KeyboardInterrupt): fit(tmp_path, learn=line_learner(Counter()), cbs=StopAfter(2))
    assert load_checkpoint(tmp_path)['parts']['counter'] == {'n': 8}
    learn = line_learner(Counter())
    assert list(resumable_parts(learn)) == ['counter']
    assert fit(tmp_path, resume=True, learn=learn).counter.n == 16


def test_a_part_that_the_learner_lacks_is_passed_over(tmp_path):
    with pytest.raises(KeyboardInterrupt): fit(tmp_path, learn=line_learner(Counter()), cbs=StopAfter(2))
    fit(tmp_path, resume=True)
    assert len(pd.read_csv(tmp_path/'log.csv')) == 4


def test_a_finished_run_is_not_trained_again(tmp_path):
    whole = fit(tmp_path)
    assert_equal_weights(whole, fit(tmp_path, resume=True))


def test_a_new_run_removes_the_old_checkpoint(tmp_path, monkeypatch):
    fit(tmp_path)
    monkeypatch.setattr(Checkpoint, 'save', lambda self: 1/0)
    with pytest.raises(ZeroDivisionError): fit(tmp_path)
    assert not (tmp_path/'last.ckpt').exists()


def test_the_best_epoch_is_kept_with_its_weights(tmp_path):
    class Scores(Callback):
        order = 55
        def after_epoch(self): self.recorder.log[2] = [3., 1., 2., 4.][self.epoch]
    seen = []
    class Weights(Callback):
        def after_epoch(self): seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
    learn = fit(tmp_path, cbs=[Scores(), Weights()], best=True)
    assert load_checkpoint(tmp_path)['best']['epoch'] == 1
    for k, v in learn.model.state_dict().items(): assert torch.equal(v, seen[1][k])


def test_an_average_is_measured_and_kept(tmp_path):
    steps = []
    class Steps(Callback):
        def after_batch(self):
            if self.training: steps.append({k: v.clone() for k, v in self.model.state_dict().items()})
    learn = fit(tmp_path, cbs=[AverageWeights(), Steps()])
    for k, v in learn.model.state_dict().items(): assert torch.allclose(v, torch.stack([o[k] for o in steps]).mean(0), atol=1e-6)
    best = load_checkpoint(tmp_path)['best']
    learn.model.load_state_dict(best['model'])
    with learn.no_bar(): assert learn.validate()[0] == pytest.approx(-best['score'][1], abs=1e-5)
