"""python -m gptq_cpp: the command line."""

from .program import main

main()
