"""What people said to a service, as a log that is only added to, and what follows from it as comparisons."""

from copl.errors import OptionsError

try:
    import sqlalchemy  # noqa: F401  # every module here needs it; a missing extra is told once
except ImportError as error:
    raise OptionsError("a log of events needs SQLAlchemy: pip install 'copl[serve]'") from error
