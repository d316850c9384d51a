# SPDX-License-Identifier: Apache-2.0
"""python -m mcuformer, and so torchrun -m mcuformer."""

from mcuformer.cli import main

if __name__ == "__main__":
    main()
