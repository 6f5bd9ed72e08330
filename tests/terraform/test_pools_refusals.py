"""What the modules of pools, deployments and triggers refuse when planning says what to do.

That each variable refuses what it should is in the modules' own tests. Here it is the sentences: all of a deployment's,
and that those of a pool reach whoever calls the module of a cloud, which only hands its variables on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.terraform.bundles import ROOT
from tests.terraform.terraform import prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.terraform.terraform import Terraform

MODULES: Final = sorted(path for path in (ROOT / "terraform" / "modules").iterdir() if path.name != "service")
MOCKED: Final = 'mock_provider "aws" {}\n'
POOL: Final = """
    service           = { name = "jobs", admin_function_name = "jobs-admin" }
    name              = "nightly"
    vpc_id            = "vpc-1"
    subnet_ids        = ["subnet-1"]
    concurrency_limit = -1
    work_queues       = [{ name = "a b", priority = 0, concurrency_limit = -1 }, { name = "a b" }]
    base_job_template = { image = "acme/report:7" }
"""
SCHEDULES: Final = (
    "{}",
    '{ cron = "every hour" }',
    '{ interval = "0s" }',
    '{ rrule = "DAILY" }',
    '{ at = "tomorrow" }',
    '{ cron = "@daily", timezone = "CET +1" }',
    '{ cron = "@daily", overlap = "queue" }',
    '{ cron = "@daily", parameters = "depth=5" }',
    '{ cron = "@daily", slug = "a" }, { cron = "@hourly", slug = "a" }',
)
DEPLOYMENT: Final = f"""
    service               = {{ admin_function_name = "jobs-admin" }}
    name                  = "every hour"
    flow_name             = "e/t/l"
    work_pool             = "nightly"
    command               = []
    parameters            = "depth=5"
    job_variables         = "cpu=512"
    open_job_variables    = [""]
    retries               = {{ attempts = 0 }}
    concurrency_limit     = -1
    start_timeout_seconds = 0
    timeout_seconds       = -1
    max_wait_seconds      = 0
    tags                  = [""]
    schedules             = [{", ".join(SCHEDULES)}]
"""


def sentences(module: str) -> list[str]:
    """Return every sentence of refusal in a module, without what is filled in."""
    text = "".join(path.read_text() for path in sorted((ROOT / "terraform" / "modules" / module).glob("*.tf")))
    return [each.replace('\\"', '"') for each in re.findall(r'(?m)^ +error_message += "(.*)"$', text)]


def refused(terraform: Terraform, variables: str) -> list[str]:
    """Plan with bad input and return what is said."""
    run = f'{MOCKED}run "refused" {{\n  command = plan\n  variables {{{variables}  }}\n}}\n'
    lines = terraform.test(refused=run)
    return [line["diagnostic"]["detail"].partition("\n\n")[0] for line in lines if line["type"] == "diagnostic"]


@pytest.fixture(scope="module")
def of_a_pool() -> Iterator[list[str]]:
    with prepared("modules/ecs_pool") as terraform:
        yield refused(terraform, POOL)


@pytest.fixture(scope="module")
def of_a_deployment() -> Iterator[list[str]]:
    with prepared("modules/deployment") as terraform:
        yield refused(terraform, DEPLOYMENT)


@pytest.mark.parametrize("sentence", sentences("deployment"))
def test_a_deployment_is_refused_in_every_sentence(of_a_deployment: list[str], sentence: str) -> None:
    assert sentence in of_a_deployment


@pytest.mark.parametrize(
    "about",
    [
        "concurrency_limit is",
        "work_queues: a name",
        "work_queues names",
        "work_queues: priority",
        "work_queues: concurrency_limit",
        "base_job_template has",
    ],
)
def test_what_a_pool_refuses_reaches_whoever_calls_the_module_of_its_cloud(of_a_pool: list[str], about: str) -> None:
    (sentence,) = (each for each in sentences("pool") if each.startswith(about))
    assert sentence in of_a_pool


@pytest.mark.parametrize("module", [path.name for path in MODULES])
def test_sentences_say_what_to_do(module: str) -> None:
    assert sentences(module)
    for sentence in sentences(module):
        assert re.search(r"[;:,]", sentence), sentence
        assert sentence.endswith("."), sentence
