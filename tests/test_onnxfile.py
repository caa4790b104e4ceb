"Model files of strangers, and of the version before"
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from captcha_fastai.core import CaptchaError, ModelError, Spec
from captcha_fastai.draw.synth import Synth
from captcha_fastai.read import onnxfile
from captcha_fastai.read.images import prep
from captcha_fastai.read.onnxfile import check_graph, check_seal, file_bytes, file_meta, file_spec, open_onnx, proto_fields, seal

root = Path(__file__).resolve().parent.parent
spec = Spec('ab', max_len=2, height=4, width=8, decoder='heads')


def halves(s=spec, **meta):
    "Reads two letters: `b` for a bright half of the image, `a` for a dark one"
    right = np.arange(s.height*s.width) % s.width >= s.width//2
    weights = dict(w=np.stack([~right, right], 1).astype(np.float32), to=np.array([[0, -.1, .1]], np.float32), last=np.array([-1]))
    nodes = [helper.make_node('Flatten', ['image'], ['flat'], axis=1), helper.make_node('MatMul', ['flat', 'w'], ['sum']),
             helper.make_node('Unsqueeze', ['sum', 'last'], ['col']), helper.make_node('MatMul', ['col', 'to'], ['logits']),
             helper.make_node('LogSoftmax', ['logits'], ['logp'], axis=-1)]
    graph = helper.make_graph(nodes, 'halves', [helper.make_tensor_value_info('image', TensorProto.FLOAT, ['batch', 1, s.height, s.width])],
                              [helper.make_tensor_value_info('logp', TensorProto.FLOAT, ['batch', 2, 3])],
                              [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    helper.set_model_props(model, {**file_meta(s), **meta})
    return model


@pytest.fixture
def stored(tmp_path):
    "Write a model, sealed, and give its path"
    def f(model):
        (tmp_path/'m.onnx').write_bytes(seal(model.SerializeToString()))
        return tmp_path/'m.onnx'
    return f


@pytest.fixture
def images():
    x = np.full((3, 1, 4, 8), -2, np.float32)
    x[..., 4:] = 2
    return x


def test_a_file_says_what_it_is(): assert file_spec(file_meta(spec), 'm.onnx') == spec


@pytest.mark.parametrize('meta, why', [({}, 'm.onnx: holds no captcha_fastai model'), ({**file_meta(spec), 'version': '2'}, 'version 2 of the format'),
                                       ({**file_meta(spec), 'spec': '{}'}, "m.onnx: .*spec: 'chars' and 'max_len' must be there")])
def test_what_a_file_says_is_checked(meta, why):
    with pytest.raises(ModelError, match=why): file_spec(meta, 'm.onnx')


def test_files_that_are_not_there_or_too_large_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match='gone.onnx: no such file'): file_bytes(tmp_path/'gone.onnx')
    with pytest.raises(ModelError, match='cannot be read'): file_bytes(tmp_path)
    (tmp_path/'m.onnx').write_bytes(b'12345')
    monkeypatch.setattr(onnxfile, 'max_model', 4)
    with pytest.raises(ModelError, match='more than 4 bytes'): file_bytes(tmp_path/'m.onnx')


def test_a_sealed_file_is_onnx_for_others():
    data = seal(halves().SerializeToString())
    check_seal(data, 'm.onnx')
    onnx.checker.check_model(onnx.load_from_string(data))
    assert len(onnx.load_from_string(data).metadata_props) == 4


def test_a_flipped_bit_and_a_lost_byte_are_seen():
    data = seal(halves().SerializeToString())
    with pytest.raises(ModelError, match='m.onnx: damaged'): check_seal(data[:40] + bytes([data[40]^1]) + data[41:], 'm.onnx')
    with pytest.raises(ModelError, match='m.onnx: not a whole ONNX file'): check_seal(data[:-1], 'm.onnx')


def test_the_encoding_is_read_as_onnx_reads_it():
    model = halves()
    fields = dict(proto_fields(model.SerializeToString()))
    assert fields[1] == model.ir_version and fields[7] == model.graph.SerializeToString()
    assert check_graph(model.SerializeToString(), 'm.onnx') == file_meta(spec)


def elsewhere(graph):
    onnx.external_data_helper.set_external_data(graph.initializer[0], '/etc/passwd')
    graph.initializer[0].data_location = TensorProto.EXTERNAL


def endless(graph): graph.node.append(helper.make_node('Loop', ['', 'yes'], ['x'], body=helper.make_graph([], 'g', [], [])))
def nested(graph): graph.node[0].attribute.append(helper.make_attribute('body', helper.make_graph([], 'g', [], [])))
def huge_kernel(graph): graph.node[0].attribute.append(helper.make_attribute('kernel_shape', [3, 65]))
def sparse(graph): graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[1]))
def weights_in_an_attribute(graph):
    tensor = numpy_helper.from_array(np.zeros(2, np.float32))
    onnx.external_data_helper.set_external_data(tensor, '/etc/passwd')
    graph.node[0].attribute.append(helper.make_attribute('value', tensor))


@pytest.mark.parametrize('change, why', [(elsewhere, 'lie in another file'), (endless, "the operation 'Loop'"), (nested, 'a graph within its graph'),
                                         (huge_kernel, 'a kernel or padding that is too large'), (sparse, 'sparse weights'),
                                         (weights_in_an_attribute, 'lie in another file')])
def test_more_than_a_captcha_model_needs_is_refused(change, why):
    model = halves()
    change(model.graph)
    with pytest.raises(ModelError, match=f'm.onnx: not an ONNX file that is safe to open .*{why}'): check_graph(model.SerializeToString(), 'm.onnx')


def test_negative_numbers_are_no_large_kernels():
    model = halves()
    model.graph.node[0].attribute.append(helper.make_attribute('pads', [0, -1]))
    check_graph(model.SerializeToString(), 'm.onnx')


def test_functions_of_a_files_own_are_refused():
    model = halves()
    model.functions.append(helper.make_function('own', 'F', [], [], [], []))
    with pytest.raises(ModelError, match='safe to open'): check_graph(model.SerializeToString(), 'm.onnx')


@pytest.mark.parametrize('junk', [
    b'\x80\x04nonsense',                        # the beginning of a pickle
    b'\x3a\x02\x08\x01',                        # a number for a node
    b'\xa2\x80\x80\x80\x10\x04Loop',            # a field of 32 bits and more
    b'\x72\x05\x08\x80\xe1\xeb\x17',            # a description named 50,000,000
    b'\x80'*20,                                 # a number that does not end
    b'\x3a\x7fx',                               # a field longer than its message
    b'\x3b', b'\xff'*99,
    b'\x08\x01'*100_001])                       # too many fields
def test_junk_is_not_safe_to_open(junk):
    with pytest.raises(ModelError, match='not an ONNX file that is safe'): check_graph(junk, 'm.onnx')


@pytest.mark.parametrize('content, why', [(b'', 'not a whole ONNX file'), (b'PK\x03\x04'*100, 'not a whole ONNX file'), (seal(b''), 'cannot open it|holds no captcha_fastai model'),
                                          (seal(b'\x08\x09'*50), 'cannot open it|holds no'), (seal(b'\xff'*99), 'safe to open')])
def test_odd_onnx_files_are_refused(content, why, tmp_path):
    (tmp_path/'m.onnx').write_bytes(content)
    with pytest.raises(CaptchaError, match=f'm.onnx: .*({why})'): open_onnx(tmp_path/'m.onnx')


def test_a_model_reads_halves(stored, images):
    model, back = open_onnx(stored(halves()))
    assert back == spec
    assert model(images).argmax(-1).tolist() == [[1, 2]]*3 and np.allclose(np.exp(model(images)).sum(-1), 1)


@pytest.mark.parametrize('meta, why', [(dict(spec=Spec('abc', 2, height=4, width=8).to_json()), r'is a tensor\(float\) of shape'),
                                       (dict(spec=Spec('ab', 2, height=5, width=8).to_json()), "'image' is a tensor"),
                                       (dict(spec='{}'), "chars' and 'max_len' must be there"), (dict(format='other'), 'holds no captcha_fastai model')])
def test_a_file_whose_parts_disagree_is_refused(stored, meta, why):
    with pytest.raises(ModelError, match=why): open_onnx(stored(halves(**meta)))


def test_a_file_that_is_not_there():
    with pytest.raises(ModelError, match='no such file'): open_onnx('gone.onnx')


def test_two_outputs_are_refused(stored):
    model = halves()
    model.graph.output.append(helper.make_tensor_value_info('sum', TensorProto.FLOAT, ['batch', 2]))
    with pytest.raises(ModelError, match='1 inputs and 2 outputs'): open_onnx(stored(model))


def test_a_model_that_asks_for_gigabytes_gets_none(stored, images):
    big = halves()
    for name, shape in dict(long=(40_000, 1), wide=(1, 40_000)).items():
        big.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    big.graph.node.extend([helper.make_node('MatMul', ['long', 'wide'], ['huge']), helper.make_node('ReduceMax', ['huge'], ['zero'], keepdims=0),
                           helper.make_node('Add', ['logp', 'zero'], ['answer'])])
    big.graph.output[0].name = 'answer'
    with pytest.raises(ModelError, match='onnxruntime cannot run it .*requested bytes of 6400000000'): open_onnx(stored(big))[0](images)


def mangled(data, rng):
    "`data` with a byte changed, some lost or doubled, or cut off"
    at, n = rng.randrange(len(data)), rng.choice([1, 2, 16, 200])
    new = rng.choice([bytes([data[at]^(1 << rng.randrange(8))]), b'', data[at:at+n]*2, b'\xff'*n])
    return data[:at] + new + (data[at+n:] if rng.random() < .9 else b'')


@pytest.mark.parametrize('sealed', [False, True], ids=['damaged', 'by somebody who can seal'])
def test_mutated_model_files_are_refused_or_work(sealed, tmp_path, images):
    whole, bad, refused = halves().SerializeToString(), tmp_path/'bad.onnx', 0
    for i in range(60):
        case = seal(mangled(whole, random.Random(i))) if sealed else mangled(seal(whole), random.Random(i))
        bad.write_bytes(case)
        try: open_onnx(bad)[0](images)
        except CaptchaError as e:
            assert str(bad) in str(e)
            refused += 1
        else: assert sealed or case == seal(whole)
    assert refused > (30 if sealed else 55)


EXPECTED = [[[-2.57147, -2.27577, -2.44361, -2.55734, -2.53726, -2.24852, -2.52223, -2.49448, -2.27276, -2.3226, -2.22564],
             [-2.62438, -2.2213, -2.45661, -2.56265, -2.5578, -2.23355, -2.52904, -2.48636, -2.30143, -2.30754, -2.21612]],
            [[-2.57151, -2.27577, -2.44351, -2.55744, -2.53738, -2.24849, -2.52221, -2.49451, -2.27265, -2.32262, -2.22564],
             [-2.62441, -2.22151, -2.45705, -2.56264, -2.55744, -2.23326, -2.52888, -2.48658, -2.30161, -2.30727, -2.21613]]]


def test_a_file_of_version_0_1_reads_as_then():
    "First and last column of two images, as version 0.1 computed them; the two images differ by ten times the tolerance"
    model, spec = open_onnx(root/'tests'/'data'/'version_0_1_crnn_tiny.onnx')
    assert (spec.chars, spec.max_len, spec.height, spec.width, spec.arch) == ('0123456789', 4, 24, 64, 'crnn_tiny')
    assert (spec.arch_args, spec.temperature, spec.threshold) == ({'widths': [4, 8, 8, 8, 8], 'hidden': 8}, 1.3, .5)
    synth = Synth('0123456789', 4, 'simple', (24, 64))
    logp = model(np.stack([prep(synth(i)[1], spec) for i in (0, 1)]))
    assert logp.shape == (2, 32, 11) and logp.argmax(-1).tolist() == [[10]*32]*2
    assert np.allclose(logp[:, [0, -1]], EXPECTED, rtol=0, atol=2e-5)


def test_without_onnxruntime_one_is_told_to_install_it():
    code = '''import sys
sys.modules['onnxruntime'] = None
from captcha_fastai.read.onnxfile import open_onnx
try: open_onnx('m.onnx')
except ImportError as e: assert 'pip install onnxruntime' in str(e)
else: assert False'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


def test_files_are_opened_without_a_framework():
    code = '''import sys
for o in ('torch', 'torchvision', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba', 'onnx'): sys.modules[o] = None
import captcha_fastai.core, captcha_fastai.read.images, captcha_fastai.read.compiled, captcha_fastai.read.constraint
from captcha_fastai.read.onnxfile import open_onnx
open_onnx('tests/data/version_0_1_crnn_tiny.onnx')'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)
