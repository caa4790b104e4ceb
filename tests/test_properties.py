"Properties that hold for any input of a kind"
import io
import warnings
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from PIL import Image

from captcha_fastai.core import ImageError, Spec, Vocab, nfc
from captcha_fastai.read.images import open_image, prep, to_array
from captcha_fastai.read.ctc import best_path, text_logp
from captcha_fastai.judge.report import Report
from captcha_fastai.train.losses import CTCLoss, collapse, steps_needed, uniform_alignment
from captcha_fastai.train.metrics import align, edit_distance, wilson

printable = st.text(st.characters(exclude_categories=('Cs', 'Cc')), min_size=1, max_size=12)


@given(st.lists(printable, min_size=1, max_size=5))
def test_vocab_round_trip_of_any_script(labels):
    v = Vocab.from_labels(labels)
    for l in labels: assert v.decode(v.encode(l)) == nfc(l)
    assert v[0] == '' and len(v) == len({c for l in labels for c in nfc(l)}) + 1


@given(st.sampled_from(['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'LAB', 'I', 'F', 'I;16']), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_any_mode_and_size_is_prepared(mode, w, h, channels):
    spec = Spec('ab', 2, height=8, width=20, channels=channels)
    x = prep(Image.new(mode, (w, h)), spec)
    assert x.shape == (channels, 8, 20) and x.dtype == np.float32 and np.isfinite(x).all()


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP']))
def test_mangled_files_raise_only_image_errors(junk, at, fmt):
    b = io.BytesIO()
    Image.effect_noise((20, 10), 50).convert('RGB').save(b, fmt)
    data = bytearray(b.getvalue())
    data[at:at+len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: to_array(bytes(data), Spec('ab', 2))
        except ImageError: pass


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_torch_and_numpy_read_a_path_alike(path):
    logp = np.log(np.eye(5)[path]*.9 + .02)
    assert [o for o in collapse(torch.tensor([path]))[0].tolist() if o] == best_path(logp[None])[0]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 20))
def test_uniform_alignment_is_an_alignment(ids, extra):
    T = len(ids) + extra
    read = [o for o in collapse(uniform_alignment(torch.tensor([ids + [0]*3]), T))[0].tolist() if o]
    assert [k for k, _ in groupby(read)] == [k for k, _ in groupby(ids)]
    if T >= 2*len(ids): assert read == ids, 'room for a blank behind each character'


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 6))
def test_text_probability_is_torchs(seed, ids, extra):
    T = steps_needed(ids) + extra
    logits = torch.randn(1, T, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)*3
    theirs = -F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), torch.tensor([ids]), [T], [len(ids)], reduction='sum')
    assert np.isclose(text_logp(logits.log_softmax(-1).numpy(), [ids])[0], theirs.item(), atol=1e-9)
    assert np.isclose(CTCLoss(reduction='none')(logits, torch.tensor([ids])).item()*len(ids), -theirs.item(), rtol=1e-4, atol=1e-4)


@given(st.text('abc', max_size=8), st.text('abc', max_size=8), st.text('abc', max_size=8))
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a) >= abs(len(a)-len(b))
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert ''.join(x for x, _ in align(a, b)) == a and ''.join(y for _, y in align(a, b)) == b


@given(st.lists(st.tuples(st.text('ab', min_size=1, max_size=4), st.text('ab', max_size=4)), max_size=20))
def test_report_adds_up(rows):
    r = Report([t for t, _ in rows], [o for _, o in rows])
    lo, hi = r.interval
    assert 0 <= lo <= hi <= 1 and (r.n == 0 or lo - 1e-9 <= r.accuracy <= hi + 1e-9)
    assert (r.cer == 0) == (r.right == r.n) and len(r.worst(100)) == r.n - r.right
    assert str(r)


def test_wilson_shrinks_with_more_images():
    widths = [np.diff(wilson(round(.97*n), n)) for n in (100, 1000, 10_000)]
    assert widths[0] > widths[1] > widths[2]


def test_open_image_turns_upright():
    im = Image.new('L', (6, 2)); im.getexif()[274] = 6
    b = io.BytesIO(); im.save(b, 'JPEG', exif=im.getexif())
    assert open_image(b.getvalue()).size == (2, 6)
