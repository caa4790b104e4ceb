"Read `settings.ini`; what is static stands in `pyproject.toml`"
from configparser import ConfigParser
from setuptools import setup

cfg = ConfigParser(delimiters=['='])
cfg.read('settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
setup(description=cfg['description'], python_requires=f">={cfg['min_python']}", keywords=cfg['keywords'].split(),
      install_requires=cfg['requirements'].split(), extras_require={k: cfg[f'{k}_requirements'].split() for k in ('onnx', 'dev', 'bench')},
      entry_points={'console_scripts': cfg['console_scripts'].split(),
                    'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]})
