"What the benchmarks share"
import csv
import platform
from pathlib import Path

import torch
from fastai.vision.all import Brightness, Contrast, Rotate


def machine():
    "The machine in words, for the tables"
    cpu = next((l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text().splitlines() if l.startswith('model name')), platform.processor()) if Path('/proc/cpuinfo').exists() else platform.processor()
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ''
    return f'{torch.get_num_threads()} threads of {cpu}{gpu}, torch {torch.__version__.split("+")[0]}'


def published_tfms():
    "The augmentation of the 2022 post"
    return [Rotate(10, p=.75), Brightness(.5, p=.8), Contrast(.5, p=.8)]


def write_log(learn, path, before=()):
    "What a learner's recorder holds, after what it held `before`, as a CSV that the tutorials read"
    rows = [*(row for part in before for row in part), *learn.recorder.values]
    names = ['epoch', *learn.recorder.metric_names[1:-1]]
    with path.open('w', newline='') as f: csv.writer(f).writerows([names, *([i, *(f'{o:.6g}' for o in row)] for i, row in enumerate(rows))])


def keep_rows(path, names, rows):
    "Add `rows` to a CSV; those of the same first value are replaced"
    path.parent.mkdir(exist_ok=True)
    old = [r for r in csv.reader(path.open()) if r[0] not in (names[0], *[o[0] for o in rows])] if path.exists() else []
    with path.open('w', newline='') as f: csv.writer(f).writerows([names, *old, *rows])
