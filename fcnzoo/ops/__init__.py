"""From low-resolution scores straight to logits, labels, the loss, or a confusion matrix.

Every function takes scores (B, K, h, w) and a [`Grid`][fcnzoo.config.Grid] that says where image
pixels lie on them. `upsample` is plain PyTorch, and says what the others mean. These never make logits: on a CPU
they run loops that numba compiles where it is installed, on CUDA devices Triton kernels where Triton is there, and
else PyTorch in pieces.
"""

from fcnzoo.ops.checks import check_labels, label_dtype
from fcnzoo.ops.labels.argmax import upsample_argmax, upsample_confusion
from fcnzoo.ops.loss.cross_entropy import upsample_cross_entropy
from fcnzoo.ops.upsample import upsample

__all__ = ["check_labels", "label_dtype", "upsample", "upsample_argmax", "upsample_confusion", "upsample_cross_entropy"]
