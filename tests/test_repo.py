"Invariants of the repository"
import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = sorted(f for f in (root/'nbs').rglob('[0-9]*.ipynb'))
package = root/'captcha_fastai'
modules = sorted(f for f in package.rglob('*.py') if f.name not in ('_modidx.py', '__init__.py', 'all.py'))
FLOORS = [['core'], ['read'], ['draw'], ['data'], ['train'], ['judge', 'ship'], ['recipes'], ['app'], ['cli']]  # lowest first
every = sorted((root/'nbs').rglob('*.ipynb'))
commands = dict(o.split('=') for o in (lambda c: c.read(root/'settings.ini', encoding='utf-8') and c)(ConfigParser(delimiters=['=']))['DEFAULT']['console_scripts'].split())


def cells(f): return json.loads(f.read_text(encoding='utf-8'))['cells']
def exported(f): return [s for c in cells(f) if c['cell_type'] == 'code' and re.match(r'#\|\s*export\b', s := ''.join(c['source']))]
def module_of(f): return '.'.join(f.relative_to(package).with_suffix('').parts)
def floor_of(module): return next(i for i,rooms in enumerate(FLOORS) if module.split('.')[0] in rooms)
def place_of(f):
    "Where a notebook stands: its floor, its room, its number"
    parts = [re.sub(r'^\d+_', '', p) for p in f.relative_to(root/'nbs').with_suffix('').parts]
    floor = floor_of(parts[0])
    return floor, FLOORS[floor].index(parts[0]), f.stem


places = {'.'.join(re.sub(r'^\d+_', '', p) for p in f.relative_to(root/'nbs').with_suffix('').parts): place_of(f) for f in notebooks}


def own_imports(f):
    "(inside a function?, module) of what a file imports from its own package"
    tree = ast.parse(f.read_text(encoding='utf-8'))
    inside = {id(n) for d in ast.walk(tree) if isinstance(d, (ast.FunctionDef, ast.ClassDef)) for n in ast.walk(d)}
    here = f.relative_to(package).parent.parts
    for n in ast.walk(tree):
        if not isinstance(n, ast.ImportFrom) or not n.level: continue
        base = here[:len(here)-n.level+1]
        yield id(n) in inside, '.'.join([*base, *(n.module or '').split('.')]).strip('.')


def test_every_module_has_its_notebook(): assert sorted(map(module_of, modules)) == sorted(places)


@pytest.mark.parametrize('f', modules, ids=module_of)
def test_a_module_imports_from_lower_floors_and_earlier_files_only(f):
    for inside, other in own_imports(f):
        assert not inside, f'{f.name} imports {other} inside a function'
        assert places[other] < places[module_of(f)], f'{module_of(f)} imports {other}, which stands above it'


def test_light_modules_need_no_framework():
    code = '''import sys
for o in ('torch', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba'): sys.modules[o] = None
from captcha_fastai.read import Reader'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


def test_export_and_clean_leave_no_diff(tmp_path):
    for o in ('nbs', 'captcha_fastai'): shutil.copytree(root/o, tmp_path/o, ignore=shutil.ignore_patterns('__pycache__'))
    for o in ('pyproject.toml', 'settings.ini', 'setup.py'): shutil.copy(root/o, tmp_path/o)
    for cmd in ('nbdev-clean', 'nbdev-export'): subprocess.run([Path(sys.executable).parent/cmd], cwd=tmp_path, check=True)
    for f in [*every, *package.rglob('*.py')]:
        assert (tmp_path/f.relative_to(root)).read_text(encoding='utf-8') == f.read_text(encoding='utf-8'), f'{f.name}: run nbdev-clean and nbdev-export'
    copied = tmp_path/'captcha_fastai'
    assert {f.relative_to(copied) for f in copied.rglob('*.py')} == {f.relative_to(package) for f in package.rglob('*.py')}


def test_readme_is_the_index():
    assert (root/'README.md').read_text(encoding='utf-8') == runpy.run_path(str(root/'.ci'/'readme.py'))['render'](), 'run make readme'


@pytest.mark.parametrize('f', every, ids=lambda f: f.stem)
def test_notebooks_stay_small(f):
    assert len(cells(f)) <= 80, 'more than 80 cells: the idea wants splitting'
    assert f.stat().st_size <= 200*1024, 'more than 200 KB'
    for s in exported(f): assert len([l for l in s.splitlines() if l.strip() and not l.startswith('#|')]) <= 40, s[:80]


@pytest.mark.parametrize('f', notebooks, ids=lambda f: f.stem)
def test_style(f):
    for s in exported(f):
        for l in s.splitlines(): assert len(l) <= 160, l
        tree = ast.parse(s)
        for n in tree.body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_'):
                doc = ast.get_docstring(n)
                assert doc and '\n' not in doc, f'{n.name}: one line of docstring'


def test_no_pickle_in_our_formats():
    for f in package.rglob('*.py'):
        code = f.read_text(encoding='utf-8')
        assert not re.search(r'^\s*(import|from) (pickle|dill|joblib)', code, re.M), f.name
        for call in re.findall(r'torch\.load\(.*', code): assert 'weights_only=True' in call, f'{f.name}: {call}'


def test_wheel_holds_the_package_and_nothing_else(tmp_path):
    "Built from the source distribution, which must hold what setup.py reads"
    src = tmp_path/'src'
    shutil.copytree(root, src, ignore=shutil.ignore_patterns('.venv', '.git', 'demo', 'models', 'build', '*.egg-info', '__pycache__'))
    code = 'import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--target', tmp_path/'tools', 'setuptools>=77'], check=True)
    subprocess.run([sys.executable, '-c', code, tmp_path], cwd=src, check=True, env={**os.environ, 'PYTHONPATH': str(tmp_path/'tools')})
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path, next(tmp_path.glob('*.tar.gz'))], check=True)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as z:
        names = {n for n in z.namelist() if '.dist-info/' not in n}
        points = z.read(next(n for n in z.namelist() if n.endswith('entry_points.txt'))).decode()
    assert names == {str(f.relative_to(root)) for f in package.rglob('*.py')}
    for name, target in commands.items(): assert f'{name} = {target}' in points


@pytest.mark.parametrize('name', commands)
def test_help(name):
    out = subprocess.run([Path(sys.executable).parent/name, '--help'], capture_output=True, text=True, check=True).stdout
    assert 'usage: ' + name in out and '--' in out
