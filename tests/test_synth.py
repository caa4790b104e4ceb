"Captcha number `i`, its text, its fingerprint; a folder of captchas"
import csv
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captcha_fastai.core import CaptchaError
from captcha_fastai.draw.fonts import package_fonts, sans
from captcha_fastai.draw.look import Look
from captcha_fastai.draw.synth import Synth, digits, resolve_style, rows_of, upper, write_numbers, write_synth

root = Path(__file__).resolve().parent.parent


@pytest.fixture
def synth(): return Synth('ждшя' + digits, length=(4, 6), seed=1)


@pytest.mark.parametrize('i', [0, 7, -1, 10**9])
def test_a_number_gives_the_same_captcha_each_time(synth, i):
    assert synth(i) == synth(i)
    assert synth(i)[0] == synth.text(i)


def test_a_set_can_be_pickled(synth): assert pickle.loads(pickle.dumps(synth))(7) == synth(7)
def test_texts_have_each_length(synth): assert {len(synth.text(i)) for i in range(50)} == {4, 5, 6}


@pytest.mark.parametrize('name', ['simple', 'image_captcha', 'fast_captcha', 'kaptcha', 'world', 'composed', 'hackmit'])
def test_each_style_has_the_size_you_ask_for(name):
    text, im = Synth(digits, style=name, size=(50, 150))(3)
    assert len(text) == 4 and im.size == (150, 50)


def test_styles_are_there_and_in_their_order():
    code = 'from captcha_fastai.draw.synth import styles; print(*styles)'
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ['simple', 'image_captcha', 'fast_captcha', 'kaptcha', 'world', 'composed', 'hackmit']


def test_every_second_character_is_oversampled_but_not_before_zero():
    ours = Synth(digits + upper, oversample='0O')
    def share(numbers): return np.mean([c in '0O' for i in numbers for c in ours.text(i)])
    assert share(range(500)) > .45
    assert share(range(-500, 0)) < .1


# Fingerprints

@pytest.mark.parametrize('kwargs', [
    dict(chars=digits + upper), dict(length=5), dict(length=(4, 5)), dict(style='kaptcha'), dict(style=Look()),
    dict(size=(60, 161)), dict(seed=43), dict(oversample='0'), dict(fonts=sans)])
def test_a_fingerprint_differs_if_anything_differs(kwargs):
    assert Synth(**{**dict(chars=digits), **kwargs}).fingerprint() != Synth(digits).fingerprint()


def test_a_fingerprint_differs_if_a_look_differs():
    large = Look(size=(.9, .9), rotate=30., spacing=(.75, .75))
    a, b = (Synth('ABC123', 5, look, (70, 200), seed=2) for look in (large, Look()))
    assert a.fingerprint() != b.fingerprint()


def test_a_fingerprint_does_not_depend_on_how_values_are_written():
    assert Synth(length=np.int64(5)).fingerprint() == Synth(length='5').fingerprint()
    assert Synth(digits, fonts=map(Path, package_fonts)).fingerprint() == Synth(digits).fingerprint()


# What is refused

@pytest.mark.parametrize('kwargs, why', [
    (dict(chars=digits, oversample='0é'), "'é' is not in the alphabet"),
    (dict(style='baroque'), "style 'baroque' is unknown: choose from .*, or give a file of looks"),
    (dict(style=[]), r'style is \[\]'),
    (dict(style=['simple']), r"style is \['simple'\]"),
    (dict(length=(5, 3)), r'length is \(5, 3\)'),
    (dict(length=0), 'length is 0: give a number from 1'),
    (dict(length=(4, None)), r'length is \(4, None\): give a number from 1'),
    (dict(chars='b\u0301e'), "side by side become the one character 'é'"),
    (dict(chars=' '), 'there is nothing to see'),
    (dict(chars='天7'), "cannot draw '天'"),
    (dict(chars='אב', style=[Look(), Look(fonts=sans[1:2])]), "cannot draw 'אב'"),
    (dict(chars='אב', style='hackmit'), "cannot draw 'אב'")])
def test_values_that_make_no_captcha_are_refused(kwargs, why):
    with pytest.raises(CaptchaError, match=why): Synth(**kwargs)


def test_looks_may_be_one_or_several():
    assert resolve_style(Look()) == resolve_style([Look()]) == ('composed', (Look(),))


def test_decomposed_accents_are_composed(): assert Synth('ae\u0301').chars == 'aé'


# Spaces

def test_a_space_may_be_a_character(): assert sorted(Synth('a b', style='hackmit').chars) == [' ', 'a', 'b']


def test_no_text_begins_or_ends_with_a_space():
    spaced = [Synth('ab ', length=(1, 3), seed=1).text(i) for i in range(200)]
    assert any(' ' in o for o in spaced)
    assert all(o == o.strip() for o in spaced)


def test_an_oversampled_space_is_inside():
    synth = Synth('ab ', 3, oversample=' ')
    assert all(len(synth.text(i).strip()) == 3 for i in range(100))


# Fonts

def test_fonts_are_those_of_the_style_unless_given():
    assert Synth(digits, style='kaptcha').fonts == sans
    assert Synth(digits).fonts == package_fonts
    assert Synth(digits, fonts=sans[:1]).fonts == sans[:1]


def test_fonts_go_to_a_worker_that_is_started_anew(tmp_path):
    synth = Synth('mn', style='simple', fonts=(sans[1],))
    worker = multiprocessing.get_context('spawn').Process(target=write_numbers, args=(synth, [(0, tmp_path/'0.png')]))
    worker.start()
    worker.join()
    usual = Synth('mn', style='simple')(0)[1]
    assert Image.open(tmp_path/'0.png').tobytes() == synth(0)[1].tobytes() != usual.tobytes()


# A folder

def test_a_table_names_pictures_and_labels(tmp_path):
    synth = Synth(digits, seed=5)
    rows = list(csv.reader(write_synth(tmp_path, 4, synth).open(encoding='utf-8')))
    assert rows[0] == ['name', 'label']
    assert rows[1] == [f'000000_{synth.fingerprint()}.png', synth.text(0)]
    assert len(rows) == 5 == 1 + len(list(tmp_path.glob('*.png')))


def test_only_what_is_lost_is_written_again(tmp_path):
    names = [r[0] for r in rows_of(write_synth(tmp_path, 4, Synth(digits, seed=5)))]
    times = {o: (tmp_path/o).stat().st_mtime_ns for o in names}
    lost = (tmp_path/names[1]).read_bytes()
    (tmp_path/names[1]).unlink()
    write_synth(tmp_path, 4, Synth(digits, seed=5), workers=2)
    assert (tmp_path/names[1]).read_bytes() == lost
    assert [o for o in names if (tmp_path/o).stat().st_mtime_ns != times[o]] == [names[1]]


def test_format_and_table_may_be_others(tmp_path):
    table = write_synth(tmp_path, 2, Synth(digits, seed=5), ext='jpg', table='labels.txt')
    assert table.name == 'labels.txt'
    assert [Path(name).suffix for name, _ in rows_of(table)] == ['.jpg', '.jpg']
    assert [label for _, label in rows_of(table)] == [Synth(digits, seed=5).text(i) for i in range(2)]


def test_images_of_somebody_are_left_alone(tmp_path):
    write_synth(tmp_path, 4, Synth(digits, seed=5))
    Image.new('L', (9, 9)).save(tmp_path/'7xk2.png')
    why = "holds '7xk2.png', which was not generated here: give another folder"
    with pytest.raises(CaptchaError, match=why): write_synth(tmp_path, 4, Synth(digits, seed=5))


def test_labels_of_somebody_are_not_replaced(tmp_path):
    (tmp_path/'labels.csv').write_text('name,label\nmine.png,XX\n')
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path, 2, Synth('OX', 2))
    assert (tmp_path/'labels.csv').read_text() == 'name,label\nmine.png,XX\n'
    (tmp_path/'labels.csv').write_text('mine.png,XX\n')                       # no heading
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path, 2, Synth('OX', 2))


def test_a_table_that_somebody_added_to_is_not_replaced(tmp_path):
    for n in (2, 3): table = write_synth(tmp_path, n, Synth('OX', 2))
    assert len(table.read_text().splitlines()) == 4
    with table.open('a') as f: f.write('mine.png,XX\n')      # nothing is missing, but the table is somebody's now
    with pytest.raises(CaptchaError, match="has the label of 'mine.png'"): write_synth(tmp_path, 3, Synth('OX', 2))


class Interrupted(Synth):
    def __call__(self, i):
        if i == 5: raise KeyboardInterrupt
        return super().__call__(i)


def test_after_an_interrupt_the_table_names_what_is_there(tmp_path):
    other = rows_of(write_synth(tmp_path, 3, Synth('ab', seed=5)))
    with pytest.raises(KeyboardInterrupt): write_synth(tmp_path, 9, Interrupted(digits, seed=5))
    synth = Synth(digits, seed=5)
    written = [[f'{i:06}_{synth.fingerprint()}.png', synth.text(i)] for i in range(5)]
    assert rows_of(tmp_path/'labels.csv') == other + written
