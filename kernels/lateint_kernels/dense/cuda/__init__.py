"""MaxSim by hand-written CUDA kernels: a backend like the others."""

from lateint_kernels.dense.cuda.backward import maxsim_backward
from lateint_kernels.dense.cuda.forward import maxsim
from lateint_kernels.dense.cuda.support import why_not

__all__ = ["maxsim", "maxsim_backward", "why_not"]
