"Tables: labels in files as other tools write them"
import json
import warnings

import pytest
from PIL import Image

from captcha_fastai.core import LabelError
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.tables import read_labels


@pytest.fixture
def three(tmp_path):
    "Three images, and a function that reads a table of them, given its name and text or bytes"
    for i in range(3): Image.new('L', (8, 8)).save(tmp_path/f'{i}.png')
    def read(name, text):
        (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
        paths, labels = read_labels(tmp_path/name)
        assert [o.name for o in paths] == [f'{i}.png' for i in range(len(paths))]
        return labels
    return read


TASK = '{"id": 7, "data": {"image": "/data/%s"}, "annotations": [{"result": [{"type": "textarea", "value": {"text": ["%s"]}}]}]}'


@pytest.mark.parametrize('name, text', [
    ('gt.txt', '0.png ab 1,5\n1.png cd\n'), ('gt.txt', '0.png    ab 1,5\r\n1.png cd\r\n'), ('labels.txt', '0.png\tab 1,5\n1.png\tcd'),             # TRDG, mmocr, dddd_trainer
    ('gt.txt', '0.png, "ab 1,5"\n1.png, "cd"\n'), ('t.txt', '0.png|ab 1,5\n1.png|cd'),                                                          # ICDAR
    ('t.csv', 'text;file\nab 1,5;0.png\ncd;1.png'), ('t.csv', 'name;label\n0;ab 1,5\n1;cd'), ('t.csv', '0;ab 1,5\n1;cd'), ('t.txt', '0 ab 1,5\n1 cd'),
    ('t.csv', 'C:\\data\\train\\0.png;ab 1,5\nC:\\data\\train\\1.png;cd'), ('t.txt', 'images\\0.png\tab 1,5\nimages\\1.png\tcd'), ('t.txt', '/home/me/0.png\tab 1,5\n./1.png\tcd'),
    ('t.json', '{"0.png": "ab 1,5", "1.png": "cd"}'), ('t.json', '[{"file": "0.png", "text": "ab 1,5"}, {"file": "1.png", "text": "cd"}]'),
    ('t.jsonl', '{"file_name": "0.png", "label": "ab 1,5"}\n{"file_name": "1.png", "label": "cd"}\n'), ('t.json', '[["0.png", "ab 1,5"], ["1.png", "cd"]]'),
    ('t.txt', '{"filename": "0.png", "text": "ab 1,5"}\n{"filename": "1.png", "text": "cd"}'),
    ('t.json', '{"metainfo": {"task": 1}, "data_list": [{"img_path": "a/0.png", "instances": [{"text": "ab 1,5"}]}, {"img_path": "a/1.png", "instances": [{"text": "cd"}]}]}'),
    ('t.json', f'[{TASK % ("upload/1/3f2a9c01-0.png", "ab 1,5")}, {TASK % ("local-files/?d=my%20set/1.png", "cd")}]'),
    ('t.json', '[{"id": 1, "image": "/data/upload/1/3f2a9c01-0.png", "transcription": "ab 1,5"}, {"id": 2, "image": "1.png", "transcription": ["cd"]}]'),
    ('t.json', '{"0.png": {"text": "ab 1,5"}, "1.png": {"text": "cd"}}')])
def test_labels_are_read_as_other_tools_write_them(three, name, text): assert three(name, text) == ['ab 1,5', 'cd']


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'gbk'])
def test_files_of_other_encodings(three, coding):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        assert three('t.csv', '0.png,京A12\n1.png,沪B34'.encode(coding)) == ['京A12', '沪B34']
    assert ['GBK' in str(o.message) for o in w] == ([True] if coding == 'gbk' else [])


@pytest.mark.parametrize('data', ['0.png,caf\u00e9'.encode('latin-1'), '0.png,\u043f\u0440\u0438\u0432\u0435\u0442'.encode('cp1251'), b'\xff\xd8'])
def test_an_encoding_that_nobody_can_know_is_refused(three, data):
    with pytest.raises(LabelError, match='not UTF-8 text .* save it as UTF-8'): three('t.csv', data)


@pytest.mark.parametrize('name, text, why', [
    ('t.json', '{"images": [], "annotations": []}', 'looks like COCO'), ('t.json', '[{"a": 1}]', 'looks like JSON, but not of labels'),
    ('t.json', '{"0.png": {"regions": []}}', 'not of labels'), ('t.json', '{"0.png": ', 'looks like JSON, but is not'), ('t.json', '[]', 'no labels in it'),
    ('t.xml', '<annotation/>', 'CVAT or Pascal VOC'), ('t.txt', '<?xml version="1.0"?>', 'CVAT or Pascal VOC'), ('t.xlsx', 'PK', 'save its sheet as CSV'),
    ('t.txt', '0.png\t[{"transcription": "ab"; "points": []}]'.replace(';', ','), "PaddleOCR's labels for detection"), ('t.mdb', '', 'a database')])
def test_what_is_not_read_is_named(three, name, text, why):
    with pytest.raises(LabelError, match=why): three(name, text)


def test_tasks_without_an_annotation_are_left_out_with_a_warning(three):
    tasks = f'[{TASK % ("0.png", "ab")}, {{"data": {{"image": "1.png"}}, "annotations": []}}]'
    with pytest.warns(UserWarning, match='1 of 2 images have no label yet'): assert three('t.json', tasks) == ['ab']


@pytest.mark.parametrize('name, text', [('t.txt', '0.png ab\n1.png\n'), ('t.csv', '0.png,ab\n1.png,'), ('t.json', '{"0.png": "ab", "1.png": null}')])
def test_an_empty_label_is_a_label(three, name, text): assert three(name, text) == ['ab', '']


def test_a_label_that_is_a_number_in_json_is_refused(tmp_path):
    Image.new('L', (8, 8)).save(tmp_path/'0.png')
    (tmp_path/'t.json').write_text('{"0.png": 7}')
    with pytest.raises(LabelError, match='0.png: the label 7 is int'): labelled(tmp_path/'t.json')


@pytest.mark.parametrize('table', ['labels.txt', 'labels.json', 'labels.jsonl', 'gt.txt'])
@pytest.mark.parametrize('place', ['.', 'images'])
def test_a_folder_with_a_table_of_a_usual_name_and_images_beside_or_below(tmp_path, table, place):
    (tmp_path/place).mkdir(exist_ok=True)
    for i in range(2): Image.new('L', (8, 8)).save(tmp_path/place/f'x{i}.png')
    rows = {'x0.png': 'ab', 'x1.png': 'cd'}
    lines = '\n'.join(json.dumps({'file': k, 'text': v}) if 'json' in table else f'{k}\t{v}' for k,v in rows.items())
    (tmp_path/table).write_text(json.dumps(rows) if table == 'labels.json' else lines)
    paths, labels = labelled(tmp_path)
    assert (labels, [o.parent for o in paths]) == (['ab', 'cd'], [tmp_path/place]*2)


def test_a_list_of_classes_is_no_table(tmp_path):
    Image.new('L', (8, 8)).save(tmp_path/'ab12.png')
    (tmp_path/'labels.txt').write_text('0\n1\n2\n')
    with pytest.warns(UserWarning, match="'labels.txt' is not looked at"): assert labelled(tmp_path)[1] == ['ab12']
