"""Find the deployer of the active stack."""

from loop.config import UserError
from loop.deploying.contract import Deployer


def active() -> Deployer:
    """Return the stack's deployer; a stack without one that serves bentos is a UserError."""
    from zenml.client import Client

    stack = Client().active_stack
    found = stack.model_deployer
    if not isinstance(found, Deployer):
        has = f"has '{found.flavor}', which does not serve bentos" if found else "has none"
        raise UserError(f"deploying needs a model deployer, stack {stack.name} {has}; use --stack local")
    return found
