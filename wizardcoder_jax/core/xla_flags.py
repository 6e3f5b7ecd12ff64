"""XLA options of train steps for TPUs, one table by chip, and of the sampler; elsewhere the compiler's choices stand.

A program takes them by `jax.jit(..., compiler_options=...)`, so that what is compiled ahead of time and what runs are the same
program, and no environment variable has to be set. The names are libtpu's; MaxText (benchmarks/xla_flags_library.py) is where
they are described in public. What is said here of an option is what it did to programs compiled ahead of time for StarCoder.
"""

Options = dict[str, str | int | bool]


def _windows(mib: int) -> Options:
    """What a product may use of the vector memory, in place of 16 MiB.

    In larger windows products read their inputs fewer times, and there is room for what is fused with them: on v5e the gradient
    of gelu beside a product took 13.1 million cycles, and takes 9.8; on v6e, which multiplies faster than it reads, operations
    of four layers take 0.61 s in place of 1.02, on v5p 0.81 in place of 0.94. The vector memory has 128 MiB, on v5p 64.
    What programs of products are too long for the compiler makes again with smaller windows, which takes its time: on v5e with
    64 MiB twice as long as with 40, and no cycle less.
    """
    return {"xla_tpu_scoped_vmem_limit_kib": 1024 * mib}


# Without it the compiler breaks products with gathered weights into as many small ones as there are devices, to overlap each
# with the passing on of a piece ("windowed einsum"): over 32 devices these are too small to keep a matrix unit busy.
_WHOLE_PRODUCTS: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}

# What is brought back from the host is asked for in the iteration of the loop that needs it. To ask one iteration earlier the
# compiler takes the first iteration out of the loop, and then fills all else that is kept with zeros before each microbatch.
_TRANSFERS_IN_LOOPS: Options = {"xla_tpu_pipeline_memory_host_transfers": False}
# Weights are gathered piece by piece inside the products that run meanwhile. It is so by default on v5e; elsewhere every gather
# would be waited for.
_GATHERS_IN_PRODUCTS: Options = {
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
}

# Gradients are summed over devices piece by piece inside the products that run meanwhile. By default each sum is waited for:
# 5.7 of 28 seconds of a step on v5e 4x8.
_SUMS_IN_PRODUCTS: Options = {
    "xla_enable_async_reduce_scatter_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": True,
}
# The same where a slice has three dims: there the compiler sums whole gradients on every device.
_WHOLE_SUMS_IN_PRODUCTS: Options = {
    "xla_enable_async_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
}

TRAINING_OPTIONS: dict[str, Options] = {  # by what jax calls a kind of device
    "TPU v4": _WHOLE_PRODUCTS,
    "TPU v5": {**_WHOLE_PRODUCTS, **_windows(40), **_GATHERS_IN_PRODUCTS, **_WHOLE_SUMS_IN_PRODUCTS},  # v5p
    "TPU v5 lite": {**_WHOLE_PRODUCTS, **_windows(40), **_TRANSFERS_IN_LOOPS, **_SUMS_IN_PRODUCTS},  # v5e
    "TPU v6 lite": {  # v6e
        **_WHOLE_PRODUCTS,
        **_windows(96),
        **_TRANSFERS_IN_LOOPS,
        **_GATHERS_IN_PRODUCTS,
        **_SUMS_IN_PRODUCTS,
    },
}


# YNNPACK, which XLA takes for matrix products on CPU, is slow at few rows where it has no AVX-512: with 16 it does 30 GFLOP/s
# where XLA's own products do 50 (2 cores of an AMD EPYC). With FEW_ROWS or more it is the faster one.
YNNPACK_MIN_ROWS = 48
_OWN_PRODUCTS: Options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}


def sampling_options(device_kind: str, num_rows: int) -> Options:
    """Options for a program of the sampler whose products have so many rows, one for each token of a step or of a piece."""
    if device_kind == "cpu":
        return dict(_OWN_PRODUCTS) if num_rows < YNNPACK_MIN_ROWS and _has_avx2_at_most() else {}
    # With small windows there is room in the vector memory for weights to come, which are read while a step waits for others.
    return dict(_WHOLE_PRODUCTS) if device_kind in TRAINING_OPTIONS else {}


def _has_avx2_at_most() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:  # not Linux
        return False
    return "avx2" in flags and "avx512f" not in flags


def training_options(device_kind: str) -> Options:
    """Options of a train step for devices of a kind, e.g. "TPU v5 lite"; none where the table has none."""
    return dict(TRAINING_OPTIONS.get(device_kind, {}))
