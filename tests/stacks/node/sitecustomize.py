"""Let a child process believe that it runs in a container: its host name, its `/app`, its service account files."""

import os
import socket

HOME = os.environ["HOME"]


def _in_home(real):
    return lambda path, *args, **kwargs: real(f"{HOME}/app" if path == "/app" else path, *args, **kwargs)


os.makedirs, os.chdir = _in_home(os.makedirs), _in_home(os.chdir)
socket.gethostname = lambda: os.environ["HOSTNAME"]

try:
    from kubernetes.config import incluster_config
except ImportError:  # a container whose image has no Kubernetes client
    pass
else:
    incluster_config.SERVICE_TOKEN_FILENAME = f"{HOME}/account"
    incluster_config.SERVICE_CERT_FILENAME = os.environ["CLUSTER_CA"]
