"Machine code and plain Python give the same"
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from captcha_fastai.read.compiled import compiled, kernel, kernels

root = Path(__file__).resolve().parent.parent


@kernel
def square(x): return x*x


@kernel
def squares(x):
    total = 0.
    for o in x: total += square(o)
    return total


def test_a_kernel_stays_a_plain_function():
    assert squares in kernels and squares(np.arange(1000.)) == 332833500


def test_machine_code_gives_the_same():
    pytest.importorskip('numba')
    x = np.arange(1000.)
    assert compiled(squares)(x) == squares(x)


def test_a_function_is_compiled_once():
    pytest.importorskip('numba')
    assert compiled(squares) is compiled(squares) and compiled(squares) is not squares


def test_without_numba_a_function_is_itself():
    code = '''import sys
sys.modules['numba'] = None
from captcha_fastai.read.compiled import compiled, kernel
@kernel
def f(x): return x+1
assert compiled(f) is f'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)
