import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny_steps import OPTIMIZERS, Training, bits, config, rows, some_slow
from wizardcoder_jax.config import GuardConfig
from wizardcoder_jax.training.skip_step import NORM_DECAY, WARMUP_STEPS, SkipStepState, check_step, init_skip_step

SPIKES = GuardConfig(spike_factor=5.0)
# Factor by which the weights of a batch, and so its loss and gradients, are multiplied.
HARMFUL = {"a loss that is NaN": np.nan, "a loss that is infinite": np.inf, "a norm that overflows": 1e25, "a spike": 50.0}


def state_bits(state):
    return bits((state.trained, state.frozen, state.opt_state, state.ema))


def seen_enough(state, norm):
    """Return the state after many steps with the same gradient norm."""
    share = 1 - NORM_DECAY**WARMUP_STEPS
    return state._replace(
        skip_step=state.skip_step._replace(norm_mean=jnp.float32(norm * share), num_taken=jnp.int32(WARMUP_STEPS))
    )


@pytest.mark.parametrize(("name", "dtype"), some_slow(OPTIMIZERS))
def test_harmful_steps_change_nothing_and_do_not_affect_the_next_step(name, dtype):
    settings = config({"name": name, "moment_dtype": dtype, "ema_decay": 0.9, "clip_norm": 1.0, "weight_decay": 0.1})
    training = Training(dataclasses.replace(settings, guard=SPIKES, freeze=("tokens",)))
    training.step(rows(0))
    norm = float(training.step(rows(1)).grad_norm)
    training.state = seen_enough(training.state, norm)
    before, copied = state_bits(training.state), jax.tree.map(jnp.copy, training.state)
    weights = bits(training.state.trained)
    for count, factor in enumerate(HARMFUL.values(), start=1):
        metrics = training.step(rows(2, factor))
        assert state_bits(training.state) == before
        assert (metrics.num_skipped, metrics.skipped_in_row) == (count, count)
    metrics = training.step(rows(3))
    assert (metrics.num_skipped, metrics.skipped_in_row) == (len(HARMFUL), 0)
    after = state_bits(training.state)
    training.state = copied
    training.step(rows(3))
    assert state_bits(training.state) == after
    assert all(value != weights[path] for path, value in bits(training.state.trained).items())


def test_each_harmful_batch_has_the_loss_and_gradient_norm_that_its_name_states():
    training = Training(dataclasses.replace(config({"peak_lr": 1e-9}), guard=SPIKES))
    usual = training.step(rows(2))
    training.state = seen_enough(training.state, float(usual.grad_norm))
    found = {name: training.step(rows(2, factor)) for name, factor in HARMFUL.items()}
    assert np.isnan(found["a loss that is NaN"].loss) and np.isinf(found["a loss that is infinite"].loss)
    assert np.isfinite(found["a norm that overflows"].loss) and np.isinf(found["a norm that overflows"].grad_norm)
    assert found["a spike"].grad_norm == pytest.approx(50 * usual.grad_norm, rel=1e-4)
    assert int(found["a spike"].num_skipped) == len(HARMFUL)


def test_without_a_spike_factor_a_spike_is_taken():
    training = Training(config())
    norm = float(training.step(rows(0)).grad_norm)
    training.state = seen_enough(training.state, norm)
    assert training.step(rows(1, 50.0)).num_skipped == 0


def test_skipped_steps_do_not_advance_the_learning_rate():
    training = Training(config({"warmup_steps": 10}))
    factors = (1.0, np.nan, np.nan, 1.0, 1.0)
    rates = [float(training.step(rows(0, factor)).lr) for factor in factors]
    assert rates == pytest.approx([0.0, 1e-3, 1e-3, 1e-3, 2e-3])


def check_all(norms, factor=3.0):
    """Return for each gradient norm whether the step is taken, and the final state."""
    state, taken = init_skip_step(), []
    for norm in norms:
        is_taken, state = check_step(state, GuardConfig(spike_factor=factor), jnp.float32(1), jnp.float32(norm))
        taken.append(bool(is_taken))
    return taken, state


def test_a_spike_is_a_norm_above_the_factor_times_the_mean_of_earlier_norms():
    usual = list(np.linspace(1, 2, WARMUP_STEPS))
    weights = NORM_DECAY ** np.arange(WARMUP_STEPS)[::-1]
    mean = float((weights * usual).sum() / weights.sum())
    assert check_all([*usual, 2.999 * mean])[0] == [True] * (WARMUP_STEPS + 1)
    taken, state = check_all([*usual, 3.001 * mean, 1e9, 2.999 * mean])
    assert taken == [True] * WARMUP_STEPS + [False, False, True]  # skipped spikes do not change the mean
    assert (int(state.num_skipped), int(state.skipped_in_row), int(state.num_taken)) == (2, 0, WARMUP_STEPS + 1)


def test_no_norm_is_a_spike_during_the_warmup():
    assert check_all([1.0] * (WARMUP_STEPS - 1) + [1000.0])[0] == [True] * WARMUP_STEPS
    taken, state = check_all([np.nan] * 30 + [1.0])
    assert taken == [False] * 30 + [True]
    assert (int(state.num_skipped), int(state.num_taken)) == (30, 1)


def test_the_state_is_four_scalars():
    assert [(leaf.shape, leaf.dtype.name) for leaf in init_skip_step()] == [((), "float32"), *[((), "int32")] * 3]
    assert SkipStepState._fields == ("norm_mean", "num_taken", "num_skipped", "skipped_in_row")
