"""Answers of a model that likes all tokens alike: each column and each row has noise of its own."""
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.core.types import Model
from rlhf_jax.models import decode


def test_columns_and_rows_draw_independently():
  flat = Model(None, lambda params, tokens_BT, valid_BT, at_BN: jnp.zeros((*at_BN.shape, 1)),
               lambda params, hidden_ND: jnp.zeros((hidden_ND.shape[0], 64)))
  prompt_BP = np.ones((32, 2), np.int32)
  sample = jax.jit(lambda key: decode.generate(
    flat, {}, prompt_BP, np.ones((32, 2)), key, max_new_tokens=12, eos_id=64, pad_id=0))(
      jax.random.key(1))
  tokens_BT = np.asarray(sample.tokens_BT)[:, 2:]
  np.testing.assert_allclose(sample.logp_BT[:, 2:], -np.log(64), rtol=1e-6)
  assert len(np.unique(tokens_BT)) == 64                         # 384 draws reach every token
  centred_BT = tokens_BT - 31.5
  # Neighbours in either direction: mean products of independent draws are within 5 errors of 0.
  for a, b in ((centred_BT[1:], centred_BT[:-1]), (centred_BT[:, 1:], centred_BT[:, :-1])):
    assert abs((a * b).mean()) < 5 * (64 ** 2 / 12) / np.sqrt(a.size)
