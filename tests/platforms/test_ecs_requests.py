"""The requests of an ECS job are pure functions of its template and variables."""

from __future__ import annotations

import copy
import json
from typing import Any
from uuid import UUID

import pytest

from push_pools.domain.errors import InvalidJobVariables, JobRejected
from push_pools.domain.jobs import validate_base_job_template, validate_job_variables
from push_pools.platforms.ecs_config import EcsJobConfiguration
from push_pools.platforms.ecs_definition import build_definition, family_name
from push_pools.platforms.ecs_request import MAX_OVERRIDES, build_request, check_overrides, started_by
from push_pools.platforms.ecs_shape import compact
from push_pools.platforms.ecs_sizes import FARGATE_SIZES, fargate_size

from .ecs_world import RUN, SUBNETS, TEMPLATE, job_of, rendered

REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/exec"


def definition(**values: Any) -> dict[str, Any]:
    return dict(build_definition(job_of(**values), REGION).request)


def container(**values: Any) -> dict[str, Any]:
    return dict(definition(**values)["containerDefinitions"][0])


def request(**values: Any) -> dict[str, Any]:
    return dict(build_request(job_of(**values), definition="arn:x:1", container="flow", network=None))


def own(**values: Any) -> dict[str, Any]:
    return dict(request(**values)["overrides"]["containerOverrides"][0])


def env(**values: Any) -> dict[str, str]:
    return {pair["name"]: pair["value"] for pair in own(**values)["environment"]}


def with_section(section: str, **changes: Any) -> dict[str, Any]:
    template = copy.deepcopy(TEMPLATE)
    template["job_configuration"][section] |= changes
    return template


# -- the template


def test_the_default_template_is_valid_and_has_the_variables_that_prefect_provisions() -> None:
    validate_base_job_template(TEMPLATE)
    validate_job_variables(TEMPLATE, {})

    names = set(TEMPLATE["variables"]["properties"])

    assert {"aws_credentials", "cluster", "vpc_id", "execution_role_arn", "image", "cpu", "memory", "family"} <= names
    assert TEMPLATE["variables"]["definitions"]["AwsCredentials"]["block_type_slug"] == "aws-credentials"
    assert TEMPLATE["variables"]["properties"]["launch_type"]["enum"][:4] == [
        "FARGATE",
        "EC2",
        "EXTERNAL",
        "FARGATE_SPOT",
    ]


def test_what_is_worked_out_is_no_part_of_the_template() -> None:
    assert not {"started_by", "region", "is_complete", "definition_hash"} & set(TEMPLATE["job_configuration"])


# -- every parameter


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:login"
IN_DEFINITION: list[tuple[str, Any, str, Any]] = [
    # variable, value, field of the container or definition, what stands there
    ("repository_credentials", ARN, "repositoryCredentials", {"credentialsParameter": ARN}),
    ("mount_points", [{"sourceVolume": "v", "containerPath": "/v"}], "mountPoints", None),
    ("ulimits", [{"name": "nofile", "softLimit": 1, "hardLimit": 2}], "ulimits", None),
    ("linux_parameters", {"initProcessEnabled": True}, "linuxParameters", None),
    ("readonly_root_filesystem", True, "readonlyRootFilesystem", None),
    ("entrypoint", "sh -c", "entryPoint", ["sh", "-c"]),
    ("secrets", {"KEY": ARN}, "secrets", [{"name": "KEY", "valueFrom": ARN}]),
    ("stop_timeout", 60, "stopTimeout", None),
    ("image", "acme/other:1", "image", None),
    ("prefect_api_key_secret_arn", ARN, "secrets", [{"name": "PREFECT_API_KEY", "valueFrom": ARN}]),
    ("prefect_api_auth_string_secret_arn", ARN, "secrets", [{"name": "PREFECT_API_AUTH_STRING", "valueFrom": ARN}]),
    ("volumes", [{"name": "v"}], "volumes", None),
    ("task_role_arn", ROLE, "taskRoleArn", None),
    ("execution_role_arn", f"{ROLE}3", "executionRoleArn", None),
]
IN_RUN: list[tuple[str, Any, str, Any]] = [
    ("platform_version", "1.4.0", "platformVersion", None),
    ("propagate_tags", "TASK_DEFINITION", "propagateTags", None),
    ("enable_ecs_managed_tags", True, "enableECSManagedTags", None),
    ("enable_execute_command", True, "enableExecuteCommand", None),
    ("group", "nightly", "group", None),
    ("placement_constraints", [{"type": "distinctInstance"}], "placementConstraints", None),
    ("placement_strategy", [{"type": "random"}], "placementStrategy", None),
    ("volume_configurations", [{"name": "v"}], "volumeConfigurations", None),
    ("cluster", "jobs", "cluster", None),
    ("launch_type", "MANAGED_INSTANCES", "launchType", None),
]
IN_OVERRIDE: list[tuple[str, Any, str, Any]] = [
    (
        "environment_files",
        ["arn:aws:s3:::b/x.env"],
        "environmentFiles",
        [{"type": "s3", "value": "arn:aws:s3:::b/x.env"}],
    ),
    ("resource_requirements", {"GPU": "1"}, "resourceRequirements", [{"type": "GPU", "value": "1"}]),
    ("command", "python -m x", "command", ["python", "-m", "x"]),
]


@pytest.mark.parametrize(("name", "value", "field", "wanted"), IN_DEFINITION, ids=lambda value: str(value)[:20])
def test_a_parameter_of_the_definition(name: str, value: Any, field: str, wanted: Any) -> None:
    """It stands where ECS wants it, nowhere in the request, and nothing stands there without it."""
    with_it, without = ({"execution_role_arn": ROLE, **more} for more in ({name: value}, {}))
    body = definition(**with_it)
    assert {**body, **body["containerDefinitions"][0]}[field] == (value if wanted is None else wanted)
    plain = definition(**without)
    assert field in ("image", "executionRoleArn") or field not in {**plain, **plain["containerDefinitions"][0]}
    assert request(**with_it) == request(**without)


@pytest.mark.parametrize(("name", "value", "field", "wanted"), IN_RUN, ids=lambda value: str(value)[:20])
def test_a_parameter_of_the_request(name: str, value: Any, field: str, wanted: Any) -> None:
    """It is a member of RunTask."""
    assert request(**{name: value})[field] == value
    assert field == "launchType" or field not in request()


@pytest.mark.parametrize(("name", "value", "field", "wanted"), IN_OVERRIDE, ids=lambda value: str(value)[:20])
def test_a_parameter_of_the_override(name: str, value: Any, field: str, wanted: Any) -> None:
    """It is given to the main container of this run alone."""
    assert own(**{name: value})[field] == wanted
    assert field not in own()
    assert definition(**{name: value}) == definition()


def test_every_request_with_all_parameters_is_one_that_boto3_takes() -> None:
    """Names and types are those of the service model."""
    import boto3

    values: dict[str, Any] = {name: value for name, value, *_ in (*IN_DEFINITION, *IN_RUN, *IN_OVERRIDE)}
    values |= {"launch_type": "FARGATE", "operating_system_family": "LINUX", "ephemeral_storage": 30}
    values |= {"volume_configurations": [{"name": "v", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 5}}]}
    del values["repository_credentials"]
    client = boto3.client("ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
    model, validate = client.meta.service_model, __import__("botocore.validate").validate.validate_parameters
    validate(definition(**values), model.operation_model("RegisterTaskDefinition").input_shape)
    validate(request(**values), model.operation_model("RunTask").input_shape)


def test_the_operating_system_and_the_architecture_stand_together() -> None:
    assert definition(operating_system_family="WINDOWS_SERVER_2022_CORE")["runtimePlatform"] == {
        "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"
    }
    assert "runtimePlatform" not in definition()


def test_a_key_that_is_read_from_a_secret_is_in_no_environment() -> None:
    """Neither the job's own nor that of the template; and it stays for a definition that we do not write."""
    values: dict[str, Any] = {
        "execution_role_arn": ROLE,
        "prefect_api_key_secret_arn": ARN,
        "env": {"PREFECT_API_KEY": "canary", "A": "1"},
    }
    assert "canary" not in json.dumps([definition(**values), request(**values)])
    assert env(**values)["A"] == "1"
    assert env(task_definition_arn="theirs:1", **values)["PREFECT_API_KEY"] == "canary"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repository_credentials", ARN),
        ("prefect_api_key_secret_arn", ARN),
        ("prefect_api_auth_string_secret_arn", ARN),
    ],
)
def test_what_is_read_from_a_secret_needs_the_execution_role(name: str, value: Any) -> None:
    with pytest.raises(InvalidJobVariables, match=f"{name}: give an execution_role_arn too"):
        job_of(**{name: value})


# -- templates of Prefect


def of_any(**more: Any) -> dict[str, Any]:
    return {"anyOf": [more or {"type": "string"}, {"type": "null"}], "default": None}


PREFECT_VARIABLES: dict[str, Any] = {
    "name": of_any(),
    "env": {"type": "object", "additionalProperties": of_any()},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "command": of_any(),
    "task_definition_arn": of_any(),
    "aws_credentials": of_any(type="object"),
    "cluster": of_any(),
    "family": of_any(),
    "launch_type": {
        "anyOf": [{"enum": ["FARGATE", "EC2", "EXTERNAL", "FARGATE_SPOT"], "type": "string"}, {"type": "null"}],
        "default": "FARGATE",
    },
    "capacity_provider_strategy": {"type": "array", "items": {"type": "object"}, "default": []},
    "image": of_any(),
    "cpu": of_any(type="integer"),
    "memory": of_any(type="integer"),
    "container_name": of_any(),
    "task_role_arn": of_any(),
    "execution_role_arn": of_any(),
    "vpc_id": of_any(),
    "configure_cloudwatch_logs": of_any(type="boolean"),
    "cloudwatch_logs_options": {"type": "object", "additionalProperties": {"type": "string"}},
    "cloudwatch_logs_prefix": of_any(),
    "network_configuration": {"type": "object"},
    "auto_deregister_task_definition": {"type": "boolean", "default": False},
    "match_latest_revision_in_family": {"type": "boolean", "default": False},
}
PREFECT_CONFIGURATION: dict[str, Any] = {
    "command": "{{ command }}",
    "env": "{{ env }}",
    "labels": "{{ labels }}",
    "name": "{{ name }}",
    "aws_credentials": "{{ aws_credentials }}",
    "task_definition": {
        "containerDefinitions": [{"image": "{{ image }}", "name": "{{ container_name }}"}],
        "cpu": "{{ cpu }}",
        "family": "{{ family }}",
        "memory": "{{ memory }}",
        "executionRoleArn": "{{ execution_role_arn }}",
    },
    "task_run_request": {
        "launchType": "{{ launch_type }}",
        "cluster": "{{ cluster }}",
        "overrides": {
            "containerOverrides": [
                {
                    "name": "{{ container_name }}",
                    "command": "{{ command }}",
                    "environment": "{{ env }}",
                    "cpu": "{{ cpu }}",
                    "memory": "{{ memory }}",
                }
            ],
            "cpu": "{{ cpu }}",
            "memory": "{{ memory }}",
            "taskRoleArn": "{{ task_role_arn }}",
        },
        "tags": "{{ labels }}",
        "taskDefinition": "{{ task_definition_arn }}",
        "capacityProviderStrategy": "{{ capacity_provider_strategy }}",
    },
    "configure_cloudwatch_logs": "{{ configure_cloudwatch_logs }}",
    "cloudwatch_logs_options": "{{ cloudwatch_logs_options }}",
    "cloudwatch_logs_prefix": "{{ cloudwatch_logs_prefix }}",
    "network_configuration": "{{ network_configuration }}",
    "auto_deregister_task_definition": "{{ auto_deregister_task_definition }}",
    "vpc_id": "{{ vpc_id }}",
    "container_name": "{{ container_name }}",
    "cluster": "{{ cluster }}",
    "match_latest_revision_in_family": "{{ match_latest_revision_in_family }}",
}
OLDER: dict[str, Any] = {
    "stream_output": of_any(type="boolean"),
    "task_start_timeout_seconds": {"type": "integer", "default": 300},
    "task_watch_poll_interval": {"type": "number", "default": 5.0},
}
NEWER: dict[str, Any] = {"prefect_api_key_secret_arn": of_any(), "prefect_api_auth_string_secret_arn": of_any()}


def prefect_template(more: dict[str, Any]) -> dict[str, Any]:
    """Return a template of Prefect's ECS worker of one of its two generations."""
    return {
        "job_configuration": PREFECT_CONFIGURATION | {name: f"{{{{ {name} }}}}" for name in more},
        "variables": {"type": "object", "properties": PREFECT_VARIABLES | more, "description": "of the worker"},
    }


GENERATIONS = pytest.mark.parametrize("more", [OLDER, NEWER], ids=["older", "newer"])


@GENERATIONS
def test_a_template_of_prefects_ecs_worker_works_as_it_is(more: dict[str, Any]) -> None:
    template = prefect_template(more)
    validate_base_job_template(template)
    values: dict[str, Any] = {
        "template": template,
        "cpu": 512,
        "memory": 1024,
        "command": "python -m x",
        "env": {"A": "1"},
        "task_role_arn": ROLE,
        "execution_role_arn": ROLE,
        "configure_cloudwatch_logs": True,
        "cluster": "jobs",
        "labels": {"team": "blue"},
        "auto_deregister_task_definition": True,
    }

    registered, run = definition(**values), request(**values)

    assert (registered["cpu"], registered["memory"]) == ("512", "1024")
    assert registered["containerDefinitions"][0]["logConfiguration"]["logDriver"] == "awslogs"
    assert run["overrides"]["taskRoleArn"] == ROLE
    assert run["overrides"]["containerOverrides"][0]["memory"] == 1024
    assert run["cluster"] == "jobs"
    assert run["launchType"] == "FARGATE"
    assert {"key": "team", "value": "blue"} in run["tags"]
    assert "shared by runs" in job_of(**values).notes[0]


@GENERATIONS
def test_a_template_of_prefect_renders_with_nothing_but_an_image(more: dict[str, Any]) -> None:
    assert definition(template=prefect_template(more))["requiresCompatibilities"] == ["FARGATE"]
    assert own(template=prefect_template(more))["name"] == "flow"


@GENERATIONS
def test_job_variables_of_prefect_are_variables_of_our_own_template(more: dict[str, Any]) -> None:
    """A deployment that moves here keeps its job variables: `stream_output` and the like are said to do nothing."""
    missing = set(PREFECT_VARIABLES | more) - set(TEMPLATE["variables"]["properties"])
    assert not missing


# -- the task definition


def test_the_definition_of_a_plain_job() -> None:
    assert definition(execution_role_arn=ROLE, task_role_arn=f"{ROLE}2", cpu_architecture="ARM64") == {
        "family": definition(execution_role_arn=ROLE, task_role_arn=f"{ROLE}2", cpu_architecture="ARM64")["family"],
        "containerDefinitions": [{"name": "flow", "image": "acme/report:7"}],
        "cpu": "1024",
        "memory": "2048",
        "executionRoleArn": ROLE,
        "taskRoleArn": f"{ROLE}2",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
    }


def test_the_family_is_the_flows_name_or_the_variable_and_ends_with_the_hash() -> None:
    built = build_definition(job_of(), REGION)

    assert built.request["family"] == f"Monthly-report-{built.hash[:12]}"
    assert str(definition(family="my family")["family"]).startswith("my-family-")
    assert len(family_name("x" * 400)) + 13 == 255
    assert family_name("!!!") == "push-pools"


@pytest.mark.parametrize(
    "values",
    [
        {"command": "other"},
        {"env": {"A": "2"}},
        {"cpu": 2048, "memory": 4096},
        {"labels": {"a": "b"}, "tags": {"c": "d"}},
        {"ephemeral_storage": 50},
        {"cluster": "elsewhere"},
        {"run": UUID(int=99), "attempt": 3},
        {"name": "another"},
        {"launch_type": "FARGATE_SPOT"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_can_be_overridden_shares_one_definition(values: dict[str, Any]) -> None:
    assert build_definition(job_of(**values), REGION) == build_definition(job_of(), REGION)


@pytest.mark.parametrize(
    "values",
    [
        {"image": "acme/report:8"},
        {"entrypoint": "sh -c"},
        {"secrets": {"KEY": "arn:aws:ssm:x"}},
        {"task_role_arn": ROLE},
        {"execution_role_arn": f"{ROLE}3"},
        {"configure_cloudwatch_logs": True},
        {"cpu_architecture": "ARM64"},
        {"stop_timeout": 60},
        {"family": "f"},
        {"launch_type": "EC2"},
        {"container_name": "main"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_what_cannot_be_overridden_is_another_definition(values: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"execution_role_arn": ROLE}

    assert build_definition(job_of(**(usual | values)), REGION).hash != build_definition(job_of(**usual), REGION).hash


def test_the_hash_does_not_depend_on_the_order_in_which_things_are_written() -> None:
    one = job_of(execution_role_arn=ROLE, secrets={"B": "2", "A": "1"})
    other = job_of(execution_role_arn=ROLE, secrets={"A": "1", "B": "2"})
    other.task_definition = dict(reversed(other.task_definition.items()))

    assert build_definition(one, REGION) == build_definition(other, REGION)


def test_the_hash_is_pinned_so_that_an_upgrade_does_not_register_everything_anew() -> None:
    assert build_definition(job_of(), REGION).hash[:12] == "8769ff9152ba"


def test_logs_go_to_one_group_and_prefix_unless_named() -> None:
    options = container(configure_cloudwatch_logs=True, execution_role_arn=ROLE)["logConfiguration"]["options"]
    built = build_definition(
        job_of(
            configure_cloudwatch_logs=True,
            execution_role_arn=ROLE,
            cloudwatch_logs_options={"awslogs-group": "mine", "awslogs-region": "us-west-2"},
            cloudwatch_logs_prefix="pre",
        ),
        REGION,
    )

    assert options == {
        "awslogs-create-group": "true",
        "awslogs-group": "push-pools",
        "awslogs-region": REGION,
        "awslogs-stream-prefix": "push-pools",
    }
    assert built.log_place == {"log_group": "mine", "log_prefix": "pre", "log_region": "us-west-2"}


def test_secrets_entrypoint_and_stop_timeout_have_the_shape_of_ecs() -> None:
    shaped = container(
        execution_role_arn=ROLE, secrets={"KEY": "arn:k"}, entrypoint="sh -c 'a b'", grace_seconds=45.5, env={"X": "1"}
    )

    assert shaped["secrets"] == [{"name": "KEY", "valueFrom": "arn:k"}]
    assert shaped["entryPoint"] == ["sh", "-c", "a b"]
    assert shaped["stopTimeout"] == 46
    assert "environment" not in shaped
    assert container(stop_timeout=90, grace_seconds=1)["stopTimeout"] == 90
    assert container(grace_seconds=900)["stopTimeout"] == 120


def test_sidecars_keep_what_they_have_and_the_main_container_is_first() -> None:
    containers = [
        {"name": "proxy", "image": "proxy:1", "environment": {"P": 1}},
        {"name": "main", "image": "{{ image }}"},
    ]
    template = with_section("task_definition", containerDefinitions=containers)

    listed = definition(template=template, container_name="main")["containerDefinitions"]

    assert [each["name"] for each in listed] == ["main", "proxy"]
    assert listed[1]["environment"] == [{"name": "P", "value": "1"}]
    with pytest.raises(InvalidJobVariables, match="no container 'absent'; it has proxy, main"):
        definition(template=template, container_name="absent")


@pytest.mark.parametrize(
    ("values", "compatible", "mode"),
    [
        ({}, ["FARGATE"], "awsvpc"),
        ({"launch_type": "FARGATE_SPOT"}, ["FARGATE"], "awsvpc"),
        ({"launch_type": "EC2", "network_configuration": {}}, ["EC2"], None),
        ({"launch_type": "EC2"}, ["EC2"], "awsvpc"),
        ({"launch_type": "EXTERNAL", "network_configuration": {}}, ["EXTERNAL"], None),
        ({"capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT"}]}, ["FARGATE"], "awsvpc"),
        ({"capacity_provider_strategy": [{"capacityProvider": "mine"}], "network_configuration": {}}, ["EC2"], None),
    ],
)
def test_where_a_task_runs_decides_compatibility_and_network_mode(
    values: dict[str, Any], compatible: list[str], mode: str | None
) -> None:
    registered = definition(**values)

    assert registered["requiresCompatibilities"] == compatible
    assert registered.get("networkMode") == mode


def test_a_job_without_an_image_is_refused_when_it_is_built_and_not_before() -> None:
    job = job_of(image=None)

    with pytest.raises(InvalidJobVariables, match="image: name the image of the job"):
        build_definition(job, REGION)


def test_a_restart_policy_would_run_a_job_twice_and_is_refused() -> None:
    containers = [{"name": "flow", "image": "x", "restartPolicy": {"enabled": True}}]

    with pytest.raises(InvalidJobVariables, match="more than once"):
        definition(template=with_section("task_definition", containerDefinitions=containers))


# -- sizes


@pytest.mark.parametrize(
    ("cpu", "memory", "size"),
    [
        (None, None, (1024, 2048)),
        (256, None, (256, 2048)),
        (512, None, (512, 2048)),
        (4096, None, (4096, 8192)),
        (None, 512, (256, 512)),
        (None, 4096, (1024, 4096)),
        (None, 30720, (4096, 30720)),
        ("1 vCPU", "3 GB", (1024, 3072)),
        ("0.25 vcpu", "1gb", (256, 1024)),
        (16384, 122880, (16384, 122880)),
    ],
)
def test_fargate_sizes_are_completed(cpu: Any, memory: Any, size: tuple[int, int]) -> None:
    assert fargate_size(cpu, memory) == size


@pytest.mark.parametrize("cpu", FARGATE_SIZES)
def test_every_pair_of_the_table_is_taken(cpu: int) -> None:
    for memory in FARGATE_SIZES[cpu]:
        assert fargate_size(cpu, memory) == (cpu, memory)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cpu": 256, "memory": 4096}, "on Fargate cpu 256 does not go with memory 4096; it goes with 512, 1024, 2048"),
        ({"cpu": 1024, "memory": 512}, "on Fargate cpu 1024 .* 2048 to 8192 in steps of 1024"),
        ({"cpu": 300}, "Fargate has no cpu 300; it has 256, 512, 1024"),
        ({"cpu": 8192, "memory": 17408}, "16384 to 61440 in steps of 4096"),
    ],
)
def test_a_wrong_pair_is_refused_at_validation_with_the_pairs_there_are(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidJobVariables, match=sentence):
        rendered(**values)


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not numbers"):
        fargate_size("much", None)


def test_other_launch_types_take_any_size() -> None:
    assert request(launch_type="EC2", cpu=300, memory=333)["overrides"]["memory"] == "333"


def test_the_size_of_the_definition_is_not_repeated_in_the_overrides() -> None:
    assert "cpu" not in request()["overrides"]
    assert request(cpu=512)["overrides"]["cpu"] == "512"


# -- RunTask


def test_the_request_of_a_plain_job() -> None:
    assert request(command="python -m report", env={"B": "2", "A": "1"}, cluster="jobs", ephemeral_storage=50) == {
        "cluster": "jobs",
        "count": 1,
        "launchType": "FARGATE",
        "overrides": {
            "containerOverrides": [
                {
                    "name": "flow",
                    "command": ["python", "-m", "report"],
                    "environment": [
                        {"name": "A", "value": "1"},
                        {"name": "B", "value": "2"},
                        {"name": "PUSH_POOLS_ATTEMPT", "value": "1"},
                        {"name": "PUSH_POOLS_DEPLOYMENT", "value": "Monthly report!/hourly"},
                        {"name": "PUSH_POOLS_PARAMETERS", "value": '{"n":1}'},
                        {"name": "PUSH_POOLS_RUN_ID", "value": str(RUN)},
                        {"name": "PUSH_POOLS_SCHEDULED_TIME", "value": "2030-01-01T00:00:00Z"},
                    ],
                }
            ],
            "ephemeralStorage": {"sizeInGiB": 50},
        },
        "startedBy": f"pp/{RUN}/1",
        "tags": [
            {"key": "Name", "value": "curious-crab"},
            {"key": "push-pools/attempt", "value": "1"},
            {"key": "push-pools/deployment", "value": "Monthly report-/hourly"},
            {"key": "push-pools/flow", "value": "Monthly report-"},
            {"key": "push-pools/run-id", "value": str(RUN)},
            {"key": "push-pools/run-name", "value": "curious-crab"},
            {"key": "push-pools/work-pool", "value": "nightly"},
        ],
        "taskDefinition": "arn:x:1",
    }


def test_started_by_fits_into_128_characters() -> None:
    assert len(started_by(RUN, 100)) <= 128


def test_env_of_none_is_unset_and_the_services_names_win() -> None:
    got = env(env={"A": None, "EMPTY": "", "PUSH_POOLS_RUN_ID": "mine"})

    assert "A" not in got
    assert got["EMPTY"] == ""
    assert got["PUSH_POOLS_RUN_ID"] == str(RUN)


def test_what_the_template_says_literally_cannot_be_overridden() -> None:
    overrides = {"containerOverrides": [{"name": "flow", "command": "fixed it", "environment": {"LEVEL": "high"}}]}
    template = with_section("task_run_request", overrides=overrides)

    assert env(template=template, env={"LEVEL": "low", "FREE": "1"})["LEVEL"] == "high"
    assert env(template=template, env={"LEVEL": "low", "FREE": "1"})["FREE"] == "1"
    assert own(template=template, command="other")["command"] == ["fixed", "it"]


def test_a_template_without_containers_still_gets_command_and_env() -> None:
    template = with_section("task_run_request", overrides={})

    assert own(template=template, command="a b")["command"] == ["a", "b"]


def test_lists_in_ecs_own_form_are_taken_too() -> None:
    overrides = {"containerOverrides": [{"environment": [{"name": "Z", "value": "1"}, {"name": "A", "value": "2"}]}]}
    template = with_section("task_run_request", overrides=overrides, tags=[{"key": "k", "value": "v"}])

    assert next(iter(env(template=template))) == "A"
    assert {"key": "k", "value": "v"} in request(template=template)["tags"]


def test_ctx_placeholders_are_filled() -> None:
    assert own(command="x --at {{ ctx.flow_run.scheduled_time }}")["command"] == ["x", "--at", "2030-01-01T00:00:00Z"]


@pytest.mark.parametrize(
    ("values", "launch", "strategy"),
    [
        ({}, "FARGATE", None),
        ({"launch_type": "EC2"}, "EC2", None),
        ({"launch_type": "FARGATE_SPOT"}, None, [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]),
        ({"capacity_provider_strategy": [{"capacityProvider": "mine"}]}, None, [{"capacityProvider": "mine"}]),
        ({"template": with_section("task_run_request", launchType=None)}, "FARGATE", None),
    ],
)
def test_launch_type_and_strategy_exclude_each_other(
    values: dict[str, Any], launch: str | None, strategy: list[Any] | None
) -> None:
    got = request(**values)

    assert got.get("launchType") == launch
    assert got.get("capacityProviderStrategy") == strategy


def test_count_token_and_mark_of_a_template_are_not_used() -> None:
    got = request(template=with_section("task_run_request", count=5, clientToken="x", startedBy="me", group="g"))

    assert (got["count"], got["startedBy"], got["group"]) == (1, f"pp/{RUN}/1", "g")
    assert "clientToken" not in got


def test_tags_are_cut_to_what_aws_takes() -> None:
    tags = {each["key"]: each["value"] for each in request(labels={"a*b": "é\n1", "k" * 200: "v" * 300})["tags"]}

    assert tags["a-b"] == "é-1"
    assert len(tags["k" * 128]) == 256
    with pytest.raises(InvalidJobVariables, match="takes 50 tags, and these are 57"):
        request(labels={f"l{n}": "" for n in range(50)})


def test_our_labels_win_over_tags() -> None:
    got = {each["key"]: each["value"] for each in request(tags={"push-pools/run-id": "x", "team": "blue"})["tags"]}

    assert (got["push-pools/run-id"], got["team"]) == (str(RUN), "blue")


# -- the limit on overrides


def test_overrides_of_8192_characters_pass_and_one_more_does_not() -> None:
    free = MAX_OVERRIDES - len(compact(request(env={"BIG": ""})["overrides"]))

    assert len(compact(request(env={"BIG": "x" * free})["overrides"])) == MAX_OVERRIDES
    with pytest.raises(InvalidJobVariables, match=r"has 8193 characters .* takes 8192; the longest is env\.BIG with"):
        request(env={"BIG": "x" * (free + 1)})


@pytest.mark.parametrize(
    ("overrides", "biggest"),
    [
        ([{"name": "flow", "command": ["x" * 9000], "environment": [{"name": "A", "value": "y" * 50}]}], "command"),
        ([{"name": "flow", "environmentFiles": [{"type": "s3", "value": "a" * 9000}]}], "environment_files"),
        ([{"name": "flow", "command": ["a"]}, {"name": "proxy", "command": ["x" * 9000]}], "proxy: command"),
        (
            [
                {"name": "flow", "environment": [{"name": "A", "value": "x" * 50}]},
                {"name": "proxy", "environment": [{"name": "A", "value": "x" * 9000}]},
            ],
            r"proxy: env\.A",
        ),
    ],
)
def test_whatever_is_the_longest_part_of_overrides_is_named(overrides: list[dict[str, Any]], biggest: str) -> None:
    """Not command and environment alone: whoever shortens what is named gets below the limit."""
    with pytest.raises(InvalidJobVariables, match=rf"the longest is {biggest} with 90\d\d:"):
        check_overrides({"cpu": "256", "containerOverrides": overrides})


def test_characters_are_counted_not_bytes() -> None:
    check_overrides({"containerOverrides": [{"name": "flow", "environment": [{"name": "A", "value": "é" * 8000}]}]})


def test_the_sentence_about_the_limit_shows_no_value() -> None:
    with pytest.raises(InvalidJobVariables) as caught:
        request(env={"BIG": "canary" * 2000})

    assert "canary" not in str(caught.value)


# -- refusals


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"configure_cloudwatch_logs": True}, "configure_cloudwatch_logs: give an execution_role_arn too"),
        ({"secrets": {"A": "arn"}}, "secrets: give an execution_role_arn too"),
        ({"cloudwatch_logs_options": {"a": "b"}}, "cloudwatch_logs_options: set configure_cloudwatch_logs too"),
    ],
)
def test_what_ecs_would_refuse_later_is_refused_now(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidJobVariables, match=sentence):
        rendered(**values)


def test_with_a_definition_of_ones_own_roles_and_sizes_are_its_affair() -> None:
    arn = "arn:aws:ecs:us-east-1:1:task-definition/mine:3"

    rendered(task_definition_arn=arn, configure_cloudwatch_logs=True, cpu=300)


@pytest.mark.parametrize("section", ["task_definition", "task_run_request"])
def test_a_secret_anywhere_in_a_request_is_refused(section: str) -> None:
    secret = {"$secret": "block/field"}
    sections: dict[str, Any] = {section: {"containerDefinitions": [{"entryPoint": secret}]}}

    with pytest.raises(InvalidJobVariables, match="ECS would show this secret; use `secrets`"):
        EcsJobConfiguration(**sections)


def test_credentials_are_a_block_and_never_written_out() -> None:
    with pytest.raises(ValueError, match="name a credentials block") as caught:
        EcsJobConfiguration.model_validate({"aws_credentials": {"aws_secret_access_key": "canary"}})

    assert rendered(aws_credentials={"$ref": {"block_document_id": "b1"}}).credential_block_id == "b1"
    assert rendered(aws_credentials=None).credential_block_id is None
    del caught


def test_an_unprepared_job_has_no_request() -> None:
    with pytest.raises(JobRejected, match="not prepared"):
        job_of().run_task_request("pp-x")


def test_ignored_variables_are_noted() -> None:
    job = rendered(auto_deregister_task_definition=True, match_latest_revision_in_family=True)

    assert [note.partition(" ")[0] for note in job.notes] == [
        "auto_deregister_task_definition",
        "match_latest_revision_in_family",
    ]
    assert not rendered().notes


def test_the_networks_forms_are_equal() -> None:
    from push_pools.platforms.ecs_request import given_network

    whole = with_section("task_run_request", networkConfiguration={"awsvpcConfiguration": SUBNETS})

    assert given_network(rendered()) == {"awsvpcConfiguration": SUBNETS}
    assert given_network(rendered(template=whole, network_configuration={})) == {"awsvpcConfiguration": SUBNETS}
    assert given_network(rendered(network_configuration={"awsvpcConfiguration": SUBNETS})) == {
        "awsvpcConfiguration": SUBNETS
    }
    assert given_network(rendered(network_configuration={})) is None


def test_requests_are_json_with_ordered_keys() -> None:
    text = json.dumps(request(env={"B": "1", "A": "2"}))

    assert text == json.dumps(json.loads(text), sort_keys=True)
