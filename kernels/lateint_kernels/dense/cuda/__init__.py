"""MaxSim, and coarse scores of a search, by hand-written CUDA kernels: a backend like the others."""

from lateint_kernels.codes.cuda.scoreboard import best_keys
from lateint_kernels.dense.cuda.backward import maxsim_backward
from lateint_kernels.dense.cuda.forward import maxsim
from lateint_kernels.dense.cuda.support import why_not

__all__ = ["best_keys", "maxsim", "maxsim_backward", "why_not"]
