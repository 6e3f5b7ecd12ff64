"""XLA options of the training step on each TPU, and of the sampler. Other programs use the compiler's defaults.

The options are passed through `jax.jit(..., compiler_options=...)`, so that programs compiled ahead of time equal those that
run, and no environment variable is needed. They are libtpu's options; MaxText documents them (benchmarks/xla_flags_library.py).
The effects stated here were measured on programs compiled ahead of time for StarCoder.
"""

Options = dict[str, str | int | bool]


def _vmem_limit(mib: int) -> Options:
    """Return the option that lets a matrix product use `mib` MiB of vector memory instead of 16.

    With more memory, products read their inputs fewer times, and more operations can be fused with them: on v5e, a product
    fused with the gradient of gelu takes 9.8 million cycles instead of 13.1; a train step of
    four layers takes 0.61 s instead of 1.02 s on v6e, which computes faster than it reads, and 0.81 s instead of 0.94 s on v5p.
    A chip has 128 MiB of vector memory (v5p: 64). If the compiled program has too many instructions, the compiler starts over
    with less memory: with 64 MiB on v5e, compilation takes twice as long as with 40 MiB, and the result is not faster.
    """
    return {"xla_tpu_scoped_vmem_limit_kib": 1024 * mib}


# By default the compiler splits products with gathered weights into one small product per device, to overlap each with the
# transfer of a shard ("windowed einsum"). With 32 devices these are too small to keep a matrix unit busy.
_NO_WINDOWED_EINSUM: Options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}

# Fetch offloaded activations in the loop iteration that needs them. To prefetch them one iteration earlier, the compiler would
# peel the first iteration off the loop, and then fill all other saved activations with zeros before each microbatch.
_NO_HOST_PREFETCH: Options = {"xla_tpu_pipeline_memory_host_transfers": False}
# Overlap all-gathers of weights with matrix products. This is the default on v5e; other chips would wait for every all-gather.
_OVERLAP_ALL_GATHER: Options = {
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
}

# Overlap reduce-scatters of gradients with matrix products. By default the devices wait for each reduce-scatter, which takes
# 5.7 of the 28 seconds of a step on v5e 4x8.
_OVERLAP_REDUCE_SCATTER: Options = {
    "xla_enable_async_reduce_scatter_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": True,
}
# As above, for slices with a 3D torus, where the compiler uses all-reduces of complete gradients instead of reduce-scatters.
_OVERLAP_ALL_REDUCE: Options = {
    "xla_enable_async_all_reduce": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
}

TRAINING_OPTIONS: dict[str, Options] = {  # JAX device kind -> options
    "TPU v4": _NO_WINDOWED_EINSUM,
    "TPU v5": {**_NO_WINDOWED_EINSUM, **_vmem_limit(40), **_OVERLAP_ALL_GATHER, **_OVERLAP_ALL_REDUCE},  # v5p
    "TPU v5 lite": {**_NO_WINDOWED_EINSUM, **_vmem_limit(40), **_NO_HOST_PREFETCH, **_OVERLAP_REDUCE_SCATTER},  # v5e
    "TPU v6 lite": {  # v6e
        **_NO_WINDOWED_EINSUM,
        **_vmem_limit(96),
        **_NO_HOST_PREFETCH,
        **_OVERLAP_ALL_GATHER,
        **_OVERLAP_REDUCE_SCATTER,
    },
}


# YNNPACK, which XLA uses for matrix products on CPU, is slow with few rows if the CPU lacks AVX-512: with 16 rows it reaches
# 30 GFLOP/s, and XLA's own products reach 50 (2 cores of an AMD EPYC). With at least this number of rows, YNNPACK is faster.
YNNPACK_MIN_ROWS = 48
_NO_YNNPACK: Options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}


def sampling_options(device_kind: str, num_rows: int) -> Options:
    """Return the options of a sampler program whose matrix products have `num_rows` rows, one per token."""
    if device_kind == "cpu":
        return dict(_NO_YNNPACK) if num_rows < YNNPACK_MIN_ROWS and _has_avx2_at_most() else {}
    # The default vector memory limit leaves space to prefetch weights, which matters more here than fast products.
    return dict(_NO_WINDOWED_EINSUM) if device_kind in TRAINING_OPTIONS else {}


def _has_avx2_at_most() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:  # not Linux
        return False
    return "avx2" in flags and "avx512f" not in flags


def training_options(device_kind: str) -> Options:
    """Return the options of a training step for a device kind, e.g. "TPU v5 lite"; empty for kinds without options."""
    return dict(TRAINING_OPTIONS.get(device_kind, {}))
