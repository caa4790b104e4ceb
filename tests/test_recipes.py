"Recipes: what a command does, from Python; what they say at their end"
from pathlib import Path

import pytest
from fastai.data.transforms import Normalize
from safetensors.torch import load_file

from captcha_fastai.core import CaptchaError, Spec, accept_none
from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.look import Look, load_looks, save_looks
from captcha_fastai.draw.synth import Synth, write_synth
from captcha_fastai.judge.report import Report
from captcha_fastai.read.images import image_files
from captcha_fastai.read.reader import Reading
from captcha_fastai.recipes import synthetic
from captcha_fastai.recipes.labelled import fine_tune_model, learner_from, not_forgetting, told_apart, train_few_labels, train_labelled, with_peak_lr, with_some_of
from captcha_fastai.recipes.reading import Tally, as_options, evaluated, reading_summary
from captcha_fastai.recipes.result import Result, advice, command_line, length_option
from captcha_fastai.recipes.synthetic import Source, find_style, parse_style, style_text, synthetic_for, written_chars
from captcha_fastai.recipes.unlabelled import check_length, not_held_out, text_lengths
from captcha_fastai.ship.modelfile import load_reader, save_model
from captcha_fastai.train.fewlabels import synth_of
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.refine import save_refiner
from captcha_fastai.train.fewlabels import Rehearse
from captcha_fastai.train.schedule import Recipe
from captcha_fastai.train.simgan import Refiner

quick = Recipe(synthetic_steps=10, synthetic_epoch=64, synthetic_valid=8)


@pytest.fixture(scope='module')
def more(tmp_path_factory): return write_synth(tmp_path_factory.mktemp('more')/'more', 40, Synth('OX7', 2, size=(32, 64), seed=5)).parent


@pytest.fixture
def a_search_takes_its_time(monkeypatch):
    "No style is recognised, and the search tries nothing"
    monkeypatch.setattr(synthetic, 'recognise_style', lambda *_, **__: '')
    monkeypatch.setattr('captcha_fastai.draw.fit.search_look', lambda *_, **__: (1., Look()))


# Styles as they are written

@pytest.mark.parametrize('written, source', [('fit', Source('fit')), ('kaptcha', Source('kaptcha')), ('simple:F.ttf', Source('simple', ('F.ttf',))),
                                             ('fit:F.ttf', Source('fit', ('F.ttf',))), ('my/looks.json', Source('my/looks.json'))])
def test_a_style_is_one_word(written, source): assert parse_style(written) == source


def test_an_unknown_style_is_refused_with_all_there_are():
    with pytest.raises(CaptchaError, match="style 'gan' is unknown: choose from fit, simple, image_captcha, fast_captcha, kaptcha, world, composed, hackmit, or give"): parse_style('gan')


def test_a_refiner_knows_its_style(tmp_path):
    save_looks(Look(), tmp_path/'looks.json')
    for source in (Source('simple'), Source('kaptcha', ('F.ttf',)), Source(str(tmp_path/'looks.json'))):
        save_refiner(Refiner(1, 4, 1), tmp_path/'r.safetensors', style_text(source))
        found = parse_style(tmp_path/'r.safetensors')
        assert (found.refiner, found.fonts) == (str(tmp_path/'r.safetensors'), source.fonts)
        if source.style.endswith('.json'): assert load_looks(found.style) == load_looks(source.style)
        else: assert found.style == source.style


def test_a_refiner_of_version_0_1_takes_a_style_found_from_your_images():
    file = Path(__file__).parent/'data'/'version_0_1_refiner.safetensors'
    assert parse_style(file) == Source('fit', (), str(file))


def test_a_style_that_was_found_is_not_searched_for_again(more, tmp_path, a_search_takes_its_time, monkeypatch):
    found = find_style(image_files(more), 'OX7', 2, folder=tmp_path)
    assert load_looks(found)[0].picture
    monkeypatch.setattr(synthetic, 'fit_style', None)
    assert find_style(image_files(more), 'OX7', 2, folder=tmp_path) == found


def test_a_style_of_ours_leaves_no_file(more, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, 'recognise_style', lambda *_, **__: 'simple')
    assert find_style(image_files(more), 'OX7', 2, folder=tmp_path) == 'simple'
    assert not [*tmp_path.glob('style_*.json')]


# Synthetic captchas for a learner

def test_they_have_the_seed_size_and_characters_of_the_learner(more, tmp_path):
    found = synthetic_for(captcha_learner(CaptchaDataLoaders.from_folder(more)), 'kaptcha', tmp_path, seed=7)
    assert synth_of(found).seed == 7
    assert (tuple(found.train_ds[0][0].shape), found.spec.chars) == ((3, 32, 64), '7OX')


def test_they_are_scaled_as_the_model_to_start_from(more, tmp_path):
    scaled = captcha_learner(CaptchaDataLoaders.from_folder(more, batch_tfms=Normalize(axes=(0, 1, 2, 3))), 'digits_cnn')
    save_model(scaled, tmp_path/'scaled.safetensors')
    learn = learner_from(tmp_path/'scaled.safetensors', more)
    assert learn.spec.mean == scaled.spec.mean > .6
    assert synthetic_for(learn, 'simple', tmp_path).spec.mean == scaled.spec.mean


def test_a_style_is_found_with_the_labels_help(more, tmp_path, a_search_takes_its_time):
    found = synthetic_for(captcha_learner(CaptchaDataLoaders.from_folder(more)), 'fit', tmp_path)
    assert synth_of(found).looks[0].picture


def test_a_reader_that_ignores_case_sees_both_cases(tmp_path, monkeypatch):
    both = write_synth(tmp_path/'both', 40, Synth('AaBb', length=2, size=(32, 64), seed=5)).parent        # the labels ignore case, the pictures do not
    learn = captcha_learner(CaptchaDataLoaders.from_folder(both, fold=True))
    written = dict(zip(*labelled(both)))
    chars = [synth_of(synthetic_for(learn, 'simple', tmp_path, **o)).chars for o in ({}, dict(written=written), dict(chars='aAb'))]
    assert chars == ['ab', 'AaBb', 'Aab']
    seen = []
    monkeypatch.setattr(synthetic, 'recognise_style', lambda *_, **__: '')
    monkeypatch.setattr(synthetic, 'fit_style', lambda images, texts, **_: seen.append(texts) or (Look(),))
    assert synthetic_for(learn, 'fit', tmp_path/'fit', written=written).spec.chars == learn.spec.chars
    assert set(''.join(seen[0])) == {*'AaBb'}


def test_synthetic_captchas_have_the_proportions_of_the_images(more, tmp_path):
    learn = captcha_learner(CaptchaDataLoaders.from_folder(more, size=(48, 160)))
    found = synthetic_for(learn, 'simple', tmp_path)
    assert synth_of(found).size == (32, 64) and (found.spec.height, found.spec.width) == (48, 160)


@pytest.mark.parametrize('written, chars', [('AB7', '7ABCß'), ('ab7', '7abcß'), ('Ab', '7AbCcß'), ('7', '7abcß')])
def test_characters_that_no_label_has_are_written_as_the_others_are(written, chars):
    assert written_chars(Spec('7abcß', 2, fold=True), written) == chars


# Numbers

def test_learning_rates_keep_their_ratio():
    recipe = with_peak_lr(Recipe(), 1e-3)
    assert (recipe.lr, recipe.synthetic_lr, recipe.tune_lr) == (1e-3, 1.5e-3, .5e-3)
    assert with_peak_lr(Recipe(), None) == Recipe()


def test_a_number_of_a_recipe_cannot_be_overwritten():
    with pytest.raises(AttributeError): Recipe().lr = 1


@pytest.mark.parametrize('length', ['0', '0-4', (4, None), 'long'])
def test_lengths_without_both_ends_are_refused(length):
    with pytest.raises(CaptchaError, match='length is'): text_lengths(length)


def test_a_length_the_model_cannot_write_is_refused():
    check_length('2', 2)
    check_length(None, 2)
    with pytest.raises(CaptchaError, match='--length is 2-6: the model can learn 2 characters at most'): check_length('2-6', 2)


# Training

def test_validation_images_are_not_learned_from(more):
    dls = CaptchaDataLoaders.from_folder(more)
    assert len(not_held_out([*image_files(more), 'gone.png'], dls)) == len(dls.train_ds) + 1


def test_few_labels_begin_with_synthetic_captchas(more, tmp_path):
    done = train_few_labels(more, tmp_path/'m.safetensors', 'simple', epochs=1, recipe=quick)
    assert (tmp_path/'m'/'pretrain'/'log.csv').exists()
    assert load_reader(tmp_path/'m.safetensors').spec == done.spec
    assert done.report.n == 8


@pytest.mark.parametrize('all_labels', [40, 39])
def test_few_labels_are_all_trained_on_in_the_end(more, tmp_path, all_labels):
    recipe = Recipe(base_steps=2, base_epoch=2, min_epochs=1, all_steps=2, all_labels=all_labels)
    done = train_labelled(more, tmp_path/'m.safetensors', recipe=recipe)
    assert ('went on with all 40 labelled images' in str(done)) == (all_labels == 40)
    assert load_reader(tmp_path/'m.safetensors').spec == done.spec and done.report.n == 8


def test_the_same_seed_trains_the_same_model(more, tmp_path):
    a, b = (train_labelled(more, tmp_path/f'{o}.safetensors', epochs=1, seed=3) for o in 'ab')
    assert a.path.read_bytes() == b.path.read_bytes()


# Last words

@pytest.fixture(scope='module')
def letters(tmp_path_factory): return write_synth(tmp_path_factory.mktemp('letters')/'letters', 20, Synth('ABC', 2, size=(32, 64), seed=6)).parent


def test_a_model_that_goes_on_is_shown_what_it_knows(more, letters, tmp_path):
    save_model(captcha_learner(CaptchaDataLoaders.from_folder(more)), tmp_path/'old.safetensors')
    alone = learner_from(tmp_path/'old.safetensors', letters)
    with pytest.warns(UserWarning, match="no label has '7OX', which old.safetensors knows: it may forget them"):
        with not_forgetting(alone, 'old.safetensors'): assert any(isinstance(o, Rehearse) for o in alone.dls.train.after_batch.fs)
    assert not any(isinstance(o, Rehearse) for o in alone.dls.train.after_batch.fs)
    both = learner_from(tmp_path/'old.safetensors', letters, keep=more)
    assert len(both.dls.train_ds) + len(both.dls.valid_ds) == 60
    with not_forgetting(both, 'old.safetensors'): assert not any(isinstance(o, Rehearse) for o in both.dls.train.after_batch.fs)


def test_the_same_seed_goes_on_to_the_same_model(more, letters, tmp_path):
    "New characters begin at random: from the seed"
    save_model(captcha_learner(CaptchaDataLoaders.from_folder(more)), tmp_path/'old.safetensors')
    files = [tmp_path/'a.safetensors', tmp_path/'b.safetensors']
    for o in files: fine_tune_model(tmp_path/'old.safetensors', letters, o, epochs=1, keep=more)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_old_images_are_not_more_than_the_new_but_200_at_least(more):
    many = [Path(f'{i}.png') for i in range(230)]
    assert [len(with_some_of(more, many[:n], ['7']*n)[0]) for n in (1, 230)] == [41, 270]


def test_old_and_new_images_are_told_apart(more, letters):
    names = [str(o) for folder in (letters, more) for o in image_files(folder)]
    report = Report(['A']*60, [Reading('A' if i < 30 else 'B', 1., name=o) for i, o in enumerate(names)])
    assert told_apart(Result('m', 'done', 'good', 'files', report=report), letters, more).quality.splitlines()[-2:] == [
        f'of {letters}: 100.00% (20/20, 95 % interval 83.9% to 100.0%)', f'of {more}: 25.00% (10/40, 95 % interval 14.2% to 40.2%)']


def test_a_good_reader_needs_no_advice(): assert advice(Report(['a'], [Reading('a', 1.)]), 'learning', 'd', False) == []


def test_advice_is_in_the_order_of_what_helps_most():
    poor = Report(['ab', 'cd'], [Reading('xb', .9, name='0.png'), Reading('', .1, name='1.png')])
    lines = '\n'.join(advice(poor, 'memorising', 'my images', False))
    order = [lines.index(o) for o in ('by heart', "captcha-train 'my images' --style fit", "captcha-curve 'my images'", '0.png')]
    assert order == sorted(order)
    assert '1.png' not in lines, 'a reading that is unsure says nothing of the label'
    assert '--style fit' not in '\n'.join(advice(poor, 'plateau', 'my images', True)), 'it had synthetic captchas'


def test_a_good_reader_says_which_label_looks_wrong():
    readings = [Reading('ab', .98, name=f'{i}.png') for i in range(20)]
    [line] = advice(Report(['ab']*19 + ['a6'], readings), 'learning', 'd', False)
    assert line.startswith('Labels that look wrong') and "19.png ('a6' read as 'ab', 98.0%)" in line
    readings[-1] = Reading('ab', .7, name='19.png')
    assert advice(Report(['ab']*19 + ['a6'], readings), 'learning', 'd', False) == [], 'it is not as sure as usual'


def test_advice_tells_the_size_and_the_length():
    poor = Report(['ab', 'cd'], [Reading('xb', .9, name='0.png'), Reading('c', .1, name='1.png')])
    spec = Spec('abcdx', 2, 48, 160, arch='crnn_small')
    lines = advice(poor, 'plateau', 'd', False, spec, (96, 320))
    assert lines[0].startswith('It reads next to nothing.') and lines[1].endswith('captcha-train d')
    assert lines[-2].endswith("(96x320 became 48x160), in Python: train_labelled('d', size=(96, 320))")
    assert '--length 2: 1 of 2 had another one' in lines[-1]
    lines = advice(Report(['ab', 'c'], [Reading('ab', .9), Reading('xx', .1)]), 'learning', 'd', False, spec, (50, 160))
    assert lines[0].startswith('This reader is not good yet.') and 'curve' in lines[-1], 'labels of two lengths, images of the size'


def test_the_last_words_leave_out_what_there_is_not():
    assert str(Result(Path('m'), 'Done.', '', 'files')) == 'Done.\n\nfiles'


def test_commands_to_copy_are_quoted(): assert command_line('captcha-read', 'my model') == "captcha-read 'my model'"


def test_a_length_is_proposed():
    assert [length_option(o) for o in (['ab'], ['ab', 'abc'], [])] == [['--length', '2'], ['--length', '2-3'], []]


def test_a_poor_evaluation_says_what_would_help():
    poor = Report(['ab', 'cd'], [Reading('xb', .9), Reading('cd', .9)])
    words = str(evaluated(poor, 'm.onnx', 'my images', {}))
    assert "captcha-finetune MODEL.safetensors 'my images' --label stem" in words and 'captcha-export' not in words, 'an ONNX file is neither tuned nor exported'
    good = Report(['ab'], [Reading('ab', .9)])
    assert 'What would help' not in str(evaluated(good, 'm.safetensors', 'my images', {}))


@pytest.mark.parametrize('truths, threshold, sign', [
    (['aB', 'cd'], accept_none, 'characters that it does not know: B.'), (['abc', 'cd'], accept_none, '1 labels are longer than 2 characters.'),
    (['ab', 'cd'], .9, 'it was sure of some of those'), (['ab', 'cd'], accept_none, None), (['xy', 'cd'], .9, None)])
def test_images_of_another_kind_are_called_so(truths, threshold, sign):
    report = Report(truths, [Reading('xy', .5), Reading('x', .5)], threshold=.3)         # what the user asked for says nothing
    words = str(evaluated(report, 'm.safetensors', 'd', {}, spec=Spec('abcdxy', 2, threshold=threshold)))
    assert ('another kind' in words) == bool(sign) and (sign or '') in words


def test_options_are_repeated_as_typed():
    assert as_options(dict(length='4', fold=True, pattern=None, min_confidence=0.)) == ['--length', '4', '--fold', '--min-confidence', 0.]


@pytest.mark.parametrize('threshold, words', [(0, 'there is no threshold'), (.9, 'confidence of 0.9000 or more'), (2., 'none should be')])
def test_a_summary_of_readings_names_the_threshold(threshold, words): assert words in reading_summary(Tally(1, 1), 'm', threshold)
