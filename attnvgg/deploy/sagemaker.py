"""A training job or an endpoint on Amazon SageMaker, really started.

The names are those of version 3 of the SageMaker Python SDK, which is imported only here and only
when something is started. `sagemaker.train.configs` still works but is deprecated by
`sagemaker.core.training.configs`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attnvgg.deploy.container import CHECKPOINTS
from attnvgg.deploy.deployment import (
    ARCHIVE,
    STARTUP_SECONDS,
    Deployment,
    check_deployment,
    pack_model,
)
from attnvgg.deploy.training_job import PYTHON, PYTORCH, Job, check, stage_source
from attnvgg.errors import InputError

CODE = "/opt/ml/input/data/code"  # where the SDK puts the source
HOUR = 3600
MISSING = (
    'The SageMaker SDK, version 3, is needed: pip install "attnvgg[aws]" (into an environment of '
    "its own, it replaces other packages)."
)
REFUSING = {"botocore", "boto3", "s3transfer", "sagemaker", "pydantic_core"}
"""Packages whose errors tell the user, not the programmer, what is wrong."""


def submit(job: Job) -> str:
    """Upload source and data, start the job, and return its name without waiting for its end.

    Raises:
        InputError: a part of the job cannot be, the SDK is not installed, no region is known, or
            AWS says no.
    """
    check(job)
    sdk = _import_sdk()
    with _told("The job"):
        return _submit(job, sdk)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what AWS or the SDK refuse into a sentence."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in REFUSING:
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(f"{what} could not be started: {reason}") from error


def _submit(job: Job, sdk: Any) -> str:
    bucket, prefix = _bucket(job.output)
    aws = _aws(sdk, job.region)
    session = sdk.Session(  # so that uploads go below the output, not to a bucket of the account
        boto_session=aws, default_bucket=bucket, default_bucket_prefix=prefix or None
    )
    image = job.image or sdk.image_uris.retrieve(
        "pytorch", region=aws.region_name, version=PYTORCH, py_version=PYTHON,
        instance_type=job.instance_type, image_scope="training",
    )  # fmt: skip
    channels = [
        sdk.configs.InputData(channel_name=name, data_source=place)
        for name, place in job.channels.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        stage_source(job, Path(folder))
        trainer = sdk.ModelTrainer(
            sagemaker_session=session, training_image=image, **_parts(job, sdk, Path(folder))
        )
        trainer.train(input_data_config=channels, wait=False, logs=False)
    return str(trainer._latest_training_job.training_job_name)  # the SDK has no other way


def _bucket(place: str) -> tuple[str, str]:
    """Return bucket and prefix of s3://bucket/prefix."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    return bucket, prefix.strip("/")


def _aws(sdk: Any, region: str | None) -> Any:
    """Return the user's session with AWS.

    Raises:
        InputError: no region is known.
    """
    aws = sdk.boto3.Session(region_name=region)
    if aws.region_name is None:
        raise InputError("No AWS region is known: give --region, such as eu-central-1.")
    return aws


def _parts(job: Job, sdk: Any, source: Path) -> dict[str, Any]:
    """Return what the job is made of, in the SDK's words."""
    configs, longest = sdk.configs, round(job.hours * HOUR)
    wait = {"max_wait_time_in_seconds": longest + 24 * HOUR} if job.spot else {}
    return {
        "base_job_name": job.name,
        "role": job.role,
        "source_code": configs.SourceCode(
            source_dir=str(source), requirements="requirements.txt", entry_script=job.entry
        ),
        "distributed": sdk.Torchrun(),
        "compute": configs.Compute(
            instance_type=job.instance_type,
            instance_count=job.instance_count,
            volume_size_in_gb=job.volume_gib,
            enable_managed_spot_training=job.spot,
        ),
        "stopping_condition": configs.StoppingCondition(max_runtime_in_seconds=longest, **wait),
        "output_data_config": configs.OutputDataConfig(s3_output_path=job.output),
        # Without a place the SDK takes one of the job's own below the output.
        "checkpoint_config": configs.CheckpointConfig(
            s3_uri=job.checkpoints, local_path=CHECKPOINTS
        ),
        "environment": environment(),
        "hyperparameters": job.parameters,
    }


def environment() -> dict[str, str]:
    """Return the variables that a job is given beside SageMaker's own."""
    return {"SM_CHECKPOINT_DIR": CHECKPOINTS, "PYTHONPATH": CODE, "NO_ALBUMENTATIONS_UPDATE": "1"}


def deploy(deployment: Deployment) -> str:
    """Upload the model, make an endpoint of it, and return its name without waiting for it.

    Model and configuration of an endpoint that then is refused are deleted again; the archive on S3
    stays. An endpoint that was made and then could not be looked at stays with all that it needs.

    Raises:
        InputError: see `submit`.
    """
    check_deployment(deployment)
    sdk = _import_hosting()
    with _told("The endpoint"):
        return _deploy(deployment, sdk)


def _deploy(deployment: Deployment, sdk: Any) -> str:
    aws = _aws(sdk, deployment.region)
    name = f"{deployment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    place = {"session": aws, "region": aws.region_name}
    container = sdk.ContainerDefinition(
        image=deployment.image, model_data_url=_uploaded(deployment, aws, name)
    )
    variant = sdk.ProductionVariant(
        variant_name="all", model_name=name, initial_instance_count=deployment.instance_count,
        instance_type=deployment.instance_type,
        container_startup_health_check_timeout_in_seconds=STARTUP_SECONDS,
    )  # fmt: skip
    with ExitStack() as undo:
        model = sdk.Model.create(
            model_name=name, primary_container=container, execution_role_arn=deployment.role,
            enable_network_isolation=True, **place,
        )  # fmt: skip
        undo.callback(model.delete)
        config = sdk.EndpointConfig.create(
            endpoint_config_name=name, production_variants=[variant], **place
        )
        undo.callback(config.delete)
        try:
            sdk.Endpoint.create(endpoint_name=name, endpoint_config_name=name, **place)
        except Exception as error:
            # The SDK first makes it and then looks at it: only in the first case there is none.
            if getattr(error, "operation_name", "CreateEndpoint") != "CreateEndpoint":
                undo.pop_all()
                raise InputError(
                    f"The endpoint {name} was made, and costs, but could not be looked at "
                    f"({str(error).splitlines()[0]}): see the console of AWS."
                ) from error
            raise
        undo.pop_all()
    return name


def _uploaded(deployment: Deployment, aws: Any, name: str) -> str:
    """Return where the model lies on S3, uploading it if it is here."""
    if deployment.is_remote:
        return deployment.model
    bucket, prefix = _bucket(deployment.output)
    key = "/".join(filter(None, (prefix, name, ARCHIVE)))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / ARCHIVE
        pack_model(deployment.model, archive)
        aws.client("s3").upload_file(str(archive), bucket, key)
    return f"s3://{bucket}/{key}"


def _import_hosting() -> Any:
    """Return the parts of the SDK that make an endpoint; raises as `_import_sdk`."""
    try:
        import boto3
        from sagemaker.core.resources import Endpoint, EndpointConfig, Model
        from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
    except ImportError as error:
        raise InputError(MISSING) from error
    return SimpleNamespace(
        boto3=boto3, Endpoint=Endpoint, EndpointConfig=EndpointConfig, Model=Model,
        ContainerDefinition=ContainerDefinition, ProductionVariant=ProductionVariant,
    )  # fmt: skip


def _import_sdk() -> Any:
    """Return the parts of the SDK that are used.

    Raises:
        InputError: it is not installed, or is older than version 3.
    """
    try:
        import boto3
        from sagemaker.core import image_uris
        from sagemaker.core.helper.session_helper import Session
        from sagemaker.core.training import configs
        from sagemaker.train import ModelTrainer
        from sagemaker.train.distributed import Torchrun
    except ImportError as error:
        raise InputError(MISSING) from error
    return SimpleNamespace(
        boto3=boto3, image_uris=image_uris, Session=Session, configs=configs,
        ModelTrainer=ModelTrainer, Torchrun=Torchrun,
    )  # fmt: skip
