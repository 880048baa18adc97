"""The kinds of recogniser this package can open, one module or folder a family."""
