"""Do old runtimes, and one in a browser, read our ONNX files as the newest does?

    python benchmarks/runtimes.py                       # old onnxruntimes, each in an environment of its own
    python benchmarks/runtimes.py --browser             # onnxruntime-web in headless Chromium; needs npm and chromium
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
from fastai.torch_core import set_seed
from fastprogress import fastprogress

import captcha_fastai.data.online                       # CaptchaDataLoaders.from_synth
from captcha_fastai.core import Spec
from captcha_fastai.data.loaders import CaptchaDataLoaders
from captcha_fastai.draw.synth import digits
from captcha_fastai.read.images import open_image, prep
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.onnx import export_onnx, sample_images
from captcha_fastai.train.learner import captcha_learner
from captcha_fastai.train.models import archs, make_model
from common import keep_rows

fastprogress.NO_BAR = True
root = Path(__file__).resolve().parent.parent
names = ['runtime', 'file', 'images', 'read as the newest does', 'largest difference in probability']
versions = ['1.15.1', '1.16.3', '1.18.1']
web_version = '1.17.3'

OLD = '''import sys
import numpy as np, onnxruntime
for name in sys.argv[2:]:
    session = onnxruntime.InferenceSession(f'{sys.argv[1]}/{name}.onnx', providers=['CPUExecutionProvider'])
    np.save(f'{sys.argv[1]}/{name}.old.npy', session.run(None, {'image': np.load(f'{sys.argv[1]}/{name}.npy')})[0])'''

PAGE = '''<!doctype html><img id="image">
<script src="ort.min.js"></script>
<script type="module">
import {openReader} from './reader.js';
const send = o => fetch('/answer', {method: 'POST', body: JSON.stringify(o)});
try {
  ort.env.wasm.numThreads = 1;
  const answers = {};
  for (const [name, images] of Object.entries(await (await fetch('images.json')).json())) {
    const read = await openReader(new Uint8Array(await (await fetch(name + '.onnx')).arrayBuffer()), ort);
    answers[name] = [];
    for (const src of images) {
      image.src = src;
      await image.decode();
      answers[name].push(await read(image));
    }
  }
  await send(answers);
} catch (e) { await send({error: String(e)}); }
</script>'''


def trained():
    "A learner of two symbols, and images"
    set_seed(1, reproducible=True)
    dls = CaptchaDataLoaders.from_synth('OX', length=2, n=200, n_valid=100, synth_size=(32, 64), channels=1, batch_tfms=[], bs=20)
    learn = captcha_learner(dls, arch_args=dict(widths=(8, 16, 24, 24, 32), hidden=32))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(20, 6e-3)
    return learn, dls.valid_captchas


def exported(folder):
    "{name: images}: ONNX files of every architecture, untrained, and of a trained one in float and in 8 bits"
    learn, captchas = trained()
    images = [o.image for o in captchas]
    labels = [o.text for o in captchas]
    files = dict(float=images, int8=images)
    for name in files: export_onnx(learn, folder/f'{name}.onnx', name == 'int8', images, labels)
    for arch in archs:
        spec = Spec(digits, 4, 35, 99, arch=arch, decoder=archs[arch].decoder)
        export_onnx(make_model(spec), folder/f'{arch}.onnx', spec=spec)
        files[arch] = sample_images(spec, 8)
    return files


def row(runtime, name, have, want):
    alike = (have.argmax(-1) == want.argmax(-1)).all(-1)
    return [f'{runtime} {name}', name, len(want), int(alike.sum()), f'{np.abs(np.exp(have) - np.exp(want)).max():.1e}']


def old(folder, files, version):
    "Rows for an older onnxruntime"
    venv = folder/version
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    subprocess.run([venv/'bin'/'pip', 'install', '-q', f'onnxruntime=={version}', 'numpy<2'], check=True)
    for name, images in files.items():
        reader = Reader.from_onnx(folder/f'{name}.onnx')
        np.save(folder/f'{name}.want.npy', reader.logp(images))
        np.save(folder/f'{name}.npy', np.stack([prep(o, reader.spec) for o in images]))
    subprocess.run([venv/'bin'/'python', '-c', OLD, folder, *files], check=True)
    load = lambda name, kind: np.load(folder/f'{name}.{kind}.npy')
    return [row(f'onnxruntime {version}', name, load(name, 'old'), load(name, 'want')) for name in files]


class Handler(SimpleHTTPRequestHandler):
    "Serves a folder, and takes one answer"
    answers = Queue()
    def do_POST(self):
        self.answers.put(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass


def answer_of(folder, page):
    "What a page in headless Chromium sends back"
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    browser = next(filter(None, map(shutil.which, ('chromium-headless-shell', 'chromium', 'google-chrome'))))
    url = f'http://127.0.0.1:{server.server_port}/{page}'
    p = subprocess.Popen([browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder}/profile', '--remote-debugging-port=0', url],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try: answer = Handler.answers.get(timeout=300)
    finally:
        os.killpg(p.pid, signal.SIGKILL)                # the browser is a child of a script
        p.wait()
        server.shutdown()
    if 'error' in answer: raise RuntimeError(answer['error'])
    return answer


def web(folder, files):
    "Rows for onnxruntime-web"
    packed = subprocess.run(['npm', 'pack', f'onnxruntime-web@{web_version}'], cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder/packed) as t:
        for o in t.getmembers():
            if o.name.startswith('package/dist/ort') and o.name.endswith(('ort.min.js', '.wasm')):
                o.name = Path(o.name).name
                t.extract(o, folder, filter='data')
    shutil.copy(root/'nbs'/'tutorials'/'browser'/'reader.js', folder)
    (folder/'page.html').write_text(PAGE)
    listed = {}
    for name, images in files.items():
        listed[name] = [f'{name}_{i}.png' for i in range(len(images))]
        for o, path in zip(images, listed[name]): open_image(o).save(folder/path)
    (folder/'images.json').write_text(json.dumps(listed))
    answers, rows = answer_of(folder, 'page.html'), []
    for name, images in files.items():
        reader = Reader.from_onnx(folder/f'{name}.onnx')
        theirs = [(o['text'], o['confidence']) for o in answers[name]]
        ours = [best_path(reader, o) for o in images]
        alike = sum(a[0] == b[0] for a, b in zip(theirs, ours))
        rows.append([f'onnxruntime-web {web_version} {name}', name, len(ours), alike, f'{max(abs(a[1] - b[1]) for a, b in zip(theirs, ours)):.1e}'])
    return rows


def best_path(reader, image):
    "Text and probability of the most likely symbols"
    ids = reader.logp([image])[0]
    best, p = ids.argmax(-1), np.exp(ids.max(-1)).prod()
    if reader.spec.decoder == 'ctc': best = [o for i, o in enumerate(best) if i == 0 or o != best[i-1]]
    return reader.spec.vocab.decode(best), float(p)


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--browser', action='store_true')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as d:      # a browser ends a little later
        folder = Path(d)
        files = exported(folder)
        rows = web(folder, files) if args.browser else [o for v in versions for o in old(folder, files, v)]
    for o in rows: print(*o, sep='\t')
    keep_rows(root/'benchmarks'/'results'/'runtimes.csv', names, rows)
