"""Mutated images and model files: does anything but a reading or a `CaptchaError` come of them, and how long does it take?

    python benchmarks/fuzz.py --data ../shared/data/captcha_images_v2 --models DIR

DIR holds what `benchmarks/read.py` left there. Each kind runs in a process of its own, so that a crash would be seen."""
import csv
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from common import machine
from fastcore.script import call_parse
from PIL import Image

from captcha_fastai.core import CaptchaError
from captcha_fastai.read.images import image_files, image_formats
from captcha_fastai.read.reader import Reader
from captcha_fastai.ship.modelfile import load_reader
from captcha_fastai.read.onnxfile import seal

results = Path(__file__).resolve().parent/'results'


def mutated(b, rng):
    "Bytes changed, lost, doubled, cut off, or overwritten"
    b = bytearray(b)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not b: break
        i, n = rng.randrange(len(b)), rng.choice((1, 2, 4, 16, 200))
        match rng.randrange(6):
            case 0: b[i] ^= 1 << rng.randrange(8)
            case 1: b[i:i+n] = rng.randbytes(n)
            case 2: del b[i:i+n]
            case 3: b[i:i] = b[i:i+n]
            case 4: b[i:i+n] = bytes([rng.choice((0, 255))])*n
            case 5: del b[max(i, len(b)//8):]
    return bytes(b)


def with_crc(b):
    "A PNG whose chunks have right checksums again, so that decoders get to see what is in them"
    out, at = b[:8], 8
    while at+12 <= len(b):
        n, kind = struct.unpack('>I4s', b[at:at+8])
        body = b[at+8:at+8+n]
        out += b[at:at+8] + body + struct.pack('>I', zlib.crc32(kind+body))
        at += 12+n
    return out


def as_format(b, fmt):
    im = Image.open(io.BytesIO(b)).convert('RGB')
    out = io.BytesIO()
    im.save(out, fmt)
    return out.getvalue()


def image_cases(paths, n, seed):
    "PNGs half of the time, with checksums made right half of those; else another format"
    for i in range(n):
        rng = random.Random(f'{seed} {i}')
        b, fmt = rng.choice(paths).read_bytes(), rng.choice(('PNG',)*len(image_formats)+image_formats)
        if fmt == 'PNG': yield with_crc(mutated(b, rng)) if rng.random() < .5 else mutated(b, rng)
        else: yield mutated(as_format(b, fmt), rng)


def in_header(b, rng):
    "Mutations of a safetensors header, its length made right again"
    n = int.from_bytes(b[:8], 'little')
    head = mutated(b[8:8+n], rng)
    return len(head).to_bytes(8, 'little') + head + b[8+n:]


def model_cases(kind, b, n, seed):
    "A mutated file; a mutated header; for ONNX, mutations that are sealed again"
    for i in range(n):
        rng = random.Random(f'{seed} {i}')
        if kind == 'onnx': yield mutated(b, rng)
        elif kind == 'onnx, sealed again': yield seal(mutated(b[:-len(seal(b''))], rng))
        else: yield in_header(b, rng) if rng.random() < .5 else mutated(b, rng)


def memory():
    "The most memory this process has had, in MB"
    import resource                                                   # not on Windows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(1e6 if sys.platform == 'darwin' else 1e3)


def judge(f, whole, cases, at):
    "How each case ended, the longest time, and by how many MB the process grew; the file `at` has the last one, should the process die"
    at.write_bytes(whole)
    f(whole)                                                          # whatever is imported on first use
    ends, longest, before = {}, 0., memory()
    for case in cases:
        at.write_bytes(case)
        t = time.perf_counter()
        try:
            f(case)
            end = 'read'
        except CaptchaError as e: end = type(e).__name__
        except Exception as e: end = f'WRONG {type(e).__name__}: {e}'[:200]
        longest = max(longest, time.perf_counter()-t)
        ends[end] = ends.get(end, 0)+1
    return dict(ends=ends, longest=longest, memory=memory()-before)


def work(kind, data, models, n, seed):
    "One kind, in this process"
    models, paths = Path(models), image_files(data)
    with tempfile.TemporaryDirectory() as d:
        at = Path(d)/('case.onnx' if kind.startswith('onnx') else 'case.safetensors')
        if kind == 'images': out = judge(Reader.from_onnx(models/'crnn_tiny_int8.onnx'), paths[0].read_bytes(), image_cases(paths, n, seed), at)
        else:
            whole = (models/('crnn_tiny_int8.onnx' if kind.startswith('onnx') else 'crnn_tiny.safetensors')).read_bytes()
            out = judge(lambda case: load_reader(at)(paths[0]), whole, model_cases(kind, whole, n, seed), at)
    print(json.dumps(out))


@call_parse
def main(data: str = '../shared/data/captcha_images_v2',  # Folder of images to mutate
         models: str = 'models/read',  # Folder with crnn_tiny.safetensors and crnn_tiny_int8.onnx
         images: int = 20_000,  # Mutated images
         files: int = 2000,  # Mutated model files
         seed: int = 1,
         worker: str = None):  # Used by the benchmark itself
    if worker: return work(worker, data, models, images if worker == 'images' else files//4 if 'onnx' in worker else files-2*(files//4), seed)
    rows = []
    for kind in ('images', 'onnx', 'onnx, sealed again', 'safetensors'):
        args = ['--data', data, '--models', models, '--images', images, '--files', files, '--seed', seed, '--worker', kind]
        p = subprocess.run([sys.executable, '-W', 'ignore', __file__, *map(str, args)], capture_output=True, text=True)
        if p.returncode: print(f'{kind}: the process died with {p.returncode}\n{p.stderr[-2000:]}'); rows.append((kind, '', '', f'died with {p.returncode}')); continue
        o = json.loads(p.stdout.splitlines()[-1])
        rows.append((kind, round(o['longest'], 3), round(o['memory']), ' '.join(f'{k}={v}' for k, v in sorted(o['ends'].items()))))
        print(*rows[-1], flush=True)
    print(machine())
    results.mkdir(exist_ok=True)
    with (results/'fuzz.csv').open('w', newline='') as o: csv.writer(o).writerows([('what', 'longest s', 'grew by MB', 'ended'), *rows])
