"""The studio: a local page that plays with generators, and the same page as a folder that needs no server.

protocol   what the page may ask, and the bounds of every field
model      a generator that answers: points to styles, styles to pictures
movies     walks as files
server     one WebSocket, a few plain requests, and who may make them
static     the page with a model in ONNX beside it
page/      HTML, CSS and JavaScript modules, as they are
"""

from pathlib import Path

PAGE = Path(__file__).parent / "page"
