"""Operations worth writing by hand; each folder holds a plain reference, fused forms and one dispatching call."""

from kernels.batchnorm.api import batch_norm
from kernels.batchnorm.reference import normalize
from kernels.conv.api import conv, ensemble_conv

__all__ = ["batch_norm", "conv", "ensemble_conv", "normalize"]
