"""`python -m avsr` is the `avsr` command."""

import sys

from avsr.cli.main import main

if __name__ == "__main__":  # worker processes import this module again and must not start over
    sys.exit(main())
