"""Recipes on real sets of many kinds: no label, 20, 50, 100 and all of them; the same commands for every set.

    python benchmarks/kinds.py --data ../shared/data                           # goes on where it was interrupted
    python benchmarks/kinds.py --data ../shared/data --arch crnn_small         # from scratch
    python benchmarks/kinds.py --data ../shared/data --labels ddddocr          # ddddocr 1.6.1, untrained, 100 images of each
    python benchmarks/kinds.py --plot nbs/images/kinds.png                     # pool the rows, draw the plot

What the readers accept by their own threshold goes into a second table, beside what the best threshold in hindsight would.
Three random subsets of each size; the rest, at most 400 images, is read. With few images half of them train at most."""
import contextlib
import csv
import io
import json
import tempfile
import time
import warnings
import zipfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import machine
from fastcore.script import call_parse

from captcha_fastai.data.labels import labelled
from captcha_fastai.judge.report import Report
from captcha_fastai.read.score import wilson
from captcha_fastai.recipes.base import untrained_reader
from captcha_fastai.recipes.labelled import train_labelled
from captcha_fastai.ship.modelfile import load_reader
from captcha_fastai.train.schedule import Recipe

results = Path(__file__).resolve().parent/'results'
key_names = ['set', 'labels', 'subset', 'method']
names = [*key_names, 'right', 'of', 'seconds', 'machine']
trust_names = [*key_names, 'of', 'accepted', 'accepted_right', 'best', 'best_right', 'ece']


def development_sets(data):
    "{name: (images, labels)}"
    found = {'captcha_images_v2': labelled(data/'captcha_images_v2')}
    for folder in sorted((data/'sets').iterdir()):
        if (folder/'labels.csv').exists(): found[folder.name] = labelled(folder)
    with zipfile.ZipFile(data/'hackmit/unlabelled.zip') as z:
        entries = {Path(o).name: o for o in z.namelist()}
        labels = json.loads((data/'hackmit/dev_labels.json').read_text())
        images = []
        for name in labels:
            file = io.BytesIO(z.read(entries[Path(name).name]))
            file.name = name
            images.append(file)
    return found | {'hackmit': (images, list(labels.values()))}


def split(n, n_labels, subset):
    "Numbers of the images to train on, and of those to read"
    order = np.random.default_rng(subset).permutation(n)
    n_train = min(n_labels, n//2)
    return order[:n_train], order[n_train:][:400]


def known(labels):
    "What is told of texts that have no label: how long they are, and of which characters"
    lengths = [len(o) for o in labels]
    return dict(length=(min(lengths), max(lengths)), alphabet=''.join(sorted(set(''.join(labels)))))


def trained(images, labels, arch, folder):
    "A reader by `train_labelled`, as `captcha-train` would make it"
    rows = []
    for i, (image, label) in enumerate(zip(images, labels)):
        file = folder/f'{i}{Path(str(getattr(image, "name", image))).suffix}'
        file.write_bytes(image.getvalue() if isinstance(image, io.BytesIO) else Path(image).read_bytes())
        rows.append((file.name, label))
    with open(folder/'labels.csv', 'w', newline='', encoding='utf-8') as f: csv.writer(f).writerows([('name', 'label'), *rows])
    train_labelled(folder, folder/'out'/'model.safetensors', recipe=replace(Recipe(), arch=arch))
    return load_reader(folder/'out'/'model.safetensors')


def peer(images, labels):
    "How many ddddocr reads: the better of its two models, its greedy decoding among the characters as told, case ignored"
    import ddddocr
    told = {c for o in known(labels)['alphabet'] for c in (o.lower(), o.upper())} | {''}
    best = 0
    for beta in (False, True):
        ocr = ddddocr.DdddOcr(show_ad=False, beta=beta)
        right = 0
        for image, label in zip(images, labels):
            data = image.getvalue() if isinstance(image, io.BytesIO) else Path(image).read_bytes()
            found = ocr.classification(data, probability=True)
            ids = [i for i, c in enumerate(found['charset']) if c in told]
            path = np.array(found['probabilities'])[:, 0, ids].argmax(-1)
            text = ''.join(found['charset'][ids[k]] for i, k in enumerate(path) if i == 0 or k != path[i-1])
            right += text.lower() == label.lower()
        best = max(best, right)
    return best


def measured(images, labels, n_labels, subset, arch):
    "(right, of, seconds), and a report of the readings"
    train, test = split(len(images), n_labels, subset)
    some, truth = [images[i] for i in test], [labels[i] for i in test]
    begin = time.time()
    with tempfile.TemporaryDirectory() as d, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if n_labels: reader = trained([images[i] for i in train], [labels[i] for i in train], arch, Path(d))
        else: reader = untrained_reader(some, **known(labels))
    seconds = time.time() - begin
    rules = {} if n_labels else known(labels)
    readings = reader.read_many(some, **rules)
    report = Report(truth, readings, threshold=reader.spec.threshold)
    return (report.right, report.n, seconds), report


def trust(report):
    "What is accepted, how much of it is right, the same for the best threshold in hindsight, and the calibration error"
    own, best = report.accepted(report.threshold), report.accept_threshold(Recipe.precision)
    return report.n, own.n, own.right, best.n, best.right, f'{report.ece():.4f}'


def append(path, heading, row):
    "A row at the end of a table, which begins with its heading"
    is_new = not path.exists()
    with path.open('a', newline='') as f:
        if is_new: csv.writer(f).writerow(heading)
        csv.writer(f).writerow(row)


def pool(rows):
    "{(method, number of labels, set): (images read, images)} of all subsets together"
    pooled = defaultdict(lambda: [0, 0])
    for r in rows:
        cell = pooled[r['method'], int(r['labels']), r['set']]
        cell[0] += int(r['right'])
        cell[1] += int(r['of'])
    return pooled


def show(rows):
    "Mean over the sets and each set, by method and number of labels"
    pooled = pool(rows)
    columns = sorted({k[:2] for k in pooled})
    sets = sorted({k[2] for k in pooled})
    print('| set |', ' | '.join(f'{m}, {n} labels' for m, n in columns), '|\n|---' + '|---'*len(columns) + '|')
    for s in sets:
        cells = [pooled.get((*c, s)) for c in columns]
        texts = ['' if c is None else f'{c[0]/c[1]:.1%} ({wilson(*c)[0]:.0%} to {wilson(*c)[1]:.0%})' for c in cells]
        print(f'| {s} |', ' | '.join(texts), '|')
    means = [np.mean([c[0]/c[1] for (m, n, _), c in pooled.items() if (m, n) == column]) for column in columns]
    worst = [min(c[0]/c[1] for (m, n, _), c in pooled.items() if (m, n) == column) for column in columns]
    print('| **mean** |', ' | '.join(f'{o:.1%}' for o in means), '|\n| **worst** |', ' | '.join(f'{o:.1%}' for o in worst), '|')


def draw(rows, path):
    "A row for each set, a dot for each number of labels"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    pooled = pool(rows)
    ours = sorted({n for m, n, _ in pooled if m == 'from the base'})
    columns = [('from the base', n, 'o', plt.cm.viridis_r((i+1)/len(ours))) for i, n in enumerate(ours)]
    columns += [('ddddocr 1.6.1', 0, 'x', 'tab:red')]
    first = {s: c[0]/c[1] for (m, n, s), c in pooled.items() if (m, n) == ('from the base', 0)}
    sets = sorted(first, key=first.get)
    ax = plt.subplots(figsize=(7.5, .33*len(sets)+1))[1]
    for method, n, marker, colour in columns:
        found = {s: c[0]/c[1] for (m, k, s), c in pooled.items() if (m, k) == (method, n)}
        if not found: continue
        name = method if marker == 'x' else f'{n} labels' if n < 1000 else 'all labels'
        places = [i for i, s in enumerate(sets) if s in found]
        ax.scatter([100*found[sets[i]] for i in places], places, marker=marker, color=colour, label=name, zorder=3)
    ax.set(yticks=range(len(sets)), yticklabels=sets, xlim=(-2, 102), xlabel='images read, %')
    ax.grid(alpha=.4)
    ax.legend(loc='upper left', bbox_to_anchor=(1, 1), frameon=False)
    plt.savefig(path, bbox_inches='tight', dpi=90)


@call_parse
def main(data: str = '../shared/data',  # Folder of the development sets
         labels: str = '0 20 50 100 100000',  # Numbers of labels; the last are all, up to half of a set of fewer than 200
         subsets: int = 3,  # Random subsets of each size
         sets: str = '',  # Only these
         arch: str = Recipe.arch,
         table: str = str(results/'kinds.csv'),  # Where the rows are kept
         table_only: bool = False,  # Show what was measured
         plot: str = None):  # Draw what was measured into this file
    table = Path(table)
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    if plot: draw(rows, plot)
    if table_only or plot: return show(rows)
    done = {(r['set'], r['labels'], r['subset'], r['method']) for r in rows}
    method = 'from the base' if arch == 'crnn_base' else f'{arch} from scratch'
    for n_labels in labels.split():
        for name, (images, texts) in development_sets(Path(data)).items():
            if sets and name not in sets.split(','): continue
            for subset in range(1 if n_labels in ("0", "ddddocr") else subsets):
                key = (name, n_labels, str(subset), method)
                if n_labels == 'ddddocr': key = (name, '0', str(subset), 'ddddocr 1.6.1')
                if key in done: continue
                if n_labels == 'ddddocr':
                    test = split(len(images), 0, subset)[1][:100]
                    result = peer([images[i] for i in test], [texts[i] for i in test]), len(test), 0.
                else: result, report = measured(images, texts, int(n_labels), subset, arch)
                right, of, seconds = result
                print(*key, f'{right}/{of} = {right/of:.1%}, {seconds:.0f} s', flush=True)
                append(table, names, [*key, right, of, f'{seconds:.1f}', machine()])
                if key[1] != '0': append(table.with_name('trust.csv'), trust_names, [*key, *trust(report)])
                done.add(key)
