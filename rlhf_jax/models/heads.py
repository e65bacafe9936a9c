"""Scalar heads: values and preference-model scores, read on the hidden state of token t."""
import jax
import jax.numpy as jnp

from rlhf_jax.core import align, spec
from rlhf_jax.core.spec import Spec


def scalar(model, init=spec.zeros):
  """`model` with a scalar head: params {'body', 'head'}, apply -> value_BT, or value_BN of the
  columns at_BN, in float32.

  init: of the weights, `spec.zeros` or `initial_normal(width)`; the bias starts at 0.
  """
  head = {'weight': Spec((width(model),), ('embed',), init), 'bias': Spec((), ())}

  def apply(params, *text, at_BN=None):
    return read(params['head'], model.apply(params['body'], *text, at_BN=at_BN))

  return model._replace(spec={'body': model.spec, 'head': head}, apply=apply, unembed=None,
                        prefill=None, decode=None, ready=None, widen=None)


def initial_normal(width):
  """N(0, 1/(D + 1)): standard deviation 1/sqrt(D + 1), as in Stiennon et al. 2020."""
  return spec.normal((width + 1) ** -0.5)


def read(head, hidden_BTD):
  """value_BT: the head on hidden states."""
  return jnp.einsum('btd,d->bt', hidden_BTD.astype(jnp.float32), head['weight']) + head['bias']


def last(model, params, tokens_BT, valid_BT):
  """The value that such a model gives at the last valid token of each row -> value_B."""
  return model.apply(params, tokens_BT, valid_BT, at_BN=align.end(valid_BT)[:, None])[:, 0]


def width(model):
  """D, the size of the model's hidden states."""
  tokens_BT, valid_BT = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (jnp.int32, jnp.float32))
  return jax.eval_shape(model.apply, spec.abstract(model.spec), tokens_BT, valid_BT).shape[-1]
