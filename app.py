"""PortLens: see, prove and repair weight ports. `python app.py` serves it."""

from porting.ui.page import build, launch, warm

demo = build()

if __name__ == "__main__":
    warm()
    launch(demo)
