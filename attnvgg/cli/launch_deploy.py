"""`attnvgg launch_sagemaker deploy`: an endpoint on SageMaker, or its container on this machine."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnvgg.deploy.deployment import Deployment, check_deployment, describe_deployment
from attnvgg.deploy.sagemaker import deploy
from attnvgg.deploy.serving_simulator import simulate_serving
from attnvgg.errors import InputError

logger = logging.getLogger(__name__)

Action = Literal["deploy", "simulate_deploy"]


@dataclass(frozen=True)
class DeployConfig:
    """Serve a model on Amazon SageMaker: `deploy` tells what it would do, and with --run true does
    it; `simulate_deploy` starts the container's server on this machine, asks it all that SageMaker
    and clients ask, compares its answers with the model's, and stops it."""

    action: Action = field(
        metadata={"positional": {"type": Action, "help": "deploy or simulate_deploy"}}
    )
    model: str | None = None
    """Run folder or saved model; for deploy also s3://bucket/prefix/model.tar.gz."""
    name: str = "attnvgg"
    """Begins the name of the endpoint."""
    role: str | None = None
    """ARN of the role that the endpoint has."""
    image: str | None = None
    """URI of the image of docker/Dockerfile in ECR."""
    output: str | None = None
    """s3://bucket/prefix below which the model is uploaded."""
    instance_type: str = "ml.c6i.xlarge"
    """Machine."""
    instance_count: int = 1
    """How many of them."""
    region: str | None = None
    """AWS region; null: that of your AWS settings."""
    run: bool = False
    """true: really upload and start; else only tell what would be done."""
    root: Path | None = None
    """simulate_deploy: folder in place of /opt/ml, which stays; null: a temporary one."""


def launch_deploy(config: DeployConfig) -> None:
    """Tell what an endpoint would be, make it, or run its container here.

    Raises:
        InputError: something is missing or cannot be; or see `deploy`, `simulate_serving`.
    """
    is_simulated = config.action == "simulate_deploy"
    needed = ("model",) if is_simulated else ("model", "role", "image", "output")
    missing = [f"--{key}" for key in needed if getattr(config, key) is None]
    if missing:
        raise InputError(f"To {config.action} these are needed:", missing)
    if is_simulated:
        _simulate(config)
        return
    deployment = Deployment(
        name=config.name,
        model=config.model or "",
        role=config.role or "",
        image=config.image or "",
        output=config.output or "",
        instance_type=config.instance_type,
        instance_count=config.instance_count,
        region=config.region,
    )
    check_deployment(deployment)
    for line in describe_deployment(deployment):
        logger.info("%s", line)
    if not config.run:
        logger.info("This was a dry run: nothing is uploaded or started without --run true.")
        return
    logger.info("Started: endpoint %s; it is ready in some minutes.", deploy(deployment))


def _simulate(config: DeployConfig) -> None:
    assert config.model is not None  # as `launch_deploy` has made sure
    with tempfile.TemporaryDirectory() as folder:
        report = simulate_serving(config.model, config.root or Path(folder))
    logger.info(
        "The container's server answers as the model does: %d predictions differ by at most %.2g. "
        "Ready after %.1f s, /ping within %.0f ms, wrong requests refused, SIGTERM obeyed.",
        report.answers, report.difference, report.ready, 1000 * report.ping,
    )  # fmt: skip
