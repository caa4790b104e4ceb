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
FLOORS = [['writing', 'core'], ['read'], ['draw'], ['data'], ['train'], ['judge', 'ship'], ['recipes'], ['app'], ['start', 'command', 'light', 'cli']]  # lowest first
every = sorted((root/'nbs').rglob('*.ipynb'))
commands = dict(o.split('=') for o in (lambda c: c.read(root/'settings.ini', encoding='utf-8') and c)(ConfigParser(delimiters=['=']))['DEFAULT']['console_scripts'].split())


def cells(f): return json.loads(f.read_text(encoding='utf-8'))['cells']
def exported(f): return [s for c in cells(f) if c['cell_type'] == 'code' and re.match(r'#\|\s*exporti?\b', s := ''.join(c['source']))]
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
        if isinstance(n, ast.Import): yield from ((id(n) in inside, a.name.removeprefix('captcha_fastai.')) for a in n.names if a.name.startswith('captcha_fastai.'))
        if not isinstance(n, ast.ImportFrom): continue
        base = here[:len(here)-n.level+1] if n.level else ()
        name = '.'.join([*base, *(n.module or '').split('.')]).strip('.')
        if n.level or name.startswith('captcha_fastai.'): yield id(n) in inside, name.removeprefix('captcha_fastai.')


def test_every_module_has_its_notebook(): assert sorted(map(module_of, modules)) == sorted(places)


@pytest.mark.parametrize('f', modules, ids=module_of)
def test_a_module_imports_from_lower_floors_and_earlier_files_only(f):
    for inside, other in own_imports(f):
        assert not inside, f'{f.name} imports {other} inside a function'
        assert places[other] < places[module_of(f)], f'{module_of(f)} imports {other}, which stands above it'


def test_light_modules_need_no_framework():
    code = '''import sys
for o in ('torch', 'fastai', 'fastcore', 'fastprogress', 'matplotlib', 'pandas', 'scipy', 'numba'): sys.modules[o] = None
from PIL import Image
from captcha_fastai.read import Reader
reading = Reader.from_onnx('tests/data/version_0_1_crnn_tiny.onnx')(Image.new('L', (64, 24)))
assert 0 < reading.confidence <= 1 and len(reading.chars) == len(reading.text)'''
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


def name_of(f): return str(f.relative_to(root/'nbs').with_suffix(''))
def code_lines(source): return [l for l in source.splitlines() if l.strip() and not l.startswith('#|')]
def is_dataclass(source): return re.match(r'(#\|.*\n)*@dataclass', source) and len(ast.parse(source).body) == 1
def is_imports(lines): return all(re.match(r'(from|import|\s|\)|#|warnings)', l) for l in lines)


@pytest.mark.parametrize('f', every, ids=name_of)
def test_notebooks_stay_small(f):
    assert len(cells(f)) <= 80, 'more than 80 cells: the idea wants splitting'
    assert f.stat().st_size <= 200*1024, 'more than 200 KB'


@pytest.mark.parametrize('f', notebooks, ids=name_of)
def test_a_cell_is_one_idea_and_a_line_one_fact(f):
    for s in exported(f):
        lines = code_lines(s)
        for l in lines: assert len(l) <= 120, l
        assert len(lines) <= 25 or is_dataclass(s) or is_imports(lines), s[:80]


@pytest.mark.parametrize('f', notebooks, ids=name_of)
def test_functions_have_few_parameters_and_say_what_they_do(f):
    for s in exported(f):
        for n in ast.walk(ast.parse(s)):
            if isinstance(n, ast.FunctionDef) and f.stem != '08_cli':
                assert len(n.args.args) + len(n.args.kwonlyargs) <= 8, f'{n.name}: more than 8 parameters'
        for n in ast.parse(s).body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_'):
                doc = ast.get_docstring(n)
                assert doc and '\n' not in doc, f'{n.name}: one line of docstring'


@pytest.mark.parametrize('f', modules, ids=module_of)
def test_modules_are_short(f):
    assert len(f.read_text(encoding='utf-8').splitlines()) <= 300


def test_the_public_names_are_those_of_the_list():
    names = [n for f in modules for n in public_names(f)]
    assert sorted(names) == (root/'tests'/'api.txt').read_text().split()
    import captcha_fastai.all as everything
    assert set(names) <= set(vars(everything))


def public_names(f):
    for n in ast.parse(f.read_text(encoding='utf-8')).body:
        if isinstance(n, ast.Assign) and n.targets[0].id == '__all__': return ast.literal_eval(n.value)
    return []


PAGES = [*every, root/'README.md', root/'CONTRIBUTING.md', root/'CHANGELOG.md', root/'benchmarks'/'README.md']


@pytest.mark.parametrize('f', PAGES, ids=lambda f: str(f.relative_to(root)))
def test_links_lead_somewhere(f):
    if f.suffix == '.ipynb': text = '\n'.join(''.join(c['source']) for c in cells(f) if c['cell_type'] == 'markdown')
    else: text = f.read_text(encoding='utf-8')
    for link in re.findall(r'\]\(([^)#\s]+)', text):
        if not re.match(r'https?:|attachment:', link): assert (f.parent/link).exists(), link


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
    assert names == {str(f.relative_to(root)) for f in [*package.rglob('*.py'), package/'base.safetensors']}
    for name, target in commands.items(): assert f'{name} = {target}' in points


@pytest.mark.parametrize('name', commands)
def test_help(name):
    out = subprocess.run([Path(sys.executable).parent/name, '--help'], capture_output=True, text=True, check=True).stdout
    assert 'usage: ' + name in out and '--' in out
