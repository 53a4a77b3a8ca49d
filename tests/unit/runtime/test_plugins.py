"""A module in the current folder that Ray's workers would import in place of an installed package."""

import pytest

from phaseb.errors import ConfigError
from phaseb.runtime.plugins import check_shadowing


@pytest.mark.parametrize("name", ["numpy.py", "torch/__init__.py", "yaml/__init__.py"])
def test_a_module_of_the_name_of_an_installed_package_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    package = name.removesuffix(".py").partition("/")[0]
    with pytest.raises(ConfigError, match=f"would be imported in place of the package {package} .*rename it"):
        check_shadowing(tmp_path)


@pytest.mark.parametrize("name", ["mine.py", "torch/data.npz", "numpy.txt", "phaseb/__init__.py"])
def test_other_files_are_not(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    check_shadowing(tmp_path)
