"""What the service module refuses, it refuses when planning, in a sentence that says what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.terraform.bundles import ROOT

if TYPE_CHECKING:
    from tests.terraform.terraform import Terraform

MODULE: Final = ROOT / "terraform" / "modules" / "service"
MOCKED: Final = """
mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
}
mock_provider "external" {}
"""
S3: Final = '{ s3 = { bucket = "b", key = "k", object_version = "1" } }'
REFUSED: Final[dict[str, dict[str, str]]] = {
    "first": {
        "name": '"Our Jobs"',
        "platforms": '["ecs", "mainframe"]',
        "package": '{ path = "x.zip", url = "https://x/y.zip" }',
        "ecs": '{ cluster_arn = "default", task_role_arn = "work", log_group_arn = "arn:aws:logs:r:a:log-group:x:*" }',
        "webhook": "{ enabled = true }",
        "settings": '{ PUSH_POOLS_AWS_TABLE = "other" }',
        "reserved_concurrency": "{ submit_ecs = 9 }",
        "kms_key": '{ arn = "alias/ours" }',
        "permissions_boundary": '"bound"',
        "vpc_config": "{ subnet_ids = [], security_group_ids = [] }",
        "log_retention_days": "8",
        "log_level": '"LOUD"',
        "alarm_actions": '["pager"]',
        "oldest_message_seconds": "1",
        "failed_runs": "-1",
    },
    "second": {
        "package": '{ s3 = { bucket = "b", key = "k" } }',
        "webhook": '{ enabled = true, issuer = "https://issuer.example" }',
        "reserved_concurrency": "{ submit_mainframe = 9 }",
    },
    "third": {"package": '{ path = "nowhere.zip" }'},
    "fourth": {"package": '{ url = "http://releases.example/x.zip", sha256 = "abc" }'},
    "fifth": {"package": '{ path = "later.zip", sha256_base64 = "abc" }'},
    "sixth": {"region": '"us-east-1"'},
    "seventh": {"package": "{}"},
    "eighth": {
        "platforms": '["ecs", "aci"]',
        "package": '{ s3 = { bucket = "b", key = "push-pools-ecs-arm64-py313.zip", object_version = "1" } }',
    },
}


def sentences() -> list[str]:
    """Return every sentence of refusal in the module, as it is written."""
    text = "".join(path.read_text() for path in sorted(MODULE.glob("*.tf")))
    return re.findall(r'(?m)error_message = "(.*)"$', text)


def is_said_as(said: str, sentence: str) -> bool:
    """Whether this is the sentence, with something filled in where it is to be."""
    begin, _, rest = sentence.partition("${")
    end = rest.rpartition("}")[2]
    return said.startswith(begin) and said.endswith(end) and (bool(rest) or said == sentence)


@pytest.fixture(scope="module")
def said(service: Terraform) -> list[str]:
    """Every refusal of all the bad input."""
    files = {}
    for name, variables in REFUSED.items():
        given = {"name": '"jobs"', "package": S3, **variables}
        lines = "\n".join(f"    {key} = {value}" for key, value in given.items())
        files[name] = f'{MOCKED}\nrun "refused" {{\n  command = plan\n  variables {{\n{lines}\n  }}\n}}\n'
    found = [line["diagnostic"] for line in service.test(**files) if line["type"] == "diagnostic"]
    return [each["detail"].partition("\n\n")[0] for each in found]


@pytest.mark.parametrize("sentence", sentences())
def test_it_is_refused_in_its_sentence(said: list[str], sentence: str) -> None:
    assert any(is_said_as(each, sentence) for each in said), "\n".join(said)


def test_sentences_name_the_thing_and_the_fix() -> None:
    for sentence in sentences():
        assert re.search(r"[;:,]", sentence), sentence
        assert sentence.endswith((".", "}")), sentence


def test_what_is_known_is_listed(said: list[str]) -> None:
    text = "\n".join(said)
    assert "known are aci, cloud_run, ecs." in text
    assert "reserve at least 5 for poll_aci" in text
    assert "10 for submit_ecs" in text
    assert "region is us-east-1, and the provider's is eu-west-1; change one of them." in text
