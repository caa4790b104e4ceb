"Errors, alphabets, specifications and files that are whole or not there"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from captcha_fastai.core import check_pairs, check_range, read_text, warn_unreadable
from captcha_fastai.core import (ArchiveError, CaptchaError, Fingerprinted, ImageError, LabelError, ModelError, Resumable, Spec, Vocab,
                                 atomic_path, cache_folder, digest, lowercase, nfc)

root = Path(__file__).resolve().parent.parent
printable = st.text(st.characters(exclude_categories=('Cs', 'Cc')), min_size=1, max_size=12)
posix = pytest.mark.skipif(os.name == 'nt', reason='links and modes are of POSIX')


@pytest.fixture
def vocab(): return Vocab.from_labels(['2cg58', 'b28g'])


@pytest.mark.parametrize('error', [ImageError, LabelError, ModelError, ArchiveError])
def test_every_error_of_ours_is_a_captcha_error(error): assert issubclass(error, CaptchaError) and issubclass(error, ValueError)


def test_core_needs_nothing_but_python():
    code = '''import sys
for o in ('numpy', 'PIL', 'torch', 'fastai', 'fastcore'): sys.modules[o] = None
import captcha_fastai.core'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


@given(st.lists(printable, min_size=1, max_size=5))
def test_vocab_round_trip_of_any_script(labels):
    v = Vocab.from_labels(labels)
    for l in labels: assert v.decode(v.encode(l)) == nfc(l)
    assert v[0] == '' and len(v) == len({c for l in labels for c in nfc(l)}) + 1


def test_an_alphabet_from_labels_is_sorted(vocab): assert vocab.chars == '258bcg' and repr(vocab) == "Vocab('258bcg')"
def test_ids_are_places_in_the_alphabet(vocab): assert vocab.encode('b28') == [4, 1, 3]
def test_zeros_decode_to_nothing(vocab): assert vocab.decode([4, 0, 1, 0, 3, 0]) == 'b28'
def test_an_alphabet_keeps_the_order_it_is_given_in(): assert Vocab('天地玄黄').encode('玄天') == [3, 1]
def test_decomposed_accents_are_composed(): assert Vocab.from_labels(['e\u0301']).chars == 'é'
def test_unknown_characters_are_listed(vocab): assert vocab.unknown('b2z!') == ['z', '!']
def test_equal_alphabets_are_equal(vocab): assert vocab == Vocab('258bcg') != Vocab('258bc') and vocab != '258bcg'


@pytest.mark.parametrize('chars, why', [('abca', "'a' more than once"), ('', 'has 0 characters'), ('ab'*50_001, 'has 100002 characters')])
def test_an_alphabet_that_cannot_be_is_refused(chars, why):
    with pytest.raises(LabelError, match=why): Vocab(chars)


@pytest.mark.parametrize('text, why', [(12, 'the label 12 is int, not text'), ('caf\udce9', r'the label .caf\\udce9. is not UTF-8')])
def test_what_is_no_text_is_refused(text, why):
    for f in (nfc, lowercase):
        with pytest.raises(LabelError, match=why): f(text, 'the label ')


@pytest.mark.parametrize('text, lower', [('ΑΣ', 'ασ'), ('J\u030c', '\u01f0'), ('Ϊ\u0301', '\u0390'), ('Äb', 'äb')])
def test_lower_case_does_not_depend_on_place(text, lower): assert lowercase(text) == lower


@pytest.fixture
def spec(): return Spec('2345678bcdefgmnpwxy', max_len=5)


def test_a_spec_survives_json(spec):
    assert Spec.from_json(spec.to_json()) == spec
    other = Spec('é日', 3, 24, 48, 3, .4, .2, True, 'crnn_tiny', {'hidden': 8}, 'heads', 1.5, 2.)
    assert Spec.from_json(other.to_json()) == other and 'é日' in other.to_json()


def test_a_spec_knows_its_vocab_and_its_texts(spec):
    assert spec.vocab == Vocab(spec.chars) and spec.vocab is spec.vocab
    assert spec.text('e\u0301X') == 'éX' and Spec('x', 1, fold=True).text('E\u0301X') == 'éx'


@pytest.mark.parametrize('values, why', [
    (dict(channels=4), 'channels is 4'), (dict(width='200'), "width is '200': it must be int"), (dict(height=5000, width=5000), 'more than a million pixels'),
    (dict(max_len=0), 'max_len is 0'), (dict(height=10_001), 'height is 10001'), (dict(width=True), 'width is True'), (dict(fold=1), 'fold is 1: it must be bool'),
    (dict(decoder='CTC'), "decoder is 'CTC'"), (dict(mean=float('nan')), 'mean is nan'), (dict(mean=2e6), 'mean is 2000000.0'), (dict(std=0.), 'std is 0.0'),
    (dict(temperature=0), 'temperature is 0'), (dict(temperature=float('inf')), 'temperature is inf'), (dict(threshold=2.5), 'threshold is 2.5'),
    (dict(arch_args=[]), r'arch_args is \[\]: it must be dict'), (dict(mean='0.5'), "mean is '0.5': it must be float")])
def test_values_that_no_reader_can_have_are_refused(values, why):
    with pytest.raises(ModelError, match=f'spec: .*{why}'): Spec(**{'chars': 'ab', 'max_len': 5, **values})


def test_whole_numbers_are_numbers(): assert Spec('ab', 5, mean=0, std=1, temperature=2, threshold=1).std == 1


def test_a_spec_checks_its_alphabet():
    with pytest.raises(LabelError, match='more than once'): Spec('aba', 5)


@pytest.mark.parametrize('text, why', [
    ('{"chars":"ab", "max_len":5, "depth":7}', r"unknown entries \['depth'\]: written by a newer"), ('{', 'not JSON'), ('['*100_000, 'not JSON'),
    ('[]', "'chars' and 'max_len' must be there"), ('{"chars":"ab"}', "'chars' and 'max_len' must be there"), ('{"chars":[], "max_len":5}', 'it must be str')])
def test_json_that_is_no_spec_is_refused(text, why):
    with pytest.raises(ModelError, match=why): Spec.from_json(text)


def test_a_specification_of_version_0_1_is_read():
    old = dict(chars='0123456789', max_len=4, height=24, width=64, channels=1, mean=.5, std=.25, fold=False, arch='crnn_tiny', arch_args={}, decoder='ctc',
               temperature=1., threshold=0.)
    assert json.loads(Spec.from_json(json.dumps(old)).to_json()) == old


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path/'a.txt'
    with atomic_path(path) as tmp: tmp.write_text('whole')
    with pytest.raises(ZeroDivisionError):
        with atomic_path(path) as tmp:
            tmp.write_text('ha')
            1/0
    assert [o.name for o in tmp_path.iterdir()] == ['a.txt'] and path.read_text() == 'whole'


def test_a_full_disk_is_said_with_the_files_name(tmp_path):
    path = tmp_path/'a.txt'
    with pytest.raises(OSError) as e:
        with atomic_path(path): raise OSError(28, 'No space left on device')
    assert f"No space left on device: '{os.path.realpath(path)}" in str(e.value) and not list(tmp_path.iterdir())


def test_folders_are_made(tmp_path):
    with atomic_path(tmp_path/'a'/'b'/'c.txt') as tmp: tmp.write_text('here')
    assert (tmp_path/'a'/'b'/'c.txt').read_text() == 'here'


@posix
def test_a_link_stays_a_link_and_a_private_file_private(tmp_path):
    (tmp_path/'real').write_text('old')
    (tmp_path/'real').chmod(0o600)
    (tmp_path/'link').symlink_to(tmp_path/'real')
    with atomic_path(tmp_path/'link') as tmp: tmp.write_text('new')
    assert (tmp_path/'link').is_symlink() and (tmp_path/'real').read_text() == 'new'
    assert (tmp_path/'real').stat().st_mode & 0o777 == 0o600


@posix
def test_a_new_file_has_the_usual_mode(tmp_path):
    with atomic_path(tmp_path/'ours') as tmp: tmp.write_text('new')
    (tmp_path/'theirs').write_text('new')
    assert (tmp_path/'ours').stat().st_mode == (tmp_path/'theirs').stat().st_mode


@posix
def test_a_device_is_written_to_directly():
    with atomic_path('/dev/null') as tmp: assert str(tmp) == '/dev/null'


def test_promises_must_be_kept():
    with pytest.raises(NotImplementedError): Fingerprinted().fingerprint()
    with pytest.raises(NotImplementedError): Resumable().state_dict()
    with pytest.raises(NotImplementedError): Resumable().load_state_dict({})


def test_known_results_lie_where_they_lay():
    assert digest('a', 1, None) == '4daccdf2dc746e8240c7f06ca88392d43ceda712'
    assert digest('a', 1) != digest('a', '1') and digest('a', 1) == digest('a', 1)
    assert cache_folder('models/curve', 'a', 1) == Path('models/curve')/digest('a', 1)[:8]


# Checks that everybody needs

@pytest.mark.parametrize('limits, values, says', [((1,), dict(bs=0), 'bs is 0: it must be 1 or more'), ((0, 1), dict(p=2), 'p is 2: it must be from 0 to 1')])
def test_numbers_out_of_range_are_named(limits, values, says):
    with pytest.raises(CaptchaError, match=says): check_range(*limits, **values)


def test_numbers_in_range_and_none_pass(): check_range(0, 1, p=0, q=1, r=None)


def test_every_image_needs_its_label():
    with pytest.raises(LabelError, match='2 images but 1 labels: one each is needed'): check_pairs(['a', 'b'], ['x'])


def test_unreadable_images_are_counted_and_the_first_is_named():
    with pytest.warns(UserWarning, match='2 of 5 images cannot be read and count as wrong, such as a.png: torn'): warn_unreadable(['a.png: torn', 'b.png: torn'], 5, 'count as wrong')


@pytest.mark.parametrize('content, why', [(None, 'no such file'), (b'\xff', 'not UTF-8 text .* at byte 0')])
def test_a_text_that_cannot_be_read_is_named(tmp_path, content, why):
    if content: (tmp_path/'t.txt').write_bytes(content)
    with pytest.raises(LabelError, match=f't.txt: {why}'): read_text(tmp_path/'t.txt', LabelError)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path/'t.txt').write_bytes(b'\xef\xbb\xbfab')
    assert read_text(tmp_path/'t.txt') == 'ab'
