"Images for training: their size, and what is wrong with them"
import base64
import io
import pickle

import numpy as np
import pytest
from PIL import Image
from fastai.vision.all import DataBlock, ImageBlock, Resize, TensorImage

from captcha_fastai.core import ImageError, Spec
from captcha_fastai.read.images import image_files, image_fingerprint, open_image
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.data.labels import Captcha, labelled
from captcha_fastai.data.images import CaptchaBlock, CaptchaImage, CaptchaImageBW, LoadImage, TensorImageGrey, commonest_size, guess_size, survey


@pytest.fixture
def captchas(tmp_path): return labelled(write_synth(tmp_path, 12, Synth('0123456789', length=4, seed=3, size=(40, 100))))


def test_the_size_is_the_commonest_one_of_the_readable_images():
    some = [np.zeros((9, 9), np.uint8), b'torn', *[np.zeros((160, 400, 3), np.uint8)]*3]
    assert commonest_size(some) == (160, 400, 1)
    assert guess_size(some) == (80, 200, 1)


def test_sizes_of_real_files(captchas):
    assert guess_size(captchas[0]) == (40, 100, 3)


def test_colour_after_the_first_thirty_images_does_not_count():
    red = np.zeros((8, 8, 3), np.uint8); red[..., 0] = 255
    grey = [np.zeros((8, 8, 3), np.uint8)]*30
    assert commonest_size([*grey, red]) == (8, 8, 1) and commonest_size([*grey[1:], red]) == (8, 8, 3)


def test_a_set_of_which_nothing_can_be_read_is_refused():
    with pytest.raises(ImageError, match='none of the first 3 images can be read'): commonest_size([b'torn']*3)


def test_a_survey_finds_unreadable_images_and_duplicates(captchas, tmp_path):
    paths, labels = captchas
    (tmp_path/'torn.png').write_bytes(paths[0].read_bytes()[:300])
    (tmp_path/'twin.png').write_bytes(paths[1].read_bytes())
    found = survey([*paths, tmp_path/'torn.png', tmp_path/'twin.png'], [*labels, '1234', '9999'], Spec('0123456789', 4, 40, 100, 3))
    assert list(found.unreadable) == [12] and 'torn.png' in found.unreadable[12]
    assert found.duplicate_of == {13: 1}
    assert len(found.doubts) == 1 and all(o in found.doubts[0] for o in (paths[1].name, 'twin.png', labels[1], '9999'))
    assert len(found.cache) == 13


def test_one_picture_of_many_labels_is_said_as_what_it_is():
    blank, other = np.full((9, 9), 255, np.uint8), np.eye(9, dtype=np.uint8)
    found = survey([*[blank]*4, other, other, other], ['1', '2', '3', '3', '4', '5', '6'], Spec('0', 1, 9, 9, 1))
    assert found.doubts == [] and len(found.duplicate_of) == 5
    assert found.same == ['4 of 7 images are the same empty picture, such as <ndarray>, with 3 different labels',
                          '3 of 7 images are the same picture, such as <ndarray>, with 3 different labels']


def test_the_size_and_colour_are_those_of_the_frame_that_is_read():
    blank = Image.new('RGB', (60, 20), 'white')
    full = blank.copy()
    full.paste('red', (5, 5, 50, 15))
    file = io.BytesIO()
    blank.save(file, 'PNG', save_all=True, append_images=[full])
    assert commonest_size([file]*3) == (20, 60, 3)


def test_images_are_kept_while_there_is_room(captchas):
    paths, labels = captchas
    assert len(survey(paths, labels, Spec('0', 1, 40, 100, 1), room=5*4000+1).cache) == 5
    assert not survey([open_image(o) for o in paths], labels, Spec('0', 1, 40, 100, 1)).cache       # only files are


def test_what_is_in_the_cache_is_not_opened_again():
    spec = Spec('0', 1, 2, 3, 1)
    x = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert LoadImage(spec, {'gone.png': x})(Captcha('gone.png', '')).flatten().tolist() == [*range(6)]


def test_a_pickled_loader_holds_no_images(captchas):
    spec = Spec('0', 1, 40, 100, 1)
    load = LoadImage(spec, survey(*captchas, spec).cache)
    assert load.cache and pickle.loads(pickle.dumps(load)).cache == {}


@pytest.mark.parametrize('channels, kind', [(1, TensorImageGrey), (3, TensorImage)])
def test_the_type_of_an_image_goes_by_its_channels(channels, kind):
    x = LoadImage(Spec('0', 1, 4, 6, channels))(np.zeros((8, 12), np.uint8))
    assert type(x) is kind and x.shape == (channels, 4, 6)


def test_a_data_url_is_the_image_that_it_holds(captchas):
    path = captchas[0][0]
    url = 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()
    assert image_fingerprint(url) == image_fingerprint(open_image(path))


def test_a_data_block_of_captchas(captchas, tmp_path):
    block = DataBlock((ImageBlock(CaptchaImageBW), CaptchaBlock('0123456789')), get_items=image_files, get_y=dict(zip(*captchas)).get,
                      item_tfms=Resize((40, 100), method='squish'))
    x, y = block.dataloaders(tmp_path, bs=8, num_workers=0).one_batch()
    assert (x.shape, y.shape) == ((8, 1, 40, 100), (8, 4))


def test_a_captcha_image_opens_arrays_and_files(captchas):
    assert CaptchaImage.create(captchas[0][0]).mode == 'RGB'
    assert CaptchaImageBW.create(np.zeros((4, 6, 4), np.uint8)).mode == 'L'
