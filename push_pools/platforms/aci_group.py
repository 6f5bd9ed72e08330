"""The container group of a job: the body of its PUT, completed with what belongs to the run."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

from push_pools.domain.errors import InvalidJobVariables, JobRejected
from push_pools.domain.job_variables import split_command
from push_pools.domain.jobs import SERVICE_ENV
from push_pools.domain.secrets import SecretRef
from push_pools.domain.templates import block_ref
from push_pools.platforms.aci_errors import TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from push_pools.platforms.aci_config import AciJobConfiguration

API_VERSION: Final = "2023-05-01"
DEFAULT_CONTAINER: Final = "job"
KEY_TAG: Final = "push-pools-key"
"""The tag that holds the job key: by it a group is known to be ours."""
MAX_TAGS: Final = 50
SECRET_FIELDS: Final = frozenset({"secureValue", "password", "workspaceKey", "storageAccountKey"})
"""Fields of a container group that Azure never shows ("Container Groups", REST reference)."""
_NOT_IN_TAGS: Final = re.compile(r"[<>%&\\?/]")
_CONTAINER_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESOURCE_GROUP: Final = re.compile(r"[-\w.()]{0,89}[-\w()]")


def check(job: AciJobConfiguration) -> None:
    """Refuse what Azure would refuse later, or what would break the promise of one run.

    Raises:
        InvalidJobVariables: With a sentence for each problem.
    """
    problems = [*_group_problems(job), *_value_problems(job)]
    if problems:
        raise InvalidJobVariables(problems)


def _group_problems(job: AciJobConfiguration) -> list[str]:
    properties = job.container_group.get("properties") or {}
    problems = []
    policy = properties.get("restartPolicy")
    if policy not in (None, "Never"):
        problems.append(
            f"container_group.properties.restartPolicy is {policy!r}: leave it out; "
            "with any but Never a job would run again"
        )
    names = [str(each.get("name") or DEFAULT_CONTAINER) for each in containers(job)]
    problems += [
        f"container name {name!r}: give 1 to 63 lower-case letters, digits and inner hyphens"
        for name in names
        if not _CONTAINER_NAME.fullmatch(name)
    ]
    return problems


def _value_problems(job: AciJobConfiguration) -> list[str]:
    problems = []
    for name, least in (("cpu", job.cpu), ("memory", job.memory)):
        if least is not None and least <= 0:
            problems.append(f"{name}: give a number above 0")
    if job.gpu_sku and not job.gpu_count:
        problems.append("gpu_sku: give a gpu_count too, or leave it out")
    if job.gpu_count and not job.gpu_sku:
        problems.append("gpu_count: give a gpu_sku too, such as V100")
    if job.dns_servers and not job.subnet_ids:
        problems.append("dns_servers: give subnet_ids too; a group without a network takes no DNS servers")
    if job.resource_group_name and not _RESOURCE_GROUP.fullmatch(job.resource_group_name):
        problems.append(f"resource_group_name {job.resource_group_name!r}: it is no name of a resource group")
    for variable, ids in (("identities", job.identities), ("subnet_ids", job.subnet_ids)):
        problems += [
            f"{variable}: {each!r} is no resource id; one begins with /subscriptions/"
            for each in ids
            if not each.lower().startswith("/subscriptions/")
        ]
    return problems


def require(job: AciJobConfiguration) -> None:
    """Refuse a job that lacks what every container group needs.

    Raises:
        InvalidJobVariables: With a sentence for each thing that is missing.
    """
    main = containers(job)[0].get("properties") or {}
    problems = []
    if not (job.image or main.get("image")):
        problems.append("image: name the image to run")
    if not job.resource_group_name:
        problems.append("resource_group_name: name the resource group to make container groups in")
    if not job.subscription_id:
        problems.append("subscription_id: give the id of the Azure subscription")
    if problems:
        raise InvalidJobVariables(problems)


def containers(job: AciJobConfiguration) -> list[dict[str, Any]]:
    """Return copies of the template's containers; an empty one where it has none."""
    listed = (job.container_group.get("properties") or {}).get("containers") or [{}]
    return [dict(each) for each in listed if isinstance(each, dict)] or [{}]


def main_container(job: AciJobConfiguration) -> str:
    """Return the name of the container whose exit decides: the first."""
    return str(containers(job)[0].get("name") or DEFAULT_CONTAINER)


def location_of(job: AciJobConfiguration) -> str | None:
    """Return the region that the job names; `None` for that of its resource group."""
    return job.container_group.get("location") or job.location or None


def build_body(job: AciJobConfiguration, location: str) -> dict[str, JsonValue]:
    """Return the body of the PUT, but for the tag with the job key; secrets and logins are references.

    Raises:
        InvalidJobVariables: It has too many tags.
    """
    group = copy.deepcopy(job.container_group)
    properties: dict[str, Any] = dict(group.get("properties") or {})
    main, *others = containers(job)
    properties["containers"] = [_container(job, main), *others]
    properties["osType"] = properties.get("osType") or "Linux"
    properties["restartPolicy"] = "Never"
    if subnets := properties.get("subnetIds") or [{"id": each} for each in job.subnet_ids]:
        properties["subnetIds"] = subnets
    if job.dns_servers and not properties.get("dnsConfig"):
        properties["dnsConfig"] = {"nameServers": job.dns_servers}
    logins = [*(properties.get("imageRegistryCredentials") or ()), *_login(job)]
    if logins:
        properties["imageRegistryCredentials"] = logins
    body = {
        **group,
        "location": location,
        "tags": _tags(job, group),
        "identity": _identity(job, group, logins),
        "properties": properties,
    }
    return cast("dict[str, JsonValue]", _canonical(_without_empty(body)))


def _container(job: AciJobConfiguration, template: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(template.get("properties") or {})
    requests = dict((given.get("resources") or {}).get("requests") or {})
    requests.setdefault("cpu", job.cpu if job.cpu is not None else 1.0)
    requests.setdefault("memoryInGB", job.memory if job.memory is not None else 1.0)
    if job.gpu_count and "gpu" not in requests:
        requests["gpu"] = {"count": job.gpu_count, "sku": job.gpu_sku}
    properties = {
        **given,
        "image": given.get("image") or job.image,
        "command": given.get("command") or _command(job),
        "environmentVariables": _environment(job, given.get("environmentVariables")),
        "resources": {**(given.get("resources") or {}), "requests": requests},
    }
    return {**template, "name": template.get("name") or DEFAULT_CONTAINER, "properties": properties}


def _command(job: AciJobConfiguration) -> list[str] | None:
    """Return the whole command line: a group's `command` replaces the image's ENTRYPOINT and CMD together."""
    entry = split_command(job.entrypoint, "entrypoint") if isinstance(job.entrypoint, str) else job.entrypoint
    words = [*(entry or ()), *(job.command_list() or ())]
    return words or None


def _environment(job: AciJobConfiguration, listed: object) -> list[dict[str, Any]]:
    """Return the variables in the order of their names. The template's literal ones stand; the service's names win."""
    given = listed if isinstance(listed, list) else []
    template: dict[str, dict[str, Any]] = {
        str(each.get("name")): dict(each) for each in given if isinstance(each, dict)
    }
    own: dict[str, dict[str, Any]] = {}
    for name, value in job.env.items():
        if value is not None:
            own[name] = {"name": name, "value": value}
    for name, ref in job.secret_env.items():
        own[name] = {"name": name, "secureValue": ref}
    service = {name: own[name] for name in SERVICE_ENV if name in own}
    merged = own | template | service
    return [merged[name] for name in sorted(merged)]


def _login(job: AciJobConfiguration) -> list[dict[str, Any]]:
    if not job.image_registry:
        return []
    if id_ := block_ref(job.image_registry):
        return [{"$ref": {"block_document_id": id_}}]
    return [{"server": server_of(job.image_registry["registry_url"]), "identity": job.image_registry["identity"]}]


def server_of(registry_url: str) -> str:
    """Return the host of a registry, as Azure wants it: without https:// and a path."""
    return registry_url.strip().removeprefix("https://").removeprefix("http://").partition("/")[0]


def _identity(
    job: AciJobConfiguration, group: Mapping[str, Any], logins: list[dict[str, Any]]
) -> dict[str, Any] | None:
    given = dict(group.get("identity") or {})
    pulling = [str(login["identity"]) for login in logins if login.get("identity")]
    ids: dict[str, Any] = {
        each: {} for each in (*(given.get("userAssignedIdentities") or ()), *job.identities, *pulling)
    }
    if not ids:
        return given or None
    kind = "SystemAssigned, UserAssigned" if "SystemAssigned" in str(given.get("type", "")) else "UserAssigned"
    return {**given, "type": kind, "userAssignedIdentities": ids}


def _tags(job: AciJobConfiguration, group: Mapping[str, Any]) -> dict[str, str]:
    given = {**({"name": job.name} if job.name else {}), **job.labels, **(group.get("tags") or {})}
    ours = {name: value for name, value in job.labels.items() if name.startswith("push-pools/")}
    tags = {
        _NOT_IN_TAGS.sub("-", name)[:512]: str(value)[:256]
        for name, value in {**given, **ours}.items()
        if value is not None
    }
    tags.pop(KEY_TAG, None)
    if len(tags) > MAX_TAGS - 1:
        problem = f"labels: a container group takes {MAX_TAGS} tags, and these are {len(tags)} and one of the service"
        raise InvalidJobVariables([problem])
    return tags


def body_of(job: AciJobConfiguration, key: str) -> dict[str, Any]:
    """Return the body under a key, the same for the same job, whoever asks and whenever; secrets are references.

    Raises:
        JobRejected: The job was not prepared.
    """
    if not job.is_complete:
        raise JobRejected(TYPE, "the job was not prepared", codes=["NotPrepared"])
    body: dict[str, Any] = copy.deepcopy(job.container_group)
    body["tags"] = {**(body.get("tags") or {}), KEY_TAG: key}
    return body


def with_secrets(body: Any, open_block: Callable[[str], Any]) -> Any:
    """Return the body with the values that its references name. Only now are they in memory.

    Raises:
        JobRejected: A reference leads to something else than it should.
        PlatformUnavailable: A block cannot be read now.
    """
    if (ref := SecretRef.parse(body)) is not None:
        return _secret(open_block(ref.block_id), ref)
    if isinstance(body, dict) and body.keys() == {"$ref"} and (id_ := block_ref(body)):
        return _login_of(open_block(id_))
    if isinstance(body, dict):
        return {name: with_secrets(value, open_block) for name, value in body.items()}
    if isinstance(body, list):
        return [with_secrets(value, open_block) for value in body]
    return body


def _secret(block: Any, ref: SecretRef) -> str:
    value = block
    for part in ref.field.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    reveal = getattr(value, "get_secret_value", None)
    value = reveal() if reveal else value
    if not isinstance(value, str):
        raise JobRejected(TYPE, f"the block has no secret field {ref.field!r} (any more)", codes=["BadSecret"])
    return value


def _login_of(block: Any) -> dict[str, str]:
    if not all(hasattr(block, name) for name in ("registry_url", "username", "password")):
        reason = f"it names a block of another type ({type(block).__name__}); give a docker-registry-credentials block"
        raise JobRejected(TYPE, reason, codes=["BadSecret"], variable="image_registry")
    return {
        "server": server_of(block.registry_url),
        "username": block.username,
        "password": block.password.get_secret_value(),
    }


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _without_empty(item) for name, item in value.items() if name != "userAssignedIdentities"}
        kept = {name: item for name, item in kept.items() if item is not None and item not in ({}, [])}
        # The ids are keys of empty objects.
        ids = value.get("userAssignedIdentities")
        return {**kept, "userAssignedIdentities": ids} if ids else kept
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if item is not None and item not in ({}, [])]
    return value


def _canonical(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))
