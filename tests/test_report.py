"How often a reader is wrong, and which characters it confuses"
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from captcha_fastai.core import CaptchaError, LabelError, ModelError, Spec, Vocab
from captcha_fastai.judge.report import Report, evaluate, evaluate_valid, plot_alignment, plot_confusions, plot_reliability, unified
from captcha_fastai.read.constraint import Constraint
from captcha_fastai.read.reader import Reader, Reading
from helpers import small, white

def shades(x): return np.log(np.where(x.mean((1, 2, 3))[:, None, None] > 0, [[.1, .9]], [[.7, .3]]))


@pytest.fixture
def shade_reader(): return Reader(shades, Spec('w', max_len=1, decoder='heads'))


@pytest.fixture
def report(): return Report(['k7m2', 'mm3n', '4ab', 'x'], [Reading('k7m2', .99), Reading('m3h', .6, name='odd.png'), '4ab', 'x'])


def test_a_report_counts_by_captcha_by_position_and_by_character(report):
    assert (report.right, report.n, report.accuracy) == (3, 4, .75)
    assert report.by_position() == [(4, 4), (2, 3), (2, 3), (1, 2)]
    assert report.confusions() == {('m', ''): 1, ('n', 'h'): 1}
    assert report.cer == 2/12
    assert report.worst() == [('odd.png', 'mm3n', 'm3h', .6)]


def test_a_printed_report_says_the_same_as_ever(report):
    report.threshold = .9
    assert str(report) == repr(report) == '''captchas   75.00% (3/4, 95 % interval 30.1% to 95.4%)
CER        16.667%
positions  100.0% 66.7% 66.7% 50.0%
confused   m read as nothing (1x), n read as h (1x)
confidence 15.25% off on average (ECE)
accepted   confidence of 0.9000 or more: 100.00% (3/3, 95 % interval 43.9% to 100.0%) right, 75.00% (3/4, 95 % interval 30.1% to 95.4%) accepted
wrong      odd.png: 'mm3n' read as 'm3h', confidence 60.0%'''


def test_a_report_is_plain_values(report):
    d = json.loads(json.dumps(report.to_dict()))
    assert d['n'] == 4 and d['by_position'][0] == [4, 4] and d['accepted'] == dict(threshold=0., right=3, n=4, of=4)
    r = Report(['a']*9, [Reading('a', np.float64(p)) for p in np.linspace(.1, .9, 9)], threshold=.5)
    assert json.loads(json.dumps(r.to_dict()))['accepted']['n'] == 5


def test_an_empty_report_can_be_printed(): assert '0/0' in str(Report([], [])) and Report([], []).interval == (0., 1.)


@given(st.lists(st.tuples(st.text('ab', min_size=1, max_size=4), st.text('ab', max_size=4)), max_size=20))
def test_report_adds_up(rows):
    r = Report([t for t, _ in rows], [o for _, o in rows])
    lo, hi = r.interval
    assert 0 <= lo <= hi <= 1 and (r.n == 0 or lo - 1e-9 <= r.accuracy <= hi + 1e-9)
    assert (r.cer == 0) == (r.right == r.n) and len(r.worst(100)) == r.n - r.right
    assert str(r)


def test_an_image_that_was_not_read_is_not_right(): assert Report([''], [Reading('', 0., error='torn')]).right == 0


def test_as_many_truths_as_readings_are_needed():
    with pytest.raises(LabelError, match='1 images but 2 labels'): Report(['a', 'b'], ['a'])


def test_calibration_error_is_what_a_reader_is_too_sure_by():
    rng = np.random.default_rng(0)
    p = rng.uniform(.5, 1, 1000)
    right = rng.random(1000) < p-.1
    report = Report(['a']*1000, [Reading('a' if r else 'b', q) for r, q in zip(right, p)])
    assert abs(report.ece() - .1) < .03
    best = report.accept_threshold(.75)
    lower = report.accepted(best.threshold-.01)
    assert best.right/best.n >= .75 > lower.right/lower.n
    assert plot_reliability(report, 10).get_title().startswith('ECE')


def test_equal_confidences_are_accepted_together():
    report = Report(['a']*4, [Reading('a', .9), Reading('a', .8), Reading('b', .8), Reading('a', .7)])
    assert report.accept_threshold(1.).threshold == .9


def test_no_reading_is_accepted_if_too_few_are_right():
    accepted = Report(['a'], [Reading('b', 1.)]).accept_threshold()
    assert accepted.threshold == 2. and str(accepted) == 'no confidence is high enough'


@pytest.mark.parametrize('precision', [99.5, 0, -1])
def test_a_precision_is_a_share(report, precision):
    with pytest.raises(CaptchaError, match='it must be from 0.001 to 1'): report.accept_threshold(precision)


def test_what_the_constraint_counts_as_the_same_is_written_alike():
    truths, readings = unified(['O1', 'l0'], [Reading('01', .9)]*2, Constraint(Vocab('01'), alike='0O,1l'))
    assert truths == ['01', '10'] and [o.text for o in readings] == ['01', '01']
    assert unified(['O'], ['0'], None) == (['O'], ['0'])


def test_evaluate_counts_right_readings(shade_reader):
    report = evaluate(shade_reader, [white, white, Image.new('L', (200, 50))], ['w', 'w', 'w'])
    assert (report.right, report.n) == (2, 3)


def test_an_image_that_cannot_be_read_counts_as_wrong(shade_reader):
    with pytest.warns(UserWarning, match='1 of 2 images cannot be read and count as wrong, such as none.png'):
        report = evaluate(shade_reader, (o for o in ('none.png', white)), ['', 'w'])
    assert report.right == 1 and report.names == ['none.png', '<Image>']


def test_one_image_instead_of_many_is_refused(shade_reader):
    with pytest.raises(CaptchaError, match='takes a list of images'): evaluate(shade_reader, 'w.png', ['w'])


@pytest.mark.parametrize('rules, right', [(dict(), 0), (dict(alike='0O'), 1), (dict(alphabet='0'), 1)])
def test_rules_decide_what_is_right(rules, right):
    either = Reader(lambda x: np.log([[[.1, .2, .7]]]*len(x)), Spec('0O', max_len=1, decoder='heads'))
    assert evaluate(either, [white], ['0'], **rules).right == right


@pytest.mark.parametrize('labels, rules, right', [(['Abc', 'aBC'], dict(fold=True), 2), (['@bc'], dict(alike=['a@']), 1),
                                                  (['Äbc'], dict(fold=True, alike=['aä']), 1)])
def test_cases_and_look_alikes_that_the_model_lacks_count_as_what_it_has(abc_reader, labels, rules, right):
    assert evaluate(abc_reader, [small]*len(labels), labels, **rules).right == right


def test_labels_that_the_model_cannot_answer_are_named(abc_reader):
    with pytest.warns(UserWarning, match="cannot answer 'A'"): assert evaluate(abc_reader, [small], ['Abc']).right == 0


def test_labels_that_are_numbers_are_refused(abc_reader):
    with pytest.raises(LabelError, match='12 is int, not text'): evaluate(abc_reader, [small], [12])


@pytest.mark.parametrize('given, threshold', [(dict(), 0.), (dict(min_confidence=.4), .4)])
def test_the_threshold_is_the_one_that_was_read_with(shade_reader, given, threshold):
    assert evaluate(shade_reader, [white], ['w'], **given).threshold == threshold


def test_validation_images_are_evaluated(shade_reader):
    dls = SimpleNamespace(valid_captchas=[SimpleNamespace(image=white, text='w')])
    assert evaluate_valid(shade_reader, dls).right == 1


def test_confusions_are_drawn_as_bars():
    ax = plot_confusions(Report(['ab', 'b'], ['ac', '']))
    assert [o.get_text() for o in ax.get_yticklabels()] == ['b → nothing', 'b → c']


def test_alignment_is_for_models_with_columns():
    with pytest.raises(ModelError, match="decoder is 'heads': it must be 'ctc'"): plot_alignment(Reader(shades, Spec('w', max_len=1, decoder='heads', arch='pool_free')), white)


def test_alignment_marks_every_character_in_its_column():
    def peaky(x):
        p = np.full((len(x), 24, 4), .01)
        for t, k in [(4, 1), (9, 2), (14, 2), (19, 3)]: p[:, t-1:t+2, k] = [.4, 2, .4]
        p[:, :, 0] = 1 - p[:, :, 1:].sum(-1).clip(max=.9)
        return np.log(p/p.sum(-1, keepdims=True))
    reader = Reader(peaky, Spec('kmx', max_len=4, height=40, width=120))
    axs = plot_alignment(reader, white)
    assert [(o.get_text(), o.get_position()[0]) for o in axs[1].texts] == [('k', 4.5), ('m', 9.5), ('m', 14.5), ('x', 19.5)]


def test_labels_with_look_alikes_count_as_the_readers_alphabet_has_them():
    class Reads7c:
        "A reader that reads `7c` in any image"
        spec, vocab = Spec('abc7', 2), Vocab('abc7')
        def options(self, **kwargs): return dict(constraint=None, min_confidence=None)
        def stream(self, images, bs, **options): return [Reading('7c', 1.) for _ in images]
    assert evaluate(Reads7c(), [white]*2, ['7\u0441', '\uff17c\u200e']).right == 2
