"What the README shows runs"
import re
import shutil
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def test_six_lines_of_the_readme(data, tmp_path, monkeypatch):
    code = re.search(r'```python\n(.*?load_reader.*?)```', (root/'README.md').read_text(encoding='utf-8'), re.S)[1]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data/'table', 'my_captchas')
    shutil.copy(next(Path('my_captchas').glob('*.png')), 'new.png')
    code = code.replace('train_captcha(learn)', 'train_captcha(learn, 1)')
    assert 'train_captcha(learn, 1)' in code
    exec(code, {})
    assert Path('captcha.safetensors').exists()
