"""`python -m porting`."""

from porting.cli import main

main()
