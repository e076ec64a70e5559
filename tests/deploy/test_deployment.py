"""An endpoint in the words of SDK 3, whose names were read from sagemaker-core, and its archive."""

import hashlib
import os
import re
import sys
import tarfile
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from attnvgg.deploy.deployment import (
    STARTUP_SECONDS,
    Deployment,
    check_deployment,
    describe_deployment,
    pack_model,
)
from attnvgg.deploy.sagemaker import deploy
from attnvgg.errors import InputError

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/attnvgg:1"
NAME = re.compile(r"moles-\d{8}-\d{6}")

# What resources.py and shapes/shapes.py of sagemaker-core take (SDK 3.20); like them, the stand-ins
# refuse all else.
FIELDS = {
    "ContainerDefinition": "container_hostname image image_config mode model_data_url "
    "model_data_source additional_model_data_sources environment model_package_name "
    "inference_specification_name multi_model_config",
    "ProductionVariant": "variant_name model_name initial_instance_count instance_type "
    "instance_pools variant_instance_provision_timeout_in_seconds initial_variant_weight "
    "accelerator_type core_dump_config serverless_config volume_size_in_gb "
    "model_data_download_timeout_in_seconds container_startup_health_check_timeout_in_seconds "
    "enable_ssm_access managed_instance_scaling routing_config inference_ami_version "
    "capacity_reservation_config",
    "Model": "model_name primary_container containers inference_execution_config "
    "execution_role_arn tags vpc_config enable_network_isolation session region",
    "EndpointConfig": "endpoint_config_name production_variants data_capture_config tags "
    "kms_key_id async_inference_config explainer_config shadow_production_variants "
    "execution_role_arn vpc_config enable_network_isolation metrics_config session region",
    "Endpoint": "endpoint_name endpoint_config_name deployment_config tags session region",
}


def stand_in(name, log):
    """Return a class that keeps its arguments, and takes none but those of the SDK's."""

    def __init__(self, **arguments):
        unknown = arguments.keys() - set(FIELDS[name].split())
        assert not unknown, f"{name} takes no {unknown}"
        self.__dict__.update(arguments)

    def create(cls, **arguments):
        made = cls(**arguments)
        log.append((f"create {name}", made))
        return made

    def delete(self):
        log.append((f"delete {name}", self))

    return type(name, (), {"__init__": __init__, "create": classmethod(create), "delete": delete})


@pytest.fixture
def sdk(monkeypatch):
    """Stand-ins for the modules of the SDK; what is done goes into the list `log`."""
    log, uploads = [], []

    def upload_file(path, bucket, key):
        with open(path, "rb") as stream:
            uploads.append((bucket, key, stream.read()))

    def session(region_name=None):
        client = lambda name: SimpleNamespace(upload_file={"s3": upload_file}[name])  # noqa: E731
        return SimpleNamespace(region_name=region_name, client=client)

    made = {name: stand_in(name, log) for name in FIELDS}
    contents = {
        "boto3": {"Session": session},
        "sagemaker": {},
        "sagemaker.core": {},
        "sagemaker.core.resources": {
            name: made[name] for name in ("Endpoint", "EndpointConfig", "Model")
        },
        "sagemaker.core.shapes": {
            name: made[name] for name in ("ContainerDefinition", "ProductionVariant")
        },
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(log=log, uploads=uploads, made=made)


@pytest.fixture
def folder(tmp_path):
    """What a run leaves: a model, and other things."""
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text('{"class": "AttnVGG"}')
    (best / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    (best / "notes of a patient.txt").write_text("no part of a model")
    return best.parent


@pytest.fixture
def deployment(folder):
    return Deployment("moles", str(folder), ROLE, IMAGE, "s3://bucket/out/", region="eu-central-1")


def test_the_archive_holds_the_model_alone_as_plain_files(folder, tmp_path):
    pack_model(folder, tmp_path / "model.tar.gz")
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        entries = archive.getmembers()
        assert [entry.name for entry in entries] == ["config.json", "model.safetensors"]
        assert all(entry.isreg() and entry.mode == 0o644 for entry in entries)
        archive.extractall(tmp_path / "out", filter="data")
    for entry in entries:
        content = (tmp_path / "out" / entry.name).read_bytes()
        assert content == (folder / "best" / entry.name).read_bytes()


def test_equal_models_give_equal_archives_whenever_and_wherever(folder, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    for path in (folder / "best").glob("*.*"):
        (other / path.name).symlink_to(path)  # as the hub's cache has them
    found = []
    for place, age in ((folder, 0), (other, 10**9)):
        for path in (folder / "best").iterdir():
            os.utime(path, (age, age))
        archive = tmp_path / f"{age}.tar.gz"
        pack_model(place, archive)
        found.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert found[0] == found[1]


def test_what_is_no_model_is_refused(folder, tmp_path):
    (folder / "best" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        pack_model(folder, tmp_path / "model.tar.gz")
    assert not (tmp_path / "model.tar.gz").exists()


def test_the_endpoint_is_made_of_model_and_configuration(deployment, sdk):
    name = deploy(deployment)
    assert NAME.fullmatch(name)
    words, made = zip(*sdk.log, strict=True)
    assert words == ("create Model", "create EndpointConfig", "create Endpoint")
    model, config, endpoint = made
    assert (model.model_name, config.endpoint_config_name, endpoint.endpoint_name) == (name,) * 3
    assert endpoint.endpoint_config_name == name
    assert (model.execution_role_arn, model.enable_network_isolation) == (ROLE, True)
    assert {item.region for item in made} == {"eu-central-1"}
    assert model.primary_container.image == IMAGE
    assert model.primary_container.model_data_url == f"s3://bucket/out/{name}/model.tar.gz"
    (variant,) = config.production_variants
    assert (variant.model_name, variant.instance_type) == (name, "ml.c6i.xlarge")
    assert variant.initial_instance_count == 1
    assert variant.container_startup_health_check_timeout_in_seconds == STARTUP_SECONDS


def test_the_very_archive_is_uploaded(deployment, sdk, tmp_path):
    name = deploy(deployment)
    ((bucket, key, content),) = sdk.uploads
    assert (bucket, key) == ("bucket", f"out/{name}/model.tar.gz")
    pack_model(deployment.model, tmp_path / "again.tar.gz")
    assert content == (tmp_path / "again.tar.gz").read_bytes()


def test_a_model_on_s3_is_taken_from_there(deployment, sdk):
    place = "s3://bucket/jobs/panda-1/output/model.tar.gz"
    deploy(replace(deployment, model=place))
    assert not sdk.uploads
    assert sdk.log[0][1].primary_container.model_data_url == place


@pytest.mark.parametrize("refused", ["Endpoint", "EndpointConfig"])
def test_what_was_made_for_a_refused_endpoint_is_deleted(deployment, sdk, monkeypatch, refused):
    error = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})

    def refuse(**arguments):
        raise error("You may not have ml.c6i.xlarge\nmore")

    monkeypatch.setattr(sdk.made[refused], "create", refuse)
    with pytest.raises(InputError, match=r"endpoint could not be started: You may not have .*e$"):
        deploy(deployment)
    made = [words.split()[1] for words, _ in sdk.log if words.startswith("create")]
    deleted = [words.split()[1] for words, _ in sdk.log if words.startswith("delete")]
    assert deleted == made[::-1]
    assert made


def test_an_endpoint_that_cannot_be_looked_at_is_left_alone(deployment, sdk, monkeypatch):
    error = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("Throttled")
    error.operation_name = "DescribeEndpoint"

    def create(**arguments):
        raise error

    monkeypatch.setattr(sdk.made["Endpoint"], "create", create)
    with pytest.raises(InputError, match=r"was made, and costs.*Throttled"):
        deploy(deployment)
    assert not [words for words, _ in sdk.log if words.startswith("delete")]


def test_an_error_of_the_program_is_none_of_the_users(deployment, sdk, monkeypatch):
    def fail(**arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sdk.made["Model"], "create", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        deploy(deployment)


def test_telling_needs_no_sdk(deployment, monkeypatch):
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    check_deployment(deployment)
    said = "\n".join(describe_deployment(deployment))
    assert f"upload     {deployment.model}/best, 1.0 MiB" in said
    assert "s3://bucket/out/moles-<time>/model.tar.gz" in said
    assert "1 x ml.c6i.xlarge" in said
    remote = describe_deployment(replace(deployment, model="s3://b-b/model.tar.gz"))
    assert not [line for line in remote if line.startswith("upload")]


def test_a_missing_sdk_or_region_is_told(deployment, sdk, monkeypatch):
    with pytest.raises(InputError, match="--region"):
        deploy(replace(deployment, region=None))
    monkeypatch.setitem(sys.modules, "sagemaker.core.resources", None)
    with pytest.raises(InputError, match=r"attnvgg\[aws\]"):
        deploy(deployment)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a name"}, "the name"),
        ({"role": "SageMaker"}, "the role"),
        ({"image": "docker.io/attnvgg"}, "the image"),
        ({"output": "/tmp/out"}, "the output"),
        ({"instance_type": "c6i"}, "the instance type"),
        ({"instance_count": 0}, "at least 1"),
        ({"model": "nowhere"}, r"nowhere/config\.json"),
        ({"model": "s3://bucket/model"}, r"model\.tar\.gz"),
    ],
)
def test_parts_that_cannot_be_are_refused_before_anything_is_sent(deployment, sdk, changes, reason):
    with pytest.raises(InputError, match=reason):
        deploy(replace(deployment, **changes))
    assert not sdk.log
    assert not sdk.uploads
