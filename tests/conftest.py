"What several test files share"
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from captcha_fastai.core import Spec
from captcha_fastai.data.labels import labelled
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.read.reader import Reader

scripts = Path(sys.executable).parent


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    "48 small captchas, labels in a table and in their names"
    d = tmp_path_factory.mktemp('data')
    table = write_synth(d/'table', 48, Synth('OX7', length=(2, 3), size=(24, 48), seed=1))
    (d/'names').mkdir()
    for p, l in zip(*labelled(table)): shutil.copy(p, d/'names'/f'{l}_{p.name}')
    return d


@pytest.fixture
def abc_reader():
    "Reads `abc` whatever it is shown"
    spec = Spec('abc123', 3, 8, 24, arch='heads_small', decoder='heads')
    def logp(x):
        y = np.full((len(x), 3, 7), -8., np.float32)
        y[:, range(3), [1, 2, 3]] = -.01
        return y - np.logaddexp.reduce(y, -1, keepdims=True)
    return Reader(logp, spec)


@pytest.fixture
def sh(monkeypatch, capfd):
    "Run an installed command in this process: (standard output, standard error)"
    def run(*args, cwd, rc=0):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, 'argv', list(map(str, args)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as e: runpy.run_path(str(scripts/args[0]), run_name='__main__')
        out, err = capfd.readouterr()
        assert (e.value.code or 0) == rc, out + err
        assert 'Traceback' not in err, err
        return out, err
    return run
