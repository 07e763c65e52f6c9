"""`python -m treadle.runner FOLDER`: the program in a container."""

import sys

from treadle.runner.main import main

sys.exit(main(sys.argv))
