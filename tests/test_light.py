"Commands without torch: what is typed, what streams, what is kept, and how they end"
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from captcha_fastai import light, start
from captcha_fastai.command import arguments, is_cli
from captcha_fastai.core import CaptchaError
from captcha_fastai.read.terminal import one_line, quoted, visible
from captcha_fastai.recipes.reading import growing_table, json_list
from captcha_fastai.recipes.result import command_line

root = Path(__file__).resolve().parent.parent
onnx = root/'tests'/'data'/'version_0_1_crnn_tiny.onnx'
heavy = 'torch', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba', 'onnx', 'captcha'
code = '''import sys
for o in sys.argv.pop(1).split(): sys.modules[o] = None
name = sys.argv[0] = sys.argv.pop(1)
from captcha_fastai import start
sys.exit(getattr(start, name.replace('-', '_'))())'''


def typed(*args, without=heavy, env=(), **how):
    "A command as a process of its own, in which some packages cannot be imported"
    words = [sys.executable, '-c', code, ' '.join(without), *map(os.fspath, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env={**os.environ, 'PYTHONPATH': str(root), **dict(env)},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **how)


def done(*args, stdin=b'', **how):
    "(exit code, standard output, standard error) of a command"
    p = typed(*args, stdin=subprocess.PIPE, **how)
    out, err = p.communicate(stdin)
    assert b'Traceback' not in err, err
    return p.returncode, out.decode(), err.decode()


@pytest.fixture
def images(tmp_path):
    "A folder of images whose names are labels of four digits"
    (tmp_path/'d').mkdir()
    for i in range(1000, 9000, 200): Image.new('L', (64, 24), i % 249).save(tmp_path/'d'/f'{i}.png')
    return tmp_path/'d'


# Without torch

def test_an_onnx_file_is_read_and_evaluated_where_torch_cannot_be_imported(images):
    rc, out, _ = done('captcha-read', onnx, images/'1000.png', '--length', '4')
    assert rc == 0 and out.startswith(f"{images/'1000.png'}\t")
    rc, out, _ = done('captcha-evaluate', onnx, images, '--json')
    assert rc == 0 and json.loads(out)['n'] == 40


def test_an_onnx_file_is_read_without_importing_torch_where_it_is(images):
    look = "import sys, captcha_fastai.start as s; sys.argv[1:] = [*sys.argv[1:]]\ns.captcha_read()\nassert not {'torch', 'fastai', 'fastcore'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', look, onnx, images/'1000.png'], check=True, env={**os.environ, 'PYTHONPATH': str(root)})


@pytest.mark.parametrize('words, why', [(('captcha-read', 'base', '1000.png'), 'this model (an ONNX file does not) needs all of captcha_fastai'),
                                        (('captcha-train', '.'), 'this command needs all of captcha_fastai')])
def test_what_needs_torch_says_so_in_a_line(images, words, why):
    rc, out, err = done(*words, cwd=images)
    assert (rc, out, len(err.splitlines())) == (2, '', 1) and err.startswith(words[0]) and why in err


# What is typed

@pytest.mark.parametrize('words, paths', [(['m', '--', '-x.png'], ['-x.png']), (['--', '-m', '--nbest'], ['--nbest']), (['m', 'a', '--nbest', '2', 'b'], ['a', 'b']),
                                          (['--nbest', '2', 'm', '-', '--', '--', 'a'], ['-', '--', 'a']), (['m'], [])])
def test_options_stand_anywhere_and_nothing_is_one_after_two_dashes(words, paths):
    def f(model:str, *paths:str, nbest:int=1): pass
    assert arguments(f, words)[0][1:] == paths


def test_a_function_called_from_python_is_no_command(images):
    assert not is_cli()
    readings = light.captcha_read(onnx, images/'1000.png')
    assert [r.name for r in readings] == [str(images/'1000.png')]
    with pytest.raises(CaptchaError, match='no images'): light.captcha_read(onnx)


def test_every_command_can_be_started():
    words = (root/'settings.ini').read_text(encoding='utf-8').split('console_scripts = ')[1].split()
    assert all(callable(getattr(start, word.split(':')[1])) for word in words if '=captcha_fastai.' in word)


def test_an_image_comes_through_standard_input(images):
    rc, out, _ = done('captcha-read', onnx, images/'1200.png', '-', '--length', '4', stdin=(images/'1200.png').read_bytes())
    (first, *read), (name, *same) = [o.split('\t') for o in out.splitlines()]
    assert rc == 0 and name == '-' and read == same
    rc, out, err = done('captcha-read', onnx, '-')
    assert (rc, out) == (1, '') and 'captcha-read: -: not an image' in err


# Names

ODD = ['a\nb.png', 'tab\t.png', '\x1b[31mred.png', 'été ü.png', '日本.png', '-x.png', "it's.png", os.fsdecode(b'caf\xe9.png')]


@pytest.mark.parametrize('env', [dict(LANG='C', LC_ALL='C'), dict(LC_ALL='POSIX'), dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'), dict(PYTHONIOENCODING='cp1252')],
                         ids=['C', 'POSIX', 'no UTF-8 mode', 'cp1252'])
def test_a_reading_is_one_line_whatever_a_file_is_called_and_whatever_the_locale(images, tmp_path, env):
    for name in ODD: shutil.copy(images/'1000.png', tmp_path/name)
    rc, out, err = done('captcha-read', onnx, '--', *ODD, cwd=tmp_path, env=env.items())
    assert rc == 0 and len(out.splitlines()) == len(ODD) and len(err.splitlines()) == 1
    assert '\x1b' not in out + err
    if 'PYTHONUTF8' not in env: assert 'été ü.png\t' in out and '日本.png\t' in out


@pytest.mark.parametrize('name', ODD)
def test_a_name_that_is_shown_can_be_pasted(name):
    if not shutil.which('bash'): pytest.skip('no bash')
    out = subprocess.run(['bash', '-c', command_line('printf', '%s', name)], capture_output=True, check=True).stdout
    assert os.fsdecode(out) == name
    assert quoted(name).isprintable() and (not name.isprintable() or quoted(name) == name)


def test_names_in_json_and_in_a_table_are_what_they_are(images, tmp_path):
    odd = ['a\nb.png', '\x9b31m.png', 'été.png']
    for name in odd: shutil.copy(images/'1000.png', tmp_path/name)
    rc, out, _ = done('captcha-read', onnx, *odd, '--json', '--csv', 't.csv', cwd=tmp_path)
    assert [o['name'] for o in json.loads(out)] == odd
    with open(tmp_path/'t.csv', newline='', encoding='utf-8') as f: assert [row[0] for row in csv.reader(f)] == ['name', *odd]


def test_what_a_terminal_obeys_is_an_escape_and_json_is_the_same():
    assert visible('\x1b[2J\u202e') == r'\u001b[2J\u202e' and visible('a\tb\n日é') == 'a\tb\n日é'
    assert json.loads(visible(json.dumps('\x9b', ensure_ascii=False))) == '\x9b'
    assert one_line('a\nb') == r'a\nb'


def test_a_broken_image_with_an_odd_name_is_one_line(tmp_path):
    (tmp_path/'to\x1b[2J\nrn.png').write_bytes(b'torn')
    rc, _, err = done('captcha-read', onnx, 'to\x1b[2J\nrn.png', cwd=tmp_path)
    assert rc == 1 and len(err.splitlines()) == 2 and '\x1b' not in err


# Readings as they come

def test_readings_come_before_the_last_image_is_read(images):
    many = [images/'1000.png']*3000
    p = typed('captcha-read', onnx, *many, '--length', '4')
    assert p.stdout.readline().endswith(b'\n') and p.poll() is None
    p.send_signal(signal.SIGINT)
    out, err = p.communicate()
    assert p.returncode == 130 and b'captcha-read: interrupted after' in err and len(err.splitlines()) == 1


@pytest.mark.parametrize('words, table, rows', [(('captcha-read', onnx, *['d']*100, '--csv', 't.csv'), 't.csv', 16),
                                                (('captcha-evaluate', onnx, 'many.csv', '--errors', 't.csv'), 't.csv', 1)], ids=['read', 'evaluate'])
def test_what_was_read_is_kept_when_interrupted(images, words, table, rows):
    home = images.parent
    (home/'many.csv').write_text('\n'.join(f'd/{1000+i%40*200}.png,{1000+i%40*200}' for i in range(4000)))
    p = typed(*words, '--length', '4', cwd=home)
    part = home/f'{table}.part'
    while p.poll() is None and not (part.exists() and len(part.read_text().splitlines()) > rows): time.sleep(.05)
    p.send_signal(signal.SIGINT)
    err = p.communicate()[1].decode()
    assert p.returncode == 130 and err.endswith(f' of 4000 images; what was written of {table} is in {part}\n') and len(err.splitlines()) == 1
    n = int(err.split('interrupted after ')[1].split()[0])
    assert rows <= len(list(csv.reader(part.open(newline='')))) <= n + 2 and not (home/table).exists()


def test_json_is_whole_after_an_interrupt(images):
    p = typed('captcha-read', onnx, *[images]*100, '--json', '--length', '4')
    begin = p.stdout.readline()
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate()
    assert p.returncode == 130 and 0 < len(json.loads(begin + out)) < 4000


def test_an_empty_json_list_is_one():
    said = []
    with json_list(lambda text, end='\n': said.append(text + end)): pass
    assert json.loads(''.join(said)) == []


def test_a_table_that_cannot_be_written_is_said_before_an_image_is_read(images):
    rc, out, err = done('captcha-read', onnx, images, '--csv', images)
    assert (rc, out) == (2, '') and 'Is a directory' in err and len(err.splitlines()) == 1
    rc, out, err = done('captcha-evaluate', onnx, images, '--errors', images/'1000.png'/'t.csv')
    assert (rc, out) == (2, '') and len(err.splitlines()) == 1


def test_a_table_that_was_never_begun_leaves_nothing(tmp_path):
    with pytest.raises(KeyError):
        with growing_table(tmp_path/'t.csv', ['name']): raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_table_that_stops_says_where_it_is(tmp_path):
    with pytest.warns(UserWarning, match='what was written of t.csv is in .*t.csv.part'), pytest.raises(KeyError):
        with growing_table(tmp_path/'t.csv', ['name']) as write:
            write(['a'])
            raise KeyError
    assert (tmp_path/'t.csv.part').read_text().split() == ['name', 'a']


def test_a_table_goes_to_standard_output_too(images):
    rc, out, _ = done('captcha-read', onnx, images, '--csv', '/dev/stdout')
    assert rc == 0 and len(out.splitlines()) == 41


def test_all_errors_are_in_a_table(images, tmp_path):
    rc, out, _ = done('captcha-evaluate', onnx, images, '--length', '4', '--errors', tmp_path/'e.csv')
    heading, *rows = csv.reader((tmp_path/'e.csv').open(newline='', encoding='utf-8'))
    assert heading == ['name', 'label', 'text', 'confidence', 'accepted', 'error'] and all(row[1] != row[2] for row in rows)
    wrong = 40 - int(out.split('captchas ')[1].split('(')[1].split('/')[0])
    assert rc == 0 and len(rows) == wrong and f'All {wrong} errors are in' in out


# How they end

@pytest.mark.parametrize('without, words', [((), ('captcha-train', '.')), ((), ('captcha-export', 'm.safetensors')), ((), ('captcha-read', 'base', '1000.png')),
                                            (heavy, ('captcha-read', onnx, '1000.png'))], ids=lambda o: o[0] if o and o != heavy else '')
@pytest.mark.parametrize('what', ['captcha_fastai.core', 'numpy'])
def test_an_interrupt_while_it_starts_is_one_line(images, without, words, what):
    "The signal comes from within an import, where a library would turn an exception into another"
    stop = f'''import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name != {what!r}: return
        try: os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt: raise ImportError('made of an interrupt')
sys.meta_path.insert(0, Interrupt())
'''
    p = subprocess.run([sys.executable, '-c', stop+code, ' '.join(without), *words], cwd=images, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(root)},
                       preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert (p.returncode, p.stdout, p.stderr) == (130, '', f'{words[0]}: interrupted\n')


@pytest.mark.parametrize('words', [('captcha-read', onnx, *['d']*100), ('captcha-read', onnx, *['d']*100, '--json'), ('captcha-read', '--help')], ids=['lines', 'json', 'help'])
def test_a_closed_pipe_ends_it_quietly(images, words):
    p = typed(*words, cwd=images.parent)
    p.stdout.readline()
    p.stdout.close()
    assert p.stderr.read() == b''
    p.wait()
