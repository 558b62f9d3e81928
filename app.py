"""Start the browser app: ``python app.py``."""

import sys

from dbgpt_lite.server import main

if __name__ == "__main__":
    sys.exit(main())
