"""What of an environment is packed, and what makes an archive another one."""

import os
from pathlib import Path

import pytest

from tfos.environment_spec import EnvironmentSpec
from tfos.environments.contents import editable_files, fingerprint, installed_files
from tfos.environments.inspection import Editable, Inspection, problems


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def site(tmp_path):
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    write(
        site,
        {
            "tool/__init__.py": "A = 1\n",
            "tool/__pycache__/__init__.cpython-311.pyc": "compiled",
            "tool-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n",
            "tool-1.0.dist-info/RECORD": (
                "tool/__init__.py,sha256=aa,6\n../../../bin/tool,sha256=q,\n"
            ),
            "pyspark/__init__.py": "",
            "pyspark/jars/spark.jar": "jar",
            "pyspark-4.0.0.dist-info/METADATA": "",
            "pyspark_extension/__init__.py": "",
            "__editable__.own.pth": "/home/ada/own\n",
            "by_hand.py": "",
        },
    )
    return site


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project" / "own"
    write(
        root,
        {
            "__init__.py": "",
            "deep/model.py": "B = 1\n",
            "__pycache__/__init__.cpython-311.pyc": "",
            ".cache/x": "",
        },
    )
    return root


@pytest.fixture
def inspection(site, project):
    return inspected(site, {"own": project})


def inspected(site, sources, **changes):
    values = {
        "spec": EnvironmentSpec("venv", "/venv"),
        "prefix": site.parents[2],
        "version": (3, 11, 7),
        "build": "3.11.7 (main) CPython",
        "machine": "x86_64",
        "base_prefix": Path("/base"),
        "base_executable": Path("/base/bin/python3.11"),
        "stdlib": Path("/base/lib/python3.11"),
        "platstdlib": Path("/base/lib/python3.11"),
        "site_packages": (site,),
        "system_site": False,
        "editables": (Editable("own", tuple(sources.items()), ("__editable__.own.pth",)),),
        "foreign_paths": (),
        **changes,
    }
    return Inspection(**values)


def digest(inspection):
    return fingerprint(inspection, installed_files(inspection), editable_files(inspection))


class TestWhatIsPacked:
    def test_packages_without_pyspark_and_the_finders_of_editable_ones(self, inspection):
        assert {file.name for file in installed_files(inspection)} == {
            "tool/__init__.py",
            "tool/__pycache__/__init__.cpython-311.pyc",
            "tool-1.0.dist-info/METADATA",
            "tool-1.0.dist-info/RECORD",
            "pyspark_extension/__init__.py",
            "by_hand.py",
        }

    def test_editable_packages_from_where_they_are(self, inspection, project):
        found = {file.name: file.path for file in editable_files(inspection)}
        assert found == {
            "own/__init__.py": project / "__init__.py",
            "own/deep/model.py": project / "deep" / "model.py",
        }

    def test_editable_packages_go_by_the_name_they_are_imported_by(self, site, project):
        module = project / "deep" / "model.py"
        sources = {"renamed": project, "alone.py": module}
        names = [file.name for file in editable_files(inspected(site, sources))]
        assert names == ["renamed/__init__.py", "renamed/deep/model.py", "alone.py"]

    def test_links_are_followed_but_not_around(self, inspection, site, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "data.bin").write_bytes(b"123")
        (site / "linked").symlink_to(tmp_path / "elsewhere")
        (site / "tool" / "around").symlink_to(site / "tool")
        (site / "tool" / "gone").symlink_to(site / "nowhere")
        found = {file.name: file.size_bytes for file in installed_files(inspection)}
        assert found["linked/data.bin"] == 3
        assert not any("around" in name or "gone" in name for name in found)


class TestTheFingerprint:
    def test_the_same_packages_elsewhere_are_the_same(self, inspection, site, project, tmp_path):
        before = digest(inspection)
        moved = tmp_path / "moved" / "lib" / "python3.11" / "site-packages"
        moved.parent.mkdir(parents=True)
        site.rename(moved)
        project = project.rename(tmp_path / "own")
        record = moved / "tool-1.0.dist-info" / "RECORD"
        # The script names the environment's directory, so its checksum differs.
        record.write_text(record.read_text().replace("sha256=q", "sha256=z"))
        (moved / "tool" / "__pycache__" / "__init__.cpython-311.pyc").write_text("by another path")
        os.utime(moved / "tool" / "__init__.py", (1, 1))
        os.utime(project / "deep" / "model.py", (1, 1))
        assert digest(inspected(moved, {"own": project})) == before

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("tool-1.0.dist-info/RECORD", "tool/__init__.py,sha256=bb,6\n"),
            ("tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 2\n"),
            ("tool/__init__.py", "A = 10\n"),
            ("new.py", ""),
        ],
    )
    def test_another_package_is_another(self, inspection, site, name, content):
        before = digest(inspection)
        (site / name).write_text(content)
        assert digest(inspection) != before

    def test_a_file_by_hand_counts_by_its_time(self, inspection, site):
        before = digest(inspection)
        os.utime(site / "by_hand.py", (1, 1))
        assert digest(inspection) != before

    def test_an_editable_package_counts_by_its_content(self, inspection, project):
        model = project / "deep" / "model.py"
        before = digest(inspection)
        os.utime(model, (1, 1))
        assert digest(inspection) == before
        model.write_text("B = 2\n")
        assert digest(inspection) != before

    @pytest.mark.parametrize(
        "changes", [{"build": "3.11.8 (main) CPython"}, {"machine": "aarch64"}]
    )
    def test_another_interpreter_is_another(self, inspection, site, project, changes):
        assert digest(inspected(site, {"own": project}, **changes)) != digest(inspection)

    def test_what_conda_installed_counts(self, inspection):
        before = digest(inspection)
        write(inspection.prefix, {"conda-meta/openssl-3.0.1-h1.json": "{}"})
        assert digest(inspection) != before


class TestProblems:
    def told(self, inspection, python=(3, 11), machine="x86_64"):
        return problems(inspection, ["tensorflow"], python=python, machine=machine)

    def test_what_is_missing_is_named_with_the_command(self, inspection):
        (told,) = self.told(inspection)
        missing = "tensorflow pyarrow pandas tfos"
        assert f"lacks {missing.replace(' ', ', ')}" in told
        assert told.endswith(f"{inspection.prefix}/bin/python -m pip install {missing}")

    def test_nothing_is_told_of_an_environment_that_has_all(self, site, project):
        for name in ("tensorflow", "pyarrow", "pandas"):
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
            write(site, {f"{name}-1.dist-info/METADATA": metadata})
        editables = (Editable("tfos", (("tfos", project),), ()),)
        assert self.told(inspected(site, {}, editables=editables)) == []

    @pytest.mark.parametrize(
        ("here", "said"),
        [
            ({"python": (3, 12)}, "has Python 3.11, the driver 3.12"),
            ({"machine": "aarch64"}, "is for x86_64, this machine is aarch64"),
        ],
    )
    def test_what_the_driver_has_otherwise(self, inspection, here, said):
        assert any(said in line for line in self.told(inspection, **here))

    def test_a_driver_in_the_cluster_has_the_environments_python(self, inspection):
        assert not any("Python" in line for line in self.told(inspection, python=None))

    def test_what_could_not_be_found_or_is_not_packed(self, site):
        inspection = inspected(site, {}, foreign_paths=(Path("/home/ada/lib"),))
        told = self.told(inspection)
        assert any(line.startswith("own is installed editable") for line in told)
        assert any(line.startswith("/home/ada/lib, which a .pth file adds") for line in told)
