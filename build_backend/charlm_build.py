"""PEP 517 backend: setuptools, with the torch that is already installed.

A build in isolation sees none of the user's packages, so naming torch as a build requirement
would download a second one, and compile against it. This backend looks in the site-packages of
the interpreter that runs it, and asks for torch only where there is none and kernels are wanted.
"""

import os
import sys
import sysconfig

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

TORCH = "torch>=2.10"


def _site_packages():
    found = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return [
        p for p in dict.fromkeys(found) if os.path.isfile(os.path.join(p, "torch", "version.py"))
    ]


def _extra_requirements():
    if os.environ.get("CHARLM_FAST_NATIVE") == "0" or sys.platform == "win32":
        return []  # setup.py compiles nothing
    visible = any(os.path.isfile(os.path.join(p, "torch", "version.py")) for p in sys.path if p)
    return [] if visible or _site_packages() else [TORCH]


def _show_installed_torch():
    # At the end, so that the isolated setuptools comes first.
    sys.path.extend(p for p in _site_packages() if p not in sys.path)


def get_requires_for_build_wheel(config_settings=None):
    return _extra_requirements()


def get_requires_for_build_editable(config_settings=None):
    return _extra_requirements()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _show_installed_torch()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _show_installed_torch()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
