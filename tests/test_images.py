"Anything that holds an image, and files that mean harm"
import base64
import io
import json
import os
import random
import urllib.parse
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from captcha_fastai.core import ArchiveError, CaptchaError, ImageError, Opening, Spec
from captcha_fastai.read import archives, images
from captcha_fastai.read.images import (encoded, encoded_bytes, image_files, image_fingerprint, image_formats, image_name,
                                        open_image, prep, scale, to_array)
from captcha_fastai.read.archives import images_in, json_images, zip_images

modes = ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'LAB', 'I', 'F', 'I;16']


def as_file(im, fmt, **kw):
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()


png = as_file(Image.effect_noise((64, 64), 50), 'PNG')
text = base64.b64encode(png).decode()
url_safe = text.replace('+', '-').replace('/', '_').rstrip('=')


def mangled(data, seed):
    "`data` with some bytes changed, left out, doubled or cut off"
    rng, data = random.Random(seed), bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data)+1)
        n = min(rng.choice([1, 1, 4, 64]), len(data)-at)
        data[at:at+n] = rng.choice([rng.randbytes(n), b'', data[at:at+n]*2, b'\xff'*n, b'\0'*n])
    return bytes(data[:rng.randrange(len(data)+1)] if rng.random() < .2 else data)


def with_checksums(data):
    "A PNG whose chunks have right checksums, so that what is in them is decoded"
    from zlib import crc32
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        n = int.from_bytes(data[at:at+4], 'big')
        body = data[at+4:at+8+n]
        out += data[at:at+4] + body + crc32(body).to_bytes(4, 'big')
        at += 12 + n
    return bytes(out)


def test_data_urls_are_decoded():
    assert encoded_bytes('data:image/png;base64,iVBORw==') == b'\x89PNG'
    assert encoded_bytes('data:,hi%20there, you') == b'hi there, you'


def test_short_texts_and_files_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'A'*80
    assert (encoded('QUJD'), encoded(Path('a')), encoded(b'QUJD'*40), encoded(name)) == ('', '', '', 'base64')
    Path(name).touch()
    assert encoded(name) == ''


@pytest.mark.parametrize('src, name', [('a/b.png', 'a/b.png'), (Path('c.gif'), 'c.gif'), (b'GIF', '<bytes>'), ('data:,x', '<data URL>'), ('QUJD'*40, '<base64>'),
                                       ('.'*400, '.'*300 + '...'), (np.zeros(2), '<ndarray>')])
def test_messages_call_an_image_by_its_name(src, name): assert image_name(src) == name


def test_transparency_is_white():
    clear = Image.new('RGBA', (4, 2), (0, 0, 0, 0))                   # black, but fully transparent: a browser shows white
    assert np.unique(open_image(clear)) == [255]


def test_16_bits_become_8():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert np.asarray(open_image(as_file(deep, 'PNG'))).tolist() == [[0, 127, 255]]
    small = Image.fromarray(np.array([[0, 7, 255]], np.uint16))
    assert np.asarray(open_image(small)).tolist() == [[0, 7, 255]]


@pytest.mark.parametrize('most', [1, 255])
def test_pictures_of_floats_are_not_black(most, tmp_path):
    Image.fromarray(np.linspace(0, most, 240, dtype=np.float32).reshape(10, 24)).save(tmp_path/'o.tiff')
    assert np.asarray(open_image(tmp_path/'o.tiff')).max() == 255


def test_a_picture_of_nothing_but_nan_is_black(tmp_path):
    Image.fromarray(np.full((10, 24), np.nan, np.float32)).save(tmp_path/'o.tiff')
    assert np.asarray(open_image(tmp_path/'o.tiff')).max() == 0


@pytest.mark.parametrize('bits, most', [(8, 255), (10, 1023), (12, 4095), (14, 16383)])
def test_of_16_bits_as_many_are_read_as_are_filled(bits, most):
    x = np.array([[0, 1, most//2, most, 65535]], np.uint16)
    for src in (x, as_file(Image.fromarray(x), 'PNG'), as_file(Image.fromarray(x), 'TIFF')):
        assert np.asarray(open_image(src, opening=Opening(bits=bits))).tolist() == [[0, 255//most, 127, 255, 255]]


def test_the_ground_is_under_what_is_transparent():
    ghost = Image.fromarray(np.dstack([np.full((1, 2), 255, np.uint8), np.array([[0, 255]], np.uint8)]))
    assert np.asarray(open_image(ghost, 'L')).tolist() == [[255, 255]]
    assert np.asarray(open_image(ghost, 'L', Opening(ground='black'))).tolist() == [[0, 255]]


def frames(*greys):
    "A picture each, of these values"
    return [Image.fromarray(np.array([o], np.uint8)) for o in greys]


def animation(fmt, *greys):
    first, *more = [o.convert('RGB') for o in frames(*greys)]
    return as_file(first, fmt, save_all=True, append_images=more, **(dict(lossless=True) if fmt == 'WEBP' else {}))


@pytest.mark.parametrize('fmt', ['GIF', 'PNG', 'WEBP'])
def test_the_frame_of_an_animation_goes_by_the_rule(fmt):
    data = animation(fmt, [250, 250, 250], [10, 250, 250], [250, 20, 250])
    read = lambda src, frame: np.asarray(open_image(src, 'L', Opening(frame=frame))).tolist()[0]
    assert [read(data, o) for o in ('first', 'last', 'darkest')] == [[250, 250, 250], [250, 20, 250], [10, 20, 250]]
    im = Image.open(io.BytesIO(data))
    im.seek(1)
    assert read(im, 'last') == [250, 20, 250] and im.tell() == 1               # yours stays where it was
    assert open_image(data, opening=Opening(frame='last')).mode == 'RGB'


def test_on_dark_paper_the_lightest_value_counts_and_a_flash_does_not():
    light = animation('PNG', [0, 0, 0, 0], [0, 200, 0, 0], [255, 255, 255, 255], [0, 0, 220, 0])
    assert np.asarray(open_image(light, 'L', Opening(frame='darkest'))).tolist() == [[0, 200, 220, 0]]


def test_endless_animations_are_read_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(images, 'max_frames', 2)
    assert np.asarray(open_image(animation('PNG', [250, 9], [250, 8], [250, 7]), 'L', Opening(frame='last'))).tolist() == [[250, 8]]


def test_pages_of_a_scan_are_no_animation():
    first, last = frames([1], [2])
    pages = as_file(first, 'TIFF', save_all=True, append_images=[last])
    assert np.asarray(open_image(pages, opening=Opening(frame='last'))) == [[1]]


def test_a_spec_tells_how_an_image_is_opened():
    spec = Spec('ab', 2, 1, 2, frame='last', bits=12, ground='black')
    assert to_array(animation('GIF', [250, 250], [0, 250]), spec).flatten().tolist() == [0, 250]
    assert to_array(np.array([[0, 4095]], np.uint16), spec).flatten().tolist() == [0, 255]
    assert to_array(Image.new('LA', (2, 1)), spec).flatten().tolist() == [0, 0]


def test_the_first_frame_is_taken():
    frames = [Image.new('P', (3, 3), i) for i in (0, 200)]
    assert open_image(as_file(frames[0], 'GIF', save_all=True, append_images=frames[1:])).size == (3, 3)


def test_a_jpeg_for_a_printer_becomes_rgb(): assert open_image(as_file(Image.new('CMYK', (3, 3)), 'JPEG')).mode == 'RGB'
def test_an_array_with_one_channel_is_grey(): assert open_image(np.zeros((2, 5, 1), np.uint8)).size == (5, 2)


red = np.full((5, 6, 3), (200, 20, 30), np.uint8)


def test_arrays_of_opencv_are_read_in_their_order():
    bgr = red[..., ::-1]
    for src in (bgr, np.dstack([bgr, np.full((5, 6), 255, np.uint8)]), torch.from_numpy(bgr.copy()).permute(2, 0, 1)):
        assert (np.asarray(open_image(src, 'RGB', channel_order='bgr')) == red).all()
    for src in (red[..., 0], as_file(Image.fromarray(red), 'PNG'), Image.fromarray(red)):             # have no such order, or know it
        assert (np.asarray(open_image(src, channel_order='bgr')) == np.asarray(open_image(src))).all()
    with pytest.raises(ImageError, match="channel_order is 'gbr': give 'rgb', or 'bgr'"): open_image(red, channel_order='gbr')


@pytest.mark.parametrize('src', [torch.from_numpy(red), torch.from_numpy(red).permute(2, 0, 1), torch.from_numpy(red).permute(2, 0, 1)/255,
                                 torch.from_numpy(red).permute(2, 0, 1).half()/255, torch.from_numpy(red/255).permute(2, 0, 1).requires_grad_()])
def test_a_tensor_is_an_image(src): assert np.abs(np.asarray(open_image(src)).astype(int) - red).max() <= 1


def test_a_grey_tensor_is_an_image(): assert open_image(torch.zeros(1, 4, 6)).size == open_image(torch.zeros(4, 6)).size == (6, 4)


@pytest.mark.parametrize('src, why', [(torch.full((4, 6), -2.), '<Tensor>: tensor of values from -2 to -2: give uint8, or floats from 0 to 1'),
                                      (torch.full((4, 6), torch.nan), 'from nan to nan'), (torch.zeros(2, 3, 4, 6), r'shape \(2, 3, 4, 6\)'),
                                      (torch.zeros(4, 6, dtype=torch.long), 'array of int64')])
def test_tensors_that_are_no_images_say_so(src, why):
    with pytest.raises(ImageError, match=why): open_image(src)


def test_a_camera_says_which_side_is_up():
    im = Image.new('L', (6, 2))
    im.getexif()[274] = 6
    assert open_image(as_file(im, 'JPEG', exif=im.getexif())).size == (2, 6)


@pytest.mark.parametrize('src', [text, url_safe, base64.encodebytes(png).decode(), f'data:image/png;base64,{text}',
                                 f'data:image/png;base64,{urllib.parse.quote(text)}', io.BytesIO(png), bytearray(png), memoryview(png),
                                 text.encode(), bytearray(url_safe.encode()), base64.encodebytes(png), f'data:image/png;base64,{text}'.encode()])
def test_every_kind_of_input_is_the_same_image(src): assert (np.asarray(open_image(src)) == np.asarray(open_image(png))).all()


@pytest.mark.parametrize('src, why', [
    ('nowhere.png', 'nowhere.png: no such file'), ('.', 'a folder, not an image'), (b'GIF, or so it says', 'not an image of a known format'),
    (as_file(Image.new('L', (9, 9)), 'EPS'), 'not an image of a known format'), (png[:2000], 'not a readable image'), ('QUJD'*40, '<base64>'),
    (Image.new('1', (20_000, 20_000)), 'from 1 to 16777216 are read'), (np.zeros((2, 5)), 'array of float64'),
    (np.zeros((2, 5, 7), np.uint8), r'shape \(2, 5, 7\)'), (np.zeros((5, 0), np.uint8), '0x5 pixels'), (None, '<NoneType>: not a readable image')])
def test_what_cannot_be_opened_says_so(src, why):
    with pytest.raises(ImageError, match=why): open_image(src)


def test_a_bomb_is_refused_before_it_is_decoded():
    bomb = as_file(Image.new('1', (5000, 5000)), 'PNG')
    with pytest.raises(CaptchaError, match='<bytes>: 5000x5000 pixels: from 1 to'): open_image(bomb)


@pytest.mark.parametrize('src', ['A' + '\n'*200_000 + '!', 'A'*500_000, '-_'*1000], ids=['lines', 'long', 'short'])
def test_long_texts_are_no_images_and_said_so_at_once(src):
    with pytest.raises(CaptchaError) as e: open_image(src)
    assert len(str(e.value)) < 1000


@settings(deadline=None)
@given(st.sampled_from(modes), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_any_mode_and_size_is_prepared(mode, w, h, channels):
    x = prep(Image.new(mode, (w, h)), Spec('ab', 2, height=8, width=20, channels=channels))
    assert x.shape == (channels, 8, 20) and x.dtype == np.float32 and np.isfinite(x).all()


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP']))
def test_mangled_files_raise_only_image_errors(junk, at, fmt):
    data = bytearray(as_file(Image.effect_noise((20, 10), 50).convert('RGB'), fmt))
    data[at:at+len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: to_array(bytes(data), Spec('ab', 2))
        except ImageError: pass


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(image_formats), st.integers(0, 10**9))
def test_mutated_images_are_read_or_refused(fmt, seed):
    case = mangled(as_file(Image.effect_noise((40, 20), 50).convert('RGB'), fmt), seed)
    try: open_image(with_checksums(case) if fmt == 'PNG' and seed % 2 else case)
    except CaptchaError: pass


@pytest.fixture
def pack(tmp_path):
    def f(**entries):
        with zipfile.ZipFile(tmp_path/'box.zip', 'w', zipfile.ZIP_DEFLATED) as z:
            for name, data in entries.items(): z.writestr(name, data)
        return tmp_path/'box.zip'
    return f


def test_images_of_a_zip_file_are_read_without_unpacking(pack):
    broken, whole = zip_images(pack(**{'in/b.png': png, 'in/a.png': png[:99], 'notes.txt': b'hi', '__MACOSX/in/._b.png': b'', 'x.png/': b''}))
    assert open_image(whole).size == (64, 64)
    with pytest.raises(ImageError, match='box.zip/in/a.png: not a readable image'): open_image(broken)


@pytest.mark.parametrize('entries, why', [({'a.png': png, '../../evil.png': png}, "'../../evil.png' would leave the folder"), ({'/a.png': png}, 'would leave'),
                                          ({'C:a.png': png}, 'would leave'), ({'bomb.png': bytes(30_000_000)}, 'at most 20000000'),
                                          ({'notes.txt': b'hi'}, 'no images in it; PNG, ')], ids=['up', 'root', 'drive', 'bomb', 'text'])
def test_suspect_archives_are_refused(pack, entries, why):
    with pytest.raises(ArchiveError, match=why): zip_images(pack(**entries))


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path/'box.zip', 'w') as z, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for _ in range(2): z.writestr('a.png', png)
    with pytest.raises(ArchiveError, match="there are two entries 'a.png'"): zip_images(tmp_path/'box.zip')


def test_an_unknown_compression_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path/'box.zip', 'w', zipfile.ZIP_BZIP2) as z: z.writestr('a.png', png)
    with pytest.raises(ArchiveError, match="'a.png' is neither stored nor deflated"): zip_images(tmp_path/'box.zip')


def test_what_is_no_zip_file_is_refused(tmp_path):
    (tmp_path/'box.zip').write_bytes(b'PK\x03\x04 and no more')
    with pytest.raises(ArchiveError, match='not a readable zip file'): zip_images(tmp_path/'box.zip')
    with pytest.raises(ArchiveError, match='gone.zip: no such file'): zip_images(tmp_path/'gone.zip')


@pytest.fixture
def challenge(tmp_path):
    def f(rows):
        (tmp_path/'challenge.json').write_text(json.dumps(rows))
        return json_images(tmp_path/'challenge.json')
    return f


def test_a_broken_image_of_a_challenge_does_not_hide_the_rest(challenge):
    whole, broken = challenge({'images': [{'name': 'a', 'jpg_base64': text}, {'name': 'b', 'jpg_base64': '?!'}]})
    assert [open_image(whole).size, open_image(whole).size] == [(64, 64)]*2
    with pytest.raises(ImageError, match='challenge.json/b: not an image'): open_image(broken)


@pytest.mark.parametrize('encoding', [base64.encodebytes(png).decode(), 'data:image/png;base64,' + text], ids=['lines', 'data URL'])
def test_a_challenge_may_be_a_plain_list(challenge, encoding):
    (im,) = challenge([{'jpg_base64': encoding}])
    assert open_image(im).size == (64, 64) and im.name.endswith('challenge.json/0')


@pytest.mark.parametrize('rows, why', [({}, 'no images in it'), ([1], 'its image 0 has 0 entries'), ([{'name': 'a', 'jpg_base64': 5}], 'has 0 entries'),
                                       ([{'a_base64': '', 'b_base64': ''}], 'has 2 entries'), ([{'a_base64': 'A'*27_000_000}], 'has 27000000 letters')])
def test_a_challenge_that_cannot_be_is_refused(challenge, rows, why):
    with pytest.raises(ArchiveError, match=why): challenge(rows)


def test_what_is_no_json_is_refused(tmp_path, monkeypatch):
    (tmp_path/'challenge.json').write_text('{"images": [')
    with pytest.raises(ArchiveError, match='not readable as JSON'): json_images(tmp_path/'challenge.json')
    with pytest.raises(ArchiveError, match='gone.json: no such file'): json_images(tmp_path/'gone.json')
    monkeypatch.setattr(archives, 'max_json', 5)
    with pytest.raises(ArchiveError, match='12 bytes: at most 5'): json_images(tmp_path/'challenge.json')


def test_a_folder_gives_its_images_sorted(tmp_path):
    for name in ('b.png', 'a.PNG', '.c.png'): (tmp_path/name).write_bytes(png)
    (tmp_path/'notes.txt').touch()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert [o.name for o in image_files(tmp_path)] == ['a.PNG', 'b.png']


def test_what_is_in_a_file_decides_and_not_its_name(tmp_path):
    names = 'c', 'd.heic', 'e.txt', 'a.b.png'
    for name in names: (tmp_path/name).write_bytes(as_file(Image.new('L', (3, 3)), 'GIF'))
    for name, data in {'.c': png, 'no': b'', 'labels': b'a.png,abc', 'BM': b'BM is a car', 'P1': b'P1 is a text'}.items(): (tmp_path/name).write_bytes(data)
    assert {o.name for o in image_files(tmp_path)} == set(names)
    for o in image_files(tmp_path): assert open_image(o).size == (3, 3)


@pytest.mark.parametrize('fmt', image_formats)
def test_images_of_each_format_are_known_without_an_ending(fmt, tmp_path):
    (tmp_path/'x').write_bytes(as_file(Image.new('L', (30, 10), 99), fmt))
    assert image_files(tmp_path) == [tmp_path/'x']


def test_overlooked_images_are_counted_by_kind(tmp_path):
    for name in ('a.png', 'in/c.png', 'in/deeper/d', 'in/.git/e.png', '__MACOSX/f.png', 'notes/g.txt', '.git/h.png'):
        (tmp_path/name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path/name).write_bytes(b'hi' if name.endswith('txt') else png)
    with pytest.warns(UserWarning, match=r"not looked at: 2 images in folders \('in'\): give these folders, or"): assert image_files(tmp_path) == [tmp_path/'a.png']
    for i in range(6): (tmp_path/f'{i}.avif').touch()
    (tmp_path/'drawn').write_bytes(b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>')
    with pytest.warns(UserWarning, match=r"1 SVG \('drawn'\): save as PNG; 6 AVIF \('0.avif', .*'4.avif', \.\.\.\): save as PNG; 2 images in"): image_files(tmp_path)
    (tmp_path/'a.png').unlink()
    with pytest.raises(ImageError, match="no images in it; 1 SVG .* 6 AVIF .* 2 images in folders"): image_files(tmp_path)


def test_entries_of_a_zip_file_need_no_ending(pack):
    assert [o.name for o in zip_images(pack(**{'in/b': png, 'a.txt': b'hi', 'c.png': png}))] == ['c.png', 'b']
    with pytest.warns(UserWarning, match=r"box.zip: not looked at: 1 SVG \('d.svg'\)"): zip_images(pack(**{'c.png': png, 'd.svg': b''}))


@pytest.mark.parametrize('data, why', [(b'<svg width="9"/>', 'SVG, which is not read: save it as PNG'), (b'\n<!doctype html><html>', 'a web page, not an image'),
                                       (b'\0\0\0 ftypheic', 'HEIC, which')])
def test_files_with_the_name_of_an_image_say_what_they_are(data, why, tmp_path):
    (tmp_path/'a.png').write_bytes(data)
    for src in (tmp_path/'a.png', str(tmp_path/'a.png'), data):
        with pytest.raises(ImageError, match=why): open_image(src)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ImageError, match='no images in it; PNG, '): image_files(tmp_path)
    with pytest.raises(ImageError, match='gone: no such folder'): image_files(tmp_path/'gone')


def test_images_are_found_in_anything(tmp_path, pack, challenge):
    box, _ = pack(**{'a.png': png}), challenge([{'name': 'x', 'jpg_base64': text}])
    file, many = tmp_path/'challenge.json', tmp_path/'many'
    many.mkdir()
    for name in ('2.json', '1.json'): (many/name).write_bytes(file.read_bytes())
    names = lambda path: [os.path.relpath(image_name(o), tmp_path) for o in images_in(path)]
    assert names(box) == ['box.zip/a.png'] and names(str(file)) == ['challenge.json/x'] and names(tmp_path/'gone.png') == ['gone.png']
    assert names(many) == ['many/1.json/x', 'many/2.json/x']
    assert names([box, file]) == ['box.zip/a.png', 'challenge.json/x'] and images_in([]) == []
    (many/'a.png').write_bytes(png)
    assert names(many) == ['many/a.png']                              # images beside it: the JSON is something else


def test_white_is_two_standard_deviations_above_the_mean():
    spec = Spec('2345678bcdefgmnpwxy', max_len=5)
    x = prep(Image.new('RGB', (400, 100), 'white'), spec)
    assert x.shape == (1, 50, 200) and np.allclose(np.unique(x), (1 - .5)/.25)


def test_a_batch_is_scaled_as_each_of_its_images():
    spec = Spec('ab', 2, 8, 20, channels=3)
    arrays = np.random.default_rng(0).integers(0, 256, (4, 8, 20, 3), dtype=np.uint8)
    assert (scale(arrays, spec) == np.stack([prep(o, spec) for o in arrays])).all()


def test_a_fingerprint_changes_with_the_image(tmp_path):
    path = tmp_path/'a.png'
    path.write_bytes(png)
    before = image_fingerprint(path)
    path.write_bytes(as_file(Image.new('L', (3, 3)), 'PNG'))
    assert before.startswith(str(path)) and image_fingerprint(path) != before
    assert image_fingerprint(png) == image_fingerprint(text) == image_fingerprint(Image.open(io.BytesIO(png))) != image_fingerprint(path)
    assert image_fingerprint(b'?') == 'unreadable'
