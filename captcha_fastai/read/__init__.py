"Read images with a model that was trained before: numpy, Pillow and onnxruntime are enough"
from .reader import Reader, Reading
