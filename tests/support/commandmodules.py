"""Run a command, then print its exit code and the names of all libraries that are loaded."""

import json
import sys

from featstore_cli.main import main

try:
    main()
except SystemExit as end:
    code = end.code or 0
else:
    code = 0
sys.stdout.write("LOADED" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
