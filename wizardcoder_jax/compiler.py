"""XLA options of what is compiled for TPUs, one table by chip; elsewhere the compiler's own choices stand.

A program takes them by `jax.jit(..., compiler_options=...)`, so that what is compiled ahead of time and what runs are the same
program, and no environment variable has to be set. The names are libtpu's; MaxText (benchmarks/xla_flags_library.py) is where
they are described in public.
"""

Options = dict[str, str | int | bool]

# Without it the compiler breaks products with gathered weights into as many small ones as there are devices, to overlap each
# with the passing on of a piece ("windowed einsum"): over 32 devices these are too small to keep a matrix unit busy.
_WHOLE_PRODUCTS: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}

OPTIONS: dict[str, Options] = {  # by what jax calls a kind of device
    "TPU v4": _WHOLE_PRODUCTS,
    "TPU v5": _WHOLE_PRODUCTS,  # v5p
    "TPU v5 lite": _WHOLE_PRODUCTS,  # v5e
    "TPU v6 lite": _WHOLE_PRODUCTS,  # v6e
}


def compiler_options(device_kind: str) -> Options:
    """Options for devices of a kind, e.g. "TPU v5 lite"; none where the table has none."""
    return dict(OPTIONS.get(device_kind, {}))
