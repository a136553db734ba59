"""PortLens: see, prove and repair weight ports. `python app.py` serves it."""

from porting.ui.page import build, serve

demo = build()

if __name__ == "__main__":
    serve(demo)
