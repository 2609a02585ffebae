"""Random options of every kind at once: each backend agrees with the reference."""

import numpy as np
import pytest
from backends import BACKENDS, up_to
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_steps import problems

from xentcli import cross_entropy

SETTINGS = settings(max_examples=up_to(100, 60), deadline=None, derandomize=True)


def size_of_terms(x, arrays, options, lse):
    """About how large what is added and subtracted in a row can be."""
    weight, per_row = (np.abs(arrays[name]) for name in ("weight", "sample_weight"))
    largest = max(1.0, *(np.max(values, initial=0.0) for values in (weight, per_row)))
    lse = np.max(np.abs(np.nan_to_num(lse)), initial=1.0)
    return largest**2 * (1 + options["z_loss"] * lse * (1 + lse))


@pytest.mark.backends
@SETTINGS
@given(problems(), st.sampled_from(BACKENDS))
def test_a_backend_agrees_with_the_reference(problem, backend):
    x, targets, arrays, options = problem
    given = {name: values for name, values in arrays.items() if values is not None}
    a = cross_entropy(x, targets, backend="numpy", **given, **options)
    assume(not options["z_loss"] or np.nanmax(np.abs(a.lse), initial=0.0) < 1e50)  # its border
    b = cross_entropy(x, targets, backend=backend, **given, **options)
    arrays = {name: 1.0 if values is None else values for name, values in arrays.items()}
    with np.errstate(over="ignore"):
        size = size_of_terms(x, arrays, options, a.lse)
    for one, other in ((a.loss, b.loss), (a.grad, b.grad), (a.lse, b.lse)):
        np.testing.assert_allclose(other, one, rtol=1e-13, atol=1e-13 * size)
    assert not (np.signbit(b.grad) & (b.grad == 0)).any()
