"""The contracts as runnable suites: call `check_env`, `check_agent` and `check_sandbox` on your own classes.

`arena.testing.golden` records and checks golden traces.
"""

from arena.testing.agent_contract import check_agent
from arena.testing.env_contract import check_env
from arena.testing.report import ContractError, Outcome, Report
from arena.testing.sandbox_contract import check_sandbox

__all__ = ["ContractError", "Outcome", "Report", "check_agent", "check_env", "check_sandbox"]
