"""All that advisor can read in a server's log, in one table: which engine wrote it need not be known beforehand."""

from __future__ import annotations

from advisor.engines.gpu_logs import GPU_RULES
from advisor.engines.host_logs import HOST_RULES
from advisor.engines.log_reader import RuleBook
from advisor.engines.trtllm.logs import TRTLLM_RULES
from advisor.engines.vllm.logs import VLLM_RULES

RULES = RuleBook((*VLLM_RULES, *TRTLLM_RULES, *GPU_RULES, *HOST_RULES))
