"Everything: `from captcha_fastai.all import *`"
from .core import *
from .compiled import *
from .constraint import *
from .onnxfile import *
from .styles import *
from .synth import *
from .fitstyle import *
from .decode import *
from .models import *
from .data import *
from .losses import *
from .metrics import *
from .learner import *
from .schedule import *
from .interpret import *
from .labels import *
from .export import *
