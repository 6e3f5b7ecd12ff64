"""What the TPU compiler (libtpu 0.0.42.1) reports of the memory of train steps, in GiB a chip: compiled, not run.

Hub id of the model, topology and mesh, flags of the run, bytes in all of the compiler's report (`plan --fast` shows them).
"""

COMPILED = (
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 32 --accumulation 1 --remat full", 11.44),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat full", 14.58),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 1 --remat full", 14.91),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 64 --accumulation 2 --remat attention", 14.72),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat mlp", 27.05),
    ("bigcode/starcoder", "v5e:4x8", (4, 8), "--batch-size 32 --accumulation 1 --remat full --strategy fsdp_tensor", 11.58),
    ("bigcode/starcoderbase-3b", "v5e:2x4", (8, 1), "--batch-size 8 --accumulation 1 --remat full", 7.92),
    ("bigcode/starcoderbase-3b", "v5e:2x4", (8, 1), "--batch-size 64 --accumulation 2 --remat mlp", 20.57),
    (
        "bigcode/starcoderbase-3b",
        "v5e:2x4",
        (2, 4),
        "--batch-size 8 --accumulation 1 --remat full --strategy fsdp_tensor",
        11.62,
    ),
    ("codellama/CodeLlama-7b-hf", "v5e:4x8", (32, 1), "--batch-size 32 --accumulation 1 --remat full", 5.17),
    ("codellama/CodeLlama-7b-hf", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat attention", 11.31),
    ("codellama/CodeLlama-7b-hf", "v6e:2x4", (8, 1), "--batch-size 8 --accumulation 1 --remat full", 15.12),
    ("bigcode/starcoder", "v6e:2x4", (8, 1), "--batch-size 8 --accumulation 1 --remat full --lora.rank 64", 9.46),
    ("bigcode/starcoder", "v5e:2x4", (8, 1), "--batch-size 8 --accumulation 1 --remat full --lora.rank 64", 9.51),
    ("bigcode/starcoder", "v5p:2x4x4", (32, 1), "--batch-size 64 --accumulation 1 --remat full", 12.62),
    ("codellama/CodeLlama-34b-hf", "v5p:2x4x4", (32, 1), "--batch-size 32 --accumulation 1 --remat full", 20.83),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat offload", 11.92),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat offload_attention", 12.75),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 64 --accumulation 2 --remat offload_mlp", 14.31),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 512 --accumulation 8 --remat full", 14.58),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 64 --accumulation 1 --remat full", 12.41),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 64 --accumulation 1 --remat attention", 16.08),
    ("bigcode/starcoder", "v5e:4x8", (8, 4), "--batch-size 128 --accumulation 2 --remat full --strategy fsdp_tensor", 15.04),
    (
        "bigcode/starcoder",
        "v5e:4x8",
        (8, 4),
        "--batch-size 64 --accumulation 2 --remat attention --strategy fsdp_tensor",
        15.76,
    ),
    (
        "bigcode/starcoder",
        "v5e:4x8",
        (32, 1),
        "--batch-size 128 --accumulation 2 --remat full --optim.moment-dtype int8",
        11.67,
    ),
    ("bigcode/starcoder", "v5e:4x8", (32, 1), "--batch-size 128 --accumulation 2 --remat full --optim.name adafactor", 10.66),
)
