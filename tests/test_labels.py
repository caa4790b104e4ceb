"Labels: from names and tables to texts that can be learned"
import warnings

import pytest
from PIL import Image

from captcha_fastai.core import ImageError, LabelError, Spec, Vocab
from captcha_fastai.data.images import CaptchaBlock, CaptchaText, EncodeText, TensorCaptcha
from captcha_fastai.data.labels import RegexLabel, check_labels, label_prefix, label_stem, labelled
from captcha_fastai.data.tables import find_separator, read_labels
from captcha_fastai.draw.synth import Synth, write_synth


@pytest.fixture
def folder(tmp_path):
    "Sixty generated captchas with their table"
    write_synth(tmp_path, 60, Synth('0123456789', length=4, seed=3, size=(16, 32)))
    return tmp_path


@pytest.fixture
def three(tmp_path):
    "Three images, and a function that reads a table of them"
    for i in range(3): Image.new('L', (8, 8)).save(tmp_path/f'{i}.png')
    def read(text, **kwargs):
        (tmp_path/'t.csv').write_text(text)
        return read_labels(tmp_path/'t.csv', **kwargs)
    return read


# In names

def test_a_label_is_the_stem_or_what_comes_before_the_first_underscore():
    assert label_stem('train/2b827.png') == '2b827'
    assert label_prefix('2b827_0001.png') == '2b827'


def test_a_regular_expression_finds_the_label_in_a_name():
    assert RegexLabel(r'-([a-z0-9]+)\.')('img17-007.jpg') == '007'
    assert RegexLabel('[0-9]+')('img17-007.jpg') == '17'               # without a group all of it


@pytest.mark.parametrize('pattern, name', [(r'-([a-z0-9]+)\.', 'img17.jpg'), ('img(x?)', 'img.jpg'), ('img|(x)', 'img.jpg')])
def test_a_name_without_a_label_is_named(pattern, name):
    with pytest.raises(LabelError, match=f'{name}: no match for'): RegexLabel(pattern)(name)


def test_what_is_no_regular_expression_is_refused(folder):
    with pytest.raises(LabelError, match='no regular expression'): RegexLabel('(')
    (folder/'labels.csv').unlink()
    with pytest.raises(LabelError, match='no regular expression'): labelled(folder, '(')


# In tables

def test_labels_of_a_table_are_text_and_keep_their_zeros(folder):
    paths, labels = read_labels(folder/'labels.csv')
    assert len(paths) == 60 and all(len(l) == 4 for l in labels) and any(l.startswith('0') for l in labels)


def test_a_table_with_tabs_and_without_a_heading(folder):
    paths, labels = read_labels(folder/'labels.csv')
    (folder/'labels.txt').write_text('\n'.join(f'{p.name}\t{l}' for p, l in zip(paths, labels)))
    assert read_labels(folder/'labels.txt') == (paths, labels)


@pytest.mark.parametrize('text, labels', [
    ('0.png , ab\n1.png,cd', ['ab', 'cd']),
    ('0.png,a;b\n1.png,c;d', ['a;b', 'c;d']),
    ('0.png\t1,234,567\n1.png\t2', ['1,234,567', '2']),
    ('name;label\n0.png;ab\n1.png;c,d,e', ['ab', 'c,d,e']),
    ('\ufeffname,label\n0.png,null\n1.png,007', ['null', '007'])])
def test_tables_as_they_come(three, text, labels):
    paths, read = three(text)
    assert (read, [p.name for p in paths]) == (labels, ['0.png', '1.png'])


@pytest.mark.parametrize('ext', ['png', 'JPG', 'jpeg', 'jpe', 'jfif'])
def test_the_separator_is_what_follows_the_images_name(ext):
    assert find_separator(f'"a;b.{ext}", 1;2;3;4') == ','


def test_quotation_marks_that_belong_to_texts(three):
    assert three('0.png,"""x"\n1.png,cd\n2.png,y"z')[1] == ['"x', 'cd', 'y"z']


@pytest.mark.parametrize('text', ['0.png\tab\n1.png\t"x\n2.png\t"y', '0.png\tab\n1.png\t"x\n2.png\ty', '0.png,ab\n1.png,"\n2.png,"'])
def test_a_stray_quotation_mark_swallows_no_lines(three, text):
    with pytest.raises(LabelError, match='t.csv, line 2: '): three(text)


def test_of_more_columns_the_second_is_taken_with_a_warning(three):
    text = 'file,width,label\n0.png,100,ab'
    with pytest.warns(UserWarning, match='the second column is the label'): assert three(text)[1] == ['100']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert three(text, label_col=2)[1] == ['ab']


def test_a_table_of_one_column_is_refused(three):
    with pytest.raises(LabelError, match='line 1: no column 1, only'): three('0.png')


def test_a_heading_names_no_file(three):
    with pytest.raises(LabelError, match="1 of .*2 files .* such as '0.jfif'"): three('0.jfif,ab\n1.png,cd')
    with pytest.raises(LabelError, match="such as 'lost.png'"): three('file;label\nlost.png;12')


@pytest.mark.parametrize('text', ['', 'name,label\n'])
def test_a_table_without_labels_is_refused(three, text):
    with pytest.raises(LabelError, match='no labels in it'): three(text)


@pytest.mark.parametrize('name, why', [('t.zip', 'unpack it'), ('t.png', 'an image, not a table'), ('t.csv', 'not UTF-8 text')])
def test_what_is_no_table_is_named(tmp_path, name, why):
    (tmp_path/name).write_bytes(b'\xff\xd8')
    with pytest.raises(LabelError, match=why): read_labels(tmp_path/name)
    with pytest.raises(LabelError, match='no such file'): read_labels(tmp_path/'nowhere.csv')


# Whatever there is

def test_a_folder_is_read_from_its_table(folder):
    table = read_labels(folder/'labels.csv')
    assert labelled(folder) == labelled(folder/'labels.csv') == table
    with pytest.warns(UserWarning, match="labels.csv gives the labels: 'prefix' is not used"):
        assert labelled(folder, 'prefix') == table


def test_images_without_a_label_are_left_out_with_a_warning(folder):
    (folder/'extra.png').write_bytes(b'')
    with pytest.warns(UserWarning, match="no label for 1 images beside it, such as 'extra.png'"): assert len(labelled(folder)[0]) == 60


def test_a_folder_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(ImageError, match='nowhere: no such folder'): labelled(tmp_path/'nowhere')
    with pytest.raises(ImageError, match='no images in it'): labelled(tmp_path)


def test_generated_captchas_without_their_table_are_not_learned_by_their_numbers(folder):
    (folder/'labels.csv').unlink()
    with pytest.raises(LabelError, match='without their labels.csv'): labelled(folder)


@pytest.mark.parametrize('label, want', [('stem', ['ab_1', 'cd']), ('prefix', ['ab', 'cd']), ('([a-z])', ['a', 'c']), (lambda p: p.stem[:1], ['a', 'c'])])
def test_labels_in_names_by_any_rule(tmp_path, label, want):
    for name in ('cd.png', 'ab_1.png'): Image.new('L', (8, 8)).save(tmp_path/name)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        assert labelled(tmp_path, label)[1] == want
    assert [str(o.message) for o in w if "'ab_1'" in str(o.message)] if label == 'stem' else not w


def test_a_table_of_another_name_beside_the_images_is_mentioned(tmp_path):
    Image.new('L', (8, 8)).save(tmp_path/'ab.png')
    (tmp_path/'list.txt').touch()
    with pytest.warns(UserWarning, match="'list.txt' .*not looked at"): assert labelled(tmp_path)[1] == ['ab']


# As targets

def test_texts_become_ids_and_come_back():
    encode = EncodeText(Vocab('0123456789'), max_len=6)
    ids = encode('007')
    assert ids.tolist() == [1, 1, 8, 0, 0, 0] and type(ids) is TensorCaptcha
    assert encode.decode(ids) == '007' and type(encode.decode(ids)) is CaptchaText


def test_ids_of_texts_whose_case_or_accents_are_written_otherwise():
    assert EncodeText(Vocab('abc'), 3, fold=True)('CAB').tolist() == [3, 1, 2]
    for fold in (False, True): assert EncodeText(Vocab('é'), 1, fold).encodes('e\u0301').tolist() == [1]


@pytest.mark.parametrize('label, why', [(7, 'the label 7 is int'), ('12a', "label '12a' has 'a'"), ('1234567', 'at most 6 fit')])
def test_labels_that_cannot_be_encoded_are_refused(label, why):
    with pytest.raises(LabelError, match=why): EncodeText(Vocab('0123456789'), max_len=6)(label)


def test_a_text_is_written_above_a_picture_as_it_is():
    from matplotlib import pyplot as plt
    ax = plt.figure().add_subplot()
    EncodeText(Vocab('$^1'), 3).decodes(TensorCaptcha([1, 2, 1])).show(ctx=ax)          # no formula
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def test_a_block_that_ignores_case_has_a_lower_case_alphabet():
    assert CaptchaBlock('ABCb', fold=True).type_tfms[0].vocab.chars == 'abc'


# Checked

def test_labels_give_alphabet_and_length():
    assert check_labels(['a.png', 'b.png'], ['Ab', 'b'], fold=True) == (['ab', 'b'], Vocab('ab'), 2)
    assert check_labels(['a.png'], ['Ab'], chars='AaB', fold=True)[1] == Vocab('ab')


@pytest.mark.parametrize('images, labels, kwargs, why', [
    (['a.png', 'b.png'], ['007', 7], {}, 'b.png: the label 7 is int'),
    (['a.png', 'b.png'], ['', ' '], {}, 'a.png: its label is empty, and so are the others'),
    (['a.png', 'b.png'], ['007', '8'], dict(chars='07'), "b.png: label '8' has '8'"),
    (['a.png', 'a.png'], ['1', '2'], {}, "labelled '1' and '2'"),
    (['a.png'], ['007'], dict(max_len=2), 'at most 2 fit'),
    (['a.png'], [], {}, '1 images but 0 labels'),
    ([], [], {}, 'no images'),
    (['0.png', '1.png'], ['caf\udce9', 'cafe'], {}, r'0.png: the label .caf\\udce9. is not UTF-8')])
def test_the_image_whose_label_is_wrong_is_named(images, labels, kwargs, why):
    with pytest.raises(LabelError, match=why): check_labels(images, labels, **kwargs)


def test_one_file_may_be_listed_twice_with_the_same_text():
    assert check_labels(['a.png', 'a.png'], ['a', 'A'], fold=True)[0] == ['a', 'a']


@pytest.mark.parametrize('label', ['\u01f0', 'J\u030c', 'ΑΣ', 'Ϊ\u0301'])
def test_labels_without_case_are_what_is_read(label):
    (text, *_), vocab, longest = check_labels(['a', 'b'], [label, 'x'], fold=True)
    assert vocab.decode(vocab.encode(text)) == text == Spec(vocab.chars, longest, fold=True).text(label) and len(text) == longest


def test_a_sigma_at_the_end_is_one_as_any_other():
    assert check_labels(['a'], ['ΑΣ'], chars='ΑΒΣΤ', fold=True)[0] == ['ασ']


# Names that are no labels

def named(folder, names):
    folder.mkdir(exist_ok=True)
    for o in names: Image.new('L', (8, 8)).save(folder/f'{o}.png')
    return folder


@pytest.mark.parametrize('names, why', [
    ([f'IMG_{i:04}' for i in range(10)], "all names begin with 'IMG_'"), ([f'scan-{i*37 % 101}' for i in range(20)], "begin with 'scan-'"),
    ([f'captcha ({i})' for i in range(12)], "begin with 'captcha ('"), ([str(i) for i in range(30)], "'0' to '9' only count"),
    ([f'{i:05}' for i in range(1, 41)], "'00001' to '00040' only count")])
def test_names_that_tell_no_labels_are_refused(tmp_path, names, why):
    with pytest.raises(LabelError) as e: labelled(named(tmp_path/'photos', names))
    assert why in str(e.value) and 'labels.csv' in str(e.value)


@pytest.mark.parametrize('names', [[f'IMG_{i:04}' for i in range(9)], [f'{i*7919 % 10000:04}' for i in range(50)], [f'{i:02}' for i in range(100)],
                                   [f'ab{i}' for i in range(20)], [f'{i}+{i*i}=' for i in range(12)], [f'京A{i*811 % 9973:04}' for i in range(12)]])
def test_names_that_may_be_labels_are_taken(tmp_path, names):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert sorted(labelled(named(tmp_path/'texts', names))[1]) == sorted(names)


def test_a_regular_expression_takes_the_labels_out_of_any_names(tmp_path):
    folder = named(tmp_path/'photos', [f'IMG_{i:04}' for i in range(12)])
    assert labelled(folder, 'IMG_(.+)[.]')[1] == [f'{i:04}' for i in range(12)]


def test_names_of_a_text_and_a_random_number_are_recognised(tmp_path):
    folder = named(tmp_path/'dddd', [f'{t}_{i*2**70:032x}' for i,t in enumerate(['ab12', 'x_1', 'ab12'], 7)])
    with pytest.warns(UserWarning, match='what is before _ is learned'): assert labelled(folder)[1] == ['ab12', 'ab12', 'x_1']


# Folders and tables of all kinds

def test_folders_that_are_named_by_texts_are_recognised(tmp_path):
    for o in ('7', '8', 'ab'): named(tmp_path/o, ['0', '1'])
    with pytest.warns(UserWarning, match="the names of its 3 folders are the labels, such as '7'"): assert labelled(tmp_path)[1] == ['7', '7', '8', '8', 'ab', 'ab']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(labelled(tmp_path, 'folder')[0]) == 6


@pytest.mark.parametrize('folders', [['train', 'test'], ['images'], ['batch1', 'batch2'], ['12']])
def test_folders_of_parts_are_no_labels(tmp_path, folders):
    for o in folders: named(tmp_path/o, ['a1', 'b2'])
    with pytest.raises(LabelError, match="images lie in folders.*give the label as 'folder'"): labelled(tmp_path)
    assert labelled(tmp_path/folders[0])[1] == ['a1', 'b2']


def test_a_rule_of_folders_needs_folders(tmp_path):
    with pytest.raises(ImageError, match='no folders of images'): labelled(named(tmp_path/'flat', ['a', 'b']), 'folder')


def test_a_table_that_counts_its_rows_has_no_labels(tmp_path):
    folder, rows = named(tmp_path/'t', [f'x{i:02}' for i in range(20)]), [f'x{i:02}.png,{i+1:04}' for i in range(20)]
    (folder/'labels.csv').write_text('\n'.join(rows))
    with pytest.raises(LabelError, match="labels.csv: '0001' to '0020' only count, as the rows do.*another order"): labelled(folder)
    (folder/'labels.csv').write_text('\n'.join(rows[::-1]))
    with pytest.warns(UserWarning, match='is that what the images say'): assert len(labelled(folder)[1]) == 20


def test_empty_labels_are_taken_unless_all_are():
    assert check_labels(['a.png', 'b.png'], ['12', ' '])[0] == ['12', '']
    assert EncodeText(Vocab('12'), 2)('').tolist() == [0, 0]


def test_look_alikes_are_found_before_case_is_ignored():
    assert check_labels(['a', 'b'], ['HBD', '\u041dF'], fold=True)[:2] == (['hbd', 'hf'], Vocab('bdfh'))       # a Cyrillic en


def test_what_labelled_finds_is_clean(tmp_path):
    folder = named(tmp_path/'t', ['0', '1', '2'])
    (folder/'labels.csv').write_text('0.png,bd\u200e\n1.png,\u0441f\n2.png,gm ')
    with pytest.warns(UserWarning, match='(?s)LEFT-TO-RIGHT MARK.*CYRILLIC SMALL LETTER ES.*SPACE'): assert labelled(folder)[1] == ['bd', 'cf', 'gm']
