"Write README.md from nbs/index.ipynb (`nbdev-readme` needs Quarto); `render()` is what a test compares"
import re
from pathlib import Path

from fastcore.nbio import read_nb

root = Path(__file__).resolve().parent.parent


def output(o):
    "A cell's output as text; pictures are files that the index links to"
    text = o.get('text') or o.get('data', {}).get('text/plain', '')
    return ''.join(text).rstrip()


def render():
    "The index as Markdown: hidden cells and directives left out, links made relative to the root"
    out = []
    for c in read_nb(root/'nbs'/'index.ipynb').cells:
        src = ''.join(c.source)
        if src.startswith('#| hide'): continue
        if c.cell_type == 'markdown': out.append(re.sub(r'\]\((?!http|#)(\.\./)?', lambda m: '](' if m[1] else '](nbs/', src))
        elif c.cell_type == 'code':
            out.append('```python\n' + '\n'.join(l for l in src.splitlines() if not l.startswith('#|')) + '\n```')
            out += ['```\n' + t + '\n```' for o in c.get('outputs', []) if (t := output(o))]
    return '<!-- made from nbs/index.ipynb by `make readme`: edit that -->\n\n' + '\n\n'.join(out) + '\n'


if __name__ == '__main__': (root/'README.md').write_text(render(), encoding='utf-8')
