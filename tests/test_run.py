"A run's folder: written to by one run at a time, and cleared of what a killed one left"
import errno
import multiprocessing
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from torch import nn

from captcha_fastai.core import CaptchaError
from captcha_fastai.recipes.labelled import locked_run
from captcha_fastai.train import run as module
from captcha_fastai.train.checkpoint import check_room
from captcha_fastai.train.run import check_writable, locked, remove_unfinished

root = Path(__file__).resolve().parent.parent
holds = '''import sys, time
from captcha_fastai.train.run import locked
with locked(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(100)'''


@pytest.fixture
def other(tmp_path):
    "Another process that has the lock of the folder `m`"
    p = subprocess.Popen([sys.executable, '-c', holds, tmp_path/'m'], stdout=subprocess.PIPE, text=True, cwd=root)
    assert p.stdout.readline() == 'locked\n'
    yield p
    p.kill()
    p.wait()


def test_a_second_run_is_told_who_writes_to_the_folder(other, tmp_path):
    with pytest.raises(CaptchaError, match=rf'm: process {other.pid} on {platform.node()} writes to it: wait, or give --out another name$'):
        with locked(tmp_path/'m'): pass
    with locked(tmp_path/'n'): pass


def test_the_lock_of_a_killed_run_is_none(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path/'m'/'.lock').exists()
    with locked(tmp_path/'m'): assert 'process' in (tmp_path/'m'/'.lock').read_text()


@pytest.mark.parametrize('error', [None, KeyboardInterrupt])
def test_a_run_leaves_no_lock_and_no_empty_folder(tmp_path, error):
    try:
        with locked(tmp_path/'m'):
            if error: raise error
    except KeyboardInterrupt: pass
    assert not (tmp_path/'m').exists()
    with locked(tmp_path/'m'): (tmp_path/'m'/'log.csv').touch()
    assert [o.name for o in (tmp_path/'m').iterdir()] == ['log.csv']


def _count(args):
    folder, n = args
    for _ in range(n):
        while True:
            try:
                with locked(folder):
                    at = folder.parent/'count'
                    number = int(at.read_text())
                    time.sleep(.001)
                    at.write_text(str(number+1))
                break
            except CaptchaError: time.sleep(.001)


def test_two_never_have_it_together(tmp_path):
    "... though the file of the lock comes and goes"
    (tmp_path/'count').write_text('0')
    with multiprocessing.get_context('spawn').Pool(3) as pool: pool.map_async(_count, [(tmp_path/'m', 30)]*3).get(120)
    assert (tmp_path/'count').read_text() == '90'


def test_a_system_without_locks_is_said_so(tmp_path, monkeypatch):
    def flock(*_): raise OSError(errno.ENOLCK, 'No locks available')
    monkeypatch.setattr(module.fcntl, 'flock', flock)
    with pytest.warns(UserWarning, match='cannot be locked .*start only one run'):
        with locked(tmp_path/'m'): pass


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path/'m.safetensors').mkdir()
    (tmp_path/'file').touch()
    with pytest.raises(CaptchaError, match='m.safetensors is a folder: give the name of a file'): check_writable(tmp_path/'m.safetensors')
    with pytest.raises(CaptchaError, match=r'file cannot be written to \(it is a file\): give --out another name'): check_writable(tmp_path/'file'/'m.safetensors')
    check_writable(tmp_path/'new'/'folder'/'m.safetensors')
    assert not list((tmp_path/'new'/'folder').iterdir())


def test_only_what_a_run_did_not_finish_is_removed(tmp_path):
    gone = ['.m-ab_d1234.safetensors', 'm/.last-abcd1234.ckpt', 'm/pretrain/.log-abcd1234.csv', 'm/selftrain/ab/.rounds-abcd1234.ckpt']
    kept = ['m.safetensors', '.n-abcd1234.safetensors', '.m-abcd1234.onnx', '.m-abcd.safetensors', 'm/last.ckpt', 'm/.notes', 'm/.notes-abcd1234.txt', 'm/run-abcd1234.csv']
    for o in gone + kept:
        (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/o).touch()
    with locked_run(tmp_path/'m.safetensors') as run: assert run == tmp_path/'m'
    assert sorted(str(o.relative_to(tmp_path)) for o in tmp_path.rglob('*') if o.is_file()) == sorted(kept)
    remove_unfinished(tmp_path/'not there')


def test_a_disk_that_is_nearly_full_is_said_before_training(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(10**9, 10**9, 3_000_000))
    check_room(tmp_path/'m', nn.Linear(99, 100))
    with pytest.raises(CaptchaError, match='3 MB are free, but checkpoints take 32 MB: make room'): check_room(tmp_path/'m', nn.Linear(999, 1000))
