"""The path of a byte: Cython modules that run without the GIL."""
