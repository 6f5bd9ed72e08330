"""The double of EC2 answers the unmodified client as EC2 does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from push_pools.platforms.ecs_network import Networks
from push_pools.testing.ec2_double import DEFAULT_VPC, SUBNETS, Ec2Double

if TYPE_CHECKING:
    from collections.abc import Iterator


def client_of(ec2: Ec2Double) -> Any:
    return boto3.client(
        "ec2", endpoint_url=ec2.endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


@pytest.fixture
def ec2() -> Iterator[Any]:
    with Ec2Double() as double:
        client = client_of(double)
        yield client
        client.close()


def test_the_default_vpc_has_subnets(ec2: Any) -> None:
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]

    assert vpc["VpcId"] == DEFAULT_VPC
    assert [subnet["SubnetId"] for subnet in subnets] == list(SUBNETS)
    assert ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["false"]}])["Vpcs"] == []


def test_another_vpc_has_none(ec2: Any) -> None:
    assert ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": ["vpc-1"]}])["Subnets"] == []


def test_an_account_may_lack_a_default_vpc() -> None:
    with Ec2Double(vpc=None) as double:
        client = client_of(double)
        assert client.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"] == []
        client.close()


def test_what_it_does_not_know_is_refused(ec2: Any) -> None:
    with pytest.raises(ClientError, match="does not know DescribeRegions"):
        ec2.describe_regions()


def test_a_task_without_a_network_gets_the_default_one(ec2: Any) -> None:
    found = Networks().of_vpc("scope", None, lambda: ec2)

    assert found == {"awsvpcConfiguration": {"subnets": list(SUBNETS), "assignPublicIp": "ENABLED"}}
