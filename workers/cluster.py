"""How the driver joins the cluster that started it."""

import json
import os

import ray

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # where Ray Job Submission tells a driver of its runtime environment


def join() -> None:
    """`ray.init`, with actors in the environment of their nodes rather than in the driver's.

    The driver's variables are for it alone, the attempt's token first of all; and Ray starts a process with variables
    of its own by way of another one, which costs a second or two.
    """
    if told := os.environ.get(_JOB_CONFIG):
        os.environ[_JOB_CONFIG] = without_variables(told)
    ray.init(address=os.environ["RAY_ADDRESS"])


def without_variables(job_config: str) -> str:
    """The same JSON without the environment variables."""
    config = json.loads(job_config)
    config.get("runtime_env", {}).pop("env_vars", None)
    return json.dumps(config)
