"""Greets its first argument; `fail` makes it fail."""

import sys

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        name = sys.argv[1] if len(sys.argv) > 1 else "world"
        if name == "fail":
            print("failed as asked", file=sys.stderr)
            sys.exit(1)
        print(f"hello {name} from Python")
