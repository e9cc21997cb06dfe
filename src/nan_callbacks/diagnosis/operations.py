"""Neutral names of operations, so that one rule book serves every framework."""

from __future__ import annotations

ABSORBING = frozenset({
    "exp", "expm1", "softmax", "logsumexp", "logaddexp", "sigmoid", "tanh", "erf", "erfc", "softplus", "elu", "atan",
    "divide", "reciprocal", "max", "min", "amax", "amin", "maximum", "minimum",
})  # fmt: skip
"""Operations that take an infinite operand for a number and give a finite one: a mask does not look at it."""

DIVIDING = frozenset({"divide", "reciprocal"})
"""Operations that make a zero of an Inf below the line: of an overflow, nothing is left but that."""

FAILING_AT_ZERO = frozenset({"log", "divide", "reciprocal", "rsqrt", "power"})
"""Operations that fail at a zero: at one that an overflow has left, for want of range and not by themselves."""

SYNONYMS: dict[str, str] = {
    # logarithms
    "log": "log", "log2": "log", "log10": "log", "log1p": "log1p", "xlogy": "xlogy", "xlog1py": "xlogy",
    "special_xlogy": "xlogy", "special_xlog1py": "xlogy", "logit": "logit", "special_logit": "logit",
    "log_softmax": "log_softmax", "logsumexp": "logsumexp", "logaddexp": "logaddexp", "lgamma": "lgamma",
    "digamma": "digamma",
    # exponentials
    "exp": "exp", "exp2": "exp", "expm1": "expm1", "sinh": "sinh", "cosh": "cosh", "softplus": "softplus",
    "softmax": "softmax", "safe_softmax": "softmax", "_softmax": "softmax", "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    # quotients
    "div": "divide", "divide": "divide", "true_divide": "divide", "realdiv": "divide", "divnonan": "divide",
    "floordiv": "divide", "reciprocal": "reciprocal", "inv": "reciprocal", "remainder": "remainder",
    "rem": "remainder", "fmod": "remainder", "floormod": "remainder", "mean": "mean",
    # roots and powers
    "sqrt": "sqrt", "rsqrt": "rsqrt", "cbrt": "cbrt", "pow": "power", "power": "power", "integer_pow": "power",
    "float_power": "power", "square": "power",
    "norm": "norm", "linalg_vector_norm": "norm", "linalg_norm": "norm", "euclideannorm": "norm", "cdist": "norm",
    "cdist_forward": "norm", "euclidean_dist": "norm", "pairwise_distance": "norm", "std": "std", "var": "var",
    "var_mean": "var", "std_mean": "std",
    # inverse trigonometric functions and their kin
    "acos": "acos", "asin": "asin", "atan2": "atan2", "acosh": "acosh", "atanh": "atanh", "erfinv": "erfinv",
    "erf_inv": "erfinv", "ndtri": "erfinv", "tan": "tan",
    # sums and products
    "add": "add", "addv2": "add", "sub": "subtract", "subtract": "subtract", "mul": "multiply",
    "multiply": "multiply", "prod": "prod", "cumprod": "prod", "reduce_prod": "prod", "sum": "sum",
    "reduce_sum": "sum", "cumsum": "sum", "mm": "matmul", "bmm": "matmul", "addmm": "matmul", "baddbmm": "matmul",
    "matmul": "matmul", "batchmatmulv2": "matmul", "dot_general": "matmul", "einsum": "matmul", "linear": "matmul",
    "convolution": "convolution", "conv2d": "convolution", "conv_general_dilated": "convolution",
    "mv": "matmul", "dot": "matmul", "addmv": "matmul", "addbmm": "matmul", "addcdiv": "divide",
    "addcmul": "multiply", "mkldnn_convolution": "convolution", "cudnn_convolution": "convolution",
    # losses, normalisations, recurrent layers and attention in one kernel
    "_ctc_loss": "ctc_loss", "_cudnn_ctc_loss": "ctc_loss", "ctcloss": "ctc_loss", "ctclossv2": "ctc_loss",
    "nll_loss_forward": "nll_loss", "nll_loss2d_forward": "nll_loss", "huber_loss": "smooth_l1_loss",
    "native_layer_norm": "layer_norm", "native_batch_norm": "batch_norm", "_native_batch_norm_legit": "batch_norm",
    "cudnn_batch_norm": "batch_norm", "_batch_norm_with_update": "batch_norm", "native_group_norm": "group_norm",
    "_fused_rms_norm": "rms_norm", "mkldnn_rnn_layer": "recurrent", "_cudnn_rnn": "recurrent",
    "_thnn_fused_lstm_cell": "recurrent", "_thnn_fused_gru_cell": "recurrent",
    "_scaled_dot_product_flash_attention_for_cpu": "attention", "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention", "_scaled_dot_product_cudnn_attention": "attention",
    "_transformer_encoder_layer_fwd": "attention",
    # what TensorFlow and JAX call them, derivatives included
    "sqrtgrad": "sqrt", "rsqrtgrad": "rsqrt", "invgrad": "reciprocal", "reciprocalgrad": "reciprocal",
    "tanhgrad": "tanh", "sigmoidgrad": "sigmoid", "softplusgrad": "softplus", "logistic": "sigmoid",
    "logsoftmax": "log_softmax", "cumlogsumexp": "logsumexp", "xdivy": "divide", "truncatediv": "divide",
    "mulnonan": "multiply", "addn": "add", "add_any": "add", "biasadd": "add", "l2loss": "sum",
    "sparsesoftmaxcrossentropywithlogits": "softmax_cross_entropy",
    "softmaxcrossentropywithlogits": "softmax_cross_entropy", "fusedbatchnormv3": "batch_norm",
    "batchmatmul": "matmul", "batchmatmulv3": "matmul", "conv3d": "convolution",
    "depthwiseconv2dnative": "convolution", "selectv2": "select", "select_n": "select", "gatherv2": "gather",
    "resourcegather": "gather", "reduce_max": "max", "reduce_min": "min", "matrixsolve": "inverse",
    "lu": "decomposition", "logmatrixdeterminant": "determinant", "matrixdeterminant": "determinant",
    # changes of representation
    "_to_copy": "cast", "to": "cast", "cast": "cast", "convert_element_type": "cast", "reduce_precision": "cast",
    # decompositions and inverses of matrices
    "linalg_inv": "inverse", "linalg_inv_ex": "inverse", "matrixinverse": "inverse", "cholesky": "cholesky",
    "linalg_cholesky": "cholesky", "linalg_cholesky_ex": "cholesky", "svd": "decomposition",
    "linalg_svd": "decomposition", "_linalg_svd": "decomposition", "linalg_eigh": "decomposition",
    "_linalg_eigh": "decomposition", "eigh": "decomposition", "selfadjointeigv2": "decomposition",
    "qr": "decomposition", "linalg_det": "determinant", "logdet": "determinant", "slogdet": "determinant",
    "_linalg_slogdet": "determinant", "_linalg_det": "determinant", "linalg_solve": "inverse",
    "_linalg_solve_ex": "inverse", "triangular_solve": "inverse",
}  # fmt: skip
"""Native names, in lower case without namespace, overload and trailing underscore, to neutral ones."""


def neutral_name(native: str) -> str:
    """The neutral name of an operation; an unknown one keeps its own name.

    Args:
        native: As a framework calls it: ``aten.log_.default``, ``RealDiv``, ``jax.lax.log``.
    """
    name = native.lower().replace("::", ".")
    if name.startswith(("aten.", "prims.")):
        name = name.split(".")[1]
    name = name.rsplit(".", 1)[-1].rstrip("_") if "." in name else name.rstrip("_")
    name = name.removeprefix("_foreach_")
    return SYNONYMS.get(name, name)
