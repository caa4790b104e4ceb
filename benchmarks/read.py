"""From PNG bytes to text: this library's readers and ddddocr, one thread, one image at a time, interleaved image by image.

    python benchmarks/read.py --data ../shared/data/captcha_images_v2 --models models/read

Trains `crnn_small` and `crnn_tiny` on four fifths of the images (as `captcha-train` does) unless DIR has them, exports them in float and in 8 bits,
and reads the whole set. Accuracy is that on the fifth never trained on."""
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import machine
from fastai.torch_core import set_seed
from fastcore.script import call_parse

from captcha_fastai.data.labels import labelled
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.modelfile import load_model, load_reader, save_model
from captcha_fastai.ship.onnx import export_onnx
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.read.score import rate
from captcha_fastai.train.schedule import Recipe, train_captcha

results = Path(__file__).resolve().parent/'results'
kinds = [(a, k) for a in ('crnn_small', 'crnn_tiny') for k in ('fp32', 'int8')]
training = {'crnn_small': {}, 'crnn_tiny': dict(epochs=90, lr=4e-3)} # what differs from `captcha-train`'s defaults


def prepare(data, models, seed):
    "Train and export what is not there yet; the names of the images that were not trained on"
    dls = CaptchaDataLoaders.from_folder(data, seed=seed, valid_pct=Recipe.valid_pct, bs=Recipe.bs)
    train = [dls.train_ds.items[i] for i in range(len(dls.train_ds))]
    for arch, args in training.items():
        file = models/f'{arch}.safetensors'
        if not file.exists():
            set_seed(seed, reproducible=True)
            learn = captcha_learner(CaptchaDataLoaders.from_folder(data, seed=seed, valid_pct=Recipe.valid_pct, bs=Recipe.bs), arch)
            with learn.no_bar(): train_captcha(learn, **args, folder=models/arch)
            save_model(learn, file)
        model, spec = load_model(file)
        for kind in ('fp32', 'int8'):
            if not (out := models/f'{arch}_{kind}.onnx').exists():
                export_onnx(model, out, kind == 'int8', [o.image for o in train[:200]], [o.text for o in train[:200]], spec=spec)
    return {o.image.name for o in dls.valid_captchas}


def ddddocr_reader():
    "ddddocr as it comes, on one thread"
    import ddddocr
    import onnxruntime as ort
    Session = ort.InferenceSession

    def one_thread(path, *args, **kwargs):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return Session(path, sess_options=options, providers=['CPUExecutionProvider'])
    ort.InferenceSession = one_thread
    try: return ddddocr.DdddOcr(show_ad=False).classification
    finally: ort.InferenceSession = Session


def ddddocr_model():
    "The file of the model it reads with"
    import ddddocr
    return Path(ddddocr.__file__).parent/'common_old.onnx'


def cold(code, repeats=5):
    "(median seconds from nothing imported to the first text, its peak memory in MB) in fresh processes"
    code = f'import time; t = time.perf_counter()\n{code}\ntime_taken = time.perf_counter()-t\nprint(time_taken, next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))/1e3)'
    runs = [list(map(float, subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()[-2:])) for _ in range(repeats)]
    return np.median(runs, 0)


def light(path, image):
    "Code that reads one image as an installation without torch, numba and the rest would"
    return f"""import sys
for o in ('torch', 'fastai', 'fastcore', 'scipy', 'numba', 'matplotlib', 'pandas'): sys.modules[o] = None
from captcha_fastai.read.reader import Reader
Reader.from_onnx({str(path)!r})(open({str(image)!r}, 'rb').read()).text"""


@call_parse
def main(data: str = '../shared/data/captcha_images_v2',  # Folder of labelled images
         models: str = 'models/read',  # Folder of the models
         rounds: int = 1,  # How often each image is read
         seed: int = 42):  # Of the split and the training
    models = Path(models)
    models.mkdir(parents=True, exist_ok=True)
    held = prepare(data, models, seed)
    paths, labels = labelled(data)
    pngs = [p.read_bytes() for p in paths]
    readers = {'ddddocr': ddddocr_reader(), **{f'{a} {k}': Reader.from_onnx(models/f'{a}_{k}.onnx') for a, k in kinds}}
    sys.modules['numba'] = None                                       # as where it is not installed
    times, texts = {k: [] for k in readers}, {k: [] for k in readers}
    for f in readers.values(): f(pngs[0])
    for r in range(rounds):
        for png in pngs:
            for k, f in readers.items():
                t = time.perf_counter()
                text = str(f(png))
                times[k].append(time.perf_counter()-t)
                if not r: texts[k].append(text)
    rows, torch_texts = [], {a: [r.text for r in load_reader(models/f'{a}.safetensors').read_many(paths)] for a in training}
    for k, ts in times.items():
        file = models/f'{k.replace(" ", "_")}.onnx' if k != 'ddddocr' else ddddocr_model()
        right = [t == l for p, t, l in zip(paths, texts[k], labels) if p.name in held]
        row = dict(reader=k, p50_ms=np.median(ts)*1e3, p99_ms=np.quantile(ts, .99)*1e3, times_faster=np.median(times['ddddocr'])/np.median(ts), right=rate(sum(right), len(right)), MB=file.stat().st_size/1e6)
        if k != 'ddddocr':
            f, n = readers[k], 256
            batch = []
            for _ in range(5):
                t = time.perf_counter()
                f.read_many(pngs[:n], bs=32)
                batch.append(n/(time.perf_counter()-t))
            row |= dict(differs_from_torch=sum(a != b for a, b in zip(texts[k], torch_texts[k.split()[0]])), images_a_second_at_32=np.median(batch))
        rows.append(row)
    starts = {'ddddocr': cold(f"import ddddocr; ddddocr.DdddOcr(show_ad=False).classification(open({str(paths[0])!r}, 'rb').read())")}
    for a, k in kinds: starts[f'{a} {k}'] = cold(light(models/f'{a}_{k}.onnx', paths[0]))
    for row in rows: row |= dict(cold_start_s=starts[row['reader']][0], peak_MB=starts[row['reader']][1])
    names = list(rows[-1])
    rows = [{n: f'{row[n]:.3g}' if isinstance(row.get(n), float) else row.get(n, '') for n in names} for row in rows]
    for row in rows: print(json.dumps(row))
    print(f'{len(paths)} images, {len(held)} held out; {machine()}')
    results.mkdir(exist_ok=True)
    with (results/'read.csv').open('w', newline='') as o:
        w = csv.DictWriter(o, names)
        w.writeheader()
        w.writerows(rows)
