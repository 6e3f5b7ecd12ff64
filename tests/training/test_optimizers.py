import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx

from wizardcoder_jax.config import OptimConfig
from wizardcoder_jax.training.optimizers.factory import make_optimizer, make_schedule, step_count
from wizardcoder_jax.training.optimizers.quantized_moments import (
    MIN_SIZE,
    QuantizedMoment,
    choose_block,
    dequantize_blocks,
    quantize_blocks,
    quantize_moments,
    round_to_bfloat16,
)

pytestmark = pytest.mark.full_optimization

KERNEL = "blocks.mlp.up.kernel"


def params_of(arrays):
    """Return float32 parameters by name."""
    return {name: nnx.Param(jnp.asarray(array, jnp.float32), axes=(None,) * array.ndim) for name, array in arrays.items()}


def run(config, start, grads, num_steps=10):
    """Take a step with each of `grads`; return the parameters and the optimizer state."""
    optimizer, params = make_optimizer(config, num_steps), params_of(start)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for each in grads:
        updates, state = update(params_of(each), state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(param[...]) for name, param in params.items()}, state


def drawn(*shape, num=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32), rng.normal(size=(num, *shape)).astype(np.float32)


def constant(name, **changes):
    return OptimConfig(name=name, peak_lr=0.01, warmup_steps=0, schedule="constant", **changes)


@pytest.mark.parametrize(("name", "theirs"), [("cosine", "cosine"), ("linear", "linear"), ("constant", "constant")])
def test_schedules_equal_transformers(name, theirs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    make = getattr(transformers, f"get_{theirs}_schedule_with_warmup")
    more = {} if name == "constant" else {"num_training_steps": 100}
    scheduler = make(optimizer, num_warmup_steps=10, **more)
    ours, seen = make_schedule(OptimConfig(peak_lr=2e-5, warmup_steps=10, schedule=name), 100), []
    for _ in range(100):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose([float(ours(i)) for i in range(100)], seen, rtol=1e-5, atol=1e-12)


def test_wsd_is_constant_and_then_decays_linearly():
    schedule = make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=10, schedule="wsd", decay_fraction=0.2), 100)
    assert [float(schedule(i)) for i in (0, 5, 10, 50, 80, 90, 100)] == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_a_decaying_schedule_ends_at_the_given_fraction(name):
    schedule = make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=10, schedule=name, final_lr_fraction=0.1), 100)
    assert [float(schedule(i)) for i in (10, 100)] == pytest.approx([1, 0.1])
    values = [float(schedule(i)) for i in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_lion_equals_its_published_rule():
    """The rule is program 1 of Chen et al., arXiv 2302.06675."""
    config = constant("lion", b1=0.9, b2=0.99, weight_decay=0.1)
    start, grads = drawn(3, 5)
    found, _ = run(config, {"tokens": start}, [{"tokens": grad} for grad in grads])
    value, momentum = start.astype(np.float64), np.zeros_like(start, np.float64)
    for grad in grads:
        value -= 0.01 * (np.sign(0.9 * momentum + 0.1 * grad) + 0.1 * value)
        momentum = 0.99 * momentum + 0.01 * grad
    np.testing.assert_allclose(found["tokens"], value, rtol=1e-5, atol=1e-6)


def test_adafactor_equals_its_published_algorithm():
    """The algorithm is number 4 of Shazeer and Stern, arXiv 1804.04235, without relative step sizes."""
    start, grads = drawn(130, 140)
    found, _ = run(constant("adafactor"), {"tokens": start}, [{"tokens": grad} for grad in grads])
    value, rows, columns = start.astype(np.float64), np.zeros(130), np.zeros(140)
    for i, grad in enumerate(grads.astype(np.float64), start=1):
        decay = 1 - i**-0.8
        square = grad**2 + 1e-30
        rows, columns = decay * rows + (1 - decay) * square.mean(1), decay * columns + (1 - decay) * square.mean(0)
        update = grad / np.sqrt(np.outer(rows, columns) / rows.mean())
        value -= 0.01 * update / max(1, math.sqrt((update**2).mean()))
    np.testing.assert_allclose(found["tokens"], value, rtol=1e-4, atol=1e-5)


def test_adafactor_treats_the_matrix_of_each_layer_separately():
    """Heads and head dims together are one dim of a matrix. Large gradients of one layer do not affect other layers."""
    shapes = {"blocks.attention.query.kernel": (140, 5, 32), "blocks.attention.out.kernel": (5, 32, 140)}
    start = {name: drawn(2, *shape)[0] for name, shape in shapes.items()}
    grads = {name: drawn(2, *shape)[1] * np.asarray([1, 100]).reshape(2, 1, 1, 1) for name, shape in shapes.items()}
    found, state = run(constant("adafactor"), start, [{name: grad[i] for name, grad in grads.items()} for i in range(3)])
    for name, matrix in (("blocks.attention.query.kernel", (140, 160)), ("blocks.attention.out.kernel", (160, 140))):
        for layer in range(2):
            alone, steps = {"tokens": start[name][layer].reshape(matrix)}, grads[name][:, layer].reshape(3, *matrix)
            expected, _ = run(constant("adafactor"), alone, [{"tokens": grad} for grad in steps])
            np.testing.assert_allclose(found[name][layer].reshape(matrix), expected["tokens"], rtol=1e-5, atol=1e-6)
    assert max(leaf.size for leaf in jax.tree.leaves(state)) == 2 * 160


def orthogonal(matrix):
    """Apply five Newton-Schulz steps, as published by Jordan (kellerjordan.github.io/posts/muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_orthogonalizes_the_matrix_of_each_layer_and_leaves_the_rest_to_adamw():
    kernels = {
        "blocks.attention.query.kernel": ((2, 12, 3, 4), (12, 12)),
        "blocks.attention.out.kernel": ((2, 3, 4, 20), (12, 20)),
        "blocks.mlp.down.kernel": ((2, 24, 10), (24, 10)),
    }
    others = {"tokens": (9, 12), "blocks.mlp.up.bias": (2, 7), "blocks.mlp_norm.scale": (2, 12)}
    shapes = {**{name: shape for name, (shape, _) in kernels.items()}, **others}
    start = {name: drawn(*shape)[0] for name, shape in shapes.items()}
    grads = {name: drawn(*shape)[1] for name, shape in shapes.items()}
    steps = [{name: grad[i] for name, grad in grads.items()} for i in range(2)]
    found, _ = run(constant("muon", b1=0.95, weight_decay=0.1), start, steps)
    plain, _ = run(constant("adamw", b1=0.95, weight_decay=0.1), start, steps)
    for name in others:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5)
    for name, (shape, matrix) in kernels.items():
        for layer in range(2):
            value, momentum = start[name][layer].reshape(matrix).astype(np.float64), np.zeros(matrix)
            for grad in grads[name][:2, layer].reshape(2, *matrix):
                momentum = 0.95 * momentum + 0.05 * grad
                update = orthogonal(0.95 * momentum + 0.05 * grad) * 0.2 * math.sqrt(max(matrix))  # Nesterov
                value -= 0.01 * (update + 0.1 * value)
            np.testing.assert_allclose(found[name][layer], value.reshape(shape[1:]), rtol=2e-3, atol=2e-4)


def test_muon_equals_torchs_on_one_matrix():
    start, grads = drawn(1, 24, 40)
    found, _ = run(constant("muon", b1=0.95, eps=1e-7), {KERNEL: start}, [{KERNEL: grad} for grad in grads])
    theirs = torch.nn.Parameter(torch.tensor(start[0]))
    settings = {"lr": 0.01, "weight_decay": 0.0, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    other = torch.optim.Muon([theirs], **settings)
    for grad in grads:
        theirs.grad = torch.tensor(grad[0])
        other.step()
    moved = theirs.detach().numpy() - start[0]
    # torch computes in bfloat16
    np.testing.assert_allclose(found[KERNEL][0] - start[0], moved, rtol=0, atol=0.03 * np.abs(moved).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "adafactor"])
def test_every_optimizer_counts_its_updates(name, dtype):
    if name == "adafactor" and dtype != "float32":
        with pytest.raises(ValueError, match="adafactor stores its factored moments in float32 only"):
            constant(name, moment_dtype=dtype)
        return
    start, grads = drawn(1, 8, 8)
    _, state = run(constant(name, moment_dtype=dtype, clip_norm=1.0), {KERNEL: start}, [{KERNEL: grad} for grad in grads])
    assert int(step_count(state)) == 3


def regression(config, num_steps=300):
    """Train a small network on a fixed problem and return its final loss."""
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.normal(size=(256, 64)), jnp.float32)
    targets = jnp.tanh(inputs @ jnp.asarray(rng.normal(size=(64, 8)) / 8, jnp.float32))
    params = params_of({"blocks.in.kernel": rng.normal(size=(1, 64, 128)) / 8, "blocks.mlp.down.kernel": np.zeros((1, 128, 8))})
    optimizer = make_optimizer(config, num_steps)

    def loss(params):
        hidden = jax.nn.gelu(inputs @ params["blocks.in.kernel"][0])
        return jnp.square(hidden @ params["blocks.mlp.down.kernel"][0] - targets).mean()

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, values = optimizer.init(params), []
    for _ in range(num_steps):
        params, state, value = step(params, state)
        values.append(float(value))
    return values


@pytest.mark.parametrize("name", ["adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lion", "muon"))])
def test_quantized_moments_reach_the_same_loss(name):
    settings = {"peak_lr": 1e-3 if name == "lion" else 3e-3, "warmup_steps": 0, "b2": 0.99 if name == "lion" else 0.999}
    dtypes = ("float32", "bfloat16", "int8")
    runs = [regression(OptimConfig(name=name, moment_dtype=dtype, **settings)) for dtype in dtypes]
    first, last = np.transpose([(values[0], values[-1]) for values in runs])
    assert last[0] < 0.01 * first[0]
    np.testing.assert_allclose(last[1:], last[0], rtol=0.03)  # largest measured difference: 1.4 %


@pytest.mark.parametrize(("dtype", "most"), [("float32", 8.01), ("bfloat16", 4.01), ("int8", 2.1)])
def test_the_bytes_of_adamw_moments_by_dtype(dtype, most):
    params = params_of({"blocks.mlp.up.kernel": np.zeros((2, 128, 256), np.float32)})
    state = make_optimizer(constant("adamw", moment_dtype=dtype), 10).init(params)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert num_bytes / (2 * 128 * 256) <= most


def test_moments_of_small_arrays_stay_float32():
    state = make_optimizer(constant("adamw", moment_dtype="int8"), 10).init(params_of({"tokens": np.zeros(MIN_SIZE - 1)}))
    assert not any(
        isinstance(node, QuantizedMoment)
        for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, QuantizedMoment))
    )


@pytest.mark.parametrize("is_second", [False, True])
def test_rounding_to_8_bits_is_right_in_expectation_and_keeps_small_numbers(is_second):
    rng = np.random.default_rng(0)
    x = (10.0 ** rng.uniform(-4, 0, (4, 256)) * (1 if is_second else rng.choice([-1, 1], (4, 256)))).astype(np.float32)
    read = jax.jit(jax.vmap(lambda key: dequantize_blocks(*quantize_blocks(jnp.asarray(x), -1, 128, is_second, key))))
    draws = np.asarray(read(jax.random.split(jax.random.key(0), 2000)), np.float64)
    levels, power = (255, 4) if is_second else (127, 2)
    scale = np.abs(x).reshape(4, 2, 128).max(-1).repeat(128, axis=-1).astype(np.float64)
    code = levels * (np.abs(x) / scale) ** (1 / power)
    below, above = (scale * (np.floor(code + place) / levels) ** power for place in (0, 1))
    deviation = np.sqrt(np.maximum((np.abs(x) - below) * (above - np.abs(x)), 0))  # standard deviation
    kept = np.abs(x) > below if not is_second else code >= 1  # second moments below the smallest code are rounded up to it
    error = np.abs(np.abs(draws).mean(0) - np.abs(x))
    assert (error < 5 * deviation / math.sqrt(2000) + 1e-5 * np.abs(x))[kept].all()
    large = np.abs(x) > 0.1
    assert (np.abs(draws - x)[:, large] < 0.06 * np.abs(x)[large]).all()
    if is_second:
        assert (draws > 0).all()
    else:
        assert (draws * x >= 0).all()


def test_zeros_stay_zero_and_the_largest_number_is_exact():
    x = jnp.asarray([[0.0] * 127 + [0.3]])
    for is_second in (False, True):
        read = dequantize_blocks(*quantize_blocks(x, -1, 128, is_second, jax.random.key(1)))
        assert not np.asarray(read[0, :127]).any() and float(read[0, 127]) == np.float32(0.3)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_decaying_second_moment_does_not_freeze(dtype):
    """With decay 0.999 a step changes it by less than half the distance between two representable numbers."""
    inner = optax.scale_by_adam(b1=0.0, b2=0.999)
    params = params_of({"tokens": np.ones((64, 128), np.float32)})
    optimizer = quantize_moments(inner, dtype)
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    rng = np.random.default_rng(0)
    first = params_of({"tokens": rng.uniform(0.5, 1.0, (64, 128)).astype(np.float32)})
    _, state = update(first, state)
    for _ in range(1000):
        _, state = update(params_of({"tokens": np.zeros((64, 128), np.float32)}), state)
    nu = state.inner.nu["tokens"]
    stored = np.asarray(
        dequantize_blocks(nu.codes[...], nu.scales[...]) if isinstance(nu, QuantizedMoment) else nu[...]
    ).astype(np.float64)
    expected = 0.001 * np.asarray(first["tokens"][...], np.float64) ** 2 * 0.999**1000
    assert stored.sum() == pytest.approx(expected.sum(), rel=0.05)


def test_bfloat16_rounds_to_each_neighbor_in_proportion():
    x = np.float32(1 + 3 / 1024)  # between the bfloat16 numbers 1 and 1 + 8/1024
    drawn_ = np.asarray(round_to_bfloat16(jnp.full(20000, x), jax.random.key(0)), np.float32)
    assert set(np.unique(drawn_)) == {1.0, 1 + 8 / 1024}
    assert drawn_.mean() == pytest.approx(x, abs=1e-4)
    assert not np.isfinite(np.asarray(round_to_bfloat16(jnp.asarray([jnp.inf, jnp.nan]), jax.random.key(0)), np.float32)).any()


BLOCKS = {
    "up of StarCoder": ((40, 6144, 24576), ("embed", "mlp"), (-1, 128)),
    "down": ((40, 24576, 6144), ("mlp", "embed"), (-2, 128)),
    "query": ((40, 6144, 48, 128), ("embed", "heads", None), (-1, 128)),
    "out": ((40, 48, 128, 6144), ("heads", None, "embed"), (-2, 128)),
    "bias of up": ((40, 24576), ("mlp",), (-1, 128)),
    "tokens": ((49408, 6144), ("vocab", None), (-1, 128)),
    "lora_a of rank 8": ((40, 6144, 8), ("embed", None), (-2, 96)),
    "up of SmolLM2": ((30, 576, 1536), ("embed", "mlp"), (-1, 24)),
    "down of SmolLM2": ((30, 1536, 576), ("mlp", "embed"), (-2, 24)),
    "up of Qwen2.5-Coder 0.5B": ((24, 896, 4864), ("embed", "mlp"), (-1, 76)),
    "a small one": ((2, 64, 64), ("embed", "mlp"), (-1, 16)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_large_and_within_the_shards_of_a_dim(name):
    shape, axes, expected = BLOCKS[name]
    dim, block = choose_block(shape, axes)
    assert (dim, block) == expected
    most = 64 if axes[dim] and shape[dim] >= 512 else 1
    for devices in (2, 4, 8, 16, 32, 64):
        if devices <= most and shape[dim] % devices == 0:
            assert (shape[dim] // devices) % block == 0


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("is_second", [False, True])
def test_each_block_has_its_own_scale(dim, is_second):
    x = np.full((2, 32, 32), 1e-6, np.float32)
    x[0, 3, 5] = 1.0
    found = np.asarray(dequantize_blocks(*quantize_blocks(jnp.asarray(x), dim, 16, is_second, jax.random.key(0))))
    same = np.zeros(x.shape, bool)
    same[0, *((slice(0, 16), 5) if dim == -2 else (3, slice(0, 16)))] = True
    np.testing.assert_allclose(found[~same], x[~same], rtol=1e-6)
    assert found[0, 3, 5] == 1.0 and (found[same] != x[same]).sum() == 15


def test_moments_with_blocks_of_one_number_stay_float32():
    params = {"tokens": nnx.Param(jnp.zeros((4099, 1)), axes=("vocab", None))}
    state = make_optimizer(constant("adamw", moment_dtype="int8"), 10).init(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.size > 1} == {np.dtype("float32")}


PARTS = {KERNEL: (3, 256, 256), "blocks.mlp.up.bias": (3, 256), "blocks.attention.key.kernel": (3, 64, 64), "tokens": (64, 128)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_a_layerwise_update_equals_an_update_of_all_parameters_at_once(name, dtype):
    config, rng = constant(name, moment_dtype=dtype, weight_decay=0.1), np.random.default_rng(0)
    draw = lambda: params_of({key: rng.normal(size=shape) for key, shape in PARTS.items()})  # noqa: E731
    params, grads = draw(), [draw() for _ in range(3)]
    found = []
    for layerwise in (False, True):
        optimizer = make_optimizer(config, 10, layerwise)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        for grad in grads:
            updates, state = update(grad, state, params)
        assert int(step_count(state)) == 3
        found.append((updates, state))
    (whole, whole_state), (parts, parts_state) = found
    assert jax.tree.structure(whole_state) == jax.tree.structure(parts_state)
    for key in PARTS:
        whole_update, update = np.asarray(whole[key][...]), np.asarray(parts[key][...])
        if dtype == "float32":
            np.testing.assert_allclose(update, whole_update, rtol=1e-5, atol=1e-7)
        else:  # the rounding uses other random numbers
            assert np.corrcoef(update.ravel(), whole_update.ravel())[0, 1] > 0.97


def test_each_layer_is_rounded_with_its_own_random_numbers():
    params = params_of({KERNEL: np.zeros((2, 256, 256))})
    optimizer = make_optimizer(constant("adamw", moment_dtype="bfloat16"), 10, layerwise=True)
    grad = params_of({KERNEL: np.broadcast_to(np.random.default_rng(0).normal(size=(256, 256)), (2, 256, 256))})
    _, state = jax.jit(optimizer.update)(grad, optimizer.init(params), params)
    first, second = (np.asarray(leaf[...], np.float32) for leaf in jax.tree.leaves(state) if leaf.ndim == 3)
    for moment in (first, second):
        assert 0.2 < (moment[0] != moment[1]).mean() < 0.8
