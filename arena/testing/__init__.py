"""The contracts as runnable suites: call `check_env` and `check_agent` on your own classes.

`arena.testing.golden` records and checks golden traces.
"""

from arena.testing.agent_contract import check_agent
from arena.testing.env_contract import check_env
from arena.testing.report import ContractError, Outcome, Report

__all__ = ["ContractError", "Outcome", "Report", "check_agent", "check_env"]
