"""`copl serve` on many machines: the same application as a deployment of Ray Serve, replicas on one PostgreSQL.

    pip install 'copl[serve]' 'ray[serve]' 'psycopg[binary]'
    COPL_RUN=run/copl COPL_STORE=postgresql+psycopg://copl@db/copl serve run examples.ray_serve:app

Every replica loads the run and computes users' states from the log, so any of them may answer any request.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ray import serve

from copl.serve.app import create_app, create_service
from copl.serve.settings import ServeOptions


def build_application() -> Any:
    """Return the application, by the environment of the replica."""
    options = ServeOptions(store=os.environ["COPL_STORE"], upstream=os.environ.get("COPL_UPSTREAM"))
    return create_app(create_service(Path(os.environ["COPL_RUN"]), options))


@serve.deployment(num_replicas=2, max_ongoing_requests=256)
@serve.ingress(build_application)
class Copl:
    """A replica."""


app = Copl.bind()
