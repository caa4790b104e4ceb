"Font files: found, opened once, and refused where they lack a character"
import shutil
from pathlib import Path

import pytest

from captcha_fastai.core import CaptchaError
from captcha_fastai.draw.fonts import (
    bold, check_glyphs, font_file, fonts_that_draw, known_fonts, load_font, of_dependencies, package_fonts, sans)


@pytest.mark.parametrize('files', [package_fonts, sans, bold])
def test_fonts_of_the_dependencies_are_there(files):
    assert all(Path(o).is_file() and of_dependencies(o) for o in files)


def test_a_font_is_found_by_its_name():
    assert Path(known_fonts()['DejaVuSans.ttf']) == Path(sans[1]) == Path(font_file('DejaVuSans.ttf'))


def test_a_path_and_an_unknown_name_stay_as_they_are():
    assert font_file(sans[0]) == sans[0]
    assert font_file('nowhere.ttf') == 'nowhere.ttf'


def test_a_font_is_opened_once_per_size():
    assert load_font(sans[0], 24) is load_font(sans[0], 24)
    assert load_font(sans[0], 24).size != load_font(sans[0], 25).size


def test_a_font_that_cannot_be_opened_is_named():
    why = r'the font nowhere\.ttf cannot be opened .* give a \.ttf or \.otf'
    with pytest.raises(CaptchaError, match=why): load_font('nowhere.ttf', 12)


def test_a_font_that_has_all_characters_is_accepted(): check_glyphs('абв018', package_fonts)


@pytest.mark.parametrize('chars, files, lost', [('天地7', package_fonts, '天地'), ('7天', sans, '天')])
def test_characters_that_a_font_lacks_are_named(chars, files, lost):
    with pytest.raises(CaptchaError, match=f"cannot draw '{lost}'"): check_glyphs(chars, files)


def test_spaces_need_no_glyph(): check_glyphs('a b\u3000', package_fonts)


def test_mathematical_fonts_serve_for_letters_and_digits_only():
    assert fonts_that_draw('7A', bold) == bold
    assert fonts_that_draw('7-A', bold) == bold[:-2]


def test_a_font_of_your_own_may_have_any_name(tmp_path):
    own = shutil.copy(sans[0], tmp_path/'cmfont.ttf')
    assert fonts_that_draw('7-A', [own]) == (own,)
    both = [own, 'cmb10.ttf']                                # the second is matplotlib's, by its name
    assert fonts_that_draw('7-A', both) == (own,)
    assert fonts_that_draw('7A', both) == tuple(both)


def test_signs_without_a_font_for_them_are_refused():
    why = r"the fonts \['cmb10.ttf'\] have letters and digits only, but not '7-A'"
    with pytest.raises(CaptchaError, match=why): fonts_that_draw('7-A', ['cmb10.ttf'])
